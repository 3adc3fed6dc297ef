# %% [markdown]
# # Assignment 1: a sample
#
# An assignment in the layout of `exercises/`, small enough to be graded in a second. Hand in this notebook.

# %%
import warnings

import numpy as np

from cifar_helpers.checks import common

# %% [markdown]
# ## Exercise 1: from bytes to fractions (4 points)
#
# `scaled` gets images of any shape, uint8, and returns float32 of the same shape, from 0 to 1.

# %% nbgrader={"grade": false, "grade_id": "scaled", "locked": false, "schema_version": 3, "solution": true, "task": false}
def scaled(images):
    ### BEGIN SOLUTION
    return np.asarray(images, "float32") / 255
    ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "scaled-check", "locked": true, "schema_version": 3, "solution": false, "task": false}
found = common.array(common.outcome(scaled, np.arange(6, dtype="uint8").reshape(2, 3), name="scaled"), "scaled",
                     shape=(2, 3), kind="f")
common.right("a fraction for every byte.")

# %% nbgrader={"grade": true, "grade_id": "scaled-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
found = common.array(common.outcome(scaled, np.zeros((2, 2), "uint8"), name="scaled"), "scaled", kind="f")
warnings.warn("a warning is no failure", stacklevel=1)
### BEGIN HIDDEN TESTS
assert np.allclose(scaled(np.full((2, 2), 51, "uint8")), 0.2)
common.expect(scaled(np.full(3, 255, "uint8")).max() <= 1, "255 becomes more than 1.")
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 2: predict, then run (2 points)
#
# How many numbers are there in one CIFAR-10 image?

# %% nbgrader={"grade": false, "grade_id": "numbers", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
numbers = 32 * 32 * 3
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "numbers-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
assert isinstance(numbers, int)
### BEGIN HIDDEN TESTS
common.expect(numbers == 3072, "Height times width times channels.")
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 3: why (2 points)
#
# Why are the images scaled?

# %% [markdown] nbgrader={"grade": true, "grade_id": "why", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Initial weights and learning rates are chosen for inputs near 1.
# ### END SOLUTION

# %% [markdown]
# ## Exercise 4: top-1 accuracy (6 points)
#
# `accuracy` gets logits (n, classes) and labels (n,), and returns a fraction.

# %% nbgrader={"grade": false, "grade_id": "accuracy", "locked": false, "schema_version": 3, "solution": true, "task": false}
def accuracy(logits, labels):
    ### BEGIN SOLUTION
    return float(np.mean(np.argmax(logits, axis=1) == labels))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "accuracy-points", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
### BEGIN HIDDEN TESTS
logits = np.eye(4)
for labels, wanted in (([0, 1, 2, 3], 1), ([0, 1, 2, 0], 0.75), ([1, 2, 3, 0], 0)):
    assert common.outcome(accuracy, logits, np.array(labels), name="accuracy") == wanted
### END HIDDEN TESTS
