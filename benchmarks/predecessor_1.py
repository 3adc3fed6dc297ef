"""Predecessor 1: a subclassed model trained by a loop of its own, 10 epochs.

Two convolutions and a dense layer of 128 with dropout, as in lesson 4, which has the same net; Adam at Keras's rate,
batches of 64, pixels divided by 255. It had no validation images: the clock stands still while they are looked at.
"""

import sys
import time

import common
import keras
import tensorflow as tf

from cifar_helpers import training
from cifar_helpers.models import SubclassedCNN

IMAGES, EPOCHS, BATCH = 45_000, 10, 64


def measure(arguments=None):
    options = common.parser(__doc__, IMAGES, EPOCHS).parse_args(arguments)
    data = common.load(options.images, options.test_images, options.seed)
    model = SubclassedCNN(name="predecessor_1")
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam()
    accuracy = keras.metrics.SparseCategoricalAccuracy()
    model(data.train.images[:1])  # creates the weights
    optimizer.build(model.trainable_variables)

    @tf.function
    def train_step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    @tf.function
    def validation_step(images, labels):
        accuracy.update_state(labels, model(images, training=False))

    batches = training.batches(data.train, BATCH, shuffle=True, seed=options.seed)
    history, seconds, startup = {"seconds": [], "validation_accuracy": []}, 0.0, None
    for _ in range(options.epochs):
        begun = time.perf_counter()
        for images, labels in batches:
            train_step(images, labels)
            startup = startup or time.perf_counter() - begun
        seconds += time.perf_counter() - begun
        accuracy.reset_state()
        for images, labels in training.batches(data.validation, 500):
            validation_step(images, labels)
        history["seconds"].append(seconds)
        history["validation_accuracy"].append(float(accuracy.result()))

    phase = {"seconds": seconds, "startup": startup, "trained": options.images * options.epochs, "batch": BATCH,
             "whole": IMAGES * EPOCHS}
    common.leave([common.record(
        "predecessor_1", "subclassed CNN, custom loop", 1, model, data, seed=options.seed, history=history,
        phases=[phase], images=options.images, epochs=options.epochs, main=True, claimed=0.7018)], data, options.out)


if __name__ == "__main__":
    sys.exit(common.main(measure))
