"""Trainings, extractions and savings that are killed at random moments, and what the next run makes of them.

A server process imports TensorFlow once and forks a child for each run, which does what lessons 3, 4 and 5 do, at the
size of a thumbnail and with the course's own functions: features in pieces, `fit` with augmentation, a loop of one's
own, and the saving of both runs. The child reports where it is; somewhere after a report it gets SIGKILL. A second
child runs the same again, to the end, in the same folders. Needs `os.fork`, so Linux or macOS.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

PROMISE = "Killed: a training goes on after its last whole epoch and ends as an undisturbed one"
KILLS = {"short": 3, "full": 50}
EPOCHS = 4
SEED = 2026
WAIT = 300  # seconds for a run that takes some, before it counts as stuck
PARTS = ("features", "fit", "loop")


def cases(scale: str) -> Iterator[tuple[str, bool, str]]:
    """Kill and run again, 3 or 50 times; each case has folders of its own."""
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as scratch, _server() as server:
        expected, moments = {}, {}
        for part in PARTS:
            done = _run(server, Path(scratch, f"undisturbed-{part}"), part)
            expected[part], moments[part] = done["arrays"], done["marks"]
        if scale == "full":
            for part in PARTS:
                lost = _differences(_run(server, Path(scratch, f"again-{part}"), part)["arrays"], expected[part])
                yield f"two undisturbed runs: {part}", not lost, lost
        for number in range(KILLS[scale]):
            part = PARTS[number % 3]
            places = [place for place, (name, _) in enumerate(moments[part])
                      if scale == "full" or name in ("piece 4", "noted 1", "noted 2", "noted 3")]
            yield _killed_and_run_again(server, Path(scratch, str(number)), part, moments[part], places,
                                        expected[part], rng)


def _killed_and_run_again(server, folder: Path, part: str, moments: list, places: list, expected: dict,
                          rng) -> tuple[str, bool, str]:
    for attempt in range(10):  # a run may have ended before the kill
        place = rng.choice(places)
        mark, seconds = moments[place]
        first = _run(server, folder / str(attempt), part, kill_after=(place, rng.random() * seconds))
        if first["killed"]:
            break
    what = f"{part}: killed after {mark!r}"
    if not first["killed"]:
        return what, False, f"the run could not be killed: {first['said']}"
    again = _run(server, folder / str(attempt), part)
    if "arrays" not in again:
        return what, False, f"the second run failed: {again['said']}"
    lost = _differences(again["arrays"], expected)
    noted = sum(name.startswith("noted") for name, _ in first["marks"])
    saved = any(name == "saved" for name, _ in first["marks"])
    if not saved and again["went_on_after"] < noted:
        lost += f" {noted} epochs were noted, the second run went on after {again['went_on_after']}."
    if again["left_out"]:
        lost += f" The list of runs says: {again['left_out']}"
    return what, not lost, lost.strip()


def _differences(found: dict, expected: dict) -> str:
    """Which arrays are not equal to the last bit; a run that is listed must be the whole one."""
    wrong = [name for name in expected if name not in found or not np.array_equal(found[name], expected[name])]
    wrong += [name for name in found if name.startswith("listed ")
              and not np.array_equal(found[name], expected[name.removeprefix("listed ")])]
    return f"{len(wrong)} of {len(expected)} arrays differ, such as {wrong[0]}." if wrong else ""


@contextmanager
def _server():
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "COURSE_BUDGET": "smoke", "COURSE_OFFLINE": "1"}
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, env=environment) as server:
        try:
            yield server
        finally:
            server.stdin.close()


def _run(server, folder: Path, part: str, kill_after: tuple[int, float] | None = None,
         sleep_after: tuple[int, float] | None = None, epochs: int = EPOCHS) -> dict:
    """One child from its start to its end.

    `kill_after` and `sleep_after` are the number of a report and seconds after it: then the child is killed, or stopped
    for a second. Returns what the child found and wrote, with `marks` (reports with the seconds to the next) and,
    on Linux, `resident` (its memory at each report, in MB).
    """
    folder.mkdir(parents=True, exist_ok=True)
    server.stdin.write(json.dumps({"folder": str(folder), "part": part, "epochs": epochs}) + "\n")
    server.stdin.flush()
    marks, resident, child, status = [], [], None, None
    for line in server.stdout:
        word, _, rest = line.strip().partition(" ")
        if word == "exit":
            status = int(rest)
            break
        if word == "child":
            child = int(rest)
            continue
        marks.append((rest, time.perf_counter()))
        resident.append(_resident(child))
        at = len(marks) - 1
        if kill_after and kill_after[0] == at:
            time.sleep(kill_after[1])
            with suppress(ProcessLookupError):  # it was quicker than the pause
                os.kill(child, signal.SIGKILL)
        if sleep_after and sleep_after[0] == at:
            time.sleep(sleep_after[1])
            os.kill(child, signal.SIGSTOP)
            time.sleep(1)
            os.kill(child, signal.SIGCONT)
    ends = [begun for _, begun in marks[1:]] + [time.perf_counter()]
    found = {"marks": [(name, end - begun) for (name, begun), end in zip(marks, ends, strict=True)],
             "resident": resident, "killed": status == -signal.SIGKILL}
    said = (folder / "said.txt").read_text(encoding="utf-8").strip().splitlines()
    found["said"] = said[-1] if said else f"exit status {status}"
    if status == 0:
        with np.load(folder / "result.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        found |= json.loads(str(arrays.pop("about"))) | {"arrays": arrays}
    return found


def _resident(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- the server and its children ---


def _serve() -> None:
    from cifar_helpers import models, runs, training, transfer  # noqa: F401  once, for all children

    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            status = 1
            try:
                _child(Path(job["folder"]), job["part"], job["epochs"])
                status = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", flush=True)
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        os.write(1, f"exit {os.waitstatus_to_exitcode(status)}\n".encode())


def _child(folder: Path, part: str, epochs: int) -> None:
    reports = os.dup(1)
    os.dup2(os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115  a descriptor
    signal.alarm(WAIT)
    os.write(reports, f"child {os.getpid()}\n".encode())
    os.environ |= {"COURSE_RUNS": str(folder / "runs"), "COURSE_CACHE": str(folder / "cache")}

    def mark(text: str) -> None:
        os.write(reports, f"mark {text}\n".encode())

    arrays, about = lesson(part, epochs, mark)
    np.savez(folder / "result.npz", about=json.dumps(about), **arrays)


def lesson(part: str, epochs: int, mark) -> tuple[dict, dict]:
    """Train and save as lessons do; `mark` is called where something begins or has ended.

    Returns the arrays to compare, and as `about` the epoch that training went on after, and what the list of runs said.
    """
    import io
    from contextlib import redirect_stdout

    import keras

    from cifar_helpers import runs

    data, budget = thumbnails(epochs)
    arrays, said = {}, io.StringIO()
    with redirect_stdout(said):
        for run in runs.list_runs():
            arrays |= _numbered(f"listed {run.name}", runs.load_model(run).get_weights())
    mark("begun")
    keras.utils.set_random_seed(budget.seed)
    if part == "features":
        return arrays | _features(data, mark), {"went_on_after": 0, "left_out": said.getvalue()}
    model, progress = {"fit": fit, "loop": loop}[part](data, budget, mark)
    mark("trained")
    runs.save_run(part, model, data, budget, progress.history, progress.history["seconds"][-1])
    mark("saved")
    arrays |= _numbered(part, model.get_weights())
    arrays["history"] = np.array([values for key, values in sorted(progress.history.items()) if key != "seconds"])
    return arrays, {"went_on_after": progress.went_on_after, "left_out": said.getvalue()}


def _numbered(name: str, values: list) -> dict:
    return {f"{name} {number}": value for number, value in enumerate(values)}


def thumbnails(epochs: int):
    """A stand-in of 200 training and 40 validation images, and the budget of a lesson that trains on them."""
    from cifar_helpers import standin
    from cifar_helpers.budgets import get_budget
    from cifar_helpers.data import Data, Source, Split

    images, labels, other_images, other_labels = standin.generate(20, 4)
    held_out = Split(other_images, other_labels)
    budget = get_budget("baseline")
    budget.seed, budget.epochs = SEED, epochs
    return Data(Split(images, labels), held_out, held_out, standin.CLASS_NAMES,
                Source("generated stand-in", "a few drawn shapes", "thumbnails", True)), budget


def _features(data, mark) -> dict:
    import keras
    from keras import layers

    from cifar_helpers import transfer

    transfer.CHUNK = 20  # ten pieces
    extractor = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(8, 3), layers.GlobalAveragePooling2D()])
    predict, pieces = extractor.predict_on_batch, iter(range(100))

    def marked_predict(images):
        mark(f"piece {next(pieces)}")
        return predict(images)

    extractor.predict_on_batch = marked_predict
    return {"features": transfer.extract_features(extractor, data.train.images)[0]}


def fit(data, budget, mark):
    """The net of lesson 3, with dropout and fewer filters, in `fit` with augmentation."""
    import keras
    from keras import layers

    from cifar_helpers import training

    model = keras.Sequential([
        keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3, use_bias=False),
        layers.MaxPooling2D(4), layers.BatchNormalization(), layers.ReLU(), layers.Flatten(), layers.Dropout(0.3),
        layers.Dense(10)])
    rate = keras.optimizers.schedules.CosineDecay(3e-3, budget.epochs * -(-len(data.train) // 32))
    model.compile(keras.optimizers.AdamW(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"])
    augment = [layers.RandomFlip("horizontal"), layers.RandomTranslation(0.1, 0.1)]
    progress = training.Progress("fit", model, data, budget, random=augment)
    progress.went_on_after = progress.epoch
    batches = training.batches(data.train, 32, shuffle=True, progress=progress,
                               augment=lambda images: augment[1](augment[0](images, training=True), training=True))
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: mark(f"noted {epoch + 1}"))
    model.fit(batches, validation_data=training.batches(data.validation, 40), initial_epoch=progress.epoch,
              epochs=budget.epochs, shuffle=False, verbose=0, callbacks=[progress, after])
    return model, progress


def loop(data, budget, mark):
    """The loop of lesson 4 on its subclassed net, narrow, with dropout."""
    import keras
    import tensorflow as tf

    from cifar_helpers import models, training

    model = models.SubclassedCNN(name="loop")
    model(data.train.images[:1])
    rate = keras.optimizers.schedules.CosineDecay(3e-3, budget.epochs * -(-len(data.train) // 50))
    optimizer = keras.optimizers.Adam(rate)
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    mean = keras.metrics.Mean()
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(images, training=True))
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables,
                                      strict=True))
        mean.update_state(loss)

    progress = training.Progress("loop", model, data, budget, optimizer=optimizer)
    progress.went_on_after = progress.epoch
    batches = training.batches(data.train, 50, shuffle=True, progress=progress)
    for epoch in range(progress.epoch, budget.epochs):
        for images, labels in batches:
            step(images, labels)
        progress.note(loss=float(mean.result()))
        mean.reset_state()
        mark(f"noted {epoch + 1}")
    return model, progress


if __name__ == "__main__":
    _serve()
