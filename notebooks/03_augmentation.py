# %% [markdown]
# # 3 · More pictures than you have
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your.organisation/cifar-course/blob/v1.0.0/notebooks/03_augmentation.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/your.organisation/cifar-course/v1.0.0?labpath=notebooks%2F03_augmentation.ipynb)
#
# > **Questions**: Which changes to a picture keep its class? Where does augmentation belong? What does it buy?
# >
# > **You will**: draw nine augmentations of the same pictures; put two into a `tf.data` pipeline; train one net with
# > and without them; find augmentations that break labels
#
# | Budget | Minutes on two cores | Validation accuracy, without and with |
# |---|---|---|
# | `smoke` | under 1 | says nothing |
# | `laptop` | 4 | 0.78 to 0.84, 0.78 to 0.84 |
# | `full` | 15 | 0.80 to 0.85, 0.82 to 0.88 |
#
# On a GPU the minutes have not been measured yet.

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
from cifar_helpers import load_cifar10, start_lesson, take

budget = start_lesson("augmentation")
data = take(load_cifar10(), budget.train_images, budget.validation_images)
data

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import layers

from cifar_helpers import explore, plots, reference, runs, training
from cifar_helpers.marks import marked

# %% [markdown]
# ## One picture, many views
#
# A horse facing left is a horse. A net that never saw one facing left does not know that. *Augmentation* shows it
# changed copies of the training pictures, new ones each epoch, with the class unchanged. Keras has a layer for each of
# the usual changes. The numbers are shares: of the width for translation, of a full turn for rotation.

# %%
changes = {
    "flip": layers.RandomFlip("horizontal"),
    "translation": layers.RandomTranslation(0.15, 0.15),
    "rotation": layers.RandomRotation(0.06),
    "zoom": layers.RandomZoom((-0.25, 0.1)),
    "brightness": layers.RandomBrightness(0.3),
    "contrast": layers.RandomContrast(0.5),
}

# %% [markdown]
# Layers draw at random only in training mode, hence `training=True`. Three others are not about one picture's geometry
# or light. **Cutout** hides a square (DeVries and Taylor, 2017). The net has to find the cat by more than its face.

# %%
def cutout(images, size=12):
    """Paint a square of `size` pixels, at a random place in each image, in mid-grey."""
    centre = tf.random.uniform((2, tf.shape(images)[0], 1, 1), 0, 32)
    rows, columns = tf.range(32.0)[None, :, None], tf.range(32.0)[None, None, :]
    inside = (abs(rows - centre[0]) < size / 2) & (abs(columns - centre[1]) < size / 2)
    return tf.where(inside[..., None], 128.0, images)


changes["cutout"] = lambda images, training: cutout(images)

# %% [markdown]
# **MixUp** lays two pictures over each other (Zhang and others, 2017). The label is mixed in the same shares, so it is
# no longer a number but ten shares that add up to one.

# %%
def mixup(images, labels, alpha=0.4):
    """Blend each image, and its one-hot label, with another of the batch."""
    first, second = tf.random.gamma((2, tf.shape(images)[0], 1, 1, 1), alpha)
    share = first / (first + second)  # Beta(alpha, alpha)
    other = tf.random.shuffle(tf.range(tf.shape(images)[0]))
    blended = share * images + (1 - share) * tf.gather(images, other)
    share = share[:, :, 0, 0]
    return blended, share * labels + (1 - share) * tf.gather(labels, other)


# %% [markdown]
# **CutMix** pastes a rectangle of one picture into another (Yun and others, 2019); the label's shares are the areas.

# %%
def cutmix(images, labels):
    """Paste a rectangle from another image of the batch into each, and mix the one-hot labels by area."""
    half = 16 * tf.sqrt(1 - tf.random.uniform((tf.shape(images)[0], 1, 1)))  # half the rectangle's side
    centre = tf.random.uniform((2, tf.shape(images)[0], 1, 1), 0, 32)
    rows, columns = tf.range(32.0)[None, :, None], tf.range(32.0)[None, None, :]
    inside = ((abs(rows - centre[0]) < half) & (abs(columns - centre[1]) < half))[..., None]
    other = tf.random.shuffle(tf.range(tf.shape(images)[0]))
    share = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), (1, 2))
    pasted = tf.where(inside, tf.gather(images, other), images)
    return pasted, share * labels + (1 - share) * tf.gather(labels, other)


