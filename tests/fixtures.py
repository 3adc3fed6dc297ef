"""A tiny CIFAR-10 in every format that the course accepts, and loopback servers to download it from."""

import hashlib
import io
import pickle
import shutil
import socket
import struct
import tarfile
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from cifar_helpers import archives

TRAIN_PER_CLASS, TEST_PER_CLASS = 10, 2
BINARY_FOLDER, PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"


def arrays(seed: int = 0) -> archives.Arrays:
    """120 pictures of noise, no two alike, with their labels in mixed order."""
    rng = np.random.default_rng(seed)
    parts = []
    for per_class in (TRAIN_PER_CLASS, TEST_PER_CLASS):
        parts += [rng.integers(0, 256, (10 * per_class, 32, 32, 3), np.uint8),
                  rng.permutation(np.repeat(np.arange(10), per_class))]
    return archives.Arrays(*parts, f"fixture {seed}")


def by_class(given: archives.Arrays) -> archives.Arrays:
    """The same pictures in the order of their classes, as image folders hold them."""
    train, test = (np.argsort(labels, kind="stable") for labels in (given.train_labels, given.test_labels))
    return archives.Arrays(given.train_images[train], given.train_labels[train],
                           given.test_images[test], given.test_labels[test], given.description)


def assert_equal(found: archives.Arrays, expected: archives.Arrays, images_differ_by: int = 0) -> None:
    for have, want in zip(found[:4], expected[:4], strict=True):
        assert (have.dtype, have.shape) == (want.dtype, want.shape)
        difference = np.abs(have.astype(int) - want.astype(int)).max()
        assert difference <= (images_differ_by if want.ndim == 4 else 0)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, to see that nothing was written."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def shrink(monkeypatch, accepted: archives.Arrays | None = None) -> None:
    """Let the course expect the tiny CIFAR-10, and take its pickles for the official ones."""
    monkeypatch.setattr(archives, "TRAIN_PER_CLASS", TRAIN_PER_CLASS)
    monkeypatch.setattr(archives, "TEST_PER_CLASS", TEST_PER_CLASS)
    monkeypatch.setattr(archives, "PYTHON_SHA256", mock.ANY)
    accept_pickles(monkeypatch, python_members(accepted or arrays()))


def accept_pickles(monkeypatch, members: dict[str, bytes]) -> None:
    for name, raw in members.items():
        monkeypatch.setitem(archives.PICKLE_MD5, name, hashlib.md5(raw, usedforsecurity=False).hexdigest())


# --- the formats ---


def _batches(given: archives.Arrays):
    size = TRAIN_PER_CLASS * 2
    for number, name in enumerate(archives.TRAIN_BATCHES):
        part = slice(number * size, (number + 1) * size)
        yield name, given.train_images[part], given.train_labels[part]
    yield archives.TEST_BATCH, given.test_images, given.test_labels


def _planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), 3072))


def binary_members(given: archives.Arrays) -> dict[str, bytes]:
    return {f"{name}.bin": np.column_stack([labels.astype(np.uint8), _planes(images)]).tobytes()
            for name, images, labels in _batches(given)}


class _Python2Pickler(pickle._Pickler):
    """Writes texts and bytes as Python 2 did, which is how the official batches are written."""

    def _save_string(self, text):
        raw = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    dispatch = pickle._Pickler.dispatch | {bytes: _save_string, str: _save_string}


def python_members(given: archives.Arrays, pickler=_Python2Pickler, module: bytes = b"numpy.core") -> dict[str, bytes]:
    members = {}
    for name, images, labels in _batches(given):
        file = io.BytesIO()
        pickler(file, protocol=2).dump({b"batch_label": name.encode(), b"labels": labels.tolist(),
                                        b"data": _planes(images), b"filenames": [b"a.png"] * len(labels)})
        members[name] = file.getvalue().replace(b"numpy._core", module)
    return members


def write_archive(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]], folder: str = "any") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, raw in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


