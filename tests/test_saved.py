"""A model file is opened only where nothing in it can run or lead elsewhere, and runs of older versions still read."""

import random
import shutil
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import promise_6_models
import promise_7_numbers
import pytest
from keras import layers

from cifar_helpers import evaluation, plots, runs, saved
from cifar_helpers.errors import DataError

FIXTURES = Path(__file__).resolve().parent / "data"
DATA = promise_7_numbers.DATA


def test_hostile_models_are_refused_with_the_reason_and_honest_ones_are_read():
    tried = list(promise_6_models.cases("short"))
    assert [(what, detail) for what, survived, detail in tried if not survived] == []
    assert len(tried) >= 240


@pytest.mark.slow
def test_numbers_agree_between_processes_files_and_formats(monkeypatch):
    monkeypatch.delenv("COURSE_OLD_PYTHON", raising=False)
    tried = list(promise_7_numbers.cases("short"))
    assert [(what, detail) for what, survived, detail in tried if not survived] == []
    assert len(tried) >= 30


def functional(*middle):
    inputs = keras.Input((32, 32, 3))
    x = inputs
    for layer in middle:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def test_a_check_leaves_the_random_numbers_that_come_after_it_alone(tmp_path):
    functional(layers.Conv2D(2, 3), layers.Dropout(0.5)).save(tmp_path / "model.keras")
    after = []
    for load in (keras.models.load_model, lambda file: saved.read_model(file, "")):
        random.seed(0)
        load(tmp_path / "model.keras")
        after.append(random.random())
    assert after[0] == after[1]


def test_a_class_that_a_notebook_registers_loads_there_and_is_named_elsewhere(tmp_path):
    made = type("Twice", (layers.Layer,), {"call": lambda self, inputs: 2 * inputs, "__module__": "__main__"})
    keras.saving.register_keras_serializable("exercise")(made)
    try:
        model = functional(made())
        model.save(tmp_path / "model.keras")
        images = DATA.test.images.astype("float32")
        assert np.array_equal(saved.read_model(tmp_path / "model.keras", "").predict(images, verbose=0),
                              model.predict(images, verbose=0))
    finally:
        del keras.saving.get_custom_objects()["exercise>Twice"]
    with pytest.raises(DataError, match=r"is not opened: .*'exercise>Twice'.* not registered here.*: do so"):
        saved.read_model(tmp_path / "model.keras", "do so")


def test_a_layer_that_only_another_keras_has_is_no_matter_of_safety(tmp_path):
    members = promise_6_models._members(functional(), tmp_path)
    members["config.json"] = members["config.json"].replace(b"GlobalAveragePooling2D", b"GlobalAveragePooling2Q")
    (tmp_path / "model.keras").write_bytes(promise_6_models._archive(members))
    with pytest.raises(ValueError, match=r"no layer keras\.layers\.GlobalAveragePooling2Q"):
        saved.read_model(tmp_path / "model.keras", "")


def test_a_file_of_a_size_that_no_lesson_writes_is_not_read(tmp_path):
    for name, read in (("model.keras", saved.read_model), ("model.weights.h5", saved.check_weights)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(saved.LARGEST + 1)
        with pytest.raises(DataError, match=r"is not opened: it is larger than 512 MB: do so\."):
            read(tmp_path / name, "do so")


def test_a_run_of_the_first_format_serves_the_comparison(tmp_path, monkeypatch):
    shutil.copytree(FIXTURES / "first_format", tmp_path / "runs")
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    [run] = runs.list_runs(DATA)
    assert "test_confusion" not in run.info and run.info["versions"]["keras"].startswith("3.8")
    assert runs.table([run]).loc["baseline", "acc test"] == round(run.info["test_accuracy"], 3)
    logits = {run.name: runs.load_predictions(run)["test_logits"]}
    labels = DATA.test.labels
    predicted = {name: values.argmax(axis=1) for name, values in logits.items()}
    plots.confusion_matrices(predicted, labels, DATA.class_names, "matrices")
    plots.calibration(logits, labels, "calibration")
    plots.intervals({run.name: run.info["test_accuracy"]},
                    {run.name: evaluation.accuracy_interval(logits[run.name], labels, 50)}, "intervals")
    plots.compare_histories({run.name: run.history}, "histories")
    plt.close("all")
    again = runs.record_test(run, logits["baseline"], DATA, 0.5, logits["baseline"])
    assert again.info["test_accuracy"] == again.info["test_accuracy_flips"] == run.info["test_accuracy"]
    assert np.trace(again.info["test_confusion"]) == 2
