"""Equal seeds give equal weights, saved models give equal predictions, and older runs still read.

`COURSE_OLD_PYTHON` names a Python with the lowest supported versions; with it, models go both ways between it and this
one. Without it the runs in tests/data stand for older versions.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
from keras import layers

from cifar_helpers import models, runs, training, transfer
from cifar_helpers.data import Data, Source, Split
from cifar_helpers.errors import CourseError
from cifar_helpers.evaluation import predict_logits

PROMISE = "Numbers: seeds, saved models, versions and formats give the same again"
ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "data"
WITHIN = 1e-4  # logits of equal weights in two versions of TensorFlow, whose sums are rounded in another order


def _split(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.permutation(np.arange(count) % 10))


DATA = Data(_split(30, 0), _split(20, 1), _split(10, 2), tuple("abcdefghij"),
            Source("random numbers", "fixture", "1234abcd", True))
BUDGET = SimpleNamespace(name="smoke", lesson="fixture", seed=2026, epochs=2, image_size=32)


def _from_lesson(lesson: str, *names: str, **given):
    """The last of these functions, as the lesson writes it, in a namespace with what is given."""
    space = {"keras": keras, "layers": layers, "budget": BUDGET, **given}
    tree = ast.parse((ROOT / "notebooks" / f"{lesson}.py").read_text(encoding="utf-8"))
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    exec(compile(ast.Module([found[name] for name in names], []), lesson, "exec"), space)
    return space[names[-1]]


def _transfer(backbone: keras.Model) -> keras.Model:
    """Lesson 5's model from pixels to logits, with a compiled head in it."""
    extractor = _from_lesson("05_transfer", "build_extractor", backbone=backbone)(transfer.preprocessing("ResNet50"))
    head = _from_lesson("05_transfer", "linear_head", right=extractor)()
    head.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, head(extractor(inputs)), name="transfer")


def _small_backbone() -> keras.Model:
    inputs = keras.Input((None, None, 3))
    x = layers.ZeroPadding2D(3)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 7, strides=16)(x)))
    return keras.Model(inputs, layers.Add()([x, x]))


def made(scale: str) -> dict[str, keras.Model]:
    """Every model of the course by its run's name; at the short scale with a small backbone."""
    keras.utils.set_random_seed(BUDGET.seed)
    large = scale == "full"
    backbone = transfer.BACKBONES["ResNet50"][0](include_top=False, weights=None) if large else _small_backbone()
    found = {
        "baseline": _from_lesson("02_baseline", "build")(layers.Rescaling(1 / 255), "baseline"),
        "plain": _from_lesson("03_augmentation", "block", "build")("plain"),
        "subclassed": models.SubclassedCNN(name="subclassed"),
        "fast": models.FastCNN(32 if large else 4, name="fast"),
        "transfer_frozen": _transfer(backbone),
    }
    for model in found.values():
        model(DATA.train.images, training=True)  # so that running means are not where they began
    return found


@contextmanager
def _folder(path: Path):
    before = os.environ.get("COURSE_RUNS")
    os.environ["COURSE_RUNS"] = str(path)
    try:
        yield
    finally:
        os.environ.pop("COURSE_RUNS")
        if before is not None:
            os.environ["COURSE_RUNS"] = before


def _save(folder: Path, scale: str) -> None:
    """Save every model as a run under the folder, and beside them the logits of each for the test images."""
    history = {"loss": [2.0, 1.0], "accuracy": [0.1, 0.2]}
    logits = {}
    with _folder(folder):
        for name, model in made(scale).items():
            logits[name] = predict_logits(model, DATA.test.images)
            runs.save_run(name, model, DATA, BUDGET, history, 1.0)
    np.savez(folder / "logits.npz", **logits)


def _compare(folder: Path, within: float) -> dict[str, str]:
    """Load every run under the folder; says by name what is wrong, empty where the logits are equal."""
    said = {}
    with np.load(folder / "logits.npz", allow_pickle=False) as expected, _folder(folder):
        for name in expected.files:
            try:
                here = predict_logits(runs.load_model(runs.load_run(name)), DATA.test.images)
                apart = float(np.abs(here - expected[name]).max())
                said[name] = "" if apart <= within else f"logits differ by {apart:.2g}"
            except CourseError as error:
                said[name] = str(error)
    return said


def train() -> list[np.ndarray]:
    """The weights after two epochs with shuffling, augmentation and dropout."""
    keras.utils.set_random_seed(BUDGET.seed)
    flip = layers.RandomFlip("horizontal", seed=BUDGET.seed)
    model = models.SubclassedCNN()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    dataset = training.batches(DATA.train, 10, shuffle=True, seed=BUDGET.seed,
                               augment=lambda images: flip(images, training=True))
    model.fit(dataset, epochs=BUDGET.epochs, shuffle=False, verbose=0)
    return model.get_weights()


def _child(python: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([python, __file__, *arguments], capture_output=True, text=True, check=False, timeout=900,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})


