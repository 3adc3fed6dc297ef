"""Right and wrong solutions of lesson 6's exercises."""

from fractions import Fraction
from itertools import pairwise
from math import comb
from types import MappingProxyType

import numpy as np
import pandas as pd
import tensorflow as tf  # here, so that no check is timed with the import
from scipy.stats import binomtest, chi2, fisher_exact, norm
from sklearn.metrics import confusion_matrix

from cifar_helpers import evaluation

# --- confusion_reading ---

READING = {"accuracy": 0.837, "recall of cat": 0.6, "precision of cat": 0.5, "dogs taken for cats": 18}
MATRIX = np.array([[30, 15, 5], [18, 80, 2], [12, 5, 183]])
computed = {"accuracy": np.trace(MATRIX) / MATRIX.sum(), "recall of cat": (MATRIX.diagonal() / MATRIX.sum(1))[0],
            "precision of cat": (MATRIX.diagonal() / MATRIX.sum(0))[0], "dogs taken for cats": MATRIX[1, 0]}
as_fractions = MappingProxyType({"accuracy": Fraction(293, 350), "recall of cat": Fraction(3, 5),
                                 "precision of cat": Fraction(1, 2), "dogs taken for cats": np.float32(18)})
without_dogs = {key: READING[key] for key in list(READING)[:3]}

# --- confusion_shares ---


def by_sklearn(labels, predicted, classes):
    return confusion_matrix(labels, predicted, labels=range(classes), normalize="true")


def by_numpy(labels, predicted, classes):
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, predicted), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def by_loops(labels, predicted, classes):
    return [[np.mean(predicted[labels == row] == column) if np.any(labels == row) else 0.0 for column in range(classes)]
            for row in range(classes)]


def by_tensorflow(labels, predicted, classes):
    counts = tf.cast(tf.math.confusion_matrix(labels, predicted, classes), tf.float32)
    return tf.math.divide_no_nan(counts, tf.reduce_sum(counts, axis=1, keepdims=True))


def by_one_hot(labels, predicted, classes):
    true, called = np.eye(classes)[labels], np.eye(classes)[predicted]
    return np.nan_to_num(true.T @ called / np.where(true.sum(0) > 0, true.sum(0), 1)[:, None])


def counts_only(labels, predicted, classes):
    return confusion_matrix(labels, predicted, labels=range(classes))


def percentages(labels, predicted, classes):
    return 100 * by_sklearn(labels, predicted, classes)


def transposed(labels, predicted, classes):
    return by_numpy(labels, predicted, classes).T


def labels_and_predicted_exchanged(labels, predicted, classes):
    return by_numpy(predicted, labels, classes)


def columns_normalised(labels, predicted, classes):
    return confusion_matrix(labels, predicted, labels=range(classes), normalize="pred")


def all_normalised(labels, predicted, classes):
    return confusion_matrix(labels, predicted, labels=range(classes), normalize="all")


def largest_is_one(labels, predicted, classes):
    counts = counts_only(labels, predicted, classes)
    return counts / counts.max()


def keepdims_forgotten(labels, predicted, classes):
    counts = counts_only(labels, predicted, classes)
    return counts / counts.sum(axis=1)


def empty_class_is_nan(labels, predicted, classes):
    counts = counts_only(labels, predicted, classes)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(axis=1, keepdims=True)


def only_classes_that_occur(labels, predicted, classes):
    return confusion_matrix(labels, predicted, normalize="true")


def whole_numbers_stored(labels, predicted, classes):
    counts = counts_only(labels, predicted, classes)
    for row in range(classes):
        counts[row] = counts[row] / max(counts[row].sum(), 1)
    return counts


def empty_class_on_the_diagonal(labels, predicted, classes):
    shares = by_numpy(labels, predicted, classes)
    for row in range(classes):
        if not shares[row].any():
            shares[row, row] = 1
    return shares


def not_returned(labels, predicted, classes):
    by_numpy(labels, predicted, classes)


# --- paired_test ---


