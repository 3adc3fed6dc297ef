"""The checks of lesson 4: loops, gradients, rates, and what may be said of the result.

The nets are linear and the optimizers plain gradient descent, so that NumPy can say what the weights must become.
"""

import itertools
from collections.abc import Mapping

import numpy as np

from cifar_helpers.checks.common import NotYet, expect, number_under, outcome, right

# --- exercise 1: predict ---


def check_costs(predicted) -> None:
    """Check exercise 1: a dict of the numbers `steps`, `traces`, `arithmetic` and `lowest loss` (in nats)."""
    steps = number_under(predicted, "steps", "predicted")
    known = {9: "the images that are left over make a batch as well.",
             4: "that is one epoch.", 3: "that is the number of epochs, and each has several batches.",
             1_200: "that counts images, and a step takes a batch.",
             9.375: "a step is whole: what happens to the last, smaller batch?"}
    expect(steps == 12, f"steps is not {steps:g}: " + known.get(steps, "how many batches has an epoch?"))
    traces = number_under(predicted, "traces", "predicted")
    known = {1: "one trace holds for one shape of batch: do all batches have the same?",
             12: "a traced graph is used again: Python does not run at each call."}
    expect(traces == 2, f"traces is not {traces:g}: " + known.get(traces, "how many shapes of batch does the step "
                                                                          "get?"))
    share = number_under(predicted, "arithmetic", "predicted")
    known = {0.75: "a picture has two sides, and both are shorter.", 0.4219: "a picture has two sides, not three."}
    expect(abs(share - 0.5625) < 0.005, f"arithmetic is not {share:g}: " + known.get(
        round(share, 4), "a convolution does the same work at every pixel: compare their numbers."))
    loss = number_under(predicted, "lowest loss", "predicted")
    known = {0.0: "with smoothed labels no prediction reaches that.",
             0.094: "the nine other classes have a share in the loss too.",
             0.105: "0.9 is not the true class's share: smoothing spreads 0.1 over all ten classes.",
             2.303: "that is the loss of a net without an opinion."}
    expect(abs(loss - 0.500) < 0.006, f"lowest loss is not {loss:g}: " + known.get(
        round(loss, 3), "which prediction is best for a label of 0.91 and nine times 0.01, and what does it cost in "
                        "nats?"))
    right("12 steps by 2 traces, and a loss that smoothing keeps above zero.")


# --- exercises 2 and 3: a linear net whose training mode shows ---


def _net():
    """A linear net of 4 inputs and 3 logits which doubles its inputs in training mode, and notes batches and modes."""
    import keras

    class Linear(keras.Model):
        def __init__(self):
            super().__init__()
            self.logits, self.sizes = keras.layers.Dense(3), []

        def call(self, images, training=False):
            self.sizes.append(images.shape[0])
            return self.logits(2 * images if training else images)

    net = Linear()
    net(np.zeros((1, 4), np.float32))  # creates the weights
    net.sizes.clear()
    generator = np.random.default_rng(5)
    net.set_weights([generator.normal(size=(4, 3)).astype(np.float32), np.zeros(3, np.float32)])
    return net


def _batches(sizes, seed):
    generator = np.random.default_rng(seed)
    return [(generator.normal(size=(size, 4)).astype(np.float32), generator.integers(0, 3, size)) for size in sizes]


def _loss_and_gradients(weights, images, labels):
    """Mean cross-entropy, its gradients, and accuracy, of a linear net: in NumPy, and in closed form."""
    logits = images @ weights[0] + weights[1]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    chosen = np.arange(len(labels)), labels
    loss, accuracy = -np.log(shares[chosen]).mean(), (shares.argmax(axis=1) == labels).mean()
    shares[chosen] -= 1
    return loss, [images.T @ shares / len(labels), shares.mean(axis=0)], accuracy


def _descend(weights, batches, times=1, factor=2, rate=0.1):
    """Weights, mean loss and mean accuracy after `times` steps for each batch, its images multiplied by `factor`."""
    weights, losses, accuracies = [weight.astype(np.float64) for weight in weights], [], []
    for images, labels in batches:
        loss, gradients, accuracy = _loss_and_gradients(weights, factor * images, labels)
        for _ in range(times):
            weights = [weight - rate * gradient for weight, gradient in zip(weights, gradients, strict=True)]
        losses.append(loss)
        accuracies.append(accuracy)
    return weights, np.mean(losses), np.mean(accuracies)


