# %% [markdown]
# # Exercises 6 · Compare models fairly
#
# Six exercises, 20 points, on lesson 6: confusion matrix, precision and recall, McNemar's test, calibration, and what
# the test set is for. Nothing here is trained, and all numbers are made up for the exercise.
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

# %% nbgrader={"grade": false, "grade_id": "start-06", "locked": true, "schema_version": 3, "solution": false, "task": false}
from cifar_helpers import checks, start_exercises

start_exercises()

# %% nbgrader={"grade": false, "grade_id": "comparison-imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import binomtest, norm

# %% [markdown]
# ## Exercise 1: Read a confusion matrix (2 points)
#
# A model sorted 350 pictures. Each row is a true class, each column what it was called. Read or work out four numbers,
# shares to two digits at least:
# - `"accuracy"`: top-1 accuracy, from 0 to 1;
# - `"recall of cat"` and `"precision of cat"`, from 0 to 1;
# - `"dogs taken for cats"`: the number of pictures.

# %% nbgrader={"grade": false, "grade_id": "comparison-matrix", "locked": true, "schema_version": 3, "solution": false, "task": false}
names = ["cat", "dog", "ship"]
matrix = np.array([[30, 15, 5], [18, 80, 2], [12, 5, 183]])
figure, axis = plt.subplots(figsize=(3.6, 3.2), layout="constrained")
axis.imshow(matrix, cmap="Blues")
for row in range(3):
    for column in range(3):
        axis.text(column, row, matrix[row, column], ha="center", color="white" if matrix[row, column] > 90 else "black")
axis.set(xticks=range(3), xticklabels=names, yticks=range(3), yticklabels=names, xlabel="predicted class",
         ylabel="true class", title="350 pictures")
plt.show()

# %% nbgrader={"grade": false, "grade_id": "confusion-reading", "locked": false, "schema_version": 3, "solution": true, "task": false}
reading = {}
### BEGIN SOLUTION
reading["accuracy"] = (30 + 80 + 183) / 350
reading["recall of cat"] = 30 / (30 + 15 + 5)
reading["precision of cat"] = 30 / (30 + 18 + 12)
reading["dogs taken for cats"] = 18
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "confusion-reading-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_confusion_reading(reading)
### BEGIN HIDDEN TESTS
assert abs(float(reading["accuracy"]) - np.trace(matrix) / matrix.sum()) < 0.0051
assert abs(float(reading["recall of cat"]) - matrix[0, 0] / matrix[0].sum()) < 0.0051
assert abs(float(reading["precision of cat"]) - matrix[0, 0] / matrix[:, 0].sum()) < 0.0051
assert int(reading["dogs taken for cats"]) == matrix[1, 0]
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 2: Shares of each true class (3 points)
#
# Complete `confusion_shares(labels, predicted, classes)`.
# - It gets the true labels and the predicted classes, both int arrays of shape (n,), from 0 to `classes - 1`.
# - It returns an array of shape (classes, classes), floats: in row i and column j the share of the images of true class
#   i that were taken for j.
# - The row of a class without images holds zeros.

# %% nbgrader={"grade": false, "grade_id": "confusion-shares", "locked": false, "schema_version": 3, "solution": true, "task": false}
def confusion_shares(labels, predicted, classes):
    ### BEGIN SOLUTION
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, predicted), 1)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "confusion-shares-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_confusion_shares(confusion_shares)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(62)
some_labels, some_predicted = rng.integers(0, 4, 200), rng.integers(0, 6, 200)
found = np.asarray(confusion_shares(some_labels, some_predicted, 6), float)
assert found.shape == (6, 6)
for row in range(6):
    for column in range(6):
        of_row = some_predicted[some_labels == row]
        assert abs(found[row, column] - (np.mean(of_row == column) if len(of_row) else 0)) < 1e-5
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 3: Find the bugs in a test of two models (4 points)
#
# A colleague asks whether one model is better than another. Two faults are in the code below: one lies in *which*
# images are compared, one in the *test*. Runs are dicts of arrays of shape (n,): `"image"` is the number of an image in
# the test set, each at most once, in any order; `"label"` is its true class, `"predicted"` what the model said, both
# from 0 to 9. Two runs need not hold the same images.

# %% nbgrader={"grade": false, "grade_id": "colleague-paired-test", "locked": true, "schema_version": 3, "solution": false, "task": false}
def colleague_test(first, second):
    right_first = first["predicted"] == first["label"]
    right_second = second["predicted"] == second["label"]
    n = min(len(right_first), len(right_second))
    a, b = right_first[:n], right_second[:n]
    pooled = (a.mean() + b.mean()) / 2
    z = (a.mean() - b.mean()) / np.sqrt(2 * pooled * (1 - pooled) / n)
    return {"images": n, "only first right": int((a & ~b).sum()), "only second right": int((b & ~a).sum()),
            "p": 2 * norm.sf(abs(z))}