def _result(images, only_first, only_second, p):
    return {"images": images, "only first right": only_first, "only second right": only_second, "p": p}


def _matched(first, second):
    """Whether each model is right, on the shared images."""
    _, a, b = np.intersect1d(first["image"], second["image"], return_indices=True)
    if not len(a):
        raise ValueError("The runs share no image.")
    return (first["label"] == first["predicted"])[a], (second["label"] == second["predicted"])[b]


def _exact(a, b):
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return only_a, only_b, binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0


def matched_by_numpy(first, second):
    a, b = _matched(first, second)
    return _result(len(a), *_exact(a, b))


def matched_by_pandas(first, second):
    table = pd.DataFrame(first).merge(pd.DataFrame(second), on="image", suffixes=("_first", "_second"))
    if table.empty:
        raise ValueError("nothing in common")
    a, b = (table[f"label_{which}"] == table[f"predicted_{which}"] for which in ("first", "second"))
    only = int((a & ~b).sum()), int((b & ~a).sum())
    tail = sum(comb(sum(only), k) for k in range(min(only) + 1)) / 2 ** sum(only)
    return _result(len(table), *only, min(1.0, 2 * tail))


def matched_by_dicts(first, second):
    right = dict(zip(second["image"].tolist(), second["predicted"] == second["label"], strict=True))
    pairs = [(label == predicted, right[image]) for image, label, predicted in
             zip(first["image"].tolist(), first["label"], first["predicted"], strict=True) if image in right]
    if len(pairs) == 0:
        raise ValueError
    a, b = np.array(pairs).T
    return _result(np.int64(len(pairs)), *_exact(a, b))


def by_evaluation(first, second):
    _, a, b = np.intersect1d(first["image"], second["image"], return_indices=True)
    if a.size == 0:
        raise ValueError("no image in common")
    logits = [np.eye(10)[run["predicted"][rows]] for run, rows in ((first, a), (second, b))]
    return evaluation.mcnemar(*logits, first["label"][a]) | {"images": a.size}


def compared_by_position(first, second):
    n = min(len(first["label"]), len(second["label"]))
    a, b = ((run["label"] == run["predicted"])[:n] for run in (first, second))
    return _result(n, *_exact(a, b))


def sorted_and_not_matched(first, second):
    a, b = ((run["label"] == run["predicted"])[np.argsort(run["image"])] for run in (first, second))
    n = min(len(a), len(b))
    return _result(n, *_exact(a[:n], b[:n]))


def labels_matched_for_images(first, second):
    if not np.array_equal(first["label"], second["label"]):
        first, second = ({key: run[key][np.argsort(run["label"], kind="stable")] for key in run}
                         for run in (first, second))
    return compared_by_position(first, second)


def unpaired_z_test(first, second):
    a, b = _matched(first, second)
    pooled = (a.mean() + b.mean()) / 2
    z = (a.mean() - b.mean()) / np.sqrt(2 * pooled * (1 - pooled) / len(a)) if a.mean() != b.mean() else 0
    return _result(len(a), *_exact(a, b)[:2], 2 * norm.sf(abs(z)))


def fisher_on_the_accuracies(first, second):
    a, b = _matched(first, second)
    p = fisher_exact([[a.sum(), (~a).sum()], [b.sum(), (~b).sum()]])[1]
    return _result(len(a), *_exact(a, b)[:2], p)


def coin_thrown_for_every_image(first, second):
    a, b = _matched(first, second)
    only_a, only_b, _ = _exact(a, b)
    return _result(len(a), only_a, only_b, binomtest(only_a, len(a)).pvalue)


def one_sided(first, second):
    a, b = _matched(first, second)
    only_a, only_b, _ = _exact(a, b)
    p = binomtest(max(only_a, only_b), only_a + only_b, alternative="greater").pvalue if only_a + only_b else 1.0
    return _result(len(a), only_a, only_b, p)


def chi_squared_for_few_images(first, second):
    a, b = _matched(first, second)
    only_a, only_b, _ = _exact(a, b)
    p = chi2.sf((only_a - only_b) ** 2 / (only_a + only_b), 1) if only_a + only_b else 1.0
    return _result(len(a), only_a, only_b, p)


