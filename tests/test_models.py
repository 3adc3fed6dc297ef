"""The network that lesson 4 writes and the one that lesson 6 loads are the same."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest

from cifar_helpers import models

LESSON = Path(__file__).resolve().parent.parent / "notebooks" / "04_custom_loop.py"
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def code_of(file, name):
    [found] = [node for node in ast.parse(Path(file).read_text(encoding="utf-8")).body
               if isinstance(node, ast.ClassDef) and node.name == name]
    return ast.dump(found)


def test_the_lesson_writes_the_class_that_the_package_loads():
    assert code_of(LESSON, "SubclassedCNN") == code_of(models.__file__, "SubclassedCNN")


def test_it_has_as_many_parameters_as_its_predecessor():
    model = models.SubclassedCNN()
    assert model(IMAGES).shape == (3, 10)
    assert model.count_params() == 315_722


@pytest.mark.parametrize("options", [{}, {"classes": 7, "dropout": 0.25, "name": "seven"}])
def test_a_model_is_made_again_from_its_config(options):
    model = models.SubclassedCNN(**options)
    again = models.SubclassedCNN.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert again(IMAGES).shape == model(IMAGES).shape == (3, options.get("classes", 10))
    again.set_weights(model.get_weights())
    assert np.array_equal(again(IMAGES), model(IMAGES))


def test_dropout_is_on_in_training_only():
    keras.utils.set_random_seed(0)
    model = models.SubclassedCNN()
    assert np.array_equal(model(IMAGES), model(IMAGES, training=False))
    assert not np.array_equal(model(IMAGES, training=True), model(IMAGES, training=True))


def test_a_saved_model_loads_by_its_registered_name(tmp_path):
    model = models.SubclassedCNN(name="subclassed")
    before = model.predict(IMAGES, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(again) is models.SubclassedCNN
    assert np.array_equal(again.predict(IMAGES, verbose=0), before)
