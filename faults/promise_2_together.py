"""Several processes at once: they load, extract features and save under the same names.

The course's own functions run in forked processes. Keras is not among them: its import takes seconds, and a model that
answers the few calls that are made to it does here.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from packaging.version import Version

PROMISE = "Two at once: processes that load, extract or save the same get the right data and one whole cache"
ROOT = Path(__file__).resolve().parent.parent
FORKED = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
SECONDS = 120  # after which a process is taken to be stuck


def cases(scale: str):
    yield from in_own_process(__file__, scale)


def in_own_process(module: str, scale: str):
    """The cases of a module that is run as a program: it forks, which a process with TensorFlow in it must not."""
    if FORKED is None:
        return
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([sys.executable, module, scale], stdout=subprocess.PIPE, stderr=errors, text=True,
                                   env=environment)
        with process:
            for line in process.stdout:
                if line.startswith("CASE "):
                    yield tuple(json.loads(line[5:]))
        if process.returncode:
            errors.seek(0)
            yield "the run itself", False, f"stopped with {process.returncode}: {errors.read()[-1500:]}"


def print_cases(found) -> None:
    for case in found:
        print("CASE " + json.dumps(case), flush=True)


def without_keras() -> None:
    """Let the modules of the course that save runs and extract features be imported without TensorFlow."""
    keras = mock.MagicMock()
    keras.Model = type("Model", (), {})
    sys.modules |= {"keras": keras, "tensorflow": mock.MagicMock(), "cifar_helpers.models": types.ModuleType("models"),
                    "cifar_helpers.saved": mock.MagicMock()}
    from cifar_helpers import machine

    machine.describe = lambda: {"versions": {"keras": "3"}}


def tiny_course(folder: Path) -> Path:
    """Let the course expect 120 pictures, keep to `folder`, and stay offline; returns an archive of them."""
    from cifar_helpers import archives

    archives.TRAIN_PER_CLASS, archives.TEST_PER_CLASS = 10, 2
    os.environ.update(COURSE_OFFLINE="1", KERAS_HOME=str(folder / "no keras"))
    for name in ("CIFAR10_PATH", "CIFAR10_REQUIRED"):
        os.environ.pop(name, None)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 100), ("test", 20)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        arrays[f"y_{split}"] = rng.permutation(np.arange(count) % 10).astype(np.uint8)
    np.savez(folder / "cifar.npz", **arrays)
    return folder / "cifar.npz"


def fingerprint(data) -> str:
    """Equal for equal images, labels, names and source."""
    digest = hashlib.sha256(repr((data.class_names, data.source)).encode())
    for split in (data.train, data.validation, data.test):
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()


def note(file: Path, text: str = "x") -> None:
    """Append a line, whole also where several processes write."""
    with file.open("a") as handle:
        handle.write(f"{text}\n")


def lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


class Worker:
    """A forked process that does `work()`; `outcome` waits for its end: (what it returned or raised, what it said)."""

    def __init__(self, work, start=None):
        self._here, there = FORKED.Pipe(duplex=False)
        self.process = FORKED.Process(target=self._run, args=(work, start, there), daemon=True)
        self.process.start()
        there.close()

    @staticmethod
    def _run(work, start, there):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            try:
                if start:
                    start.wait(SECONDS)
                result = work()
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
                if type(error).__name__ not in ("CourseError", "DataError"):
                    result += traceback.format_exc()[-800:]
        there.send((result, said.getvalue()))

    def outcome(self, seconds: float = SECONDS):
        answer = None
        if self._here.poll(seconds):
            with contextlib.suppress(EOFError):
                answer = self._here.recv()
        self.kill()
        return answer or ("it did not end by itself", "")

    def kill(self):
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    def stop(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.process.pid, signal.SIGCONT)


def together(count: int, work) -> list[tuple]:
    """The outcomes of `count` processes that begin `work(number)` at the same moment."""
    start = FORKED.Barrier(count)
    workers = [Worker(lambda number=number: work(number), start) for number in range(count)]
    return [worker.outcome() for worker in workers]


def until(holds, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(holds())


def litter(folder: Path) -> list[str]:
    """Temporary files that are left in a folder."""
    return [str(file.relative_to(folder)) for file in folder.rglob(".*") if file.suffix == ".partial"
            or (file.is_dir() and "-" in file.name)]


def wrong(*checks) -> str:
    """The words of the checks, pairs of (holds, words), that do not hold."""
    return "; ".join(str(words) for holds, words in checks if not holds)


def case(what: str, *checks) -> tuple[str, bool, str]:
    said = wrong(*checks)
    return what, not said, said


# --- what the processes do ---


class Extractor:
    """Stands in for a Keras model; each batch that it is asked for leaves a line in `log`."""

    def __init__(self, log: Path, hold: Path | None = None):
        self.log, self.hold = log, hold

    def to_json(self):
        return "{}"

    def get_weights(self):
        return [np.arange(3.0)]

    def predict_on_batch(self, images):
        note(self.log)
        if self.hold:
            until(lambda: not self.hold.exists(), SECONDS)
        time.sleep(0.01)
        return features_of(images)


def features_of(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)[:, :4].astype(np.float32)


class Model:
    """Stands in for a Keras model whose every file tells its number."""

    def __init__(self, number: int, size: int = 60_000):
        self.number, self.size = number, size

    def count_params(self):
        return 7

    def to_json(self, **_):
        return str(self.number)

    def save(self, path):
        Path(path).write_bytes(bytes([self.number]) * self.size)


def run_data(fingerprint: str = "1234abcd"):
    from cifar_helpers.data import Data, Source, Split

    part = Split(np.zeros((10, 32, 32, 3), np.uint8), np.arange(10))
    return Data(part, part, part, (), Source("CIFAR-10", "a fault run", fingerprint, False))


def save(number: int, name: str = "baseline", budget: str = "laptop", model=None):
    from cifar_helpers import runs

    logits = np.full((10, 10), number, np.float32)
    return runs.save_run(name, model or Model(number), run_data(),
                         SimpleNamespace(name=budget, lesson="baseline", seed=number), {"loss": [number]}, number,
                         train_logits=logits, validation_logits=logits)


def record(run, number: int):
    from cifar_helpers import runs

    return runs.record_test(run, np.full((10, 10), number, np.float32), run_data(), number)


def mixed(folder: Path) -> str:
    """What in a run's folder is of another save than its description, or of another test; empty where all is one."""
    from cifar_helpers import runs

    try:
        run = runs.load_run(folder.name)
        predictions = runs.load_predictions(run)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    number, tested = run.info["seed"], run.info.get("milliseconds_per_image")
    return wrong((run.history == {"loss": [number]}, "history"), (run.info["train_seconds"] == number, "seconds"),
                 ((folder / "architecture.json").read_text() == str(number), "architecture"),
                 (set((folder / "model.keras").read_bytes()) == {number}, "model"),
                 ((predictions["validation_logits"] == number).all(), "predictions"),
                 (("test_logits" in predictions) == (tested is not None), "half a test"),
                 (tested is None or (predictions.get("test_logits", -1) == tested).all(), "another test's logits"))


