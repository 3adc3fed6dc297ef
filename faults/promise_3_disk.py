"""The disk: full, closed to this user, taken away, oddly named, damaged.

A full disk is a small tmpfs where this user may mount one, else a limit on the size of files, which stands in for it. A
folder that cannot be written is one of the superuser's, visited by a process that is nobody.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import promise_2_together as several
from promise_2_together import Worker, case, fingerprint, litter, mixed, note, record, save

PROMISE = "Disk: full, read-only, deleted in use or damaged, it costs the cache at most, and no run"
BLOCK = 4096
NOBODY = 65534


def cases(scale: str):
    yield from several.in_own_process(__file__, scale)


def _cases(scale: str):
    several.without_keras()
    import sklearn.model_selection  # noqa: F401  before the fork: other users may not read it, each would import it

    from cifar_helpers import transfer

    transfer.CHUNK = 10
    short = scale == "short"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        archive = several.tiny_course(folder)
        os.environ.update(HOME=str(folder), COURSE_CACHE=str(folder / "right cache"))
        expected = _loaded(archive)[0]
        yield from _full(folder, archive, expected, short)
        if not short:
            yield from _full_with_keras()
        yield from _closed(folder, archive, expected)
        yield from _no_home(folder, archive, expected)
        yield from _deleted(folder, archive, expected, 1 if short else 10)
        yield from _named(folder, archive, expected)
        yield from _damaged(folder, archive, expected, 40 if short else 2_000)
        yield from _leftovers(folder, archive, expected)


def _loaded(archive) -> tuple[str, str]:
    """The loaded data's fingerprint, and what was said."""
    from cifar_helpers.data import load_cifar10

    with contextlib.redirect_stdout(io.StringIO()) as said:
        found = fingerprint(load_cifar10(archive))
    return found, said.getvalue()


def _extracted(folder: Path) -> tuple[str, str]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        found = several._extracted(folder / "batches")
    return found, said.getvalue()


def _attempt(work):
    """What `work()` returns, or the sentence that it is refused with; other errors pass."""
    from cifar_helpers.errors import CourseError

    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return work(), ""
        except CourseError as error:
            return None, str(error)


def _state(runs_folder: Path) -> dict:
    """Every file of the runs with its content; a lock is none."""
    return {str(file.relative_to(runs_folder)): file.read_bytes() for file in runs_folder.rglob("*")
            if file.is_file() and file.name != ".lock"}


# --- a full disk ---


