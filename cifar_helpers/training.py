"""Batches in, seconds out: what every training run of the course shares, and how a stopped one goes on."""

import hashlib
import json
import re
import time
from contextlib import suppress
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from cifar_helpers.data import Data, Split
from cifar_helpers.errors import CourseError
from cifar_helpers.machine import steady
from cifar_helpers.paths import progress_file, read_arrays, whole_file

PROGRESS_FORMAT = 1


def batches(split: Split, batch_size: int = 128, shuffle: bool = False, augment=None, seed: int = 0,
            progress: "Progress | None" = None) -> tf.data.Dataset:
    """The pipeline that lesson 1 builds: batches of (images, labels), shuffled anew each epoch where asked.

    Images stay uint8 (b, 32, 32, 3), labels are int64 (b,). `augment` maps a batch of images to a batch of images.
    With `progress`, the order of an epoch follows from its number, so that a training that goes on has it too.
    """
    if shuffle and progress is not None:
        dataset = _shuffled_by_epoch(split, batch_size, seed, progress)
    else:
        dataset = tf.data.Dataset.from_tensor_slices((split.images, split.labels))
        if shuffle:
            dataset = dataset.shuffle(len(split), seed=seed)
        dataset = dataset.batch(batch_size)
    if augment is not None:
        # one call at a time: random layers draw from a shared state, and parallel calls would race for it
        dataset = dataset.map(lambda images, labels: (augment(images), labels))
    return steady(dataset.prefetch(2))


def _shuffled_by_epoch(split: Split, batch_size: int, seed: int, progress: "Progress") -> tf.data.Dataset:
    """Batches in an order that is made, whenever a pass begins, from the seeds and the number of epochs done.

    How many passes begin is no measure of epochs: `fit` begins some that it does not read.
    """
    def order():
        yield np.random.default_rng([progress.seed, seed, progress.epoch]).permutation(len(split))

    images, labels = tf.constant(split.images), tf.constant(split.labels)
    orders = tf.data.Dataset.from_generator(order, output_signature=tf.TensorSpec((len(split),), tf.int64))
    numbers = orders.unbatch().apply(tf.data.experimental.assert_cardinality(len(split)))
    return numbers.batch(batch_size).map(lambda chosen: (tf.gather(images, chosen), tf.gather(labels, chosen)))


def clock() -> keras.callbacks.Callback:
    """A callback that adds to the history, as `seconds`, the time since training began at the end of each epoch."""
    begun = time.perf_counter()
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(seconds=time.perf_counter() - begun))


