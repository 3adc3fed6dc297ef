"""A lesson's script, run unchanged, and every run that it saves.

`--share` trains on a share of the budget's images (each number of images times the share, the epochs as they are), and
`--set fine_tune_images=64` sets one number of the lesson's budget. Both alter the budget in memory only. `--backbone
MobileNetV2` puts that name into lesson 5, as its first exercise does; `BACKBONE_PATH` must then name its weights.
"""

import argparse
import os
import re
import runpy
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import common

from cifar_helpers import budgets, load_cifar10, machine, runs, take, transfer
from cifar_helpers.errors import CourseError

SPLIT_IMAGES = {"train_images": 45_000, "validation_images": 5_000, "test_images": 10_000}  # what None stands for


def assignment(text: str) -> tuple[str, int]:
    """`key=number` as a pair; raises ArgumentTypeError otherwise."""
    key, _, value = text.partition("=")
    if not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form epochs=2")
    return key, common.positive(value)


def reduce_budgets(name: str, share: float, assignments: dict[str, int]) -> None:
    """Alter every lesson's budget of this name in memory: images times `share`, at least 10, then the assignments."""
    if not 0 < share <= 1:
        raise CourseError(f"The share is {share} and must lie above 0 and at most at 1.")
    for lesson in budgets.LESSONS.values():
        numbers = lesson[name]
        for key, value in numbers.items():
            if key.endswith("images") and share < 1:
                whole = SPLIT_IMAGES[key] if value is None else value
                numbers[key] = max(10, round(whole * share))
        numbers |= {key: value for key, value in assignments.items() if key in numbers}


def with_backbone(script: Path, name: str, folder: Path) -> Path:
    """A copy of lesson 5's script with another backbone; raises CourseError where the script names none."""
    text, changed = re.subn(r'^BACKBONE = "\w+"$', f'BACKBONE = "{name}"', script.read_text(encoding="utf-8"),
                            flags=re.MULTILINE)
    if changed != 1:
        raise CourseError(f"{script.name} has no line BACKBONE = \"…\" to change: leave --backbone out.")
    copy = folder / script.name
    copy.write_text(text, encoding="utf-8")
    return copy


@contextmanager
def own_folders():
    """Empty folders for runs and features, in one that is given: nothing is found that an earlier process left, and
    nothing is left."""
    kept = transfer.cache_dir
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as folder:
        os.environ["COURSE_RUNS"] = str(Path(folder) / "runs")
        transfer.cache_dir = lambda: Path(folder) / "cache"
        try:
            yield Path(folder)
        finally:
            transfer.cache_dir = kept


def measure(arguments=None):
    parser = common.parser(__doc__)
    parser.add_argument("lesson", help="a lesson's number, such as 2")
    parser.add_argument("--answers", type=int, choices=range(1, 6), required=True, help="the predecessor it answers")
    parser.add_argument("--budget", choices=budgets.NAMES, default="laptop")
    parser.add_argument("--share", type=float, default=1.0, help="share of the budget's images (default all)")
    parser.add_argument("--set", type=assignment, action="append", default=[], metavar="KEY=NUMBER")
    parser.add_argument("--backbone", choices=transfer.BACKBONES, help="lesson 5's, instead of the one it names")
    parser.add_argument("--only", help="report only the run of this name")
    options = parser.parse_args(arguments)
    script = common.lesson_script(options.lesson)
    os.environ |= {"COURSE_BUDGET": options.budget, "COURSE_SEED": str(options.seed), "MPLBACKEND": "Agg"}
    reduce_budgets(options.budget, options.share, dict(options.set))
    precision = machine.prefer_bfloat16()
    with own_folders() as folder:
        if options.backbone:
            script = with_backbone(script, options.backbone, folder)
        runpy.run_path(str(script), run_name="__main__")
        peak = common.peak_memory_mb()
        data = take(load_cifar10(), test=options.test_images)
        found = [run for run in runs.list_runs(data) if options.only in (None, run.name)]
        if not found:
            raise CourseError(f"{script.name} saved no run{f' {options.only!r}' if options.only else ''}: "
                              "name a lesson that trains a model.")
        records = [noted(run, data, options, precision, peak) for run in found]
    common.leave(records, data, options.out)


def noted(run, data, options, precision: str, peak: float | None) -> dict:
    info, history = run.info, run.history
    # a history counts from its own first step; what went before, such as features, counts too
    before = info["train_seconds"] - history["seconds"][-1]
    curve = {"seconds": [before + second for second in history["seconds"]],
             "validation_accuracy": history["val_accuracy"]}
    what = f"lesson {options.lesson}: {run.name.replace('_', ' ')}"
    if options.share < 1:
        what += f", on {options.share:.0%} of its images"
    name = run.name
    if options.backbone:
        pixels = budgets.LESSONS["transfer"][options.budget]["image_size"]
        name, what = f"{name}_{options.backbone.lower()}", f"{what}, {options.backbone} at {pixels} pixels"
    return common.record(
        name, what, options.answers, runs.load_model(run), data,
        seed=info["seed"], history=curve, seconds=info["train_seconds"], fraction=options.share,
        images=info["train_images"], epochs=info["epochs"], ours=True, backbone=info["backbone"],
        precision=precision, peak=peak, budget=info["budget"])


if __name__ == "__main__":
    sys.exit(common.main(measure))
