# %% [markdown]
# # 4 · Take the loop apart
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your.organisation/cifar-course/blob/v1.0.0/notebooks/04_custom_loop.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/your.organisation/cifar-course/v1.0.0?labpath=notebooks%2F04_custom_loop.ipynb)
#
# > **Questions**: What happens inside `fit`? When is it worth writing oneself? Why is a graph faster than the same
# > Python?
# >
# > **You will**: subclass `keras.Model`; write a training step with `tf.GradientTape`; time it eager and as a graph;
# > write the whole loop; put the step back into `fit`; train a faster net, one idea at a time
#
# | Budget | Minutes on two cores | Validation accuracy, first and second net |
# |---|---|---|
# | `smoke` | under 1 | says nothing |
# | `laptop` | 2 | 0.62 to 0.68, 0.84 to 0.90 |
# | `full` | 17 | 0.72 to 0.77, 0.91 to 0.96 |
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

budget = start_lesson("custom_loop")
data = take(load_cifar10(), budget.train_images, budget.validation_images)
data

# %%
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tqdm import tqdm

from cifar_helpers import plots, reference, runs, training
from cifar_helpers.data import Split
from cifar_helpers.evaluation import accuracy as accuracy_of
from cifar_helpers.evaluation import cross_entropy, predict_logits

# %% [markdown]
# ## A model as a class
#
# `Sequential` is a chain. A subclass says in Python what happens to a batch: layers are made in `__init__` and used in
# `call`. The decorator registers the class under a name, and `get_config` says how to make it again: with these two,
# a subclassed model is saved and loaded like any other.
#
# *Dropout* silences a random half of its inputs at each training step, so that the net cannot rely on any single one.
# `training` tells such layers whether this is a training step. Forget to pass it on and dropout stays off.

# %%
@keras.saving.register_keras_serializable("cifar_helpers")
class SubclassedCNN(keras.Model):
    """Two convolutions, each with max-pooling, and two dense layers; returns logits."""

    def __init__(self, classes=10, dropout=0.5, **kwargs):
        super().__init__(**kwargs)
        self.classes, self.dropout_rate = classes, dropout
        self.scale = layers.Rescaling(1 / 255)
        self.conv1 = layers.Conv2D(32, 3, activation="relu")
        self.conv2 = layers.Conv2D(64, 3, activation="relu")
        self.pool, self.flatten = layers.MaxPooling2D(), layers.Flatten()
        self.hidden = layers.Dense(128, activation="relu")
        self.dropout = layers.Dropout(dropout)
        self.logits = layers.Dense(classes)

    def call(self, images, training=False):
        x = self.pool(self.conv1(self.scale(images)))
        x = self.pool(self.conv2(x))
        x = self.dropout(self.hidden(self.flatten(x)), training=training)
        return self.logits(x)

    def get_config(self):
        return {**super().get_config(), "classes": self.classes, "dropout": self.dropout_rate}


# %% [markdown]
# The same class stands in `cifar_helpers.models`, so that lesson 6 can load what you save here. A model has weights
# only once it has seen a shape.

# %%
keras.utils.set_random_seed(budget.seed)
model = SubclassedCNN(name="subclassed")
images, labels = next(iter(training.batches(data.train, 128)))
quiet, noisy, noisier = model(images), model(images, training=True), model(images, training=True)
print(f"{model.count_params():,} parameters, logits {quiet.shape}")

assert np.allclose(quiet, model(images))
assert not np.allclose(noisy, noisier)

# %% [markdown]
# **Explain the two asserts.** Which layer makes the difference?
#
# ## One step of gradient descent
#
# The tape records what is computed from the weights; then it is played backwards. *Label smoothing* aims at 0.91 for
# the true class and 0.01 for each other instead of 1 and 0: a net that need not be certain exaggerates less. It needs
# one-hot labels.

# %%
loss_function = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
loss_metric, accuracy_metric = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()


def train_step(images, labels):
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = loss_function(tf.one_hot(labels, 10), logits)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    loss_metric.update_state(loss)
    accuracy_metric.update_state(labels, logits)


# %% [markdown]
# The learning rate follows a schedule: it rises for the first fifth of all steps, then falls to zero along a cosine.
# **Why rise?** Early gradients are large and point anywhere; a small step limits the damage.