@contextlib.contextmanager
def small_disk(folder: Path, size: int):
    """A folder on a disk of `size` bytes, and its name for the report."""
    place = folder / "small disk"
    place.mkdir(exist_ok=True)
    mounted = not subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=False,
                                 capture_output=True).returncode if shutil.which("mount") else False
    try:
        yield place, "tmpfs" if mounted else "limit on the size of files"
    finally:
        if mounted:
            subprocess.run(["umount", "-l", place], check=True)
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def room_for(place: Path, count: int, disk: str):
    """Leave `count` bytes free on the disk."""
    if disk == "tmpfs":
        ballast = place / "ballast"
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            file.write(bytes(max(0, shutil.disk_usage(place).free - count)))
        try:
            yield
        finally:
            ballast.unlink()
    else:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _full(folder: Path, archive: Path, expected: str, short: bool):
    from cifar_helpers import runs

    with small_disk(folder, 2 << 20) as (place, disk):
        os.environ.update(COURSE_CACHE=str(place / "cache"), COURSE_RUNS=str(place / "runs"))
        for blocks in (0, 1, 40) if short else range(0, 110, 2):
            with room_for(place, blocks * BLOCK, disk):
                found, said = _loaded(archive)
                left = litter(place)
                entries = len(list((place / "cache").glob("[!.]*.npz")))
            yield case(f"{disk} with {blocks} blocks free, loading", (found == expected, "other images"),
                       (entries == ("not cached" not in said), f"{entries} entries, said {said!r}"), (not left, left))
            shutil.rmtree(place / "cache", ignore_errors=True)
        for blocks in (0, 2, 5) if short else range(14):
            with room_for(place, blocks * BLOCK, disk):
                found, said = _extracted(folder)
                left = litter(place)
            yield case(f"{disk} with {blocks} blocks free, extracting", (found == "right", found),
                       (said.count("not cached") == (len(list(place.glob("cache/features/*/*.npz"))) < 5), said),
                       (not left, left))
            shutil.rmtree(place / "cache", ignore_errors=True)
        save(1)
        save(7, "plain")
        before, tested = _state(place / "runs"), False
        for blocks in (0, 3, 8, 16, 18) if short else range(30):
            for what, work in (("saving", lambda: save(2)), ("saving another kind", lambda: save(2, budget="full")),
                               ("recording a test", lambda: record(runs.load_run("baseline"), 5))):
                with room_for(place, blocks * BLOCK, disk):
                    done, refused = _attempt(work)
                    left = litter(place)
                    listed = sorted(run.name for run in runs.list_runs())
                same = _state(place / "runs") == before
                tested |= bool(refused)
                yield case(f"{disk} with {blocks} blocks free, {what}",
                           (bool(done) or ("could not be saved" in refused and "free some space" in refused), refused),
                           (bool(done) or same, "earlier runs changed"), (not left, left),
                           (not done or not mixed(done.folder), done and mixed(done.folder)),
                           ({"baseline", "plain"} <= set(listed), listed))
                if done:
                    shutil.rmtree(place / "runs")
                    save(1)
                    save(7, "plain")
                    before = _state(place / "runs")
        yield case(f"{disk}: the disk was too small for some", (tested, "it never was"))


KERAS = """
import os, sys, tempfile
sys.path[:0] = sys.argv[1:3]
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
from pathlib import Path
import keras
import promise_2_together as several, promise_3_disk as disk
from cifar_helpers import runs
model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(8, 5, strides=4), keras.layers.Flatten(),
                          keras.layers.Dense(10)])
with tempfile.TemporaryDirectory() as folder, disk.small_disk(Path(folder), 2 << 20) as (place, kind):
    os.environ["COURSE_RUNS"] = str(place / "runs")
    several.save(1, model=model)
    before = disk._state(place / "runs")
    for blocks in range(0, 60, 2):
        with disk.room_for(place, blocks * disk.BLOCK, kind):
            try:
                done, refused = disk._attempt(lambda: several.save(2, model=model))
            except Exception as error:
                done, refused = None, f"{type(error).__name__}: {error}"
            left = several.litter(place)
        if done:
            runs.load_model(done)
        several.print_cases([several.case(
            f"{kind} with {blocks} blocks free, Keras saves", (done or "could not be saved" in refused, refused),
            (done or disk._state(place / "runs") == before, "earlier runs changed"), (not left, left),
            (sorted(path.name for path in place.iterdir()) == ["runs"], "files beside the runs"))])
        if done:
            before = disk._state(place / "runs")
"""


def _full_with_keras():
    """The same with a model that Keras writes, in a process of its own."""
    process = subprocess.run([sys.executable, "-c", KERAS, str(Path(__file__).parent), str(several.ROOT)], check=False,
                             capture_output=True, text=True)
    yield from (tuple(json.loads(line[5:])) for line in process.stdout.splitlines() if line.startswith("CASE "))
    yield case("Keras saves on a full disk, to the end", (process.returncode == 0, process.stderr[-800:]))


# --- closed to this user ---


def _as_nobody(work):
    """The outcome of `work()` in a process that the folders do not belong to."""
    def nobody():
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return work()

    return Worker(nobody).outcome()[0]


