"""How much a lesson trains: `COURSE_BUDGET=smoke|laptop|full`."""

import os
from types import SimpleNamespace

from cifar_helpers.errors import CourseError

NAMES = ("smoke", "laptop", "full")

# None is all the images of a split. Tests at the smoke budget need a lesson to run, not to learn.
_ALL = {"train_images": None, "validation_images": None}
_FEW = {"train_images": 400, "validation_images": 200}

LESSONS = {
    "load": {
        "smoke": {"yardstick_images": 400},
        "laptop": {"yardstick_images": 4_000},
        "full": {"yardstick_images": 20_000},
    },
    "baseline": {
        "smoke": _FEW | {"epochs": 1, "scaling_images": 200, "scaling_epochs": 1},
        "laptop": _ALL | {"epochs": 8, "scaling_images": 5_000, "scaling_epochs": 3},
        "full": _ALL | {"epochs": 12, "scaling_images": 20_000, "scaling_epochs": 4},
    },
    "augmentation": {
        "smoke": _FEW | {"epochs": 1},
        "laptop": _ALL | {"epochs": 5},
        "full": _ALL | {"epochs": 12},
    },
    "custom_loop": {
        "smoke": _FEW | {"epochs": 1, "timed_steps": 3, "fast_epochs": 2, "fast_width": 4,
                         "fast_shift": 2},
        "laptop": _ALL | {"epochs": 4, "timed_steps": 40, "fast_epochs": 4, "fast_width": 32,
                          "fast_shift": 2},
        "full": _ALL | {"epochs": 20, "timed_steps": 100, "fast_epochs": 18, "fast_width": 64,
                        "fast_shift": 4},
    },
    "transfer": {
        "smoke": {"train_images": 100, "validation_images": 100, "image_size": 32, "experiment_images": 100,
                  "head_epochs": 2, "fine_tune_images": 64, "fine_tune_epochs": 1},
        "laptop": {"train_images": 18_000, "validation_images": 1_000, "image_size": 128, "experiment_images": 500,
                   "head_epochs": 20, "fine_tune_images": 2_500, "fine_tune_epochs": 1},
        "full": {"train_images": None, "validation_images": 2_000, "image_size": 128, "experiment_images": 2_000,
                 "head_epochs": 20, "fine_tune_images": 10_000, "fine_tune_epochs": 2},
    },
    "comparison": {
        "smoke": {"test_images": 200, "bootstrap": 200},
        "laptop": {"test_images": 4_000, "bootstrap": 2_000},
        "full": {"test_images": None, "bootstrap": 10_000},
    },
    "distributed": {
        "smoke": _FEW | {"epochs": 2, "checkpoint_steps": 2, "patience": 1},
        "laptop": {"train_images": 10_000, "validation_images": None, "epochs": 3, "checkpoint_steps": 50,
                   "patience": 30},
        "full": _ALL | {"epochs": 3, "checkpoint_steps": 200, "patience": 30},
    },
}


def budget_name() -> str:
    """The budget that `COURSE_BUDGET` names, `laptop` where it is not set.

    Raises CourseError where it names none.
    """
    name = os.environ.get("COURSE_BUDGET", "").strip().lower() or "laptop"
    if name not in NAMES:
        raise CourseError(f"COURSE_BUDGET is {name!r}, which is no budget: set it to one of {', '.join(NAMES)}.")
    return name


def get_budget(lesson: str) -> SimpleNamespace:
    """A lesson's numbers of images and epochs at the current budget, with `name` and `lesson`.

    Raises CourseError for an unknown budget or lesson.
    """
    name = budget_name()
    if lesson not in LESSONS:
        raise CourseError(f"There is no lesson {lesson!r}: take one of {', '.join(LESSONS)}.")
    return SimpleNamespace(lesson=lesson, name=name, **LESSONS[lesson][name])
