"""A download ends with the right file or with none, soon, and says what to do."""

import hashlib
import threading
import time

import fixtures
import pytest

from cifar_helpers import archives, download
from cifar_helpers.errors import DataError

HTML = b"<!DOCTYPE html><title>Please log in</title>"


@pytest.fixture
def archive(monkeypatch, tmp_path):
    """The bytes of a tiny archive that passes for the official one."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fixtures.shrink(monkeypatch)
    raw = fixtures.write_archive(tmp_path / "made" / "a", fixtures.binary_members(fixtures.arrays())).read_bytes()
    monkeypatch.setitem(download.SHA256, download.BINARY, hashlib.sha256(raw).hexdigest())
    return raw


@pytest.fixture
def serve(archive):
    """Start servers and get their sources; with no body they serve the right archive."""
    servers, over = [], threading.Event()

    def start(body=archive, **options):
        servers.append(fixtures.Server(body, **options))
        servers[-1].source = (download.BINARY, servers[-1].url)
        return servers[-1]

    start.over = over
    yield start
    over.set()
    for server in servers:
        server.close()


BAD_SERVERS = {
    "404": lambda serve, raw: serve(HTML, status=404),
    "500": lambda serve, raw: serve(b"", status=500),
    "empty": lambda serve, raw: serve(b""),
    "HTML page": lambda serve, raw: serve(HTML),
    "wrong checksum": lambda serve, raw: serve(raw[:-1] + b"x"),
    "cut off": lambda serve, raw: serve(raw[:1_000], promised=len(raw)),
    "stops in the middle": lambda serve, raw: serve(raw[:1_000], promised=len(raw), stall=serve.over),
}


def left_in(folder):
    return [file.name for file in folder.rglob("*") if file.is_file()]


def test_a_good_server_gives_the_archive_and_nothing_else(serve, archive, tmp_path):
    path = download.fetch(tmp_path / "new" / "cache", [serve().source])
    assert path == tmp_path / "new" / "cache" / "cifar-10-binary.tar.gz"
    assert path.read_bytes() == archive
    assert left_in(path.parent) == ["cifar-10-binary.tar.gz"]
    fixtures.assert_equal(archives.read(path), fixtures.arrays())


@pytest.mark.parametrize("kind", [
    "404", "500", "empty", "HTML page", "wrong checksum", "cut off", "stops in the middle"])
def test_a_good_server_makes_up_for_a_bad_one_that_is_faster(kind, serve, archive, tmp_path):
    bad = BAD_SERVERS[kind](serve, archive)
    path = download.fetch(tmp_path / "cache", [bad.source, serve(delay=0.1).source], seconds=1.0)
    assert path.read_bytes() == archive
    assert left_in(path.parent) == ["cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("kind", BAD_SERVERS)
def test_a_bad_server_alone_is_an_error_that_leaves_nothing(kind, serve, archive, tmp_path):
    bad = BAD_SERVERS[kind](serve, archive)
    with pytest.raises(DataError, match=r"could not be downloaded .* check the network, or copy .* CIFAR10_PATH"):
        download.fetch(tmp_path / "cache", [bad.source], seconds=0.5)
    assert left_in(tmp_path / "cache") == []


@pytest.mark.parametrize("body", [HTML, b"wrong"])
def test_the_error_names_the_host_and_the_fault(body, serve, tmp_path):
    server = serve(body)
    with pytest.raises(DataError, match=rf"{server.host}: .*hash"):
        download.fetch(tmp_path / "cache", [server.source])


def test_a_silent_server_is_passed_over(serve, archive, tmp_path):
    with fixtures.silent_server() as silent:
        start = time.monotonic()
        path = download.fetch(tmp_path / "cache", [(download.BINARY, silent), serve().source], seconds=1.0)
    assert path.read_bytes() == archive
    assert time.monotonic() - start < 3


def test_silent_servers_are_given_up_within_the_seconds_however_many(archive, tmp_path):
    with fixtures.silent_server() as one, fixtures.silent_server() as two, fixtures.silent_server() as three:
        start = time.monotonic()
        with pytest.raises(DataError, match=r"none of 3 hosts sent a byte within 1 s\): check the network"):
            download.fetch(tmp_path / "cache", [(download.BINARY, url) for url in (one, two, three)], seconds=1.0)
    assert time.monotonic() - start < 2.5
    assert left_in(tmp_path) == ["a"]


def test_unreachable_servers_are_given_up_soon(archive, tmp_path):
    start = time.monotonic()
    with pytest.raises(DataError, match=r"none of 2 hosts .* copy cifar-10-binary\.tar\.gz .* set CIFAR10_PATH"):
        download.fetch(tmp_path / "cache", [(download.BINARY, fixtures.unused_address()),
                                            (download.BINARY, "http://host.invalid/a.tar.gz")], seconds=2)
    assert time.monotonic() - start < 4
    assert left_in(tmp_path) == ["a"]


@pytest.mark.parametrize("delay", [0, 0.3])
def test_the_first_of_two_good_servers_serves_even_if_it_answers_later(delay, serve, tmp_path):
    first, second = serve(delay=delay), serve()
    download.fetch(tmp_path / "cache", [first.source, second.source])
    assert first.asked == 2 and second.asked <= 1


@pytest.mark.parametrize("name", [download.BINARY, download.PYTHON])
def test_an_archive_that_stands_there_is_not_downloaded_again(name, serve, archive, monkeypatch, tmp_path):
    monkeypatch.setitem(download.SHA256, name, hashlib.sha256(archive).hexdigest())
    (tmp_path / name).write_bytes(archive)
    server = serve()
    assert download.fetch(tmp_path, [server.source]) == tmp_path / name
    assert server.asked == 0


def test_a_damaged_archive_that_stands_there_is_replaced(serve, archive, tmp_path):
    (tmp_path / download.BINARY).write_bytes(archive[:-1])
    assert download.fetch(tmp_path, [serve().source]).read_bytes() == archive


def test_a_damaged_archive_is_not_returned_where_no_server_answers(archive, tmp_path):
    (tmp_path / download.BINARY).write_bytes(archive[:-1])
    with pytest.raises(DataError, match="could not be downloaded"):
        download.fetch(tmp_path, [(download.BINARY, fixtures.unused_address())], seconds=1)


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(serve, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"could not be downloaded .* CIFAR10_PATH"):
        download.fetch(tmp_path / "file", [serve().source])


def test_every_source_is_encrypted_and_has_a_checksum():
    for name, url in download.SOURCES:
        assert url.startswith("https://") and url.endswith(name)
        assert len(bytes.fromhex(download.SHA256[name])) == 32
