"""Trained models on disk: a run is `runs/<name>/`, written whole or not at all."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd

from cifar_helpers import machine, marks, saved
from cifar_helpers.data import Data
from cifar_helpers.errors import CourseError, DataError
from cifar_helpers.evaluation import accuracy, confusion, cross_entropy, predict_logits
from cifar_helpers.paths import LEFTOVER_SECONDS, checkout, locked, progress_file, read_arrays, runs_dir

FORMAT = 1
FILES = ("model.keras", "architecture.json", "history.json", "predictions.npz", "run.json")
LESSONS = {  # which lesson trains which run, in the order of the comparison
    "baseline": "02_baseline", "plain": "03_augmentation", "augmented": "03_augmentation",
    "subclassed": "04_custom_loop", "fast": "04_custom_loop",
    "transfer_frozen": "05_transfer", "transfer_finetuned": "05_transfer",
}
KINDS = {  # of what stands in run.json
    "data": dict, "versions": dict, "budget": str, "backbone": str | None, "parameters": int, "test_confusion": list,
    **dict.fromkeys((
        "train_accuracy", "train_loss", "train_seconds", "validation_accuracy", "validation_loss", "test_accuracy",
        "test_loss", "test_accuracy_flips", "milliseconds_per_image"), int | float),
}
CHECKED_IMAGES = 5_000  # on how many training images train_accuracy is measured


@dataclass(frozen=True)
class Run:
    """A saved run: `info` as in run.json, `history` with a list an epoch for each measure."""

    name: str
    folder: Path
    info: dict
    history: dict

    @property
    def marks(self) -> str:
        """What must be said beside the run's figures; empty where it is as the lesson means it."""
        said = ["stand-in data"] if self.info["data"]["is_standin"] else []
        said += [marks.RANDOM_BACKBONE] if self.info["backbone"] == "random weights" else []
        return ", ".join(said + ([] if self.info["budget"] == "laptop" else [f"{self.info['budget']} budget"]))