def _closed(folder: Path, archive: Path, expected: str):
    from cifar_helpers import runs

    for what, mode, warm in (("read-only", 0o555, False), ("read-only", 0o555, True), ("locked up", 0o000, False),
                             ("locked up", 0o000, True)):
        here = several._fresh(folder, _number)
        cache, place = here / "cache", here / "runs"
        cache.mkdir()
        if warm:
            _loaded(archive)
            _extracted(here)
            (here / "batches").unlink()
            save(1)
            save(7, "plain")
        else:
            place.mkdir()
        before, content = _state(place), _state(cache)
        for closed in (cache, *cache.glob("features/*"), place, *place.glob("[!.]*")):
            closed.chmod(mode)
        log = here / "log"
        log.mkdir(mode=0o777)
        log.chmod(0o777)
        open_to_read = warm and mode
        found = _as_nobody(lambda: _loaded(archive))
        said = "" if open_to_read else "The images are not cached"
        yield case(f"{what} cache, {'warm' if warm else 'empty'}, loading",
                   (found[0] == expected, found), (found[1].startswith(said) and (said or not found[1]), found[1]))
        found = _as_nobody(lambda log=log: _extracted(log))
        yield case(f"{what} cache, {'warm' if warm else 'empty'}, extracting", (found[0] == "right", found),
                   (found[1].count("not cached") == (not open_to_read), found[1]))
        found = _as_nobody(lambda: _attempt(lambda: save(2)))
        yield case(f"{what} runs, saving", ("could not be saved" in found[1] and "set COURSE_RUNS" in found[1], found))
        found = _as_nobody(lambda: [run.name for run in runs.list_runs()])
        yield case(f"{what} runs, {'warm' if warm else 'empty'}, listing",
                   (found == (["baseline", "plain"] if open_to_read else []), found))
        if open_to_read:
            found = _as_nobody(lambda: _attempt(lambda: record(runs.load_run("baseline"), 5)))
            yield case(f"{what} runs, recording a test", ("could not be saved" in found[1], found))
        for closed in (cache, place, *cache.glob("features/*"), *place.glob("[!.]*")):
            closed.chmod(0o755)
        for closed in (*cache.glob("features/*"), *place.glob("[!.]*")):
            closed.chmod(0o755)
        yield case(f"{what} folders stay as they were", (_state(place) == before and _state(cache) == content, "no"))
    here = several._fresh(folder, _number)
    (here / "cifar.npz").write_bytes(archive.read_bytes())
    (here / "cifar.npz").chmod(0)
    (here / "locked").mkdir(mode=0)
    for path in (here / "cifar.npz", here / "locked" / "cifar.npz"):
        found = _as_nobody(lambda path=path: _attempt(lambda: _loaded(path)))
        yield case(f"images in {path.relative_to(here)} that may not be read",
                   (str(path) in found[1], found), (found[0] is None, "images from nowhere"))


_number = [1000]  # of the last folder that a case was given


def _no_home(folder: Path, archive: Path, expected: str):
    """The user's folders are closed, or there are none, and the course was installed without a checkout."""
    from cifar_helpers import paths

    home = folder / "closed home"
    home.mkdir(mode=0)

    def work(value, path):
        def load():
            paths.checkout = lambda: None
            for name in ("HOME", "COURSE_CACHE", "COURSE_RUNS", "KERAS_HOME", "XDG_CACHE_HOME"):
                os.environ.pop(name, None)
            if value:
                os.environ["HOME"] = str(value)
            os.chdir("/")
            return [*_loaded(path), _attempt(lambda: save(2))[1]]

        if value is None:
            def nameless():
                os.setgroups([])
                os.setuid(54321)
                return load()
            return Worker(nameless).outcome()[0]
        return _as_nobody(load)

    for what, value in (("locked up", home), ("not there", home / "no home"), ("unknown", None)):
        if value is None and os.getuid():
            continue  # only the superuser can become a user without a name
        found = work(value, archive)
        yield case(f"home folder {what}, loading", (found[0] == expected, found), ("not cached" in found[1], found),
                   ("could not be saved" in found[2], found))
        found = work(value, None)
        yield case(f"home folder {what}, the stand-in", ("THIS IS NOT CIFAR-10" in found[1], found))


