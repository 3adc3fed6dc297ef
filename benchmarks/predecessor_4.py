"""Predecessor 4: a CNN of its own, then a frozen ResNet50 with three dense layers, then "fine-tuning"; 10,000 images.

Pictures go from 32 to 64 to 224 pixels; flip, rotation and zoom; Adam at 1e-4 for 10 epochs, then at 1e-5 for 3. Its
fine-tuning unfroze nothing, and neither does this one: `--unfreeze` does what it meant, on convolutions only. Widths of
its own CNN, the shares of rotation, zoom and L2, and the batch size of 32 are not known and stand here as usual ones.
"""

import sys

import common
import keras
from keras import layers

from cifar_helpers import training, transfer

IMAGES, EPOCHS, FINE_TUNE_EPOCHS, BATCH = 10_000, 10, 3, 32


def build_own():
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.Resizing(64, 64)],
                             name="own_cnn")
    for width in (32, 64, 128):
        model.add(layers.Conv2D(width, 3, padding="same", activation="relu"))
        model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D())
        model.add(layers.Dropout(0.25))
    for layer in (layers.Flatten(), layers.Dense(128, activation="relu"), layers.BatchNormalization(),
                  layers.Dropout(0.5), layers.Dense(10, activation="softmax")):
        model.add(layer)
    return model


def build_resnet(backbone, size):
    inputs = keras.Input((32, 32, 3))
    x = layers.Resizing(size, size)(layers.Resizing(64, 64)(inputs))
    x = layers.GlobalAveragePooling2D()(backbone(transfer.preprocessing("ResNet50")(x), training=False))
    for width in (256, 128, 64):
        x = layers.Dense(width, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01))(x)
        x = layers.Dropout(0.6)(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="resnet50")


def unfreeze(backbone):
    """Make the backbone's convolutions trainable; batch normalisation stays frozen."""
    backbone.trainable = True
    for layer in backbone.layers:
        layer.trainable = isinstance(layer, layers.Conv2D)


def measure(arguments=None):
    parser = common.parser(__doc__, IMAGES, EPOCHS)
    parser.add_argument("--fine-tune-epochs", type=common.positive, default=FINE_TUNE_EPOCHS)
    parser.add_argument("--size", type=common.positive, default=224, help="pixels a side (default %(default)s)")
    parser.add_argument("--unfreeze", action="store_true", help="train the convolutions in the last phase")
    options = parser.parse_args(arguments)
    data = common.load(options.images, options.test_images, options.seed)
    augment = common.augmentation(layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.1))

    batches = training.batches(data.train, BATCH, shuffle=True, augment=augment, seed=options.seed)

    def fit(model, rate, epochs, whole, offset=0.0):
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        clock = common.Clock(offset)
        history = model.fit(batches, epochs=epochs, validation_data=training.batches(data.validation, BATCH),
                            verbose=0, shuffle=False, callbacks=[clock]).history
        return (clock, history), clock.phase(options.images, epochs, BATCH, IMAGES * whole)

    def note(name, what, model, phases, histories, epochs, **more):
        return common.record(name, what, 4, model, data, seed=options.seed, phases=phases, images=options.images,
                             history=common.joined(*histories), epochs=epochs, **more)

    own = build_own()
    curve, phase = fit(own, 1e-3, options.epochs, EPOCHS)
    records = [note("predecessor_4_own", "own CNN at 64 pixels", own, [phase], [curve], options.epochs, claimed=0.756)]

    backbone, weights = transfer.load_backbone("ResNet50", options.size)
    model = build_resnet(backbone, options.size)
    curve, phase = fit(model, 1e-4, options.epochs, EPOCHS)
    records.append(note("predecessor_4_frozen", "frozen ResNet50, deep head", model, [phase], [curve], options.epochs,
                        backbone=weights, claimed=0.8614))
    if options.unfreeze:
        unfreeze(backbone)
    more, tuning = fit(model, 1e-5, options.fine_tune_epochs, FINE_TUNE_EPOCHS, curve[0].total)
    name, what = (("predecessor_4_unfrozen", "the same, its convolutions fine-tuned") if options.unfreeze else
                  ("predecessor_4_finetuned", "the same, head trained on (nothing was unfrozen)"))
    records.append(note(name, what, model, [phase, tuning], [curve, more], options.epochs + options.fine_tune_epochs,
                        backbone=weights, main=True, claimed=None if options.unfreeze else 0.8681))
    common.leave(records, data, options.out)


if __name__ == "__main__":
    sys.exit(common.main(measure))