def nothing_discordant_is_nan(first, second):
    a, b = _matched(first, second)
    only_a, only_b, p = _exact(a, b)
    return _result(len(a), only_a, only_b, p if only_a + only_b else float("nan"))


def nothing_discordant_is_zero(first, second):
    a, b = _matched(first, second)
    only_a, only_b, p = _exact(a, b)
    return _result(len(a), only_a, only_b, p if only_a + only_b else 0.0)


def doubled_above_one(first, second):
    a, b = _matched(first, second)
    only_a, only_b, _ = _exact(a, b)
    n = only_a + only_b
    p = 2 * binomtest(min(only_a, only_b), n, alternative="less").pvalue if n else 1.0
    return _result(len(a), only_a, only_b, p)


def counts_exchanged(first, second):
    found = matched_by_numpy(first, second)
    return found | {"only first right": found["only second right"], "only second right": found["only first right"]}


def both_right_counted(first, second):
    a, b = _matched(first, second)
    return _result(len(a), int(a.sum()), int(b.sum()), _exact(a, b)[2])


def every_disagreement_counted(first, second):
    _, a, b = np.intersect1d(first["image"], second["image"], return_indices=True)
    differ = first["predicted"][a] != second["predicted"][b]
    second_right = differ & (second["predicted"] == second["label"])[b]
    only_a, only_b = int((differ & ~second_right).sum()), int(second_right.sum())
    return _result(len(a), only_a, only_b, binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0)


def silent_where_nothing_is_shared(first, second):
    try:
        return matched_by_numpy(first, second)
    except ValueError:
        return _result(0, 0, 0, 1.0)


def a_bare_p_value(first, second):
    return matched_by_numpy(first, second)["p"]


# --- calibration_error ---


def by_digitize(probabilities, labels, bins):
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    total = 0.0
    for each in range(bins):
        inside = place == each
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - hits[inside].mean())
    return total


