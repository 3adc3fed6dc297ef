# %% [markdown]
# # 2 · A baseline that can be beaten
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your.organisation/cifar-course/blob/v1.0.0/notebooks/02_baseline.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/your.organisation/cifar-course/v1.0.0?labpath=notebooks%2F02_baseline.ipynb)
#
# > **Questions**: How good is a small network on raw pixels? How do we see that it has stopped learning what matters?
# >
# > **You will**: measure what scaling buys; build, compile and fit a `Sequential` CNN; read its curves; predict one
# > image; save the model and get the same answers back
#
# | Budget | Minutes on two cores | Validation accuracy |
# |---|---|---|
# | `smoke` | under 1 | says nothing |
# | `laptop` | 2 | 0.68 to 0.74 |
# | `full` | 2 | 0.70 to 0.75 |
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

budget = start_lesson("baseline")
data = take(load_cifar10(), budget.train_images, budget.validation_images)
data

# %% [markdown]
# `take` keeps as many images of each class as the budget names, or all of them where it names none.

# %%
import keras
import numpy as np
from keras import layers

from cifar_helpers import plots, runs, training

# %% [markdown]
# ## The network
#
# Three convolutions find local patterns, max-pooling halves the resolution after two of them, and two dense layers
# turn what is left into ten numbers. Those numbers are *logits*: any real value, one a class. The softmax that turns
# them into probabilities belongs to the loss (`from_logits=True`), where it can be computed without overflow.
#
# ReLU sets about half of its inputs to zero. `"he_uniform"` draws the first weights larger to make up for it (He and
# others, 2015), so that the signal stays as strong from layer to layer; Keras's own choice does not know about ReLU.
# The last layer starts at zero: the net begins without an opinion.

# %%
def build(first_layer, name):
    keras.utils.set_random_seed(budget.seed)  # every net of this lesson starts from the same weights
    relu = {"activation": "relu", "kernel_initializer": "he_uniform"}
    return keras.Sequential([
        keras.Input((32, 32, 3)),
        first_layer,
        layers.Conv2D(32, 3, **relu),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, **relu),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, **relu),
        layers.Flatten(),
        layers.Dense(64, **relu),
        layers.Dense(10, kernel_initializer="zeros"),
    ], name=name)


# %% [markdown]
# ## What does scaling buy?
#
# Pixels are whole numbers from 0 to 255. Weights start near zero and one learning rate serves them all, so a network
# prefers inputs near zero too. Rather than believe that, we train the net twice on few images, once on each kind of
# pixel. `Rescaling` is a layer: it stands *inside* the model, and whoever loads the model later cannot forget it.

# %%
raw = build(layers.Identity(), "raw")
scaled = build(layers.Rescaling(1 / 255), "scaled")
scaled.summary(line_length=80)
assert raw.count_params() == scaled.count_params() == 122_570

# %% [markdown]
# **Predict first**: which net has the lower loss after the *first* epoch? Is the other one merely late, or lost?

