"""Checks of the exercises of lesson 2: sizes, the loss, a network with faults, one image, curves, and a plan."""

import keras
import numpy as np
from keras import layers

from cifar_helpers.checks.common import NotYet, array, expect, outcome, right

# what the four runs of the exercise show: training loss falls, validation loss falls to its end, the curve is smooth
RUNS = {"A": (False, False, True), "B": (True, False, True), "C": (True, False, False), "D": (True, True, True)}
DIAGNOSES = {"labels of other images": "A", "overfitting": "B", "learning rate too high": "C", "stopped too early": "D"}
BEST_EPOCH = 4
PLAN_SETTINGS = {"rate", "batch", "images", "epochs", "seed", "judged_on"}
PLAN_RATES, PLAN_SPAN, PLAN_SEEDS, PLAN_MOST = 3, 10, 3, 45_000


def check_sizes(sizes: dict) -> None:
    """Exercise 1: a dict of six predictions about the shapes, parameters and loss of an untrained network.

    Shapes are three whole numbers without the batch, the others numbers. Raises NotYet, naming the first entry that
    does not follow.
    """
    expect(isinstance(sizes, dict), f"sizes is {type(sizes).__name__}, and must be a dict.")
    truth = {
        "first convolution": ((28, 28, 16), "without padding a kernel of 5 fits in how many places along 32 pixels? "
                                            "And how many filters are there?"),
        "second convolution": ((14, 14, 24), "pooling comes before it, and padding='same' keeps height and width."),
        "flattened": (7 * 7 * 24, "multiply height, width and channels after the second pooling."),
        "first parameters": (5 * 5 * 3 * 16 + 16, "a filter has a weight for each row, column and input channel, and "
                                                  "one bias."),
        "last parameters": (7 * 7 * 24 * 10 + 10, "a dense layer has a weight for each pair of input and output, and a "
                                                  "bias for each output."),
        "loss": (np.log(10), "equal logits give each of ten classes which probability, and what is its -log?"),
    }
    for key, (value, hint) in truth.items():
        expect(key in sizes, f"sizes lacks {key!r}.")
        found = array(sizes[key], f"sizes[{key!r}]", shape=np.shape(value))
        expect(found.dtype.kind in "iuf", f"sizes[{key!r}] is {sizes[key]!r}, and must be made of numbers.")
        slack = 0.01 if key == "loss" else 0
        if not np.all(np.abs(found - np.asarray(value, float)) <= slack):
            raise NotYet(f"sizes[{key!r}] is not {found.tolist()}. Look again: {hint}")
    expect(set(sizes) == set(truth), f"sizes has entries that nobody asked for: {set(sizes) - set(truth)}.")
    right("shapes, parameters and loss follow from the layers.")


def check_cross_entropy(cross_entropy) -> None:
    """Exercise 2: `cross_entropy(logits, labels)` for floats (n, k) and whole numbers (n,) from 0 to k - 1.

    It returns the mean cross-entropy in nats, a number. Raises NotYet with what the number found would follow from.
    """
    rng = np.random.default_rng(4)
    for count, classes in ((6, 10), (1, 10), (4, 3)):
        logits = (3 * rng.standard_normal((count, classes))).astype(np.float32)
        labels = np.argsort(logits, axis=1)[:, -2]  # never the largest, which some take in place of the label
        labels[-1] = logits[-1].argmin()  # and once a negative one, which has no logarithm
        _expect_loss(cross_entropy, logits, labels)
    _expect_loss(cross_entropy, np.zeros((2, 10), np.float32), np.array([3, 8]))
    large = np.zeros((2, 10), np.float32)
    large[:, 2], large[:, 5] = 1_000, -1_000
    for labels, wanted in (([2, 2], 0), ([2, 0], 500), ([5, 5], 2_000)):
        with np.errstate(all="ignore"):
            found = _number(outcome(cross_entropy, large.copy(), np.array(labels), name="cross_entropy"), "The loss")
        expect(np.isfinite(found), f"With logits of 1,000 and -1,000 the loss is {found}: exp of a large number is no "
                                   "float any more. What may be subtracted from all logits of an image?")
        expect(abs(found - wanted) <= 1e-3 * max(wanted, 1),
               f"With logits of 1,000 and -1,000 the loss is {found:.6g}, and is cut off or rounded somewhere: the log "
               "of a probability that was rounded to 0 knows no more.")
    right("the loss is right for small and for large logits.")