# --- deleted while in use ---


def _deleted(folder: Path, archive: Path, expected: str, rounds: int):
    from cifar_helpers import runs

    for number in range(rounds):
        here = several._fresh(folder, _number)

        def remove(here=here):
            while not (here / "done").exists():
                shutil.rmtree(here / "cache", ignore_errors=True)
                shutil.rmtree(here / "runs", ignore_errors=True)
            return "right"

        def work(here=here):
            seen = set()
            for _ in range(20):
                seen.add(_loaded(archive)[0] == expected)
                seen.add(_extracted(here)[0] == "right")
                done, refused = _attempt(lambda: save(2))
                clear = any(said in refused for said in ("could not be saved", "lacks", "cannot be read"))
                seen.add(bool(done) or clear or refused)
                runs.list_runs()
            return [seen == {True}, str(seen)]

        remover = Worker(remove)
        found = Worker(work).outcome()[0]
        note(here / "done")
        remover.outcome()
        yield case(f"folders deleted again and again, round {number + 1}", (found[0] is True, found))
    here = several._fresh(folder, _number)
    loaded = _loaded(archive)
    shutil.rmtree(here / "cache")
    again = _loaded(archive)
    yield case("cache deleted between two loads", (loaded[0] == again[0] == expected, (loaded, again)),
               (len(list((here / "cache").glob("[!.]*.npz"))) == 1, "not cached again"))


# --- odd names ---


def _named(folder: Path, archive: Path, expected: str):
    from cifar_helpers import runs

    for what, name in (("spaces", "my course folder "), ("letters of many scripts", "Übung 数据 данные ☕"),
                       ("bytes that are no UTF-8", os.fsdecode(b"caf\xe9")), ("a quote and a %", "it's 100% {x}")):
        here = several._fresh(folder, _number) / name
        here.mkdir()
        os.environ.update(COURSE_CACHE=str(here / "cache"), COURSE_RUNS=str(here / "runs"))
        copy = here / f"{name}.npz"
        shutil.copyfile(archive, copy)

        def work(copy=copy, here=here):
            from cifar_helpers.data import load_cifar10

            data = load_cifar10(copy)
            repr(data).encode()  # as a print does
            again = load_cifar10(copy)
            save(1)
            return [np.array_equal(data.test.images, again.test.images), len(list((here / "cache").glob("*.npz"))),
                    several._extracted(here / "batches"), [run.name for run in runs.list_runs()]]

        found = Worker(work).outcome()[0]
        yield case(f"folders and archive named with {what}", (found == [True, 1, "right", ["baseline"]], found))
    here = several._fresh(folder, _number)
    (here / "file").write_text("in the way")
    for what, name in (("a file", str(here / "file")), ("a folder in a file", str(here / "file" / "below")),
                       ("a device", "/dev/null"), ("an unknown user's home", "~no such user/cache"),
                       ("a name that is too long", str(here / ("long" * 100)))):
        os.environ.update(COURSE_CACHE=name, COURSE_RUNS=name)

        def work():
            os.chdir("/proc")  # where nothing can be made, should the name be taken as it stands
            return [*_loaded(archive), _extracted(here)[0], _attempt(lambda: save(2))[1], len(runs.list_runs())]

        found = Worker(work).outcome()[0]
        yield case(f"COURSE_CACHE and COURSE_RUNS name {what}", (found[0] == expected, found),
                   ("not cached" in found[1], found), (found[2] == "right", found),
                   ("could not be saved" in found[3], found), (found[4] == 0, found))
    yield case("the file in the way stays", ((here / "file").read_text() == "in the way", "no"))


# --- damage ---


