"""Every kind of CIFAR-10 reads alike; everything else is refused with the file, the reason and the remedy."""

import builtins
import hashlib
import io
import os
import pickle
import shutil
import struct
import tarfile
import time
import zipfile
import zlib

import fixtures
import numpy as np
import promise_5_files
import promise_6_data
import pytest
from PIL import Image

from cifar_helpers import archives
from cifar_helpers.errors import DataError


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    fixtures.shrink(monkeypatch)


@pytest.fixture
def given():
    return fixtures.arrays()


def refused(path, match, folder):
    """Reading raises a DataError that matches and leaves the folder as it was."""
    before = fixtures.tree(folder)
    with pytest.raises(DataError, match=match) as caught:
        archives.read(path)
    assert fixtures.tree(folder) == before
    return str(caught.value)


# --- what is accepted ---


@pytest.mark.parametrize("kind", fixtures.EXACT_KINDS)
def test_every_kind_gives_the_same_images_in_the_same_order(kind, given, tmp_path):
    fixtures.assert_equal(archives.read(fixtures.KINDS[kind](tmp_path, given)), given)


@pytest.mark.parametrize("kind", fixtures.PICTURE_KINDS)
def test_image_folders_give_the_same_images_in_the_order_of_the_classes(kind, given, tmp_path):
    found = archives.read(fixtures.KINDS[kind](tmp_path, given))
    fixtures.assert_equal(found, fixtures.by_class(given), images_differ_by=0 if kind == "png folders" else 4)


def test_a_path_may_be_a_text(given, tmp_path):
    fixtures.assert_equal(archives.read(str(fixtures.KINDS["npz"](tmp_path, given))), given)


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_pickles_of_python_2_and_3_are_read(module, given, tmp_path, monkeypatch):
    for pickler in (fixtures._Python2Pickler, pickle.Pickler):
        members = fixtures.python_members(given, pickler, module)
        fixtures.accept_pickles(monkeypatch, members)
        fixtures.assert_equal(archives.read(fixtures.write_archive(tmp_path / "a.tar.gz", members)), given)