# %%
def fit_briefly(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    few = take(data, train=budget.scaling_images)
    history = model.fit(training.batches(few.train, 32, shuffle=True), epochs=budget.scaling_epochs, shuffle=False,
                        validation_data=training.batches(data.validation, 500), verbose=2)
    return history.history


histories = {"raw pixels": fit_briefly(raw), "scaled to [0, 1]": fit_briefly(scaled)}

# %%
plots.compare_histories(histories, "The same net on raw and on scaled pixels");

# %% [markdown]
# `training.batches` is the pipeline of lesson 1: shuffle, batch, prefetch. It shuffles already, hence `shuffle=False`
# in `fit`. `plots.compare_histories` draws each run's loss and accuracy, training dashed, validation solid.
#
# **Look at the first epoch.** How far apart do the losses start? Adam adapts its step to the size of the gradients, so
# raw pixels do learn something; what would plain gradient descent do with them?
#
# ## The loss before training
#
# A net without an opinion gives each of ten classes a probability of 0.1. **Work it out**: what is its cross-entropy?

# %%
model = build(layers.Rescaling(1 / 255), "baseline")
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
untrained = loss(data.validation.labels[:100], model(data.validation.images[:100]))
print(f"loss of the untrained net: {float(untrained):.3f}; log(10) = {np.log(10):.3f}")
assert abs(float(untrained) - np.log(10)) < 0.01

# %% [markdown]
# ## Compile and fit
#
# `compile` says what to minimise, how, and what to report. The learning rate starts high and falls to zero along a
# cosine: large steps first, small ones to settle. Validation images are watched, never trained on; the test split
# stays closed until lesson 6.

# %%
steps = budget.epochs * -(-len(data.train) // 64)
rate = keras.optimizers.schedules.CosineDecay(2e-3, decay_steps=steps)
model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
progress = training.Progress("baseline", model, data, budget)
model.fit(
    training.batches(data.train, 64, shuffle=True, progress=progress), shuffle=False, verbose=2,
    validation_data=training.batches(data.validation, 500), initial_epoch=progress.epoch, epochs=budget.epochs,
    callbacks=[progress])
history, seconds = progress.history, progress.history["seconds"][-1]
print(f"{seconds:.0f} s, {budget.epochs * len(data.train) / seconds:,.0f} images a second")

# %% [markdown]
# `training.Progress` keeps weights, optimizer, history and seconds on disk after each epoch: should the kernel die, run
# the lesson again, and training goes on after the last whole epoch, in the order of images that it would have had.

# %%
plots.compare_histories({"baseline": history}, "Baseline: loss and accuracy");

# %% [markdown]
# **Read the curves, validation first.** At which epoch does the validation loss stop falling? What does the training
# loss do after that? The growing distance between the two is *overfitting*: the net learns its training images by
# heart. Why can validation accuracy still rise a little while validation loss does not fall?
#
# ## One image
#
# `predict` wants a batch. One image of shape (32, 32, 3) becomes a batch of one by a new first axis.

# %%
image, label = data.validation.images[0], data.validation.labels[0]
logits = model.predict(image[np.newaxis], verbose=0)[0]
probabilities = np.exp(logits) / np.exp(logits).sum()
print(f"predicted {data.class_names[probabilities.argmax()]}, true class {data.class_names[label]}")
assert logits.shape == (10,)
assert np.isclose(probabilities.sum(), 1, atol=1e-5)

# %%
plots.prediction(image, logits, label, data.class_names, "One validation image and what the baseline makes of it");

# %% [markdown]
# **Try others.** Change the `0`. Find an image that the net gets wrong with a probability above 0.9.
#
# ## Save, reload, compare
#
# `.keras` keeps the layers, the weights and the optimizer in one file. A model that gives other answers after loading
# is worse than none, so we compare.

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "baseline.keras"
    model.save(file)
    reloaded = keras.models.load_model(file)

images = data.validation.images[:100]
assert np.array_equal(model.predict(images, verbose=0), reloaded.predict(images, verbose=0))

# %% [markdown]
# Equal to the last bit, scaling included. For lesson 6 we keep the whole run: model, history, predictions on the
# validation images, and what it was trained on and with. `runs.save_run` writes all of it under `runs/`, or nothing.

# %%
run = runs.save_run("baseline", model, data, budget, history, seconds)
print(f"{run.folder.name}: train accuracy {run.info['train_accuracy']:.3f}, "
      f"validation accuracy {run.info['validation_accuracy']:.3f}")

# %% [markdown]
# Both accuracies are measured now, after training, in inference mode. The `accuracy` of the last epoch in the history
# is something else: an average over an epoch during which the weights changed.
#
# ## Three slips, and what Keras says
#
# Everybody makes them. Here they are made on purpose, so that you know the message when it comes uninvited. A message
# may be long: look for the line that says what was expected, and what came.
#
# **Predict first**: which of the three is found before any arithmetic is done?

# %%
few, labels = data.train.images[:8], data.train.labels[:8]
fresh = build(layers.Rescaling(1 / 255), "fresh")
slips = {
    "an image without its batch": lambda: fresh.predict(few[0], verbose=0),
    "one-hot labels, sparse loss": lambda: model.fit(few, keras.utils.to_categorical(labels, 10), verbose=0),
    "fit without compile": lambda: fresh.fit(few, labels, verbose=0),
}

# %%
said = {}
for name, slip in slips.items():
    try:
        slip()
    except ValueError as error:
        said[name] = next(line for line in str(error).splitlines() if "must" in line or "xpected" in line)
        print(f"{name}:\n    {said[name].strip()}")
assert said.keys() == slips.keys()

# %% [markdown]
# - *Expected shape (None, 32, 32, 3)*: `None` is the batch. `image[np.newaxis]` makes a batch of one. A net that has
#   predicted before may say *unknown rank* instead.
# - *rank*, *target* and *output*: labels that are numbers (n,) go with `SparseCategoricalCrossentropy`, labels that are
#   one-hot (n, 10) with `CategoricalCrossentropy`.
# - *compile*: a model that is built or loaded anew has no loss and no optimizer yet.
#
# A fourth has no message: the kernel dies, or TensorFlow says `ResourceExhausted`. That is memory. Shut down kernels
# of other lessons, take a smaller batch, and keep images `uint8` until the batch is made. And one slip is silent:
# labels of another shape or order may train without an error, and learn nothing. Which yardstick of lesson 1 tells?
#
# ## Key points
# - Put preprocessing into the model.
# - Logits out, `from_logits=True` in the loss: the softmax belongs to the loss.
# - Check the loss of the untrained net: it should be near log(number of classes).
# - Where validation loss turns up, the net has stopped learning what matters.
# - Save as `.keras`, and compare predictions after loading.
#
# ## Exercises
# 1. **A forgotten flag.** Train for one epoch with `from_logits=False`. What happens to the loss, and why does Keras
#    not complain?
# 2. **Twice the softmax.** Add `activation="softmax"` to the last layer, keep `from_logits=True`, and train for one
#    epoch. What does Keras say, and what does it do about it? Now put `layers.Rescaling(1.0)` behind that layer, which
#    hides the softmax from Keras. How low can the loss get? Work it out before you run it.
# 3. **Batch size.** Train one epoch with batches of 32 and one with batches of 512. Compare images a second, and
#    accuracy after the same number of *images*.
# 4. **Where are the parameters?** Which layer holds most of them? Replace `Flatten` by `GlobalAveragePooling2D`: what
#    happens to their number, to the time, and to the accuracy?
