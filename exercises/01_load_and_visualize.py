# %% [markdown]
# # Exercises 1 · Look before you train
#
# Six exercises, 20 points, on lesson 1: bytes and pixel values, statistics, the three splits and the `tf.data`
# pipeline. Know lesson 1 and a little NumPy; no exercise needs the CIFAR-10 images.
#
# Write your lines where it says `YOUR CODE HERE`, delete the `raise` below it, and leave the other cells as they are.
# The cell below each answer checks it and says what is not right yet; run it as often as you like. When your work is
# graded, that cell gives the points, with further tests that you do not see. To hand in, restart the kernel and run all
# cells, save, and submit this notebook under the name that it has. An exercise that is not done costs its own points
# only.

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
import matplotlib.pyplot as plt
import numpy as np

# %% [markdown]
# ## Exercise 1: Bytes, batches and a buffer (2 points)
#
# Predict first, then run the cell that follows. Fill the dict `predicted`:
#
# | Key | What to predict | Value |
# |---|---|---|
# | `"megabytes"` | the 45,000 training images as `uint8`, in millions of bytes | a number |
# | `"batches"` | how many batches of 128 they make when none is dropped | a whole number |
# | `"last batch"` | how many images the last batch holds | a whole number |
# | `"farthest"` | the highest number that can come first out of `Dataset.range(45_000).shuffle(10)` | a whole number |
# | `"brighter"` | `np.array([5, 200, 250], np.uint8) + np.uint8(10)` | three whole numbers |
# | `"divided"` | `np.array([0, 128, 255], np.uint8) // 255` | three whole numbers |

# %% nbgrader={"grade": false, "grade_id": "predicted", "locked": false, "schema_version": 3, "solution": true, "task": false}
predicted = {}
### BEGIN SOLUTION
predicted["megabytes"] = 45_000 * 32 * 32 * 3 / 1e6
predicted["batches"] = 352
predicted["last batch"] = 72
predicted["farthest"] = 9
predicted["brighter"] = [15, 210, 4]
predicted["divided"] = [0, 0, 1]
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "predicted-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_predicted(predicted)
### BEGIN HIDDEN TESTS
assert 138 <= float(predicted["megabytes"]) <= 139
assert int(predicted["batches"]) - 1 == (45_000 - int(predicted["last batch"])) / 128
assert list(map(int, predicted["brighter"])) == [15, 210, 4]
### END HIDDEN TESTS

# %% [markdown]
# Now run them. If a prediction was wrong, put it right above, and say to yourself which of your ideas was at fault.