def _flipped(raw: bytes, rng, member_headers: list[int]) -> bytes:
    """One bit changed, half of the time near a member's start or in the directory at the end."""
    near = [*member_headers, len(raw) - 600]
    at = rng.integers(len(raw)) if rng.random() < 0.5 else min(len(raw) - 1, rng.choice(near) + rng.integers(600))
    changed = bytearray(raw)
    changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def _headers(raw: bytes) -> list[int]:
    return [at for at in range(0, len(raw) - 4) if raw.startswith(b"PK\x03\x04", at)]


def _damaged(folder: Path, archive: Path, expected: str, count: int):
    from cifar_helpers import paths, runs

    rng = np.random.default_rng(2)
    here = several._fresh(folder, _number)
    _loaded(archive)
    [entry] = (here / "cache").glob("[!.]*.npz")
    raw = entry.read_bytes()
    headers = _headers(raw)
    for number in range(count):
        entry.write_bytes(_flipped(raw, rng, headers))
        found = _loaded(archive)[0]
        yield case(f"bit flip {number + 1} in the cached images", (found == expected, "other images"))
    for size in (0, 1, len(raw) // 2, len(raw) - 1):
        entry.write_bytes(raw[:size])
        found, said = _loaded(archive)
        yield case(f"cached images cut to {size} bytes", (found == expected, "other images"), ("damaged" in said, said))
    # what a newer course would write under its own name must not be taken for this one's, nor be lost
    newer = entry.with_name(entry.name.replace(f"-{paths.CACHE_FORMAT}-", f"-{paths.CACHE_FORMAT + 1}-"))
    newer.write_bytes(b"another format")
    entry.unlink()
    found, said = _loaded(archive)
    yield case("a cache entry of a newer course", (found == expected and not said, said), (newer != entry, "no format"),
               (newer.read_bytes() == b"another format", "it was overwritten"))

    _extracted(here)
    [piece, *_] = sorted((here / "cache").glob("features/*/*.npz"))
    raw = piece.read_bytes()
    headers = _headers(raw)
    for number in range(count):
        piece.write_bytes(_flipped(raw, rng, headers))
        found = _extracted(here)[0]
        yield case(f"bit flip {number + 1} in cached features", (found == "right", found))

    save(3)
    file = here / "runs" / "baseline" / "predictions.npz"
    raw = file.read_bytes()
    headers = _headers(raw)
    for number in range(count):
        file.write_bytes(_flipped(raw, rng, headers))
        found, refused = _attempt(lambda: runs.load_predictions(runs.load_run("baseline")))
        right = found is not None and (found.get("validation_logits", np.zeros(1)) == 3).all()
        yield case(f"bit flip {number + 1} in a run's predictions", (right or "baseline" in refused, (found, refused)))


# --- what killed processes left ---


def _leftovers(folder: Path, archive: Path, expected: str):
    here = several._fresh(folder, _number)
    _loaded(archive)
    [entry] = (here / "cache").glob("[!.]*.npz")
    same, other, old = (here / "cache" / f".{name}.npz.x1.partial" for name in (entry.stem, "other", "old"))
    for left in (same, other, old):
        left.write_bytes(bytes(1000))
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    entry.unlink()
    found, _ = _loaded(archive)
    yield case("half-written files in the cache", (found == expected, "other images"),
               (not same.exists(), "one of this entry, whose lock is free, stays"),
               (not old.exists(), "one of yesterday stays"), (other.exists(), "one that may be in use is gone"))
    save(1)
    left = here / "runs" / ".plain-abcd"
    shutil.copytree(here / "runs" / "baseline", left / "plain")
    (left / "plain" / "run.json").unlink()
    from cifar_helpers import runs

    with contextlib.redirect_stdout(io.StringIO()) as said:
        listed = [run.name for run in runs.list_runs()]
    yield case("a half-written run", (listed == ["baseline"] and not said.getvalue(), (listed, said.getvalue())),
               (not left.exists(), "it stays"))


if __name__ == "__main__":
    several.print_cases(_cases(sys.argv[1]))