def _number(value, name: str) -> float:
    found = array(value, name, shape=())
    expect(found.dtype.kind in "iuf", f"{name} is {value!r}, and must be a number.")
    return float(found)


def _log_softmax(logits) -> np.ndarray:
    shifted = np.asarray(logits, float) - np.max(logits, axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _entropy(log_probabilities, labels) -> float:
    return float(-np.mean(log_probabilities[np.arange(len(labels)), labels]))


def _expect_loss(cross_entropy, logits: np.ndarray, labels: np.ndarray) -> None:
    given = logits.copy(), labels.copy()
    with np.errstate(all="ignore"):
        found = outcome(cross_entropy, *given, name="cross_entropy")
    expect(np.array_equal(given[0], logits) and np.array_equal(given[1], labels),
           "cross_entropy changed the arrays that it was given: make new ones.")
    found = _number(found, f"The loss of {len(labels)} images")
    expect(np.isfinite(found), f"The loss is {found}: was a logarithm taken of logits, which may be negative? They are "
                               "no probabilities yet.")
    logs = _log_softmax(logits)
    wanted, count = _entropy(logs, labels), len(labels)
    across = np.asarray(logits, float) - np.log(np.exp(np.asarray(logits, float)).sum(axis=0))
    suspects = {
        -wanted: "It has the wrong sign: the log of a probability is negative, a loss is not.",
        wanted * count: "It grows with the number of images: it is a sum, and must be a mean.",
        wanted / logits.shape[1]: "It is a mean over images and classes: divide by the number of images alone.",
        wanted / np.log(2): "It is in bits: the logarithm must be the natural one.",
        wanted / np.log(10): "It is with the logarithm to base 10, and must be with the natural one.",
        _entropy(_log_softmax(np.exp(logs)), labels): "A softmax is taken of what is a softmax already.",
        _entropy(across, labels): "The softmax runs over images: the probabilities of one image must sum to 1.",
        float(-np.mean(logs.max(axis=1))): "It is that of the most probable class: which class do the labels ask for?",
        float(-np.mean(logits[np.arange(count), labels])): "The logits are taken for log-probabilities: their softmax "
                                                           "is missing.",
        float(np.mean(1 - np.exp(logs[np.arange(count), labels]))): "The logarithm of the probability is missing.",
    }
    if not np.isclose(found, wanted, rtol=1e-4, atol=1e-5):
        for value, fault in suspects.items():
            expect(not np.isclose(found, value, rtol=1e-4, atol=1e-5),
                   f"The loss of these logits is {found:.4f}. {fault}")
        raise NotYet(f"The loss of these logits is {found:.4f}, and {wanted:.4f} is right: work one image out by hand, "
                     "from its logits to the probability of its label.")


def check_baseline(build) -> None:
    """Exercise 3: `build()` makes a compiled Keras model from uint8 images (b, 32, 32, 3) to (b, 10).

    Its outputs are logits or probabilities, as its loss takes them. Raises NotYet where scaling, output and loss do not
    fit together, or outputs are dropped out. Weights are drawn for the check and put back.
    """
    model = outcome(build, name="build")
    expect(isinstance(model, keras.Model), f"build returns {type(model).__name__}, and must return a Keras model.")
    rng = np.random.default_rng(6)
    images, labels = rng.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8), np.arange(8)
    call = outcome(lambda: model(images, training=False), name="The model, called on uint8 images (8, 32, 32, 3),")
    array(call, "The output for eight images", shape=(8, 10), kind="f")
    expect(bool(model.compiled), "The model is not compiled: it has no loss and no optimizer.")
    kept = model.get_weights()
    try:
        for variable in model.trainable_variables:
            if len(variable.shape) > 1:
                spread = np.sqrt(2 / np.prod(variable.shape[:-1]))
                variable.assign(spread * rng.standard_normal(variable.shape))
        found = np.asarray(model(images, training=False), np.float64)
        _expect_scaled(found)
        expect(np.array_equal(found, np.asarray(model(images, training=False), np.float64)),
               "The same images get other answers at a second call: something random is at work outside training.")
        trained = np.concatenate([np.asarray(model(images, training=True)) for _ in range(8)])
        _expect_loss_fits(model, found, labels)
    finally:
        model.set_weights(kept)
    values = np.array([len(np.unique(row)) for row in trained])
    expect(not ((values > 1) & (values < 10)).any() or any(len(np.unique(row)) < 10 for row in found),
           "In training several of an image's ten outputs are set to one and the same value, and outside it they are "
           "not: what stands behind the last dense layer?")
    right("the model scales its pixels once, and its output and its loss fit together.")


