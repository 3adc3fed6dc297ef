# %% [markdown]
# # Exercises 2 · A baseline that can be beaten
#
# Six exercises, 20 points, on lesson 2: the sizes of a network, its loss, its usual faults, one image, curves, and a
# fair comparison. Know lessons 1 and 2; no exercise needs the CIFAR-10 images, and none trains for long.
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
from keras import layers

# %% [markdown]
# ## Exercise 1: What comes out of which layer? (2 points)
#
# Predict first, then run. A network begins with
#
# ```
# keras.Input((32, 32, 3))
# layers.Rescaling(1 / 255)
# layers.Conv2D(16, 5, activation="relu")
# layers.MaxPooling2D()
# layers.Conv2D(24, 3, padding="same", activation="relu")
# layers.MaxPooling2D()
# layers.Flatten()
# layers.Dense(10, kernel_initializer="zeros")
# ```
#
# Fill the dict `sizes`, on paper or with arithmetic, without building the network. Shapes are (height, width,
# channels), without the batch.
#
# | Key | What to predict | Value |
# |---|---|---|
# | `"first convolution"` | the shape that comes out of the first convolution | three whole numbers |
# | `"second convolution"` | the shape that comes out of the second one | three whole numbers |
# | `"flattened"` | how many numbers an image has after `Flatten` | a whole number |
# | `"first parameters"` | the parameters of the first convolution | a whole number |
# | `"last parameters"` | the parameters of the dense layer | a whole number |
# | `"loss"` | the cross-entropy before training, to two decimals or more | a number |

# %% nbgrader={"grade": false, "grade_id": "sizes", "locked": false, "schema_version": 3, "solution": true, "task": false}
sizes = {}
### BEGIN SOLUTION
sizes["first convolution"] = (28, 28, 16)
sizes["second convolution"] = (14, 14, 24)
sizes["flattened"] = 7 * 7 * 24
sizes["first parameters"] = 5 * 5 * 3 * 16 + 16
sizes["last parameters"] = 7 * 7 * 24 * 10 + 10
sizes["loss"] = np.log(10)
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "sizes-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_sizes(sizes)
### BEGIN HIDDEN TESTS
assert sum((int(sizes["first parameters"]), 3 * 3 * 16 * 24 + 24, int(sizes["last parameters"]))) == 16_466
### END HIDDEN TESTS

# %% [markdown]
# Now build it and compare. Which layer holds most of the parameters, and does it surprise you?

# %%
net = keras.Sequential([
    keras.Input((32, 32, 3)),
    layers.Rescaling(1 / 255),
    layers.Conv2D(16, 5, activation="relu"),
    layers.MaxPooling2D(),
    layers.Conv2D(24, 3, padding="same", activation="relu"),
    layers.MaxPooling2D(),
    layers.Flatten(),
    layers.Dense(10, kernel_initializer="zeros"),
])
net.summary(line_length=80)

# %% [markdown]
# ## Exercise 2: Cross-entropy by hand (4 points)
#
# Complete `cross_entropy(logits, labels)`. `logits` are floats, (n, k), a row an image; `labels` are whole numbers,
# (n,), from 0 to k - 1. It returns one number: the mean over the images of -log(p), where p is the probability that the
# softmax of an image's logits gives to its label, and log the natural logarithm. It must be right for logits of 1,000
# and -1,000 too. NumPy is enough; use something else if you like.

# %% nbgrader={"grade": false, "grade_id": "cross_entropy", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cross_entropy(logits, labels):
    """The mean cross-entropy of floats (n, k) and labels (n,), in nats."""
    ### BEGIN SOLUTION
    shifted = logits - logits.max(axis=1, keepdims=True)  # the softmax stays the same, and exp stays at or below 1
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_probabilities[np.arange(len(labels)), labels].mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "cross_entropy-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_cross_entropy(cross_entropy)
### BEGIN HIDDEN TESTS
hidden_logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
assert np.isclose(float(cross_entropy(hidden_logits, np.array([1, 0]))), np.log([4, 10]).mean(), atol=1e-5)
assert np.isclose(float(cross_entropy(hidden_logits + 5_000, np.array([0, 2]))), np.log([2, 1.25]).mean(), atol=1e-3)
### END HIDDEN TESTS

# %% [markdown]
# With it you can see what a softmax too many costs. **Predict first**: a net gives the right class a probability of 1.
# How low is the loss that takes these probabilities for logits?

# %%
certain = np.eye(10)[:1]
print(f"probabilities taken for logits: {float(cross_entropy(certain, np.array([0]))):.3f}; "
      f"without opinion: {np.log(10):.3f}")

# %% [markdown]
# ## Exercise 3: A baseline with faults (4 points)
#
# This training runs without an error, and learns worse than it could. Three things do not fit together. Find them by
# reading: what range do the pixels have when the first convolution sees them, what does the last layer give out, and
# what does the loss expect?