def save_run(name: str, model: keras.Model, data: Data, budget: SimpleNamespace, history: dict, train_seconds: float,
             *, backbone: str | None = None, train_logits=None, validation_logits=None) -> Run:
    """Save a trained model with all that the comparison needs, and return the run.

    `data` is what the model was trained on and chosen by. Logits (n, 10) may be given where they are at hand: for the
    first training images, and for all validation images. A run of the same name is replaced; one of another budget or
    data source is kept under a longer name.

    Raises CourseError where the name is no folder name or the folder cannot be written; nothing is replaced then.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,60}", name):
        raise CourseError(f"{name!r} is no name for a run: use lower-case letters, digits, - and _.")
    if train_logits is None:
        train_logits = predict_logits(model, data.train.images[:CHECKED_IMAGES])
    if validation_logits is None:
        validation_logits = predict_logits(model, data.validation.images)
    train_labels = data.train.labels[:len(train_logits)]
    info = {
        "format": FORMAT, "name": name, "lesson": budget.lesson, "data": vars(data.source), "backbone": backbone,
        "budget": budget.name, "seed": budget.seed, "hardware": (here := machine.describe()),
        "versions": here.pop("versions"), "parameters": model.count_params(), "train_images": len(data.train),
        "epochs": len(history["loss"]), "train_seconds": round(train_seconds, 2),
        "train_accuracy": accuracy(train_logits, train_labels), "train_loss": cross_entropy(train_logits, train_labels),
        "train_images_checked": len(train_logits),
        "validation_accuracy": accuracy(validation_logits, data.validation.labels),
        "validation_loss": cross_entropy(validation_logits, data.validation.labels),
    }
    with _refusal(f"The run {name!r}", "earlier runs are as they were"), _locked() as alone:
        _clear_leftovers(alone)
        run = _write(name, model, info, history, validation_logits)
    with suppress(OSError):
        progress_file(name, budget.name).unlink()  # the next training of this name starts anew
    return run


@contextmanager
def _refusal(what: str, unharmed: str):
    try:
        runs_dir().mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise CourseError(f"{what} could not be saved ({error}): free some space or set COURSE_RUNS to a folder that "
                          f"can be written; {unharmed}.") from error


def _write(name, model, info, history, validation_logits) -> Run:
    with _new_folder(name) as new:
        _without_optimizer(model).save(new / "model.keras")
        (new / "architecture.json").write_text(model.to_json(indent=1), encoding="utf-8")
        plain = {key: [float(value) for value in values] for key, values in history.items()}
        (new / "history.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")
        _write_figures(new, info, {"validation_logits": validation_logits})
        _put_in_place(name, new, kept := _put_aside(name, info, new.parent))
    for source, target in kept:
        if target.parent == runs_dir():
            print(f"The earlier run {source.name!r} is kept as {target.name!r}.")
    return load_run(name)


def _write_figures(folder: Path, info: dict, arrays: dict[str, np.ndarray]) -> None:
    with (folder / "predictions.npz").open("wb") as file:
        np.savez(file, format=FORMAT, **arrays)
    (folder / "run.json").write_text(json.dumps(info, indent=1, ensure_ascii=False), encoding="utf-8")


@contextmanager
def _new_folder(name: str):
    """An empty folder for a run, in a hidden one that also takes what the run replaces, and goes away in the end."""
    hidden = Path(tempfile.mkdtemp(dir=runs_dir(), prefix=f".{name}-"))
    try:
        (hidden / name).mkdir()
        (hidden / ".replaced").mkdir()
        yield hidden / name
    finally:
        _clear(hidden)


def _put_in_place(name: str, new: Path, aside: list[tuple[Path, Path]]) -> None:
    """Rename a complete run to its name after those that are in its way, all of them or none."""
    whole, done = new.with_name(".whole"), []  # this name tells `_clear` that nothing is missing
    try:
        for source, target in [(new, whole), *aside, (whole, runs_dir() / name)]:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise


def _without_optimizer(model: keras.Model) -> keras.Model:
    """A functional model over the same layers: optimizer state would triple the file, and no lesson reads it."""
    functional = isinstance(model, keras.Model) and type(model).__name__ == "Functional"
    return keras.Model(model.inputs, model.outputs, name=model.name) if functional else model


def _put_aside(name: str, info: dict, trash: Path) -> list[tuple[Path, Path]]:
    """The renames that make room for a new run: an earlier one of its kind goes, another kind gets a longer name."""
    old = runs_dir() / name
    if not old.exists():
        return []
    try:
        before = load_run(name).info
    except CourseError:
        before = None  # unreadable: kept, under a name that says so
    if before and all(before[key] == info[key] for key in ("budget", "data", "backbone")):
        return [(old, trash / ".replaced" / name)]
    suffix = f"-{before['budget']}{'-standin' if before['data']['is_standin'] else ''}" if before else "-unreadable"
    kept = runs_dir() / f"{name}{suffix}"
    return ([(kept, trash / ".replaced" / kept.name)] if kept.exists() else []) + [(old, kept)]


def _clear_leftovers(alone: bool) -> None:
    """Clear what killed processes left; where the lock is not held, so that others may be writing, after a day."""
    for left in runs_dir().glob(".*-*"):
        with suppress(OSError):
            if left.is_dir() and (alone or time.time() - left.stat().st_mtime > LEFTOVER_SECONDS):
                _clear(left)


def _clear(hidden: Path) -> None:
    """Finish or undo what was begun in a hidden folder, and remove the folder once nothing in it is needed."""
    place = runs_dir() / hidden.name[1:].rpartition("-")[0]
    with suppress(OSError):
        if (hidden / ".whole").is_dir() and not place.exists():
            (hidden / ".whole").rename(place)
    for replaced in (hidden / ".replaced").glob("*"):
        if not (runs_dir() / replaced.name).exists():
            with suppress(OSError):
                replaced.rename(runs_dir() / replaced.name)
                continue
            return  # an earlier run that cannot be put back yet
    shutil.rmtree(hidden, ignore_errors=True)


def _locked():
    return locked(runs_dir() / ".lock", "saving or listing runs")


def load_run(name: str) -> Run:
    """The saved run of this name.

    Raises CourseError where there is none, a file of it is missing or damaged, or a newer version of the course
    wrote it.
    """
    folder = runs_dir() / name
    remedy = _remedy(name)
    if missing := [file for file in FILES if not (folder / file).is_file()]:
        raise CourseError(f"The run {name!r} lacks {', '.join(missing)}: {remedy}.")
    try:
        info, history = (json.loads((folder / file).read_text(encoding="utf-8"), parse_constant=_no_number)
                         for file in ("run.json", "history.json"))
        if info["format"] > FORMAT:
            raise CourseError(f"The run {name!r} was written by a newer version of the course: update the course, "
                              f"or {remedy}.")
        if lacking := {"data", "backbone", "budget", "versions"} - info.keys():
            raise ValueError(f"run.json has no {', '.join(sorted(lacking))}")
        if not isinstance(history, dict):
            raise ValueError("history.json holds no measures")
        for part, kinds in ((info, KINDS), (info["data"], dict.fromkeys(("name", "origin", "fingerprint"), str)),
                            (info["versions"], {"keras": str}), (history, dict.fromkeys(history, list))):
            for key, kind in kinds.items():
                if (key in part or part is not info) and not isinstance(part[key], kind):
                    raise ValueError(f"its {key} is {part[key]!r:.40}")
        if not all(isinstance(value, int | float) for values in history.values() for value in values):
            raise ValueError("history.json holds more than numbers")
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise CourseError(f"The run {name!r} cannot be read ({error}): {remedy}.") from error
    return Run(name, folder, info | {"name": name}, history)


def _no_number(constant: str):
    raise ValueError(f"{constant} is no number")


def _remedy(name: str) -> str:
    return f"run {LESSONS.get(name.partition('-')[0], 'its lesson')} to make it anew"


def load_model(run: Run) -> keras.Model:
    """The run's trained model, not compiled.

    Raises CourseError where the file is not safe to open, with the reason, and where Keras cannot read it, naming the
    version that saved it.
    """
    try:
        return saved.read_model(run.folder / "model.keras", _remedy(run.name))
    except ValueError as error:
        raise CourseError(f"The model of the run {run.name!r} was saved by Keras {run.info['versions']['keras']} and "
                          f"Keras {keras.__version__} cannot read it: update Keras, or run its lesson again "
                          f"({error}).") from error


def list_runs(data: Data | None = None) -> list[Run]:
    """The saved runs, in the order of the lessons; with `data`, only those trained on the same source.

    A run that cannot be read, or was trained on other images, is left out and named in one sentence.
    """
    order = list(LESSONS)

    def place(run: Run) -> tuple:
        base = run.name.partition("-")[0]
        return order.index(base) if base in order else len(order), run.name

    found = sorted(_readable(tell=True), key=place)
    for run in found:
        if data is not None and not _same_data(run, data):
            print(f"Left out: {_other_data(run, data)}")
    return [run for run in found if data is None or _same_data(run, data)]


def _readable(tell: bool = False) -> list[Run]:
    """The runs that can be read, seen at one moment: under the lock, nobody replaces one halfway through."""
    found = []
    with suppress(OSError):  # a folder that this user may not look into
        if not runs_dir().is_dir():
            return []
        with _locked() as alone:
            _clear_leftovers(alone)
            for folder in runs_dir().glob("[!.]*"):
                try:
                    if folder.is_dir():
                        found.append(load_run(folder.name))
                except CourseError as error:
                    if tell:
                        print(f"Left out: {error}")
    return found


def _same_data(run: Run, data: Data) -> bool:
    return run.info["data"]["fingerprint"] == data.source.fingerprint


def _other_data(run: Run, data: Data) -> str:
    theirs = run.info["data"]
    return (f"The run {run.name!r} was trained on {theirs['name']} ({theirs['origin']}) and the images here are "
            f"{data.source}: run {LESSONS.get(run.name.partition('-')[0], 'its lesson')} on these, or load the images "
            "it was trained on.")


def record_test(run: Run, logits: np.ndarray, data: Data, milliseconds: float, mirrored_logits=None) -> Run:
    """Add the held-out test set's figures to a run: logits (n, 10), accuracy, loss, confusion, milliseconds an image.

    `mirrored_logits` (n, 10) are those of the same images mirrored; what the mean of both reaches stands apart, as
    `test_accuracy_flips`. In the confusion matrix rows are true classes and values are numbers of images.

    Raises DataError where the run was trained on images from another source, and CourseError where it was replaced in
    the meantime or the folder cannot be written; the run stays as it was.
    """
    if not _same_data(run, data):
        raise DataError(_other_data(run, data))
    labels = data.test.labels
    tested = {"test_accuracy": accuracy(logits, labels), "test_loss": cross_entropy(logits, labels),
              "test_images": len(labels), "milliseconds_per_image": round(milliseconds, 3),
              "test_confusion": confusion(logits, labels).tolist()}
    if mirrored_logits is not None:
        tested["test_accuracy_flips"] = accuracy(logits + mirrored_logits, labels)
    with _refusal(f"What the test of the run {run.name!r} gave", "the run is as it was"), _locked():
        now = load_run(run.name)
        if _trained(now) != _trained(run):
            raise CourseError(f"The run {run.name!r} was saved anew while it was tested: test the new one.")
        arrays = load_predictions(now) | {"test_logits": logits, "test_labels": labels}
        with _new_folder(run.name) as new:
            shutil.copytree(now.folder, new, copy_function=_link, dirs_exist_ok=True)
            for file in ("predictions.npz", "run.json"):
                (new / file).unlink()  # a link: to write through it would change the run in place
            _write_figures(new, _trained(now) | tested, arrays)
            _put_in_place(run.name, new, [(now.folder, new.parent / ".replaced" / run.name)])
        return load_run(run.name)


def _trained(run: Run) -> dict:
    """What the run's description says without its test."""
    return {key: value for key, value in run.info.items() if not key.startswith(("test_", "milliseconds_"))}


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)  # the model may be large, and the disk full
    except OSError:
        shutil.copy2(source, target)


