# %% [markdown]
# # Exercises 3 · More pictures than you have
#
# Six exercises, 20 points, on lesson 3: augmentations, MixUp and CutMix, and which pictures they are for. Functions get
# NumPy arrays and may return NumPy arrays or tensors. No exercise trains a net or needs the CIFAR-10 images.
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
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from cifar_helpers.checks.lesson_3 import TWO_NETS

# %% [markdown]
# ## Exercise 1: Predict, then run (3 points)
#
# A net trains for ten epochs. Each time a training picture comes, it is mirrored or not, left to right, and moved by
# a whole number of pixels from -2 to 2 down, and from -2 to 2 to the right. **Predict**, with pencil and paper, and
# fill in the dict:
# - `"views"`: of one training picture without any symmetry, how many different pictures can the net get to see?
# - `"validation views"`: of one validation picture, how many different pictures does it see in the ten epochs?
# - `"label"`: CutMix pastes 8 rows by 16 columns of a dog (class 5) into a picture of a cat (class 3), 32 x 32 pixels.
#   What is the label, as ten shares?

# %% nbgrader={"grade": false, "grade_id": "views", "locked": false, "schema_version": 3, "solution": true, "task": false}
predicted = {}
### BEGIN SOLUTION
predicted["views"] = 2 * 5 * 5
predicted["validation views"] = 1
predicted["label"] = [0, 0, 0, 1 - 8 * 16 / 1024, 0, 8 * 16 / 1024, 0, 0, 0, 0]
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "views-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_views(predicted)
### BEGIN HIDDEN TESTS
assert predicted["views"] == 50 and predicted["validation views"] == 1
assert np.allclose(predicted["label"], [0, 0, 0, 7 / 8, 0, 1 / 8, 0, 0, 0, 0])
### END HIDDEN TESTS

# %% [markdown]
# **Now run** it: the next cell makes every view of a picture of noise and counts the different ones.

# %%
picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
padded = np.pad(picture, ((2, 2), (2, 2), (0, 0)), "reflect")
made = [padded[down:down + 32, across:across + 32] for down, across in np.ndindex(5, 5)]
print(len({view.tobytes() for one in made for view in (one, one[:, ::-1])}), "different pictures")

# %% [markdown]
# ## Exercise 2: Move each picture by itself (3 points)
#
# Write `shift(images)`. It gets pictures (n, 32, 32, 3), `uint8` or `float32`, and returns as many of the same shape,
# in the same order, values unchanged. Each is moved by a whole number of pixels from -2 to 2 down, and from -2 to 2 to
# the right, all equally likely; both numbers are drawn for each picture, anew at each call. What leaves the picture is
# lost, and the freed edge is filled from the picture's own edge, as `np.pad` does with `"reflect"`, `"symmetric"` or
# `"edge"`. The pictures given are not changed.

# %% nbgrader={"grade": false, "grade_id": "shift", "locked": false, "schema_version": 3, "solution": true, "task": false}
def shift(images):
    """Pictures (n, 32, 32, 3), each moved by its own -2 to 2 pixels along both axes."""
    ### BEGIN SOLUTION
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), "reflect")
    corners = np.random.default_rng().integers(0, 5, (len(images), 2))
    return np.stack([image[down:down + 32, across:across + 32]
                     for image, (down, across) in zip(padded, corners, strict=True)])
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "shift-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_shift(shift)
### BEGIN HIDDEN TESTS
ramps = np.tile(np.arange(32, dtype=np.float32)[:, None, None] * 7, (5, 1, 32, 3))
moved = np.asarray(shift(ramps.copy()))
assert moved.shape == ramps.shape
assert (np.diff(moved[:, 2:30], axis=1) == 7).all() and (moved == moved[:, :, :1]).all()
many = np.asarray(shift(np.tile(ramps[:1], (200, 1, 1, 1))))
assert set(np.unique(many[:, 16, 16, 0])) == {7 * row for row in (14, 15, 16, 17, 18)}
assert np.asarray(shift(ramps[:1].copy())).shape == (1, 32, 32, 3)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 3: MixUp (4 points)
#
# Write `mixup(images, labels, alpha=0.4)`. It gets pictures `float32` (n, h, w, 3) and one-hot labels `float32`
# (n, classes), and returns both mixed, with the same shapes. For each picture of the batch draw a share from
# Beta(`alpha`, `alpha`) and choose another picture of the batch: a permutation will do, where a picture may now and
# then meet itself. The result is share times the picture plus (1 - share) times the other, and its label likewise. Do
# not change the arrays given.

# %% nbgrader={"grade": false, "grade_id": "mixup", "locked": false, "schema_version": 3, "solution": true, "task": false}
def mixup(images, labels, alpha=0.4):
    """Each image (n, h, w, 3), and its one-hot label (n, classes), blended with another of the batch."""
    ### BEGIN SOLUTION
    generator = np.random.default_rng()
    share = generator.beta(alpha, alpha, len(images)).astype(np.float32)
    other = generator.permutation(len(images))
    wide, narrow = share[:, None, None, None], share[:, None]
    return wide * images + (1 - wide) * images[other], narrow * labels + (1 - narrow) * labels[other]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "mixup-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_mixup(mixup)
