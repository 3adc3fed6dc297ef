"""Long trainings: memory that does not grow, and a machine that sleeps in the middle of an epoch.

In full, lessons 2 and 4 run as they stand, with 200 epochs instead of the smoke budget's. Sleep is SIGSTOP and SIGCONT:
the process stands still as it does under a closed lid. Reads memory from `/proc`, so Linux only.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from promise_4_killed import _differences, _run, _server

PROMISE = "Long trainings: memory does not grow over 200 epochs, and a sleep within one loses nothing"
LESSONS = Path(__file__).resolve().parent.parent / "notebooks"
EARLY, LATE = 20, 200  # epochs between which memory must not grow
ALLOWED_MB = 30  # of growth: lesson 4's larger pictures take 23 in one step; a state kept an epoch would be over 260
SHORT_EARLY, SHORT_LATE = 10, 25


def cases(scale: str) -> Iterator[tuple[str, bool, str]]:
    """Two sleeps, and memory over 25 epochs of a small net, or over 200 of lessons 2 and 4."""
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as scratch, _server() as server:
        for part in ("fit", "loop"):
            expected = _run(server, Path(scratch, f"awake-{part}"), part)
            places = [number for number, (name, _) in enumerate(expected["marks"]) if name in ("noted 1", "noted 2")]
            for place in places[:1 if scale == "short" else 2]:
                middle = expected["marks"][place][1] / 2
                slept = _run(server, Path(scratch, f"slept-{part}-{place}"), part, sleep_after=(place, middle))
                lost = _differences(slept["arrays"], expected["arrays"]) if "arrays" in slept else slept["said"]
                yield f"{part}: asleep for a second in epoch {place}", not lost, lost
            if scale == "short" and part == "loop":
                found = _run(server, Path(scratch, f"long-{part}"), part, epochs=SHORT_LATE)
                memory = {name: resident for (name, _), resident in zip(found["marks"], found["resident"], strict=True)}
                yield _grown(f"{part}: memory", memory.get(f"noted {SHORT_EARLY}"), memory.get(f"noted {SHORT_LATE}"),
                             found["said"])
    if scale == "full":
        for lesson in ("02_baseline", "04_custom_loop"):
            yield from _long_lesson(lesson)


def _grown(what: str, early: float | None, late: float | None, said: str) -> tuple[str, bool, str]:
    if early is None or late is None:
        return what, False, f"training did not get that far: {said}"
    grown = late - early
    return what, grown <= ALLOWED_MB, "" if grown <= ALLOWED_MB else f"{early:.0f} MB grew by {grown:.0f} MB"


def _long_lesson(lesson: str) -> Iterator[tuple[str, bool, str]]:
    """The lesson's own script, in a process of its own, with 200 epochs; a case for each run that it trains."""
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as scratch:
        environment = os.environ | {"COURSE_BUDGET": "smoke", "COURSE_RUNS": scratch, "MPLBACKEND": "Agg"}
        done = subprocess.run([sys.executable, __file__, lesson], env=environment, capture_output=True, text=True,
                              check=False)
    memory: dict[str, dict[int, float]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("resident "):
            _, name, epoch, megabytes = line.split()
            memory.setdefault(name, {})[int(epoch)] = float(megabytes)
    said = (done.stderr.strip().splitlines() or ["it trained nothing"])[-1]
    for name, at in (memory or {lesson: {}}).items():
        yield _grown(f"{name}: memory", at.get(EARLY), at.get(LATE), said)


def _train_long(lesson: str) -> None:
    import runpy

    from promise_4_killed import _resident

    from cifar_helpers import budgets, training

    for numbers in (budgets.LESSONS[key]["smoke"] for key in ("baseline", "custom_loop")):
        numbers |= {key: LATE for key in ("epochs", "fast_epochs") if key in numbers}
    note = training.Progress._note

    def note_and_tell(progress, measures):
        note(progress, measures)
        print("resident", progress.file.stem, progress.epoch, f"{_resident(os.getpid()):.1f}", flush=True)

    training.Progress._note = note_and_tell
    runpy.run_path(str(LESSONS / f"{lesson}.py"), run_name="__main__")


if __name__ == "__main__":
    _train_long(sys.argv[1])
