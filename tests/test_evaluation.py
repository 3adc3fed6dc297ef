"""Scores, intervals and tests against values worked out by hand or by others."""

import keras
import numpy as np
import pytest
from sklearn.metrics import log_loss

from cifar_helpers import evaluation, marks

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(0, 3, (60, 10)).astype(np.float32), RNG.integers(0, 10, 60)
LARGE = 1_000 * LOGITS  # exp() of these overflows


def says(*classes, count=3):
    """Logits of a model that predicts these classes."""
    return np.eye(count, dtype=np.float32)[list(classes)]


def right(pattern):
    """Logits for labels of 0: right where the pattern has a 1."""
    return says(*(1 - int(digit) for digit in pattern))


def labels_for(pattern):
    return np.zeros(len(pattern), int)


# --- accuracy, cross-entropy, probabilities ---


def test_accuracy_is_the_share_of_largest_logits_that_are_right():
    assert evaluation.accuracy(says(0, 1, 2, 0), np.array([0, 1, 1, 0])) == 0.75
    keras_says = keras.metrics.sparse_categorical_accuracy(LABELS, LOGITS)
    assert evaluation.accuracy(LOGITS, LABELS) == pytest.approx(float(np.mean(keras_says)))


@pytest.mark.parametrize("logits", [LOGITS, LOGITS + 500, LOGITS * 0])
def test_cross_entropy_is_that_of_keras_and_of_sklearn(logits):
    by_keras = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, logits)
    by_sklearn = log_loss(LABELS, evaluation.probabilities(logits.astype(float)), labels=range(10))
    found = evaluation.cross_entropy(logits, LABELS)
    assert type(found) is float
    assert found == pytest.approx(float(by_keras), rel=1e-4) == pytest.approx(by_sklearn, rel=1e-4)


def test_cross_entropy_of_a_guess_is_the_logarithm_of_the_number_of_classes():
    assert evaluation.cross_entropy(np.zeros((5, 10)), np.arange(5)) == pytest.approx(np.log(10))


@pytest.mark.parametrize("logits", [LOGITS, LARGE])
def test_probabilities_add_up_to_one_and_keep_the_order(logits):
    shares = evaluation.probabilities(logits)
    assert shares.shape == logits.shape and shares.min() >= 0
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.array_equal(shares.argmax(axis=1), logits.argmax(axis=1))


def test_large_logits_do_not_overflow():
    assert np.isfinite(evaluation.cross_entropy(LARGE, LABELS))


# --- per class ---


def test_precision_recall_and_f1_are_those_worked_out_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    table = evaluation.per_class(says(0, 0, 1, 1, 0, 0), labels, ["cat", "dog", "ship"])
    assert list(table.index) == ["cat", "dog", "ship"]
    assert table.precision.tolist() == pytest.approx([2 / 4, 1 / 2, 0])
    assert table.recall.tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    assert table.F1.tolist() == pytest.approx([4 / 7, 1 / 2, 0])
    assert table.images.tolist() == [3, 2, 1]


@pytest.mark.filterwarnings("error")
def test_a_class_without_images_has_a_row_of_zeros():
    table = evaluation.per_class(says(0, 1), np.array([0, 1]), ["cat", "dog", "ship"])
    assert table.loc["ship"].tolist() == [0, 0, 0, 0]


def test_the_table_says_when_the_images_are_a_stand_in():
    assert evaluation.per_class(LOGITS, LABELS, range(10)).index.name == "class"
    marks.add(marks.STAND_IN)
    try:
        assert marks.STAND_IN in evaluation.per_class(LOGITS, LABELS, range(10)).index.name
    finally:
        marks.discard(marks.STAND_IN)


def test_a_confusion_matrix_has_a_row_for_every_class_also_where_none_occurs():
    assert evaluation.confusion(says(0, 1, 1), np.array([0, 0, 1])).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


# --- intervals ---


@pytest.mark.parametrize("pattern", ["1110" * 10, "10" * 50, "0001" * 25])
def test_the_interval_contains_the_accuracy(pattern):
    low, high = evaluation.accuracy_interval(right(pattern), labels_for(pattern), resamples=300)
    assert 0 <= low < evaluation.accuracy(right(pattern), labels_for(pattern)) < high <= 1


def test_the_interval_is_about_that_of_the_normal_approximation():
    pattern = "1110" * 100
    low, high = evaluation.accuracy_interval(right(pattern), labels_for(pattern), resamples=2_000)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.01)


def test_more_images_give_a_narrower_interval():
    widths = []
    for repeats in (10, 40, 160):
        pattern = "1110" * repeats
        low, high = evaluation.accuracy_interval(right(pattern), labels_for(pattern), resamples=500)
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1] > 1.5 * 1.5 * widths[2]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("pattern", "bound"), [("1" * 30, 1), ("0" * 30, 0)])
def test_the_interval_of_a_model_that_never_varies_is_a_point(pattern, bound):
    assert evaluation.accuracy_interval(right(pattern), labels_for(pattern), 200) == (bound, bound)


def test_the_interval_depends_on_nothing_but_its_seed():
    again = [evaluation.accuracy_interval(LOGITS, LABELS, 200, seed) for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


# --- McNemar and Holm ---


@pytest.mark.parametrize(("first", "second", "only_first", "only_second", "p"), [
    # two-sided binomial tails at 1/2 of the discordant pairs
    ("11" "1" "00000" "0", "11" "0" "11111" "0", 1, 5, 2 * (1 + 6) / 2**6),
    ("1" * 8, "0" * 8, 8, 0, 2 / 2**8),
    ("1100", "0011", 2, 2, 1),
    ("10", "11", 0, 1, 1),
    ("1010", "1010", 0, 0, 1),
])
def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_pairs(first, second, only_first, only_second, p):
    found = evaluation.mcnemar(right(first), right(second), labels_for(first))
    assert (found["only first right"], found["only second right"]) == (only_first, only_second)
    assert type(found["p"]) is float and found["p"] == pytest.approx(p)


def test_mcnemar_is_the_same_the_other_way_round():
    other = RNG.normal(0, 3, LOGITS.shape)
    there, back = evaluation.mcnemar(LOGITS, other, LABELS), evaluation.mcnemar(other, LOGITS, LABELS)
    assert there["p"] == pytest.approx(back["p"])
    assert there["only first right"] == back["only second right"]


@pytest.mark.parametrize(("given", "corrected"), [
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
    ([0.9, 0.02, 0.5], [1, 0.06, 1]),
    ([0.04, 0.04], [0.08, 0.08]),
    ([0.03], [0.03]),
    ([], []),
])
def test_holm_gives_the_known_values_in_the_given_order(given, corrected):
    assert evaluation.holm(given).tolist() == pytest.approx(corrected)


def test_holm_is_never_below_the_p_value_and_never_above_one():
    p = RNG.uniform(0, 1, 30)
    assert (evaluation.holm(p) >= p).all() and evaluation.holm(p).max() <= 1


# --- predictions ---


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.Conv2D(4, 5, strides=4),
                             layers.Dropout(0.5), layers.Flatten(), layers.Dense(10)])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_logits_are_those_of_the_model_whatever_the_batch_size(batch_size, model, images):
    logits = evaluation.predict_logits(model, images, batch_size)
    assert (logits.dtype, logits.shape) == (np.float32, (7, 10))
    assert np.allclose(logits, model(images), atol=1e-5)


def test_logits_are_float32_where_the_model_is_not(images):
    half = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(dtype="float16")])
    assert half(images).dtype == "float16"
    assert evaluation.predict_logits(half, images).dtype == np.float32