# %%
def faulty_training(images, labels):
    images = images / 255
    model = keras.Sequential([
        keras.Input((32, 32, 3)),
        layers.Rescaling(1 / 255),
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(4),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
        layers.Dropout(0.3),
    ])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(images, labels, epochs=5)
    return model


# %% [markdown]
# Write `build()`, which takes nothing and returns a compiled model for this task without the faults. The model takes
# `uint8` images, (b, 32, 32, 3), as they are, scales them once by fixed numbers to a range near zero, and returns ten
# numbers an image, logits or probabilities. Its loss fits these, for labels that are whole numbers from 0 to 9. Dropout
# is allowed where it makes sense. Layers, widths and the way to write the model are yours; keep it small.

# %% nbgrader={"grade": false, "grade_id": "baseline", "locked": false, "schema_version": 3, "solution": true, "task": false}
def build():
    """A compiled Keras model from uint8 images (b, 32, 32, 3) to (b, 10)."""
    ### BEGIN SOLUTION
    model = keras.Sequential([
        keras.Input((32, 32, 3)),
        layers.Rescaling(1 / 255),
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(4),
        layers.Flatten(),
        layers.Dropout(0.3),
        layers.Dense(10),
    ])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "baseline-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_baseline(build)
### BEGIN HIDDEN TESTS
hidden_model = build()
hidden_images = np.random.default_rng(3).integers(0, 256, (16, 32, 32, 3)).astype(np.uint8)
hidden_loss = hidden_model.fit(hidden_images, np.arange(16) % 10, epochs=1, batch_size=16, verbose=0).history["loss"][0]
assert np.isfinite(hidden_loss)
assert np.shape(hidden_model.predict(hidden_images[:3], verbose=0)) == (3, 10)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 4: One image (3 points)
#
# Complete `one_image(model, image)`. `model` is a Keras model that scales its pixels itself and returns logits,
# (b, 10); `image` is `uint8`, (32, 32, 3). It returns a pair: the predicted class, a whole number from 0 to 9, and the
# probability that the model gives to it. Two calls with the same image give the same answer, and logits may be large.

# %% nbgrader={"grade": false, "grade_id": "one_image", "locked": false, "schema_version": 3, "solution": true, "task": false}
def one_image(model, image):
    """The predicted class of a uint8 image (32, 32, 3), and its probability."""
    ### BEGIN SOLUTION
    logits = model.predict(image[np.newaxis], verbose=0)[0]
    powers = np.exp(logits - logits.max())
    return int(logits.argmax()), float(powers.max() / powers.sum())
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "one_image-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_one_image(one_image)
### BEGIN HIDDEN TESTS
hidden_model = keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.GlobalMaxPooling2D(),
                                 layers.Dense(10)])
hidden_kernel = np.zeros((3, 10), np.float32)
hidden_kernel[1, 7] = 2
hidden_model.set_weights([hidden_kernel, np.zeros(10)])
hidden_label, hidden_probability = one_image(hidden_model, np.full((32, 32, 3), 255, np.uint8))
assert int(hidden_label) == 7
assert np.isclose(float(hidden_probability), np.exp(2) / (np.exp(2) + 9), atol=1e-4)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 5: Read four runs (2 + 2 points)
#
# The cell below draws the losses of four runs, whose numbers were written for this exercise: training dashed,
# validation solid, eight epochs each. Fill the dict `curves`: for each letter one of `diagnoses`, each used once, and
# under `"best epoch"` the epoch, counted from 1, whose weights you would keep of the overfitting run.

# %%
diagnoses = ("labels of other images", "learning rate too high", "overfitting", "stopped too early")
losses = {  # training, validation
    "A": ([2.31, 2.30, 2.30, 2.30, 2.31, 2.30, 2.30, 2.31], [2.30, 2.31, 2.30, 2.30, 2.31, 2.30, 2.31, 2.31]),
    "B": ([1.62, 1.21, 0.97, 0.76, 0.57, 0.40, 0.27, 0.18], [1.36, 1.14, 1.03, 0.98, 1.02, 1.13, 1.28, 1.47]),
    "C": ([2.90, 2.05, 2.62, 1.93, 2.48, 1.88, 2.57, 1.96], [2.15, 2.71, 1.98, 2.80, 1.95, 2.66, 2.01, 2.74]),
    "D": ([1.93, 1.68, 1.53, 1.42, 1.33, 1.25, 1.18, 1.12], [1.77, 1.60, 1.48, 1.39, 1.31, 1.25, 1.19, 1.14]),
}
epochs = np.arange(1, 9)
figure, axes = plt.subplots(1, 4, figsize=(11, 3), sharey=True, layout="constrained")
for axis, (letter, (training_loss, validation_loss)) in zip(axes, losses.items(), strict=True):
    axis.plot(epochs, training_loss, "--", label="training")
    axis.plot(epochs, validation_loss, "-", label="validation")
    axis.set(title=f"Run {letter}", xlabel="epoch", xticks=epochs)