def _is_probability(found: np.ndarray) -> bool:
    return bool((found >= 0).all() and np.allclose(found.sum(axis=1), 1, atol=1e-3))


def _expect_scaled(found: np.ndarray) -> None:
    expect(bool(np.isfinite(found).all()), "The output is not finite: how large are the pixels that the first layer "
                                           "sees?")
    logits = np.log(np.maximum(found, 1e-38)) if _is_probability(found) else found
    spread = float(np.std(logits - logits.mean(axis=1, keepdims=True)))
    expect(spread < 8, "With weights of ordinary size the outputs lie far apart: the first layer sees pixels up to "
                       "255. Where are they scaled?")
    expect(spread > 0.02, "With weights of ordinary size the outputs hardly differ: the first layer sees pixels far "
                          "too small. How often are they scaled?")
    if not _is_probability(found):
        expect(not ((found >= 0) & (found <= 1)).all(), "All outputs lie from 0 to 1, and do not sum to 1: which "
                                                        "activation fits ten classes that exclude each other?")
        expect(not (found >= 0).all(), "No output is ever negative: logits may be, so what cuts them off?")


def _expect_loss_fits(model, found: np.ndarray, labels: np.ndarray) -> None:
    """Raise NotYet where the model's loss is not the cross-entropy of its outputs, logits or probabilities (n, 10)."""
    # made anew, since Keras remembers the logits behind a softmax and takes them where it can
    output = keras.ops.convert_to_tensor(found.astype(np.float32))
    penalty = sum(float(part) for part in model.losses)
    value = outcome(lambda: float(model.compute_loss(x=None, y=labels, y_pred=output)),
                    name="The loss, called with labels from 0 to 9,") - penalty
    probable = _is_probability(found)
    wanted = _entropy(np.log(np.maximum(found, 1e-38)) if probable else _log_softmax(found), labels)
    if np.isclose(value, wanted, rtol=1e-3, atol=1e-3):
        return
    expect(not probable or not np.isclose(value, _entropy(_log_softmax(found), labels), rtol=1e-3, atol=1e-3),
           "The outputs are probabilities already, and the loss takes them for logits: there is one softmax too many. "
           "(Keras warns of the simplest case and mends it, but not of all cases.)")
    taken = float(keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, output, from_logits=False)))
    expect(probable or not np.isclose(value, taken, rtol=1e-3, atol=1e-3),
           "The outputs are logits, and the loss takes them for probabilities: what must it be told?")
    raise NotYet("The loss is not the cross-entropy of these outputs and labels: which one fits ten classes with "
                 "labels from 0 to 9?")


