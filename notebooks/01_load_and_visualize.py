# %% [markdown]
# # 1 · Look before you train
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your.organisation/cifar-course/blob/v1.0.0/notebooks/01_load_and_visualize.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/your.organisation/cifar-course/v1.0.0?labpath=notebooks%2F01_load_and_visualize.ipynb)
#
# > **Questions**: What is in the data, before any network sees it? How good is a guess, and how good is a model without
# > a network?
# >
# > **You will**: check shapes and dtypes; draw images, classes and pixel values; split the data in three; build a
# > `tf.data` pipeline step by step; set two yardsticks
#
# | Budget | Minutes on two cores | Validation accuracy of the yardsticks |
# |---|---|---|
# | `smoke` | under 1 | 0.10 and 0.15 to 0.30 |
# | `laptop` | under 1 | 0.10 and 0.32 to 0.38 |
# | `full` | under 1 | 0.10 and 0.37 to 0.42 |
#
# On a GPU the minutes have not been measured yet.
#
# CIFAR-10 holds 60,000 colour photographs of 32 x 32 pixels in ten classes. Alex Krizhevsky, Vinod Nair and Geoffrey
# Hinton had students label them in 2009. The photographs come from *80 Million Tiny Images*, a collection that its
# authors withdrew in 2020 because of offensive labels and pictures; `data/README.md` says more.

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
import matplotlib.pyplot as plt
import numpy as np

from cifar_helpers import load_cifar10, start_lesson
from cifar_helpers.marks import marked

budget = start_lesson("load")

# %% [markdown]
# `start_lesson` checks that your versions are supported, sets every random seed, and prints how much this lesson
# trains. `load_cifar10` finds the images (a path that you name, a cache, a download) and says where it found them.

# %%
data = load_cifar10()
data

# %% [markdown]
# ## What do the arrays look like?
#
# An image is a block of whole numbers from 0 to 255: height, width, and one value each for red, green and blue. One
# byte a value (`uint8`) is a quarter of what `float32` needs, so images stay bytes until a batch is made.
#
# **Predict first**: how many megabytes are the training images?

# %%
for name in ("train", "validation", "test"):
    split = getattr(data, name)
    print(f"{name:10} {split.images.shape!s:22} {split.images.dtype}  {split.images.nbytes / 1e6:5.0f} MB, "
          f"labels {split.labels.shape} {split.labels.dtype}")

assert data.train.images.shape[1:] == (32, 32, 3)
assert data.train.images.dtype == np.uint8
assert set(np.unique(data.train.labels)) == set(range(10))

# %% [markdown]
# ## What is in the pictures?
#
# A label is a number; `class_names` turns it into a word.

# %%
figure, axes = plt.subplots(5, 5, figsize=(7.5, 8.2), layout="constrained")
for axis, image, label in zip(axes.flat, data.train.images, data.train.labels, strict=False):
    axis.imshow(image)
    axis.set_title(data.class_names[label], fontsize=9)
    axis.axis("off")
figure.suptitle(marked("The first 25 training images"));

# %% [markdown]
# **Look at the pictures.** Which would you get wrong yourself at this size? What do the backgrounds of two pictures of
# the same class have in common, and could a model use that instead of the thing itself?
#
# From now on, `plots.image_grid` draws such a grid in one call.
#
# ## Are the classes equally frequent?
#
# Accuracy is only fair where they are: with 90% cats, a model that always says *cat* would score 0.90.

# %%
splits = {"train": data.train, "validation": data.validation, "test": data.test}
counts = {name: np.bincount(split.labels, minlength=10) for name, split in splits.items()}
figure, axis = plt.subplots(figsize=(9, 3.4), layout="constrained")
for offset, (name, count) in zip((-0.28, 0, 0.28), counts.items(), strict=True):
    axis.bar(np.arange(10) + offset, count / count.sum(), 0.27, label=f"{name} ({count.sum():,})")
axis.set_xticks(range(10), data.class_names, rotation=30)
axis.set(ylabel="share of the split", ylim=(0, 0.13), title=marked("Class distribution of each split"))
axis.legend(loc="upper center", ncols=3)
assert all(np.ptp(count) <= 1 for count in counts.values())

# %% [markdown]
# The three splits are *stratified*: each has the same share of every class.
#
# ## What values do the pixels take?
#
# A network likes inputs near zero with a spread near one. How far are we from that?

# %%
pixels = data.train.images.reshape(-1, 3)
for channel, name in enumerate(("red", "green", "blue")):
    values = pixels[:, channel]
    print(f"{name:6} from {values.min()} to {values.max()}, mean {values.mean():5.1f}, "
          f"standard deviation {values.std():4.1f}")

# %%
figure, axis = plt.subplots(figsize=(9, 3), layout="constrained")
for channel, (name, style) in enumerate({"red": "-", "green": "--", "blue": ":"}.items()):
    share = np.bincount(pixels[:, channel], minlength=256) / len(pixels)
    axis.plot(share, style, color=name, label=name)
axis.set(xlabel="pixel value", ylabel="share of pixels", title=marked("Pixel values of the training images"))
axis.legend();

# %% [markdown]
# **Read the curves.** What stands at 255, and what in a photograph causes it? Which channel is darkest on average?
#
# The statistics come from the *training* images alone. Whatever we later do with them (subtract a mean, say) must not
# have seen a validation or test image.
#
# ## What does an average airplane look like?

