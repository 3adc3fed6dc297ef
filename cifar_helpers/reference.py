"""Reference results that ship with the course: what its lessons reached, a file a run and seed."""

import json
import re
from pathlib import Path

from cifar_helpers.errors import CourseError
from cifar_helpers.paths import checkout
from cifar_helpers.runs import LESSONS

PACKAGED = Path(__file__).parent / "reference_results"


def results_dir() -> Path:
    """`results` of the checkout, else the copy in the installed package."""
    folder = checkout() and checkout() / "results"
    return folder if folder and folder.is_dir() else PACKAGED


def load_reference(name: str, budget: str = "full", folder: Path | None = None) -> list[dict]:
    """A run's reference results at a budget, one a seed in the order of the seeds.

    Each has `run`, what run.json held, and `history`, a list an epoch for each measure. `folder` is another place to
    look than `results_dir()`.

    Raises CourseError where there is none, or a file cannot be read.
    """
    folder = (folder or results_dir()) / budget
    found = [_read(file) for file in sorted(folder.glob(f"{name}*.json"))
             if re.fullmatch(rf"{re.escape(name)}(-seed\d+)?\.json", file.name)]
    if not found:
        lesson = f" --lessons {int(LESSONS[name][:2])}" if name in LESSONS else ""
        raise CourseError(f"The course ships no results of {name!r} at the {budget} budget: get its newest version, or "
                          f"make them in a checkout with `python tools/reference.py --budget {budget}{lesson}`.")
    return sorted(found, key=lambda result: result["run"]["seed"])


def histories(names, budget: str = "full") -> dict[str, list[dict]]:
    """For each run the histories of its reference results, one a seed: `{"plain": [history, …], …}`.

    A run without results is left out, with a sentence that says how to make them: a lesson goes on without its figure.
    """
    found = {}
    for name in names:
        try:
            found[name] = [result["history"] for result in load_reference(name, budget)]
        except CourseError as error:
            print(error)
    return found


def load_ablation() -> list[dict]:
    """Trainings of lesson 4's fast net: each has `without`, `seed`, `validation_accuracy` (0 to 1) and `seconds`.

    Raises CourseError where there is no such file or it cannot be read.
    """
    try:
        return json.loads((results_dir() / "ablation.json").read_text(encoding="utf-8"))["records"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(f"The course's results/ablation.json cannot be read ({error!r}): take the file from the "
                          "course's repository again, or make it with `python benchmarks/ablation.py`.") from error


def _read(file: Path) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {"run": {**content["run"], "seed": int(content["run"]["seed"])}, "history": {**content["history"]}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(f"The reference result {file.parent.name}/{file.name} cannot be read ({error!r}): take the "
                          "file from the course's repository again.") from error
