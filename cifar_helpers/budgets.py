"""How much a lesson trains: `COURSE_BUDGET=smoke|laptop|full`."""

import os
from types import SimpleNamespace

from cifar_helpers.errors import CourseError

NAMES = ("smoke", "laptop", "full")

# How many images of each split a lesson uses; None is all of them. Tests need a lesson to run, not to learn.
IMAGES = {
    "smoke": {"train_images": 400, "validation_images": 200, "test_images": 200},
    "laptop": {"train_images": None, "validation_images": None, "test_images": None},
    "full": {"train_images": None, "validation_images": None, "test_images": None},
}

LESSONS = {
    "load": {
        "smoke": {"yardstick_images": 400},
        "laptop": {"yardstick_images": 4_000},
        "full": {"yardstick_images": 20_000},
    },
    "baseline": {
        "smoke": {"epochs": 1, "scaling_images": 200, "scaling_epochs": 1},
        "laptop": {"epochs": 8, "scaling_images": 6_000, "scaling_epochs": 2},
        "full": {"epochs": 12, "scaling_images": 20_000, "scaling_epochs": 4},
    },
    "augmentation": {
        "smoke": {"epochs": 1},
        "laptop": {"epochs": 5},
        "full": {"epochs": 30},
    },
    "custom_loop": {
        "smoke": {"epochs": 1, "timed_steps": 3},
        "laptop": {"epochs": 5, "timed_steps": 40},
        "full": {"epochs": 20, "timed_steps": 100},
    },
    "transfer": {
        "smoke": {"image_size": 32, "fine_tune_epochs": 1, "fine_tune_images": 64, "head_epochs": 2,
                  "train_images": 100, "validation_images": 100, "test_images": 100, "experiment_images": 100},
        "laptop": {"image_size": 96, "fine_tune_epochs": 1, "fine_tune_images": 4_000, "head_epochs": 20,
                   "train_images": 10_000, "validation_images": 1_000, "experiment_images": 1_000},
        "full": {"image_size": 128, "fine_tune_epochs": 6, "fine_tune_images": None, "head_epochs": 30,
                 "experiment_images": 4_000},
    },
    "comparison": {
        "smoke": {"bootstrap": 200},
        "laptop": {"bootstrap": 2_000},
        "full": {"bootstrap": 10_000},
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
    return SimpleNamespace(lesson=lesson, name=name, **(IMAGES[name] | LESSONS[lesson][name]))
