# %% [markdown]
# # Exercises 4 · Take the loop apart
#
# Six exercises, 20 points, on lesson 4: the training step with `tf.GradientTape`, `tf.function`, schedules, the fast
# net and its ablation. The checks work with tiny nets and made-up arrays: no exercise trains for long or needs the
# CIFAR-10 images.
#
# Write your lines where it says `YOUR CODE HERE`, delete the `raise` below it, and leave the other cells as they are.
# The cell below each answer checks it and says what is not right yet; run it as often as you like. When your work is
# graded, that cell gives the points, with further tests that you do not see. One answer is a text, which a person
# reads: double-click where it says `YOUR ANSWER HERE`. To hand in, restart the kernel and run all cells, save, and
# submit this notebook under the name that it has. An exercise that is not done costs its own points only.

# %% tags=["nbval-skip"]
# Finds the course's helpers: installed, else in a folder around this one, else, as on Colab, from the course's release.
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

if not find_spec("cifar_helpers"):
    folders = [Path.cwd(), *Path.cwd().parents]
    sys.path += [str(folder) for folder in folders if (folder / "cifar_helpers/__init__.py").is_file()][:1]
if not find_spec("cifar_helpers"):
    wheel = "https://github.com/your.organisation/cifar-course/releases/download/v1.0.0/cifar_helpers-1.0.0-py3-none-any.whl"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--retries=1", wheel]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode or not find_spec("cifar_helpers"):
        why = done.stderr.strip().split("\n")[-1]
        raise ImportError(f"The course could not be installed: connect to the network, restart, and try again. {why}")

# %%
from cifar_helpers import checks, start_exercises

start_exercises()

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from cifar_helpers.checks.lesson_4 import EPOCHS_TO_SPEND, IDEAS

# %% [markdown]
# ## Exercise 1: Predict, then run (3 points)
#
# 400 training images, batches of 128, the last batch as many as are left, three epochs. `graph_step` is a fresh
# `tf.function` around a training step that begins with a `print`. **Predict**, with pencil and paper, and fill in the
# dict:
# - `"steps"`: how many steps does the optimizer make?
# - `"traces"`: how many times is the line printed?
# - `"arithmetic"`: the pictures come at 24 x 24 pixels instead of 32 x 32. Which share of the multiplications does a
#   3 x 3 convolution with `padding="same"` still make?
# - `"lowest loss"`: the lowest cross-entropy, in nats, that any prediction can reach for ten classes with a label
#   smoothing of 0.1, to two digits after the point.

