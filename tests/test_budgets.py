"""Budgets know their lessons, and versions outside the supported range are named with a remedy."""

import importlib.metadata
import itertools
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cifar_helpers import budgets, lesson
from cifar_helpers.budgets import budget_name, get_budget
from cifar_helpers.errors import CourseError


@pytest.mark.parametrize(("name", "lesson_name"), list(itertools.product(budgets.NAMES, budgets.LESSONS)))
def test_every_lesson_has_every_budget(name, lesson_name, monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", name)
    budget = get_budget(lesson_name)
    assert (budget.name, budget.lesson) == (name, lesson_name)
    numbers = {key: value for key, value in vars(budget).items() if key not in ("name", "lesson")}
    assert numbers and all(value is None or (type(value) is int and value > 0) for value in numbers.values())


@pytest.mark.parametrize("lesson_name", budgets.LESSONS)
def test_a_bigger_budget_has_the_same_numbers_and_never_less(lesson_name, monkeypatch):
    numbers = []
    for name in budgets.NAMES:
        monkeypatch.setenv("COURSE_BUDGET", name)
        numbers.append({key: float("inf") if value is None else value
                        for key, value in vars(get_budget(lesson_name)).items() if key not in ("name", "lesson")})
    for smaller, bigger in itertools.pairwise(numbers):
        assert set(smaller) == set(bigger)
        assert all(smaller[key] <= bigger[key] for key in smaller)


def test_the_smoke_budget_takes_few_images_and_some_of_each_class(monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", "smoke")
    for lesson_name in budgets.LESSONS:
        assert all(10 <= value <= 1_000 for key, value in vars(get_budget(lesson_name)).items() if "images" in key)


def test_a_lesson_may_change_its_copy_of_the_budget(monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", "smoke")
    get_budget("baseline").epochs = 99
    assert get_budget("baseline").epochs == 1


@pytest.mark.parametrize("value", [None, "", "  "])
def test_laptop_is_the_budget_where_none_is_named(value, monkeypatch):
    if value is None:
        monkeypatch.delenv("COURSE_BUDGET", raising=False)
    else:
        monkeypatch.setenv("COURSE_BUDGET", value)
    assert get_budget("load").name == "laptop"


def test_case_and_spaces_do_not_matter(monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", " Full ")
    assert budget_name() == "full"


@pytest.mark.parametrize("value", ["huge", "smoke,full", "1"])
def test_an_unknown_budget_is_named_with_the_known_ones(value, monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", value)
    with pytest.raises(CourseError, match=f"COURSE_BUDGET is '{value}', .* set it to one of smoke, laptop, full"):
        get_budget("load")


@pytest.mark.parametrize("name", ["", "Baseline", "01_load", "quantum"])
def test_an_unknown_lesson_is_named_with_the_known_ones(name, monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", "smoke")
    with pytest.raises(CourseError, match=f"There is no lesson '{name}': take one of load, baseline, .*comparison"):
        get_budget(name)


# --- versions ---


def pretend(monkeypatch, package, version):
    """Let an installed package report another version, or none."""
    real = importlib.metadata.version

    def report(name):
        if name != package:
            return real(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", report)


def test_the_installed_versions_are_supported():
    assert lesson.version_faults() == []


@pytest.mark.parametrize(("package", "version"), [
    ("tensorflow", "2.10.1"), ("tensorflow", "3.0.0"), ("keras", "2.15.0"), ("numpy", "1.25.2"),
    ("scikit-learn", "1.3.2"),
])
def test_an_unsupported_version_is_named_with_its_range_and_remedy(package, version, monkeypatch):
    pretend(monkeypatch, package, version)
    [fault] = lesson.version_faults()
    assert fault.startswith(f"{package} {version} is not supported (")
    assert f"run `python -m pip install '{package}" in fault and fault.endswith("restart the kernel.")


@pytest.mark.parametrize("version", ["2.19.0", "2.99.0rc1"])
def test_other_versions_of_the_range_are_supported(version, monkeypatch):
    pretend(monkeypatch, "tensorflow", version)
    assert lesson.version_faults() == []


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    pretend(monkeypatch, "pooch", None)
    [fault] = lesson.version_faults()
    assert fault.startswith("pooch is missing: run `python -m pip install 'pooch>=")


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 14, 0)])
def test_an_unsupported_python_is_named(version, monkeypatch):
    monkeypatch.setattr(lesson, "sys", SimpleNamespace(version_info=version))
    assert any(fault.startswith(f"Python {'.'.join(map(str, version))} is not supported: use Python ")
               for fault in lesson.version_faults())


def test_what_is_missing_is_one_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    [fault] = lesson.version_faults()
    names, _, remedy = fault.partition(" are missing: ")
    assert {"tensorflow", "keras", "pooch"} <= set(names.split(", "))
    assert remedy.count("pip install") == 1 and "'pooch>=" in remedy


@pytest.fixture
def uninstalled(monkeypatch):
    """The package as it is where it was imported from a folder."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", missing)


def test_a_checkout_that_is_not_installed_asks_for_the_same_versions(uninstalled, monkeypatch):
    assert lesson.version_faults() == []
    pretend(monkeypatch, "keras", "2.15.0")
    [fault] = lesson.version_faults()
    assert fault.startswith("keras 2.15.0 is not supported (")


def test_a_folder_that_is_neither_installed_nor_a_checkout_says_how_to_install_it(uninstalled, monkeypatch, tmp_path):
    monkeypatch.setattr(lesson, "__file__", str(tmp_path / "cifar_helpers" / "lesson.py"))
    [fault] = lesson.version_faults()
    assert "pip install -e ." in fault


def test_importing_the_package_names_what_is_missing():
    hide = """
import importlib.metadata as metadata, sys
real = metadata.version
def version(name):
    if name in ("pooch", "filelock"):
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
sys.modules["pooch"] = sys.modules["filelock"] = None  # importing them raises ModuleNotFoundError
import cifar_helpers
"""
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"CourseError: (\w+, \w+) are missing: run `python -m pip install '", last)
    assert "'pooch>=" in last and "'filelock>=" in last
    assert done.returncode == 1


def test_a_lesson_does_not_start_on_unsupported_versions(monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", "smoke")
    pretend(monkeypatch, "keras", "2.15.0")
    with pytest.raises(CourseError, match=r"keras 2\.15\.0 is not supported"):
        lesson.start_lesson("load")


@pytest.mark.parametrize(("budget", "name"), [("huge", "load"), ("smoke", "quantum")])
def test_a_lesson_does_not_start_on_an_unknown_budget_or_name(budget, name, monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", budget)
    with pytest.raises(CourseError, match="one of"):
        lesson.start_lesson(name)


def test_the_seed_is_the_one_that_the_environment_names(monkeypatch):
    monkeypatch.delenv("COURSE_SEED", raising=False)
    assert lesson.chosen_seed() == lesson.SEED
    monkeypatch.setenv("COURSE_SEED", " 7 ")
    assert lesson.chosen_seed() == 7


@pytest.mark.parametrize("seed", ["-1", "1.5", "seven", str(2**32)])
def test_a_seed_that_is_none_is_named(seed, monkeypatch):
    monkeypatch.setenv("COURSE_SEED", seed)
    with pytest.raises(CourseError, match=f"COURSE_SEED is '{seed}': set it to a whole number"):
        lesson.chosen_seed()
