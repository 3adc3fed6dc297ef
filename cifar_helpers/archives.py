"""Read CIFAR-10 from whatever a user has: the official archives, their folders, an .npz, or image folders.

Nothing is extracted to disk and nothing in a file is executed. Formats: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import hashlib
import io
import pickle
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_helpers.errors import DataError

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_PER_CLASS, TEST_PER_CLASS = 5_000, 1_000
TRAIN_BATCHES, TEST_BATCH = tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch"
NPZ_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
LARGEST_ARCHIVE = 400_000_000  # bytes unpacked; the official archives hold 184 MB

BINARY_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
PYTHON_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
# A pickle is read only where its checksum is the official file's (MD5 as torchvision publishes them for the folder).
PICKLE_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


class Arrays(NamedTuple):
    """CIFAR-10 in the order of its source: uint8 images (n, 32, 32, 3), int64 labels (n,) from 0 to 9."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    description: str


def read(path: str | Path) -> Arrays:
    """Read CIFAR-10 from a file or folder of any of the supported kinds.

    Raises DataError, with the file, the reason and the remedy, where the path holds anything else.
    """
    path = Path(path).expanduser()
    try:
        arrays = reader(path)(path)
    except (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error or type(error).__name__}): it is truncated or damaged, "
                        "copy or download it again.") from error
    _check(arrays.train_images, arrays.train_labels, TRAIN_PER_CLASS, f"{path} (training)")
    _check(arrays.test_images, arrays.test_labels, TEST_PER_CLASS, f"{path} (test)")
    return arrays


def reader(path: Path) -> Callable[[Path], Arrays]:
    """The function that reads this kind of file or folder; raises DataError where it is none of the kinds."""
    if not path.exists():
        raise DataError(f"{path} does not exist: correct CIFAR10_PATH, or unset it to let the course look elsewhere.")
    if path.is_dir():
        if (path / "train").is_dir() and (path / "test").is_dir():
            return _read_image_folders
        for folder in (path, path / "cifar-10-batches-bin", path / "cifar-10-batches-py"):
            if (folder / f"{TEST_BATCH}.bin").is_file():
                return lambda _: _from_binary(*_folder_members(folder, ".bin"), "binary folder")
            if (folder / TEST_BATCH).is_file():
                return lambda _: _from_pickles(*_folder_members(folder, ""), "Python folder")
        raise DataError(f"{path} holds no CIFAR-10: name the official archive, its extracted folder (with "
                        "test_batch.bin or test_batch), an .npz, or a folder with train/ and test/ image folders.")
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"\x1f\x8b":
        return _read_archive
    if start == b"PK\x03\x04":
        return _read_npz
    raise DataError(f"{path} is neither a gzipped archive nor an .npz file: download CIFAR-10 again, "
                    "it may be an error page saved under the archive's name.")


def _check(images: np.ndarray, labels: np.ndarray, per_class: int, where: str) -> None:
    total = per_class * len(CLASS_NAMES)
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        raise DataError(f"{where}: images are {images.dtype} of shape {images.shape}, not uint8 of shape "
                        "(n, 32, 32, 3): convert them before you point the course at them.")
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise DataError(f"{where}: labels are {labels.dtype} of shape {labels.shape} for {len(images)} images: "
                        "give one whole number from 0 to 9 an image.")
    if len(labels) and not 0 <= labels.min() <= labels.max() <= 9:
        wrong = int(np.flatnonzero((labels < 0) | (labels > 9))[0])
        raise DataError(f"{where}: image {wrong} has the label {labels[wrong]}, outside 0 to 9: the file is "
                        "damaged or not CIFAR-10 (CIFAR-100 has 100 classes), get the right one.")
    counts = np.bincount(labels, minlength=10)
    if (counts != per_class).any():
        odd = int(np.flatnonzero(counts != per_class)[0])
        raise DataError(f"{where}: {len(labels):,} images of {total:,}, {counts[odd]:,} of them of class "
                        f"{CLASS_NAMES[odd]!r} instead of {per_class:,}: the copy is incomplete, get a whole one.")