# %% nbgrader={"grade": false, "grade_id": "costs", "locked": false, "schema_version": 3, "solution": true, "task": false}
predicted = {}
### BEGIN SOLUTION
predicted["steps"] = 3 * 4
predicted["traces"] = 2
predicted["arithmetic"] = (24 / 32) ** 2
predicted["lowest loss"] = -(0.91 * np.log(0.91) + 9 * 0.01 * np.log(0.01))
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "costs-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_costs(predicted)
### BEGIN HIDDEN TESTS
assert predicted["steps"] == 3 * -(-400 // 128) and predicted["traces"] == 2
assert abs(predicted["arithmetic"] - 0.5625) < 0.006 and abs(predicted["lowest loss"] - 0.5003) < 0.007
### END HIDDEN TESTS

# %% [markdown]
# **Now run** it: the next cell counts steps and traces, and finds the lowest loss by trying many predictions.

# %%
traces, steps = [], 0


@tf.function
def graph_step(images):
    traces.append(images.shape)  # Python runs while the graph is traced, and not afterwards
    return tf.reduce_sum(images)


for _ in range(3):
    for images in tf.data.Dataset.range(400).batch(128):
        graph_step(images)
        steps += 1

loss_function = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
tried = [[[share] + [(1 - share) / 9] * 9] for share in np.linspace(0.5, 0.999, 500)]
lowest = min(float(loss_function([[1.0] + [0.0] * 9], prediction)) for prediction in tried)
print(f"{steps} steps, {len(traces)} traces, lowest loss {lowest:.4f}")

# %% [markdown]
# ## Exercise 2: Find the bugs in an epoch (4 points)
#
# The function below is to train for one epoch, then validate, and return a dict of `loss`, `accuracy`, `val_loss` and
# `val_accuracy`: means over the epoch's training batches, as they were met, and means over the validation batches with
# the weights at the end. `model` returns logits, `loss_function` takes labels and logits, `metrics` is a pair, a
# `keras.metrics.Mean` for the loss and a `SparseCategoricalAccuracy`; **they may hold old values** when the function is
# called. Each training batch makes one step. The function runs without an error, and is wrong in more than one way:
# find out, and write `one_epoch` right. Eager or as a graph, with these metrics or without: as you like.

# %%
def one_epoch_with_faults(model, optimizer, loss_function, metrics, train_batches, validation_batches):
    loss_metric, accuracy_metric = metrics
    history = {}
    for prefix, batches in (("", train_batches), ("val_", validation_batches)):
        for images, labels in batches:
            with tf.GradientTape() as tape:
                logits = model(images, training=prefix == "val_")
                loss = loss_function(labels, logits)
            gradients = tape.gradient(loss, model.trainable_variables)
            if prefix == "":
                optimizer.apply(gradients, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            loss_metric.update_state(loss)
            accuracy_metric.update_state(labels, logits)
        history[prefix + "loss"] = float(loss_metric.result())
        history[prefix + "accuracy"] = float(accuracy_metric.result())
    return history


# %% nbgrader={"grade": false, "grade_id": "epoch", "locked": false, "schema_version": 3, "solution": true, "task": false}
def one_epoch(model, optimizer, loss_function, metrics, train_batches, validation_batches):
    """Train for one epoch, validate, and return the four figures, each a number."""
    ### BEGIN SOLUTION
    history = {}
    for prefix, batches in (("", train_batches), ("val_", validation_batches)):
        training = prefix == ""
        for metric in metrics:
            metric.reset_state()
        for images, labels in batches:
            with tf.GradientTape() as tape:
                logits = model(images, training=training)
                loss = loss_function(labels, logits)
            if training:
                gradients = tape.gradient(loss, model.trainable_variables)
                optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            metrics[0].update_state(loss)
            metrics[1].update_state(labels, logits)
        for name, metric in zip(("loss", "accuracy"), metrics, strict=True):
            history[prefix + name] = float(metric.result())
    return history
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "epoch-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_epoch(one_epoch)
### BEGIN HIDDEN TESTS
keras.utils.set_random_seed(1)
net = keras.Sequential([keras.Input((6,)), keras.layers.Dropout(0.9), keras.layers.Dense(3)])
sgd, loss_of = keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
measures = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()
generator = np.random.default_rng(41)
fitting, looking = ([(generator.normal(size=(10, 6)).astype(np.float32), generator.integers(0, 3, 10))
                     for _ in range(count)] for count in (5, 2))
for done in (1, 2):
    figures = one_epoch(net, sgd, loss_of, measures, fitting, looking)
    assert int(sgd.iterations) == 5 * done
    quiet = np.mean([float(loss_of(labels, net(images, training=False))) for images, labels in looking])
    assert np.isclose(figures["val_loss"], quiet, atol=1e-4)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 3: A large batch in small pieces (4 points)
#
# A batch of 1,024 does not fit into memory, four of at most 256 do. Write `accumulated_step(model, optimizer,
# loss_function, batches)`. `batches` is a list of pairs (images, labels); `model` returns logits and sees **one batch
# at a time**, in training mode; `loss_function(labels, logits)` is a mean over the images that it gets. Let the
# optimizer make **one step** along the gradient of the mean loss over **all** images, as if they had been one batch,
# and return that mean loss, a number, as it was before the step. The batches need not be equally large.

# %% nbgrader={"grade": false, "grade_id": "accumulate", "locked": false, "schema_version": 3, "solution": true, "task": false}
def accumulated_step(model, optimizer, loss_function, batches):
    """One step of the optimizer for all batches together; returns the mean loss over all images before it."""
    ### BEGIN SOLUTION
    weights = model.trainable_variables
    count = sum(len(labels) for _, labels in batches)
    mean_gradients, mean_loss = [0.0] * len(weights), 0.0
    for images, labels in batches:
        share = len(labels) / count
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(images, training=True))
        gradients = tape.gradient(loss, weights)
        mean_gradients = [mean + share * gradient for mean, gradient in zip(mean_gradients, gradients, strict=True)]
        mean_loss += share * float(loss)
    optimizer.apply_gradients(zip(mean_gradients, weights, strict=True))
    return mean_loss
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "accumulate-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_accumulate(accumulated_step)
### BEGIN HIDDEN TESTS
generator = np.random.default_rng(42)
pieces = [(generator.normal(size=(size, 5)).astype(np.float32), generator.integers(0, 4, size)) for size in (6, 1, 3)]
whole = [tuple(np.concatenate(part) for part in zip(*pieces, strict=True))]
small, large = (keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, activation="tanh"), keras.layers.Dense(4)])
                for _ in range(2))