axes[0].set_ylabel("loss")
axes[0].legend()
figure.suptitle("Losses of four runs");

# %% nbgrader={"grade": false, "grade_id": "curves", "locked": false, "schema_version": 3, "solution": true, "task": false}
curves = {}
### BEGIN SOLUTION
curves["A"] = "labels of other images"
curves["B"] = "overfitting"
curves["C"] = "learning rate too high"
curves["D"] = "stopped too early"
curves["best epoch"] = 4
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "curves-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_curves(curves)
### BEGIN HIDDEN TESTS
assert curves["best epoch"] == 1 + int(np.argmin([1.36, 1.14, 1.03, 0.98, 1.02, 1.13, 1.28, 1.47]))
assert [curves[letter] for letter in "AD"] == ["labels of other images", "stopped too early"]
### END HIDDEN TESTS

# %% [markdown]
# **In words** (2 points). In the overfitting run validation accuracy still rises a little after validation loss has
# turned up. How can both be true of the same images? Answer below in two or three sentences: say what each of the two
# measures looks at, and what has to happen to some images for them to part.

# %% [markdown] nbgrader={"grade": true, "grade_id": "curves-words", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Accuracy asks only whether the right class has the highest logit; the loss asks how probable the net holds the right
# class to be, and grows without bound as that probability goes to zero. A net that overfits becomes surer of all its
# answers. A few more images cross over to the right side, each a hit more, while on the images that stay wrong the
# probability of the right class falls further, and their losses grow by more than the others save.
# ### END SOLUTION

# %% [markdown]
# ## Exercise 6: A fair comparison of learning rates (3 points)
#
# Which learning rate is best for the baseline? You may show images to networks `budget` times in all: a run costs its
# training images times its epochs. Write `rate_plan(budget)`, for a whole number from 90,000 up, which returns a list
# of dicts, a run each, with exactly these keys:
#
# | Key | Value |
# |---|---|
# | `"rate"` | the learning rate, a number above 0 |
# | `"batch"` | the batch size, a whole number |
# | `"images"` | how many training images, a whole number from 500 to 45,000 |
# | `"epochs"` | a whole number, 1 or more |
# | `"seed"` | a whole number, which sets the weights and draws the images |
# | `"judged_on"` | `"train"`, `"validation"` or `"test"` |
#
# Compare at least three rates, the highest ten times the lowest or more, each with the same three seeds or more. A
# difference must have one possible cause. Keep the budget, and use more than half of it, whatever it is.

# %% nbgrader={"grade": false, "grade_id": "rate_plan", "locked": false, "schema_version": 3, "solution": true, "task": false}
def rate_plan(budget):
    """Runs that compare learning rates and see at most `budget` images, as a list of dicts."""
    ### BEGIN SOLUTION
    rates, seeds = (3e-4, 1e-3, 3e-3), (0, 1, 2)
    share = budget // (len(rates) * len(seeds))
    images = min(45_000, share)
    epochs = share // images
    return [{"rate": rate, "batch": 64, "images": images, "epochs": epochs, "seed": seed, "judged_on": "validation"}
            for rate in rates for seed in seeds]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "rate_plan-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_rate_plan(rate_plan)
### BEGIN HIDDEN TESTS
for hidden_budget in (100_003, 777_777, 1_900_000):
    hidden_plan = rate_plan(hidden_budget)
    assert hidden_budget / 2 < sum(run["images"] * run["epochs"] for run in hidden_plan) <= hidden_budget
    assert {run["judged_on"] for run in hidden_plan} == {"validation"}
    assert len({run["seed"] for run in hidden_plan}) >= 3 <= len({run["rate"] for run in hidden_plan})
### END HIDDEN TESTS

# %%
for budget in (90_000, 5_000_000):
    plan = rate_plan(budget)
    print(f"budget {budget:,}: {len(plan)} runs, {sum(run['images'] * run['epochs'] for run in plan):,} images; "
          f"the first is {plan[0]}")

# %% [markdown]
# ## To discuss (no points)
#
# These are not graded. Bring a sentence or two to the next meeting.
#
# 1. **Preprocessing in the model or in front of it.** Your model goes to somebody who writes an app. What can go wrong
#    with either choice, and who will notice? When would you still put a step in front of the model?
# 2. **The last epoch.** You keep the weights of the epoch with the lowest validation loss. Is that loss still an honest
#    estimate of the loss on new images? What would you report?
# 3. **A silent fault.** Of the three faults of exercise 3, which would you have noticed from the curves alone, and what
#    would you look at first the next time that a net learns badly without an error?