# --- official archives and their folders ---


def _read_archive(path: Path) -> Arrays:
    members, unpacked = {}, 0
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            unpacked += member.size
            if unpacked > LARGEST_ARCHIVE:
                raise DataError(f"{path} unpacks to over {LARGEST_ARCHIVE // 1_000_000} MB, more than twice what "
                                "CIFAR-10 holds: it is another archive, get cifar-10-binary.tar.gz.")
            name = member.name.rpartition("/")[2]
            if name.removesuffix(".bin") in PICKLE_MD5 and member.isreg():
                if name in members:
                    raise DataError(f"{path} holds {name} twice: get the official archive.")
                members[name] = tar.extractfile(member).read()
        while tar.fileobj.read(1_000_000):  # to the end, where gzip's checksum is compared
            unpacked += 1_000_000
            if unpacked > LARGEST_ARCHIVE:
                raise DataError(f"{path} goes on after its last file: get the official archive.")
    if not members:
        raise DataError(f"{path} is an archive without data_batch_1 to 5 and test_batch: get the official "
                        "cifar-10-binary.tar.gz or cifar-10-python.tar.gz.")
    if any(name.endswith(".bin") for name in members):
        return _from_binary(members.get, path, "binary archive", _sha256(path) == BINARY_SHA256)
    return _from_pickles(members.get, path, "Python archive")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_members(folder: Path, suffix: str) -> tuple[Callable[[str], bytes | None], Path]:
    def read_member(name: str) -> bytes | None:
        file = folder / name
        largest = TRAIN_PER_CLASS * 2 * 4_000  # a batch is a fifth of the training images, 3,073 bytes each
        if file.is_file() and file.stat().st_size > largest:
            raise DataError(f"{file} is larger than any CIFAR-10 batch: it is another file, get the official archive.")
        return file.read_bytes() if file.is_file() else None

    return read_member, folder


def _from_binary(member: Callable, path: Path, kind: str, official: bool = False) -> Arrays:
    def records(name: str, count: int) -> np.ndarray:
        raw = member(f"{name}.bin")
        if raw is None:
            raise DataError(f"{path} lacks {name}.bin: the copy is incomplete, get a whole one.")
        if len(raw) != count * 3073:
            raise DataError(f"{path}: {name}.bin has {len(raw):,} bytes instead of {count * 3073:,}: "
                            "it is truncated or of another data set, get a whole one.")
        return np.frombuffer(raw, np.uint8).reshape(count, 3073)

    train = np.concatenate([records(name, TRAIN_PER_CLASS * 2) for name in TRAIN_BATCHES])
    test = records(TEST_BATCH, TEST_PER_CLASS * 10)
    note = "checksum verified" if official else "not the official archive's checksum"
    return Arrays(_from_planes(train[:, 1:]), train[:, 0].astype(np.int64),
                  _from_planes(test[:, 1:]), test[:, 0].astype(np.int64), f"{kind} {path.name}, {note}")


