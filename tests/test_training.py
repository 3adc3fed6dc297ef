"""Batches have a new order each epoch, a stopped training goes on as if nothing had been, and NaN ends one."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import promise_4_killed
import promise_7_nan
import promise_8_long
import pytest
import tensorflow as tf
from fixtures import files_limited_to
from keras import layers

from cifar_helpers import machine, paths, runs, training
from cifar_helpers.data import Split
from cifar_helpers.errors import CourseError
from cifar_helpers.evaluation import predict_logits

EPOCHS = 3


@pytest.fixture(autouse=True)
def runs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def thumbnails():
    return promise_4_killed.thumbnails(EPOCHS)


def net(width=4):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.MaxPooling2D(8),
                              layers.Flatten(), layers.Dense(width), layers.BatchNormalization(), layers.Dropout(0.5),
                              layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=False)
    return model


def fit(thumbnails, until=EPOCHS, width=4, **options):
    data, budget = thumbnails
    model = net(width)
    progress = training.Progress("net", model, data, budget, **options)
    at = progress.epoch
    model.fit(training.batches(data.train, 50, shuffle=True, progress=progress), initial_epoch=at, epochs=until,
              shuffle=False, verbose=0, callbacks=[progress])
    return model, progress, at


def note_epochs(thumbnails, count, model=None, **options):
    """Epochs of a loop that trains nothing."""
    progress = training.Progress("net", model or net(), *thumbnails, **options)
    for _ in range(count):
        progress.note(loss=1.0)
    return progress


# --- batches ---


def orders(epochs, progress=None, wasted=0, seed=0):
    """The order of 40 numbers in each of these epochs; `wasted` passes are begun before each."""
    numbers = np.arange(40)
    batches = training.batches(Split(numbers, numbers), 16, shuffle=True, progress=progress, seed=seed)
    assert len(batches) == 3
    found = []
    for epoch in epochs:
        if progress:
            progress.epoch = epoch
        for _ in range(wasted):
            next(iter(batches))
        found.append([])
        for images, labels in batches:
            assert np.array_equal(images, labels)
            found[-1] += labels.numpy().tolist()
    return found


def test_no_pass_waits_for_the_thread_that_tunes_a_pipeline():
    numbers, passed = np.arange(40), []
    for progress in (None, SimpleNamespace(seed=7, epoch=0)):
        made = training.batches(Split(numbers, numbers), 16, shuffle=True, augment=lambda one: one, progress=progress)
        assert made.options().autotune.enabled is False
    model = SimpleNamespace(predict=lambda dataset, verbose: passed.append(dataset) or np.zeros((40, 10)))
    predict_logits(model, numbers)
    assert passed[0].options().autotune.enabled is False


def test_a_steady_pipeline_gives_the_same():
    dataset = tf.data.Dataset.range(10).map(lambda number: 2 * number).batch(3)
    assert len(machine.steady(dataset)) == len(dataset) == 4
    assert all((one == other).numpy().all() for one, other in zip(machine.steady(dataset), dataset, strict=True))


@pytest.mark.parametrize("progress", [None, SimpleNamespace(seed=7, epoch=0)])
def test_every_epoch_has_its_own_order(progress):
    first, second, third = orders([0, 1, 2], progress)
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second != third != first


def test_with_progress_the_order_follows_from_seeds_and_epoch_however_many_passes_were_begun():
    progress = SimpleNamespace(seed=7, epoch=0)
    assert orders([2, 3], progress, wasted=3) == orders([0, 1, 2, 3], progress)[2:]
    assert orders([2], progress) != orders([2], progress, seed=1)
    assert orders([2], progress) != orders([2], SimpleNamespace(seed=8, epoch=0))


# --- a training that was stopped ---


def test_it_goes_on_after_the_last_whole_epoch_and_ends_as_if_undisturbed(thumbnails, monkeypatch, tmp_path, capsys):
    whole, undisturbed, _ = fit(thumbnails)
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "stopped"))
    fit(thumbnails, until=2)
    capsys.readouterr()
    model, progress, went_on_after = fit(thumbnails)
    said = capsys.readouterr().out.strip()
    assert went_on_after == 2
    assert said == ("Going on after epoch 2, where an earlier run was stopped. To start afresh, delete "
                    f"{progress.file}.")
    assert all(map(np.array_equal, model.get_weights(), whole.get_weights()))
    assert progress.history["loss"] == undisturbed.history["loss"]
    assert np.all(np.diff(progress.history["seconds"]) > 0)


def test_seconds_are_added_up_without_the_time_between(thumbnails, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    progress = training.Progress("net", net(), *thumbnails)
    now[0] += 5
    progress.note(loss=1.0)
    now[0] += 1_000
    progress = training.Progress("net", net(), *thumbnails)
    now[0] += 7
    progress.note(loss=1.0)
    assert progress.history["seconds"] == [5, 12]


def test_a_training_that_had_ended_goes_straight_to_saving_and_a_saved_one_is_trained_anew(thumbnails, capsys):
    data, budget = thumbnails
    model, progress, _ = fit(thumbnails)
    again, progress, went_on_after = fit(thumbnails)
    assert went_on_after == EPOCHS
    assert all(map(np.array_equal, again.get_weights(), model.get_weights()))
    runs.save_run("net", again, data, budget, progress.history, 1.0)
    assert not progress.file.exists()
    assert training.Progress("net", net(), data, budget).epoch == 0


@pytest.mark.parametrize("change", ["seed", "epochs", "data", "images", "architecture", "optimizer", "backbone",
                                    "versions", "format"])
def test_it_starts_anew_where_anything_that_counts_is_different(change, thumbnails, monkeypatch, capsys):
    data, budget = thumbnails
    note_epochs(thumbnails, 1)
    model, options = net(5 if change == "architecture" else 4), {}
    if change in ("seed", "epochs"):
        budget = type(budget)(**vars(budget) | {change: 9})
    elif change == "data":
        data = training.Data(**vars(data) | {"source": type(data.source)("other", "", "other", False)})
    elif change == "images":
        data = training.Data(**vars(data) | {"train": Split(data.train.images[:50], data.train.labels[:50])})
    elif change == "optimizer":
        options["optimizer"] = keras.optimizers.Adam(0.1)
    elif change == "backbone":
        options["backbone"] = "other weights"
    elif change == "versions":
        monkeypatch.setattr(keras, "__version__", "3.99")
    elif change == "format":
        monkeypatch.setattr(training, "PROGRESS_FORMAT", 0)
    before = model.get_weights()
    capsys.readouterr()
    progress = training.Progress("net", model, data, budget, **options)
    named = {"seed": "budget", "epochs": "budget", "data": "images"}.get(change, change)
    assert progress.epoch == 0 and progress.history == {}
    assert "An earlier run of 'net' was stopped, with another" in (said := capsys.readouterr().out)
    assert named in said
    assert all(map(np.array_equal, model.get_weights(), before))


def test_names_that_keras_counts_up_in_a_notebook_make_no_difference(thumbnails):
    note_epochs(thumbnails, 2)
    keras.layers.Dense(3)  # the next layers and optimizers get higher numbers
    assert note_epochs(thumbnails, 0, optimizer=keras.optimizers.get("adam")).epoch == 2


def test_another_budget_keeps_its_own_progress(thumbnails):
    data, budget = thumbnails
    note_epochs(thumbnails, 1)
    other = type(budget)(**vars(budget) | {"name": "full"})
    training.Progress("net", net(), data, other).note(loss=1.0)
    assert note_epochs(thumbnails, 0).epoch == 1


# --- its file ---


def test_progress_is_never_listed_as_a_run_and_listing_leaves_it_there(thumbnails, capsys):
    progress = note_epochs(thumbnails, 1)
    capsys.readouterr()
    assert runs.list_runs() == []
    assert capsys.readouterr().out == ""
    assert progress.file.is_file()


def test_it_is_plain_arrays_and_json(thumbnails):
    stored = paths.read_arrays(note_epochs(thumbnails, 1).file)
    assert json.loads(str(stored.pop("about")))["key"]["format"] == training.PROGRESS_FORMAT
    assert all(array.dtype.kind in "fi" for array in stored.values())


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "text"])
def test_a_damaged_one_is_passed_over_with_a_sentence(damage, thumbnails, capsys):
    file = note_epochs(thumbnails, 1).file
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 255
    file.write_bytes({"truncated": raw[:len(raw) // 2], "empty": b"", "text": b"no archive", "flipped": raw}[damage])
    model = net()
    before = model.get_weights()
    capsys.readouterr()
    assert note_epochs(thumbnails, 0, model).epoch == 0
    assert "cannot be read" in (said := capsys.readouterr().out) and said.endswith("training starts anew.\n")
    assert all(map(np.array_equal, model.get_weights(), before))


def test_on_a_full_disk_training_goes_on_and_says_so_once(thumbnails, capsys):
    with files_limited_to(1_000):
        progress = note_epochs(thumbnails, 3)
    assert progress.epoch == 3
    assert capsys.readouterr().out.count("Progress is not kept (") == 1
    assert list(progress.file.parent.iterdir()) == []


def test_an_epoch_that_cannot_be_kept_leaves_the_one_before(thumbnails):
    progress = note_epochs(thumbnails, 1)
    with files_limited_to(1_000):
        progress.note(loss=1.0)
    assert note_epochs(thumbnails, 0).epoch == 1


def test_a_folder_that_cannot_be_made_does_not_stop_training(thumbnails, runs_folder, capsys):
    runs_folder.write_text("a file")
    assert note_epochs(thumbnails, 2).epoch == 2
    assert capsys.readouterr().out.count("Progress is not kept (") == 1


# --- what it refuses ---


def test_a_model_without_optimizer_or_weights_is_refused(thumbnails):
    for model in (keras.Sequential([keras.Input((32, 32, 3)), layers.Flatten()]), keras.Sequential([layers.Dense(1)])):
        with pytest.raises(CourseError, match="'net' cannot be trained yet: call the model on a batch"):
            training.Progress("net", model, *thumbnails)


def test_nan_stops_a_loop_after_a_good_epoch_with_advice_and_the_next_starts_afresh(thumbnails):
    progress = note_epochs(thumbnails, 1)
    with pytest.raises(CourseError, match=r"The loss of epoch 2 is nan, no finite number: training stopped, and "
                                          r"nothing was saved\. Lower the learning rate"):
        progress.note(loss=float("nan"))
    assert note_epochs(thumbnails, 0).epoch == 0


def test_nan_stops_fit_within_the_epoch(thumbnails):
    data, budget = thumbnails
    model = net()
    model.compile(keras.optimizers.SGD(1e30), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    seen = []
    count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(batch))
    with pytest.raises(CourseError, match="no finite number"):
        model.fit(training.batches(data.train, 10), epochs=1, verbose=0,
                  callbacks=[count, training.Progress("net", model, data, budget)])
    assert len(seen) < 20


# --- the pipeline's random layers ---


def test_a_pipelines_random_layers_draw_by_seed_and_epoch_however_often_they_were_used(thumbnails):
    data, budget = thumbnails
    drawn = []
    for uses in (0, 3):
        flip = layers.RandomFlip(seed=uses)
        progress = training.Progress("net", net(), data, budget, random=[flip])
        for _ in range(uses):
            flip(data.train.images[:50], training=True)
        for epoch in (0, 1):
            progress.on_epoch_begin(epoch)
            drawn.append(np.array(flip(data.train.images[:50], training=True)))
    assert np.array_equal(drawn[0], drawn[2]) and np.array_equal(drawn[1], drawn[3])
    assert not np.array_equal(drawn[0], drawn[1])


# --- faults, for real ---


@pytest.mark.parametrize(("module", "least"), [
    (promise_4_killed, 3), (promise_7_nan, 5), pytest.param(promise_8_long, 3, marks=pytest.mark.slow)])
def test_faults_are_survived(module, least):
    tried = list(module.cases("short"))
    assert len(tried) >= least
    assert [case for case in tried if not case[1]] == []