class Progress(keras.callbacks.Callback):
    """Keeps a training's state on disk after each epoch, so that one that was stopped goes on after its last whole one.

    Made just before training, it looks for an earlier run that was stopped and sets the model and the optimizer to
    what they were. It goes on only from what was trained under the same name, budget, seed, data, architecture,
    optimizer, `backbone` (the text that `save_run` gets) and versions; else, or where the file is damaged, it says so
    and training starts anew. Saving the run removes the file.

    `epoch` is the number of epochs done, `seed` the budget's. `history` has a list of floats for each measure, an entry
    an epoch; its `seconds` count from the making of this object, and those of the earlier run are added. `fit` takes
    the object as a callback; a loop of one's own calls `note` and names its `optimizer`. The layers in `random`, those
    of a pipeline, draw numbers in `fit` that follow from the seed and the epoch; layers in the model need no mention.

    Raises CourseError where the model has no weights or no optimizer yet, and in training where a measure is no finite
    number.
    """

    def __init__(self, name: str, model: keras.Model, data: Data, budget: SimpleNamespace, *,
                 optimizer: keras.optimizers.Optimizer | None = None, random=(), backbone: str | None = None):
        super().__init__()
        optimizer = optimizer or getattr(model, "optimizer", None)
        if optimizer is None or not model.built:
            raise CourseError(f"{name!r} cannot be trained yet: call the model on a batch, and compile it or name the "
                              "optimizer, before you make its Progress.")
        optimizer.build(model.trainable_variables)
        self.file = progress_file(name, budget.name)
        self.epoch, self.history = 0, {}
        self._state = [*model.variables, *optimizer.variables]
        self._seeds = [variable for layer in random for variable in layer.variables]
        self.seed, self._told = budget.seed, False
        self._key = {
            "format": PROGRESS_FORMAT, "name": name, "budget": vars(budget), "backbone": backbone,
            "images": [data.source.fingerprint, len(data.train), len(data.validation)],
            "architecture": _digest(model.to_json()),
            "optimizer": _digest(json.dumps(keras.saving.serialize_keras_object(optimizer), default=str)),
            "versions": [tf.__version__, keras.__version__],
        }
        self._restore()
        self._begun = time.perf_counter() - (self.history["seconds"][-1] if self.epoch else 0)

    def note(self, **measures: float) -> None:
        """End an epoch of one's own loop: add the measures, and the seconds, to the history, keep both and print them.

        Raises CourseError where a measure is not finite.
        """
        self._note(measures)
        print(f"epoch {self.epoch}: " + ", ".join(f"{key} {values[-1]:.3f}" for key, values in self.history.items()))

    def on_epoch_begin(self, epoch, logs=None):
        # `fit` reads a batch beforehand and pipelines read ahead: how much was drawn by now is left to chance
        for number, variable in enumerate(self._seeds):
            variable.assign([self.seed + number, epoch << 24])

    def on_train_batch_end(self, batch, logs=None):
        self._check({"loss": (logs or {}).get("loss", 0.0)})

    def on_epoch_end(self, epoch, logs=None):
        self._note(logs)
        logs["seconds"] = self.history["seconds"][-1]

    def _note(self, measures: dict) -> None:
        self._check(measures)
        for key, value in {**measures, "seconds": time.perf_counter() - self._begun}.items():
            self.history.setdefault(key, []).append(float(value))
        self.epoch += 1
        about = json.dumps({"key": self._key, "history": self.history})
        try:
            with whole_file(self.file) as file:
                np.savez(file, about=np.array(about), **{f"state_{number}": keras.ops.convert_to_numpy(variable)
                                                         for number, variable in enumerate(self._state)})
        except OSError as error:
            if not self._told:
                print(f"Progress is not kept ({error}): training goes on, and starts anew if it is stopped. Free some "
                      "space, or set COURSE_RUNS to a folder that can be written.")
            self._told = True

    def _check(self, measures: dict) -> None:
        for key, value in measures.items():
            if not np.isfinite(value):
                with suppress(OSError):
                    self.file.unlink()  # it would lead to the same end again
                raise CourseError(
                    f"The {key} of epoch {self.epoch + 1} is {float(value)}, no finite number: training stopped, and "
                    "nothing was saved. Lower the learning rate; if that does not help, look for inputs that are not "
                    "finite or far from the range -1 to 1, and for labels outside 0 to 9. Then run the lesson from its "
                    "top: it starts afresh.")

    def _restore(self) -> None:
        afresh = "training starts anew"
        try:
            stored = read_arrays(self.file)
            about = json.loads(str(stored["about"]))
            ours = json.loads(json.dumps(self._key))
            if other := [part for part in ours if about["key"].get(part) != ours[part]]:
                print(f"An earlier run of {ours['name']!r} was stopped, with another {', '.join(other)}: {afresh}.")
                return
            state = [stored[f"state_{number}"] for number in range(len(self._state))]
            if any(value.shape != variable.shape for variable, value in zip(self._state, state, strict=True)):
                raise ValueError("its arrays have other shapes than the model's")
            history = {key: list(map(float, values)) for key, values in about["history"].items()}
            [epochs] = {len(values) for values in history.values()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"The progress of an earlier run cannot be read ({error}): {afresh}.")
            return
        for variable, value in zip(self._state, state, strict=True):
            variable.assign(value)
        self.epoch, self.history = epochs, history
        print(f"Going on after epoch {epochs}, where an earlier run was stopped. To start afresh, delete {self.file}.")


def without_counters(text: str) -> str:
    """Keras's JSON without the counters that it appends to names, so that it is equal for equal settings."""
    return re.sub(r'_\d+"', '"', text)


def _digest(text: str) -> str:
    return hashlib.sha256(without_counters(text).encode()).hexdigest()[:16]
