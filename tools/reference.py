"""Make the reference runs: the lessons as they stand, timed in processes of their own, and what they saved as JSON.

    python tools/reference.py                                           lessons 2 to 6, laptop budget, seed 2026
    python tools/reference.py --budget full --seeds 2026,2027 --lessons 3,6

Each lesson's script runs unchanged. `results/<budget>/` gets a file a run and seed with `run` (run.json), `history`
(history.json) and `command`, and `lessons.json` with each lesson's wall seconds and the peak resident memory of its
process in MB (10^6 bytes). The runs themselves stay under `build/reference/<budget>-<seed>/`. Test figures come from
lesson 6, so it runs last, and all files are written anew after it. A lesson that fails leaves the results as they were.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cifar_helpers import machine
from cifar_helpers.budgets import NAMES
from cifar_helpers.errors import CourseError
from cifar_helpers.lesson import SEED
from cifar_helpers.paths import cache_dir, whole_file

machine.import_tensorflow()  # before Keras, without its start-up log

from cifar_helpers.runs import LESSONS  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
COMPARISON = 6  # the lesson that measures every run on the test images
TIMES = "lessons.json"


def lesson_scripts(notebooks: Path, numbers: list[int]) -> list[Path]:
    """The scripts of the lessons with these numbers, in order, with the comparison last.

    Raises CourseError where there is none of a number.
    """
    found = {int(path.name[:2]): path for path in sorted(notebooks.glob("[0-9][0-9]_*.py"))}
    if unknown := [str(number) for number in numbers if number not in found]:
        raise CourseError(f"There is no lesson {', '.join(unknown)}: take {', '.join(map(str, found))}.")
    return [found[number] for number in sorted(set(numbers), key=lambda number: (number == COMPARISON, number))]


def lesson_key(script: Path) -> str:
    """The lesson's name in `budgets.LESSONS`, from its call of `start_lesson`.

    Raises CourseError where it has none.
    """
    if not (found := re.search(r"start_lesson\(\"(\w+)\"", script.read_text(encoding="utf-8"))):
        raise CourseError(f"{script.name} does not call start_lesson(\"…\"): let it open as the other lessons do.")
    return found[1]


def run_script(script: Path, environment: dict, log: Path) -> tuple[float, int | None]:
    """Run a lesson to its end; returns wall seconds and peak resident memory in MB, None where the system has no word
    for it (Windows). What the lesson prints goes to `log`.

    Raises CourseError where it stops with an error, with its last line.
    """
    begun = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, script], env=environment, cwd=script.parent, stdout=out,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            if hasattr(os, "wait4"):
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                # Linux counts in KiB, macOS in bytes. What this process held when it started the lesson counts as the
                # lesson's on Linux: TensorFlow's own memory, which each lesson needs and more.
                peak = round(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)
            else:
                process.wait()
                peak = None
        except BaseException:
            process.kill()
            raise
    seconds = time.perf_counter() - begun
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        why = said[-1][:300] if said else f"exit status {process.returncode}"
        raise CourseError(f"{script.stem} stopped with {why} (its output: {log.parent.name}/{log.name}).")
    return seconds, peak


def without_paths(value):
    """A JSON value in which every absolute path is only its last part."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    for named in ("CIFAR10_PATH", "BACKBONE_PATH"):  # these may hold spaces, at which a pattern must stop
        if path := os.environ.get(named, "").strip():
            value = value.replace(path, Path(path).name)
    return re.sub(r"(?<![\w.])(?:[A-Za-z]:[\\/]|~?/|\\\\)(?=\S)(?:[^\\/\s,;:'\"()]+[\\/])*", "", value)