# %% [markdown]
# Now all nine on the same six pictures, one row a change.

# %%
pictures = tf.cast(data.train.images[:6], tf.float32)
one_hot = tf.one_hot(data.train.labels[:6], 10)
rows = {"as it is": pictures} | {name: change(pictures, training=True) for name, change in changes.items()}
rows["MixUp"], mixed_labels = mixup(pictures, one_hot)
rows["CutMix"], pasted_labels = cutmix(pictures, one_hot)
for name, images in rows.items():
    assert images.shape == pictures.shape, name
for shares in (mixed_labels, pasted_labels):
    assert np.allclose(tf.reduce_sum(shares, axis=1), 1, atol=1e-5)

# %%
figure, axes = plt.subplots(len(rows), 6, figsize=(7, 1.15 * len(rows)), layout="constrained")
for line, (name, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(line, np.clip(images, 0, 255) / 255, strict=True):
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.suptitle(marked("Nine augmentations of the same six pictures"));

# %% [markdown]
# **Run the last two cells again.** Which changes could a camera have made? Which pictures are hard to name afterwards?
# Under MixUp and CutMix, which classes does each label hold, and do you see both in the picture?
#
# ## How far is too far?
#
# A random layer draws its amount anew for each picture. A range of a single value leaves nothing to chance, and a
# slider can set it. `explore.augmentation` draws five amounts of each change and, below them, the sliders.

# %%
amounts = {  # a slider's name: what its value makes, and from where to where it goes
    "shift": (lambda x: layers.RandomTranslation(0.0, (x, x)), -0.5, 0.5),
    "turn": (lambda x: layers.RandomRotation((x, x)), -0.5, 0.5),
    "zoom": (lambda x: layers.RandomZoom((x, x)), -0.8, 0.8),
    "brightness": (lambda x: layers.RandomBrightness((x, x)), -0.6, 0.6),
    "cutout": (lambda x: lambda images, training: cutout(images, x), 0, 32),
}
explore.augmentation(data.train, data.class_names, amounts);

# %% [markdown]
# **Find the limits.** Move one slider until you would no longer name the class: no range should reach that far. Which
# classes bear the least turning, and which the least shifting? Now set two sliders just within their limits. Would you
# still name the picture? The sliders work while the notebook runs; on a page there is only the figure.
#
# ## Which augmentations break labels?
#
# A change may only do what leaves the class as it is. That depends on the data: a digit 6 turned by 180 degrees is a 9.
# **Guess first**: which of these three would you refuse for CIFAR-10?

# %%
doubtful = {
    "upside down": pictures[:, ::-1],
    "colours swapped": pictures[..., ::-1],
    "zoomed in four times": tf.image.resize(pictures[:, 12:20, 12:20], (32, 32)),
}
images = np.concatenate([np.clip(images, 0, 255) / 255 for images in doubtful.values()])
titles = [name if column == 0 else "" for name in doubtful for column in range(6)]
plots.image_grid(images, titles, "Would you still give these the same label?", columns=6);

# %% [markdown]
# An upside-down car hardly ever occurs, so learning about it wastes effort. Swapped colours turn a red bird blue, and
# some birds *are* told apart by that. A zoom may leave nothing but sky: then the label is wrong, and the net is taught
# to say *airplane* to any blue. A broken label is worse than a lost picture.
#
# ## Where does it belong?
#
# On training images, after batching, in `tf.data`: there it runs on the CPU beside the training step. Never on
# validation or test images: we want to know how the net does on pictures as they are. (A random layer *inside* the
# model is off at inference and so is safe too, but it makes each training step slower.)
#
# We take two mild changes, a flip and a shift by up to two pixels. The stronger the change, the more epochs it needs.

# %%
augment_layers = [layers.RandomFlip("horizontal"), layers.RandomTranslation(2 / 32, 2 / 32, fill_mode="reflect")]


def augment(images):
    images = tf.cast(images, tf.float32)
    for layer in augment_layers:
        images = layer(images, training=True)
    return images


augmented = training.batches(data.train, 128, shuffle=True, augment=augment)
once, again = (next(iter(augmented))[0] for _ in range(2))
assert once.dtype == tf.float32
assert once.shape == (128, 32, 32, 3)

# %% [markdown]
# ## A net with batch normalisation
#
# Each block is a convolution, max-pooling, *batch normalisation* (which keeps the spread of the activations steady, so
# that a higher learning rate works) and a ReLU. Pooling comes before normalisation, which then has a quarter of the
# values to work on. For inference it keeps a running mean of what it saw; with a `momentum` of 0.9 that mean follows
# within tens of steps, as short trainings need. At the end each of 256 features counts where it is strongest in the
# picture.

# %%
def block(x, width, pool=True):
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
    if pool:
        x = layers.MaxPooling2D()(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def build(name):
    keras.utils.set_random_seed(budget.seed)
    inputs = keras.Input((32, 32, 3))
    x = block(layers.Rescaling(1 / 127.5, offset=-1)(inputs), 32)
    x = block(block(x, 64), 128)
    x = layers.GlobalMaxPooling2D()(block(x, 256, pool=False))
    return keras.Model(inputs, layers.Dense(10)(x), name=name)


# %% [markdown]
# ## With and without
#
# Two nets, equal at the start, the same number of steps. Only the pipeline differs.
#
# **Predict first**: which has the higher *training* accuracy at the end? Which the higher validation accuracy?

# %%
def train(name, augment):
    model = build(name)
    steps = budget.epochs * -(-len(data.train) // 128)
    warmup = steps // 5  # comes before the decay, and is not counted in it
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps - warmup, warmup_target=4e-3, warmup_steps=warmup)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=5e-3),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    progress = training.Progress(name, model, data, budget, random=augment_layers)
    model.fit(training.batches(data.train, 128, shuffle=True, augment=augment, progress=progress),
              validation_data=training.batches(data.validation, 500), initial_epoch=progress.epoch,
              epochs=budget.epochs, verbose=2, shuffle=False, callbacks=[progress])
    return runs.save_run(name, model, data, budget, progress.history, progress.history["seconds"][-1])


# %%
plain = train("plain", None)

# %%
augmented = train("augmented", augment)

# %%
plots.compare_histories({run.name: run.history for run in (plain, augmented)}, "The same net, without and with");

# %% [markdown]
# **Compare the distances** between the dashed and the solid line of each colour. With augmentation the training task
# is harder and the gap tends to be smaller. Is the validation accuracy better *yet*? Augmentation pays late: an epoch
# of changed pictures teaches less about each, and the gain shows once the plain net has begun to learn by heart.

# %%
for run in (plain, augmented):
    gap = run.info["train_accuracy"] - run.info["validation_accuracy"]
    print(f"{run.name:10} train {run.info['train_accuracy']:.3f}  validation {run.info['validation_accuracy']:.3f}  "
          f"gap {gap:+.3f}  {run.info['train_seconds']:.0f} s")

# %% [markdown]
# ## With more time
#
# Half an hour is long to wait, so the course brings the curves of longer trainings of these two nets, over several
# seeds (`load_reference` in `cifar_helpers.reference` reads them from `results/`). The line is the mean over the seeds,
# the band reaches from the lowest to the highest.

# %%
plots.spread(reference.histories(["plain", "augmented"]), "val_accuracy", "The same two nets at the budget `full`");

# %% [markdown]
# **Where do the lines cross**, and do the bands part? The width of a band is what the seed alone changes: a difference
# that is not clearly larger than that is no result.
#
# ## Key points
# - Augment only as far as the class surely stays the same; look at the pictures to know.
# - Augment training images, in the pipeline; leave validation and test images as they are.
# - MixUp and CutMix change the labels too, so they need one-hot labels and a loss that takes them.
# - Augmentation trades training accuracy for validation accuracy, and needs epochs to pay.
# - A gain is real where it is larger than the spread over seeds.
#
# ## Exercises
# 1. **The wrong pipeline.** Pass `augment=augment` to the validation pipeline as well. What do the curves look like,
#    and would you notice without knowing?
# 2. **Too much of a good thing.** Raise the translation to 0.5. Draw twelve pictures first, then train.
# 3. **MixUp in training.** Write a pipeline that one-hot encodes the labels and applies `mixup` to each batch. Which
#    loss do you need, and why is the training accuracy now hard to interpret?
# 4. **Is the gain real?** Restart the kernel with the environment variable `COURSE_SEED` set to another number and
#    train both nets again. Is the difference at *your* budget larger than the spread over seeds?
# 5. **Dropout.** Put `layers.Dropout(0.2)` before the last layer. Does it help the plain net, the augmented one, or
#    neither, and at which budget would you expect it to?