def _same(some, others, tolerance=1e-4) -> bool:
    return all(np.allclose(one, other, atol=tolerance) for one, other in zip(some, others, strict=True))


def check_epoch(one_epoch) -> None:
    """Check exercise 2: `one_epoch(model, optimizer, loss_function, metrics, train_batches, validation_batches)`.

    It trains for one epoch, validates, and returns a dict of `loss`, `accuracy`, `val_loss` and `val_accuracy`.
    """
    import keras

    net, train, validation = _net(), _batches([8] * 4, 6), _batches([8] * 3, 7)
    start = net.get_weights()
    optimizer = keras.optimizers.SGD(0.1)
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()
    metrics[0].update_state([50.0] * 9)
    metrics[1].update_state([0] * 40, np.eye(3)[[1] * 40])
    found = outcome(one_epoch, net, optimizer, loss_function, metrics, train, validation, name="one_epoch")
    values = {key: number_under(found, key, "The result of one_epoch")
              for key in ("loss", "accuracy", "val_loss", "val_accuracy")}

    trained, loss, accuracy = _descend(start, train)
    weights = net.get_weights()
    expect(not _same(weights, start), "The weights are as they were before: which object applies the gradients to "
                                      "them?")
    expect(not _same(weights, _descend(start, train, factor=1)[0]),
           "The net was trained in inference mode: dropout and batch normalisation must know that this is training.")
    expect(not _same(weights, _descend(start, train, times=2)[0]),
           "Each batch moved the weights twice as far as its gradient says: how often are the gradients applied?")
    for factor in (1, 2):
        expect(not _same(weights, _descend(trained, validation, factor=factor)[0]),
               "The weights learned from the validation batches: they are there to look at only.")
    expect(not _same(weights, _descend(start, train[:1])[0]), "Only the first batch has moved the weights: what stands "
                                                                 "inside the loop?")
    steps = int(optimizer.iterations)
    expect(steps == len(train), f"The optimizer made {steps} steps, and there are {len(train)} training batches: how "
                                "often, and for which batches, are gradients applied?")
    expect(_same(weights, trained), "The weights after the epoch are not those of one step for each batch: follow "
                                    "gradients, optimizer and loop line by line.")

    expect(values["loss"] < 10, "loss holds what was in the metrics before the epoch: they were not empty when "
                                "one_epoch began.")
    expect(abs(values["loss"] - loss) < 1e-3, f"loss is {values['loss']:.3f}, and the mean of the batches' losses is "
                                              f"{loss:.3f}: are only training batches in it, and all of them?")
    expect(values["accuracy"] <= 1, "accuracy is above 1: give a share, not per cent.")
    expect(abs(values["accuracy"] - accuracy) < 1e-3,
           f"accuracy is {values['accuracy']:.3f}, and the training batches give {accuracy:.3f}: was its metric "
           "emptied before the epoch, and read before validation?")

    images, labels = (np.concatenate(part) for part in zip(*validation, strict=True))
    val_loss, _, val_accuracy = _loss_and_gradients(trained, images, labels)
    loud_loss, _, _ = _loss_and_gradients(trained, 2 * images, labels)
    expect(abs(values["val_loss"] - loud_loss) > 1e-3, "The net validates in training mode: dropout would be on, and "
                                                       "batch normalisation would use the batch's own statistics.")
    expect(abs(values["val_loss"] - _loss_and_gradients(start, images, labels)[0]) > 1e-3,
           "Validation ran before training: it must see the weights at the end of the epoch.")
    mixed = [(4 * values["loss"] + 3 * one) / 7 for one in (val_loss, loud_loss)]
    expect(all(abs(values["val_loss"] - one) > 1e-3 for one in mixed),
           "val_loss is an average over training and validation batches: what must happen to the metrics in between?")
    expect(abs(values["val_loss"] - val_loss) < 1e-3,
           f"val_loss is {values['val_loss']:.3f}, and the validation batches give {val_loss:.3f}.")
    expect(abs(values["val_accuracy"] - (4 * values["accuracy"] + 3 * val_accuracy) / 7) > 1e-3
           or abs(accuracy - val_accuracy) < 1e-3,
           "val_accuracy is an average over training and validation batches: what must happen to the metrics in "
           "between?")
    expect(abs(values["val_accuracy"] - val_accuracy) < 1e-3,
           f"val_accuracy is {values['val_accuracy']:.3f}, and the validation batches give {val_accuracy:.3f}.")
    right("one step a batch, training mode in training alone, and figures of each part by itself.")


