"""The networks that lesson 4 writes and those that lesson 6 loads are the same."""

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


@pytest.mark.parametrize("name", ["SubclassedCNN", "FastCNN"])
def test_the_lesson_writes_the_class_that_the_package_loads(name):
    assert code_of(LESSON, name) == code_of(models.__file__, name)


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


def test_the_fast_net_has_as_many_parameters_as_its_convolutions_norms_and_head():
    model = models.FastCNN(8)
    assert model(IMAGES).shape == (3, 10)
    kernels = 2 * 2 * 3 * 24 + 9 * (24 * 8 + 8 * 8 + 8 * 32 + 3 * 32 * 32)
    assert model.count_params() == kernels + 3 * (2 * 8 + 4 * 32) + 32 * 10
    assert [weight.path.rpartition("/")[2] for weight in model.trainable_weights].count("beta") == 6
    assert not model.whiten.trainable_weights


def test_the_fast_net_divides_its_logits_by_nine():
    model = models.FastCNN(4)
    logits = model(IMAGES)
    model.logits.kernel.assign(9 * model.logits.kernel)
    assert np.allclose(model(IMAGES), 9 * logits, rtol=1e-5)


def test_a_saved_fast_net_loads_with_its_width(tmp_path):
    model = models.FastCNN(4, classes=7, name="fast")
    before = model.predict(IMAGES, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert (type(again), again.width, again.classes) == (models.FastCNN, 4, 7)
    assert np.array_equal(again.predict(IMAGES, verbose=0), before)
