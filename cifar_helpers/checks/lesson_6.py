"""Checks of lesson 6: which images a figure is about, how sure it is, and which split may choose."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import binomtest

from cifar_helpers.checks.common import NotYet, array, entries, expect, number, outcome, right

CONFUSION = np.array([[30, 15, 5], [18, 80, 2], [12, 5, 183]])  # rows: true cat, dog, ship
COMPARISON_BUDGET = 2_400  # seconds
SETTINGS = ("augmentation", "label smoothing", "width", "epochs")


def check_confusion_reading(reading) -> None:
    """Four figures read from the confusion matrix of exercise 1, shares to two digits or better; `reading` is a dict.

    Raises NotYet with the figure that was read instead, where it is one of the usual ones.
    """
    keys = ("accuracy", "recall of cat", "precision of cat", "dogs taken for cats")
    given = entries(reading, "reading", keys)
    found = {key: number(given[key], f"reading[{key!r}]") for key in keys}
    shares = CONFUSION / CONFUSION.sum(axis=1, keepdims=True)
    total, right_ones = CONFUSION.sum(), np.trace(CONFUSION)
    recall, precision = CONFUSION[0, 0] / CONFUSION[0].sum(), CONFUSION[0, 0] / CONFUSION[:, 0].sum()

    def near(value, wanted):
        return abs(value - wanted) < 0.0051

    for key in keys[:3]:
        expect(0 <= found[key] <= 1, f"{key!r}: {found[key]:g} is no share, which lies between 0 and 1.")
    expect(not near(found["accuracy"], np.trace(shares) / 3), "'accuracy': this is the mean of the classes' recalls. "
           "Here the classes have different numbers of images.")
    expect(not near(found["accuracy"], 1 - right_ones / total), "'accuracy': this is the share that is wrong.")
    expect(near(found["accuracy"], right_ones / total), "'accuracy' is wrong: where do the images stand that were "
                                                        "recognised, and how many images are there?")
    expect(not (near(found["recall of cat"], precision) and near(found["precision of cat"], recall)),
           "Recall and precision are exchanged: which of them asks what became of the true cats?")
    for key, wanted, hint in (("recall of cat", recall, "of all true cats"),
                              ("precision of cat", precision, "of all that were called cat")):
        expect(not near(found[key], CONFUSION[0, 0] / total), f"{key!r}: this is a share of all the images, and should "
                                                              f"be one {hint}.")
        expect(near(found[key], wanted), f"{key!r} is wrong: it is a share {hint}. Do these stand in a row or in a "
                                         "column?")
    dogs = found["dogs taken for cats"]
    expect(not near(dogs, CONFUSION[0, 1]), "'dogs taken for cats': these are cats taken for dogs. What is a row?")
    expect(not near(dogs, shares[1, 0]), "'dogs taken for cats': this is a share; how many images are it?")
    expect(near(dogs, CONFUSION[1, 0]), "'dogs taken for cats' is wrong: find the row of the dogs and the column of "
                                        "the cats.")
    right("all four figures.")


def check_confusion_shares(confusion_shares) -> None:
    """`confusion_shares(labels, predicted, classes)`: (classes, classes), of each true class (row) the share (column).

    A class without images has a row of zeros. Raises NotYet with the axis or the total that was taken instead.
    """
    labels = np.repeat([0, 1, 2], [8, 4, 20])
    predicted = np.concatenate([np.repeat([0, 1, 2], [4, 3, 1]), np.repeat([0, 1, 2], [2, 1, 1]),
                                np.repeat([0, 1, 2], [6, 4, 10])])

    def shares(labels, predicted, classes):
        found = outcome(confusion_shares, labels, predicted, classes, name="confusion_shares")
        return array(found, "What confusion_shares returns", shape=(classes, classes)).astype(float)

    counts = np.zeros((3, 3))
    np.add.at(counts, (labels, predicted), 1)
    wanted = counts / counts.sum(axis=1, keepdims=True)
    found = shares(labels, predicted, 3)
    for fault, wrong in {
        "These are numbers of images, and should be shares.": counts,
        "These are percentages, and should be shares from 0 to 1.": 100 * wanted,
        "The matrix is transposed: true classes belong in the rows.": wanted.T,
        "Each column adds up to 1: of whom should the shares be, of the true class or of what was predicted?":
            counts / counts.sum(axis=0),
        "The matrix is transposed, and each row adds up to 1 over the images that were called so.":
            counts.T / counts.T.sum(axis=1, keepdims=True),
        "The whole matrix adds up to 1: the shares should be of each true class.": counts / len(labels),
        "Each entry is divided by the largest one: of whom should the shares be?": counts / counts.max(),
    }.items():
        expect(not np.allclose(found, wrong), fault)
    expect(np.allclose(found[0], wanted[0]) or not np.allclose(found, found.round()), "Whole numbers come back where "
           "shares are due: in what dtype is the division stored?")
    expect(np.allclose(found, wanted, atol=1e-5), "The shares are wrong: compare with a matrix of three classes that "
                                                  "you count by hand.")
    order = np.random.default_rng(0).permutation(len(labels))
    expect(np.allclose(shares(labels[order], predicted[order], 3), wanted, atol=1e-5), "The images in another order "
           "give other shares.")
    sparse = shares(np.array([0, 0, 2, 2]), np.array([0, 2, 2, 2]), 4)
    expect(not np.isnan(sparse).any(), "A class without images gives nan: what is its row to hold?")
    expect(np.allclose(sparse[[0, 2]], [[0.5, 0, 0.5, 0], [0, 0, 1, 0]], atol=1e-5), "Where a class has no images, the "
           "other rows are wrong.")
    expect(np.allclose(sparse[[1, 3]], 0), "A class without images should have a row of zeros.")
    right("rows are true classes, and each row with images adds up to 1.")


def check_paired_test(paired_test) -> None:
    """`paired_test(first, second)`: McNemar's exact test on the images that both runs hold.

    Runs are dicts of arrays (n,): "image", "label", "predicted". Returns a dict as `evaluation.mcnemar` does, with
    "images" beside it; raises ValueError where no image is shared. Raises NotYet with the images that are wrongly
    compared, or with what the p-value depends on.
    """
    first, second = _two_runs(both=20, only_first=9, only_second=2, neither=12)

    def test(first, second):
        copies = [{key: values.copy() for key, values in run.items()} for run in (first, second)]
        found = entries(outcome(paired_test, *copies, name="paired_test"), "What paired_test returns", keys)
        return [number(found[key], f"What paired_test returns under {key!r}") for key in keys]

    keys = ("images", "only first right", "only second right", "p")
    images, only_first, only_second, p = test(first, second)
    expect(images == 43, f"Both runs hold the same 43 images, and {images:g} are compared.")
    expect((only_first, only_second) != (2, 9), "'only first right' and 'only second right' are exchanged.")
    expect((only_first, only_second) != (29, 22), "Images that both models get right are counted: which ones say "
                                                  "something about the difference?")
    expect(only_first + only_second != 23, "Images are counted where the models differ and both are wrong.")
    expect((only_first, only_second) == (9, 2), f"9 images are right with the first model only and 2 with the second "
                                                f"only; what comes back is {only_first:g} and {only_second:g}.")
    turned = {key: values[::-1] for key, values in second.items()}
    expect(test(first, turned)[:3] == [43, 9, 2], "The second run holds the same images in another order, and the "
           "counts change: what says which image a prediction belongs to?")
    part, other = ({key: values[chosen] for key, values in run.items()}
                   for run, chosen in ((first, slice(0, 35)), (second, slice(5, 43))))
    fewer = test(part, other)
    expect(fewer[0] == 30, f"The runs share 30 images, and {fewer[0]:g} are compared: an image that one model never "
                           "saw says nothing about both.")
    expect(fewer[1:3] == _counted(part, other), "The runs hold different images, and the counts are not those of the "
                                                "images that both hold.")
    more = test(*_two_runs(both=600, only_first=9, only_second=2, neither=12))[3]
    expect(np.isclose(p, more, rtol=1e-6), "The p-value changes when images are added that both models get right: "
           "which images say something about the difference?")
    exact = binomtest(9, 11).pvalue
    expect(not np.isclose(p, exact / 2, rtol=0.02), "The p-value is one-sided: either model could have been the better "
                                                    "one.")
    expect(np.isclose(p, exact, rtol=1e-4), f"9 against 2 gives p = {p:.3g}, which is not that of the exact two-sided "
           "test: what are the chances of a fair coin?")
    equal = test(first, first)
    expect(not np.isnan(equal[3]), "Two equal models give p = nan: what if no image is right with one model only?")
    expect(np.isclose(equal[3], 1), f"Two equal models give p = {equal[3]:.3g}, and nothing speaks against their being "
                                    "equally good.")
    tied = test(*_two_runs(both=4, only_first=3, only_second=3, neither=1))[3]
    expect(np.isclose(tied, 1), f"3 against 3 gives p = {tied:.3g}: a p-value is at most 1, and nothing here speaks "
                                "against equal models.")
    try:
        paired_test(*({key: values[chosen] for key, values in first.items()} for chosen in (slice(0, 9), slice(9, 18))))
    except ValueError:
        right("the same images, only those that decide, and an exact p-value.")
    except Exception as error:
        raise NotYet(f"Where the runs share no image it stops with {type(error).__name__}, and should raise "
                     "ValueError.") from error
    else:
        raise NotYet("Where the runs share no image it returns something, and should raise ValueError.")


def _two_runs(both: int, only_first: int, only_second: int, neither: int) -> tuple[dict, dict]:
    """Two runs on the same images, in mixed order; where neither is right they are wrong in different ways."""
    n = both + only_first + only_second + neither
    rng = np.random.default_rng(n)
    label, kind = rng.integers(0, 10, n), rng.permutation(np.repeat(range(4), (both, only_first, only_second, neither)))
    image = rng.permutation(10 * n)[:n]
    first = np.where((kind == 0) | (kind == 1), label, (label + 1) % 10)
    second = np.where((kind == 0) | (kind == 2), label, (label + 2) % 10)
    return ({"image": image, "label": label, "predicted": first},
            {"image": image.copy(), "label": label.copy(), "predicted": second})


def _counted(first: dict, second: dict) -> list[int]:
    by_image = dict(zip(second["image"].tolist(), (second["label"] == second["predicted"]).tolist(), strict=True))
    pairs = [(right_first, by_image[image]) for image, right_first in
             zip(first["image"].tolist(), (first["label"] == first["predicted"]).tolist(), strict=True)
             if image in by_image]
    return [pairs.count((True, False)), pairs.count((False, True))]


def check_calibration_error(calibration_error) -> None:
    """`calibration_error(probabilities, labels, bins)`: a float, the expected calibration error in bins of equal width.

    `probabilities` is (n, classes), `labels` (n,). Raises NotYet with the images or bins that are wrongly counted.
    """
    def error(confidences, hits, bins=10):
        """For images that are put into class 1 of 3 with these confidences; a miss has the label 2."""
        confidences = np.asarray(confidences, float)
        probabilities = np.column_stack([(1 - confidences) / 2, confidences, (1 - confidences) / 2])
        labels = np.where(hits, 1, 2)
        found = outcome(calibration_error, probabilities, labels, bins, name="calibration_error")
        return number(found, "What calibration_error returns")

    half = error([0.85, 0.85], [True, False])
    expect(not np.isnan(half), "Bins without images give nan: what do they contribute?")
    expect(not np.isclose(half, 0.5), "One image is right and one is wrong at a confidence of 0.85, and the error is "
           "0.5: the gap is one of a bin's averages, not of single images.")
    expect(not np.isclose(half, 35), "The error is 35 and should be a share from 0 to 1.")
    expect(not np.isclose(half, 0.1125), "The confidence of an image is that of the class it was put into, not of its "
                                        "true class.")
    expect(not np.isclose(half, 0.035), "Each bin counts the same, empty ones too: how many images does a bin stand "
                                        "for?")
    expect(not np.isclose(half, 0.35**2), "The gap between confidence and accuracy is squared.")
    expect(np.isclose(half, 0.35), f"One image is right and one is wrong at a confidence of 0.85, and the error is "
                                   f"{half:.3g}: take the gap between the bin's mean confidence and its accuracy.")
    low = error([0.81, 0.81, 0.81], [False, False, False])
    expect(not np.isclose(low, 0.85), "The confidence of a bin is taken from its middle, and its images have a mean of "
                                      "their own.")
    expect(np.isclose(low, 0.81), f"Three images are wrong at a confidence of 0.81, and the error is {low:.3g}.")
    sure = error([1.0, 1.0], [False, False])
    expect(not np.isclose(sure, 0), "Images with a confidence of exactly 1 fall into no bin.")
    expect(np.isclose(sure, 1), f"Two images are wrong at a confidence of 1, and the error is {sure:.3g}.")
    opposite = error([0.95, 0.55], [False, True])
    expect(not np.isclose(opposite, 0.25), "A bin that is too sure and one that is not sure enough cancel out: take "
                                           "the size of each gap.")
    expect(not np.isclose(opposite, 0.95), "The largest gap comes back, and should be the mean over all images.")
    expect(np.isclose(opposite, 0.7), f"Two bins with gaps of 0.95 and 0.45 and an image each give {opposite:.3g}.")
    weighted = error([0.95, 0.95, 0.95, 0.55], [False, False, False, True])
    expect(not np.isclose(weighted, 0.7), "A bin of three images counts as much as a bin of one.")
    expect(np.isclose(weighted, 0.825), f"Three images with a gap of 0.95 and one of 0.45 give {weighted:.3g}.")
    wide = error([0.95, 0.55], [False, True], bins=1)
    expect(not np.isclose(wide, 0.7), "With one bin the error is that of ten: is the number of bins used?")
    expect(np.isclose(wide, 0.25), f"With one bin for all images the error is {wide:.3g}: do the bins have equal width "
                                   "from 0 to 1?")
    confidences = np.array([0.36, 0.42, 0.47, 0.58, 0.62, 0.73, 0.77, 0.88, 0.91, 0.97])
    several = error(confidences, np.arange(10) % 3 > 0, bins=5)
    expect(np.isclose(several, _gap(confidences, np.arange(10) % 3 > 0, 5)), "With five bins the error is wrong: do "
           "they have equal width from 0 to 1?")
    right("empty bins add nothing, and every image counts once.")


def _gap(confidences: np.ndarray, hits: np.ndarray, bins: int) -> float:
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    return sum(abs((confidences - hits)[place == each].sum()) for each in range(bins)) / len(confidences)


def check_report_over_seeds(report_over_seeds) -> None:
    """`report_over_seeds(validation, test)`: (name, mean, standard deviation) of the chosen model's test accuracies.

    Both arguments map a model's name to its accuracies (seeds,). Raises NotYet with the split or the seed that the
    choice or the figure comes from.
    """
    validation = {"wide": np.array([0.71, 0.75, 0.70]), "deep": np.array([0.74, 0.73, 0.735]),
                  "plain": np.array([0.69, 0.70, 0.68])}
    test = {"deep": np.array([0.70, 0.73, 0.72]), "wide": np.array([0.74, 0.75, 0.73]),
            "plain": np.array([0.70, 0.69, 0.71])}

    def report(validation, test):
        copies = [{name: values.copy() for name, values in split.items()} for split in (validation, test)]
        found = outcome(report_over_seeds, *copies, name="report_over_seeds")
        expect(isinstance(found, (tuple, list)) and len(found) == 3, "report_over_seeds must return three things: "
                                                                     "name, mean, standard deviation.")
        return str(found[0]), number(found[1], "The mean"), number(found[2], "The standard deviation")

    name, mean, spread = report(validation, test)
    expect(name in test, f"{name!r} is none of the models: return the name first.")
    expect(name != "plain", "'plain' is chosen, which is the worst on validation images.")
    if name == "wide":
        swapped = report(validation, test | {"wide": test["plain"], "plain": test["wide"]})[0]
        expect(swapped == "wide", "The choice changes when the test accuracies do: which split may choose?")
        expect(False, "'wide' is chosen, which has the best single seed: what is typical of a model?")
    chosen = test["deep"]
    expect(not np.isclose(mean, validation["deep"].mean()), "The mean is that of the validation images, which chose "
                                                            "the model and so flatter it.")
    expect(not np.isclose(mean, chosen.max()), "The figure is that of the best seed, and should be the mean over "
                                               "seeds.")
    expect(not np.isclose(mean, chosen[0]), "The figure is that of the seed that was best on validation images, and "
                                            "should be the mean over seeds.")
    expect(not np.isclose(mean, test["wide"].mean()), "The mean belongs to another model than the name: the two dicts "
                                                      "have their models in different orders.")
    expect(np.isclose(mean, chosen.mean(), atol=1e-6), f"The mean is {mean:.4f}: take the test accuracies of the "
                                                       "chosen model, all seeds.")
    deviation = chosen.std(ddof=1)
    for fault, wrong in {
        "The spread is that of the validation images.": validation["deep"].std(ddof=1),
        "The standard deviation divides by the number of seeds: with so few, what does a sample's divide by?":
            chosen.std(),
        "This is the standard error of the mean, and should be the spread of single trainings.":
            deviation / np.sqrt(3),
        "This is the variance, and should be its square root.": deviation**2,
        "This is the range, and should be the standard deviation.": np.ptp(chosen),
    }.items():
        expect(not np.isclose(spread, wrong), fault)
    expect(np.isclose(spread, deviation, atol=1e-6), f"The standard deviation is {spread:.4f}: take it over the seeds "
                                                     "of the chosen model, on test images.")
    two = {"b": np.array([0.5, 0.6]), "a": np.array([0.4, 0.5])}
    expect(report(two, {"a": two["a"], "b": two["b"] + 0.1})[0] == "b", "With other names and two seeds another model "
                                                                        "is chosen than the best on validation images.")
    right("validation images choose, and the test images report, over all seeds.")


def comparison_seconds(settings: dict) -> float:
    """What one training of exercise 6 costs, in seconds, with the settings of an arm."""
    return settings["epochs"] * settings["width"] * (1.2 if settings["augmentation"] else 1)


def check_comparison_plan(plan) -> None:
    """The plan of exercise 6: arms of settings, seeds, which split chooses and which reports, test and correction.

    Raises NotYet with the rule that the plan breaks.
    """
    plan = entries(plan, "plan", ("arms", "seeds", "chosen on", "reported on", "test", "correction"))
    expect(isinstance(plan["arms"], Mapping), "'arms' must be a dict: a name for each, and its settings.")
    arms = {name: entries(settings, f"The arm {name!r}", SETTINGS) for name, settings in plan["arms"].items()}
    expect("baseline" in arms, "There is no arm 'baseline': with what are the ideas compared?")
    expect(len(arms) >= 3, "The question has at least two ideas: give each an arm beside the baseline.")
    for name, settings in arms.items():
        odd = sorted(set(settings) - set(SETTINGS))
        expect(not odd, f"The arm {name!r} has the setting {', '.join(map(repr, odd))}, which the trainings "
                        "do not know.")
        for key in ("width", "epochs"):
            expect(number(settings[key], key) > 0, f"The arm {name!r} has {key} {settings[key]!r}.")
        expect(0 <= number(settings["label smoothing"], "label smoothing") < 1, f"The arm {name!r} has a label "
               "smoothing outside 0 to 1.")
        changed = [key for key in SETTINGS if settings[key] != arms["baseline"][key]]
        expect(name == "baseline" or changed, f"The arm {name!r} has the settings of the baseline: what is its idea?")
        expect(len(changed) <= 1, f"The arm {name!r} changes {' and '.join(changed)} at once: what would a difference "
                                  "be due to?")
    ideas = [tuple(sorted((key, str(value)) for key, value in settings.items())) for settings in arms.values()]
    expect(len(set(ideas)) == len(ideas), "Two arms have the same settings.")
    seeds = [int(number(seed, "A seed")) for seed in np.ravel(plan["seeds"])]
    expect(len(set(seeds)) == len(seeds), "A seed stands there twice: repeated, it gives the same training again.")
    expect(len(seeds) >= 3, "There are fewer than three seeds: how far does chance alone move the accuracy?")
    cost = len(seeds) * sum(comparison_seconds(settings) for settings in arms.values())
    expect(cost <= COMPARISON_BUDGET, f"The plan costs {cost:,.0f} s, and the budget is {COMPARISON_BUDGET:,} s: which "
           "arm is the most expensive?")
    splits = {key: str(plan[key]).strip().lower() for key in ("chosen on", "reported on")}
    expect(splits["chosen on"] != "test", "The arm is chosen on the test images: a figure from them is then no longer "
                                          "one for images that nobody has seen.")
    expect(splits["chosen on"] == "validation", "'chosen on': which images are neither trained on nor reported on?")
    expect(splits["reported on"] == "test", "'reported on': the images that chose the arm flatter it. Which ones are "
                                            "left?")
    test, correction = (str(plan[key]).strip().lower() for key in ("test", "correction"))
    expect("mcnemar" in test, f"{plan['test']!r} is not made for two models on the same images: which test of the "
                              "lesson is?")
    expect(any(known in correction for known in ("holm", "bonferroni")), "Several arms are tested against the "
           "baseline: what keeps the chance of any false alarm at 5%?")
    right(f"one change an arm, {len(seeds)} seeds, and {cost:,.0f} of {COMPARISON_BUDGET:,} s.")