# %%
steps = -(-len(data.train) // 128)
total = budget.epochs * steps
schedule = keras.optimizers.schedules.CosineDecay(
    1e-4, decay_steps=total - total // 5, warmup_target=2e-3, warmup_steps=total // 5)
plots.curve([float(schedule(step)) for step in range(total)], "step", "learning rate", "Learning-rate schedule");

# %% [markdown]
# ## Eager or graph?
#
# Called as it stands, `train_step` runs line by line: *eager*. `tf.function` traces it once into a graph, which then
# runs without Python. Time both.
#
# **Predict first**: how many times faster is the graph? And would the factor be larger or smaller for a bigger net?

# %%
def milliseconds_a_step(step, repeats):
    step(images, labels)  # the first call traces, or creates the optimizer's variables
    begun = time.perf_counter()
    for _ in range(repeats):
        step(images, labels)
    return 1_000 * (time.perf_counter() - begun) / repeats


optimizer = keras.optimizers.Adam(1e-4)
optimizer.build(model.trainable_variables)
eager = milliseconds_a_step(train_step, budget.timed_steps)
graph = milliseconds_a_step(tf.function(train_step), budget.timed_steps)
print(f"eager {eager:.1f} ms, graph {graph:.1f} ms a step: the graph takes {graph / eager:.2f} of the time")

# %% [markdown]
# **Think about it.** The arithmetic is the same. What did the graph save, and for which nets is that a small share?
# (A `print` in `train_step` shows how often Python runs: once a call eagerly, once a *trace* in the graph.)
#
# ## The whole loop
#
# Fresh weights, a fresh optimizer, and for each epoch: train on every batch, validate, note the figures, reset the
# metrics. `fit` does no more than this. `progress.note` ends an epoch: it adds the figures and the seconds to the
# history, prints them, keeps the state on disk as in lesson 2, and stops training where a loss is no finite number.

# %%
@tf.function
def validation_step(images, labels):
    logits = model(images, training=False)
    loss_metric.update_state(loss_function(tf.one_hot(labels, 10), logits))
    accuracy_metric.update_state(labels, logits)


def metrics_and_reset():
    values = float(loss_metric.result()), float(accuracy_metric.result())
    for metric in (loss_metric, accuracy_metric):
        metric.reset_state()
    return values


# %%
keras.utils.set_random_seed(budget.seed)
model = SubclassedCNN(name="subclassed")
model(images)  # creates the weights
optimizer = keras.optimizers.Adam(schedule)
optimizer.build(model.trainable_variables)
graph_step = tf.function(train_step)
validation_batches = training.batches(data.validation, 500)

# %%
metrics_and_reset()
progress = training.Progress("subclassed", model, data, budget, optimizer=optimizer)
train_batches = training.batches(data.train, 128, shuffle=True, progress=progress)
for epoch in range(progress.epoch, budget.epochs):
    for images, labels in tqdm(train_batches, desc=f"epoch {epoch + 1}", leave=False, file=sys.stdout):
        graph_step(images, labels)
    loss, accuracy = metrics_and_reset()
    for images, labels in validation_batches:
        validation_step(images, labels)
    val_loss, val_accuracy = metrics_and_reset()
    progress.note(loss=loss, accuracy=accuracy, val_loss=val_loss, val_accuracy=val_accuracy)
history = progress.history

# %%
assert int(optimizer.iterations) == budget.epochs * steps
assert len(history["loss"]) == budget.epochs
plots.compare_histories({"custom loop": history}, "The custom loop's curves");

# %% [markdown]
# **Compare with lesson 2's curves.** Dropout is on in training and off in validation: which of the two lines does that
# put at a disadvantage? Both losses stay far above zero even where the net is right: what is the lowest value that
# label smoothing leaves?
#
# ## Back into `fit`
#
# A loop of one's own gives up callbacks, progress bars and much else. Where only the *step* is special, override
# `train_step` and keep `fit`. `compute_loss` uses the loss given to `compile`.

# %%
@keras.saving.register_keras_serializable("cifar_helpers")
class FitCNN(SubclassedCNN):
    """The same net with the custom step inside `fit`."""

    def train_step(self, batch):
        images, labels = batch
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            loss = self.compute_loss(y=tf.one_hot(labels, 10), y_pred=logits)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        accuracy_metric.update_state(labels, logits)
        return {"loss": loss, "accuracy": accuracy_metric.result()}


# %%
keras.utils.set_random_seed(budget.seed)
fitted = FitCNN(name="fitted")
fitted.compile(keras.optimizers.Adam(1e-3), loss_function)
accuracy_metric.reset_state()
fitted.fit(training.batches(data.train, 128, shuffle=True), epochs=1, shuffle=False, verbose=2);

# %% [markdown]
# ## Save it like any other
#
# A subclassed model loads where its class is registered: here, since the cells above ran; elsewhere, after
# `import cifar_helpers.models`.

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    fitted.save(Path(folder) / "fitted.keras")
    reloaded = keras.models.load_model(Path(folder) / "fitted.keras")

some = data.validation.images[:100]
assert type(reloaded) is FitCNN
assert np.array_equal(fitted.predict(some, verbose=0), reloaded.predict(some, verbose=0))

# %%
run = runs.save_run("subclassed", model, data, budget, history, history["seconds"][-1])
again = runs.load_model(run)
assert np.array_equal(model.predict(some, verbose=0), again.predict(some, verbose=0))
print(f"train accuracy {run.info['train_accuracy']:.3f}, validation accuracy {run.info['validation_accuracy']:.3f}")

# %% [markdown]
# ## A faster net, one idea at a time
#
# A loop of one's own pays where training itself is new. Keller Jordan's *airbench* (2024, arXiv:2404.00498) trains a
# small net to 94% in seconds on one large GPU. Its ideas fit in short cells, and they help two cores as well.
#
# The net first: three blocks of two convolutions, pooling before normalisation as in lesson 3, the maximum over all
# positions at the end. In a long training the activation is SiLU, x times the sigmoid of x: a ReLU whose corner
# is rounded off, at some price in time. The logits are divided by 9, so that the net starts out unsure.

# %%
@keras.saving.register_keras_serializable("cifar_helpers")
class FastCNN(keras.Model):
    """A whitening convolution, three blocks of two convolutions, the maximum over positions; returns logits."""

    def __init__(self, width=32, activation="relu", classes=10, **kwargs):
        super().__init__(**kwargs)
        self.width, self.activation, self.classes = width, activation, classes
        self.scale = layers.Rescaling(1 / 64, offset=-2)
        self.whiten = layers.Conv2D(24, 2, use_bias=False, trainable=False)
        widths = (width, width, 4 * width, 4 * width, 4 * width, 4 * width)
        self.convolutions = [layers.Conv2D(filters, 3, padding="same", use_bias=False) for filters in widths]
        self.norms = [layers.BatchNormalization(momentum=0.6, scale=False) for _ in widths]
        self.relu, self.activate = layers.ReLU(), layers.Activation(activation)
        self.pool, self.peak = layers.MaxPooling2D(), layers.GlobalMaxPooling2D()
        self.logits = layers.Dense(classes, use_bias=False)

    def call(self, images, training=False):
        x = self.relu(self.whiten(self.scale(images)))
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = convolution(x)
            if number % 2 == 0:
                x = self.pool(x)
            x = self.activate(norm(x, training=training))
        return self.logits(self.peak(x)) / 9

    def get_config(self):
        return {**super().get_config(), "width": self.width, "activation": self.activation, "classes": self.classes}


# %% [markdown]
# **Whitening.** Neighbouring pixels are nearly equal, so most of a picture's spread lies along one direction: light
# or dark. The first layer need not learn to undo that. From the training pictures we compute, once, the filters whose
# responses to 2 x 2 patches are uncorrelated and equally large, and freeze them. Each goes in with both signs, since
# ReLU cuts off one.

# %%
def whitening_filters(pictures):
    """Filters (2, 2, 3, 24) from scaled pictures (n, 32, 32, 3): 12 directions of their patches, with both signs."""
    patches = tf.image.extract_patches(pictures, [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "VALID")
    patches = tf.reshape(patches, (-1, 12)).numpy()
    variances, directions = np.linalg.eigh(np.cov(patches, rowvar=False))
    filters = (directions / np.sqrt(variances + 5e-4)).reshape(2, 2, 3, 12)
    return np.concatenate([filters, -filters], axis=-1)


# %%
keras.utils.set_random_seed(budget.seed)
activation = "silu" if budget.fast_epochs >= 10 else "relu"
fast = FastCNN(budget.fast_width, activation, name="fast")
some = data.train.images[:2_000]
fast(some[:1])  # creates the weights
fast.whiten.kernel.assign(whitening_filters(fast.scale(some)))
responses = keras.ops.convert_to_numpy(fast.whiten(fast.scale(some)))[..., :12].reshape(-1, 12)
correlations = np.corrcoef(responses, rowvar=False)
print(f"{fast.count_params():,} parameters; largest correlation between two filters "
      f"{abs(correlations - np.eye(12)).max():.3f}")
assert abs(correlations - np.eye(12)).max() < 0.1

# %% [markdown]
# **Starting as the identity.** A random convolution scrambles what it gets. Here the first filters of each layer start
# by passing one channel on unchanged, a 1 in the middle and zeros elsewhere; the others start at random as usual.

# %%
for convolution in fast.convolutions:
    kernel = keras.ops.convert_to_numpy(convolution.kernel).copy()
    shared = min(kernel.shape[2:])
    kernel[..., :shared] = 0
    kernel[1, 1, range(shared), range(shared)] = 1
    convolution.kernel.assign(kernel)

# %% [markdown]
# **Augmentation in one pass.** Every picture moves by up to `shift` pixels, further in a long training, which sees each
# picture more often. It is mirrored in every *other* epoch rather than at random: two epochs then show both sides of
# each. Half of the pictures start mirrored. A pass over all of them in NumPy costs about a second.

# %%
def moved_and_mirrored(padded, mirrored_first, epoch, generator):
    """Pictures uint8 (n, 32, 32, 3) for one epoch, from pictures with `shift` more pixels on each side."""
    places = 2 * shift + 1
    moves = generator.integers(0, places, (len(padded), 2))
    pictures = np.empty((len(padded), 32, 32, 3), np.uint8)
    for down, right in np.ndindex(places, places):
        chosen = (moves == (down, right)).all(axis=1)
        pictures[chosen] = padded[chosen, down:down + 32, right:right + 32]
    mirrored = mirrored_first ^ (epoch % 2 == 1)
    pictures[mirrored] = pictures[mirrored, :, ::-1]
    return pictures


# %% [markdown]
# **Small pictures first.** The first half of the epochs sees the pictures at 24 x 24 pixels. **Work out** what share of
# the arithmetic that costs. What the filters learn carries over: a convolution does not mind the size of a picture, nor
# does a maximum over all positions.

# %%
def batches_at(size, pictures, epoch):
    """Batches of the pictures in an order of the epoch's own, made smaller where `size` is below 32."""
    def smaller(images):
        return tf.image.resize(images, (size, size), antialias=True)

    split = Split(pictures, data.train.labels)
    return training.batches(split, fast_batch, shuffle=True, augment=smaller if size < 32 else None, seed=epoch)


# %% [markdown]
# **The step.** Gradient descent with Nesterov momentum at a high rate that rises and falls, strong label smoothing, and
# one trick that only a step of one's own allows: the biases of batch normalisation learn 64 times as fast. With plain
# gradient descent, a larger gradient *is* a larger rate. **Why would that not work with Adam?**

# %%
fast_batch = min(500, len(data.train))
fast_steps = budget.fast_epochs * -(-len(data.train) // fast_batch)
rise = fast_steps // 4
fast_rate = keras.optimizers.schedules.CosineDecay(
    0.15, decay_steps=fast_steps - rise, warmup_target=0.73, warmup_steps=rise)
fast_optimizer = keras.optimizers.SGD(fast_rate, momentum=0.85, nesterov=True, weight_decay=0.009)
fast_optimizer.build(fast.trainable_variables)
fast_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)

# %%
@tf.function
def fast_step(images, labels):
    weights = fast.trainable_variables
    with tf.GradientTape() as tape:
        logits = fast(images, training=True)
        loss = fast_loss(tf.one_hot(labels, 10), logits)
    gradients = [64 * gradient if "beta" in weight.path else gradient
                 for gradient, weight in zip(tape.gradient(loss, weights), weights, strict=True)]
    fast_optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loss_metric.update_state(loss)
    accuracy_metric.update_state(labels, logits)


# %% [markdown]
# **Predict first**: how far does it get in as many seconds as the loop above took, and how far at the end?

# %%
shift = budget.fast_shift
padded = np.pad(data.train.images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), "reflect")
mirrored_first = np.random.default_rng(budget.seed).random(len(padded)) < 0.5

# %%
metrics_and_reset()
progress = training.Progress("fast", fast, data, budget, optimizer=fast_optimizer)
for epoch in range(progress.epoch, budget.fast_epochs):
    size = 24 if epoch < budget.fast_epochs // 2 else 32
    generator = np.random.default_rng([budget.seed, epoch])
    seen = batches_at(size, moved_and_mirrored(padded, mirrored_first, epoch, generator), epoch)
    for images, labels in tqdm(seen, desc=f"epoch {epoch + 1}", leave=False, file=sys.stdout):
        fast_step(images, labels)
    logits = predict_logits(fast, data.validation.images)
    loss, accuracy = metrics_and_reset()
    progress.note(loss=loss, accuracy=accuracy, val_loss=cross_entropy(logits, data.validation.labels),
                  val_accuracy=accuracy_of(logits, data.validation.labels))
fast_history = progress.history

# %% [markdown]
# Each epoch has a generator of its own, made from the seed and the epoch: a training that goes on draws what it would
# have drawn.

# %%
plots.compare_histories({"custom loop": history, "fast": fast_history}, "Two nets, two loops");

# %% [markdown]
# **Read both axes.** Label smoothing holds the training loss of the second net up: which line compares fairly? In the
# middle of training its validation accuracy may jump about. The rate is at its highest then, and the running means of
# batch normalisation trail behind the weights: why does that end by itself?
#
# ## Two looks at each picture
#
# A mirrored horse is a horse at test time too: add the logits of the picture and of its mirror image. It costs twice
# the time of prediction and no training. Such figures are reported *apart* from the plain ones, here and everywhere.

# %%
logits = predict_logits(fast, data.validation.images)
mirrored_logits = predict_logits(fast, data.validation.images[:, :, ::-1])
one_look = accuracy_of(logits, data.validation.labels)
two_looks = accuracy_of(logits + mirrored_logits, data.validation.labels)
print(f"validation accuracy {one_look:.3f}, with flips at test time {two_looks:.3f}")

# %%
fast_run = runs.save_run("fast", fast, data, budget, fast_history, fast_history["seconds"][-1],
                         validation_logits=logits)
again = runs.load_model(fast_run)
assert type(again) is FastCNN
assert np.array_equal(fast.predict(some[:100], verbose=0), again.predict(some[:100], verbose=0))

# %% [markdown]
# ## Which idea does what?
#
# To know, take one away at a time and train the rest as before: an *ablation*. You would wait long for all of them, so
# the figure shows short trainings on fewer images that come with the course (`python benchmarks/ablation.py` makes them
# anew). Each dot is one.

# %%
plots.ablation(reference.load_ablation(), "Validation accuracy without one of the ideas");

# %% [markdown]
# **Which idea would you give up first?** The dots of one row differ only by their seed. For which ideas is the loss
# larger than that? An idea that does little here may do more in a longer training: how would you find out?
#
# ## Key points
# - A subclass: layers in `__init__`, the computation in `call`, `training` passed on, `get_config`, a registered name.
# - A step: forward under the tape, loss, gradients, optimizer, metrics.
# - `tf.function` takes Python out of the step; the arithmetic stays.
# - Reset metrics between training and validation, and between epochs.
# - Where only the step is special, override `train_step` and keep `fit`.
# - Ideas are judged by taking one away at a time, over more than one seed.
# - Flips at test time are free of training, and are reported apart.
#
# ## Exercises
# 1. **Forget `training=True`** in `train_step`. Which layer goes silent, and in which curve would you see it?
# 2. **Clip the gradients.** Use `tf.clip_by_global_norm` with a norm of 1 and plot the norm before clipping for each
#    step of an epoch. When is it largest?
# 3. **Accumulate.** Apply the mean gradient of four batches at once. What happens to the number of steps, and what
#    should happen to the learning rate?
# 4. **Retracing.** Pass the last, smaller batch to a fresh `tf.function` and count traces with a `print`. How does
#    `drop_remainder=True` change it, and what does it cost?
# 5. **Look at the whitening filters.** Draw the 24 as pictures of 2 x 2 pixels, sorted by `variances`. Which see
#    brightness, which colour, which edges?
# 6. **Adam for the second net.** Take `keras.optimizers.Adam` at a rate of your choice, with and without the factor 64.
#    Explain what you see.