def write_folder(path: Path, members: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, raw in members.items():
        (path / name).write_bytes(raw)
    return path


def npz_arrays(given: archives.Arrays) -> dict[str, np.ndarray]:
    """As Keras returns them: labels are a column of uint8."""
    return {"x_train": given.train_images, "y_train": given.train_labels.astype(np.uint8)[:, None],
            "x_test": given.test_images, "y_test": given.test_labels.astype(np.uint8)[:, None]}


def write_npz(path: Path, given: archives.Arrays, save=np.savez, **changed) -> Path:
    save(path, **{name: array for name, array in (npz_arrays(given) | changed).items() if array is not None})
    return path


def write_pictures(path: Path, given: archives.Arrays, suffix: str = ".png") -> Path:
    for split, images, labels in (("train", given.train_images, given.train_labels),
                                  ("test", given.test_images, given.test_labels)):
        for name in archives.CLASS_NAMES:
            (path / split / name).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = path / split / archives.CLASS_NAMES[label] / f"{number:04d}{suffix}"
            options = {} if suffix == ".png" else {"quality": 100, "subsampling": 0}
            Image.fromarray(image).save(file, **options)
    return path


def _beside(write):
    """The official archive unpacked where a user may name the folder around it."""
    return lambda folder, given: write(folder, given).parent


def _binary_folder(folder: Path, given: archives.Arrays) -> Path:
    return write_folder(folder / BINARY_FOLDER, binary_members(given))


def _python_folder(folder: Path, given: archives.Arrays) -> Path:
    return write_folder(folder / PYTHON_FOLDER, python_members(given))


EXACT_KINDS = {
    "binary archive": lambda folder, given: write_archive(
        folder / "cifar-10-binary.tar.gz", binary_members(given), BINARY_FOLDER),
    "binary folder": _binary_folder,
    "folder around the binary folder": _beside(_binary_folder),
    "python archive": lambda folder, given: write_archive(
        folder / "cifar-10-python.tar.gz", python_members(given), PYTHON_FOLDER),
    "python folder": _python_folder,
    "folder around the python folder": _beside(_python_folder),
    "npz": lambda folder, given: write_npz(folder / "cifar.npz", given),
    "compressed npz": lambda folder, given: write_npz(folder / "cifar.npz", given, np.savez_compressed),
    "npz with flat labels": lambda folder, given: write_npz(
        folder / "cifar.npz", given, y_train=given.train_labels, y_test=given.test_labels),
}
PICTURE_KINDS = {
    "png folders": lambda folder, given: write_pictures(folder / "pictures", given, ".png"),
    "jpg folders": lambda folder, given: write_pictures(folder / "pictures", given, ".jpg"),
    "JPEG folders": lambda folder, given: write_pictures(folder / "pictures", given, ".JPEG"),
}
KINDS = EXACT_KINDS | PICTURE_KINDS


def put_in_keras_cache(home: Path, given: archives.Arrays, name: str = f"{PYTHON_FOLDER}-target/{PYTHON_FOLDER}"):
    """What `keras.datasets.cifar10.load_data` leaves in `KERAS_HOME`."""
    shutil.rmtree(home, ignore_errors=True)
    place = home / "datasets" / name
    write = write_archive if name.endswith(".tar.gz") else write_folder
    return write(place, python_members(given))


# --- files that no program writes ---


def tar_of(members: list[tuple[bytes, str, bytes]]) -> bytes:
    """A tar file of members of any type, each with its name and content, whether or not tarfile would write it."""
    parts = []
    for kind, name, body in members:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(body)
        header = info.tobuf(tarfile.GNU_FORMAT)[-512:]
        parts += [header, body, bytes(-len(body) % 512)]
    return b"".join(parts) + bytes(1024)


def gzipped(path: Path, *parts: bytes) -> Path:
    """One gzip file a part, one after the other."""
    path.write_bytes(b"".join(zlib.compress(part, 1, wbits=31) for part in parts))
    return path


def npy(header: str) -> bytes:
    """The beginning of an .npy file, with any header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, content: bytes = b"") -> bytes:
    """A PNG file: `colour` is 0 for grey, 2 for RGB, 4 for grey with alpha, 6 for RGBA."""
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b""))


# --- loopback servers ---


class Server:
    """Serves one answer at one address; `asked` counts the requests.

    `promised` is the length that the header gives, where it is not the body's; `delay` is how many seconds an answer
    takes; with `stall`, a threading.Event, the server sends the body and then waits for the event before it closes.
    """

    def __init__(self, body: bytes, status: int = 200, promised: int | None = None, delay: float = 0, stall=None):
        self.asked = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.asked += 1
                time.sleep(delay)
                with suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(promised or len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    self.wfile.flush()
                if stall:
                    stall.wait(20)

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.host = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.host}/archive.tar.gz"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextmanager
def serving(body: bytes, **options):
    server = Server(body, **options)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def silent_server():
    """The address of a server that takes connections and never sends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/archive.tar.gz"


def unused_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}/archive.tar.gz"


@contextmanager
def files_limited_to(size):
    """Writing more to one file fails with OSError, as it does on a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