def read_run(folder: Path, budget: str, seed: int) -> dict | None:
    """What a run's folder holds, as it goes into results/; None where there is no run of this budget and seed.

    Raises CourseError where it was trained on the stand-in or on random weights, or cannot be read.
    """
    if not (folder / "run.json").is_file():
        return None
    try:
        run, history = (json.loads((folder / f"{file}.json").read_text(encoding="utf-8"))
                        for file in ("run", "history"))
        if (run["budget"], run["seed"]) != (budget, seed):
            return None
        if run["data"]["is_standin"]:
            raise CourseError(f"The run {folder.name!r} was trained on the stand-in, and results must be on CIFAR-10: "
                              "set CIFAR10_PATH to a copy.")
        if run["backbone"] == "random weights":
            raise CourseError(f"The run {folder.name!r} has a backbone with random weights: set BACKBONE_PATH to "
                              "pretrained ones.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(f"The run {folder.name!r} cannot be read ({error!r}): run its lesson again.") from error
    number = int(LESSONS[folder.name][:2])
    tested = f",{COMPARISON}" if "test_accuracy" in run else ""
    command = f"python tools/reference.py --budget {budget} --seeds {seed} --lessons {number}{tested}"
    return without_paths({"run": run, "history": history}) | {"command": command}


def keep(results: Path, budget: str, seed: int, found: dict[str, dict]) -> None:
    """Write the results of several runs, all or, where one does not fit those that are there, none.

    Raises CourseError where `results/<budget>` would hold runs on different images.
    """
    folder = results / budget
    files = {folder / (f"{name}.json" if seed == SEED else f"{name}-seed{seed}.json"): result
             for name, result in found.items()}
    others = {path: _json(path) for path in folder.glob("*.json") if path.name != TIMES and path not in files}
    sources = {result["run"]["data"]["fingerprint"] for result in [*files.values(), *others.values()]}
    if len(sources) > 1:
        raise CourseError(f"{folder.name}/ would mix results on different images (fingerprints "
                          f"{', '.join(sorted(sources))}): train on the same copy, or move the folder away first.")
    for path, result in files.items():
        _write(path, result)


def keep_time(results: Path, budget: str, key: str, seed: int, figures: dict) -> None:
    """Add a lesson's wall seconds and memory to `lessons.json`, in the place of earlier ones with this seed."""
    path = results / budget / TIMES
    times = _json(path) if path.is_file() else {}
    times[key] = dict(sorted((times.get(key, {}) | {str(seed): figures}).items()))
    _write(path, times)


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(f"{path.parent.name}/{path.name} cannot be read ({error}): restore or delete it.") from error


def _write(path: Path, content: dict) -> None:
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def own_cache(folder: Path) -> Path:
    """A cache with the images that the user's cache holds and without features, so that each seed pays for its own."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "features", ignore_errors=True)
    for images in cache_dir().glob("*.npz"):
        if not images.name.startswith("standin") and not (folder / images.name).is_file():
            shutil.copy2(images, folder)
    return folder


def run_lesson(script: Path, budget: str, seed: int, results: Path, work: Path) -> None:
    """Run one lesson with one seed, and keep what it saved.

    Raises CourseError with one sentence; then `results` is as it was.
    """
    key, runs = lesson_key(script), work / f"{budget}-{seed}"
    runs.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "COURSE_BUDGET": budget, "COURSE_SEED": str(seed), "COURSE_RUNS": str(runs), "MPLBACKEND": "Agg",
        "CIFAR10_REQUIRED": "1", "COURSE_CACHE": str(own_cache(work / "cache")), "PYTHONIOENCODING": "utf-8"}
    environment.pop("COURSE_BUILD", None)  # lesson 6 would write its table there
    compares = int(script.name[:2]) == COMPARISON
    there = {name: result for name in LESSONS if (result := read_run(runs / name, budget, seed))}
    names = list(there) if compares else [name for name, lesson in LESSONS.items() if lesson == script.stem]
    before = {name: _changed(runs / name / "run.json") for name in names}
    tested = [name for name, result in there.items() if "test_accuracy" in result["run"]]

    seconds, peak = run_script(script, environment, runs / f"{script.stem}.log")

    found = {name: read_run(runs / name, budget, seed) for name in names}
    for name, result in found.items():
        if result is None or (not compares and _changed(runs / name / "run.json") == before[name]):
            raise CourseError(f"{script.stem} ended without saving {name!r} at the {budget} budget with seed {seed}: "
                              "see what it saves, and whether start_lesson takes COURSE_SEED.")
        if compares and "test_accuracy" not in result["run"]:
            raise CourseError(f"{script.stem} ended without measuring {name!r} on the test images: see its output.")
    keep(results, budget, seed, found)
    if compares and (missing := [name for name in LESSONS if name not in there]):
        print(f"{script.stem} trained {', '.join(missing)} first, at the smoke budget: its time is not kept.")
        return
    if compares and tested:
        print(f"{script.stem} found {', '.join(tested)} measured before: its time is not kept.")
        return
    hardware = machine.describe()
    keep_time(results, budget, key, seed, {"seconds": round(seconds), "peak_memory_mb": peak,
                                           "cores": hardware["cores"], "gpus": hardware["gpus"]})
    print(f"{script.stem}, seed {seed}: {seconds:.0f} s, {peak or '?'} MB", flush=True)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 1 where a lesson failed, 2 where the call makes no sense."""
    parser = argparse.ArgumentParser(description="Make the reference runs that ship with the course in results/.")
    parser.add_argument("--budget", choices=NAMES, default="laptop")
    parser.add_argument("--seeds", type=_numbers, default=[SEED], help=f"separated by commas ({SEED})")
    parser.add_argument("--lessons", type=_numbers, default=[2, 3, 4, 5, 6], help="separated by commas (2,3,4,5,6)")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="where the JSON goes (results/)")
    parser.add_argument("--runs", type=Path, default=ROOT / "build" / "reference", help="where the runs go")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="where the lessons are (notebooks/)")
    options = parser.parse_args(arguments)
    try:
        scripts = lesson_scripts(options.notebooks.resolve(), options.lessons)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2
    failed = 0
    for seed in options.seeds:
        for script in scripts:
            try:
                run_lesson(script, options.budget, seed, options.results.resolve(), options.runs.resolve())
            except (CourseError, OSError) as error:
                print(error, file=sys.stderr, flush=True)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