# %%
means = np.stack([data.train.images[data.train.labels == label].mean(axis=0) for label in range(10)])
figure, axes = plt.subplots(2, 5, figsize=(8.5, 4), layout="constrained")
for axis, image, name in zip(axes.flat, means, data.class_names, strict=True):
    axis.imshow(image / 255)
    axis.set_title(name, fontsize=9)
    axis.axis("off")
figure.suptitle(marked("The mean image of each class"));

# %% [markdown]
# **Compare the means.** Which classes could a model tell apart by background colour alone? Which two are hardest?
#
# ## Why three splits?
#
# The training split fits the weights. The *validation* split chooses: how many epochs, which learning rate, which
# model. The *test* split is looked at once, in lesson 6, and decides nothing. Why not choose by the test split and
# save the trouble? Two hundred "models" that guess at random show why.
#
# **Predict first**: all of them are right one time in ten. How good does the best one look?

# %%
rng = np.random.default_rng(budget.seed)
labels = data.validation.labels[:400]
guesses = rng.integers(0, 10, (200, len(labels)))
right = guesses == labels
chosen_by, fresh = right[:, :200].mean(axis=1), right[:, 200:].mean(axis=1)
best = chosen_by.argmax()
print(f"The best of 200 on the images that chose it: {chosen_by[best]:.3f}, on fresh images: {fresh[best]:.3f}")
assert chosen_by[best] > chosen_by.mean()

# %% [markdown]
# Choosing among many makes the winner look better than it is, on the very images that chose it. Only images that had
# no say give an honest figure. Two of the five tutorials that this course replaces watched their test images at every
# epoch.
#
# ## From arrays to batches
#
# Training takes a few images at a time, in a new order each epoch. A `tf.data.Dataset` describes that as a chain of
# steps. We build it link by link.

# %%
import tensorflow as tf

dataset = tf.data.Dataset.from_tensor_slices((data.train.images[:1_000], data.train.labels[:1_000]))
image, label = next(iter(dataset))
print(image.shape, image.dtype, data.class_names[label])

# %% [markdown]
# **Shuffle** keeps a buffer and draws from it at random. A buffer smaller than the data mixes only neighbours.
#
# **Predict first**: with a buffer of 10, can image 500 come out first?

# %%
numbers = tf.data.Dataset.range(1_000)
near, far = (np.array([*numbers.shuffle(buffer, seed=0).take(8)]) for buffer in (10, 1_000))
print("buffer 10:   ", near)
print("buffer 1,000:", far)
assert near.max() < 20

# %% [markdown]
# **Batch** stacks images; **prefetch** prepares the next batch while the model works on this one.

# %%
pipeline = dataset.shuffle(1_000, seed=0).batch(128).prefetch(tf.data.AUTOTUNE)
for images, labels in pipeline.take(2):
    print(images.shape, images.dtype, labels.shape, labels.dtype)

first, second = (next(iter(pipeline))[1].numpy() for _ in range(2))
assert len(pipeline) == 8
assert (first != second).any()

# %% [markdown]
# Each pass over the pipeline has a new order: the two first batches differ. From now on `training.batches` does these
# steps (`progress` is for lesson 2; `steady` stops the thread that would tune the number of batches ahead, because the
# end of a pass may have to wait for it). This is all of it:

# %%
import inspect

from cifar_helpers import training

print(inspect.getsource(training.batches))

# %% [markdown]
# ## Two yardsticks
#
# A network has to beat something. The first yardstick always says the most frequent class; the second, logistic
# regression, weighs each of the 3,072 pixel values (standardised first) and adds them up. Neither needs TensorFlow.

# %%
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

few = slice(budget.yardstick_images)
train_x, train_y = data.train.images[few].reshape(-1, 3_072), data.train.labels[few]
validation_x = data.validation.images.reshape(-1, 3_072)
yardsticks = {"most frequent class": DummyClassifier(strategy="most_frequent"),
              "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=1e-4, tol=0.01))}
for name, model in yardsticks.items():
    score = model.fit(train_x, train_y).score(validation_x, data.validation.labels)
    print(f"{name:20} trained on {len(train_y):,} images: validation accuracy {score:.3f}")

# %% [markdown]
# **Before lesson 2**: a mean image (above) is about what logistic regression can know. What can it not express, that a
# picture of a horse facing left and one facing right would need?
#
# ## Key points
# - Look at shapes, dtypes, pictures, class counts and pixel values before training anything.
# - Three splits: training fits, validation chooses, test reports once.
# - Statistics that go into a model come from the training split only.
# - A pipeline is shuffle, batch, prefetch, in this order; images stay `uint8` until the batch.
# - A yardstick without a network says what a network is worth.
#
# ## Exercises
# 1. **Order matters.** Swap `shuffle` and `batch` in the pipeline. What is mixed now, and what no longer is?
# 2. **A smaller buffer.** Sort the training images by class, shuffle with a buffer of 100, and count the classes in the
#    first batch. What would that do to training?
# 3. **Duplicates.** How would you find out whether a validation image also stands among the training images? Do it for
#    exact copies, in under ten seconds.
# 4. **The mean as a classifier.** Give each validation image the class whose mean image is nearest. Where does its
#    accuracy fall between the two yardsticks?
