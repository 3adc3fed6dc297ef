"""Every kind of CIFAR-10 reads alike; everything else is refused with the file, the reason and the remedy."""

import builtins
import io
import os
import pickle
import shutil
import struct
import tarfile
import zipfile

import fixtures
import numpy as np
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
    monkeypatch.setattr(archives, "BINARY_SHA256", archives._sha256(path))
    assert archives.read(path).description == "binary archive cifar-10-binary.tar.gz, checksum verified"


def test_hidden_entries_and_other_files_among_the_pictures_are_passed_over(given, tmp_path):
    path = fixtures.KINDS["png folders"](tmp_path, given)
    (path / "train" / ".cache").mkdir()
    (path / "train" / "notes.txt").touch()
    (path / "train" / "cat" / "._0003.png").touch()
    (path / "train" / "cat" / "Thumbs.db").touch()
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


# --- .npz ---


@pytest.mark.parametrize(("changed", "match"), [
    ({"y_test": None}, r"lacks y_test: save the arrays with np\.savez"),
    ({"x_train": None, "y_train": None}, r"lacks x_train, y_train: save the arrays"),
    ({"x_train": np.zeros((100, 32, 32, 3), np.float32)}, r"\(training\): images are float32 .* convert them"),
    ({"x_test": np.zeros((20, 3, 32, 32), np.uint8)}, r"\(test\): images are uint8 of shape \(20, 3, 32, 32\)"),
    ({"x_test": np.zeros((20, 28, 28), np.uint8)}, r"\(test\): images are uint8 of shape \(20, 28, 28\)"),
    ({"x_train": np.uint8(0)}, r"\(training\): images are uint8 of shape \(\)"),
    ({"y_train": np.zeros(100)}, r"labels are float64: give one whole number"),
    ({"y_train": np.array(["cat"] * 100)}, r"labels are <U3: give one whole number"),
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


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize("member", [
    b"not an array",
    npy("{'descr': '|u1',"),
    npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000,)}"),
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
    ({"mode": "L"}, "has the colour mode 'L' .* convert it to RGB, or leave it out"),
    ({"mode": "RGBA"}, "has the colour mode 'RGBA' .* convert it to RGB"),
    ({"mode": "P"}, "has the colour mode 'P' .* convert it to RGB"),
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
    refused(pictures, f"{file.name} is no picture that can be read: replace it, or leave it out", tmp_path)


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
    refused(pictures, f"ship holds {count} pictures instead of 10: .* get a whole one", tmp_path)


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
