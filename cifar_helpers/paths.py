"""Where the course keeps its cache and its runs, and how a file comes to stand there whole."""

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import pooch


def checkout() -> Path | None:
    """The checkout around this package, or None where the package was installed without one."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "notebooks").is_dir() and (root / "pyproject.toml").is_file() else None


def cache_dir() -> Path:
    """`COURSE_CACHE`, else `data/cache` of the checkout, else the user's cache folder."""
    if named := os.environ.get("COURSE_CACHE"):
        return Path(named).expanduser()
    return checkout() / "data" / "cache" if checkout() else Path(pooch.os_cache("cifar-helpers"))


def runs_dir() -> Path:
    """`COURSE_RUNS`, else `runs` of the checkout, else `runs` in the working folder."""
    if named := os.environ.get("COURSE_RUNS"):
        return Path(named).expanduser()
    return (checkout() or Path.cwd()) / "runs"


@contextmanager
def whole_file(path: Path):
    """A binary file to write to, which takes the name `path` only once it is complete.

    Raises OSError as `open` and `write` do; then nothing stands under the final name that did not before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".partial", delete=False) as file:
        try:
            yield file
            file.close()  # writes what is still in memory, which may fail as any write may
            Path(file.name).chmod(0o644)  # temporary files are private; a classroom's cache is shared
            Path(file.name).replace(path)
        except BaseException:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                Path(file.name).unlink()
            raise