def check_accumulate(accumulated_step) -> None:
    """Check exercise 3: `accumulated_step(model, optimizer, loss_function, batches)`, one step for several batches."""
    import keras

    net, sizes = _net(), [8, 8, 8, 2]
    batches, start = _batches(sizes, 8), net.get_weights()
    optimizer = keras.optimizers.SGD(0.1)
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = outcome(accumulated_step, net, optimizer, loss_function, batches, name="accumulated_step")
    loss = number_under({"loss": loss}, "loss", "The result of accumulated_step as")

    weights, largest = net.get_weights(), max(size or 0 for size in net.sizes)
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    whole = [(images, labels)]
    each = [_loss_and_gradients(start, 2 * part, truth)[:2] for part, truth in batches]

    def after(shares):
        mean = [sum(share * gradients[i] for share, (_, gradients) in zip(shares, each, strict=True)) for i in range(2)]
        return [weight - 0.1 * gradient for weight, gradient in zip(start, mean, strict=True)]

    expect(largest <= 8, f"The model saw {largest} images at once: the point is that no more than one batch fits into "
                         "memory.")
    expect(not _same(weights, start), "The weights are as they were before: which object applies the gradients to "
                                      "them?")
    expect(not _same(weights, _descend(start, batches)[0]),
           "Each batch made a step of its own: accumulate first, then apply once.")
    expect(not _same(weights, _descend(start, whole, factor=1)[0]),
           "The gradients are those of inference mode: dropout and batch normalisation must know that this is "
           "training.")
    expect(not _same(weights, after([1] * 4)), "The gradients of the batches were added up: four batches then make a "
                                               "step four times as long, and the learning rate means something else.")
    expect(not _same(weights, after([1 / 4] * 4)), "Each batch counts as much as any other, and the last has fewer "
                                                   "images: the mean is over images.")
    for share in (1, 1 / 4, 2 / 26):
        expect(not _same(weights, after([0, 0, 0, share])), "The gradients of the last batch alone were applied: where "
                                                            "do those of the others go?")
    expect(not _same(weights, after([1 / 26] * 4)), "The gradient of each batch is a mean already, and it was divided "
                                                    "by the number of all images.")
    expect(not _same(weights, after(sizes)), "The gradients were weighted by the batches' sizes, and their sum was "
                                             "never divided.")
    expect(not _same(weights, after([2 * size / 26 for size in sizes])), "The gradients were applied twice.")
    trained, mean_loss, _ = _descend(start, whole)
    expect(_same(weights, trained), "The weights are not those of one step along the mean gradient over all images.")
    steps = int(optimizer.iterations)
    expect(steps == 1, f"The optimizer counts {steps} steps, and must count one: its schedule and momentum go by "
                       "steps.")
    expect(not np.isclose(loss, np.mean([one for one, _ in each]), atol=1e-4),
           "The loss weighs each batch like any other, and the last has fewer images: the mean is over images.")
    expect(np.isclose(loss, mean_loss, atol=1e-4), f"The loss is {loss:.3f}, and its mean over all images before the "
                                                   f"step is {mean_loss:.3f}.")
    right("several batches, one step, and the gradient that the large batch would have.")


# --- exercise 4: a learning-rate schedule ---