def load_predictions(run: Run) -> dict[str, np.ndarray]:
    """The run's stored arrays: `validation_logits` and, after the comparison, `test_logits` and `test_labels`.

    Raises CourseError where the file is damaged.
    """
    try:
        stored = read_arrays(run.folder / "predictions.npz")
        expected = {"validation_logits"} | ({"test_logits", "test_labels"} if "test_accuracy" in run.info else set())
        if lacking := expected - stored.keys():
            raise ValueError(f"it has no {', '.join(sorted(lacking))}")
        return {key: array for key, array in stored.items() if key != "format"}
    except (OSError, ValueError) as error:
        raise CourseError(f"The predictions of the run {run.name!r} cannot be read ({error}): "
                          f"{_remedy(run.name)}.") from error


def train_missing(data: Data, names=tuple(LESSONS)) -> None:
    """Train, at the smoke budget, the runs that are not there for this data, by running the lessons that make them.

    Raises CourseError where a lesson stops with an error.
    """
    there = {run.name.partition("-")[0] for run in _readable() if _same_data(run, data)}
    for lesson in sorted({LESSONS[name] for name in names if name not in there}):
        print(f"{lesson} has not been run on these images: it runs now, at the smoke budget, and its runs say so.")
        script = _script(lesson)
        environment = os.environ | {"COURSE_BUDGET": "smoke", "MPLBACKEND": "Agg", "COURSE_RUNS": str(runs_dir())}
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False,
                              cwd=script.parent)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise CourseError(f"{lesson} stopped with {said[-1]}: open it and run it.")


def _script(lesson: str) -> Path:
    for folder in (checkout() and checkout() / "notebooks", Path(__file__).parent / "lessons"):
        if folder and (folder / f"{lesson}.py").is_file():
            return folder / f"{lesson}.py"
    raise CourseError(f"{lesson}.py is not here: run the lesson itself first.")


def table(runs: list[Run]) -> pd.DataFrame:
    """The comparison: a row a run; accuracies are shares from 0 to 1, losses are in nats."""
    columns = {
        "train_accuracy": "acc train", "validation_accuracy": "acc val", "test_accuracy": "acc test",
        "train_loss": "loss train", "validation_loss": "loss val", "test_loss": "loss test",
        "parameters": "parameters", "train_seconds": "train s", "milliseconds_per_image": "ms/image",
    }
    # short titles: the table is printed in terminals too
    rows = {run.name: {title: run.info.get(key, np.nan) for key, title in columns.items()} | {"note": run.marks}
            for run in runs}
    return pd.DataFrame.from_dict(rows, orient="index").round(
        {title: 3 if title.startswith(("acc", "loss")) else 2 for title in columns.values()})
