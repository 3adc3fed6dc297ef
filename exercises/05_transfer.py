# %% [markdown]
# # Exercises 5 · Start from a pretrained net
#
# Six exercises, 20 points, on lesson 5: preprocessing, frozen layers, cached features, fine-tuning. The nets are tiny
# and the images generated, so no cell takes longer than seconds.
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

# %% nbgrader={"grade": false, "grade_id": "start-05", "locked": true, "schema_version": 3, "solution": false, "task": false}
from cifar_helpers import checks, start_exercises

start_exercises()

# %% nbgrader={"grade": false, "grade_id": "transfer-imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers

# %% [markdown]
# ## Exercise 1: Count what is trained (2 points)
#
# `trainable_weights` is a list of tensors: a kernel is one, a bias another. **Predict first**, without running
# anything: how many are in `net.trainable_weights`
# - `"nothing frozen"`: of the net as it is built;
# - `"backbone frozen"`: after `net.layers[0].trainable = False`;
# - `"convolutions unfrozen"`: if then the backbone is unfrozen, and each of its layers but the convolutions is frozen;
# - `"a copy unfrozen"`: if instead the backbone stays frozen, and a copy of it is made and all of the copy unfrozen?

# %% nbgrader={"grade": false, "grade_id": "small-net", "locked": true, "schema_version": 3, "solution": false, "task": false}
def small_net():
    backbone = keras.Sequential([
        keras.Input((16, 16, 3)),
        layers.Conv2D(8, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(16, 3),
        layers.BatchNormalization(),
        layers.ReLU(),
    ])
    return keras.Sequential([backbone, layers.GlobalAveragePooling2D(), layers.Dense(10)])

# %% nbgrader={"grade": false, "grade_id": "trainable-counts", "locked": false, "schema_version": 3, "solution": true, "task": false}
counts = {}
### BEGIN SOLUTION
counts["nothing frozen"] = 1 + 2 + 2 + 2 + 2  # kernel; scale and shift; kernel and bias; scale and shift; the head
counts["backbone frozen"] = 2
counts["convolutions unfrozen"] = 1 + 2 + 2
counts["a copy unfrozen"] = 2
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "trainable-counts-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_trainable_counts(counts)
### BEGIN HIDDEN TESTS
net = small_net()
assert counts["nothing frozen"] == len(net.trainable_weights)
net.layers[0].trainable = False
assert counts["backbone frozen"] == counts["a copy unfrozen"] == len(net.trainable_weights)
net.layers[0].trainable = True
for layer in net.layers[0].layers:
    layer.trainable = isinstance(layer, layers.Conv2D)
assert counts["convolutions unfrozen"] == len(net.trainable_weights)
### END HIDDEN TESTS

# %% [markdown]
# Now run it, and compare.

# %%
net = small_net()
print("nothing frozen:", len(net.trainable_weights))
net.layers[0].trainable = False
print("backbone frozen:", len(net.trainable_weights))
keras.models.clone_model(net.layers[0]).trainable = True
print("a copy unfrozen:", len(net.trainable_weights))
net.layers[0].trainable = True
for layer in net.layers[0].layers:
    layer.trainable = isinstance(layer, layers.Conv2D)
print("convolutions unfrozen:", len(net.trainable_weights))

# %% [markdown]
# ## Exercise 2: Feed the backbone what it was fed (4 points)
#
# Complete `backbone_input(images, size)` for ResNet50.
# - It gets uint8 images of shape (n, 32, 32, 3), values from 0 to 255, red first, and a number of pixels.
# - It returns floats of shape (n, size, size, 3): the images enlarged as a whole, by whatever interpolation, and
#   prepared as ResNet50's weights expect it.
#
# Keras has `keras.applications.resnet50`, `layers.Resizing` and `keras.ops.image.resize`.

# %% nbgrader={"grade": false, "grade_id": "backbone-input", "locked": false, "schema_version": 3, "solution": true, "task": false}
def backbone_input(images, size):
    ### BEGIN SOLUTION
    larger = layers.Resizing(size, size, interpolation="bicubic")(np.asarray(images, "float32"))
    return keras.applications.resnet50.preprocess_input(larger)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "backbone-input-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_backbone_input(backbone_input)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(52)
smooth = np.repeat(np.repeat(rng.integers(0, 256, (3, 2, 2, 3)), 16, axis=1), 16, axis=2).astype(np.uint8)
found = np.asarray(backbone_input(smooth, 64), float)
assert found.shape == (3, 64, 64, 3)
wanted = keras.applications.resnet50.preprocess_input(smooth.astype("float32"))
# the middle of each of the four fields, which no interpolation changes
assert np.allclose(found[:, 16::32, 16::32], wanted[:, 8::16, 8::16], atol=2)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 3: Find the bug in a cache (3 points)
#
# A frozen backbone gives the same features for the same images, so they are worth keeping. A colleague's cache is fast.
# It also reported that another resolution gives *exactly* the same accuracy.

# %% nbgrader={"grade": false, "grade_id": "colleague-cache", "locked": true, "schema_version": 3, "solution": false, "task": false}
def colleague_features(extract, name, images, cache):
    key = images.shape
    if key not in cache:
        cache[key] = extract(images)
    return cache[key]

# %% [markdown]
# Write `cached_features(extract, name, images, cache)` so that it never returns features of other images or of another
# extractor.
# - `extract` is a function from images, an array (n, height, width, 3), to features, an array (n, d). It is expensive.
# - `name` is a string that says which extractor it is: two extractors never have the same.
# - `cache` is a dict. Keep in it what you like, and keep it all.
# - It returns the features of the images, (n, d), in their order. Images that are equal to earlier ones, pixel by pixel
#   and in the same order, are not extracted again by the same extractor.

# %% nbgrader={"grade": false, "grade_id": "cached-features", "locked": false, "schema_version": 3, "solution": true, "task": false}
def cached_features(extract, name, images, cache):
    ### BEGIN SOLUTION
    key = name, images.shape, images.dtype.str, images.tobytes()
    if key not in cache:
        cache[key] = extract(images)
    return cache[key]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "cached-features-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_cached_features(cached_features)
### BEGIN HIDDEN TESTS
rng = np.random.default_rng(53)
calls, kept = [], {}
some_images = rng.integers(0, 256, (30, 6, 6, 3)).astype(np.uint8)


def mean_colour(images):
    calls.append(len(images))
    return images.mean(axis=(1, 2))


def largest_colour(images):
    calls.append(len(images))
    return images.max(axis=(1, 2)).astype(float)


for extract in (mean_colour, largest_colour):
    for images in (some_images, some_images[::-1].copy(), np.roll(some_images, 1, axis=2), some_images[3:9].copy()):
        for _ in range(2):
            found = cached_features(extract, extract.__name__, images, kept)
            assert np.allclose(found, extract(images))
calls.clear()
cached_features(mean_colour, "mean_colour", some_images.copy(), kept)
assert not calls
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 4: Find the bugs in a fine-tuning (4 points)
#
# `model` maps images to logits. Somewhere inside it is `backbone`, a net of convolutions (`Conv2D`) and batch
# normalisations. The head has been trained, with the backbone frozen. The colleague's next step has several faults:

# %% nbgrader={"grade": false, "grade_id": "colleague-unfreeze", "locked": true, "schema_version": 3, "solution": false, "task": false}
def colleague_unfreeze(model, backbone, rate):
    backbone = keras.models.clone_model(backbone)
    backbone.trainable = True
    return model

# %% [markdown]
# Write `unfreeze_later(model, backbone, rate)`, as in the lesson.
# - Trained from now on: the head, and the later half of the backbone's n convolutions, from number `n // 2` on in the
#   order of `backbone.layers` (counted from 0). Everything else stays as it is, also during a training step.
# - The model is ready for `fit` on whole-number labels: Adam at the constant rate `rate`, and the right loss.
# - It returns the model, with the weights that it had.

# %% nbgrader={"grade": false, "grade_id": "unfreeze-later", "locked": false, "schema_version": 3, "solution": true, "task": false}
def unfreeze_later(model, backbone, rate):
    ### BEGIN SOLUTION
    convolutions = [layer for layer in backbone.layers if isinstance(layer, layers.Conv2D)]
    later = convolutions[len(convolutions) // 2:]
    backbone.trainable = True
    for layer in backbone.layers:
        layer.trainable = layer in later
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "unfreeze-later-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_unfreeze_later(unfreeze_later)
### BEGIN HIDDEN TESTS
checks.check_unfreeze_later(unfreeze_later, convolutions=5)
net = small_net()
net.layers[0].trainable = False
answers = np.asarray(net(np.ones((2, 16, 16, 3))))
net = unfreeze_later(net, net.layers[0], 3e-5)
assert np.allclose(net(np.ones((2, 16, 16, 3))), answers, atol=1e-5)
assert len(net.trainable_weights) == 4
assert np.isclose(float(net.optimizer.learning_rate), 3e-5)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 5: Read four histories (2 + 2 points)
#
# Each of these runs trained a head for three epochs on a frozen backbone, then fine-tuned for three more. The numbers
# are made up and typical. Three runs went wrong, each in its own way. Give each cause its run, `"A"` to `"D"`:
# - `"missing preprocessing"`: pixels were scaled to [0, 1] before `preprocess_input`;
# - `"rate too high"`: the whole backbone was unfrozen at the rate of an untrained head;
# - `"nothing unfrozen"`: the object that was unfrozen is not the one in the model;
# - `"fine-tuned with care"`: nothing went wrong.

# %% nbgrader={"grade": false, "grade_id": "four-histories", "locked": true, "schema_version": 3, "solution": false, "task": false}
histories = {
    "A": {"loss": [0.71, 0.52, 0.47, 0.455, 0.448, 0.443], "val_loss": [0.53, 0.47, 0.45, 0.444, 0.440, 0.438],
          "seconds": [31, 31, 31, 31, 31, 31]},
    "B": {"loss": [2.31, 2.29, 2.28, 2.24, 2.18, 2.11], "val_loss": [2.30, 2.28, 2.27, 2.23, 2.17, 2.12],
          "seconds": [31, 31, 31, 66, 66, 66]},
    "C": {"loss": [0.70, 0.51, 0.46, 0.41, 0.35, 0.31], "val_loss": [0.52, 0.47, 0.45, 0.40, 0.37, 0.36],
          "seconds": [31, 31, 31, 66, 66, 66]},
    "D": {"loss": [0.70, 0.52, 0.47, 1.38, 0.97, 0.80], "val_loss": [0.53, 0.47, 0.45, 2.90, 1.60, 1.10],
          "seconds": [31, 31, 31, 88, 88, 88]},
}
figure, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
for axis, (name, history) in zip(axes, histories.items(), strict=True):
    axis.plot(range(1, 7), history["loss"], "--", marker=".", label="training")
    axis.plot(range(1, 7), history["val_loss"], marker="o", markersize=4, label="validation")
    axis.axvline(3.5, color="grey", linestyle=":")
    axis.set(title=f"Run {name}", xlabel=f"epoch ({history['seconds'][0]} s each, then {history['seconds'][-1]} s)")
axes[0].set_ylabel("loss")
axes[0].legend()
plt.show()

# %% nbgrader={"grade": false, "grade_id": "diagnosis", "locked": false, "schema_version": 3, "solution": true, "task": false}
diagnosis = {}
### BEGIN SOLUTION
diagnosis["missing preprocessing"] = "B"
diagnosis["rate too high"] = "D"
diagnosis["nothing unfrozen"] = "A"
diagnosis["fine-tuned with care"] = "C"
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "diagnosis-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_diagnosis(diagnosis)
### BEGIN HIDDEN TESTS
letters = {cause: str(letter).strip().upper() for cause, letter in diagnosis.items()}
first_losses = {name: history["loss"][0] for name, history in histories.items()}
assert letters["missing preprocessing"] == max(first_losses, key=first_losses.get)
rises = {name: history["val_loss"][3] - history["val_loss"][2] for name, history in histories.items()}
assert letters["rate too high"] == max(rises, key=rises.get)
assert len(set(histories[letters["nothing unfrozen"]]["seconds"])) == 1
assert letters["fine-tuned with care"] not in (letters[cause] for cause in letters if cause != "fine-tuned with care")
### END HIDDEN TESTS

# %% [markdown]
# **In words (2 points).** Run A ended with a lower validation loss than its head had after three epochs. Why is that no
# gain of fine-tuning? Name one measurement that shows it *before* any epoch is trained.

# %% [markdown] nbgrader={"grade": true, "grade_id": "diagnosis-reason", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# One point: only the head was trained in the second phase as well. The loss goes on along the same curve as before, and
# an epoch takes as long, since no gradient passes the backbone; three more epochs of the head alone would have done it.
# A fair comparison would train the head of the frozen model for as many epochs.
#
# One point: the number of trainable tensors of the *model*, before and after unfreezing. It should grow by those of the
# unfrozen layers, and here it stays that of the head. (As good: no weight of the model's backbone changes in a single
# step; the layer in the model and the unfrozen one are not the same object.)
# ### END SOLUTION

# %% [markdown]
# ## Exercise 6: Plan an experiment within a budget (3 points)
#
# **Question**: how much accuracy does the resolution buy, for a linear head on a frozen backbone? You have 300 seconds.
# Features of n images at s pixels cost `n * (s / 128) ** 2 / 80` seconds, once for each pair of s and n, since they are
# kept. A head costs `n * epochs / 40_000` seconds, each time. Write `plan`, a list of dicts, one a training of a head:
# `"size"` (pixels), `"images"` (n, at least 1,000), `"epochs"`, `"rate"`, `"seed"`, and `"judged on"`, which is
# `"train"`, `"validation"` or `"test"`. The features of the images that judge are free here.
#
# The check tests the rules of a fair experiment, not your taste.

# %% nbgrader={"grade": false, "grade_id": "resolution-plan", "locked": false, "schema_version": 3, "solution": true, "task": false}
plan = []
### BEGIN SOLUTION
for size in (32, 64, 96):
    for seed in (1, 2, 3, 4, 5):
        plan.append({"size": size, "images": 10_000, "epochs": 20, "rate": 1e-3, "seed": seed,
                     "judged on": "validation"})
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "resolution-plan-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_resolution_plan(plan)
### BEGIN HIDDEN TESTS
plan = plan.to_dict("records") if hasattr(plan, "to_dict") else list(plan)
sizes = {row["size"] for row in plan}
features = sum(images * (size / 128) ** 2 / 80 for size, images in {(row["size"], row["images"]) for row in plan})
assert len(sizes) >= 2
assert features + sum(row["images"] * row["epochs"] / 40_000 for row in plan) <= 300
assert all(len({row["seed"] for row in plan if row["size"] == size}) >= 3 for size in sizes)
assert all(len({row[key] for row in plan}) == 1 for key in ("images", "epochs", "rate"))
### END HIDDEN TESTS

# %% [markdown]
# ## To discuss (no points)
#
# 1. CIFAR-10 and ImageNet were both collected from the web. How could the backbone have seen pictures of our test set,
#    what would that do to the accuracy, and how would you look for it?
# 2. You have 200 labelled X-ray pictures and a backbone that was trained on photographs. Freeze, fine-tune, or train a
#    small net from nothing? Which experiment would decide?
# 3. Fine-tuning won a point of accuracy and cost ten times the seconds. For whom is that worth it?
