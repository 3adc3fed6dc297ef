"""Try every check of the exercises on right and on wrong solutions, and print what came of it.

    python tools/checks_table.py                 every lesson
    python tools/checks_table.py 7               lesson 7
    python tools/checks_table.py 7 --messages    with the message that each wrong solution gets

The solutions are those of the tests, in `tests/exercises/lesson_N.py`. The exit status is 1 where a right solution was
refused, a wrong one was accepted or got a message that does not name its fault, or a check took too long.
"""

import argparse
import contextlib
import importlib.util
import io
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cifar_helpers import checks

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "exercises"
SECONDS = 2.0  # a check takes less


@dataclass
class Trial:
    """One check on one solution: what it said, nothing where it found no fault, and whether that is as it should be."""

    check: str
    kind: str  # right or wrong
    solution: str
    fragment: str  # what the message must contain, for a wrong solution
    message: str | None
    seconds: float

    @property
    def fault(self) -> str | None:
        """A sentence where the check does not keep its promise, else None."""
        which = f"check_{self.check} on the {self.kind} solution {self.solution}"
        if self.seconds >= SECONDS:
            return f"{which} took {self.seconds:.2f} s."
        if self.kind == "right":
            return f"{which} found a fault: {self.message}" if self.message is not None else None
        if self.message is None:
            return f"{which} found no fault."
        return None if self.fragment in self.message else f"{which} says {self.message!r}, without {self.fragment!r}."


def numbers(folder: Path = FOLDER) -> list[int]:
    """The lessons that have solutions to try."""
    return sorted(int(path.stem.removeprefix("lesson_")) for path in folder.glob("lesson_*.py"))


def solutions(number: int, folder: Path = FOLDER) -> dict:
    """`SOLUTIONS` of a lesson: for each check, without `check_`, the right and the wrong solutions.

    Raises FileNotFoundError where there are none for this lesson.
    """
    name = f"exercise_solutions_{number}"
    if name in sys.modules:  # Keras registers a class once
        return sys.modules[name].SOLUTIONS
    module = _load(name, folder / f"lesson_{number}.py")
    return module.SOLUTIONS


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def trials(number: int) -> Iterator[Trial]:
    """Try every solution of a lesson, the right ones first. A solution that is no NotYet's fault raises as it does."""
    for check, cases in solutions(number).items():
        make = cases.get("make", False)
        for solution in cases["right"]:
            yield attempt(check, "right", solution, "", make)
        for solution, fragment in cases["wrong"]:
            yield attempt(check, "wrong", solution, fragment, make)


def attempt(check: str, kind: str, solution, fragment: str, make: bool = False) -> Trial:
    """Call `check_{check}` on one solution, or on what it makes; what is printed is dropped.

    The seconds are those of the clock or of the processor, whichever are fewer: other programs on the machine make a
    check wait, but not compute. A check that took too long gets a second chance, since the first call of a process
    pays for TensorFlow's start.
    """
    name = _name(solution)
    for _ in range(2):
        given = solution() if make else solution
        message, seconds = None, (time.perf_counter(), time.process_time())
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                getattr(checks, f"check_{check}")(given)
            except checks.NotYet as error:
                message = str(error)
        spent = min(time.perf_counter() - seconds[0], time.process_time() - seconds[1])
        if spent < SECONDS:
            break
    return Trial(check, kind, name, fragment, message, spent)


def _name(solution) -> str:
    name = getattr(solution, "__name__", None) or " ".join(repr(solution).split())
    return name if len(name) <= 70 else f"{name[:67]}..."


def table(found: dict[int, list[Trial]], messages: bool = False) -> str:
    """A line a check: how many solutions it took as it should, and its slowest second; with `messages` all of them."""
    lines = [f"{'lesson':6}  {'check':28}  {'right':>7}  {'wrong':>7}  {'slowest, s':>10}"]
    for number, tried in found.items():
        for check in dict.fromkeys(trial.check for trial in tried):
            mine = [trial for trial in tried if trial.check == check]
            counts = []
            for kind in ("right", "wrong"):
                of_kind = [trial for trial in mine if trial.kind == kind]
                kept = sum(trial.fault is None for trial in of_kind)
                counts.append(f"{kept}/{len(of_kind)}")
            lines.append(f"{number:<6}  {'check_' + check:28}  {counts[0]:>7}  {counts[1]:>7}  "
                         f"{max(trial.seconds for trial in mine):>10.2f}")
            if messages:
                lines += [f"        {trial.solution}: {trial.message}" for trial in mine if trial.kind == "wrong"]
    every = [trial for tried in found.values() for trial in tried]
    kept = {kind: [trial.fault is None for trial in every if trial.kind == kind] for kind in ("right", "wrong")}
    lines.append(f"{len({trial.check for trial in every})} checks: {sum(kept['right'])} of {len(kept['right'])} right "
                 f"solutions accepted, {sum(kept['wrong'])} of {len(kept['wrong'])} wrong ones refused with a message "
                 "that names the fault")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; the exit status is 1 where a check does not keep its promise."""
    parser = argparse.ArgumentParser(description="Try the exercises' checks on right and on wrong solutions.")
    parser.add_argument("lessons", nargs="*", type=int, metavar="LESSON", help="which lessons (all)")
    parser.add_argument("--messages", action="store_true", help="show what each wrong solution is told")
    options = parser.parse_args(arguments)
    if unknown := [str(number) for number in options.lessons if number not in numbers()]:
        parser.error(f"there are no solutions for lesson {', '.join(unknown)}: take one of {numbers()}")
    sys.stdout.reconfigure(errors="replace")
    found = {number: list(trials(number)) for number in options.lessons or numbers()}
    print(table(found, options.messages))
    faults = [trial.fault for tried in found.values() for trial in tried if trial.fault]
    print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