def check_rates(schedule) -> None:
    """Check exercise 4: `schedule(steps, peak)` returns what gives the learning rate at each step."""
    for steps, peak in ((50, 0.5), (200, 0.002)):
        rate_at = outcome(schedule, steps, peak, name="schedule")
        expect(callable(rate_at), "schedule must return something that is called with a step: a schedule of Keras, or "
                                  "a function.")
        asked = np.arange(0, steps + 1, steps // 50)
        rates = np.array([number_under({step: outcome(rate_at, int(step), name="The schedule")}, step, "The schedule")
                          for step in asked])
        top, where = rates.max() / peak, asked[rates.argmax()]
        rising, falling = rates[:rates.argmax() + 1], rates[rates.argmax():]
        expect((rates >= -1e-6 * peak).all(), f"The rate is below zero at step {asked[rates.argmin()]}.")
        expect(np.ptp(rates) > 0, "The rate is the same at each step.")
        expect(-np.diff(rates).min() < 0.5 * rates.max(),
               "The rate drops to a fraction of itself from one step to the next: after a few such drops nothing is "
               "learned any more.")
        expect(rates[0] < peak / 2, "The rate does not begin low: there is no rise.")
        expect(abs(where - steps / 5) <= steps / 50, f"Of {steps} steps the rate is highest at step {where}, and must "
                                                     "be after a fifth of them.")
        expect(0.97 < top < 1.001, f"The highest rate is {top:.2f} of the peak that was asked for.")
        expect((np.diff(rising) > 0).all(), "The rate does not rise at each step of the first fifth.")
        expect(rates[-1] < 0.01 * peak, f"After the last step the rate is still {rates[-1] / peak:.2f} of the peak: "
                                        "from which step does the fall count its own?")
        expect(rates[-2] > 1e-7 * peak, "The rate is at zero before training ends: from which step does the fall count "
                                        "its own?")
        expect((np.diff(falling) < 0).all(), "The rate does not fall at each step after its peak: steps count, not "
                                             "epochs.")
        expect(abs(falling[len(falling) // 2] / peak - 0.5) < 0.06,
               "Half way down the rate is not near half the peak: with a line and with a cosine it is.")
    right("the rate rises for a fifth of the steps and reaches zero with the last.")


# --- exercise 5: report flips apart ---


def check_two_looks(report) -> None:
    """Check exercise 5: `report(predict, images, labels)` gives the plain accuracy and, apart, that with flips.

    `predict` is a fixed random linear map to logits, so that mirroring a picture changes them.
    """
    generator = np.random.default_rng(35)  # with it every mistake named below gives an accuracy of its own
    images = generator.integers(0, 256, (400, 32, 32, 3), dtype=np.uint8)
    weights = generator.normal(size=(3072, 10)).astype(np.float32) / 3_000

    def logits_of(pictures):
        pictures = np.asarray(pictures, np.float32)
        expect(pictures.ndim == 4 and pictures.shape[1:] == (32, 32, 3),
               f"predict was called with the shape {pictures.shape}, and takes images (n, 32, 32, 3).")
        return pictures.reshape(len(pictures), -1) @ weights

    plain, mirrored = logits_of(images), logits_of(images[:, :, ::-1])
    labels = (plain + 0.7 * mirrored + generator.normal(size=plain.shape)).argmax(axis=1)
    given = images.copy()
    found = outcome(report, logits_of, given, labels.copy(), name="report")
    expect(np.array_equal(given, images), "report changed the images that it was given.")
    values = {key: number_under(found, key, "The report") for key in ("accuracy", "accuracy with flips")}
    expect(all(value <= 1 for value in values.values()), "An accuracy is above 1: give a share, not per cent.")

    def accuracy(logits):
        return (logits.argmax(axis=1) == labels).mean()

    def shares(logits):
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    right_once, right_mirrored = plain.argmax(axis=1) == labels, mirrored.argmax(axis=1) == labels
    both = [accuracy(plain + mirrored), accuracy(shares(plain) + shares(mirrored))]

    def near(value, *others):
        return any(np.isclose(value, other, atol=1e-6) for other in others)

    one, two = values["accuracy"], values["accuracy with flips"]
    expect(not near(one, *both), "accuracy is the figure with flips: a plain accuracy looks at each picture once, as "
                                 "it is.")
    expect(not near(one, (right_once | right_mirrored).mean()) and not near(two, (right_once | right_mirrored).mean()),
           "A picture counts as right if either look is: that uses the label to choose between them.")
    expect(near(one, accuracy(plain)), f"accuracy is {one:.3f}, and the plain one of these images is "
                                       f"{accuracy(plain):.3f}.")
    expect(not near(two, accuracy(mirrored)), "accuracy with flips knows the mirrored pictures alone: add both looks.")
    expect(not near(two, (right_once.mean() + right_mirrored.mean()) / 2),
           "accuracy with flips averages two accuracies; average what the net says of a picture, then decide once.")
    for pictures, what in ((images[:, ::-1], "turns the pictures upside down: which axis is left and right?"),
                           (images[..., ::-1], "exchanges red and blue: which axis is left and right?"),
                           (images[::-1], "reverses the order of the pictures: which axis is left and right?")):
        other = logits_of(pictures)
        expect(not near(two, accuracy(plain + other), accuracy(shares(plain) + shares(other))),
               f"accuracy with flips {what}")
    expect(not near(two, one), "accuracy with flips is the plain accuracy: where does the second look come in?")
    expect(near(two, *both), f"accuracy with flips is {two:.3f}, and the two looks together give {both[0]:.3f}: is it "
                             "the mean of the logits, or of the probabilities, of both?")
    right("the plain figure stands first, and the one with flips apart.")


# --- exercise 6: design an ablation ---

IDEAS = {"whitening": True, "identity start": True, "small pictures first": True, "label smoothing": 0.2}
EPOCHS_TO_SPEND = 60


def check_ablation(plan) -> None:
    """Check exercise 6: a list of runs, each a dict of IDEAS' keys and of `seed`, `epochs` and `measured on`.

    The plan asks what whitening and the identity start each bring, and may ask for more, within EPOCHS_TO_SPEND.
    """
    plan = outcome(plan, name="plan") if callable(plan) else plan
    expect(not isinstance(plan, Mapping | str), "plan must be a list of runs, each a dict.")
    try:
        runs = list(plan)
    except TypeError:
        raise NotYet(f"plan is {type(plan).__name__}, and must be a list of runs, each a dict.") from None
    expect(len(runs), "plan holds no run.")
    keys = {*IDEAS, "seed", "epochs", "measured on"}
    for i, run in enumerate(runs):
        expect(isinstance(run, Mapping), f"Run {i} is {type(run).__name__}, and must be a dict.")
        odd = sorted(map(str, keys ^ set(run)))
        expect(not odd, f"Run {i} lacks a setting, or has one that the exercise does not name: {', '.join(odd)}.")
        number_under(run, "seed", f"Run {i}")
        epochs = number_under(run, "epochs", f"Run {i}")
        expect(epochs >= 1 and epochs % 1 == 0, f"Run {i} trains for {epochs:g} epochs.")
    where = {run["measured on"] for run in runs}
    expect("test" not in where, "A run is measured on the test set: what is it for, and when is it opened?")
    expect("train" not in where, "A run is measured on the images that it was trained on: what does that show?")
    expect(where == {"validation"}, "measured on must name one of the three splits: train, validation, test.")
    spent = sum(run["epochs"] for run in runs)
    expect(spent <= EPOCHS_TO_SPEND, f"The runs take {spent:g} epochs together, and there are {EPOCHS_TO_SPEND} to "
                                     "spend.")
    expect(len({run["epochs"] for run in runs}) == 1, "Some runs train longer than others: then the epochs differ too, "
                                                      "and not the idea alone.")
    seeds = {}
    for run in runs:
        changed = frozenset(idea for idea, value in IDEAS.items() if run[idea] != value)
        expect(len(changed) < 2, f"A run differs from the full net in {' and '.join(sorted(changed))} at once: which "
                                 "of them would have made the difference?")
        seeds.setdefault(changed, []).append(run["seed"])
    expect(frozenset() in seeds, "No run has all ideas in it: with what will the others be compared?")
    for idea in ("whitening", "identity start"):
        expect(frozenset([idea]) in seeds, f"No run does without {idea} alone, and the question asks what it brings.")
    for changed, its in seeds.items():
        name = f"without {next(iter(changed))}" if changed else "with all ideas"
        expect(len(set(its)) == len(its), f"Of the runs {name} two have the same seed: a repeated run shows nothing "
                                          "new.")
        expect(len(its) >= 3, f"There are {len(its)} runs {name}: from so few seeds nobody can tell what a seed alone "
                              "changes. Take at least three.")
    for one, other in itertools.combinations(seeds.values(), 2):
        expect(set(one) == set(other), "The settings have different seeds: pairs of equal seed compare more sharply, "
                                       "and nobody can have chosen the lucky ones.")
    right(f"one thing at a time, the same seeds, validation images, {spent:g} of {EPOCHS_TO_SPEND} epochs.")
