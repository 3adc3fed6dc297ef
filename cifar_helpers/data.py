"""CIFAR-10 in three splits, from wherever it can be had, or a stand-in that says so."""

import hashlib
import json
import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cifar_helpers import archives, download, marks, standin
from cifar_helpers.errors import DataError
from cifar_helpers.paths import CACHE_FORMAT, cache_dir, expanded, locked, read_arrays, whole_file

VALIDATION_SHARE = 0.1  # of the training images: 5,000 of 50,000
SPLIT_SEED = 10
OFFICIAL = f"official-{CACHE_FORMAT}.npz"  # the cache entry of images that are known to be the official ones
STAND_IN = f"standin-{CACHE_FORMAT}-{standin.VERSION}.npz"
NOTICE = "=" * 78


@dataclass(frozen=True)
class Split:
    """Images, uint8 (n, 32, 32, 3), and their labels, int64 (n,), from 0 to 9."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """Where images came from: `fingerprint` is equal for equal images and labels in equal order."""

    name: str
    origin: str
    fingerprint: str
    is_standin: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.origin})"


@dataclass(frozen=True)
class Data:
    """Training, validation and test split, the ten class names, and where the images came from."""

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    source: Source

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {len(getattr(self, name)):,}" for name in ("train", "validation", "test"))
        return f"{self.source}\n{counts} images of {self.train.images.shape[1:]}, {self.train.images.dtype}"


def load_cifar10(path: str | Path | None = None) -> Data:
    """CIFAR-10 as 45,000 training, 5,000 validation and 10,000 test images.

    Looks at `path` or `CIFAR10_PATH`, the course's cache, Keras's cache, and the download, in this order; where none
    has it, draws a stand-in, unless `CIFAR10_REQUIRED=1` forbids that. `COURSE_OFFLINE=1` leaves out the download.
    Validation images are a stratified tenth of the official training images, the same at every call.

    Raises DataError where a path that was named holds no CIFAR-10, or where there is none and it is required.
    """
    named = path or os.environ.get("CIFAR10_PATH", "").strip()
    data = _from_path(Path(named)) if named else _from_cache() or _from_keras() or _from_download() or _stand_in()
    marks.discard(marks.STAND_IN)
    if data.source.is_standin:
        marks.add(marks.STAND_IN)
        print(f"{NOTICE}\n  THIS IS NOT CIFAR-10. {data.source.origin}.\n  Every figure below says how models do on "
              f"drawn shapes. For the real images,\n  set CIFAR10_PATH (see data/README.md).\n{NOTICE}")
    return data


def take(data: Data, train: int | None = None, validation: int | None = None, test: int | None = None) -> Data:
    """The same data with fewer images a split, as many of each class as of any other; None takes all.

    Raises DataError where a split has fewer images than asked for.
    """
    wanted = {"train": train, "validation": validation, "test": test}
    return replace(data, **{name: _first(getattr(data, name), count, name)
                            for name, count in wanted.items() if count is not None})


def _first(split: Split, count: int, name: str) -> Split:
    if not 10 <= count <= len(split):
        raise DataError(f"{count:,} {name} images were asked for and there are {len(split):,}: "
                        f"ask for 10 to {len(split):,}.")
    rank = np.empty(len(split), int)  # an image's place among those of its class
    for label in range(10):
        members = np.flatnonzero(split.labels == label)
        rank[members] = np.arange(len(members))
    chosen = np.sort(np.argsort(rank, kind="stable")[:count])
    return Split(split.images[chosen], split.labels[chosen])


# --- the four places to look, and the stand-in ---


def _from_path(path: Path) -> Data:
    try:
        path = path.expanduser()
        key = hashlib.sha256(os.fsencode(f"{path.resolve()} {_state(path)}"))
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): name a copy of CIFAR-10 that can.") from error
    cached = f"local-{CACHE_FORMAT}-{key.hexdigest()[:16]}.npz"
    return _load(cached) or _make_once(cached, lambda: archives.read(path))


def _state(path: Path) -> list:
    """Sizes and times of a file, or of the files in a folder: changes when they do."""
    if path.is_dir():
        return sorted((str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns)
                      for file in path.rglob("*") if file.is_file())
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []


def _from_cache() -> Data | None:
    return _load(OFFICIAL)


def _from_keras() -> Data | None:
    home = expanded(os.environ.get("KERAS_HOME", "~/.keras")) / "datasets"
    for name in ("cifar-10-batches-py-target/cifar-10-batches-py", "cifar-10-batches-py-target",
                 "cifar-10-batches-py", "cifar-10-batches-py-target.tar.gz", "cifar-10-batches-py.tar.gz"):
        try:
            if (home / name).exists():
                return _make_once(OFFICIAL, lambda found=home / name: archives.read(found))
        except (DataError, OSError) as error:
            print(f"Keras's cache is passed over: {error}")
            if isinstance(error, OSError):
                break  # the folder itself is closed to this user
    return None


def _from_download() -> Data | None:
    if os.environ.get("COURSE_OFFLINE") == "1":
        return None
    try:
        # without the lock another process may be writing the archive in the cache: this one goes to its own folder
        with (locked(cache_dir() / ".download.lock", "downloading CIFAR-10", patience=-1) as held,
              nullcontext(cache_dir()) if held else TemporaryDirectory() as folder):
            if data := _from_cache():
                return data
            arrays = archives.read(download.fetch(Path(folder)))
            return _make_once(OFFICIAL, lambda: arrays)
    except (DataError, OSError) as error:
        print(error)
        return None


def _stand_in() -> Data:
    if os.environ.get("CIFAR10_REQUIRED") == "1":
        raise DataError("CIFAR10_REQUIRED=1 and CIFAR-10 is neither cached nor downloadable: set CIFAR10_PATH to a "
                        "copy of cifar-10-binary.tar.gz, or unset CIFAR10_REQUIRED to work on the stand-in.")
    return _load(STAND_IN) or _make_once(STAND_IN, _drawn, is_standin=True)


def _drawn() -> archives.Arrays:
    print("Drawing the stand-in's 60,000 pictures; later calls read them from the cache.")
    drawn = standin.generate(archives.TRAIN_PER_CLASS, archives.TEST_PER_CLASS)
    return archives.Arrays(*drawn, f"generated shapes, version {standin.VERSION}")


# --- splitting and the cache ---


def _make_once(cached: str, read, is_standin: bool = False) -> Data:
    """What the cache holds by now, else the images that `read` gives: of several processes only the first reads."""
    with locked(cache_dir() / ".images.lock", "reading the images") as alone:
        return _load(cached, tell=False) or _split_and_keep(read(), cached, is_standin, alone)


def _split_and_keep(arrays: archives.Arrays, cached: str, is_standin: bool = False, alone: bool = False) -> Data:
    from sklearn.model_selection import train_test_split  # slow to import, and a warm load does not need it

    labels = arrays.train_labels
    train, validation = train_test_split(np.arange(len(labels)), test_size=VALIDATION_SHARE, stratify=labels,
                                         random_state=SPLIT_SEED)
    digest = hashlib.sha256()
    for part in arrays[:4]:
        digest.update(np.ascontiguousarray(part).data)
    data = Data(
        Split(arrays.train_images[train], labels[train]),
        Split(arrays.train_images[validation], labels[validation]),
        Split(arrays.test_images, arrays.test_labels),
        standin.CLASS_NAMES if is_standin else archives.CLASS_NAMES,
        Source("generated stand-in" if is_standin else "CIFAR-10",
               arrays.description.encode(errors="replace").decode(),  # a file's name may be no text that can be printed
               f"standin-{standin.VERSION}" if is_standin else digest.hexdigest()[:16], is_standin),
    )
    _keep(data, cached, alone)
    return data


def _keep(data: Data, cached: str, alone: bool) -> None:
    """Write the cache; where that is not possible, say so and go on without."""
    splits = {f"{name}_{part}": getattr(getattr(data, name), part)
              for name in ("train", "validation", "test") for part in ("images", "labels")}
    about = json.dumps({"class_names": data.class_names, "source": vars(data.source)})
    try:
        with whole_file(cache_dir() / cached, alone) as file:
            np.savez(file, about=np.array(about), **splits)
    except OSError as error:
        print(f"The images are not cached ({error}): the next load reads them from their source again. "
              "Set COURSE_CACHE to a folder that can be written.")


def _load(cached: str, tell: bool = True) -> Data | None:
    try:
        stored = read_arrays(cache_dir() / cached)
        about = json.loads(str(stored["about"]))
        splits = {name: Split(stored[f"{name}_images"], stored[f"{name}_labels"])
                  for name in ("train", "validation", "test")}
        return Data(**splits, class_names=tuple(about["class_names"]), source=Source(**about["source"]))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if tell:
            print(f"The cached {cached} is damaged and is made again ({error}).")
        return None
