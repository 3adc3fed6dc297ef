# %% [markdown]
# # 4 · Take the loop apart
#
# > **Questions**: What happens inside `fit`? When is it worth writing oneself? Why is a graph faster than the same
# > Python?
# >
# > **You will**: subclass `keras.Model`; write a training step with `tf.GradientTape`; time it eager and as a graph;
# > write the whole loop; put the step back into `fit`
#
# | Budget | Minutes on two cores | Validation accuracy |
# |---|---|---|
# | `smoke` | under 1 | says nothing |
# | `laptop` | 1 | 0.65 to 0.70 |
# | `full` | 3 | 0.72 to 0.76 |
#
# On a GPU the minutes have not been measured yet.

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

from cifar_helpers import plots, runs, training

# %% [markdown]
# ## A model as a class
#
# `Sequential` is a chain. A subclass says in Python what happens to a batch: layers are made in `__init__` and used in
# `call`. The decorator registers the class under a name, and `get_config` says how to make it again: with these two,
# a subclassed model is saved and loaded like any other.
#
# `training` tells layers such as dropout whether this is a training step. Forget to pass it on and dropout stays off.

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
# metrics. `fit` does no more than this.

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
fast_step = tf.function(train_step)
train_batches = training.batches(data.train, 128, shuffle=True)
validation_batches = training.batches(data.validation, 500)
metrics_and_reset();

# %%
history = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": [], "seconds": []}
begun = time.perf_counter()
for epoch in range(budget.epochs):
    for images, labels in tqdm(train_batches, desc=f"epoch {epoch + 1}", leave=False, file=sys.stdout):
        fast_step(images, labels)
    loss, accuracy = metrics_and_reset()
    for images, labels in validation_batches:
        validation_step(images, labels)
    values = (loss, accuracy, *metrics_and_reset(), time.perf_counter() - begun)
    for key, value in zip(history, values, strict=True):
        history[key].append(value)
    print(f"epoch {epoch + 1}: " + ", ".join(f"{key} {history[key][-1]:.3f}" for key in history))

# %%
assert int(optimizer.iterations) == budget.epochs * steps
assert np.isfinite(history["loss"]).all()
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
# ## Key points
# - A subclass: layers in `__init__`, the computation in `call`, `training` passed on, `get_config`, a registered name.
# - A step: forward under the tape, loss, gradients, optimizer, metrics.
# - `tf.function` takes Python out of the step; the arithmetic stays.
# - Reset metrics between training and validation, and between epochs.
# - Where only the step is special, override `train_step` and keep `fit`.
#
# ## Exercises
# 1. **Forget `training=True`** in `train_step`. Which layer goes silent, and in which curve would you see it?
# 2. **Clip the gradients.** Use `tf.clip_by_global_norm` with a norm of 1 and plot the norm before clipping for each
#    step of an epoch. When is it largest?
# 3. **Accumulate.** Apply the mean gradient of four batches at once. What happens to the number of steps, and what
#    should happen to the learning rate?
# 4. **Retracing.** Pass the last, smaller batch to a fresh `tf.function` and count traces with a `print`. How does
#    `drop_remainder=True` change it, and what does it cost?
