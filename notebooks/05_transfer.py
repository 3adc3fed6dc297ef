# %% [markdown]
# # 5 · Start from a net that has seen a million pictures
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your.organisation/cifar-course/blob/v1.0.0/notebooks/05_transfer.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/your.organisation/cifar-course/v1.0.0?labpath=notebooks%2F05_transfer.ipynb)
#
# > **Questions**: What do features learned on ImageNet know about CIFAR-10? What must a pretrained net be fed? When
# > does it pay to train it further?
# >
# > **You will**: resize and preprocess as the backbone expects; see what happens if you do not; extract features once;
# > train two heads on them; fine-tune the convolutions with batch normalisation frozen
#
# | Budget | Minutes on two cores | Validation accuracy, frozen and fine-tuned |
# |---|---|---|
# | `smoke` | under 1 | says nothing |
# | `laptop` | 7 | 0.85 to 0.90, 0.86 to 0.91 |
# | `full` | 21 | 0.86 to 0.91, 0.88 to 0.93 |
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

budget = start_lesson("transfer")
data = take(load_cifar10(), budget.train_images, budget.validation_images)
data

# %%
import time

import keras
import numpy as np
from keras import layers

from cifar_helpers import plots, runs, training, transfer
from cifar_helpers.evaluation import predict_logits

# %% [markdown]
# ## Why pretrained features?
#
# ResNet50 was trained on 1.3 million photographs of 1,000 kinds of things. Its early layers know edges and textures,
# its later ones wheels, fur and beaks. That knowledge is worth more than what ten thousand small pictures can teach
# from nothing. We keep the net without its last layer, the *backbone*, and train a new last layer, the *head*.
#
# Change the name to `"MobileNetV2"`, `"EfficientNetB0"` or `"DenseNet121"` to try another. `load_backbone` takes the
# file that `BACKBONE_PATH` names, else downloads Keras's ImageNet weights, and freezes the layers.

# %%
BACKBONE = "ResNet50"
backbone, weights = transfer.load_backbone(BACKBONE)
print(weights)
print(f"{len(backbone.layers)} layers, {backbone.count_params():,} parameters, "
      f"{len(backbone.trainable_weights)} of {len(backbone.weights)} tensors trainable")
assert not backbone.trainable_weights

# %% [markdown]
# ## What size?
#
# A ResNet halves the resolution five times. **Work it out first**: how large is the last feature map of a 32-pixel
# image, and of one of 96?

# %%
for size in (32, 64, 96, 128, 224):
    shape = backbone(np.zeros((1, size, size, 3))).shape
    print(f"{size:3} x {size:3} pixels -> {shape[1]} x {shape[2]} x {shape[3]:,} features")

# %% [markdown]
# At 32 pixels a single position is left, and the filters, made for objects of a hundred pixels, see a thumbnail. We
# enlarge. That adds no detail, but puts edges and parts at the size that the filters know.

# %%
picture = data.train.images[0]
methods = {"as it is": picture / 255}
for method in ("nearest", "bilinear", "bicubic"):
    larger = layers.Resizing(budget.image_size, budget.image_size, interpolation=method)(picture[np.newaxis])
    methods[method] = np.clip(larger[0], 0, 255) / 255
plots.image_grid(list(methods.values()), methods, f"Enlarged to {budget.image_size} pixels", columns=4);

# %% [markdown]
# **Look closely.** Which edges would a filter mistake for edges of the object?
#
# ## Feed it what it was fed
#
# Each backbone was trained on pixels prepared in its own way, and its `preprocess_input` does just that: for ResNet50,
# blue before red and the ImageNet mean taken away; for MobileNetV2, values from -1 to 1. It takes pixels from 0 to
# **255**. Compare what arrives with and without.

# %%
preprocess = transfer.preprocessing(BACKBONE)
pixels = data.train.images[:200].astype("float32")
kinds = {"0 to 255": pixels, "scaled to [0, 1]": pixels / 255, "preprocessed": preprocess(pixels.copy())}
for name, values in kinds.items():
    print(f"{name:17} from {values.min():7.1f} to {values.max():6.1f}, standard deviation {values.std():6.2f}")

# %% [markdown]
# A frozen backbone that gets pixels scaled to [0, 1] sees pictures with a tiny fraction of the contrast it expects: all
# of them nearly the same grey. One of the tutorials that this course replaces did that, reached 0.20, and blamed its
# augmentation. Let us build both and see.
#
# Resizing and preprocessing go *into* the model, as in lesson 2. The extractor ends in an average over positions.

