"""Helpers of the course: what a lesson needs but does not teach, one call each.

data        where the images come from, and the three splits
archives    the file formats that images come in
download    official archives from mirrors, checked
standin     drawn pictures for where there are no images
budgets     how much a lesson trains: smoke, laptop or full
lesson      one call that opens every lesson or assignment
machine     what this machine is, and the settings that follow from it
training    batches in, seconds out, and a stopped training goes on
models      the course's subclassed networks
transfer    pretrained backbones and cached features
cluster     functions of a lesson as processes of one cluster
runs        trained models on disk, whole or not at all
saved       model files, checked before Keras opens them
reference   reference results that ship with the course
checks      what students call on their solutions of the exercises
evaluation  accuracy, intervals, tests and calibration
plots       the figures
explore     pieces to play with; figures where there are no widgets
alt         what a figure shows, in words
marks       what must be said beside a figure
paths       where caches and runs stand, locks, whole files and checked arrays
errors      the errors that the course raises
"""

from importlib.metadata import PackageNotFoundError, version

from cifar_helpers.budgets import get_budget
from cifar_helpers.errors import CourseError, DataError
from cifar_helpers.lesson import start_exercises, start_lesson, version_faults

try:
    from cifar_helpers.data import load_cifar10, take
except ModuleNotFoundError as error:  # installed without what it needs, as a lesson does it
    raise CourseError(" ".join(version_faults()) or str(error)) from error

try:
    __version__ = version("cifar-helpers")
except PackageNotFoundError:
    __version__ = "0 (not installed)"

__all__ = ["CourseError", "DataError", "get_budget", "load_cifar10", "start_exercises", "start_lesson", "take"]