def by_bincount(probabilities, labels, bins):
    confidence, hits = np.max(probabilities, 1), np.argmax(probabilities, 1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return abs(np.bincount(place, weights=confidence - hits)).sum() / len(labels)


def by_histogram(probabilities, labels, bins):
    confidence, hits = probabilities.max(1), (probabilities.argmax(1) == labels).astype(float)
    sure, right = (np.histogram(confidence, bins, (0, 1), weights=values)[0] for values in (confidence, hits))
    return np.float32(np.abs(sure - right).sum() / confidence.size)


def by_pandas(probabilities, labels, bins):
    table = pd.DataFrame({"confidence": probabilities.max(1), "hit": probabilities.argmax(1) == labels})
    groups = table.groupby(pd.cut(table["confidence"], np.linspace(0, 1, bins + 1), include_lowest=True), observed=True)
    return float((groups.size() * (groups["confidence"].mean() - groups["hit"].mean()).abs()).sum() / len(table))


def by_tensorflow_segments(probabilities, labels, bins):
    confidence = tf.reduce_max(probabilities, axis=1)
    hits = tf.cast(tf.argmax(probabilities, axis=1) == labels, confidence.dtype)
    place = tf.minimum(tf.cast(confidence * bins, tf.int32), bins - 1)
    return tf.reduce_sum(tf.abs(tf.math.unsorted_segment_sum(confidence - hits, place, bins))) / len(labels)


def _bins(probabilities, labels, bins):
    """Place, confidence and hit of each image."""
    confidence = probabilities.max(axis=1)
    return (np.minimum((confidence * bins).astype(int), bins - 1), confidence,
            (probabilities.argmax(axis=1) == labels).astype(float))


def empty_bins_give_nan(probabilities, labels, bins):
    place, confidence, hits = _bins(probabilities, labels, bins)
    with np.errstate(invalid="ignore"):
        counts = np.bincount(place, minlength=bins)
        gaps = abs(np.bincount(place, confidence, bins) - np.bincount(place, hits, bins)) / counts
        return (gaps * counts).sum() / len(labels)


def bins_count_the_same(probabilities, labels, bins):
    place, confidence, hits = _bins(probabilities, labels, bins)
    return np.mean([abs((confidence - hits)[place == each].mean()) for each in np.unique(place)])


def empty_bins_counted_in_the_mean(probabilities, labels, bins):
    place, confidence, hits = _bins(probabilities, labels, bins)
    return sum(abs((confidence - hits)[place == each].mean()) for each in np.unique(place)) / bins


def gaps_cancel_out(probabilities, labels, bins):
    place, confidence, hits = _bins(probabilities, labels, bins)
    return abs(sum((confidence - hits)[place == each].sum() for each in np.unique(place))) / len(labels)


def gap_of_single_images(probabilities, labels, bins):
    return np.mean(abs(probabilities.max(axis=1) - (probabilities.argmax(axis=1) == labels)))


def largest_gap(probabilities, labels, bins):
    place, confidence, hits = _bins(probabilities, labels, bins)
    return max(abs((confidence - hits)[place == each].mean()) for each in np.unique(place))


def confidence_one_in_no_bin(probabilities, labels, bins):
    _, confidence, hits = _bins(probabilities, labels, bins)
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in pairwise(edges):
        inside = (confidence >= low) & (confidence < high)
        total += abs((confidence - hits)[inside].sum())
    return total / len(labels)


def confidence_of_the_true_class(probabilities, labels, bins):
    confidence = probabilities[np.arange(len(labels)), labels]
    hits = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return abs(np.bincount(place, confidence - hits)).sum() / len(labels)


def middle_of_the_bin(probabilities, labels, bins):
    place, _, hits = _bins(probabilities, labels, bins)
    return abs(np.bincount(place, (place + 0.5) / bins - hits)).sum() / len(labels)


def always_ten_bins(probabilities, labels, bins):
    return by_bincount(probabilities, labels, 10)


def squared_gaps(probabilities, labels, bins):
    place, confidence, hits = _bins(probabilities, labels, bins)
    return sum((place == each).mean() * (confidence - hits)[place == each].mean() ** 2 for each in np.unique(place))


def in_percent(probabilities, labels, bins):
    return 100 * by_bincount(probabilities, labels, bins)


def bins_of_equal_numbers(probabilities, labels, bins):
    _, confidence, hits = _bins(probabilities, labels, bins)
    order = np.argsort(confidence)
    if confidence.min() == confidence.max():
        return by_bincount(probabilities, labels, 1)
    return sum(abs((confidence - hits)[part].sum()) for part in np.array_split(order, bins)) / len(labels)


def a_gap_a_bin(probabilities, labels, bins):
    place, confidence, hits = _bins(probabilities, labels, bins)
    return np.bincount(place, confidence - hits, bins)


# --- report_over_seeds ---


def by_max(validation, test):
    name = max(validation, key=lambda name: validation[name].mean())
    return name, test[name].mean(), test[name].std(ddof=1)


def by_tables(validation, test):
    name = pd.DataFrame(validation).mean().idxmax()
    column = pd.DataFrame(test)[name]
    return name, column.mean(), column.std()


def by_hand(validation, test):
    best = sorted((float(sum(values) / len(values)), name) for name, values in validation.items())[-1][1]
    values = [float(value) for value in test[best]]
    mean = sum(values) / len(values)
    return [best, mean, (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5]


def chosen_on_test(validation, test):
    return by_max(test, test)


def chosen_by_the_best_seed(validation, test):
    name = max(validation, key=lambda name: validation[name].max())
    return name, test[name].mean(), test[name].std(ddof=1)


def worst_chosen(validation, test):
    name = min(validation, key=lambda name: validation[name].mean())
    return name, test[name].mean(), test[name].std(ddof=1)


def validation_reported(validation, test):
    return by_max(validation, validation)


def best_seed_reported(validation, test):
    name, _, spread = by_max(validation, test)
    return name, test[name].max(), spread


def seed_of_the_best_validation(validation, test):
    name, _, spread = by_max(validation, test)
    return name, test[name][validation[name].argmax()], spread


def matched_by_place(validation, test):
    place = int(np.argmax([values.mean() for values in validation.values()]))
    name = list(validation)[place]
    values = list(test.values())[place]
    return name, values.mean(), values.std(ddof=1)


def divided_by_n(validation, test):
    name, mean, _ = by_max(validation, test)
    return name, mean, test[name].std()


def standard_error(validation, test):
    name, mean, spread = by_max(validation, test)
    return name, mean, spread / len(test[name]) ** 0.5


def variance(validation, test):
    name, mean, spread = by_max(validation, test)
    return name, mean, spread**2


def spread_of_validation(validation, test):
    name, mean, _ = by_max(validation, test)
    return name, mean, validation[name].std(ddof=1)


def only_the_name(validation, test):
    return by_max(validation, test)[0]


# --- comparison_plan ---

BASELINE = {"augmentation": False, "label smoothing": 0.0, "width": 32, "epochs": 5}
PLAN = {
    "arms": {"baseline": BASELINE, "augmented": BASELINE | {"augmentation": True},
             "smoothed": BASELINE | {"label smoothing": 0.1}},
    "seeds": [1, 2, 3], "chosen on": "validation", "reported on": "test", "test": "McNemar", "correction": "Holm",
}
narrow = {name: settings | {"width": 16} for name, settings in PLAN["arms"].items()}
more_seeds = PLAN | {"arms": narrow | {"longer": narrow["baseline"] | {"epochs": 10}}, "seeds": np.arange(5),
                     "test": "McNemar's exact test", "correction": "Bonferroni"}
wider = MappingProxyType(PLAN | {"arms": {"baseline": BASELINE, "wide": BASELINE | {"width": 64},
                                          "smoothed": BASELINE | {"label smoothing": 0.05}}, "seeds": range(3)})


def _plan(**changed):
    return PLAN | {name.replace("_", " "): value for name, value in changed.items()}


def _arms(**changed):
    return PLAN | {"arms": PLAN["arms"] | changed}


SOLUTIONS = {
    "confusion_reading": {
        "right": [READING, computed, as_fractions],
        "wrong": [
            (READING | {"recall of cat": 0.5, "precision of cat": 0.6}, "Recall and precision are exchanged"),
            (READING | {"accuracy": 0.772}, "mean of the classes' recalls"),
            (READING | {"accuracy": 0.163}, "share that is wrong"),
            (READING | {"accuracy": 83.7}, "is no share"),
            (READING | {"accuracy": 0.9}, "'accuracy' is wrong"),
            (READING | {"recall of cat": 0.0857}, "share of all the images"),
            (READING | {"recall of cat": 0.3}, "'recall of cat' is wrong"),
            (READING | {"precision of cat": 0.6}, "'precision of cat' is wrong"),
            (READING | {"dogs taken for cats": 15}, "cats taken for dogs"),
            (READING | {"dogs taken for cats": 0.18}, "this is a share"),
            (READING | {"dogs taken for cats": 12}, "row of the dogs"),
            (READING | {"accuracy": "most of them"}, "must be one number"),
            (without_dogs, "no entry 'dogs taken for cats'"),
            (list(READING.values()), "must be a dict"),
        ],
    },
    "confusion_shares": {
        "right": [by_sklearn, by_numpy, by_loops, by_tensorflow, by_one_hot],
        "wrong": [
            (counts_only, "numbers of images"),
            (percentages, "percentages"),
            (transposed, "transposed"),
            (labels_and_predicted_exchanged, "transposed, and each row"),
            (columns_normalised, "Each column adds up to 1"),
            (all_normalised, "The whole matrix adds up to 1"),
            (largest_is_one, "divided by the largest"),
            (keepdims_forgotten, "The shares are wrong"),
            (empty_class_is_nan, "gives nan"),
            (only_classes_that_occur, "has the shape (2, 2)"),
            (whole_numbers_stored, "in what dtype"),
            (empty_class_on_the_diagonal, "a row of zeros"),
            (not_returned, "returned nothing"),
        ],
    },
    "paired_test": {
        "right": [matched_by_numpy, matched_by_pandas, matched_by_dicts, by_evaluation],
        "wrong": [
            (compared_by_position, "in another order"),
            (sorted_and_not_matched, "share 30 images"),
            (labels_matched_for_images, "in another order"),
            (unpaired_z_test, "that both models get right"),
            (fisher_on_the_accuracies, "that both models get right"),
            (coin_thrown_for_every_image, "that both models get right"),
            (one_sided, "one-sided"),
            (chi_squared_for_few_images, "exact two-sided"),
            (nothing_discordant_is_nan, "Two equal models give p = nan"),
            (nothing_discordant_is_zero, "Two equal models give p = 0"),
            (doubled_above_one, "at most 1"),
            (counts_exchanged, "are exchanged"),
            (both_right_counted, "both models get right are counted"),
            (every_disagreement_counted, "both are wrong"),
            (silent_where_nothing_is_shared, "should raise ValueError"),
            (a_bare_p_value, "must be a dict"),
        ],
    },
    "calibration_error": {
        "right": [by_digitize, by_bincount, by_histogram, by_pandas, by_tensorflow_segments],
        "wrong": [
            (empty_bins_give_nan, "without images give nan"),
            (bins_count_the_same, "as much as a bin of one"),
            (empty_bins_counted_in_the_mean, "empty ones too"),
            (gaps_cancel_out, "cancel out"),
            (gap_of_single_images, "not of single images"),
            (largest_gap, "largest gap"),
            (confidence_one_in_no_bin, "fall into no bin"),
            (confidence_of_the_true_class, "true class"),
            (middle_of_the_bin, "from its middle"),
            (always_ten_bins, "number of bins used"),
            (squared_gaps, "squared"),
            (in_percent, "share from 0 to 1"),
            (bins_of_equal_numbers, "equal width"),
            (a_gap_a_bin, "must be one number"),
        ],
    },
    "report_over_seeds": {
        "right": [by_max, by_tables, by_hand],
        "wrong": [
            (chosen_on_test, "changes when the test accuracies do"),
            (chosen_by_the_best_seed, "best single seed"),
            (worst_chosen, "worst on validation"),
            (validation_reported, "flatter"),
            (best_seed_reported, "of the best seed"),
            (seed_of_the_best_validation, "should be the mean over seeds"),
            (matched_by_place, "different orders"),
            (divided_by_n, "divides by the number of seeds"),
            (standard_error, "standard error"),
            (variance, "square root"),
            (spread_of_validation, "spread is that of the validation"),
            (only_the_name, "three things"),
        ],
    },
    "comparison_plan": {
        "right": [PLAN, more_seeds, wider],
        "wrong": [
            (_arms(both=BASELINE | {"augmentation": True, "label smoothing": 0.1}), "at once"),
            (_arms(same=dict(BASELINE)), "has the settings of the baseline"),
            (_arms(again=BASELINE | {"augmentation": True}), "Two arms have the same settings"),
            (_plan(arms={name: PLAN["arms"][name] for name in ("augmented", "smoothed")}), "no arm 'baseline'"),
            (_plan(arms={name: PLAN["arms"][name] for name in ("baseline", "augmented")}), "at least two ideas"),
            (_arms(wide=BASELINE | {"width": 64}), "and the budget is"),
            (_plan(seeds=[2026]), "fewer than three seeds"),
            (_plan(seeds=[1, 1, 1]), "stands there twice"),
            (_plan(chosen_on="test"), "chosen on the test images"),
            (_plan(chosen_on="train"), "neither trained on"),
            (_plan(reported_on="validation"), "flatter"),
            (_plan(test="t-test"), "same images"),
            (_plan(correction="none"), "false alarm"),
            (_arms(faster=BASELINE | {"optimizer": "sgd"}), "do not know"),
            ({key: PLAN[key] for key in PLAN if key != "seeds"}, "no entry 'seeds'"),
        ],
    },
}