def _fresh(folder: Path, number: list) -> Path:
    """A new cache folder and a new folder for runs."""
    number[0] += 1
    here = folder / str(number[0])
    here.mkdir()
    os.environ.update(COURSE_CACHE=str(here / "cache"), COURSE_RUNS=str(here / "runs"))
    return here


# --- the cases ---


def _cases(scale: str):
    without_keras()
    import sklearn.model_selection  # noqa: F401  before the fork: each process would import it again

    from cifar_helpers import paths, transfer

    counts, rounds = ((2, 8), 1) if scale == "short" else (range(2, 9), 4)
    paths.SILENT_SECONDS = 0.3
    transfer.CHUNK = 10
    with tempfile.TemporaryDirectory() as temporary:
        folder, number = Path(temporary), [0]
        archive = tiny_course(folder)
        for _ in range(rounds):
            for count in counts:
                yield _load(_fresh(folder, number), archive, count, "an archive")
                yield _load(_fresh(folder, number), None, count, "the stand-in")
                yield _load(_fresh(folder, number), archive, count, "a damaged cache entry")
                yield _extract(_fresh(folder, number), count)
                yield _save(_fresh(folder, number), count)
            yield _load_after_kill(_fresh(folder, number), archive)
            yield _load_after_killed_write(_fresh(folder, number), archive)
            yield _extract_after_kill(_fresh(folder, number))
            yield _wait_for_a_sleeper(_fresh(folder, number), archive, wakes=True)
            yield _wait_for_a_sleeper(_fresh(folder, number), archive, wakes=False)
            # an older filelock takes a file system without locks for one whose lock is held, and waits for minutes
            quick = Version(metadata.version("filelock")) >= Version("3.24")
            for code in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP) if quick else (errno.ENOSYS,):
                yield _without_locks(_fresh(folder, number), archive, code)
            yield _test_of_a_replaced_run(_fresh(folder, number))
        yield from _killed_at_each_step(folder, number, every=5 if scale == "short" else 1)