### BEGIN HIDDEN TESTS
classes = np.arange(40) % 4
grey = np.tile((10.0 * classes).astype(np.float32)[:, None, None, None], (1, 8, 6, 3))
blended, shares = map(np.asarray, mixup(grey.copy(), np.eye(4, dtype=np.float32)[classes], 0.8))
assert blended.shape == grey.shape and shares.shape == (40, 4)
assert np.allclose(blended, (10 * shares @ np.arange(4))[:, None, None, None], atol=1e-3)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 4: Find the bugs in CutMix (3 points)
#
# The function below gets pictures `float32` (n, 32, 32, 3), one-hot labels `float32` (n, 10), `boxes`, whole numbers
# (n, 4), and `partners`, whole numbers (n,). A box is top, left, bottom and right of a rectangle; bottom and right no
# longer belong to it, and **it may reach over the edges** of the picture. Into picture `i` goes that rectangle of
# picture `partners[i]` as it was given, and the label is mixed by the pixels that show. The function runs without an
# error, and is wrong in more than one way. Run it on a batch of two, look at pixels and labels, then write `cutmix`
# right. It returns pictures and labels and leaves the arrays given unchanged.

# %%
def cutmix_with_faults(images, labels, boxes, partners):
    mixed = labels.copy()
    for i, (top, left, bottom, right) in enumerate(boxes):
        top, left = max(top, 0), max(left, 0)
        images[i, top:bottom, left:right] = images[partners[i], top:bottom, left:right]
        share = (bottom - top) * (right - left) / 1024
        mixed[i] = (1 - share) * labels[i] + share * labels[partners[i]]
    return images, mixed


# %% nbgrader={"grade": false, "grade_id": "cutmix", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cutmix(images, labels, boxes, partners):
    """Images (n, 32, 32, 3) with a rectangle of their partners, and labels (n, 10) mixed by area."""
    ### BEGIN SOLUTION
    pasted, mixed = images.copy(), labels.copy()
    for i, (top, left, bottom, right) in enumerate(np.clip(boxes, 0, 32)):
        pasted[i, top:bottom, left:right] = images[partners[i], top:bottom, left:right]
        share = (bottom - top) * (right - left) / 1024
        mixed[i] = (1 - share) * labels[i] + share * labels[partners[i]]
    return pasted, mixed
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "cutmix-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_cutmix(cutmix)
### BEGIN HIDDEN TESTS
generator = np.random.default_rng(31)
for _ in range(5):
    corners = generator.integers(-10, 36, (9, 2))
    boxes, partners = np.hstack([corners, corners + generator.integers(0, 30, (9, 2))]), generator.permutation(9)
    greys = np.tile(np.arange(9, dtype=np.float32)[:, None, None, None], (1, 32, 32, 3))
    pasted, shares = map(np.asarray, cutmix(greys.copy(), np.eye(10, dtype=np.float32)[:9], boxes, partners))
    counted = np.stack([(pasted[..., 0] == number).mean(axis=(1, 2)) for number in range(10)], axis=1)
    assert np.allclose(shares, counted, atol=1e-4)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 5: Find the bugs in the pipelines (4 points)
#
# Below are two pipelines as they are found in many notebooks. `train` and `validation` are each a pair of arrays,
# images `uint8` (n, 32, 32, 3) and labels (n,); `augment` takes a batch of images and returns a changed batch, at
# random and anew at each call. Wanted: two things that can be passed over again and again, each pass an epoch of
# batches (images, labels) with `batch_size` images, the last batch as many as are left. **Every epoch** shows all
# training images, in an order of its own, with changes of its own, each with its label; and all validation images as
# they are. Nothing else happens to the pixels. Find what is wrong, then write `pipelines` right. A `tf.data.Dataset` is
# the usual way; any object that can be passed over with `for` more than once will do.

# %%
def pipelines_with_faults(train, validation, augment, batch_size):
    images = tf.data.Dataset.from_tensor_slices(train[0]).shuffle(10_000)
    labels = tf.data.Dataset.from_tensor_slices(train[1]).shuffle(10_000)
    batches = [tf.data.Dataset.zip(images, labels), tf.data.Dataset.from_tensor_slices(validation)]
    return [dataset.batch(batch_size).map(lambda images, labels: (augment(images), labels)).cache()
            for dataset in batches]


# %% nbgrader={"grade": false, "grade_id": "augmented_batches", "locked": false, "schema_version": 3, "solution": true, "task": false}
def pipelines(train, validation, augment, batch_size):
    """Training batches, shuffled and augmented anew in each epoch, and validation batches as they are."""
    ### BEGIN SOLUTION
    batches = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train[1])).batch(batch_size)
    batches = batches.map(lambda images, labels: (augment(images), labels)).prefetch(tf.data.AUTOTUNE)
    return batches, tf.data.Dataset.from_tensor_slices(validation).batch(batch_size)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "augmented_batches-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_augmented_batches(pipelines)