# %%
def build_extractor(preprocess):
    inputs = keras.Input((32, 32, 3))
    x = layers.Resizing(budget.image_size, budget.image_size, interpolation="bicubic")(inputs)
    x = backbone(preprocess(x), training=False)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


right, wrong = build_extractor(preprocess), build_extractor(layers.Rescaling(1 / 255))

# %% [markdown]
# A frozen backbone gives the same features for the same picture every time, so we compute them once.
# `extract_features` does so in pieces, with a progress bar, and keeps them on disk: a second run finds them, and an
# interrupted one goes on where it stopped.

# %%
few = take(data, train=budget.experiment_images)
few_features = {
    "with preprocessing": transfer.extract_features(right, few.train.images, "right pixels")[0],
    "without": transfer.extract_features(wrong, few.train.images, "wrong pixels")[0],
}
for name, features in few_features.items():
    print(f"{name:20} features vary by {features.std(axis=0).mean():.4f} from picture to picture")

# %% [markdown]
# **Predict first**: the same head, the same rate of 1e-4 and 20 epochs, as in that tutorial. What does each reach?

# %%
def train_head(head, train_x, train_y, rate, epochs, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    head.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return head.fit(train_x, train_y, batch_size=128, epochs=epochs, verbose=0, **options).history


def linear_head(dropout=0.0):
    keras.utils.set_random_seed(budget.seed)
    return keras.Sequential([keras.Input(right.output_shape[1:]), layers.Dropout(dropout), layers.Dense(10)])


experiment = {name: train_head(linear_head(), features, few.train.labels, 1e-4, 20)
              for name, features in few_features.items()}
plots.compare_histories(experiment, f"What preprocessing decides ({len(few.train):,} images, training only)");

# %% [markdown]
# **Explain the difference** with the spread of the features above. Would a hundred times the learning rate rescue the
# second run, and would you ship that?
#
# ## Two heads on good features
#
# Now the real thing: more images, features once, then heads that train in seconds. One head is a single dense layer
# with dropout on its inputs. The other is a predecessor's: three dense layers, each with batch normalisation, L2 and
# dropout of 0.6.

# %%
train_features, seconds_train = transfer.extract_features(right, data.train.images, "training")
validation_features, seconds_validation = transfer.extract_features(right, data.validation.images, "validation")
feature_seconds = seconds_train + seconds_validation
print(f"{train_features.shape} and {validation_features.shape} in {feature_seconds:.0f} s")
assert train_features.shape == (len(data.train), right.output_shape[1])

# %%
def deep_head():
    keras.utils.set_random_seed(budget.seed)
    head = keras.Sequential([keras.Input(right.output_shape[1:])])
    for width in (256, 128, 64):
        head.add(layers.Dense(width, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-4)))
        head.add(layers.BatchNormalization())
        head.add(layers.Dropout(0.6))
    head.add(layers.Dense(10))
    return head


# %%
validation = (validation_features, data.validation.labels)
heads, histories, head_seconds = {"linear": linear_head(0.7), "deep": deep_head()}, {}, {}
for name, head in heads.items():
    begun = time.perf_counter()
    histories[name] = train_head(head, train_features, data.train.labels, 1e-3, budget.head_epochs,
                                 validation_data=validation, callbacks=[training.clock()])
    head_seconds[name] = time.perf_counter() - begun
    print(f"{name:6} {head.count_params():8,} parameters, {head_seconds[name]:4.1f} s, "
          f"validation accuracy {histories[name]['val_accuracy'][-1]:.3f}")

# %%
plots.compare_histories(histories, "Two heads on the same features");

# %% [markdown]
# **Compare the heads.** Does depth buy anything on features that are already good? Why does the deep head's *training*
# accuracy start below its validation accuracy?
#
# ## One model from pixels to logits
#
# For saving and for use, backbone and head become one model, preprocessing included. Its answers must be those of the
# two parts.

# %%
inputs = keras.Input((32, 32, 3))
model = keras.Model(inputs, heads["linear"](right(inputs)), name="transfer")
through_model = predict_logits(model, data.validation.images[:100])
through_features = heads["linear"].predict(validation_features[:100], verbose=0)
print(f"largest difference {abs(through_model - through_features).max():.4f}")
assert np.mean(through_model.argmax(1) == through_features.argmax(1)) > 0.95

# %%
frozen = runs.save_run(
    "transfer_frozen", model, data, budget, histories["linear"], feature_seconds + head_seconds["linear"],
    backbone=weights, train_logits=heads["linear"].predict(train_features, verbose=0),
    validation_logits=heads["linear"].predict(validation_features, verbose=0))
