"""Predecessor 5: four models compared, none of them with preprocess_input: pixels go in as shares from 0 to 1.

Frozen ResNet50 at 32 pixels; the same with augmentation at 224, Adam at 1e-4; ResNet50 with all layers trained at
1e-3, batch normalisation included; a CNN of its own. 20 epochs each. Its head (here an average and one dense layer),
its CNN's widths, the augmentation's shares and the batch size of 32 are not known and stand here as usual ones. It
resized all pictures beforehand, into 14 GB; here they are resized batch by batch.
"""

import sys

import common
import keras
from keras import layers

from cifar_helpers import training, transfer

IMAGES, EPOCHS, BATCH = 45_000, 20, 32


def build_resnet(backbone, size, name):
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = backbone(layers.Resizing(size, size)(x) if size != 32 else x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name=name)


def build_own():
    return keras.Sequential([
        keras.Input((32, 32, 3)), layers.Rescaling(1 / 255),
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(128, 3, activation="relu"), layers.Flatten(),
        layers.Dense(128, activation="relu"), layers.Dense(10, activation="softmax"),
    ], name="own")


def measure(arguments=None):
    parser = common.parser(__doc__, IMAGES, EPOCHS)
    parser.add_argument("--large-images", type=common.positive,
                        help="training images of the model at 224 pixels (default as --images)")
    parser.add_argument("--large-epochs", type=common.positive, help="its epochs (default as --epochs)")
    parser.add_argument("--large-test-images", type=common.positive, help="its test images (default as --test-images)")
    parser.add_argument("--size", type=common.positive, default=224, help="pixels a side (default %(default)s)")
    options = parser.parse_args(arguments)
    small = common.load(options.images, options.test_images, options.seed)
    large = common.load(options.large_images or options.images, options.large_test_images or options.test_images,
                        options.seed)
    augment = common.augmentation(layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.1))

    def fitted(name, what, model, rate, data, epochs, augment=None, **more):
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        clock = common.Clock()
        history = model.fit(training.batches(data.train, BATCH, shuffle=True, augment=augment, seed=options.seed),
                            epochs=epochs, validation_data=training.batches(data.validation, BATCH), verbose=0,
                            shuffle=False, callbacks=[clock]).history
        return common.record(f"predecessor_5_{name}", what, 5, model, data, seed=options.seed, epochs=epochs,
                             history=common.joined((clock, history)), images=len(data.train),
                             phases=[clock.phase(len(data.train), epochs, BATCH, IMAGES * EPOCHS)], **more)

    backbone, weights = transfer.load_backbone("ResNet50", 32)
    records = [fitted("frozen", "frozen ResNet50 at 32 pixels, not preprocessed",
                      build_resnet(backbone, 32, "frozen"), 1e-3, small, options.epochs, backbone=weights,
                      claimed=0.42)]
    backbone, weights = transfer.load_backbone("ResNet50", options.size)
    records.append(fitted("resized", f"frozen ResNet50 at {options.size} pixels, augmented, not preprocessed",
                          build_resnet(backbone, options.size, "resized"), 1e-4, large,
                          options.large_epochs or options.epochs, augment, backbone=weights, claimed=0.20))
    backbone, weights = transfer.load_backbone("ResNet50", 32)
    backbone.trainable = True
    records.append(fitted("trained", "ResNet50 at 32 pixels, all layers trained",
                          build_resnet(backbone, 32, "trained"), 1e-3, small, options.epochs, backbone=weights,
                          main=True, claimed=0.72))
    records.append(fitted("own", "own CNN", build_own(), 1e-3, small, options.epochs, claimed=0.72))
    common.leave(records, small, options.out)


if __name__ == "__main__":
    sys.exit(common.main(measure))