# %% [markdown]
# Write `paired_test(first, second)` without them.
# - It compares the models on the images that both runs hold, and raises `ValueError` where there are none.
# - It returns a dict with the same keys: the number of images compared, how many of them only the first and only the
#   second model got right, and the two-sided p-value of McNemar's *exact* test. Where no image was right with one model
#   only, the p-value is 1.
#
# `binomtest(k, n).pvalue` from SciPy is the exact two-sided p-value of k heads in n throws of a fair coin, for n > 0.

# %% nbgrader={"grade": false, "grade_id": "paired-test", "locked": false, "schema_version": 3, "solution": true, "task": false}
def paired_test(first, second):
    ### BEGIN SOLUTION
    shared, in_first, in_second = np.intersect1d(first["image"], second["image"], return_indices=True)
    if len(shared) == 0:
        raise ValueError("The runs share no image: there is nothing to compare.")
    a = (first["predicted"] == first["label"])[in_first]
    b = (second["predicted"] == second["label"])[in_second]
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    decisive = only_first + only_second
    p = binomtest(only_first, decisive).pvalue if decisive else 1.0
    return {"images": len(shared), "only first right": only_first, "only second right": only_second, "p": p}
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "paired-test-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_paired_test(paired_test)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(63)
true_labels = rng.integers(0, 10, 500)
runs = []
for share in (0.8, 0.7):
    images = rng.permutation(500)[:400]
    hit = rng.random(400) < share
    runs.append({"image": images, "label": true_labels[images],
                 "predicted": np.where(hit, true_labels[images], (true_labels[images] + 1) % 10)})
hits = [dict(zip(run["image"].tolist(), (run["label"] == run["predicted"]).tolist(), strict=True)) for run in runs]
shared_images = [image for image in hits[0] if image in hits[1]]
pairs = [(hits[0][image], hits[1][image]) for image in shared_images]
one, other = pairs.count((True, False)), pairs.count((False, True))
found = paired_test(*runs)
assert found["images"] == len(shared_images)
assert (found["only first right"], found["only second right"]) == (one, other)
assert np.isclose(float(found["p"]), binomtest(one, one + other).pvalue)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 4: Find the bugs in a calibration error (4 points)
#
# The expected calibration error sorts images into bins by confidence, takes in each bin the gap between mean confidence
# and accuracy, and averages the gaps over all images. The colleague's version gives `nan` for most models. Where it
# gives a number, that is wrong too: the code has more than one fault. Run the cell and find them.

# %% nbgrader={"grade": false, "grade_id": "colleague-calibration-error", "locked": true, "schema_version": 3, "solution": false, "task": false}
def colleague_error(probabilities, labels, bins):
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    gaps = []
    for number in range(bins):
        inside = (confidence >= edges[number]) & (confidence < edges[number + 1])
        total = inside.sum()
        gaps.append((confidence[inside].sum() - hits[inside].sum()) / total if total else np.nan)
    return np.mean(gaps)


few = np.array([[0.95, 0.03, 0.02], [0.2, 0.7, 0.1], [1.0, 0.0, 0.0]])
print(colleague_error(few, np.array([1, 1, 0]), 10))

# %% [markdown]
# Write `calibration_error(probabilities, labels, bins)`.
# - It gets probabilities, floats of shape (n, classes) whose rows add up to 1, the true labels, ints of shape (n,), and
#   the number of bins.
# - The bins have equal width and cover confidences from 0 to 1, both included.
# - It returns a float from 0 to 1: 0 for a model whose confidence is right in every bin.

# %% nbgrader={"grade": false, "grade_id": "calibration-error", "locked": false, "schema_version": 3, "solution": true, "task": false}
def calibration_error(probabilities, labels, bins):
    ### BEGIN SOLUTION
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)  # a confidence of 1 belongs to the last bin
    error = 0.0
    for number in np.unique(place):
        inside = place == number
        error += inside.mean() * abs(confidence[inside].mean() - hits[inside].mean())
    return error
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "calibration-error-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_calibration_error(calibration_error)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(64)
some_probabilities = rng.dirichlet([0.3] * 5, 300)
some_labels = rng.integers(0, 5, 300)
confidence = some_probabilities.max(axis=1)
gap = confidence - (some_probabilities.argmax(axis=1) == some_labels)
for bins in (4, 15):
    sums, _ = np.histogram(confidence, bins, (0, 1), weights=gap)
    assert np.isclose(float(calibration_error(some_probabilities, some_labels, bins)), abs(sums).sum() / 300)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 5: Choose a model, report a figure (3 + 2 points)
