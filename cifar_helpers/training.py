"""Batches in, seconds out: what every training run of the course shares."""

import time

import keras
import tensorflow as tf

from cifar_helpers.data import Split


def batches(split: Split, batch_size: int = 128, shuffle: bool = False, augment=None, seed: int = 0) -> tf.data.Dataset:
    """The pipeline that lesson 1 builds: batches of (images, labels), shuffled anew each epoch where asked.

    Images stay uint8 (b, 32, 32, 3), labels are int64 (b,). `augment` maps a batch of images to a batch of images.
    """
    dataset = tf.data.Dataset.from_tensor_slices((split.images, split.labels))
    if shuffle:
        dataset = dataset.shuffle(len(split), seed=seed)
    dataset = dataset.batch(batch_size)
    if augment is not None:
        # one call at a time: random layers draw from a shared state, and parallel calls would race for it
        dataset = dataset.map(lambda images, labels: (augment(images), labels))
    return dataset.prefetch(tf.data.AUTOTUNE)


def clock() -> keras.callbacks.Callback:
    """A callback that adds to the history, as `seconds`, the time since training began at the end of each epoch."""
    begun = time.perf_counter()
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(seconds=time.perf_counter() - begun))
