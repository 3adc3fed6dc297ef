"""Write the saved runs that stand beside this script, as an older version of the course or of Keras writes them.

    PYTHONPATH=<a checkout> <a Python with Keras 3.8> tests/data/write_fixtures.py first_format baseline
    PYTHONPATH=<a checkout> <a Python with Keras 3.8> tests/data/write_fixtures.py keras_3_8 fast

`first_format` was written by the first commit that has cifar_helpers/runs.py, `keras_3_8` by the one that added this
script. Images are random numbers, the networks are narrow: only whether they are read matters.
"""

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
from keras import layers

from cifar_helpers import models, runs
from cifar_helpers.data import Data, Source, Split
from cifar_helpers.evaluation import predict_logits


def split(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.permutation(np.arange(count) % 10))


DATA = Data(split(30, 0), split(20, 1), split(10, 2), tuple("abcdefghij"),
            Source("random numbers", "fixture", "1234abcd", True))
BUDGET = SimpleNamespace(name="smoke", lesson="fixture", seed=2026, epochs=2)


def baseline() -> keras.Model:
    """Lesson 2's network, narrow."""
    return keras.Sequential([
        keras.Input((32, 32, 3)), layers.Rescaling(1 / 255),
        layers.Conv2D(2, 3, activation="relu", kernel_initializer="he_uniform"), layers.MaxPooling2D(8),
        layers.Flatten(), layers.Dense(10, kernel_initializer="zeros")], name="baseline")


def trained(name: str) -> tuple[keras.Model, dict]:
    keras.utils.set_random_seed(BUDGET.seed)
    model = baseline() if name == "baseline" else models.FastCNN(2, name=name)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, 6)),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(DATA.train.images, DATA.train.labels, batch_size=15, epochs=BUDGET.epochs, verbose=0,
                        validation_data=(DATA.validation.images, DATA.validation.labels)).history
    return model, history


if __name__ == "__main__":
    folder = Path(__file__).parent / sys.argv[1]
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["COURSE_RUNS"] = str(folder)
    for name in sys.argv[2:]:
        model, history = trained(name)
        run = runs.save_run(name, model, DATA, BUDGET, history, 1.5)
        runs.record_test(run, predict_logits(model, DATA.test.images), DATA, 0.25)
    for left in folder.glob(".*"):  # the lock
        left.unlink() if left.is_file() else shutil.rmtree(left)
