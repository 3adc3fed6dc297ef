"""Predecessor 5's accuracy of 0.20 as its cause, beside the one-line cure.

A frozen ResNet50, one dense layer, Adam at 1e-4, 20 epochs, as there; once on pixels from 0 to 1, once with
`preprocess_input`. The net is frozen and the pictures are not changed, so its features are computed once an image.
"""

import sys
import time

import common
import keras
import numpy as np
from keras import layers

from cifar_helpers import training, transfer

EPOCHS, BATCH = 20, 32


def measure(arguments=None):
    parser = common.parser(__doc__, 1_000, EPOCHS)
    parser.add_argument("--size", type=common.positive, default=96, help="pixels a side (default %(default)s)")
    options = parser.parse_args(arguments)
    data = common.load(options.images, options.test_images, options.seed)
    backbone, weights = transfer.load_backbone("ResNet50", options.size)

    def trained(name, what, prepare, **more):
        keras.utils.set_random_seed(options.seed)
        inputs = keras.Input((32, 32, 3))
        x = backbone(prepare(layers.Resizing(options.size, options.size)(inputs)), training=False)
        extractor = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
        head = keras.Sequential([keras.Input(extractor.output_shape[1:]), layers.Dense(10, activation="softmax")])
        head.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
        begun = time.perf_counter()
        features = [np.concatenate([extractor.predict_on_batch(images)
                                    for images, _ in training.batches(split, 50)])
                    for split in (data.train, data.validation)]
        clock = common.Clock(time.perf_counter() - begun)
        history = head.fit(features[0], data.train.labels, batch_size=BATCH, epochs=options.epochs, verbose=0,
                           validation_data=(features[1], data.validation.labels), callbacks=[clock]).history
        return common.record(name, what, 5, keras.Model(inputs, head(extractor(inputs))), data, seed=options.seed,
                             history=common.joined((clock, history)), images=options.images, epochs=options.epochs,
                             seconds=clock.seconds[-1], fraction=1.0, backbone=weights, **more)

    common.leave([
        trained("preprocessing_missing", "frozen ResNet50 on pixels from 0 to 1", layers.Rescaling(1 / 255),
                claimed=0.20),
        trained("preprocessing_cured", "the same with preprocess_input", transfer.preprocessing("ResNet50")),
    ], data, options.out)


if __name__ == "__main__":
    sys.exit(common.main(measure))
