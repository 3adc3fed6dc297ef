"""The stand-in is the same everywhere, balanced, and neither trivial nor hopeless."""

import numpy as np
import pytest

from cifar_helpers import archives, standin


def test_two_calls_draw_the_same():
    for one, other in zip(standin.generate(6, 2), standin.generate(6, 2), strict=True):
        assert np.array_equal(one, other)


def test_another_seed_draws_something_else():
    assert not np.array_equal(standin.generate(6, 2)[0], standin.generate(6, 2, seed=99)[0])


@pytest.mark.parametrize(("train_per_class", "test_per_class"), [(1, 1), (60, 3)])
def test_types_and_shapes_are_those_of_cifar10_and_classes_are_balanced(train_per_class, test_per_class):
    images, labels, test_images, test_labels = standin.generate(train_per_class, test_per_class)
    for drawn, numbers, per_class in ((images, labels, train_per_class), (test_images, test_labels, test_per_class)):
        assert (drawn.dtype, drawn.shape) == (np.uint8, (10 * per_class, 32, 32, 3))
        assert (numbers.dtype, numbers.shape) == (np.int64, (10 * per_class,))
        assert np.bincount(numbers).tolist() == [per_class] * 10


def test_no_picture_is_drawn_twice_and_classes_are_mixed():
    images, labels, test_images, _ = standin.generate(50, 50)
    assert len({image.tobytes() for image in (*images, *test_images)}) == 1_000
    assert len(np.unique(labels[:100])) == 10


def test_pictures_use_the_range_of_a_photograph():
    images = standin.generate(20, 1)[0].astype(float)
    assert 80 < images.mean() < 175
    assert (images.std((1, 2, 3)) > 5).all()


def test_class_names_are_ten_and_none_is_of_cifar10():
    assert len(set(standin.CLASS_NAMES)) == 10
    assert not set(standin.CLASS_NAMES) & set(archives.CLASS_NAMES)


def test_a_linear_model_on_the_pixels_beats_chance_and_stays_below_a_half():
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    images, labels, test_images, test_labels = standin.generate(100, 100)
    pixels, test_pixels = (part.reshape(len(part), -1) / 255 - 0.5 for part in (images, test_images))
    with threadpool_limits(1):  # several threads wait for one another where the cores are shared
        model = LogisticRegression(C=0.01, max_iter=100).fit(pixels, labels)
    assert 0.14 < model.score(test_pixels, test_labels) < 0.5
