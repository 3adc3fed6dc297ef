"""What every benchmark measures, and the JSON that it leaves.

A script writes `{"context": {...}, "records": [...]}`; `run.py` joins those files into one of the same form.
`scaling.py` has the same two keys and describes its own records.

A record is one trained model, a flat dictionary. Seconds are wall-clock seconds, accuracies top-1 shares from 0 to 1;
null is what does not apply or was not measured:

    name, what          of the model: a short key, and a sentence
    predecessor         number 1 to 5 that the model rebuilds, or, for a lesson's model, that it answers
    ours                true for a lesson's model
    main                true for the one model of a predecessor whose seconds ours are divided by
    test_accuracy       on `test_images` images of data.test, once, after training
    validation_accuracy the last of the history
    claimed_accuracy    test accuracy that the predecessor states
    seconds             from the first training step to the last validation; for a lesson's model as its run.json says,
                        which includes features and, for a fine-tuned model, the frozen one before it
    fraction            share of the whole training (images times epochs; for a lesson images) that was done
    whole_seconds       seconds where fraction is 1, otherwise extrapolated (see `extrapolate`)
    images, epochs      training images, and epochs over them
    images_per_second   images times epochs / seconds; over cached features, pictures are not seen again
    peak_memory_mb      largest resident size of the process up to then, 10^6 bytes
    parameters, trainable_tensors, forward_mflops (10^6 floating-point operations an image, an addition and a
                        multiplication counted as two)
    history             lists an epoch: `seconds` since training began, `validation_accuracy`
    backbone            where its weights come from, `random weights` included
    precision           of convolutions: float32 or bfloat16
    data                `CIFAR-10` or `generated stand-in`
    budget, seed        budget is a lesson's; null for a predecessor
    pair, measurement   added by run.py: which predecessor's pair, and 1 or 2

`context` has `data` (source), `versions`, `hardware`. run.py adds `size` (`reduced` or `full`), `order` (the processes
as they ran), `failed` (those that left nothing), and `pairs`, a flat list, for each measurement and lesson's model

    pair, measurement, ours, predecessor   the names of the two records; the predecessor's is its main model
    seconds_ratio       whole seconds of ours over the predecessor's
    target, final       the predecessor's last validation accuracy; final says that it was trained whole
    reached_seconds     of our training until its validation accuracy reached the target, null where it did not
    reached_ratio       these over the predecessor's measured seconds until its last epoch
    claimed, claimed_seconds, claimed_ratio   the same for the accuracy that it claims, over its whole seconds
"""

import argparse
import ast
import json
import sys
import time
from pathlib import Path

from cifar_helpers import load_cifar10, machine, take
from cifar_helpers.errors import CourseError
from cifar_helpers.paths import checkout, whole_file

machine.import_tensorflow()  # before Keras, without its start-up log

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from cifar_helpers.evaluation import accuracy, predict_logits  # noqa: E402

FLOAT32 = "float32"


# --- a script's frame ---


def positive(text: str) -> int:
    """A whole number above 0; raises ArgumentTypeError otherwise."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def parser(description: str, images: int | None = None, epochs: int | None = None) -> argparse.ArgumentParser:
    """The options that every benchmark takes; `images` and `epochs` are the predecessor's own, where it has them."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    if images:
        made.add_argument("--images", type=positive, default=images, help="training images (default %(default)s)")
    if epochs:
        made.add_argument("--epochs", type=positive, default=epochs, help="epochs (default %(default)s)")
    made.add_argument("--test-images", type=positive, help="test images (default all)")
    made.add_argument("--seed", type=int, default=2026)
    made.add_argument("--out", type=Path, help="JSON file for the records (default: only print them)")
    return made