def check_one_image(one_image) -> None:
    """Exercise 4: `one_image(model, image)` for a model that returns logits (b, 10) and a uint8 image (32, 32, 3).

    It returns the predicted class, a whole number, and its probability. Raises NotYet where either does not follow.
    """
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.AveragePooling2D(8),
                              layers.Flatten(), layers.Dropout(0.5), layers.Dense(10)])
    rng = np.random.default_rng(8)
    image = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    kernel = rng.standard_normal((48, 10))
    logits = (image[::8, ::8].reshape(-1) / 255) @ kernel
    bias = np.zeros(10)
    bias[logits.argmin()] = 0.3  # the class that a black image gets
    for scale in (0.4, 900):
        model.set_weights([scale * kernel, bias])
        wanted = scale * logits + bias
        given = image.copy()
        pairs = [outcome(one_image, model, given, name="one_image") for _ in range(3)]
        expect(np.array_equal(given, image), "one_image changed the image that it was given.")
        expect(all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs),
               "one_image must return two things: a class and its probability.")
        label = array(pairs[0][0], "The class", shape=(), kind="iu")
        values = [_number(pair[1], "The probability") for pair in pairs]
        expect(np.allclose(values, values[0], rtol=1e-5, atol=0, equal_nan=True),
               "The same image gets another answer at each call: is the model in training mode?")
        _expect_class_and_probability(int(label), values[0], wanted)
    right("class and probability follow from the model's logits.")


def _expect_class_and_probability(label: int, value: float, logits: np.ndarray) -> None:
    def probabilities(numbers):
        return np.exp(_log_softmax(np.asarray(numbers)[None]))[0]

    expected = probabilities(logits)
    expect(label != logits.argmin(), "The class is that of an image that is almost black, or has the lowest logit: "
                                     "does the image reach the model as it is, 0 to 255?")
    expect(label == logits.argmax(), f"The class is {label}, which has not the highest logit.")
    expect(np.isfinite(value), f"The probability is {value} where logits are large: what may be subtracted from all of "
                               "them before exp?")
    if np.isclose(value, expected.max(), atol=1e-4):
        return
    expect(not np.isclose(value, logits.max(), rtol=1e-3), "The second value is a logit, and must be a probability.")
    expect(not np.isclose(value, expected.min(), atol=1e-4), "The probability is that of another class.")
    expect(not np.isclose(value, probabilities(expected).max(), atol=1e-4),
           "A softmax is taken twice: the probability is flatter than it should be.")
    expect(not np.isclose(value, 1 / (1 + np.exp(-logits.max())), atol=1e-4),
           "The probability comes from one logit alone (a sigmoid): the other nine classes must count.")
    expect(not np.isclose(value, 1, atol=1e-6), "The probability is exactly 1: over which axis does the softmax run?")
    expect(0 <= value <= 1, f"The probability is {value:.4g}, and must lie from 0 to 1.")
    raise NotYet(f"The probability is {value:.4f}, which is not the softmax of the model's logits: do the ten "
                 "probabilities sum to 1?")


def check_curves(curves: dict) -> None:
    """Exercise 5: a dict from the letters of four runs to what is the matter with each, and `best epoch`, from 1.

    Raises NotYet, naming the first run that does not show what was said, and where to look.
    """
    expect(isinstance(curves, dict), f"curves is {type(curves).__name__}, and must be a dict.")
    for letter, shown in RUNS.items():
        expect(letter in curves, f"curves lacks run {letter!r}.")
        name = curves[letter]
        expect(isinstance(name, str) and name in DIAGNOSES, f"curves[{letter!r}] is {name!r}, and must be one of "
                                                            f"{', '.join(sorted(DIAGNOSES))}.")
        claimed = RUNS[DIAGNOSES[name]]
        where = ("does the training loss fall from first to last epoch", "where is the lowest validation loss",
                 "do the curves jump")
        odd = [place for place, have, want in zip(where, shown, claimed, strict=True) if have != want]
        expect(not odd, f"Run {letter} is not a case of {name!r}: {', and '.join(odd)}?")
    expect("best epoch" in curves, "curves lacks 'best epoch'.")
    best = _number(curves["best epoch"], "curves['best epoch']")
    expect(best != BEST_EPOCH - 1, f"The best epoch is not {best:g}: epochs count from 1, as on the axis.")
    expect(best == BEST_EPOCH, f"The best epoch of the overfitting run is not {best:g}: which curve says how the net "
                               "does on images that it was not fitted to, and where is it lowest?")
    expect(set(curves) == {*RUNS, "best epoch"}, f"curves has entries that nobody asked for: "
                                                 f"{set(curves) - set(RUNS) - {'best epoch'}}.")
    right("every run has its diagnosis.")


