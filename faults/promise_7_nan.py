"""Trainings whose loss becomes NaN or infinite: they stop with advice, and harm no run that was saved before."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from promise_4_killed import thumbnails

PROMISE = "Numbers: a loss that is no finite number stops training with advice, and no saved run is touched"
HUGE = 1e30


def cases(scale: str) -> Iterator[tuple[str, bool, str]]:
    """Five ways to such a loss; there are no more in full."""
    import keras

    later = keras.optimizers.schedules.PiecewiseConstantDecay([7], [1e-3, HUGE])  # an epoch has 7 steps
    yield "fit: a rate of 1e30", *_stopped(_fit, 1 / 255, HUGE)
    yield "fit: inputs of 1e38", *_stopped(_fit, 1e38, 1e-3)
    yield "fit: a rate of 1e30 from epoch 2 on", *_stopped(_fit, 1 / 255, later)
    yield "a loop that notes NaN", *_stopped(_loop, {"loss": float("nan")})
    yield "a loop that notes an infinite val_loss", *_stopped(_loop, {"loss": 1.0, "val_loss": float("inf")})


def _stopped(train, *arguments) -> tuple[bool, str]:
    with (tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as scratch,
          patch.dict(os.environ, COURSE_RUNS=scratch, COURSE_BUDGET="smoke"), redirect_stdout(StringIO())):
        return _stopped_in(train, *arguments)


def _stopped_in(train, *arguments) -> tuple[bool, str]:
    from cifar_helpers import runs
    from cifar_helpers.errors import CourseError

    data, budget = thumbnails(2)
    model, progress = _fit(data, budget, 1 / 255, 1e-3)
    saved = runs.save_run("nan", model, data, budget, progress.history, 1.0).folder
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    try:
        model, progress = train(data, budget, *arguments)
        runs.save_run("nan", model, data, budget, progress.history, 1.0)
        return False, "training went on to its end, and its run was saved"
    except CourseError as error:
        said = str(error)
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"
    if "Lower the learning rate" not in said:
        return False, f"no advice: {said}"
    if {file.name: file.read_bytes() for file in saved.iterdir()} != before:
        return False, "the run that was saved before has changed"
    if left := [file.name for file in Path(saved.parent, ".progress").glob("*")]:
        return False, f"the next training goes on from {left[0]}"
    return True, ""


def _net(scale_by: float):
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(scale_by), layers.Flatten(), layers.Dense(8),
                             layers.Dense(10)])


def _fit(data, budget, scale_by: float, rate):
    import keras

    from cifar_helpers import training

    model = _net(scale_by)
    model.compile(keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    progress = training.Progress("nan", model, data, budget)
    model.fit(training.batches(data.train, 32, shuffle=True, progress=progress), initial_epoch=progress.epoch,
              epochs=budget.epochs, shuffle=False, verbose=0, callbacks=[progress])
    return model, progress


def _loop(data, budget, measures: dict):
    import keras

    from cifar_helpers import training

    model = _net(1 / 255)
    progress = training.Progress("nan", model, data, budget, optimizer=keras.optimizers.SGD(1e-3))
    progress.note(loss=2.0)
    progress.note(**measures)
    return model, progress
