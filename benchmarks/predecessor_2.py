"""Predecessor 2: a CNN with batch normalisation and dropout, 50 epochs, then 50 more with augmentation.

Adam, softmax with sparse cross-entropy, batches of 32; shifts by up to 0.1 and a horizontal flip in the second half.
Its ImageDataGenerator becomes Keras layers on each batch. Widths are chosen so that the whole training costs the
1.2 PFLOP (10^15 operations) that it is known to cost.
"""

import sys

import common
import keras
from keras import layers

from cifar_helpers import training

IMAGES, EPOCHS, BATCH = 45_000, 50, 32


def build():
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255)], name="predecessor_2")
    for width, dropout in ((32, 0.2), (64, 0.3), (128, 0.4)):
        for _ in range(2):
            model.add(layers.Conv2D(width, 3, padding="same", activation="relu"))
            model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D())
        model.add(layers.Dropout(dropout))
    for layer in (layers.Flatten(), layers.Dense(128, activation="relu"), layers.BatchNormalization(),
                  layers.Dropout(0.5), layers.Dense(10, activation="softmax")):
        model.add(layer)
    return model


def measure(arguments=None):
    parser = common.parser(__doc__, IMAGES, EPOCHS)
    parser.add_argument("--augmented-epochs", type=common.positive, default=EPOCHS)
    options = parser.parse_args(arguments)
    data = common.load(options.images, options.test_images, options.seed)
    model = build()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    validation = training.batches(data.validation, 500)

    first = common.Clock()
    plain = model.fit(data.train.images.astype("float32"), data.train.labels, batch_size=BATCH, verbose=0,
                      epochs=options.epochs, validation_data=validation, callbacks=[first]).history
    augment = common.augmentation(layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"),
                                  layers.RandomFlip("horizontal"))
    second = common.Clock(first.total)
    batches = training.batches(data.train, BATCH, shuffle=True, augment=augment, seed=options.seed)
    augmented = model.fit(batches, epochs=options.augmented_epochs, validation_data=validation, verbose=0,
                          shuffle=False, callbacks=[second]).history
    phases = [clock.phase(options.images, epochs, BATCH, IMAGES * EPOCHS)
              for clock, epochs in ((first, options.epochs), (second, options.augmented_epochs))]
    common.leave([common.record(
        "predecessor_2", "Conv-BatchNorm CNN, then augmented", 2, model, data, seed=options.seed, phases=phases,
        history=common.joined((first, plain), (second, augmented)), images=options.images,
        epochs=options.epochs + options.augmented_epochs, main=True)], data, options.out)


if __name__ == "__main__":
    sys.exit(common.main(measure))
