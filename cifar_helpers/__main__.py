"""The self-check: `python -m cifar_helpers` says what the course will run on, and what to mend."""

import os
import shutil
import sys
import time
from pathlib import Path

from cifar_helpers import __version__, archives, budgets, data, download, paths
from cifar_helpers.errors import CourseError
from cifar_helpers.lesson import version_faults

SLOW = 3  # times the lessons' minutes: a student had better know
DISK_NEEDED = 2_000_000_000  # bytes: caches of images and features, and six runs


def check() -> list[str]:
    """Print a line for each thing the course depends on, and return a line of advice for each thing amiss."""
    print(f"CIFAR-10 course {__version__}")
    advice = version_faults()
    if advice:
        print("versions   not as supported")
    else:
        advice += _check_machine() + _check_speed()
    for part in (_check_budget, _check_data, _check_backbone, _check_folders):
        advice += part()
    return advice


def _check_machine() -> list[str]:
    from cifar_helpers import machine

    here = machine.describe()
    print("versions  ", ", ".join(f"{name} {version}" for name, version in here["versions"].items()))
    print("machine   ", f"{here['cores']} cores, {here['processor']}, GPU: {', '.join(here['gpus']) or 'none'}, "
          f"convolutions in {machine.prefer_bfloat16()}")
    return [] if here["cores"] > 1 else ["One core only: expect twice the minutes that the lessons state."]


def _check_speed() -> list[str]:
    """Time a small net as lesson 6 does, beside what the reference results say of it."""
    import numpy as np

    from cifar_helpers import evaluation, models, reference

    images, model = np.zeros((4_000, 32, 32, 3), np.uint8), models.FastCNN()
    try:
        there = reference.load_reference("fast", "laptop")[0]["run"]["milliseconds_per_image"]
        evaluation.predict_logits(model, images[:100])  # the first call builds the graph
        begun = time.perf_counter()
        evaluation.predict_logits(model, images)
        here = 1_000 * (time.perf_counter() - begun) / len(images)
    except Exception as error:  # whatever TensorFlow raises where a driver or a processor does not serve
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return [f"A small net cannot be timed ({why}): if lesson 2 fails too, install the course anew."]
    print("speed     ", f"lesson 4's fast net takes {here:.2f} ms an image, and {there:.2f} where the lessons' minutes "
          f"were measured: expect about {here / there:.1f} times those")
    if here > SLOW * there:
        return [f"This machine is some {here / there:.0f} times slower than the lessons say: close other programs, "
                "plug it in, or take COURSE_BUDGET=smoke to look around."]
    return []


def _check_budget() -> list[str]:
    try:
        print("budget    ", budgets.budget_name())
        return []
    except CourseError as error:
        print("budget     unknown")
        return [str(error)]


def _check_data() -> list[str]:
    cache = paths.cache_dir()
    if named := os.environ.get("CIFAR10_PATH", "").strip():
        print("data       CIFAR10_PATH:", named)
        try:
            archives.reader(Path(named).expanduser())
        except (CourseError, OSError) as error:
            return [str(error)]
        return []
    if (cache / data.OFFICIAL).is_file() or any((cache / name).is_file() for name in download.SHA256):
        print("data       CIFAR-10 in the course's cache")
    elif any((paths.expanded(os.environ.get("KERAS_HOME", "~/.keras")) / "datasets").glob("cifar-10-*")):
        print("data       CIFAR-10 in Keras's cache")
    else:
        print("data       not here yet: the first lesson downloads CIFAR-10 (170 MB), or draws a stand-in offline")
        if os.environ.get("COURSE_OFFLINE") == "1":
            return ["No CIFAR-10 and COURSE_OFFLINE=1: set CIFAR10_PATH to a copy of cifar-10-binary.tar.gz, or work "
                    "on the stand-in."]
    return []


def _check_backbone() -> list[str]:
    named = os.environ.get("BACKBONE_PATH", "").strip()
    if not named and os.environ.get("COURSE_OFFLINE") == "1":
        print("backbone   none: lesson 5 works with random weights")
        return ["No backbone and COURSE_OFFLINE=1: set BACKBONE_PATH to a .keras file of ResNet50, or work on random "
                "weights in lesson 5."]
    if not named:
        print("backbone   Keras's ImageNet weights, downloaded when lesson 5 asks for them")
        return []
    print("backbone   BACKBONE_PATH:", named)
    try:
        from cifar_helpers import transfer

        transfer.named_file(Path(named).expanduser(), "ResNet50")
        return []
    except ImportError:  # TensorFlow or Keras: the versions above say so
        return []
    except CourseError as error:
        return [str(error)]


def _check_folders() -> list[str]:
    advice = []
    for variable, folder in (("COURSE_CACHE", paths.cache_dir()), ("COURSE_RUNS", paths.runs_dir())):
        try:
            with paths.whole_file(folder / ".check") as file:
                file.write(b"writable")
            (folder / ".check").unlink()
            free = shutil.disk_usage(folder).free
        except OSError as error:
            advice.append(f"{folder} cannot be written ({error}): set {variable} to a folder that can.")
            continue
        print(f"{variable.lower():13}", folder, f"({free / 1e9:.0f} GB free)")
        if free < DISK_NEEDED:
            advice.append(f"{folder} has {free / 1e9:.1f} GB free and the course needs {DISK_NEEDED / 1e9:.0f}: "
                          f"free some, or set {variable} to a larger disk.")
    return advice


def main() -> int:
    """Run the check; 0 where all is well, 1 where there is advice."""
    advice = check()
    for line in advice:
        print("→", line)
    print("Something needs your attention." if advice else "All is well.")
    return 1 if advice else 0


if __name__ == "__main__":
    sys.exit(main())
