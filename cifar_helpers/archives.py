"""Read CIFAR-10 from whatever a user has: the official archives, their folders, an .npz, or image folders.

Nothing is extracted to disk and nothing in a file is executed. Files are taken for hostile: what a header claims is
compared with a limit before memory is taken for it. Formats: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import hashlib
import io
import pickle
import pickletools
import re
import tarfile
import warnings
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
LARGEST_ARCHIVE = 400_000_000  # bytes, packed or unpacked; the official archives hold 184 MB
MOST_MEMBERS = 10_000  # of a gzip or a tar file; the official archives have one and nine
LARGEST_PICTURE = 50_000_000  # pixels; most phones give 12 million, the finest cameras 50
LARGEST_PICTURE_FILE = 30_000_000  # bytes
PIECE = 1 << 16  # bytes that are read at a time

BINARY_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
PYTHON_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
# A pickle is opened only where its checksum is the official file's, and in an archive only where the archive's is too.
# torchvision publishes the MD5 of the extracted files. Two files of one MD5 can be made, but no file of an MD5 that is
# given (RFC 6151, section 2).
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
    try:
        path = Path(path).expanduser()
        arrays = reader(path)(path)
        train_labels = _check(arrays.train_images, arrays.train_labels, TRAIN_PER_CLASS, f"{path} (training)")
        test_labels = _check(arrays.test_images, arrays.test_labels, TEST_PER_CLASS, f"{path} (test)")
    except (EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{path} cannot be read ({_reason(error)}): it is truncated or damaged, "
                        "copy or download it again.") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, or the home folder of an unknown user
        raise DataError(f"{path} cannot be read ({_reason(error)}): correct the path, see that you may open it, or "
                        "copy or download it again.") from error
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than is free: close other programs and kernels.") from error
    return arrays._replace(train_labels=train_labels, test_labels=test_labels)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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
    if not path.is_file():  # a pipe would be waited for, and a device may never end
        raise DataError(f"{path} is neither a file nor a folder: name a copy of cifar-10-binary.tar.gz.")
    if path.stat().st_size > LARGEST_ARCHIVE:
        raise DataError(f"{path} has over {LARGEST_ARCHIVE // 1_000_000} MB, more than twice what CIFAR-10 holds: "
                        "it is another file, get cifar-10-binary.tar.gz.")
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"\x1f\x8b":
        return _read_archive
    if start == b"PK\x03\x04":
        return _read_npz
    raise DataError(f"{path} is neither a gzipped archive nor an .npz file: download CIFAR-10 again, "
                    "it may be an error page saved under the archive's name.")


def _check(images: np.ndarray, labels: np.ndarray, per_class: int, where: str) -> np.ndarray:
    """The labels as int64, which may take eight times their memory, so that their number is compared first."""
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
    labels = labels.astype(np.int64)
    counts = np.bincount(labels, minlength=10)
    if (counts != per_class).any():
        odd = int(np.flatnonzero(counts != per_class)[0])
        raise DataError(f"{where}: {len(labels):,} images of {total:,}, {counts[odd]:,} of them of class "
                        f"{CLASS_NAMES[odd]!r} instead of {per_class:,}: the copy is incomplete, get a whole one.")
    return labels


# --- official archives and their folders ---


def _read_archive(path: Path) -> Arrays:
    content, sha256 = _unpack(path)
    members = _batches(content, path)
    if not members:
        raise DataError(f"{path} is an archive without data_batch_1 to 5 and test_batch: get the official "
                        "cifar-10-binary.tar.gz or cifar-10-python.tar.gz.")
    if any(name.endswith(".bin") for name in members):
        return _from_binary(members.get, path, "binary archive", sha256 == BINARY_SHA256)
    if sha256 != PYTHON_SHA256:
        raise DataError(f"{path} differs from the official cifar-10-python.tar.gz, and the Python format can carry "
                        "programs: get the official archive, or the binary one, which cannot.")
    return _from_pickles(members.get, path, "Python archive")


def _unpack(path: Path) -> tuple[memoryview, str]:
    """What a gzip file holds, and the SHA-256 of the file itself.

    Raises EOFError where the file ends early, zlib.error where it is damaged, and DataError where it unpacks to more
    than LARGEST_ARCHIVE, or has more than MOST_MEMBERS: empty ones would take hours and no memory.
    """
    content, digest, members, inflate, packed = io.BytesIO(), hashlib.sha256(), 0, None, b""
    with path.open("rb") as file:
        while True:
            if not packed:
                packed = file.read(PIECE)
                digest.update(packed)
                if not packed:
                    break
            if inflate is None:
                packed = packed.lstrip(b"\0")  # padding between members and at the end is allowed
                if not packed:
                    continue
                inflate = zlib.decompressobj(wbits=31)  # gzip, with its checksum
                members += 1
                if members > MOST_MEMBERS:
                    raise DataError(f"{path} is made of over {MOST_MEMBERS:,} gzip files: get the official archive.")
            content.write(inflate.decompress(packed, 16 * PIECE))
            if content.tell() > LARGEST_ARCHIVE:
                raise DataError(f"{path} unpacks to over {LARGEST_ARCHIVE // 1_000_000} MB, more than twice what "
                                "CIFAR-10 holds: it is another archive, get cifar-10-binary.tar.gz.")
            packed = inflate.unconsumed_tail
            if inflate.eof:
                packed, inflate = inflate.unused_data, None
    if inflate:
        raise EOFError("the gzip file ends early")
    return content.getbuffer(), digest.hexdigest()


def _batches(content: memoryview, path: Path) -> dict[str, memoryview]:
    """The CIFAR-10 batches of a tar file by their names without folders; links, devices and other files are left out.

    Members are walked through here, since `tarfile` calls itself for each long name, holds all headers in memory, and
    before Python 3.12.6 searches them in quadratic time (CVE-2024-6232). Raises tarfile.TarError or EOFError where the
    file is damaged.
    """
    found, start, long_name = {}, 0, ""
    for _ in range(MOST_MEMBERS):
        header = content[start:start + tarfile.BLOCKSIZE].tobytes()
        if not header.strip(b"\0"):
            return found
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        start += tarfile.BLOCKSIZE
        bodiless = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE,
                    tarfile.FIFOTYPE)
        size = 0 if member.type in bodiless else member.size
        if not 0 <= size <= len(content) - start:
            raise EOFError("the tar file ends early")
        body = content[start:start + size]
        start += -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if member.type == tarfile.GNUTYPE_LONGNAME:
            long_name = body[:65_536].tobytes().partition(b"\0")[0].decode(errors="replace")
            continue
        if member.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            line = re.search(rb"(?:^|\n)\d+ path=([^\n]{1,65536})\n", body)
            long_name = line[1].decode(errors="replace") if line else long_name
            continue
        if member.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            continue
        name = (long_name or member.name).rpartition("/")[2]
        long_name = ""
        if name.removesuffix(".bin") in PICKLE_MD5 and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            if name in found:
                raise DataError(f"{path} holds {name} twice: get the official archive.")
            found[name] = body
    raise DataError(f"{path} holds over {MOST_MEMBERS:,} files: it is another archive, get cifar-10-binary.tar.gz.")


def _folder_members(folder: Path, suffix: str) -> tuple[Callable[[str], bytes | None], Path]:
    def read_member(name: str) -> bytes | None:
        file = folder / name
        largest = TRAIN_PER_CLASS * 2 * 4_000  # a batch is a fifth of the training images, 3,073 bytes each
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            raw = opened.read(largest + 1)
        if len(raw) > largest:
            raise DataError(f"{file} is larger than any CIFAR-10 batch: it is another file, get the official archive.")
        return raw

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


class _Pixels:
    """Takes the place of a NumPy array in a pickle, and takes no state but that of an array of bytes."""

    def __setstate__(self, state):
        _, shape, kind, _, raw = state
        if kind != "u1" or not isinstance(raw, bytes):
            raise ValueError("an array is not of bytes")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape)


class _Kind(str):
    """Takes the place of a NumPy dtype: its name, whose byte order is of no use for single bytes."""

    def __setstate__(self, state):
        pass


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that builds arrays of bytes and plain containers, and calls nothing that is not defined here.

    NumPy's own functions are not called: `numpy.ndarray` builds an array of objects at any address that a pickle gives.
    """

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode("latin1")
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return lambda *_: _Pixels()
        if (module, name) == ("numpy", "dtype"):
            return lambda kind, *_: _Kind(kind if isinstance(kind, str) else kind.decode())
        if (module, name) == ("numpy", "ndarray"):
            return None  # only ever an argument of _reconstruct
        raise DataError(f"a pickle asks for {module[:80]}.{name[:80]}: it is not an official CIFAR-10 file, "
                        "do not open it.")


