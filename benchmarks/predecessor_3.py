"""Predecessor 3: the Sequential baseline on arrays of raw pixels, batches of 32, 10 epochs of Adam.

`--scale` divides pixels by 255, which it did not.
"""

import sys

import common
import keras
from keras import layers

from cifar_helpers import training

IMAGES, EPOCHS, BATCH = 45_000, 10, 32


def build(first_layer):
    return keras.Sequential([
        keras.Input((32, 32, 3)), first_layer,
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.Flatten(),
        layers.Dense(64, activation="relu"), layers.Dense(10),
    ], name="predecessor_3")


def measure(arguments=None):
    parser = common.parser(__doc__, IMAGES, EPOCHS)
    parser.add_argument("--scale", action="store_true", help="divide pixels by 255")
    options = parser.parse_args(arguments)
    data = common.load(options.images, options.test_images, options.seed)
    model = build(layers.Rescaling(1 / 255) if options.scale else layers.Identity())
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    clock = common.Clock()
    history = model.fit(data.train.images.astype("float32"), data.train.labels, batch_size=BATCH, verbose=0,
                        epochs=options.epochs, validation_data=training.batches(data.validation, 500),
                        callbacks=[clock]).history
    name, pixels = ("predecessor_3_scaled", "scaled") if options.scale else ("predecessor_3", "raw")
    common.leave([common.record(
        name, f"Sequential CNN on {pixels} pixels", 3, model, data, seed=options.seed,
        history=common.joined((clock, history)), images=options.images, epochs=options.epochs,
        phases=[clock.phase(options.images, options.epochs, BATCH, IMAGES * EPOCHS)], main=True,
        claimed=None if options.scale else 0.6548)], data, options.out)


if __name__ == "__main__":
    sys.exit(common.main(measure))
