"""Checks of the exercises of lesson 1: bytes, ranges, statistics, batches, choosing, and a plan."""

import copy
from itertools import islice

import numpy as np

from cifar_helpers.checks.common import array, expect, outcome, right

TRAIN_IMAGES, BATCH, BUFFER = 45_000, 128, 10
# smallest value, largest value and how many different values the panels of the exercise show
PANELS = {"A": (0, 1 / 255, 256), "B": (0, 255, 256), "C": (0, 1, 2), "D": (-1.92, 2.13, 256),
          "E": (1, 256, 256), "F": (0, 1, 256)}
NAMES = {"scaled twice": "A", "bytes": "B", "integer division": "C", "standardised": "D", "off by one": "E",
         "scaled once": "F"}
PLAN_SETTINGS = {"features", "images", "C", "seed", "scored_on"}
PLAN_BUDGET, PLAN_FEWEST, PLAN_MOST, PLAN_SEEDS = 6_000, 200, 2_000, 3


def check_predicted(predicted: dict) -> None:
    """Exercise 1: a dict of six predictions about bytes, batches and buffers.

    `megabytes` a number, `batches`, `last batch` and `farthest` whole numbers, `brighter` and `divided` three whole
    numbers each. Raises NotYet, naming the first entry that does not follow.
    """
    expect(isinstance(predicted, dict), f"predicted is {type(predicted).__name__}, and must be a dict.")
    batches = -(-TRAIN_IMAGES // BATCH)
    values = np.array([5, 200, 250], np.uint8)
    truth = {
        "megabytes": (TRAIN_IMAGES * 32 * 32 * 3 / 1e6, "count the images, the values of one image (all three colours) "
                                                        "and the bytes of one uint8; 1 MB is 1,000,000 bytes"),
        "batches": (batches, "every image is in some batch, also those that do not fill one"),
        "last batch": (TRAIN_IMAGES - BATCH * (batches - 1), "count the images that the full batches leave over"),
        "farthest": (BUFFER - 1, "only what is in the buffer can come first; images are counted from 0"),
        "brighter": (values + np.uint8(10), "the sum of two uint8 is a uint8, also where it is too large for one"),
        "divided": (np.array([0, 128, 255], np.uint8) // 255, "// divides whole numbers and drops what is left over"),
    }
    for key, (value, hint) in truth.items():
        expect(key in predicted, f"predicted lacks {key!r}.")
        found = array(predicted[key], f"predicted[{key!r}]", shape=np.shape(value))
        expect(found.dtype.kind in "iuf", f"predicted[{key!r}] is {predicted[key]!r}, and must be made of numbers.")
        slack = 0.005 * value if key == "megabytes" else 0
        expect(bool(np.all(np.abs(found - np.asarray(value, float)) <= slack)),
               f"predicted[{key!r}] is not {np.array(found).tolist()}: {hint}.")
    expect(set(predicted) == set(truth), f"predicted has entries that nobody asked for: {set(predicted) - set(truth)}.")
    right("all six predictions follow from what bytes, batches and buffers are.")


def check_ranges(ranges: dict) -> None:
    """Exercise 2: a dict from the letter of a panel, A to F, to what happened to its pixels.

    Raises NotYet, naming the first panel that is not what was said, and what to look at.
    """
    expect(isinstance(ranges, dict), f"ranges is {type(ranges).__name__}, and must be a dict.")
    for letter, shown in PANELS.items():
        expect(letter in ranges, f"ranges lacks panel {letter!r}.")
        name = ranges[letter]
        expect(isinstance(name, str) and name in NAMES, f"ranges[{letter!r}] is {name!r}, and must be one of "
                                                        f"{', '.join(sorted(NAMES))}.")
        claimed = PANELS[NAMES[name]]
        where = ("its smallest value", "its largest value", "how many different values it has")
        odd = [place for place, have, want in zip(where, shown, claimed, strict=True)
               if not np.isclose(have, want, rtol=1e-3, atol=0)]
        expect(not odd, f"Panel {letter} cannot be {name!r}: look at {' and '.join(odd)}.")
    expect(set(ranges) == set(PANELS), f"ranges has entries beside A to F: {set(ranges) - set(PANELS)}.")
    right("every panel has its cause.")


def check_standardised(standardised) -> None:
    """Exercise 3: `standardised(train, validation)` for uint8 images (n, 32, 32, 3) and (m, 32, 32, 3).

    It returns both as float arrays of their shapes. Raises NotYet with the kind of statistics that it seems to use.
    """
    rng = np.random.default_rng(1)
    train = _coloured(rng, 24, (180, 90, 40), (30, 20, 10))
    validation = _coloured(rng, 9, (90, 140, 60), (15, 25, 20))
    given = train.copy(), validation.copy()
    found = outcome(standardised, *given, name="standardised")
    expect(isinstance(found, tuple | list) and len(found) == 2,
           "standardised must return two arrays, training images first.")
    expect(np.array_equal(given[0], train) and np.array_equal(given[1], validation),
           "standardised changed the images that it was given: make new arrays.")
    first = array(found[0], "The first array", shape=train.shape, kind="f")
    second = array(found[1], "The second array", shape=validation.shape, kind="f")
    expect(bool(np.isfinite(first).all() and np.isfinite(second).all()),
           "There are values that are not finite: by what was divided?")
    mean, deviation = train.mean((0, 1, 2)), train.std((0, 1, 2))
    _explain_statistics(first, train, validation)
    want = (validation - mean) / deviation
    if not np.allclose(second, want, atol=0.02):
        own = (validation - validation.mean((0, 1, 2))) / validation.std((0, 1, 2))
        expect(not np.allclose(second, own, atol=0.05),
               "The validation images were standardised with statistics of their own: which split may statistics come "
               "from?")
        expect(False, "The validation images did not go through the same subtraction and division as the training "
                      "images: use the same numbers for both.")
    right("both splits are standardised, with statistics of the training images alone.")


def _coloured(rng, count: int, means, deviations) -> np.ndarray:
    """Images, uint8 (count, 32, 32, 3), whose channels differ, and whose rows get brighter from top to bottom."""
    slope = np.linspace(-1, 1, 32)[:, None, None] * 15
    values = rng.normal(means, deviations, (count, 32, 32, 3)) + slope + rng.normal(0, 10, (count, 1, 1, 1))
    return np.clip(values, 0, 255).astype(np.uint8)


def _explain_statistics(found: np.ndarray, train: np.ndarray, validation: np.ndarray) -> None:
    """Raise NotYet where the training images, found as float arrays, have not mean 0 and deviation 1 a channel."""
    means, deviations = found.mean((0, 1, 2), dtype=float), found.std((0, 1, 2), dtype=float)
    pixel = (train - train.mean(0)) / np.maximum(train.std(0), 1e-6)
    if np.allclose(found, pixel, atol=0.05):
        expect(False, "Each pixel position has mean 0: the statistics are taken a position, and must be taken a "
                      "channel, over images, rows and columns.")
    image = (train - train.mean((1, 2), keepdims=True)) / train.std((1, 2), keepdims=True)
    if np.allclose(found, image, atol=0.05):
        expect(False, "Each image has mean 0: the statistics are taken an image, and must be taken over all training "
                      "images.")
    if np.allclose(means, 0, atol=0.01) and np.allclose(deviations, 1, atol=0.01):
        return
    if abs(found.mean()) < 0.01 and abs(found.std() - 1) < 0.01:
        expect(False, "All values together have mean 0 and standard deviation 1, but the channels do not: take the "
                      "statistics of each channel by itself.")
    both = np.concatenate([train, validation])
    if np.allclose(found, (train - both.mean((0, 1, 2))) / both.std((0, 1, 2)), atol=0.02):
        expect(False, "The statistics come from training and validation images together: which split may they come "
                      "from?")
    said = ", ".join(f"{mean:.3g} and {deviation:.3g}" for mean, deviation in zip(means, deviations, strict=True))
    if np.allclose(deviations, 1, atol=0.01):
        where = "The means are not 0: what has to be subtracted, and is it subtracted before the division?"
    elif np.allclose(means, 0, atol=0.5):
        where = "The means are about 0, the standard deviations are not 1: by what must be divided?"
    else:
        where = "Neither is right: does a subtraction happen in uint8, which has no values below 0?"
    expect(False, f"Red, green and blue of the training images have mean and standard deviation {said}. {where}")


def check_pipeline(pipeline) -> None:
    """Exercise 4: `pipeline(images, labels, batch_size)` for uint8 (n, 32, 32, 3) and int64 (n,).

    It returns what can be iterated over again and again, each time over batches of (images, labels). Raises NotYet
    where a pass loses, repeats, changes or mismatches images, or does not mix them anew.
    """
    count, size, passes = 70, 16, 6
    images = np.empty((count, 32, 32, 3), np.uint8)
    images[:] = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None]
    labels = np.arange(count, dtype=np.int64) // 7  # sorted by class, so that neighbours are of one class
    given = images.copy(), labels.copy()
    batches = outcome(pipeline, *given, size, name="pipeline")
    expect(np.array_equal(given[0], images) and np.array_equal(given[1], labels),
           "pipeline changed the order of the arrays that it was given: shuffle in the pipeline, not in place.")
    read = [_one_pass(batches, labels, size) for _ in range(passes)]
    expect(np.array_equal(given[0], images) and np.array_equal(given[1], labels),
           "The arrays that pipeline was given have another order after a pass: shuffle in the pipeline, not in place.")
    orders = [np.concatenate(groups) for groups in read]
    expect(not all(np.array_equal(order, np.arange(count)) for order in orders), "Nothing is shuffled.")
    groups = [{frozenset(group.tolist()) for group in groups} for groups in read]
    expect(not all(group == groups[0] for group in groups[1:]) or np.array_equal(orders[0], orders[1]),
           "Every pass has the same images together in a batch, and only the batches change places: what is shuffled, "
           "images or whole batches?")
    sizes = [len(group) for group in read[0]]
    expect(sizes == [size] * (count // size) + [count % size],
           f"Batches hold {sizes} images, and all but the last must hold batch_size, here {size}.")
    expect(not all(np.array_equal(order, orders[0]) for order in orders[1:]),
           "Every pass has the same order: a new pass needs a new one.")
    expect(max(order[:size].max() for order in orders) >= count - count // 4,
           "The first batch never holds one of the last images: how many images does the buffer hold?")
    right("batches hold whole pairs of image and label, and every pass mixes them anew.")


def _one_pass(batches, labels: np.ndarray, size: int) -> list[np.ndarray]:
    """The numbers of the images in each batch of one pass; raises NotYet where batches are not as they must be."""
    count, found = len(labels), []
    expect(hasattr(batches, "__iter__") or hasattr(batches, "__getitem__"),
           f"pipeline returns {type(batches).__name__}, and must return what can be iterated over.")
    for batch in islice(iter(batches), 3 * count):
        expect(isinstance(batch, tuple | list) and len(batch) == 2, "A batch must be a pair: images, labels.")
        pictures = array(batch[0], "The images of a batch")
        expect(pictures.ndim != 3, "A batch holds a single image without a batch axis: the pipeline does not batch.")
        expect(pictures.ndim == 4 and pictures.shape[1:] == (32, 32, 3),
               f"The images of a batch have the shape {pictures.shape}, and must have (b, 32, 32, 3).")
        expect(len(pictures) <= size, f"A batch holds {len(pictures)} images, more than batch_size.")
        answers = array(batch[1], "The labels of a batch", shape=(len(pictures),), kind="iu")
        expect(not 0 < pictures.max() <= 1, "Pixels are scaled in the pipeline: they must arrive as they were, since "
                                            "the model scales them.")
        numbers = np.rint(pictures[:, 0, 0, 0]).astype(int) - 1
        whole = (pictures == pictures[:, :1, :1, :1]).all() and ((numbers >= 0) & (numbers < count)).all()
        expect(bool(whole), "Pixel values within an image have changed: shuffle images, and nothing within them.")
        wrong = int((labels[numbers] != answers).sum())
        expect(wrong == 0, f"{wrong} of the {len(answers)} images of a batch have the label of another image: are "
                           "images and labels shuffled as pairs?")
        found.append(numbers)
    expect(bool(found), "A pass over the pipeline gives no batch, or only the first pass does: a generator can be read "
                        "once only.")
    seen = np.bincount(np.concatenate(found), minlength=count)
    expect(seen.sum() <= count, "A pass gives more images than there are: it repeats, and one pass must be one epoch.")
    expect(seen.sum() == count, f"A pass gives {seen.sum()} of {count} images: what happens to those that do not fill "
                                "a batch?")
    expect(bool((seen == 1).all()), "In one pass some images come twice and others never: are they drawn with "
                                    "replacement?")
    return found


def check_choose_and_report(choose_and_report) -> None:
    """Exercise 5: `choose_and_report(models, validation, test)`, models by name, splits as (images, labels).

    It returns the chosen name and a test accuracy from 0 to 1. Raises NotYet where the test images had a say.
    """
    for order in ((0.6, 0.9), (0.8, 0.7), (0.5, 0.4)), ((0.9, 0.2), (0.3, 0.8), (0.7, 0.6), (0.6, 1.0)):
        models, validation, test, saw_test = _models(order)
        splits = [tuple(part.copy() for part in split) for split in (validation, test)]
        found = outcome(choose_and_report, dict(models), *splits, name="choose_and_report")
        expect(isinstance(found, tuple | list) and len(found) == 2,
               "choose_and_report must return two things: a name and an accuracy.")
        name, accuracy = found
        expect(isinstance(name, str) and name in models, f"The chosen model is given as {name!r}, and must be one of "
                                                         "the names, a key of models.")
        value = array(accuracy, "The accuracy", shape=()).astype(float)
        scores = dict(zip(models, order, strict=True))
        best, by_test = max(scores, key=lambda key: scores[key][0]), max(scores, key=lambda key: scores[key][1])
        expect(name != by_test, "The chosen model is the best on the test images: they must not choose.")
        expect(name == best, "The chosen model is not the one with the highest validation accuracy.")
        expect(0 <= value <= 1, f"The accuracy is {value:.4g}, and must be a share from 0 to 1.")
        expect(not np.isclose(value, scores[best][0]), "The accuracy is that on the validation images, which chose the "
                                                       "model and flatter it.")
        expect(np.isclose(value, scores[best][1]), f"The accuracy is {value:.4g}, which is not the chosen model's "
                                                   "share of right answers on the test images.")
        expect(saw_test == {best}, "Models that were not chosen saw test images as well: only the chosen one may.")
    right("validation images choose, and test images are looked at once, by the chosen model.")


def _models(order):
    """Functions that are right on the given shares of 20 validation and 20 test images, and who saw test images."""
    count, rng, saw_test = 20, np.random.default_rng(len(order)), set()
    labels = [rng.integers(0, 10, count), rng.integers(0, 10, count)]
    images = [np.zeros((count, 32, 32, 3), np.uint8) for _ in labels]
    for part, pictures in enumerate(images):
        pictures[:, 0, 0, 0], pictures[:, 0, 0, 1] = np.arange(count), part

    def model(name, shares):
        ranks = [rng.permutation(count) for _ in shares]

        def predict(pictures):
            pictures = np.asarray(pictures)
            expect(pictures.ndim == 4, "A model takes a batch of images (n, 32, 32, 3).")
            number, part = pictures[:, 0, 0, 0].astype(int), pictures[:, 0, 0, 1].astype(int)
            if part.any():
                saw_test.add(name)
            good = np.array([ranks[p][n] < round(shares[p] * count) for n, p in zip(number, part, strict=True)])
            truth = np.array([labels[p][n] for n, p in zip(number, part, strict=True)])
            return np.where(good, truth, (truth + 3) % 10)

        return predict

    models = {f"model {letter}": model(f"model {letter}", shares)
              for letter, shares in zip("ABCD", order, strict=False)}
    validation, test = zip(images, labels, strict=True)
    return models, validation, test, saw_test


def check_colour_plan(colour_plan: list) -> None:
    """Exercise 6: a list of runs, dicts with `features`, `images`, `C`, `seed` and `scored_on`.

    Raises NotYet with the rule that the plan breaks: one thing changed, the same seeds, validation images, the budget.
    """
    expect(isinstance(colour_plan, list | tuple) and len(colour_plan) > 0,
           "colour_plan must be a list of runs, and has none.")
    runs = copy.deepcopy(list(colour_plan))
    for number, run in enumerate(runs, 1):
        expect(isinstance(run, dict) and set(run) == PLAN_SETTINGS,
               f"Run {number} must be a dict with exactly {', '.join(sorted(PLAN_SETTINGS))}.")
        expect(run["features"] in ("colour", "grey"), f"Run {number} has the features {run['features']!r}, and must "
                                                      "have 'colour' or 'grey'.")
        expect(run["scored_on"] == "validation", f"Run {number} is scored on {run['scored_on']!r}: which images may "
                                                 "answer a question before the end?")
        whole = all(isinstance(run[key], int | np.integer) and not isinstance(run[key], bool)
                    for key in ("images", "seed"))
        expect(whole, f"Run {number}: images and seed must be whole numbers.")
        expect(PLAN_FEWEST <= run["images"] <= PLAN_MOST,
               f"Run {number} has {run['images']:,} images, and must have {PLAN_FEWEST} to {PLAN_MOST:,}.")
        numeric = isinstance(run["C"], int | float | np.number) and run["C"] > 0
        expect(bool(numeric), f"Run {number}: C must be a number above 0.")
    groups = {name: [run for run in runs if run["features"] == name] for name in ("colour", "grey")}
    expect(all(groups.values()), "Only one kind of features is in the plan: with what is it compared?")
    others = {(run["images"], float(run["C"])) for run in runs}
    expect(len(others) == 1, "Runs differ in more than features and seed: a difference would have two causes.")
    seeds = {name: sorted(int(run["seed"]) for run in group) for name, group in groups.items()}
    expect(all(len(set(numbers)) == len(numbers) for numbers in seeds.values()),
           "A run stands in the plan twice: the same seed gives the same result again.")
    expect(seeds["colour"] == seeds["grey"], "The two kinds of features do not have the same seeds: each seed draws "
                                             "its training images, and both must get the same ones.")
    expect(len(seeds["colour"]) >= PLAN_SEEDS, "There are too few seeds to see how much chance alone changes: at least "
                                               f"{PLAN_SEEDS} for each kind.")
    total = sum(int(run["images"]) for run in runs)
    expect(total <= PLAN_BUDGET, f"The runs take {total:,} training images in all, and the budget is {PLAN_BUDGET:,}.")
    right("one thing changes, the seeds are paired, validation images answer, and the budget is kept.")
