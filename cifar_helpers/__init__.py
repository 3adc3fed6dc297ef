"""Helpers of the course: what a lesson needs but does not teach, one call each.

data          where the images come from, and the three splits
budgets       how much a lesson trains: smoke, laptop or full
lesson        one call that opens every lesson
augmentation  cutout, MixUp and CutMix on batches
models        the course's own networks
training      schedules, custom loop parts and seeds
transfer      pretrained backbones and cached features
runs          trained models on disk, whole or not at all
evaluation    accuracy, intervals, tests and calibration
plots         the figures
"""

from importlib.metadata import PackageNotFoundError, version

from cifar_helpers.budgets import get_budget
from cifar_helpers.data import load_cifar10, take
from cifar_helpers.errors import CourseError, DataError
from cifar_helpers.lesson import start_lesson

try:
    __version__ = version("cifar-helpers")
except PackageNotFoundError:
    __version__ = "0 (not installed)"

__all__ = ["CourseError", "DataError", "get_budget", "load_cifar10", "start_lesson", "take"]