print(f"validation accuracy {frozen.info['validation_accuracy']:.3f} "
      f"after {frozen.info['train_seconds']:.0f} s, features included")

# %% [markdown]
# The largest difference need not be zero: where batches are cut differently, sums are rounded in another order. What
# matters is that hardly a picture changes class.
#
# ## Fine-tuning
#
# So far the backbone knows nothing of our pictures. Now its convolutions may move, with four precautions:
# 1. **The head first**, which we have: gradients from an untrained head would wreck good features.
# 2. **A rate far below** the head's: these weights are nearly right.
# 3. **Batch normalisation stays frozen**: its statistics come from millions of pictures, ours from batches of 32.
# 4. **The later half only**: early layers see edges and textures, which any picture has; later ones see what the
#    classes of ImageNet are made of. Fewer weights need fewer pictures, and gradients that stop half-way less time.
#
# And a fifth, which one predecessor missed: unfreeze the *very object* inside the model, then compile again. Theirs
# had been loaded anew, nothing was unfrozen, and the "fine-tuned" gain was three more epochs of the head. Counting
# shows it.

# %%
before = len(model.trainable_weights)
convolutions = [layer for layer in backbone.layers if isinstance(layer, layers.Conv2D)]
later = convolutions[len(convolutions) // 2:]
backbone.trainable = True
for layer in backbone.layers:
    layer.trainable = layer in later
after = len(model.trainable_weights)
print(f"{before} trainable tensors before, {after} after; "
      f"{len(later)} of {len(convolutions)} convolutions are trained, from {later[0].name} on")

assert before == 2
assert after == before + sum(len(layer.weights) for layer in later)
assert not any(layer.trainable for layer in backbone.layers if isinstance(layer, layers.BatchNormalization))

# %% [markdown]
# `DepthwiseConv2D` (in MobileNetV2 and EfficientNet) is a kind of its own and stays frozen here. Training pictures are
# flipped at random, as in lesson 3.

# %%
flip = layers.RandomFlip("horizontal")
some = take(data, train=budget.fine_tune_images)
steps = budget.fine_tune_epochs * -(-len(some.train) // 32)
warmup = steps // 5
schedule = keras.optimizers.schedules.CosineDecay(1e-6, steps - warmup, warmup_target=1.5e-4, warmup_steps=warmup)

# %%
model.compile(keras.optimizers.Adam(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
              metrics=["accuracy"])
progress = training.Progress("transfer_finetuned", model, some, budget, random=[flip], backbone=weights)
model.fit(
    training.batches(some.train, 32, shuffle=True, augment=lambda images: flip(images, training=True),
                     progress=progress),
    validation_data=training.batches(data.validation, 100), initial_epoch=progress.epoch,
    epochs=budget.fine_tune_epochs, verbose=2, shuffle=False, callbacks=[progress])
history = progress.history

# %%
finetuned = runs.save_run("transfer_finetuned", model, some, budget, history,
                          frozen.info["train_seconds"] + history["seconds"][-1], backbone=weights,
                          train_logits=predict_logits(model, some.train.images[:500]))
for run in (frozen, finetuned):
    print(f"{run.name:20} validation accuracy {run.info['validation_accuracy']:.3f}, "
          f"loss {run.info['validation_loss']:.3f}, {run.info['train_seconds']:.0f} s in all")

# %% [markdown]
# **Is that a gain?** A difference of a few validation images may be chance. What would you need to know to decide?
# Lesson 6 asks the held-out test set, with a test made for two models on the same pictures.
#
# ## Key points
# - A backbone must see pixels as in its own training: `preprocess_input`, on values from 0 to 255.
# - Small pictures are enlarged until the last feature map has several positions.
# - Frozen backbone: extract features once, cache them, train heads in seconds.
# - Fine-tune after the head, the later layers only, at a low rate, with batch normalisation frozen and the model
#   compiled again.
# - Count the trainable tensors before and after. It takes one line.
#
# ## Exercises
# 1. **Another backbone.** Set `BACKBONE = "MobileNetV2"`. Compare accuracy, seconds and parameters with ResNet50.
# 2. **Size against time.** Extract features for 1,000 images at 32, 64, 96 and 128 pixels. Plot the accuracy of a
#    linear head against the seconds that the features cost.
# 3. **Unfreeze more.** Train all convolutions on as many pictures, then batch normalisation as well. Watch the
#    validation loss after the first epoch, and the time.
# 4. **The wrong object.** Load the backbone once more, unfreeze *that*, and count the model's trainable tensors.