def _counting_reads(log: Path, hold: Path | None = None, seconds: float = 0.05):
    """Note each time that the images are read from their source, which takes a while."""
    from cifar_helpers import archives, standin

    def slowed(function):
        def slow(*arguments):
            note(log)
            time.sleep(seconds)
            if hold:
                until(lambda: not hold.exists(), SECONDS)
            return function(*arguments)
        return slow

    archives.read, standin.generate = slowed(archives.read), slowed(standin.generate)


def _entries(here: Path) -> list[Path]:
    return list((here / "cache").glob("[!.]*.npz"))


def _load(here: Path, path: Path | None, count: int, what: str):
    from cifar_helpers.data import load_cifar10

    if what.startswith("a damaged"):
        load_cifar10(path)
        [entry] = _entries(here)
        raw = bytearray(entry.read_bytes())
        raw[len(raw) // 2] ^= 1
        entry.write_bytes(raw)

    def work(_):
        _counting_reads(here / "reads")
        return fingerprint(load_cifar10(path))

    found = together(count, work)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        kept = fingerprint(load_cifar10(path))
        os.environ["COURSE_CACHE"] = str(here / "another cache")
        expected = fingerprint(load_cifar10(path))
    return case(f"{count} processes load {what}",
                ({result for result, _ in found} == {expected}, [result[:300] for result, _ in found]),
                (kept == expected and "damaged" not in said.getvalue(), "the cache holds other images"),
                (len(_entries(here)) == 1, "not one cache entry"), (not litter(here), litter(here)),
                (lines(here / "reads") == 1, f"the source was read {lines(here / 'reads')} times"))


IMAGES = np.random.default_rng(1).integers(0, 256, (45, 32, 32, 3), np.uint8)  # five pieces of ten


def _extracted(log: Path, hold: Path | None = None) -> str:
    from cifar_helpers import transfer

    features, _ = transfer.extract_features(Extractor(log, hold), IMAGES)
    return "right" if np.array_equal(features, features_of(IMAGES)) else "wrong features"


def _extract(here: Path, count: int):
    found = together(count, lambda _: _extracted(here / "batches"))
    left = [file.name for file in (here / "cache" / "features").glob("*/.*")]
    return case(f"{count} processes extract the same features",
                ({result for result, _ in found} == {"right"}, [result[:300] for result, _ in found]),
                (lines(here / "batches") == 5, f"{lines(here / 'batches')} pieces were made, 5 were needed"),
                (_extracted(here / "again") == "right" and not lines(here / "again"), "the cache is not whole"),
                (not left, left))


def _save(here: Path, count: int):
    """All but one save, and test, runs of one name; the last lists them all the time."""
    from cifar_helpers import runs

    save(99)

    def work(number):
        if number == 0:
            seen = []
            while lines(here / "saved") < count - 1:
                seen += [wrong((len(found) == 1, f"{len(found)} runs listed"),
                               *((run.history == {"loss": [run.info["seed"]]}, "a mixed run") for run in found))
                         for found in [runs.list_runs()]]
            return "; ".join({words for words in seen if words}) or "right"
        for _ in range(3):
            run = save(number)
            with contextlib.suppress(runs.CourseError):  # another process may have saved in between
                record(run, number)
        note(here / "saved")
        return "right"

    found = together(count, work)
    left = [path.name for path in (here / "runs").iterdir() if path.name not in ("baseline", ".lock")]
    return case(f"{count - 1} processes save the same run, one lists",
                ({result for result, _ in found} == {"right"}, [result[:300] for result, _ in found]),
                (not mixed(here / "runs" / "baseline"), mixed(here / "runs" / "baseline")), (not left, left))


def _load_after_kill(here: Path, archive: Path):
    from cifar_helpers.data import load_cifar10

    hold = here / "hold"
    hold.touch()

    def work(slow=False):
        _counting_reads(here / "reads", hold if slow else None)
        return fingerprint(load_cifar10(archive))

    first = Worker(lambda: work(slow=True))
    until(lambda: lines(here / "reads"))
    others = [Worker(work) for _ in range(3)]
    time.sleep(0.5)
    first.kill()
    begun = time.monotonic()
    found = [other.outcome() for other in others]
    took = time.monotonic() - begun
    return case("three processes load, the one that reads is killed",
                (len({result for result, _ in found}) == 1 and len(found[0][0]) == 64, found),
                (took < 5, f"its lock held the others up for {took:.1f} s"),
                (len(_entries(here)) == 1, "not one cache entry"), (not litter(here), litter(here)))


def _load_after_killed_write(here: Path, archive: Path):
    from cifar_helpers.data import load_cifar10

    def work():
        def half(file, **_):
            file.write(bytes(100_000))
            file.flush()
            time.sleep(SECONDS)

        np.savez = half
        load_cifar10(archive)

    writer = Worker(work)
    until(lambda: litter(here))
    writer.kill()
    left = litter(here)
    found = Worker(lambda: fingerprint(load_cifar10(archive))).outcome()
    return case("a process is killed while it writes the cache", (bool(left), "nothing was half-written"),
                (len(found[0]) == 64, found), (not litter(here), f"left: {litter(here)}"),
                (len(_entries(here)) == 1, "not one cache entry"))


def _extract_after_kill(here: Path):
    hold = here / "hold"
    hold.touch()
    first = Worker(lambda: _extracted(here / "batches", hold))
    until(lambda: lines(here / "batches"))
    others = [Worker(lambda: _extracted(here / "others")) for _ in range(2)]
    time.sleep(0.2)
    first.kill()
    found = [other.outcome() for other in others]
    left = [file.name for file in (here / "cache" / "features").glob("*/.*")]
    return case("two processes extract, a third one that holds a piece is killed",
                ({result for result, _ in found} == {"right"}, found), (not left, left),
                (lines(here / "others") == 5, f"{lines(here / 'others')} pieces were made, 5 were needed"))


def _wait_for_a_sleeper(here: Path, archive: Path, wakes: bool):
    from cifar_helpers import paths
    from cifar_helpers.data import load_cifar10

    hold = here / "hold"
    hold.touch()

    def work(slow=False):
        paths.PATIENT_SECONDS = SECONDS if wakes else 0.5
        _counting_reads(here / "reads", hold if slow else None)
        return fingerprint(load_cifar10(archive))

    first = Worker(lambda: work(slow=True))
    until(lambda: lines(here / "reads"))
    first.stop()
    other = Worker(work)
    time.sleep(1)
    hold.unlink()
    if wakes:
        first.go_on()
    result, said = other.outcome(30)
    first.go_on()
    late = first.outcome()
    return case(f"a process that holds the lock sleeps {'and wakes' if wakes else 'for long'}",
                (result == late[0] and len(result) == 64, (result[:300], late[0][:300])),
                (said.count("Waiting for another process") == 1, f"said: {said!r}"),
                (len(_entries(here)) == 1, "not one cache entry"), (not litter(here), litter(here)))


def _without_locks(here: Path, archive: Path, code: int):
    """A stand-in for a network drive without locks: the system call that takes one answers so."""
    from cifar_helpers import runs
    from cifar_helpers.data import load_cifar10

    def work():
        def flock(*_):
            raise OSError(code, os.strerror(code))

        fcntl.flock = flock
        save(1)
        record(save(2), 5)
        return [len(fingerprint(load_cifar10(archive))), _extracted(here / "batches"),
                [run.info["seed"] for run in runs.list_runs()]]

    begun = time.monotonic()
    result, said = Worker(work).outcome(30)
    took = time.monotonic() - begun
    return case(f"locks answer {errno.errorcode[code]}", (result == [64, "right", [2]], result),
                (took < 10, f"took {took:.1f} s"), (not mixed(here / "runs" / "baseline"), "the run"),
                ("not cached" not in said, said), (len(_entries(here)) == 1, "not one cache entry"),
                (not litter(here), litter(here)))


def _test_of_a_replaced_run(here: Path):
    run = save(1)
    save(2)
    result, _ = Worker(lambda: str(record(run, 1))).outcome()
    return case("a run is replaced while it is tested", (result.startswith("CourseError: The run 'baseline'"), result),
                (not mixed(here / "runs" / "baseline"), mixed(here / "runs" / "baseline")))


# --- killed between any two steps ---

STEPS = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir"}


def _killed_at(step: int, work) -> bool:
    """Do `work` in a process that dies before its `step`th change to the disk, and return whether it came so far."""
    def doomed():
        left = [step]

        def hook(event, arguments):
            if event in STEPS and (event != "open" or "w" in str(arguments[1] or "") or arguments[2] & os.O_CREAT):
                left[0] -= 1
                if not left[0]:
                    os._exit(9)

        sys.addaudithook(hook)
        work()

    worker = Worker(doomed)
    worker.process.join(SECONDS)
    code = worker.process.exitcode
    worker.kill()
    return code == 9


def _killed_at_each_step(folder: Path, number: list, every: int):
    from cifar_helpers import runs

    def again():
        save(2)

    def other_kind():
        save(2, budget="full")

    def tested():
        record(runs.load_run("baseline"), 3)

    def kinds():
        return {run.name: (run.info["seed"], "test_accuracy" in run.info) for run in runs.list_runs()}

    for what, work, kept in (("saving anew", again, False), ("saving another kind", other_kind, False),
                             ("saving another kind again", other_kind, True), ("recording a test", tested, False)):
        step, goes_on = 1, True
        while goes_on:
            here = _fresh(folder, number)
            if kept:
                save(7)
                save(8, budget="full")  # 7 is kept as baseline-laptop
                save(1)  # 8 as baseline-full, and 1 has the name
            else:
                save(1)
            before = kinds()
            goes_on = _killed_at(step, work)
            with contextlib.redirect_stdout(io.StringIO()) as said:
                after = kinds()
            bad = {name: mixed(here / "runs" / name) for name in after if mixed(here / "runs" / name)}
            seeds = {seed for seed, _ in after.values()}
            # 7 and 8 make room for newer ones of their kind, where those came to their places
            replaced = {7} if 2 in seeds or "baseline" not in before else set()
            lost = {seed for seed, _ in before.values()} - seeds - (replaced if kept else set())
            lost -= {1, 8} if 2 in seeds and what == "saving anew" else set()
            left = [path.name for path in (here / "runs").glob(".*-*")]
            yield case(f"killed before step {step} of {what}", (not bad, bad),
                       ("Left out" not in said.getvalue(), said.getvalue()),
                       ("baseline" in after, f"no baseline: {after}"), (not lost, f"lost: {lost} of {before}, {after}"),
                       (not left, left))
            shutil.rmtree(here)
            step += every


if __name__ == "__main__":
    print_cases(_cases(sys.argv[1]))