def test_the_official_checksum_is_said_to_be_verified(given, tmp_path, monkeypatch):
    path = fixtures.KINDS["binary archive"](tmp_path, given)
    assert "not the official archive's checksum" in archives.read(path).description
    monkeypatch.setattr(archives, "BINARY_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    assert archives.read(path).description == "binary archive cifar-10-binary.tar.gz, checksum verified"


def test_hidden_entries_and_other_files_among_the_pictures_are_passed_over(given, tmp_path):
    path = fixtures.KINDS["png folders"](tmp_path, given)
    (path / "train" / ".cache").mkdir()
    (path / "train" / "notes.txt").touch()
    (path / "train" / "cat" / "._0003.png").touch()
    (path / "train" / "__MACOSX").mkdir()
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (path / "train" / "cat" / name).touch()
    (path / "train" / "cat" / "folder.png").mkdir()
    fixtures.assert_equal(archives.read(path), fixtures.by_class(given))


@pytest.mark.parametrize("folder", ["../../outside", "/outside", "a/../../.."])
def test_an_archive_with_names_outside_is_read_and_writes_nothing(folder, given, tmp_path):
    members = fixtures.binary_members(given) | {"extra.txt": b"x"}
    path = fixtures.write_archive(tmp_path / "in" / "a.tar.gz", members, folder)
    before = fixtures.tree(tmp_path)
    fixtures.assert_equal(archives.read(path), given)
    assert fixtures.tree(tmp_path) == before


# --- paths and files that are something else ---


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    refused(tmp_path / "nowhere.tar.gz", r"nowhere\.tar\.gz does not exist: correct CIFAR10_PATH", tmp_path)


def test_a_folder_without_cifar10_is_refused(tmp_path):
    refused(tmp_path, f"{tmp_path.name} holds no CIFAR-10: name the official archive", tmp_path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><title>404</title>", b"", b"\x1f", b"\x80\x02}q\x00."])
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    refused(tmp_path / "cifar-10-binary.tar.gz",
            r"cifar-10-binary\.tar\.gz is neither a gzipped archive nor .* download CIFAR-10 again", tmp_path)


@pytest.mark.parametrize("kind", ["binary archive", "python archive", "npz", "compressed npz"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_a_truncated_file_is_refused(kind, share, given, tmp_path):
    path = fixtures.KINDS[kind](tmp_path, given)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(share * len(whole))])
    refused(path, f"{path.name} .*(download it again|save it again)", tmp_path)


@pytest.mark.parametrize("kind", [
    "binary archive",
    "python archive", "npz", "compressed npz",
])
def test_a_file_with_one_wrong_byte_is_refused(kind, given, tmp_path):
    path = fixtures.KINDS[kind](tmp_path, given)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    refused(path, path.name, tmp_path)


# --- official archives and their folders ---


def test_a_foreign_archive_is_refused(tmp_path):
    path = fixtures.write_archive(tmp_path / "linux.tar.gz", {"README": b"hello"})
    refused(path, r"linux\.tar\.gz is an archive without data_batch_1 .* get the official", tmp_path)


@pytest.mark.parametrize("kind", ["binary", "python"])
@pytest.mark.parametrize("form", ["archive", "folder"])
def test_a_missing_batch_is_named(kind, form, given, tmp_path):
    members = getattr(fixtures, f"{kind}_members")(given)
    missing = next(name for name in members if "data_batch_3" in name)
    del members[missing]
    path = getattr(fixtures, f"write_{form}")(tmp_path / "copy", members)
    refused(path, f"copy lacks {missing}: the copy is incomplete, get a whole one", tmp_path)


def test_a_missing_binary_test_batch_is_named(given, tmp_path):
    members = fixtures.binary_members(given)
    del members["test_batch.bin"]
    refused(fixtures.write_archive(tmp_path / "a.tar.gz", members), r"a\.tar\.gz lacks test_batch\.bin", tmp_path)


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_a_batch_of_another_length_is_refused(form, given, tmp_path):
    members = fixtures.binary_members(given)
    members["data_batch_2.bin"] = members["data_batch_2.bin"][:-1]
    path = getattr(fixtures, f"write_{form}")(tmp_path / "copy", members)
    refused(path, r"copy: data_batch_2\.bin has 61,459 bytes instead of 61,460: .* get a whole one", tmp_path)


@pytest.mark.parametrize("label", [10, 255])
def test_a_label_out_of_range_is_refused(label, given, tmp_path):
    given.train_labels[7] = label
    path = fixtures.KINDS["binary archive"](tmp_path, given)
    refused(path, rf"cifar-10-binary\.tar\.gz \(training\): image 7 has the label {label}, .* get the right one",
            tmp_path)


def test_classes_of_unequal_size_are_refused(given, tmp_path):
    given.test_labels[np.flatnonzero(given.test_labels == 3)[0]] = 2
    path = fixtures.KINDS["binary archive"](tmp_path, given)
    refused(path, r"\.tar\.gz \(test\): 20 images of 20, 3 of them of class 'bird' instead of 2: .* get a whole one",
            tmp_path)


@pytest.mark.parametrize("name", ["data_batch_1.bin", "test_batch.bin"])
def test_an_archive_that_holds_a_batch_twice_is_refused(name, given, tmp_path):
    members = fixtures.binary_members(given)
    path = fixtures.write_archive(tmp_path / "a.tar.gz", [*members.items(), (name, members[name])])
    refused(path, rf"a\.tar\.gz holds {name} twice: get the official archive", tmp_path)


def test_a_link_in_an_archive_is_not_followed(given, tmp_path):
    members = fixtures.binary_members(given)
    (tmp_path / "secret").write_bytes(members.pop("data_batch_5.bin"))
    path = fixtures.write_archive(tmp_path / "plain.tar.gz", members)
    with tarfile.open(path) as plain, tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for member in plain:
            tar.addfile(member, plain.extractfile(member))
        link = tarfile.TarInfo("any/data_batch_5.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        tar.addfile(link)
    refused(tmp_path / "a.tar.gz", r"a\.tar\.gz lacks data_batch_5\.bin", tmp_path)


def test_an_archive_that_unpacks_to_far_more_is_refused(given, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_ARCHIVE", 1_000_000)
    path = fixtures.write_archive(tmp_path / "bomb.tar.gz",
                                  {"big": bytes(1_000_000)} | fixtures.binary_members(given))
    refused(path, r"bomb\.tar\.gz unpacks to over 1 MB, .* get cifar-10-binary\.tar\.gz", tmp_path)


def batches(given, folder="any"):
    return [(tarfile.REGTYPE, f"{folder}/{name}", raw) for name, raw in fixtures.binary_members(given).items()]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_an_archive_of_any_tar_program_is_read(form, given, tmp_path):
    folder = "/".join(["deep"] * (20 if form == tarfile.USTAR_FORMAT else 60)) + ("/é" * (form != tarfile.USTAR_FORMAT))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=form) as tar:
        for name, raw in fixtures.binary_members(given).items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    fixtures.assert_equal(archives.read(tmp_path / "a.tar.gz"), given)


def test_an_archive_in_several_gzip_files_and_padded_is_read(given, tmp_path):
    raw = fixtures.tar_of(batches(given))
    path = fixtures.gzipped(tmp_path / "a.tar.gz", *(raw[start:start + 60_000] for start in range(0, len(raw), 60_000)))
    path.write_bytes(path.read_bytes() + bytes(100_000))
    fixtures.assert_equal(archives.read(path), given)


def test_a_python_archive_that_is_not_the_official_one_is_not_opened(given, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "PYTHON_SHA256", "0" * 64)
    monkeypatch.setattr(archives, "_unpickle", lambda raw: pytest.fail("a pickle was opened"))
    path = fixtures.KINDS["python archive"](tmp_path, given)
    refused(path, r"differs from the official cifar-10-python\.tar\.gz, .* get the official archive", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
                                  tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_member_that_is_no_plain_file_is_left_out(kind, given, tmp_path):
    members = [(kind, "any/data_batch_5.bin", b"") if "_5" in name else (*_, name, raw)
               for *_, name, raw in batches(given)]
    path = fixtures.gzipped(tmp_path / "a.tar.gz", fixtures.tar_of(members))
    refused(path, r"a\.tar\.gz lacks data_batch_5\.bin", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_any_number_of_long_names_is_read(kind, given, tmp_path):
    """`tarfile` calls itself for each: RecursionError."""
    members = [(kind, "x", b"")] * 3_000 + batches(given)
    fixtures.assert_equal(archives.read(fixtures.gzipped(tmp_path / "a.tar.gz", fixtures.tar_of(members))), given)


def test_a_header_that_takes_quadratic_time_in_tarfile_is_read(given, tmp_path):
    """CVE-2024-6232: minutes, before Python 3.12.6."""
    members = [(tarfile.XHDTYPE, "x", b"1" * 1_000_000), *batches(given)]
    before = time.process_time()
    fixtures.assert_equal(archives.read(fixtures.gzipped(tmp_path / "a.tar.gz", fixtures.tar_of(members))), given)
    assert time.process_time() - before < 2


@pytest.mark.parametrize("size", [b"\x80" + b"\x7f" * 11, b"\xff" * 12, b"77777777777\0", b"x" * 12])
def test_a_member_of_an_impossible_size_is_refused(size, given, tmp_path):
    raw = bytearray(fixtures.tar_of(batches(given)))
    raw[124:136], raw[148:156] = size, b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    path = fixtures.gzipped(tmp_path / "a.tar.gz", bytes(raw))
    refused(path, r"a\.tar\.gz cannot be read .* download it again", tmp_path)


def test_an_archive_of_very_many_members_is_refused(tmp_path):
    raw = fixtures.tar_of([(tarfile.REGTYPE, "x", b"")])[:512] * 300_000
    before = time.process_time()
    refused(fixtures.gzipped(tmp_path / "a.tar.gz", raw), r"a\.tar\.gz holds over 10,000 files", tmp_path)
    assert time.process_time() - before < 5


def test_an_archive_of_very_many_empty_gzip_files_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(zlib.compress(b"", wbits=31) * 1_000_000)
    before = time.process_time()
    refused(tmp_path / "a.tar.gz", r"a\.tar\.gz is made of over 10,000 gzip files", tmp_path)
    assert time.process_time() - before < 5


def test_a_gzip_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    tracemalloc = pytest.importorskip("tracemalloc")
    fixtures.gzipped(tmp_path / "a.tar.gz", *[bytes(100_000_000)] * 5)
    tracemalloc.start()
    try:
        refused(tmp_path / "a.tar.gz", r"a\.tar\.gz unpacks to over 400 MB", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1e9
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.tar.gz", "a.npz"])
def test_a_file_larger_than_any_copy_is_refused_unread(name, tmp_path):
    with (tmp_path / name).open("wb") as file:
        file.truncate(archives.LARGEST_ARCHIVE + 1)
    with pytest.raises(DataError, match=rf"{name} has over 400 MB, .* get cifar-10-binary\.tar\.gz"):
        archives.read(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system's folders")
def test_pipes_are_not_waited_for(given, tmp_path):
    os.mkfifo(tmp_path / "pipe.tar.gz")
    with pytest.raises(DataError, match=r"pipe\.tar\.gz is neither a file nor a folder: name a copy"):
        archives.read(tmp_path / "pipe.tar.gz")
    for kind, name, match in (("binary folder", "data_batch_1.bin", "lacks data_batch_1.bin"),
                              ("binary folder", "test_batch.bin", "holds no CIFAR-10"),
                              ("png folders", "train/cat/0000.png", "holds 9 pictures instead of 10")):
        path = fixtures.KINDS[kind](tmp_path / name.replace("/", " "), given)
        file = sorted((path / "train" / "cat").iterdir())[0] if "/" in name else path / name
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(DataError, match=match):
            archives.read(path)
    with pytest.raises(DataError, match=r"pipe\.tar\.gz is no file: name a PNG or JPEG picture"):
        archives.read_picture(tmp_path / "pipe.tar.gz")


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~no such user/a", "\ud800"])
def test_a_path_that_no_system_takes_is_refused(path):
    with pytest.raises(DataError, match="correct"):
        archives.read(path)


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match="correct"):
        archives.read(tmp_path / "a")


@pytest.mark.parametrize("kind", ["binary folder", "python folder"])
def test_a_batch_file_far_too_large_is_refused_unread(kind, given, tmp_path):
    path = fixtures.KINDS[kind](tmp_path, given)
    batch = next(file for file in path.iterdir() if "data_batch_4" in file.name)
    batch.write_bytes(bytes(80_001))
    refused(path, rf"{batch.name} is larger than any CIFAR-10 batch: .* get the official archive", tmp_path)


# --- pickles ---


class Malicious:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_a_pickle_that_differs_from_the_official_one_is_not_opened(form, given, tmp_path):
    marker = tmp_path / "marker"
    members = fixtures.python_members(given)
    members["data_batch_2"] = pickle.dumps(Malicious(os.mkdir, str(marker)), 2)
    path = getattr(fixtures, f"write_{form}")(tmp_path / "copy", members)
    refused(path, "copy: data_batch_2 differs from the official file, .* get the official archive, or the binary one",
            tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("attack", [
    lambda marker: Malicious(os.mkdir, marker),
    lambda marker: Malicious(os.system, f"mkdir {marker}"),
    lambda marker: Malicious(builtins.exec, f"import os; os.mkdir({marker!r})"),
    lambda marker: Malicious(np.save, marker, np.zeros(1)),
    lambda marker: Malicious(np.ndarray.tofile, np.zeros(1), marker),
], ids=["os.mkdir", "os.system", "exec", "np.save", "ndarray.tofile"])
def test_a_malicious_pickle_is_not_executed_even_if_its_checksum_is_taken_for_right(
        attack, protocol, given, tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    members = fixtures.python_members(given)
    members["data_batch_1"] = pickle.dumps({b"data": attack(str(marker)), b"labels": []}, protocol)
    fixtures.accept_pickles(monkeypatch, members)
    refused(fixtures.write_folder(tmp_path / "copy", members), "asks for .* do not open it", tmp_path)
    assert not list(tmp_path.glob("marker*"))
    pickle.loads(members["data_batch_1"])
    assert list(tmp_path.glob("marker*")), "the attack must work on a plain unpickler, or this test shows nothing"


PICKLES_THAT_BREAK = {
    "an array of objects at an address": b"\x80\x02}(U\x04datacnumpy\nndarray\n(K\x01\x85U\x01OU\x08AAAAAAAAtRu.",
    "a number of 2 billion objects": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a million tuples, one in the other": b"\x80\x02}(N" + b"\x85" * 1_000_000 + b"Nu.",
    "a class": b"\x80\x02cnumpy\ndtype\n.",
    "its own __code__": b"\x80\x02cnumpy\ndtype\nN}U\x08__code__Ns\x86b.",
    "no dictionary": b"\x80\x02].",
    "an array of a petabyte": b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(tR(K\x01\x8a\x07"
                              b"\0\0\0\0\0\0\x04\x85cnumpy\ndtype\n(U\x02u1tR\x89U\x00tbU\x06labels]u.",
    "a number of half a million digits": b"I" + b"9" * 500_000 + b"\n.",
    "a text of 4 EB": b"\x80\x04\x8d\0\0\0\0\0\0\0\x40.",
    "_codecs.encode of no text": b"\x80\x02c_codecs\nencode\nNN\x86R.",
    "nothing": b"",
}


@pytest.mark.parametrize("what", PICKLES_THAT_BREAK)
def test_a_pickle_that_breaks_unpicklers_is_refused_even_if_its_checksum_is_taken_for_right(
        what, given, tmp_path, monkeypatch):
    members = fixtures.python_members(given) | {"data_batch_3": PICKLES_THAT_BREAK[what]}
    fixtures.accept_pickles(monkeypatch, members)
    refused(fixtures.write_archive(tmp_path / "copy", members), "copy: data_batch_3.*(get the official|do not open)",
            tmp_path)


# --- .npz ---


@pytest.mark.parametrize(("changed", "match"), [
    ({"y_test": None}, r"lacks y_test: save the arrays with np\.savez"),
    ({"x_train": None, "y_train": None}, r"lacks x_train, y_train: save the arrays"),
    ({"x_train": np.zeros((100, 32, 32, 3), np.float32)}, r"\(training\): images are float32 .* convert them"),
    ({"x_test": np.zeros((20, 3, 32, 32), np.uint8)}, r"\(test\): images are uint8 of shape \(20, 3, 32, 32\)"),
    ({"x_test": np.zeros((20, 28, 28), np.uint8)}, r"\(test\): images are uint8 of shape \(20, 28, 28\)"),
    ({"x_train": np.uint8(0)}, r"\(training\): images are uint8 of shape \(\)"),
    ({"y_train": np.zeros(100)}, r"labels are float64 .* give one whole number"),
    ({"y_train": np.array(["cat"] * 100)}, r"labels are <U3 .* give one whole number"),
    ({"y_train": np.eye(10, dtype=int)[np.arange(100) % 10]}, r"labels are int64 of shape \(100, 10\) .* give one"),
    ({"y_train": np.arange(99) % 10}, r"labels are int64 of shape \(99,\) for 100 images"),
    ({"y_train": np.arange(100) % 10 + 1}, r"image 9 has the label 10, outside 0 to 9: .* get the right one"),
    ({"y_train": np.arange(100) % 10 - 1}, r"image 0 has the label -1, outside 0 to 9"),
    ({"x_test": np.zeros((0, 32, 32, 3), np.uint8), "y_test": np.zeros(0, int)}, r"0 images of 20, .* get a whole one"),
    ({"x_train": np.full(100, None)}, r"not an \.npz of plain arrays .* save it again with np\.savez"),
    ({"y_test": np.full(20, None)}, r"not an \.npz of plain arrays .* save it again"),
])
def test_npz_of_other_arrays_is_refused(changed, match, given, tmp_path):
    path = fixtures.write_npz(tmp_path / "mine.npz", given, **changed)
    refused(path, r"mine\.npz.*" + match, tmp_path)


def test_a_malicious_object_array_is_not_executed(given, tmp_path):
    marker = tmp_path / "marker"
    attack = np.full(20, Malicious(os.mkdir, str(marker)))
    refused(fixtures.write_npz(tmp_path / "mine.npz", given, y_test=attack), r"mine\.npz .* save it again", tmp_path)
    assert not marker.exists()


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "letters.npz", "w") as file:
        file.writestr("word/document.xml", "<xml/>")
    refused(tmp_path / "letters.npz", r"letters\.npz lacks x_train, y_train, x_test, y_test: save the arrays", tmp_path)


@pytest.mark.parametrize("member", [
    b"not an array",
    fixtures.npy("{'descr': '|u1',"),
    fixtures.npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000,)}"),
], ids=["no array", "cut header", "a petabyte"])
def test_npz_with_a_member_that_is_no_array_is_refused(member, given, tmp_path):
    fixtures.write_npz(tmp_path / "whole.npz", given)
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "mine.npz", "w") as file:
        for name in whole.namelist():
            file.writestr(name, member if name == "y_train.npy" else whole.read(name))
    refused(tmp_path / "mine.npz", r"mine\.npz .* save it again", tmp_path)


def test_npz_of_an_unknown_compression_is_refused(given, tmp_path):
    path = fixtures.KINDS["npz"](tmp_path, given)
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 10] = 97
    path.write_bytes(raw)
    refused(path, r"cifar\.npz .* save it again", tmp_path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_npz_in_another_compression_than_numpys_is_refused(compression, given, tmp_path):
    path = fixtures.KINDS["npz"](tmp_path, given)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "mine.npz", "w", compression) as file:
        for name in whole.namelist():
            file.writestr(name, whole.read(name))
    refused(tmp_path / "mine.npz", r"mine\.npz .* compressed in a way .* save it again", tmp_path)


def test_npz_with_a_password_is_refused(given, tmp_path):
    path = fixtures.KINDS["npz"](tmp_path, given)
    raw = bytearray(path.read_bytes())
    for place in (raw.index(b"PK\3\4") + 6, raw.index(b"PK\1\2") + 8):
        raw[place] |= 1
    path.write_bytes(raw)
    refused(path, r"cifar\.npz .*(encrypted|password).* save it again", tmp_path)


def test_npz_with_a_very_large_directory_is_refused(given, tmp_path):
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as file:
        for number in range(30_000):
            file.writestr(f"{number}", b"")
    refused(tmp_path / "mine.npz", r"mine\.npz .*its directory is too large.* save it again", tmp_path)


def test_npz_whose_header_hides_part_of_an_array_is_refused(given, tmp_path):
    """NumPy alone reads as much as the header says, and then nothing compares the checksum."""
    labels = np.concatenate([fixtures.npz_arrays(given)["y_train"], [[1]] * 1000]).astype(np.uint8)
    path = fixtures.write_npz(tmp_path / "mine.npz", given, y_train=labels)
    path.write_bytes(path.read_bytes().replace(b"(1100, 1)", b"(100, 1) "))
    refused(path, r"mine\.npz .*(longer than its header|CRC).* save it again", tmp_path)


def test_npz_with_labels_of_unsigned_64_bits_is_read(given, tmp_path):
    path = fixtures.write_npz(tmp_path / "a.npz", given, y_train=given.train_labels.astype(np.uint64))
    fixtures.assert_equal(archives.read(path), given)
    path = fixtures.write_npz(tmp_path / "b.npz", given, y_train=np.full(100, 2**64 - 1, np.uint64))
    refused(path, r"image 0 has the label 18446744073709551615, outside 0 to 9", tmp_path)


def test_npz_with_far_more_labels_than_images_is_refused_before_they_are_converted(given, tmp_path):
    tracemalloc = pytest.importorskip("tracemalloc")
    labels = np.zeros(30_000_000, np.uint8)
    path = fixtures.write_npz(tmp_path / "mine.npz", given, np.savez_compressed, y_train=labels)
    tracemalloc.start()
    try:
        refused(path, r"labels are uint8 of shape \(30000000,\) for 100 images", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("header", [
    fixtures.npy("{'descr': '|u1', 'fortran_order': False, 'shape': " + "(" * 5000 + "}"),
    fixtures.npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}"),
    fixtures.npy("{'descr': '|O', 'fortran_order': False, 'shape': (100,)}"),
    fixtures.npy("{'descr': 'x' * 9, 'fortran_order': False, 'shape': (100,)}"),
    fixtures.npy("{'descr': '<M8[D]', 'fortran_order': False, 'shape': (0,)}"),
    fixtures.npy("\n\n  }{"),
    b"\x93NUMPY\x09\x00" + bytes(100),
    b"\x93NUMPY\x02\x00\xff\xff\xff\x7f",
    b"\x80\x02cos\nsystem\n.",
])
def test_npz_with_a_header_that_breaks_parsers_is_refused(header, given, tmp_path):
    fixtures.write_npz(tmp_path / "whole.npz", given)
    for damaged in archives.NPZ_ARRAYS:
        with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "mine.npz", "w") as file:
            for name in whole.namelist():
                file.writestr(name, header if name == f"{damaged}.npy" else whole.read(name))
        refused(tmp_path / "mine.npz", r"mine\.npz.*(save it again|give one whole number|convert them)", tmp_path)


# --- image folders ---


@pytest.fixture
def pictures(given, tmp_path):
    return fixtures.KINDS["png folders"](tmp_path, given)


def replace_picture(folder, **save):
    file = sorted((folder / "train" / "cat").iterdir())[0]
    Image.new(save.pop("mode", "RGB"), save.pop("size", (32, 32))).save(file, save.pop("format", "PNG"), **save)
    return file


@pytest.mark.parametrize(("picture", "match"), [
    ({"size": (28, 28)}, "is 28 x 28 pixels, not 32 x 32: resize it, or leave it out"),
    ({"size": (32, 64)}, "is 32 x 64 pixels, not 32 x 32"),
    ({"mode": "I;16"}, "has the colour mode 'I;16' .* convert it to RGB, or leave it out"),
    ({"mode": "RGBA"}, "is transparent in parts: save it as RGB on a background"),
    ({"mode": "RGB", "transparency": (0, 0, 0)}, "is transparent in parts"),
    ({"mode": "L", "transparency": 0}, "is transparent in parts"),
    ({"mode": "P", "transparency": 0}, "is transparent in parts"),
    ({"format": "GIF"}, "is no PNG or JPEG picture that can be read: replace it"),
    ({"mode": "CMYK", "format": "JPEG"}, "has the colour mode 'CMYK' .* convert it to RGB"),
    ({"save_all": True, "append_images": [Image.new("RGB", (32, 32), "red")]}, r"has .* 2 frame\(s\), not one frame"),
])
def test_a_picture_of_another_kind_is_refused(picture, match, pictures, tmp_path):
    file = replace_picture(pictures, **picture)
    message = refused(pictures, rf"{file.name} {match}", tmp_path)
    assert str(file) in message


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
def test_a_file_that_is_no_picture_is_refused(content, pictures, tmp_path):
    file = replace_picture(pictures)
    file.write_bytes(content)
    refused(pictures, f"{file.name} is no PNG or JPEG picture that can be read: replace it, or leave it out", tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_picture_is_refused(share, pictures, tmp_path):
    file = sorted((pictures / "test" / "dog").iterdir())[1]
    whole = file.read_bytes()
    file.write_bytes(whole[:int(share * len(whole))])
    refused(pictures, rf"{file.name} is truncated or damaged .* replace it, or leave it out", tmp_path)


def test_a_damaged_tiff_named_png_is_refused(pictures, tmp_path):
    file = replace_picture(pictures, format="TIFF")
    raw = bytearray(file.read_bytes())
    tags = int.from_bytes(raw[8:10], "little")
    struct.pack_into("<I", raw, 10 + 12 * tags, len(raw) - 100)  # a second frame where there is none
    file.write_bytes(raw)
    refused(pictures, f"{file.name} .* leave it out", tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_class_folder_is_refused(split, pictures, tmp_path):
    shutil.rmtree(pictures / split / "frog")
    refused(pictures, rf"{split} has no folder 'frog': make one folder a class \(airplane, .*truck\)", tmp_path)


def test_a_foreign_class_folder_is_refused(pictures, tmp_path):
    (pictures / "test" / "mushroom").mkdir()
    refused(pictures, "test has a folder 'mushroom', which is no class of CIFAR-10: the classes are airplane", tmp_path)


@pytest.mark.parametrize(("change", "count"), [(lambda file: file.unlink(), 9),
                                               (lambda file: shutil.copy(file, file.with_name("copy.png")), 11)])
def test_too_few_or_too_many_pictures_are_refused(change, count, pictures, tmp_path):
    change(sorted((pictures / "train" / "ship").iterdir())[0])
    refused(pictures, f"ship holds {count} pictures instead of 10, .* get a whole one", tmp_path)


def test_a_picture_is_read_as_its_pixels(tmp_path):
    image = fixtures.arrays().test_images[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    assert np.array_equal(archives.read_picture(tmp_path / "a.png"), image)


def test_the_formats_are_the_documented_ones(given):
    """https://www.cs.toronto.edu/~kriz/cifar.html: a label byte, then 1,024 red, green and blue bytes row by row."""
    record = fixtures.binary_members(given)["data_batch_1.bin"][:3073]
    image = given.train_images[0]
    assert record[0] == given.train_labels[0]
    assert (record[1], record[2], record[33], record[1025], record[2049]) == (
        image[0, 0, 0], image[0, 1, 0], image[1, 0, 0], image[0, 0, 1], image[0, 0, 2])
    batch = pickle.load(io.BytesIO(fixtures.python_members(given)["data_batch_1"]), encoding="bytes")
    assert batch[b"data"].tobytes()[:3072] == record[1:]


# --- single pictures ---


def saved(picture, form="PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))


@pytest.mark.parametrize("picture", [
    COLOURS.convert("L"), COLOURS.convert("1"), COLOURS.quantize(200), COLOURS.convert("RGBA"), COLOURS.convert("LA"),
], ids=lambda picture: picture.mode)
def test_a_picture_that_becomes_rgb_without_loss_is_read(picture, pictures, tmp_path):
    file = sorted((pictures / "train" / "cat").iterdir())[0]
    file.write_bytes(saved(picture))
    assert np.array_equal(archives.read_picture(file), np.asarray(picture.convert("RGB")))
    archives.read(pictures)


def test_a_grey_jpeg_is_read():
    found = archives.read_picture(saved(COLOURS.convert("L"), "JPEG"))
    assert (found.shape, found.dtype) == ((32, 32, 3), np.uint8) and (found == found[..., :1]).all()


@pytest.mark.parametrize(("orientation", "turned"), [
    (1, lambda image: image), (3, lambda image: image[::-1, ::-1]), (6, lambda image: np.rot90(image, -1)),
    (8, lambda image: np.rot90(image))])
@pytest.mark.parametrize("size", [(32, 32), None])
def test_a_picture_is_turned_upright(orientation, turned, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = archives.read_picture(saved(COLOURS, exif=exif), size)
    assert np.array_equal(found, turned(np.asarray(COLOURS)))
    found[0] = 0  # the caller's own array


def test_an_uploaded_picture_may_have_any_sensible_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.asarray(COLOURS)[:20]
    raw = saved(Image.fromarray(wide), exif=exif)
    (tmp_path / "a.png").write_bytes(raw)
    for file in (raw, tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(archives.read_picture(file, None), np.rot90(wide, -1))
    assert archives.read_picture(raw, (20, 32)).shape == (32, 20, 3)
    with pytest.raises(DataError, match="The uploaded picture is 20 x 32 pixels, not 32 x 20: resize it"):
        archives.read_picture(raw, (32, 20))
    with pytest.raises(DataError, match="The uploaded picture is 32 x 20 pixels, not 32 x 32: resize it"):
        archives.read_picture(raw)


def test_the_first_frame_of_a_phones_picture_is_read():
    raw = saved(COLOURS, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert np.array_equal(archives.read_picture(raw), archives.read_picture(saved(COLOURS, "JPEG")))


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("size", [(32, 32), None])
def test_a_picture_of_16_bits_is_refused(colour, channels, size):
    """PIL would give 8 of the 16 bits, and say nothing."""
    raw = fixtures.png(32, 32, 16, colour, (b"\0" + b"\xff" * 32 * channels * 2) * 32)
    with pytest.raises(DataError, match=r"not one frame of 8-bit RGB: convert it to RGB"):
        archives.read_picture(raw, size)


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (10_000, 10_000), (2**31 - 1, 2**31 - 1),
                                               (1, 2**31 - 1)])
def test_a_picture_of_far_too_many_pixels_is_refused_undecoded(width, height):
    before = time.process_time()
    with pytest.raises(DataError, match=r"The uploaded picture (is|has) .* pixels.*: make it smaller, or leave it out"):
        archives.read_picture(fixtures.png(width, height, 8, 2), None)
    assert time.process_time() - before < 1


def test_a_picture_with_very_many_passes_is_refused():
    raw = saved(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    start = raw.rindex(b"\xff\xda")
    before = time.process_time()
    with pytest.raises(DataError, match="too many passes over its pixels: save it again"):
        archives.read_picture(raw[:-2] + raw[start:-2] * 2000 + raw[-2:], None)
    assert time.process_time() - before < 1
    assert archives.read_picture(raw, None).shape == (2000, 2000, 3)


def test_a_picture_in_too_large_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_PICTURE_FILE", 2_000_000)
    (tmp_path / "a.png").write_bytes(saved(COLOURS) + bytes(2_000_000))
    for file in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes()):
        with pytest.raises(DataError, match="has over 2 MB: make it smaller, or leave it out"):
            archives.read_picture(file, None)


@pytest.mark.parametrize("size", [(32, 32), None])
def test_every_truncated_picture_is_refused(size):
    for form, step in (("PNG", 37), ("JPEG", 11)):
        raw = saved(COLOURS, form)
        for end in range(0, len(raw) - 20, step):
            with pytest.raises(DataError, match="replace it, or leave it out"):
                archives.read_picture(raw[:end], size)


def test_a_picture_that_is_not_there_is_refused(tmp_path):
    for missing in (tmp_path / "none.png", tmp_path):
        with pytest.raises(DataError, match="is no file: name a PNG or JPEG picture"):
            archives.read_picture(missing, None)


# --- faults ---


def test_a_selection_of_damaged_and_hostile_files_is_survived():
    pytest.importorskip("resource")
    tried = list(promise_5_files.cases("short"))
    assert len(tried) > 600 and not [case for case in tried if not case[1]]


def test_a_fault_is_counted_as_lost(tmp_path, monkeypatch):
    """What `_try` says of a reader that raises another exception, gives other data, or writes a file."""
    said = []
    monkeypatch.setattr(promise_5_files, "_say", said.append)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()

    def wrong(call, right=lambda found: ""):
        promise_5_files._try("a case", call, right, tmp_path / "in")
        return not said[-1][1]

    def refuse(sentence):
        raise DataError(sentence)

    assert wrong(lambda: {}["no key"]) and wrong(lambda: "", promise_5_files._same(fixtures.arrays()))
    assert wrong(lambda: (tmp_path / "in" / "new").touch())
    assert wrong(lambda: refuse("something is wrong")) and wrong(lambda: refuse(f"{tmp_path / 'in'} is wrong"))
    assert not wrong(lambda: refuse(f"{tmp_path / 'in'} is wrong: get another"))


def test_a_selection_of_hostile_pickles_is_not_executed():
    tried = list(promise_6_data.cases("short"))
    assert len(tried) >= 24 and not [case for case in tried if not case[1]]