def _from_planes(planes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can build NumPy arrays and plain containers, and nothing else."""

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode("latin1")
        if name == "_reconstruct" and module.startswith(("numpy.core.", "numpy._core.")):
            return np.core.multiarray._reconstruct if not hasattr(np, "_core") else np._core.multiarray._reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise DataError(f"a pickle asks for {module}.{name}: it is not an official CIFAR-10 file, do not open it.")


def _from_pickles(member: Callable, path: Path, kind: str) -> Arrays:
    def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
        raw = member(name)
        if raw is None:
            raise DataError(f"{path} lacks {name}: the copy is incomplete, get a whole one.")
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != PICKLE_MD5[name]:
            raise DataError(f"{path}: {name} differs from the official file, and the Python format can carry "
                            "programs: get the official archive, or the binary one, which cannot.")
        content = _ArraysOnly(io.BytesIO(raw), encoding="bytes").load()
        return _from_planes(content[b"data"]), np.asarray(content[b"labels"], np.int64)

    train = [batch(name) for name in TRAIN_BATCHES]
    test_images, test_labels = batch(TEST_BATCH)
    return Arrays(np.concatenate([images for images, _ in train]), np.concatenate([labels for _, labels in train]),
                  test_images, test_labels, f"{kind} {path.name}, checksum verified")


# --- .npz and image folders ---


def _read_npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if missing := [name for name in NPZ_ARRAYS if name not in stored.files]:
                raise DataError(f"{path} lacks {', '.join(missing)}: save the arrays with "
                                "np.savez(path, x_train=…, y_train=…, x_test=…, y_test=…).")
            if sum(member.file_size for member in stored.zip.infolist()) > LARGEST_ARCHIVE:
                raise DataError(f"{path} unpacks to over {LARGEST_ARCHIVE // 1_000_000} MB, more than twice what "
                                "CIFAR-10 holds: save the four arrays alone, as uint8, with np.savez.")
            x_train, y_train, x_test, y_test = (stored[name] for name in NPZ_ARRAYS)
        if not all(isinstance(array, np.ndarray) for array in (x_train, y_train, x_test, y_test)):
            raise ValueError("a member is no array")
    except (ValueError, KeyError, RuntimeError, MemoryError, tokenize.TokenError) as error:
        raise DataError(f"{path} is not an .npz of plain arrays ({error}): save it again with np.savez.") from error
    # Keras gives labels of shape (n, 1)
    flat = [labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels for labels in (y_train, y_test)]
    for labels in flat:
        if labels.dtype.kind not in "iu":
            raise DataError(f"{path}: labels are {labels.dtype}: give one whole number from 0 to 9 an image.")
    return Arrays(x_train, flat[0].astype(np.int64), x_test, flat[1].astype(np.int64), f"arrays {path.name}")


def _read_image_folders(path: Path) -> Arrays:
    train = _read_split(path / "train", TRAIN_PER_CLASS)
    test = _read_split(path / "test", TEST_PER_CLASS)
    return Arrays(*train, *test, f"image folders {path.name}")


def _read_split(folder: Path, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    found = {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    for name in CLASS_NAMES:
        if name not in found:
            raise DataError(f"{folder} has no folder {name!r}: make one folder a class "
                            f"({', '.join(CLASS_NAMES)}) with its pictures.")
    if foreign := sorted(found - set(CLASS_NAMES)):
        raise DataError(f"{folder} has a folder {foreign[0]!r}, which is no class of CIFAR-10: "
                        f"the classes are {', '.join(CLASS_NAMES)}.")
    images = np.empty((10 * per_class, 32, 32, 3), np.uint8)
    for number, name in enumerate(CLASS_NAMES):
        files = sorted(file for file in (folder / name).iterdir()
                       if file.suffix.lower() in (".png", ".jpg", ".jpeg") and not file.name.startswith("."))
        if len(files) != per_class:
            raise DataError(f"{folder / name} holds {len(files):,} pictures instead of {per_class:,}: "
                            "the copy is incomplete or has extra files, get a whole one.")
        for index, file in enumerate(files):
            images[number * per_class + index] = read_picture(file)
    return images, np.repeat(np.arange(10), per_class)


def read_picture(file: Path) -> np.ndarray:
    """One 32 x 32 RGB picture as uint8 (32, 32, 3).

    Raises DataError where the file is no picture, or one of another size, colour mode or number of frames.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=("PNG", "JPEG")) as picture:
            if picture.size != (32, 32):
                raise DataError(f"{file} is {picture.size[0]} x {picture.size[1]} pixels, not 32 x 32: "
                                "resize it, or leave it out.")
            if picture.mode != "RGB" or getattr(picture, "n_frames", 1) != 1:
                raise DataError(f"{file} has the colour mode {picture.mode!r} with "
                                f"{getattr(picture, 'n_frames', 1)} frame(s), not one frame of 8-bit RGB: "
                                "convert it to RGB, or leave it out.")
            return np.asarray(picture, np.uint8)
    except UnidentifiedImageError as error:
        raise DataError(f"{file} is no picture that can be read: replace it, or leave it out.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is truncated or damaged ({error}): replace it, or leave it out.") from error