large.set_weights(small.get_weights())
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
for net, batches in ((small, pieces), (large, whole)):
    sgd = keras.optimizers.SGD(0.5, momentum=0.9)
    for _ in range(3):
        accumulated_step(net, sgd, loss_of, batches)
    assert int(sgd.iterations) == 3
assert all(np.allclose(*pair, atol=1e-4) for pair in zip(small.get_weights(), large.get_weights(), strict=True))
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 4: A rate that lets the net learn (3 points)
#
# One tutorial divided the learning rate by ten at the end of every epoch; the next cell draws what is left of it.
# Write `schedule(steps, peak)`. It returns something that can be called with the number of steps done, from 0 to
# `steps`, and gives the learning rate, a number: rising from `peak / 10` or less to `peak` over the first fifth of all
# steps, then falling along a cosine or a line, to zero at `steps` and not before. A schedule of Keras will do, and so
# will a function. Mind what the schedule that you take counts as its own steps.

# %%
divided = [0.002 * 0.1 ** (step // 40) for step in range(200)]
plt.figure(figsize=(6, 2.5))
plt.plot(divided)
plt.gca().set(xlabel="step, 40 an epoch", ylabel="learning rate", title="Divided by ten at the end of every epoch")
plt.show()

# %% nbgrader={"grade": false, "grade_id": "rates", "locked": false, "schema_version": 3, "solution": true, "task": false}
def schedule(steps, peak):
    """What gives the learning rate after a number of steps, 0 to `steps`."""
    ### BEGIN SOLUTION
    rise = steps // 5
    return keras.optimizers.schedules.CosineDecay(0.0, steps - rise, warmup_target=peak, warmup_steps=rise)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "rates-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_rates(schedule)
### BEGIN HIDDEN TESTS
rate_at = schedule(1_000, 3.0)
found = [float(rate_at(step)) for step in (0, 100, 200, 600, 900, 1_000)]
assert found[0] <= 0.31 and 1.3 < found[1] < 1.8 and abs(found[2] - 3) < 0.02 and abs(found[3] - 1.5) < 0.1
assert 0.05 < found[4] < 0.5 and abs(found[5]) < 0.01
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 5: Two looks, reported apart (2 points)
#
# Write `report(predict, images, labels)`. `predict` takes images (n, 32, 32, 3) and returns logits (n, 10), `images`
# are `uint8`, `labels` whole numbers (n,). It returns a dict of two top-1 accuracies from 0 to 1: `"accuracy"`, the
# plain one, and `"accuracy with flips"`, where the logits, or the probabilities, of each picture and of its mirror
# image are averaged. Left and right are exchanged, nothing else.

# %% nbgrader={"grade": false, "grade_id": "two_looks", "locked": false, "schema_version": 3, "solution": true, "task": false}
def report(predict, images, labels):
    """The plain top-1 accuracy, and apart from it the one with two looks at each picture."""
    ### BEGIN SOLUTION
    once, mirrored = np.asarray(predict(images)), np.asarray(predict(images[:, :, ::-1]))
    return {"accuracy": np.mean(once.argmax(axis=1) == labels),
            "accuracy with flips": np.mean((once + mirrored).argmax(axis=1) == labels)}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "two_looks-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_two_looks(report)
### BEGIN HIDDEN TESTS
left_bright = np.zeros((4, 32, 32, 3), np.uint8)
left_bright[:, :, :16] = 200


def sees_the_left_half(pictures):
    left = np.asarray(pictures, np.float32)[:, :, :16].mean(axis=(1, 2, 3)) / 1_000
    return np.stack([left, 0.31 - 2 * left, *[0 * left - 0.9] * 8], axis=1)  # alone class 0, with its mirror image 1


figures = report(sees_the_left_half, left_bright, np.array([1, 1, 0, 5]))
assert np.isclose(figures["accuracy"], 1 / 4) and np.isclose(figures["accuracy with flips"], 2 / 4)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 6: Design an ablation (4 points)
#
# What does whitening bring, and what does the start as the identity? You may spend 60 epochs in all. Write `plan`, a
# list of runs (2 points). A run is a dict with the four ideas of `IDEAS` (the next cell shows them, all switched on)
# and with `"seed"`, `"epochs"` and `"measured on"`, one of `"train"`, `"validation"` and `"test"`. An idea is taken
# away by `False`, label smoothing by 0.0. The plan has to answer both questions, in a way that you would believe if
# somebody else had written it: think of what is compared with what, of what chance alone does, and of the budget.
# `IDEAS | {"whitening": False}` is a dict without whitening.

# %%
print(EPOCHS_TO_SPEND, "epochs;", IDEAS)

# %% nbgrader={"grade": false, "grade_id": "ablation", "locked": false, "schema_version": 3, "solution": true, "task": false}
plan = []
### BEGIN SOLUTION
for taken_away in ({}, {"whitening": False}, {"identity start": False}):
    for seed in (1, 2, 3, 4):
        plan.append(IDEAS | taken_away | {"seed": seed, "epochs": 5, "measured on": "validation"})
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ablation-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_ablation(plan)
### BEGIN HIDDEN TESTS
runs = list(plan() if callable(plan) else plan)
assert all(run["measured on"] == "validation" and run["epochs"] == runs[0]["epochs"] for run in runs)
assert sum(run["epochs"] for run in runs) <= 60
seeds = {}
for run in runs:
    seeds.setdefault(tuple(idea for idea in IDEAS if run[idea] != IDEAS[idea]), set()).add(run["seed"])
assert {(), ("whitening",), ("identity start",)} <= set(seeds)
assert all(len(its) >= 3 and its == seeds[()] and len(changed) <= 1 for changed, its in seeds.items())
### END HIDDEN TESTS

# %% [markdown]
# **In your own words (2 points).** Your plan has run. In three or four sentences: how will you decide, for each of the
# two ideas, whether it does anything, and what can this plan not tell you?

# %% [markdown] nbgrader={"grade": true, "grade_id": "ablation-why", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# For each seed I take the validation accuracy with all ideas minus that without the one idea, and look at the mean of
# these differences beside their spread over the seeds: where the differences have both signs, or are no larger than
# the runs of one setting differ among themselves, I say that no effect was seen, and not that there is none. The plan
# does not tell what an idea does in a longer training, on more images or in another net, nor whether two ideas do the
# same work, since no run does without both. The figures are validation accuracies of short trainings and no estimate of
# the test accuracy.
# ### END SOLUTION

# %% [markdown]
# ## To discuss (no points)
#
# 1. When is a loop of one's own worth it, when an own `train_step` inside `fit`, and when neither? Name something that
#    you lose each time.
# 2. Accumulating gradients gives the step of the large batch, and yet a net with batch normalisation comes out
#    different. Why, and what would you do about it?
# 3. A paper reports 94.0% with flips at test time, another 93.8% without. Which net is better, and what do you ask the
#    authors?