def load(images: int, test_images: int | None, seed: int):
    """The course's splits with fewer images each, validation in proportion to training; seeds every generator.

    Raises DataError where there are not so many images.
    """
    keras.utils.set_random_seed(seed)
    data = load_cifar10()
    validation = max(10, images * len(data.validation) // len(data.train))
    return take(data, images, validation, test_images)


def augmentation(*changes: keras.layers.Layer):
    """A function of a batch of pictures that lets each of these random layers change it, for `training.batches`."""
    def augment(images):
        images = tf.cast(images, tf.float32)
        for change in changes:
            images = change(images, training=True)
        return images

    return augment


def leave(records: list[dict], data, out: Path | None) -> None:
    """Print the records' main figures, and write them with their context where `out` names a file."""
    for record in records:
        print(f"{record['name']}: test accuracy {record['test_accuracy']:.3f}, {record['seconds']:.1f} s, "
              f"{record['images_per_second']:,.0f} images/s")
    if out:
        write(out, {"context": context(data), "records": records})


def context(data) -> dict:
    """Data source, versions and hardware, as plain JSON values without paths."""
    hardware = machine.describe()
    return {"data": vars(data.source), "versions": hardware.pop("versions"), "hardware": hardware}


def write(out: Path, content: dict) -> None:
    """A JSON file, whole or not at all."""
    with whole_file(out) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def main(measure, arguments=None) -> int:
    """Run a script's `measure(arguments)`; what a user can mend ends in one sentence and status 1."""
    try:
        measure(arguments)
        return 0
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1


# --- measuring ---


class Clock(keras.callbacks.Callback):
    """Seconds of a training, an entry an epoch, and the part that its first batches took.

    `offset` seconds went before, as in a second phase. The first training batch and the first validation batch are
    slower than all others, because Keras traces its graphs in them; `startup` is what they cost.
    """

    def __init__(self, offset: float = 0.0):
        super().__init__()
        self.offset, self.startup, self.seconds = offset, 0.0, []
        self._waiting = {"train", "test"}

    def on_train_begin(self, logs=None):
        self.begun = self._from = time.perf_counter()

    def on_test_begin(self, logs=None):
        self._from = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self._first("train")

    def on_test_batch_end(self, batch, logs=None):
        self._first("test")

    def _first(self, kind):
        if kind in self._waiting:
            self._waiting.remove(kind)
            self.startup += time.perf_counter() - self._from

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(self.offset + time.perf_counter() - self.begun)

    @property
    def total(self) -> float:
        """Seconds of this phase alone."""
        return self.seconds[-1] - self.offset

    def phase(self, images: int, epochs: int, batch: int, whole: int) -> dict:
        """This training as `extrapolate` takes it; `whole` is the predecessor's images times epochs."""
        return {"seconds": self.total, "startup": self.startup, "trained": images * epochs, "batch": batch,
                "whole": whole}


def extrapolate(phases: list[dict]) -> tuple[float, float]:
    """Share of the whole training that was done, 0 to 1, and the seconds that the whole would take.

    A phase has `seconds`, of which `startup` went into the first `batch` images, and was `trained` on so many images
    (images times epochs) of `whole`. Start-up happens once; the rest grows in proportion to images.

    Raises CourseError where a phase trained on one batch only, which says nothing about the others.
    """
    seconds = 0.0
    for phase in phases:
        if phase["trained"] == phase["whole"]:
            seconds += phase["seconds"]
            continue
        if phase["trained"] <= phase["batch"]:
            raise CourseError(f"{phase['trained']} images fill one batch of {phase['batch']}, from which no speed "
                              "follows: take more with --images.")
        rate = (phase["seconds"] - phase["startup"]) / (phase["trained"] - phase["batch"])
        seconds += phase["startup"] + rate * (phase["whole"] - phase["batch"])
    return sum(phase["trained"] for phase in phases) / sum(phase["whole"] for phase in phases), seconds


def peak_memory_mb() -> float | None:
    """The largest resident size that this process has had, in 10^6 bytes; None on Windows, which has no getrusage."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)  # bytes on macOS, KiB on Linux


def forward_mflops(model: keras.Model, shape=(32, 32, 3)) -> float:
    """Floating-point operations of one image's forward pass, 10^6, by TensorFlow's profiler.

    An addition and a multiplication count as two, so a convolution has twice its multiply-accumulates. Resizing and
    the inference form of batch normalisation are not counted.
    """
    step = tf.function(lambda images: model(images, training=False))
    graph = step.get_concrete_function(tf.TensorSpec((1, *shape), tf.float32)).graph
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    return round(tf.compat.v1.profiler.profile(graph, options=options).total_float_ops / 1e6, 6)


def record(name: str, what: str, predecessor: int, model: keras.Model, data, *, seed: int, history: dict,
           phases: list[dict] | None = None, seconds: float | None = None, fraction: float | None = None,
           images: int, epochs: int, ours: bool = False, main: bool = False, claimed: float | None = None,
           peak: float | None = None, backbone: str | None = None, precision: str = FLOAT32,
           budget: str | None = None) -> dict:
    """A record as this module describes it; opens the test set for `model`.

    Give either `phases` (see `extrapolate`), or `seconds` and `fraction`, which are divided. `history` has the lists
    `seconds` and `validation_accuracy`. `peak` is the peak memory where it was taken earlier.
    """
    if phases:
        seconds = sum(phase["seconds"] for phase in phases)
        fraction, whole = extrapolate(phases)
    else:
        whole = seconds / fraction
    peak = peak or peak_memory_mb()  # before the test set, which is no part of training
    curve = {key: [round(float(value), 4) for value in history[key]] for key in ("seconds", "validation_accuracy")}
    return {
        "name": name, "what": what, "predecessor": predecessor, "ours": ours, "main": main,
        "test_accuracy": round(accuracy(predict_logits(model, data.test.images), data.test.labels), 4),
        "test_images": len(data.test), "validation_accuracy": curve["validation_accuracy"][-1],
        "claimed_accuracy": claimed, "seconds": round(seconds, 2), "fraction": round(fraction, 6),
        "whole_seconds": round(whole, 1), "images": images, "epochs": epochs,
        "images_per_second": round(images * epochs / seconds, 1), "peak_memory_mb": peak,
        "parameters": model.count_params(), "trainable_tensors": len(model.trainable_weights),
        "forward_mflops": forward_mflops(model), "history": curve, "backbone": backbone, "precision": precision,
        "data": data.source.name, "budget": budget, "seed": seed,
    }


def joined(*histories: tuple[Clock, dict]) -> dict:
    """One history of several phases, each a clock and what `fit` returned."""
    return {"seconds": [second for clock, _ in histories for second in clock.seconds],
            "validation_accuracy": [value for _, history in histories for value in history["val_accuracy"]]}


def lesson_functions(lesson: str, names: tuple[str, ...], given: dict) -> dict:
    """The functions of these names as a lesson's script defines them, in a namespace that starts with `given`.

    Only these definitions are executed. Raises CourseError where the lesson does not define one of them.
    """
    script = lesson_script(lesson)
    tree = ast.parse(script.read_text(encoding="utf-8"))
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    if missing := set(names) - {node.name for node in wanted}:
        raise CourseError(f"{script.name} defines no function {', '.join(sorted(missing))}: bring scaling.py up to "
                          "date with the lesson.")
    namespace = dict(given)
    exec(compile(ast.Module(wanted, []), script.name, "exec"), namespace)
    return namespace


def lesson_script(lesson: str) -> Path:
    """`notebooks/NN_name.py` for a lesson's number; raises CourseError where there is no such lesson."""
    folder = (checkout() or Path.cwd()) / "notebooks"
    found = sorted(folder.glob(f"{int(lesson):02}_*.py")) if lesson.isdecimal() else []
    if not found:
        raise CourseError(f"There is no lesson {lesson} in {folder}: take a number such as 2.")
    return found[0]