def check_rate_plan(rate_plan) -> None:
    """Exercise 6: `rate_plan(budget)` for a budget of images seen; it returns a list of runs.

    A run is a dict with `rate`, `batch`, `images`, `epochs`, `seed` and `judged_on`. Raises NotYet with the rule that
    a plan breaks: one thing changed, enough rates and seeds, validation images, the budget.
    """
    for budget in (90_000, 1_000_000, 2_500_000):
        runs = outcome(rate_plan, budget, name="rate_plan")
        expect(isinstance(runs, list | tuple) and len(runs) > 0, "rate_plan must return a list of runs.")
        _expect_runs(runs)
        others = {tuple(run[key] for key in ("batch", "images", "epochs")) for run in runs}
        expect(len(others) == 1, "Runs differ in more than rate and seed: a difference would have two causes.")
        seeds: dict = {}
        for run in runs:
            seeds.setdefault(float(run["rate"]), []).append(int(run["seed"]))
        expect(len(seeds) >= PLAN_RATES, f"The plan has {len(seeds)} learning rates: at least {PLAN_RATES} show "
                                         "whether the best one has a worse one on either side.")
        expect(max(seeds) >= (1 - 1e-9) * PLAN_SPAN * min(seeds), "The learning rates lie too near to each other: the "
               f"highest must be {PLAN_SPAN} times the lowest or more.")
        expect(all(len(set(numbers)) == len(numbers) for numbers in seeds.values()),
               "A run stands in the plan twice: the same seed gives the same result again.")
        expect(len({tuple(sorted(numbers)) for numbers in seeds.values()}) == 1,
               "Not all learning rates have the same seeds: luck with a seed would pass for a better rate.")
        expect(len(next(iter(seeds.values()))) >= PLAN_SEEDS, "There are too few seeds to see how much chance alone "
                                                              f"changes: at least {PLAN_SEEDS} for each rate.")
        total = sum(int(run["images"]) * int(run["epochs"]) for run in runs)
        expect(total <= budget, f"With a budget of {budget:,} the runs see {total:,} images: count every run, with all "
                                "its epochs.")
        expect(total > budget / 2, f"With a budget of {budget:,} the runs see {total:,} images, not even half of them: "
                                   "does the plan follow from the budget?")
    right("one thing changes, the seeds are the same, validation images judge, and the budget is kept and used.")


def _expect_runs(runs) -> None:
    for number, run in enumerate(runs, 1):
        expect(isinstance(run, dict) and set(run) == PLAN_SETTINGS,
               f"Run {number} must be a dict with exactly {', '.join(sorted(PLAN_SETTINGS))}.")
        expect(run["judged_on"] == "validation", f"Run {number} is judged on {run['judged_on']!r}: which images may "
                                                 "choose a learning rate?")
        for key, least, most in (("batch", 1, PLAN_MOST), ("images", 500, PLAN_MOST), ("epochs", 1, 10_000),
                                 ("seed", 0, 2**32 - 1)):
            value = run[key]
            expect(isinstance(value, int | np.integer) and not isinstance(value, bool),
                   f"Run {number}: {key} is {value!r}, and must be a whole number.")
            expect(least <= value <= most, f"Run {number}: {key} is {value:,}, and must be from {least:,} to {most:,}.")
        rate = run["rate"]
        expect(isinstance(rate, int | float | np.number) and 0 < rate < np.inf,
               f"Run {number}: rate is {rate!r}, and must be a number above 0.")
