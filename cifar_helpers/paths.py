"""Where the course keeps its cache and its runs, and how a file comes to stand there whole, also with many writers."""

import os
import time
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pooch
from filelock import FileLock, Timeout

CACHE_FORMAT = 1  # in the name of every cache entry: a course that writes another format never reads this one
SILENT_SECONDS = 5  # how long a lock is waited for without a word
PATIENT_SECONDS = 600  # after which its holder is taken to be asleep
LEFTOVER_SECONDS = 24 * 3600  # a temporary file of this age has no writer any more


def checkout() -> Path | None:
    """The checkout around this package, or None where the package was installed without one."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "notebooks").is_dir() and (root / "pyproject.toml").is_file() else None


def expanded(path: str | Path) -> Path:
    """The path with its `~` as the home folder; as it stands where nobody's home can be told."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def cache_dir() -> Path:
    """`COURSE_CACHE`, else `data/cache` of the checkout, else the user's cache folder, or one here without a home."""
    if named := os.environ.get("COURSE_CACHE"):
        return expanded(named)
    if root := checkout():
        return root / "data" / "cache"
    try:
        return Path(pooch.os_cache("cifar-helpers"))
    except RuntimeError:
        return Path.cwd() / ".cifar-helpers"


def runs_dir() -> Path:
    """`COURSE_RUNS`, else `runs` of the checkout, else `runs` in the working folder."""
    if named := os.environ.get("COURSE_RUNS"):
        return expanded(named)
    return (checkout() or Path.cwd()) / "runs"


def progress_file(name: str, budget: str) -> Path:
    """Where the training of a run keeps its progress, until the run is saved."""
    return runs_dir() / ".progress" / f"{name}-{budget}.npz"


@contextmanager
def locked(file: Path, doing: str, patience: float | None = None):
    """Hold the lock `file`, one process at a time, and yield whether it is held.

    Where another process holds it for long, a line says what that is `doing`. A process that ends, however, lets go of
    its locks; one that is asleep is waited for `patience` seconds (PATIENT_SECONDS; -1: for ever). The work goes on
    without the lock after that, and at once where the folder cannot be written or its file system knows no locks.
    """
    lock = FileLock(file, mode=0o666)  # in a shared folder others lock it too
    with suppress(OSError, NotImplementedError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=SILENT_SECONDS)
        except Timeout:
            print(f"Waiting for another process that is {doing}.", flush=True)
            with suppress(Timeout):
                lock.acquire(timeout=PATIENT_SECONDS if patience is None else patience)
    try:
        yield lock.is_locked
    finally:
        with suppress(OSError):
            lock.release()


@contextmanager
def whole_file(path: Path, alone: bool = False):
    """A binary file to write to, which takes the name `path` only once it is complete.

    What killed processes left half-written in the folder is removed after a day; where the caller is `alone` in
    writing this file, as under a lock, what is left of the same file goes at once.

    Raises OSError as `open` and `write` do; then nothing stands under the final name that did not before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_partial(path, alone)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".partial", delete=False) as file:
        try:
            yield file
            file.close()  # writes what is still in memory, which may fail as any write may
            with suppress(OSError):  # some network drives know no modes
                Path(file.name).chmod(0o644)  # temporary files are private; a classroom's cache is shared
            Path(file.name).replace(path)
        except BaseException:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                Path(file.name).unlink()
            raise


def _clear_partial(path: Path, alone: bool) -> None:
    for left in path.parent.glob(".*.partial"):
        with suppress(OSError):
            mine = alone and left.name.startswith(f".{path.name}.")
            if mine or time.time() - left.stat().st_mtime > LEFTOVER_SECONDS:
                left.unlink()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file without pickles, after a checksum over every byte of them.

    `np.load` alone compares the checksum only where an array's header, which may itself be damaged, has it read to
    the end.

    Raises OSError where the file is not there or cannot be read, and ValueError where it is damaged.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return {name.removesuffix(".npy"): _member(archive, name) for name in archive.namelist()}
        except OSError:
            raise
        except Exception as error:  # zipfile and NumPy raise a dozen kinds for one damaged byte
            raise ValueError(str(error) or type(error).__name__) from error


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):
            raise ValueError(f"{name} is longer than its header says")
    return array
