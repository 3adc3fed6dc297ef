"""Pickles that run a program, in each place that the course reads images from."""

import contextlib
import io
import os
import pickle
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import fixtures
import numpy as np
import pytest

from cifar_helpers import archives, data
from cifar_helpers.errors import DataError

PROMISE = "Nothing executes: no file of images runs a program when it is read"
SEED = 6


class _Call:
    """Read by an ordinary unpickler, it calls a function."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


# Each makes the file or folder `marker` where an ordinary unpickler reads it.
ATTACKS = {
    "os.mkdir": lambda marker: _Call(os.mkdir, marker),
    "os.system": lambda marker: _Call(os.system, f'mkdir "{marker}"'),
    "subprocess.run": lambda marker: _Call(subprocess.run, ["mkdir", marker]),
    "eval": lambda marker: _Call(eval, f"open({marker!r}, 'w').close()"),
    "exec": lambda marker: _Call(exec, f"open({marker!r}, 'w').close()"),
    "a method of what a call gives": lambda marker: _Call(Path.touch, _Call(Path, marker)),
    "numpy.save": lambda marker: _Call(np.save, marker, np.zeros(1)),
    "numpy.savetxt": lambda marker: _Call(np.savetxt, marker, [1]),
    "numpy.ndarray.tofile": lambda marker: _Call(np.ndarray.tofile, np.zeros(1, np.uint8), marker),
    "a pickle in a pickle": lambda marker: _Call(pickle.loads, pickle.dumps(_Call(os.mkdir, marker))),
}


def _python_member(given, attack, protocol: int, name: str) -> dict[str, bytes]:
    batch = {b"data": attack, b"labels": given.test_labels.tolist()}
    return fixtures.python_members(given) | {name: pickle.dumps(batch, protocol)}


def _python_files(write, official: bool):
    """The Python format with one hostile batch, whose checksum is taken for right where it is `official`."""
    def place(folder: Path, given, attack, protocol, rng, patch):
        members = _python_member(given, attack, protocol, archives.TRAIN_BATCHES[0])  # which is read first
        if official:
            fixtures.accept_pickles(patch, members)
        return archives.read, write(folder / "copy", members)

    return place


def _object_array(folder: Path, given, attack, protocol, rng, patch):
    name = rng.choice(archives.NPZ_ARRAYS)
    return archives.read, fixtures.write_npz(folder / "a.npz", given, **{name: np.full(20, attack)})


def _bare_pickle(name: str):
    def place(folder: Path, given, attack, protocol, rng, patch):
        (folder / name).write_bytes(pickle.dumps(attack, protocol))
        return archives.read, folder / name

    return place


def _npz_member(folder: Path, given, attack, protocol, rng, patch):
    whole = fixtures.write_npz(folder / "whole.npz", given)
    hostile = rng.choice(archives.NPZ_ARRAYS)
    with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(folder / "a.npz", "w") as file:
        for name in stored.namelist():
            file.writestr(name, pickle.dumps(attack, protocol) if name == f"{hostile}.npy" else stored.read(name))
    return archives.read, folder / "a.npz"


def _picture(folder: Path, given, attack, protocol, rng, patch):
    path = fixtures.write_pictures(folder / "pictures", given)
    rng.choice(sorted(path.rglob("*.png"))).write_bytes(pickle.dumps(attack, protocol))
    return archives.read, path


def _upload(folder: Path, given, attack, protocol, rng, patch):
    return (lambda raw: archives.read_picture(raw, None)), pickle.dumps(attack, protocol)


def _load(_):
    with contextlib.redirect_stdout(io.StringIO()):
        return data.load_cifar10()


def _cache(folder: Path, given, attack, protocol, rng, patch):
    """The course's own cache, as another user of the machine may have written it."""
    source = fixtures.write_npz(folder / "source.npz", given)
    with contextlib.redirect_stdout(io.StringIO()):
        data.load_cifar10(source)
    entry = next((folder / "cache").glob("*.npz"))
    with np.load(entry, allow_pickle=False) as stored:
        arrays = dict(stored)
    arrays[rng.choice(sorted(arrays))] = np.full(20, attack)
    np.savez(entry, **arrays)
    patch.setenv("CIFAR10_PATH", str(source))
    return _load, None


def _keras_cache(folder: Path, given, attack, protocol, rng, patch):
    place = folder / "keras" / "datasets" / "cifar-10-batches-py"
    fixtures.write_folder(place, _python_member(given, attack, protocol, "data_batch_1"))
    return _load, None


PLACES = {
    "another Python archive": _python_files(fixtures.write_archive, official=False),
    "another Python folder": _python_files(fixtures.write_folder, official=False),
    "a Python archive of the right checksum": _python_files(fixtures.write_archive, official=True),
    "a Python folder of the right checksums": _python_files(fixtures.write_folder, official=True),
    "an .npz with objects": _object_array,
    "an .npz with a pickle": _npz_member,
    "a pickle named .npz": _bare_pickle("a.npz"),
    "a pickle named .tar.gz": _bare_pickle("cifar-10-python.tar.gz"),
    "an image folder": _picture,
    "an uploaded picture": _upload,
    "the course's cache": _cache,
    "Keras's cache": _keras_cache,
}


def cases(scale: str):
    rng = random.Random(SEED)
    for place in PLACES:
        for attack in ATTACKS if scale == "full" else rng.sample(sorted(ATTACKS), 2):
            for protocol in (0, 2, 4, 5) if scale == "full" else (rng.choice([0, 2, 4, 5]),):
                what = f"{attack} in {place}, protocol {protocol}"
                yield what, *_try(PLACES[place], ATTACKS[attack], protocol, rng)


def _try(place, attack, protocol: int, rng) -> tuple[bool, str]:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        marker = folder / "marker.npy"  # NumPy's functions add the ending where there is none
        fixtures.shrink(patch)
        patch.setenv("COURSE_CACHE", str(folder / "cache"))
        patch.setenv("KERAS_HOME", str(folder / "keras"))
        for variable in ("COURSE_OFFLINE", "CIFAR10_REQUIRED"):
            patch.setenv(variable, "1")
        patch.delenv("CIFAR10_PATH", raising=False)
        try:
            read, path = place(folder, fixtures.arrays(), attack(str(marker)), protocol, rng, patch)
            if marker.exists():
                return False, "the attack ran before the file was read"
            with contextlib.suppress(DataError):
                read(path)
        except BaseException as error:
            return False, f"{type(error).__name__}: {error}"
        if marker.exists():
            return False, "the program in the file ran"
        with contextlib.suppress(Exception):
            pickle.loads(pickle.dumps(attack(str(marker)), protocol))
        return marker.exists(), "" if marker.exists() else "an ordinary unpickler does not run it either"