### BEGIN HIDDEN TESTS
numbered = np.tile(np.arange(30, dtype=np.uint8)[:, None, None, None], (1, 32, 32, 3))
found = pipelines((numbered, np.arange(30)), (numbered[:7], np.arange(7)),
                  lambda images: tf.cast(images, tf.float32) + 0.25, 8)
for batches, count, added in zip(found, (30, 7), (0.25, 0), strict=True):
    for _ in range(3):
        seen = [(np.asarray(images)[:, 0, 0, 0] - added, np.asarray(labels))
                for _, (images, labels) in zip(range(31), batches, strict=False)]
        assert all((numbers == labels).all() for numbers, labels in seen)
        assert sorted(np.concatenate([labels for _, labels in seen])) == list(range(count))
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 6: Read a plot (3 points)
#
# The next cell draws an invented example: one net trained without augmentation and with it, over three seeds and eight
# epochs. Dashed lines are training accuracies, solid lines validation accuracies, both means over the seeds; the bands
# reach from the lowest seed to the highest. `TWO_NETS["plain"]["val_accuracy"]` and its like hold the numbers, (3, 8),
# should your eyes not do. Fill in the dict (1 point); epochs are counted from 1:
# - `"ahead from epoch"`: the first epoch from which on the augmented net's mean validation accuracy **stays** ahead;
# - `"clear from epoch"`: the first epoch from which on the two bands no longer overlap;
# - `"gap without"`, `"gap with"`: mean training minus mean validation accuracy after the last epoch, without and with
#   augmentation.

# %%
epochs = np.arange(1, 9)
for color, (net, measures) in zip(("C0", "C1"), TWO_NETS.items(), strict=True):
    plt.plot(epochs, measures["accuracy"].mean(axis=0), "--", color=color)
    plt.plot(epochs, measures["val_accuracy"].mean(axis=0), color=color, label=net)
    plt.fill_between(epochs, measures["val_accuracy"].min(axis=0), measures["val_accuracy"].max(axis=0), color=color,
                     alpha=0.25)
plt.legend()
plt.grid(alpha=0.3)
plt.gca().set(xlabel="epoch", ylabel="accuracy", title="An invented example: dashed training, solid validation")
plt.show()

# %% nbgrader={"grade": false, "grade_id": "two_curves", "locked": false, "schema_version": 3, "solution": true, "task": false}
reading = {}
### BEGIN SOLUTION
plain, augmented = TWO_NETS["plain"], TWO_NETS["augmented"]
behind = augmented["val_accuracy"].mean(axis=0) <= plain["val_accuracy"].mean(axis=0)
overlap = augmented["val_accuracy"].min(axis=0) <= plain["val_accuracy"].max(axis=0)
reading["ahead from epoch"] = epochs[behind][-1] + 1
reading["clear from epoch"] = epochs[overlap][-1] + 1
for key, net in (("gap without", plain), ("gap with", augmented)):
    reading[key] = (net["accuracy"] - net["val_accuracy"])[:, -1].mean()
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "two_curves-points", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_two_curves(reading)
### BEGIN HIDDEN TESTS
assert reading["ahead from epoch"] == 6 and reading["clear from epoch"] == 7
assert abs(reading["gap without"] - 0.197) < 0.016 and abs(reading["gap with"] - 0.032) < 0.016
### END HIDDEN TESTS

# %% [markdown]
# **In your own words (2 points).** A fellow student trained both nets for three epochs, one seed each, and writes:
# "Augmentation lowers the training accuracy and the validation accuracy, so it harms this net." In three or four
# sentences: what is wrong with the conclusion, and what would you run to find out?

# %% [markdown] nbgrader={"grade": true, "grade_id": "two_curves-why", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# A lower training accuracy is what augmentation is expected to do: the training task is harder, and the figure says
# nothing about new pictures. Three epochs are before the point where the plain net begins to learn its pictures by
# heart, so they say only that augmentation has not paid yet. With one seed each, the difference may be no larger than
# what another seed would change. I would train both nets with the same steps until the plain net's validation accuracy
# no longer rises, with at least three seeds each, and compare validation accuracies with their spread.
# ### END SOLUTION

# %% [markdown]
# ## To discuss (no points)
#
# 1. A validation set that is augmented too gives a lower accuracy as a rule. Why is that no proof that somebody did it
#    by mistake, and which test of the pipeline would prove it?
# 2. For photographs of handwritten digits, of skin, of street signs: which of lesson 3's nine augmentations would you
#    allow for each, and whom would you ask?
# 3. With MixUp the training accuracy is hard to interpret. What would you plot instead to see overfitting?
