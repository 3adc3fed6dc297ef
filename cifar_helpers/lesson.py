"""One call that opens every lesson or assignment: supported versions, quiet start, and a lesson's seed and budget."""

import os
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cifar_helpers.budgets import get_budget
from cifar_helpers.errors import CourseError
from cifar_helpers.machine import describe, prefer_bfloat16

SEED = 2026  # where COURSE_SEED names no other


def version_faults() -> list[str]:
    """A sentence for each version that `pyproject.toml` does not support, and one for all that is missing."""
    try:
        pythons, packages = _supported()
    except (OSError, KeyError):
        return ["cifar_helpers is imported from a folder but not installed: run `python -m pip install -e .` there."]
    faults, missing = [], []
    python = ".".join(map(str, sys.version_info[:3]))
    if python not in SpecifierSet(pythons):
        faults.append(f"Python {python} is not supported: use Python {pythons}.")
    for needed in map(Requirement, packages):
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            missing.append(needed)
            continue
        if not needed.specifier.contains(found, prereleases=True):
            faults.append(f"{needed.name} {found} is not supported ({needed.specifier}): {_install(needed)}")
    if missing:
        names = ", ".join(needed.name for needed in missing)
        faults.append(f"{names} {'is' if len(missing) == 1 else 'are'} missing: {_install(*missing)}")
    return faults


def _supported() -> tuple[str, list[str]]:
    """The range of Python and the requirements: of the installed package, else of the checkout that it stands in."""
    try:
        package = metadata.metadata("cifar-helpers")
        return package["Requires-Python"], package.get_all("Requires-Dist") or []
    except metadata.PackageNotFoundError:
        text = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text)["project"]
        return project["requires-python"], project["dependencies"]


def _install(*packages: Requirement) -> str:
    wanted = " ".join(shlex.quote(f"{needed.name}{needed.specifier}") for needed in packages)
    return f"run `python -m pip install {wanted}` and restart the kernel."


def chosen_seed() -> int:
    """The seed that `COURSE_SEED` names, 2026 where it is not set.

    Raises CourseError where it names no whole number from 0 to 2**32 - 1.
    """
    text = os.environ.get("COURSE_SEED", "").strip() or str(SEED)
    if not text.isdecimal() or int(text) >= 2**32:
        raise CourseError(f"COURSE_SEED is {text!r}: set it to a whole number from 0 to {2**32 - 1}, or unset it.")
    return int(text)


def start_lesson(lesson: str, seed: int | None = None) -> SimpleNamespace:
    """Check the versions, seed every generator, and return the lesson's budget.

    Figures get descriptions from now on, and colours that readers who are colour-blind can tell apart.

    `lesson` is a key of `budgets.LESSONS`; `seed` stands for `COURSE_SEED`, which is 2026 where it is not set. Prints
    two lines: what the lesson runs on, and how much it trains. The budget has `name`, `lesson`, `seed` and the numbers
    of images and epochs.

    Raises CourseError where a version is not supported, the budget or the seed is none, or Keras runs on another
    backend.
    """
    _check_versions()
    budget = get_budget(lesson)
    budget.seed = seed = chosen_seed() if seed is None else seed
    here = _open()
    import keras

    keras.utils.set_random_seed(seed)
    precision = prefer_bfloat16()
    versions = here["versions"]
    device = ", ".join(here["gpus"]) or "no GPU"
    print(f"Python {versions['python']}, TensorFlow {versions['tensorflow']}, Keras {versions['keras']}, "
          f"{here['cores']} CPU cores, {device}, {precision}")
    numbers = ", ".join(f"{key.replace('_', ' ')} {'all' if value is None else format(value, ',')}"
                        for key, value in vars(budget).items() if key not in ("lesson", "name", "seed"))
    print(f"Budget {budget.name}: {numbers}, seed {seed}")
    return budget


def start_exercises() -> None:
    """Open an assignment, before Keras is imported: versions, TensorFlow without its start-up log, a lesson's figures.

    Raises CourseError where a version is not supported, or Keras runs on another backend.
    """
    _check_versions()
    _open()


def _check_versions() -> None:
    if faults := version_faults():
        raise CourseError(" ".join(faults))


def _open() -> dict:
    """TensorFlow and Keras, loaded; returns what the machine is."""
    here = describe()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise CourseError(f"Keras runs on {keras.backend.backend()} here, and this course needs TensorFlow: "
                          "set KERAS_BACKEND=tensorflow and restart the kernel.")
    import seaborn as sns  # here, as the next, for what is missing is to be said before

    from cifar_helpers import alt

    sns.set_palette("colorblind")
    alt.show_in_notebooks()
    return here
