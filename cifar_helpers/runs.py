"""Trained models on disk: a run is `runs/<name>/`, written whole or not at all."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
from filelock import FileLock

from cifar_helpers import machine, marks, models  # noqa: F401  models: registers the course's classes with Keras
from cifar_helpers.data import Data
from cifar_helpers.errors import CourseError, DataError
from cifar_helpers.evaluation import accuracy, confusion, cross_entropy, predict_logits
from cifar_helpers.paths import checkout, runs_dir, whole_file

FORMAT = 1
FILES = ("model.keras", "architecture.json", "history.json", "predictions.npz", "run.json")
LESSONS = {  # which lesson trains which run, in the order of the comparison
    "baseline": "02_baseline", "plain": "03_augmentation", "augmented": "03_augmentation",
    "subclassed": "04_custom_loop", "fast": "04_custom_loop",
    "transfer_frozen": "05_transfer", "transfer_finetuned": "05_transfer",
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
    try:
        with _locked():
            _clear_leftovers()
            return _write(name, model, info, history, validation_logits)
    except OSError as error:
        raise CourseError(f"The run {name!r} could not be saved ({error}): free some space or set COURSE_RUNS to a "
                          "folder that can be written; earlier runs are as they were.") from error


def _write(name, model, info, history, validation_logits) -> Run:
    with tempfile.TemporaryDirectory(dir=runs_dir(), prefix=f".{name}-", ignore_cleanup_errors=True) as temporary:
        new = Path(temporary) / name
        new.mkdir()
        _without_optimizer(model).save(new / "model.keras")
        (new / "architecture.json").write_text(model.to_json(indent=1), encoding="utf-8")
        plain = {key: [float(value) for value in values] for key, values in history.items()}
        (new / "history.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")
        np.savez(new / "predictions.npz", format=FORMAT, validation_logits=validation_logits)
        (new / "run.json").write_text(json.dumps(info, indent=1, ensure_ascii=False), encoding="utf-8")
        aside = _put_aside(name, info, Path(temporary))
        try:
            new.rename(runs_dir() / name)
        except OSError:
            if aside:
                aside.rename(runs_dir() / name)
            raise
    return load_run(name)


def _without_optimizer(model: keras.Model) -> keras.Model:
    """A functional model over the same layers: optimizer state would triple the file, and no lesson reads it."""
    functional = isinstance(model, keras.Model) and type(model).__name__ == "Functional"
    return keras.Model(model.inputs, model.outputs, name=model.name) if functional else model


def _put_aside(name: str, info: dict, trash: Path) -> Path | None:
    """Make room for a new run: an earlier one of its kind goes, one of another kind gets a longer name.

    Returns where the earlier one stands now.
    """
    old = runs_dir() / name
    if not old.exists():
        return None
    try:
        before = load_run(name).info
    except CourseError:
        before = None  # unreadable: kept, under a name that says so
    if before and all(before[key] == info[key] for key in ("budget", "data", "backbone")):
        return old.rename(trash / "replaced")
    suffix = f"-{before['budget']}{'-standin' if before['data']['is_standin'] else ''}" if before else "-unreadable"
    kept = runs_dir() / f"{name}{suffix}"
    if kept.exists():
        kept.rename(trash / "replaced")
    print(f"The earlier run {name!r} is kept as {kept.name!r}.")
    return old.rename(kept)


def _clear_leftovers() -> None:
    """Finish or remove what a killed process left; call it under the lock, when nobody else is writing."""
    for left in runs_dir().glob(".*-*"):
        if not left.is_dir():
            continue
        name = left.name[1:].rpartition("-")[0]
        if (left / "replaced").is_dir() and not (runs_dir() / name).exists():
            (left / name).rename(runs_dir() / name)  # killed between two renames: the new run was whole by then
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked():
    runs_dir().mkdir(parents=True, exist_ok=True)
    with FileLock(runs_dir() / ".lock"):
        yield


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
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
        if info["format"] > FORMAT:
            raise CourseError(f"The run {name!r} was written by a newer version of the course: update the course, "
                              f"or {remedy}.")
        if lacking := {"data", "backbone", "budget", "versions"} - info.keys():
            raise ValueError(f"run.json has no {', '.join(sorted(lacking))}")
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CourseError(f"The run {name!r} cannot be read ({error}): {remedy}.") from error
    return Run(name, folder, info | {"name": name}, history)


def _remedy(name: str) -> str:
    return f"run {LESSONS.get(name.partition('-')[0], 'its lesson')} to make it anew"


def load_model(run: Run) -> keras.Model:
    """The run's trained model, not compiled.

    Raises CourseError where Keras cannot read it, naming the version that saved it.
    """
    try:
        return keras.models.load_model(run.folder / "model.keras", compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise CourseError(f"The model of the run {run.name!r} was saved by Keras {run.info['versions']['keras']} and "
                          f"Keras {keras.__version__} cannot read it: update Keras, or run its lesson again "
                          f"({str(error).splitlines()[0][:200]}).") from error


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
    found = []
    if runs_dir().is_dir():
        with suppress(OSError), _locked():  # a folder that cannot be written can be read all the same
            _clear_leftovers()
    folders = [folder for folder in runs_dir().glob("[!.]*") if folder.is_dir()] if runs_dir().is_dir() else []
    for folder in folders:
        try:
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

    Raises DataError where the run was trained on images from another source; the run stays as it was.
    """
    if not _same_data(run, data):
        raise DataError(_other_data(run, data))
    labels = data.test.labels
    tested = {"test_accuracy": accuracy(logits, labels), "test_loss": cross_entropy(logits, labels),
              "test_images": len(labels), "milliseconds_per_image": round(milliseconds, 3),
              "test_confusion": confusion(logits, labels).tolist()}
    if mirrored_logits is not None:
        tested["test_accuracy_flips"] = accuracy(logits + mirrored_logits, labels)
    arrays = load_predictions(run) | {"test_logits": logits, "test_labels": labels}
    with _locked():
        with whole_file(run.folder / "predictions.npz") as file:
            np.savez(file, format=FORMAT, **arrays)
        with whole_file(run.folder / "run.json") as file:
            file.write(json.dumps(run.info | tested, indent=1, ensure_ascii=False).encode())
    return load_run(run.name)


def load_predictions(run: Run) -> dict[str, np.ndarray]:
    """The run's stored arrays: `validation_logits` and, after the comparison, `test_logits` and `test_labels`.

    Raises CourseError where the file is damaged.
    """
    try:
        with (run.folder / "predictions.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files if key != "format"}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
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