#
# Each model was trained with several seeds. `validation` and `test` are dicts: a model's name to its accuracies, floats
# of shape (seeds,), the same seed at the same place. Complete `report_over_seeds(validation, test)`. It chooses the
# model whose trainings are best *on average*, on the split that may choose, and returns three things: its name, the
# mean of its accuracies on the split that may report, and their sample standard deviation over the seeds. There are at
# least two seeds; the dicts may list the models in different orders.

# %% nbgrader={"grade": false, "grade_id": "report-over-seeds", "locked": false, "schema_version": 3, "solution": true, "task": false}
def report_over_seeds(validation, test):
    ### BEGIN SOLUTION
    name = max(validation, key=lambda each: np.mean(validation[each]))
    return name, np.mean(test[name]), np.std(test[name], ddof=1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "report-over-seeds-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_report_over_seeds(report_over_seeds)
### BEGIN HIDDEN TESTS
on_validation = {"p": np.array([0.80, 0.90, 0.70, 0.80]), "q": np.array([0.82, 0.83, 0.81, 0.82])}
on_test = {"q": np.array([0.78, 0.80, 0.79, 0.81]), "p": np.array([0.85, 0.86, 0.84, 0.85])}
chosen, mean, deviation = report_over_seeds(on_validation, on_test)
assert chosen == "q"
assert np.isclose(float(mean), on_test["q"].mean())
assert np.isclose(float(deviation), on_test["q"].std(ddof=1))
### END HIDDEN TESTS

# %% [markdown]
# **In words (2 points).** A report says: "We trained five models, and the best reached 0.861 on the test set, with a
# 95% bootstrap interval of 0.854 to 0.868. Model B has 0.857, inside that interval, so the two are equally good." Name
# two faults, and say for each what should have been done.

# %% [markdown] nbgrader={"grade": true, "grade_id": "comparison-report", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Two of these, a point each, half of it for the fault and half for the remedy:
#
# 1. The best of five on the test set was chosen by the test set, so its figure is too high. Choose on the validation
#    images, then measure the chosen model once on the test images.
# 2. Both models saw the same images. Whether they differ is a question for a paired test, such as McNemar's; intervals
#    of single accuracies can overlap although the models differ.
# 3. A difference that is not shown is no proof of equality: say that the test images do not decide.
# 4. The interval speaks of the choice of test images only. Several seeds would show what chance in training adds.
# ### END SOLUTION

# %% [markdown]
# ## Exercise 6: Plan a comparison within a budget (2 points)
#
# **Question**: which of these ideas helps the baseline: augmentation, label smoothing, another width, more epochs? Take
# at least two of them. A training with the settings of an arm costs `epochs * width` seconds, 1.2 times as much with
# augmentation. You have 2,400 seconds for all trainings. Fill in `plan`:
# - `"arms"`: a dict, a name to its settings. One is called `"baseline"`. Settings are dicts with `"augmentation"` (True
#   or False), `"label smoothing"` (at least 0, less than 1), `"width"` and `"epochs"` (whole numbers).
# - `"seeds"`: a list of whole numbers; each arm is trained once with each.
# - `"chosen on"` and `"reported on"`: `"train"`, `"validation"` or `"test"`.
# - `"test"` and `"correction"`: names of the test for two models, and of the correction for several tests.
#
# The check tests the rules of a fair comparison, not your taste.

# %% nbgrader={"grade": false, "grade_id": "comparison-plan", "locked": false, "schema_version": 3, "solution": true, "task": false}
plan = {}
### BEGIN SOLUTION
baseline = {"augmentation": False, "label smoothing": 0.0, "width": 32, "epochs": 5}
plan["arms"] = {"baseline": baseline, "augmented": baseline | {"augmentation": True},
                "smoothed": baseline | {"label smoothing": 0.1}}
plan["seeds"] = [1, 2, 3, 4]
plan["chosen on"], plan["reported on"] = "validation", "test"
plan["test"], plan["correction"] = "McNemar", "Holm"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "comparison-plan-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_comparison_plan(plan)
### BEGIN HIDDEN TESTS
assert len(set(plan["seeds"])) >= 3
assert "baseline" in plan["arms"]
cost = [arm["epochs"] * arm["width"] * (1.2 if arm["augmentation"] else 1) for arm in plan["arms"].values()]
assert len(plan["seeds"]) * sum(cost) <= 2_400
assert str(plan["chosen on"]).strip().lower() == "validation"
### END HIDDEN TESTS

# %% [markdown]
# ## To discuss (no points)
#
# 1. A test set has been used by thousands of papers over ten years. Each measured its models once. Is a figure on it
#    still one for images that nobody has seen?
# 2. A model is better by 0.5 points, with p = 0.001 on 10,000 images, and takes three times as long an image. When
#    would you use it, and what else would you want to know?
# 3. Two models have the same accuracy. One is calibrated, the other is sure of nearly everything. Name a use in which
#    that does not matter, and one in which it decides.