def _seeds(folder: Path):
    done = _child(sys.executable, "train", str(folder / "weights.npz"))
    if done.returncode:
        yield "the same seed in two processes", False, done.stderr[-300:]
        return
    with np.load(folder / "weights.npz", allow_pickle=False) as there:
        apart = max(float(np.abs(here - there[f"arr_{number}"]).max()) for number, here in enumerate(train()))
    yield "the same seed in two processes", apart == 0, f"weights differ by {apart:.2g}" if apart else ""


def _versions(folder: Path, old: str, scale: str):
    done = _child(old, "save", str(folder / "old"), scale)
    if done.returncode:
        yield "saved by the lowest versions", False, done.stderr[-300:]
    else:
        for name, said in _compare(folder / "old", WITHIN).items():
            yield f"{name}, saved by the lowest versions", not said, said
    _save(folder / "new", scale)
    done = _child(old, "compare", str(folder / "new"))
    if done.returncode:
        yield "read by the lowest versions", False, done.stderr[-300:]
        return
    for name, said in json.loads(done.stdout.splitlines()[-1]).items():
        told = f"saved by Keras {keras.__version__} and Keras" in said and "update Keras" in said
        yield f"{name}, read by the lowest versions or said why not", not said or told, said


def _fixtures(folder: Path):
    for kind, name in (("first_format", "baseline"), ("keras_3_8", "fast")):
        said = ""
        shutil.copytree(FIXTURES / kind, folder / kind)
        try:
            with _folder(folder / kind):
                [run] = runs.list_runs(DATA)
                logits = predict_logits(runs.load_model(run), DATA.test.images)
                apart = np.abs(logits - runs.load_predictions(run)["test_logits"]).max()
                said = "" if apart <= WITHIN else f"logits differ by {apart:.2g}"
                again = runs.record_test(run, logits, DATA, 0.5, logits)
                if again.info["test_accuracy"] != run.info["test_accuracy"] or runs.table([again]).empty:
                    said += " the test accuracy differs"
        except Exception as error:  # the fault that is looked for
            said = repr(error)[:200]
        yield f"{kind}: {name}", not said, said


DAMAGED = {  # a run.json with this in it is refused in a sentence
    "a newer format": {"format": 99}, "a format in words": {"format": "one"}, "no format": {"format": None},
    "a format of NaN": {"format": float("nan")}, "data in words": {"data": "CIFAR-10"}, "no data": {"data": None},
    "data without a name": {"data": {"fingerprint": "1234abcd"}}, "versions in words": {"versions": "3.8"},
    "versions without Keras": {"versions": {}}, "a budget of numbers": {"budget": [1, 2]},
    "a backbone of numbers": {"backbone": {"a": 1}}, "an accuracy in words": {"test_accuracy": "high"},
    "an accuracy of NaN": {"train_accuracy": float("nan")}, "an infinite loss": {"test_loss": float("inf")},
    "a confusion in words": {"test_confusion": "none"},
    "parameters as a list": {"parameters": [1]}, "seconds as text": {"train_seconds": "fast"},
}
HISTORIES = {"a list": "[1]", "numbers": '{"loss": 1}', "words": '{"loss": ["low"]}', "NaN": '{"loss": [NaN, 1.0]}',
             "nothing": "", "deep": "[" * 100_000}


def _damaged(folder: Path):
    shutil.copytree(FIXTURES / "first_format", folder / "damaged")
    run = folder / "damaged" / "baseline"
    info, history = (run / "run.json").read_text(encoding="utf-8"), (run / "history.json").read_text(encoding="utf-8")
    changed = [(f"run.json with {what}", json.dumps(json.loads(info) | change), history)
               for what, change in DAMAGED.items()]
    changed += [(f"run.json of {what}", text, history) for what, text in (("a list", "[]"), ("a number", "1"))]
    changed += [(f"history.json of {what}", info, text) for what, text in HISTORIES.items()]
    for what, run_json, history_json in changed:
        (run / "run.json").write_text(run_json, encoding="utf-8")
        (run / "history.json").write_text(history_json, encoding="utf-8")
        try:
            with _folder(folder / "damaged"):
                runs.load_run("baseline")
            said = "it was read"
        except CourseError as error:
            said = "" if "02_baseline" in str(error) else f"no remedy: {error}"
        except Exception as error:  # the fault that is looked for
            said = repr(error)[:200]
        yield what, not said, said


def cases(scale: str):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _save(folder / "here", scale)
        for name, said in _compare(folder / "here", 0).items():
            yield f"{name}, saved and loaded", not said, said
        yield from _fixtures(folder)
        yield from _damaged(folder)
        yield from _seeds(folder)
        if old := os.environ.get("COURSE_OLD_PYTHON"):
            yield from _versions(folder, old, scale)


if __name__ == "__main__":
    order, target = sys.argv[1], Path(sys.argv[2])
    if order == "train":
        np.savez(target, *train())
    elif order == "save":
        target.mkdir(parents=True, exist_ok=True)
        _save(target, sys.argv[3])
    else:
        print(json.dumps(_compare(target, WITHIN)))