# %%
print("brighter:", np.array([5, 200, 250], np.uint8) + np.uint8(10))
print("divided: ", np.array([0, 128, 255], np.uint8) // 255)
print("bytes of one image:", np.zeros((32, 32, 3), np.uint8).nbytes)

# %% [markdown]
# ## Exercise 2: What happened to the pixels? (3 points)
#
# Six people load the same photographs, and each prepares the pixels in another way. The panels show what came out: the
# smallest value, the quartiles, the largest value, and above each panel how many different values there are. Read the
# axes: every panel has its own. Give each panel its cause in the dict `ranges`, from a letter to one of `causes`, each
# used once. *Standardised* means that a mean was subtracted and the result divided by a standard deviation.

# %%
causes = ("bytes", "integer division", "off by one", "scaled once", "scaled twice", "standardised")
panels = {  # smallest, lower quartile, median, upper quartile, largest; number of different values
    "A": ([0, 0.00095, 0.00181, 0.00271, 0.00392], 256),
    "B": ([0, 62, 118, 176, 255], 256),
    "C": ([0, 0, 0, 0, 1], 2),
    "D": ([-1.92, -0.94, -0.05, 0.87, 2.13], 256),
    "E": ([1, 63, 119, 177, 256], 256),
    "F": ([0, 0.243, 0.463, 0.690, 1], 256),
}
figure, axes = plt.subplots(1, 6, figsize=(11, 3.6), layout="constrained")
for axis, (letter, (values, different)) in zip(axes, panels.items(), strict=True):
    axis.bxp([dict(zip(("whislo", "q1", "med", "q3", "whishi"), values, strict=True))], showfliers=False, widths=0.5)
    axis.set(title=f"{letter}\n{different} different values", xticks=[], yticks=[values[0], values[2], values[4]])
    axis.title.set_fontsize(9)
figure.suptitle("The same photographs, prepared in six ways");

# %% nbgrader={"grade": false, "grade_id": "ranges", "locked": false, "schema_version": 3, "solution": true, "task": false}
ranges = {}
### BEGIN SOLUTION
ranges["A"] = "scaled twice"
ranges["B"] = "bytes"
ranges["C"] = "integer division"
ranges["D"] = "standardised"
ranges["E"] = "off by one"
ranges["F"] = "scaled once"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "ranges-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_ranges(ranges)
### BEGIN HIDDEN TESTS
assert [ranges[letter] for letter in "ACEF"] == ["scaled twice", "integer division", "off by one", "scaled once"]
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 3: Statistics of the training images (4 points)
#
# Complete `standardised(train, validation)`. Both arguments are `uint8` images, (n, 32, 32, 3) and (m, 32, 32, 3), and
# stay as they are. It returns a pair of float arrays of the same shapes, training images first. Each of the three
# channels of the training images then has mean 0 and standard deviation 1, and the validation images have gone through
# exactly the same arithmetic. Which images may have a say in the numbers that you subtract and divide by?

# %% nbgrader={"grade": false, "grade_id": "standardised", "locked": false, "schema_version": 3, "solution": true, "task": false}
def standardised(train, validation):
    """Training and validation images, uint8 (n, 32, 32, 3), as floats with mean 0 and deviation 1 a channel."""
    ### BEGIN SOLUTION
    mean = train.mean(axis=(0, 1, 2))
    deviation = train.std(axis=(0, 1, 2))
    return (train - mean) / deviation, (validation - mean) / deviation
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "standardised-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_standardised(standardised)
### BEGIN HIDDEN TESTS
hidden_rng = np.random.default_rng(31)
hidden_train = hidden_rng.integers((0, 60, 90), (50, 200, 256), (17, 32, 32, 3)).astype(np.uint8)
hidden_validation = hidden_rng.integers(100, 256, (1, 32, 32, 3)).astype(np.uint8)
hidden_mean, hidden_deviation = hidden_train.mean((0, 1, 2)), hidden_train.std((0, 1, 2))
hidden_found = standardised(hidden_train.copy(), hidden_validation.copy())
for hidden_part, hidden_given in zip(hidden_found, (hidden_train, hidden_validation), strict=True):
    np.testing.assert_allclose(hidden_part, (hidden_given - hidden_mean) / hidden_deviation, atol=0.02)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 4: A pipeline with faults (4 points)
#
# Somebody wrote the pipeline below. A network that trains on it stays at the accuracy of a guess. Find what is wrong;
# there is more than one fault.

# %%
import tensorflow as tf


def faulty_pipeline(images, labels, batch_size):
    images = tf.data.Dataset.from_tensor_slices(images).batch(batch_size)
    labels = tf.data.Dataset.from_tensor_slices(labels).batch(batch_size)
    return tf.data.Dataset.zip(images.shuffle(100), labels.shuffle(100))


# %% [markdown]
# Write `pipeline(images, labels, batch_size)` without them. `images` are `uint8`, (n, 32, 32, 3), and `labels` `int64`,
# (n,); both stay as they are. It returns something to iterate over, more than once. Each pass gives pairs of images,
# (b, 32, 32, 3), and labels, (b,), with b = `batch_size` in all batches but the last. In one pass each image comes
# once, with its own label and its own pixel values; each pass mixes all of them anew, also where the arrays are sorted
# by class.

# %% nbgrader={"grade": false, "grade_id": "pipeline", "locked": false, "schema_version": 3, "solution": true, "task": false}
def pipeline(images, labels, batch_size):
    """Batches of (images, labels), in a new order at each pass."""
    ### BEGIN SOLUTION
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    return dataset.shuffle(len(labels)).batch(batch_size).prefetch(tf.data.AUTOTUNE)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "pipeline-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_pipeline(pipeline)
### BEGIN HIDDEN TESTS
hidden_labels = np.arange(33) % 10
hidden_images = np.tile(np.arange(33, dtype=np.uint8)[:, None, None, None], (1, 32, 32, 3))
hidden_batches = [(np.asarray(pictures), np.asarray(answers)) for pictures, answers in
                  pipeline(hidden_images, hidden_labels, 8)]
assert [len(answers) for _, answers in hidden_batches] == [8, 8, 8, 8, 1]
hidden_numbers = np.concatenate([pictures[:, 5, 5, 1] for pictures, _ in hidden_batches]).astype(int)
assert sorted(hidden_numbers) == list(range(33))
assert np.array_equal(np.concatenate([answers for _, answers in hidden_batches]), hidden_numbers % 10)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 5: Who chose this model? (4 points)
#
# The function below is meant to choose the best of several models and to say how good it is on images that nobody has
# used. Its figure is too high, and the models need not even be bad for that.

# %%
def flattering(models, validation, test):
    images, labels = test
    scores = {name: np.mean(model(images) == labels) for name, model in models.items()}
    best = max(scores, key=scores.get)
    return best, scores[best]


# %% [markdown]
# Write `choose_and_report(models, validation, test)` as it should be. `models` is a dict from a name to a function that
# takes `uint8` images, (n, 32, 32, 3), and returns the predicted labels, `int64` (n,). `validation` and `test` are
# pairs (images, labels). It returns a pair: the name of the chosen model and its accuracy on images that had no say, a
# share from 0 to 1. Models that were not chosen see no test image at all.

# %% nbgrader={"grade": false, "grade_id": "choose_and_report", "locked": false, "schema_version": 3, "solution": true, "task": false}
def choose_and_report(models, validation, test):
    """The name of the chosen model, and its accuracy on images that did not choose it."""
    ### BEGIN SOLUTION
    images, labels = validation
    scores = {name: np.mean(model(images) == labels) for name, model in models.items()}
    best = max(scores, key=scores.get)
    unseen, answers = test
    return best, np.mean(models[best](unseen) == answers)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "choose_and_report-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_choose_and_report(choose_and_report)
### BEGIN HIDDEN TESTS
hidden_splits = [(np.full((10, 32, 32, 3), part, np.uint8), np.arange(10)) for part in range(2)]
hidden_hits = {"one": (3, 9), "two": (7, 5), "three": (6, 8)}
hidden_models = {name: lambda images, hits=hits: np.where(np.arange(10) < hits[images[0, 0, 0, 0]], np.arange(10), -1)
                 for name, hits in hidden_hits.items()}
hidden_name, hidden_accuracy = choose_and_report(hidden_models, *hidden_splits)
assert (hidden_name, round(float(hidden_accuracy), 6)) == ("two", 0.5)
### END HIDDEN TESTS

# %% [markdown]
# By how much does the faulty one flatter? Two hundred models that guess, as in the lesson, chosen among twenty times:

# %%
rng = np.random.default_rng(2026)
splits = [(np.zeros((200, 32, 32, 3), np.uint8), rng.integers(0, 10, 200)) for _ in range(2)]
guessers = {f"guesser {number}": lambda images: rng.integers(0, 10, len(images)) for number in range(200)}
for function in (flattering, choose_and_report):
    reported = [function(guessers, *splits)[1] for _ in range(20)]
    print(f"{function.__name__:18} reports {np.mean(reported):.3f} on average")

# %% [markdown]
# ## Exercise 6: Does colour help? (3 points)
#
# You want to know whether logistic regression sees more in colour than in grey. Plan the runs before you make any.
# `colour_plan` is a list of dicts, a run each, with exactly these keys:
#
# | Key | Value |
# |---|---|
# | `"features"` | `"colour"` or `"grey"` |
# | `"images"` | how many training images, 200 to 2,000 |
# | `"C"` | how little the weights are held back, a number above 0; the lesson took 1e-4 |
# | `"seed"` | a whole number that draws the training images |
# | `"scored_on"` | `"train"`, `"validation"` or `"test"` |
#
# All runs together may take 6,000 training images. A difference must have one possible cause, must be measured on
# images that may answer questions now, and must be told apart from chance: by at least three seeds, the same for both.

# %% nbgrader={"grade": false, "grade_id": "colour_plan", "locked": false, "schema_version": 3, "solution": true, "task": false}
colour_plan = []
### BEGIN SOLUTION
for seed in range(5):
    for features in ("colour", "grey"):
        colour_plan.append({"features": features, "images": 600, "C": 1e-4, "seed": seed, "scored_on": "validation"})
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "colour_plan-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_colour_plan(colour_plan)
### BEGIN HIDDEN TESTS
assert sum(run["images"] for run in colour_plan) <= 6_000
assert len({(run["features"], run["seed"]) for run in colour_plan}) == len(colour_plan) >= 6
assert {run["scored_on"] for run in colour_plan} == {"validation"}
### END HIDDEN TESTS

# %% [markdown]
# Carry it out on pictures of drawn shapes, which `standin.generate` makes in a second; every second row and column is
# enough here. They are not CIFAR-10, and whoever wrote the program that draws them decided what colour tells about
# their class, so the answer holds for them alone.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cifar_helpers import standin

train_images, train_labels, validation_images, validation_labels = standin.generate(200, 50)
views = {"colour": lambda images: images[:, ::2, ::2].reshape(len(images), -1),
         "grey": lambda images: images[:, ::2, ::2].mean(axis=3).reshape(len(images), -1)}
accuracies = {"colour": [], "grey": []}
for run in colour_plan:
    chosen = np.random.default_rng(run["seed"]).choice(len(train_labels), run["images"], replace=False)
    view = views[run["features"]]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=run["C"], tol=0.01))
    model.fit(view(train_images[chosen]), train_labels[chosen])
    accuracies[run["features"]].append(model.score(view(validation_images), validation_labels))
for features, scores in accuracies.items():
    print(f"{features:7} mean {np.mean(scores):.3f}, from {min(scores):.3f} to {max(scores):.3f}")

# %% [markdown]
# ## To discuss (no points)
#
# These are not graded. Bring a sentence or two to the next meeting.
#
# 1. **The photographs.** CIFAR-10 comes from a collection that its authors withdrew. What would you want to know about
#    the origin of a data set before you train on it, and what would make you leave it alone?
# 2. **How many validation images?** Every image that chooses is one that does not train. Two models differ by one
#    point of accuracy on 500 validation images. Would you choose by that? What would you do with 5,000?
# 3. **A background as a hint.** In the lesson's mean images, ships and airplanes stand on blue. When is a model that
#    uses the background wrong, although all its answers on the validation split are right?
