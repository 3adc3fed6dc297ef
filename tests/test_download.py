"""A download ends with the right file or with none, soon, loses nothing that arrived, and says what to do."""

import hashlib
import random
import re
import subprocess
import sys
import threading
import time

import fixtures
import promise_1_download as faults
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
    monkeypatch.setitem(download.SIZE, download.BINARY, len(raw))
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
def test_a_bad_server_alone_is_an_error_that_leaves_at_most_a_good_part(kind, serve, archive, tmp_path):
    bad = BAD_SERVERS[kind](serve, archive)
    with pytest.raises(DataError, match=r"could not be downloaded .* check the network.*, or copy .* CIFAR10_PATH"):
        download.fetch(tmp_path / "cache", [bad.source], seconds=0.5)
    part = tmp_path / "cache" / f"{download.BINARY}.part"
    assert left_in(tmp_path / "cache") == ([part.name] if kind in ("cut off", "stops in the middle") else [])
    assert not part.exists() or part.read_bytes() == archive[:1_000]


@pytest.mark.parametrize(("kind", "fault"), [
    ("404", "it answers 404 Not Found"), ("500", "it answers 500"), ("empty", "it offers 0 bytes and the archive has"),
    ("HTML page", f"it offers {len(HTML)} bytes and the archive has"), ("wrong checksum", "the file's hash is not"),
    ("cut off", "the connection broke after 1,000 of"), ("stops in the middle", "it sent nothing for 0.5 s after"),
])
def test_the_error_names_the_host_and_the_fault(kind, fault, serve, archive, tmp_path):
    server = BAD_SERVERS[kind](serve, archive)
    with pytest.raises(DataError, match=rf"{server.host}: {fault}"):
        download.fetch(tmp_path / "cache", [server.source], seconds=0.5)


def test_a_silent_server_is_passed_over(serve, archive, tmp_path):
    with fixtures.silent_server() as silent:
        start = time.monotonic()
        path = download.fetch(tmp_path / "cache", [(download.BINARY, silent), serve().source], seconds=12.0)
    assert path.read_bytes() == archive
    assert time.monotonic() - start < 8


def test_silent_servers_are_given_up_within_the_seconds_however_many(archive, tmp_path):
    with fixtures.silent_server() as one, fixtures.silent_server() as two, fixtures.silent_server() as three:
        start = time.monotonic()
        with pytest.raises(DataError, match=r"none of 3 hosts sent a byte within 2 s\): check the network"):
            download.fetch(tmp_path / "cache", [(download.BINARY, url) for url in (one, two, three)], seconds=2.0)
    assert time.monotonic() - start < 5  # one after another they would take six
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
    assert first.asked == 1 and second.asked <= 1


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
    with pytest.raises(DataError, match=r"could not be downloaded .* set COURSE_CACHE .* CIFAR10_PATH"):
        download.fetch(tmp_path / "file", [serve().source])


def test_every_source_is_encrypted_and_has_a_checksum():
    for name, url in download.SOURCES:
        assert url.startswith("https://") and url.endswith(name)
        assert len(bytes.fromhex(download.SHA256[name])) == 32 and 170e6 < download.SIZE[name] < 171e6


# --- parts ---


@pytest.fixture
def raw():
    """A file of 200,000 bytes that passes for either official archive."""
    raw = faults.archive(random.Random(0), 200_000)
    with faults.official(raw):
        yield raw


@pytest.fixture
def server():
    """Start servers of the fault run; they close after the test."""
    servers = []

    def start(*args, name=download.BINARY, **options):
        servers.append(faults.Server(*args, **options))
        servers[-1].source = (name, servers[-1].url)
        return servers[-1]

    yield start
    for one in servers:
        one.close()


def dropping(server, raw, at, **options):
    return server(raw, stop=lambda: at, **options)


def test_what_arrived_is_resumed_by_the_next_source(raw, server, tmp_path):
    one, two = dropping(server, raw, 150_000), server(raw, delay=0.2)
    assert download.fetch(tmp_path, [one.source, two.source]).read_bytes() == raw
    assert two.asked[-1] == 150_000
    assert left_in(tmp_path) == [download.BINARY]


def test_a_source_that_drops_is_asked_again_where_there_is_no_other(raw, server, tmp_path):
    one = dropping(server, raw, 60_000)
    assert download.fetch(tmp_path, [one.source]).read_bytes() == raw
    assert one.sent == len(raw)


def test_a_later_call_resumes(raw, server, tmp_path):
    one = dropping(server, raw, 150_000, ranges=False)
    with pytest.raises(DataError, match=r"check the network and try again, 0\.\d MB are kept, or copy"):
        download.fetch(tmp_path, [one.source])
    assert left_in(tmp_path) == [f"{download.BINARY}.part"]
    two = server(raw)
    assert download.fetch(tmp_path, [two.source]).read_bytes() == raw
    assert two.sent == 50_000


def test_what_is_here_is_kept_from_a_server_that_knows_no_ranges_and_breaks(raw, server, tmp_path):
    part = tmp_path / f"{download.BINARY}.part"
    part.write_bytes(raw[:100_000])
    with pytest.raises(DataError):
        download.fetch(tmp_path, [dropping(server, raw, 10_000, ranges=False).source])
    assert part.read_bytes() == raw[:100_000]