def _unpickle(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (n, 32, 32, 3), and labels, int64 (n,), of a batch.

    Raises whatever an unpickler may for bytes that are no batch, and DataError where they ask for a program.
    """
    tuples = 0
    for opcode, argument, _ in pickletools.genops(raw):
        # the unpickler makes its table of objects as long as the largest number in it, up to 32 GB
        if "PUT" in opcode.name and argument > len(raw):
            raise ValueError("it numbers more objects than it can hold")
        tuples += "TUPLE" in opcode.name
        if tuples > 1_000:  # an official batch has a handful; hashing a million, one in the other, ends the process
            raise ValueError("it holds too many tuples")
    content = _ArraysOnly(io.BytesIO(raw), encoding="bytes").load()
    images, labels = content[b"data"].array, np.asarray(content[b"labels"])
    if labels.dtype.kind not in "iu" or images.shape != (labels.size, 3072):
        raise ValueError(f"it holds data of shape {images.shape} and {labels.size} labels")
    return _from_planes(images), labels.astype(np.int64)


def _from_pickles(member: Callable, path: Path, kind: str) -> Arrays:
    def batch(name: str) -> tuple[np.ndarray, np.ndarray]:
        raw = member(name)
        if raw is None:
            raise DataError(f"{path} lacks {name}: the copy is incomplete, get a whole one.")
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != PICKLE_MD5[name]:
            raise DataError(f"{path}: {name} differs from the official file, and the Python format can carry "
                            "programs: get the official archive, or the binary one, which cannot.")
        try:
            return _unpickle(bytes(raw))
        except DataError as error:
            raise DataError(f"{path}: {name}: {error}") from error
        except Exception as error:  # an unpickler raises any kind for a damaged file
            raise DataError(f"{path}: {name} is no batch of CIFAR-10 ({_reason(error)}): get the official "
                            "archive.") from error

    train = [batch(name) for name in TRAIN_BATCHES]
    test_images, test_labels = batch(TEST_BATCH)
    return Arrays(np.concatenate([images for images, _ in train]), np.concatenate([labels for _, labels in train]),
                  test_images, test_labels, f"{kind} {path.name}, checksum verified")


# --- .npz and image folders ---


class _SmallReads(io.BufferedReader):
    """A file of which at most 1 MB is read at once, since zipfile takes a directory of any size into memory."""

    def read(self, size=-1):
        if size is not None and size > 1_000_000:
            raise ValueError("its directory is too large")
        return super().read(size)


def _read_npz(path: Path) -> Arrays:
    try:
        with _SmallReads(io.FileIO(path)) as file, zipfile.ZipFile(file) as stored:
            members = {member.filename.removesuffix(".npy"): member for member in stored.infolist()}
            if missing := [name for name in NPZ_ARRAYS if name not in members]:
                raise DataError(f"{path} lacks {', '.join(missing)}: save the arrays with "
                                "np.savez(path, x_train=…, y_train=…, x_test=…, y_test=…).")
            if sum(members[name].file_size for name in NPZ_ARRAYS) > LARGEST_ARCHIVE:
                raise DataError(f"{path} unpacks to over {LARGEST_ARCHIVE // 1_000_000} MB, more than twice what "
                                "CIFAR-10 holds: save the four arrays alone, as uint8, with np.savez.")
            x_train, y_train, x_test, y_test = (_read_array(stored, members[name]) for name in NPZ_ARRAYS)
    except (DataError, OSError):
        raise
    except Exception as error:  # zipfile and NumPy raise a dozen kinds for a damaged file
        raise DataError(f"{path} is not an .npz of plain arrays ({_reason(error)}): save it again with "
                        "np.savez.") from error
    # Keras gives labels of shape (n, 1)
    flat = [labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels for labels in (y_train, y_test)]
    return Arrays(x_train, flat[0], x_test, flat[1], f"arrays {path.name}")


def _read_array(stored: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is compressed in a way that NumPy does not use")
    with stored.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # the checksum is compared only at the end
            raise ValueError(f"{member.filename} is longer than its header says")
    return array


LEFT_BY_SYSTEMS = ("__MACOSX", "@eaDir")  # folders beside the user's own; other systems' begin with a dot
LOSSLESS = ("RGB", "L", "1", "P", "RGBA", "LA", "PA")  # PIL's modes that become 8-bit RGB without loss, if opaque


def _read_image_folders(path: Path) -> Arrays:
    train = _read_split(path / "train", TRAIN_PER_CLASS)
    test = _read_split(path / "test", TEST_PER_CLASS)
    return Arrays(*train, *test, f"image folders {path.name}")


def _read_split(folder: Path, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    found = {entry.name for entry in folder.iterdir()
             if entry.is_dir() and not entry.name.startswith(".") and entry.name not in LEFT_BY_SYSTEMS}
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
                       if file.suffix.lower() in (".png", ".jpg", ".jpeg") and not file.name.startswith(".")
                       and file.is_file())
        if len(files) != per_class:
            raise DataError(f"{folder / name} holds {len(files):,} pictures instead of {per_class:,}, "
                            "counting PNG and JPEG files: the copy is incomplete or has extra files, get a whole one.")
        for index, file in enumerate(files):
            images[number * per_class + index] = read_picture(file)
    return images, np.repeat(np.arange(10), per_class)


def read_picture(file: str | Path | bytes, size: tuple[int, int] | None = (32, 32)) -> np.ndarray:
    """A PNG or JPEG picture as uint8 RGB (height, width, 3), turned upright as its EXIF orientation says.

    `file` is a path, or the bytes of an uploaded file. `size` is the (width, height) that it must have; None takes any
    size up to LARGEST_PICTURE pixels. Greyscale and palette pictures, and opaque ones with an alpha channel, become
    RGB without loss. Of a phone's picture with a second frame (MPO: depth, brightness), the first is read.

    Raises DataError where the file is no picture, is damaged, too large or of another size, moves, is transparent in
    parts, or has other colours than 8-bit ones (16-bit, CMYK).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name, raw = ("The uploaded picture", file) if isinstance(file, bytes) else (file, _picture_bytes(Path(file)))

    def check_size(found: tuple[int, int], *allowed: tuple[int, int]) -> None:
        if size and found not in allowed:
            raise DataError(f"{name} is {found[0]} x {found[1]} pixels, not {size[0]} x {size[1]}: "
                            "resize it, or leave it out.")
        if found[0] * found[1] > LARGEST_PICTURE:
            raise DataError(f"{name} is {found[0]} x {found[1]} pixels, over {LARGEST_PICTURE // 1_000_000} million: "
                            "make it smaller, or leave it out.")

    try:
        if len(raw) > LARGEST_PICTURE_FILE:
            raise DataError(f"{name} has over {LARGEST_PICTURE_FILE // 1_000_000} MB: make it smaller, or leave it "
                            "out.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd EXIF data: the checks here decide
            with Image.open(io.BytesIO(raw), formats=("PNG", "JPEG")) as picture:
                check_size(picture.size, size, size and size[::-1])
                frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
                deep = "16" in str(picture.tile[0][3]) if picture.tile else False  # PIL would cut 16 bits to 8 unasked
                if picture.mode not in LOSSLESS or deep or frames != 1:
                    raise DataError(f"{name} has the colour mode {picture.mode!r}{' of 16 bits' * deep} with {frames} "
                                    "frame(s), not one frame of 8-bit RGB: convert it to RGB, or leave it out.")
                # each scan of a progressive JPEG goes over all pixels, and there may be any number of them
                if raw.count(b"\xff\xda") * picture.width * picture.height > 20 * LARGEST_PICTURE:
                    raise DataError(f"{name} is stored in too many passes over its pixels: save it again, or leave it "
                                    "out.")
                upright = ImageOps.exif_transpose(picture)
                check_size(upright.size, size)
                if "transparency" in picture.info or picture.mode[-1] == "A":
                    upright = upright.convert("RGBA")
                    if upright.getchannel("A").getextrema()[0] < 255:
                        raise DataError(f"{name} is transparent in parts: save it as RGB on a background, or leave it "
                                        "out.")
                return np.array(upright.convert("RGB"))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is no PNG or JPEG picture that can be read: replace it, or leave it out.") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} has far too many pixels ({_reason(error)}): make it smaller, or leave it "
                        "out.") from error
    except Exception as error:  # PIL's decoders raise a dozen kinds for a damaged file
        raise DataError(f"{name} is truncated or damaged ({_reason(error)}): replace it, or leave it out.") from error


def _picture_bytes(file: Path) -> bytes:
    try:
        if not file.is_file():  # a pipe would be waited for
            raise DataError(f"{file} is no file: name a PNG or JPEG picture.")
        with file.open("rb") as opened:
            return opened.read(LARGEST_PICTURE_FILE + 1)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({_reason(error)}): replace it, or leave it out.") from error