def test_another_range_than_the_one_asked_for_is_not_taken(raw, server, tmp_path):
    part = tmp_path / f"{download.BINARY}.part"
    part.write_bytes(raw[:100_000])
    one = dropping(server, raw, 10_000, shift=7)
    with pytest.raises(DataError):
        download.fetch(tmp_path, [one.source])
    assert one.asked == [100_000, 0]
    assert part.read_bytes() == raw[:100_000]


def test_the_source_of_the_file_that_is_half_here_comes_first(raw, server, tmp_path):
    (tmp_path / f"{download.PYTHON}.part").write_bytes(raw[:150_000])
    one, two = server(raw), server(raw, name=download.PYTHON)
    assert download.fetch(tmp_path, [one.source, two.source]) == tmp_path / download.PYTHON
    assert two.sent == 50_000


@pytest.mark.parametrize("known", [150_000, 200_000, 200_001])
def test_a_part_of_another_file_is_given_up_for_the_whole_archive(known, raw, server, tmp_path):
    (tmp_path / f"{download.BINARY}.part").write_bytes(bytes(known))
    assert download.fetch(tmp_path, [server(raw).source]).read_bytes() == raw
    assert left_in(tmp_path) == [download.BINARY]


def test_a_part_that_is_complete_needs_no_server(raw, tmp_path):
    (tmp_path / f"{download.BINARY}.part").write_bytes(raw)
    assert download.fetch(tmp_path, []).read_bytes() == raw
    assert left_in(tmp_path) == [download.BINARY]


def test_sources_that_spoil_each_other_s_part_come_to_an_end(raw, server, tmp_path):
    wrong, good = dropping(server, raw[:1] + bytes(len(raw) - 1), 80_000), server(raw, delay=0.2)
    assert download.fetch(tmp_path, [wrong.source, good.source]).read_bytes() == raw
    assert len(good.asked) <= 4


# --- limits ---


def test_a_drip_is_left_for_another_source(raw, server, tmp_path):
    drip, good = server(raw, rate=20_000), server(raw, delay=0.2)
    assert download.fetch(tmp_path, [drip.source, good.source], seconds=0.5).read_bytes() == raw
    assert 0 < drip.sent < 100_000 and good.sent > 100_000


def test_a_drip_is_taken_up_again_where_nothing_else_is_better(raw, server, tmp_path):
    drip, silent = server(raw, rate=80_000), server(raw, delay=30)
    assert download.fetch(tmp_path, [drip.source, silent.source], seconds=0.5).read_bytes() == raw
    first, again = drip.asked
    assert first == 0 and again > 0


def test_less_than_a_drip_is_given_up(raw, server, tmp_path):
    with pytest.raises(DataError, match=r"it sends 0\.\d kB a second|it sent nothing"):
        download.fetch(tmp_path, [server(raw, rate=200).source], seconds=0.3)


def test_a_file_larger_than_the_archive_is_cut_off_at_once(raw, server, tmp_path):
    part, large = tmp_path / f"{download.BINARY}.part", server(raw * 100, framing="chunked", ranges=False)
    part.write_bytes(raw[:150_000])
    with pytest.raises(DataError, match="sends more than the archive's 200,000 bytes"):
        download.fetch(tmp_path, [large.source])
    assert part.read_bytes() == raw[:150_000]
    assert large.sent < 50 * len(raw)


def test_a_network_that_comes_back_is_waited_for(raw, server, tmp_path):
    one = dropping(server, raw, 100_000)
    port = int(re.search(r":(\d+)/", one.url)[1])
    back = threading.Timer(1.0, lambda: server(raw, port=port))

    def lose_the_network():
        while not one.sent:
            time.sleep(0.01)
        one.close()
        back.start()

    loser = threading.Thread(target=lose_the_network)
    loser.start()
    try:
        assert download.fetch(tmp_path, [one.source], seconds=5).read_bytes() == raw
    finally:
        loser.join()
        back.join()


def test_a_full_disk_is_an_error_with_a_remedy_and_is_not_kept_full(raw, server, tmp_path):
    good = server(raw)
    with fixtures.files_limited_to(100_000), pytest.raises(DataError, match="free 1 GB of disk, set COURSE_CACHE"):
        download.fetch(tmp_path, [good.source])
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
def test_a_bar_shows_speed_and_time_left(framing, raw, server, tmp_path, capsys):
    download.fetch(tmp_path, [server(raw, rate=400_000, framing=framing).source])
    shown = capsys.readouterr().err
    assert re.search(r" [1-9]\d%\|.*\[00:0\d<00:0\d, *[\d.]+[kM]B/s\]", shown), shown


# --- the fault run ---


def test_the_short_fault_run_loses_nothing():
    tried = list(faults.cases("short"))
    assert [(what, detail) for what, survived, detail in tried if not survived] == []
    assert len(tried) >= len(faults.KINDS) + 3


def test_the_download_needs_no_tensorflow():
    code = "import sys; from cifar_helpers import download; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
