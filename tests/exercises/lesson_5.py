"""Right and wrong solutions of lesson 5's exercises."""

import hashlib
from collections import OrderedDict
from itertools import product
from types import MappingProxyType

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers

preprocess_input = keras.applications.resnet50.preprocess_input

# --- trainable_counts ---

COUNTS = {"nothing frozen": 9, "backbone frozen": 2, "convolutions unfrozen": 5, "a copy unfrozen": 2}
from_arrays = {key: np.int64(value) for key, value in COUNTS.items()}
from_tensors = OrderedDict((key, tf.constant(value)) for key, value in reversed(COUNTS.items()))

# --- backbone_input ---


def by_layer(images, size):
    return preprocess_input(layers.Resizing(size, size, interpolation="bicubic")(images.astype("float32")))


def by_numpy(images, size):
    rows = np.minimum(((np.arange(size) + 0.5) * 32 / size).astype(int), 31)
    return images[:, rows][:, :, rows][..., ::-1].astype("float64") - [103.939, 116.779, 123.68]


def by_tf_image(images, size):
    return preprocess_input(tf.image.resize(images, (size, size), method="area"))


def by_model(images, size):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, preprocess_input(keras.ops.image.resize(inputs, (size, size))))
    return model(images)


def preprocessed_before_resizing(images, size):
    return tf.image.resize(preprocess_input(images.astype("float32")), (size, size))


def _resized(images, size):
    return np.array(tf.image.resize(images.astype("float32"), (size, size)))


def pixels_as_they_are(images, size):
    return _resized(images, size)


def scaled_to_one(images, size):
    return _resized(images, size) / 255


def scaled_before_preprocessing(images, size):
    return preprocess_input(_resized(images / 255, size))


def scaled_after_preprocessing(images, size):
    return preprocess_input(_resized(images, size)) / 255


def preprocessed_twice(images, size):
    return preprocess_input(preprocess_input(_resized(images, size)))


def mean_without_channel_order(images, size):
    return _resized(images, size) - np.array([123.68, 116.779, 103.939])


def mean_of_blue_from_red(images, size):
    return _resized(images, size) - np.array([103.939, 116.779, 123.68])


def channels_turned_only(images, size):
    return _resized(images, size)[..., ::-1]


def of_mobilenet(images, size):
    return keras.applications.mobilenet_v2.preprocess_input(_resized(images, size))


def of_densenet(images, size):
    return keras.applications.densenet.preprocess_input(_resized(images, size))


def mean_of_the_batch(images, size):
    larger = _resized(images, size)[..., ::-1]
    return larger - larger.mean(axis=(0, 1, 2))


def not_resized(images, size):
    return preprocess_input(images.astype("float32"))


def padded(images, size):
    return preprocess_input(np.array(tf.image.resize_with_crop_or_pad(images, size, size), "float32"))


def rows_and_columns_exchanged(images, size):
    return preprocess_input(_resized(images, size).transpose(0, 2, 1, 3))


def tiled(images, size):
    repeated = np.tile(images, (1, -(-size // 32), -(-size // 32), 1))[:, :size, :size]
    return preprocess_input(repeated.astype("float32"))


def stored_as_bytes(images, size):
    return preprocess_input(_resized(images, size)).astype("int16")


# --- cached_features ---


def by_bytes(extract, name, images, cache):
    key = name, images.shape, images.tobytes()
    if key not in cache:
        cache[key] = extract(images)
    return cache[key]


def by_digest(extract, name, images, cache):
    digest = hashlib.sha256(name.encode() + np.ascontiguousarray(images).data).hexdigest()
    return cache[digest] if digest in cache else cache.setdefault(digest, tf.constant(extract(images)))


def by_comparison(extract, name, images, cache):
    for kept, features in cache.setdefault(name, []):
        if np.array_equal(kept, images):
            return features
    cache[name].append((images.copy(), extract(images)))
    return cache[name][-1][1]


def image_by_image(extract, name, images, cache):
    for image in images:
        if (name, image.tobytes()) not in cache:
            cache[name, image.tobytes()] = extract(image[np.newaxis])[0]
    return np.stack([cache[name, image.tobytes()] for image in images])


def _cached(key, extract, images, cache):
    if key not in cache:
        cache[key] = extract(images)
    return cache[key]


def key_is_the_shape(extract, name, images, cache):
    return _cached((name, images.shape), extract, images, cache)


def key_is_the_name(extract, name, images, cache):
    return _cached(name, extract, images, cache)


def key_without_the_name(extract, name, images, cache):
    return _cached(images.tobytes(), extract, images, cache)


def key_is_the_first_image(extract, name, images, cache):
    return _cached((name, len(images), images[0].tobytes()), extract, images, cache)


def key_is_the_sum(extract, name, images, cache):
    return _cached((name, len(images), int(images.sum())), extract, images, cache)


def key_is_what_is_printed(extract, name, images, cache):
    return _cached((name, str(images)), extract, images, cache)


def key_is_the_object(extract, name, images, cache):
    return _cached((name, id(images)), extract, images, cache)


def object_or_bytes(extract, name, images, cache):
    if (name, id(images), len(images)) not in cache:
        cache[name, id(images), len(images)] = by_bytes(extract, name, images, cache)
    return cache[name, id(images), len(images)]


def nothing_kept(extract, name, images, cache):
    return extract(images)


def only_the_last_kept(extract, name, images, cache):
    key = name, images.tobytes()
    if key not in cache:
        cache.clear()
    return _cached(key, extract, images, cache)


ELSEWHERE = {}


def kept_elsewhere(extract, name, images, cache):
    return by_bytes(extract, name, images, ELSEWHERE)


def images_returned(extract, name, images, cache):
    return images.reshape(len(images), -1)


def order_forgotten(extract, name, images, cache):
    key = name, tuple(sorted(image.tobytes() for image in images))
    return _cached(key, extract, images, cache)


# --- unfreeze_later ---


def _convolutions(backbone):
    return [layer for layer in backbone.layers if isinstance(layer, layers.Conv2D)]


def _compiled(model, rate, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=options.pop("from_logits", True))
    model.compile(keras.optimizers.Adam(rate), loss, **options)
    return model


def _only(chosen, model, backbone):
    backbone.trainable = True
    for layer in backbone.layers:
        layer.trainable = layer in chosen


def as_in_the_lesson(model, backbone, rate):
    convolutions = _convolutions(backbone)
    _only(convolutions[len(convolutions) // 2:], model, backbone)
    return _compiled(model, rate, metrics=["accuracy"])


def frozen_one_by_one(model, backbone, rate):
    model.trainable = True
    half, seen = len(_convolutions(backbone)) // 2, 0
    for layer in backbone.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
        elif isinstance(layer, layers.Conv2D):
            layer.trainable = seen >= half
            seen += 1
    model.compile(optimizer=keras.optimizers.Adam(learning_rate=rate),
                  loss=lambda labels, logits: keras.losses.sparse_categorical_crossentropy(labels, logits, True))
    return model


def rebuilt_around_the_backbone(model, backbone, rate):
    as_in_the_lesson(model, backbone, rate)
    inputs = keras.Input(model.input_shape[1:])
    features = layers.GlobalAveragePooling2D()(backbone(inputs, training=False))
    return _compiled(keras.Model(inputs, model.layers[-1](features)), rate)


def by_walking_backwards(model, backbone, rate):
    found = _convolutions(backbone)
    wanted = {layer.name for layer in found[len(found) // 2:]}
    backbone.trainable = True
    for layer in reversed(backbone.layers):
        if layer.name not in wanted:
            layer.trainable = False
    return _compiled(model, rate, jit_compile=False)


def only_layers_unfrozen(model, backbone, rate):
    convolutions = _convolutions(backbone)
    for layer in convolutions[len(convolutions) // 2:]:
        layer.trainable = True
    return _compiled(model, rate)


def a_copy_unfrozen(model, backbone, rate):
    return as_in_the_lesson(model, keras.models.clone_model(backbone), rate)


def a_copy_returned(model, backbone, rate):
    copy = keras.models.clone_model(backbone)
    as_in_the_lesson(model, copy, rate)
    inputs = keras.Input(model.input_shape[1:])
    features = layers.GlobalAveragePooling2D()(copy(inputs, training=False))
    return _compiled(keras.Model(inputs, model.layers[-1](features)), rate)


def not_compiled_again(model, backbone, rate):
    convolutions = _convolutions(backbone)
    _only(convolutions[len(convolutions) // 2:], model, backbone)
    return model


def only_the_rate_changed(model, backbone, rate):
    not_compiled_again(model, backbone, rate)
    model.optimizer.learning_rate = rate
    return model


def everything_unfrozen(model, backbone, rate):
    backbone.trainable = True
    return _compiled(model, rate)


def later_layers_with_batch_normalisation(model, backbone, rate):
    first = _convolutions(backbone)[len(_convolutions(backbone)) // 2]
    _only(backbone.layers[backbone.layers.index(first):], model, backbone)
    return _compiled(model, rate)


def all_convolutions_unfrozen(model, backbone, rate):
    _only(_convolutions(backbone), model, backbone)
    return _compiled(model, rate)


def early_half_unfrozen(model, backbone, rate):
    convolutions = _convolutions(backbone)
    _only(convolutions[:len(convolutions) // 2], model, backbone)
    return _compiled(model, rate)


def last_convolution_only(model, backbone, rate):
    _only(_convolutions(backbone)[-1:], model, backbone)
    return _compiled(model, rate)


def half_of_all_layers_counted(model, backbone, rate):
    later = backbone.layers[3 * len(backbone.layers) // 4:]
    _only([layer for layer in later if isinstance(layer, layers.Conv2D)], model, backbone)
    return _compiled(model, rate)


def nothing_unfrozen(model, backbone, rate):
    return _compiled(model, rate)


def head_frozen(model, backbone, rate):
    model.layers[-1].trainable = False
    return as_in_the_lesson(model, backbone, rate)


def rate_of_the_head(model, backbone, rate):
    return as_in_the_lesson(model, backbone, 1e-3)


def softmax_loss_on_logits(model, backbone, rate):
    as_in_the_lesson(model, backbone, rate)
    return _compiled(model, rate, from_logits=False)


def loss_for_one_hot_labels(model, backbone, rate):
    as_in_the_lesson(model, backbone, rate)
    model.compile(keras.optimizers.Adam(rate), keras.losses.CategoricalCrossentropy(from_logits=True))
    return model


def backbone_returned(model, backbone, rate):
    return len(as_in_the_lesson(model, backbone, rate).trainable_weights)


def nothing_returned(model, backbone, rate):
    as_in_the_lesson(model, backbone, rate)


# --- diagnosis ---

DIAGNOSIS = {"missing preprocessing": "B", "rate too high": "D", "nothing unfrozen": "A", "fine-tuned with care": "C"}
small_letters = OrderedDict((cause, f" {letter.lower()} ") for cause, letter in DIAGNOSIS.items())
with_a_remark = MappingProxyType(DIAGNOSIS | {"remark": "A costs as much an epoch as before"})

# --- resolution_plan ---


def _rows(sizes=(32, 64, 96), seeds=(1, 2, 3), **changed):
    settings = {"images": 10_000, "epochs": 20, "rate": 1e-3, "judged on": "validation"} | changed
    return [settings | {"size": size, "seed": seed} for size, seed in product(sizes, seeds)]


two_large_sizes = tuple(_rows((64, 128), range(5), images=np.int64(8_000), rate=5e-4))
as_a_table = pd.DataFrame(_rows((32, 48, 64, 96), (0, 1, 2, 3), epochs=10))
rate_changes_with_the_size = _rows((32,)) + _rows((64,), rate=1e-4)
epochs_change_with_the_size = _rows((32,), epochs=40) + _rows((64,))
fewer_images_where_they_are_dear = _rows((32,)) + _rows((96,), images=5_000)
other_seeds_for_the_second = _rows((32,), (1, 2, 3)) + _rows((64,), (4, 5, 6))
seeds_only_for_the_first = _rows((32,), (1, 2, 3)) + _rows((64,), (1,))
without_judge = [{key: value for key, value in row.items() if key != "judged on"} for row in _rows()]


SOLUTIONS = {
    "trainable_counts": {
        "right": [COUNTS, from_arrays, from_tensors],
        "wrong": [
            (COUNTS | {"nothing frozen": 13}, "no gradient"),
            (COUNTS | {"nothing frozen": 5}, "these are layers"),
            (COUNTS | {"nothing frozen": 1_602}, "these are parameters"),
            (COUNTS | {"nothing frozen": 10}, "Which convolution has a bias"),
            (COUNTS | {"nothing frozen": 7}, "'nothing frozen' is wrong"),
            (COUNTS | {"backbone frozen": 0}, "what of the head"),
            (COUNTS | {"backbone frozen": 6}, "'backbone frozen' is wrong"),
            (COUNTS | {"convolutions unfrozen": 3}, "the head is trained too"),
            (COUNTS | {"convolutions unfrozen": 9}, "batch normalisation stays frozen"),
            (COUNTS | {"convolutions unfrozen": 6}, "the biases that there are"),
            (COUNTS | {"a copy unfrozen": 9}, "which object does the model hold"),
            (COUNTS | {"a copy unfrozen": "as many as before"}, "must be one number"),
            ({"nothing frozen": 9}, "no entry 'backbone frozen'"),
            ([9, 2, 5, 2], "must be a dict"),
        ],
    },
    "backbone_input": {
        "right": [by_layer, by_numpy, by_tf_image, by_model, preprocessed_before_resizing],
        "wrong": [
            (pixels_as_they_are, "arrive as they are"),
            (scaled_to_one, "between 0 and 1"),
            (scaled_before_preprocessing, "come out nearly the same"),
            (scaled_after_preprocessing, "255th of the contrast"),
            (preprocessed_twice, "taken away twice"),
            (mean_without_channel_order, "which colour comes first"),
            (mean_of_blue_from_red, "mean of blue is taken from red"),
            (channels_turned_only, "nothing is taken away"),
            (of_mobilenet, "between -1 and 1"),
            (of_densenet, "standard deviation near 1"),
            (mean_of_the_batch, "must not depend on the other images"),
            (not_resized, "has the shape (5, 32, 32, 3)"),
            (padded, "something put around"),
            (rows_and_columns_exchanged, "rows as rows"),
            (tiled, "enlarged as a whole"),
            (stored_as_bytes, "holds int16"),
        ],
    },
    "cached_features": {
        "right": [by_bytes, by_digest, by_comparison, image_by_image],
        "wrong": [
            (key_is_the_shape, "every pixel"),
            (key_is_the_name, "every pixel"),
            (key_is_the_first_image, "every pixel"),
            (key_is_what_is_printed, "every pixel"),
            (key_is_the_sum, "depend on the order"),
            (order_forgotten, "depend on the order"),
            (key_without_the_name, "Another extractor"),
            (key_is_the_object, "what is the key made of"),
            (object_or_bytes, "changed in place"),
            (nothing_kept, "is anything kept"),
            (only_the_last_kept, "both must be kept"),
            (kept_elsewhere, "in the cache that is passed"),
            (images_returned, "shape"),
        ],
    },
    "unfreeze_later": {
        "right": [as_in_the_lesson, frozen_one_by_one, rebuilt_around_the_backbone, by_walking_backwards,
                  only_layers_unfrozen],
        "wrong": [
            (a_copy_unfrozen, "the one inside the model"),
            (a_copy_returned, "a copy of a backbone is another object"),
            (not_compiled_again, "what must follow"),
            (only_the_rate_changed, "what must follow"),
            (everything_unfrozen, "Batch normalisation is trained"),
            (later_layers_with_batch_normalisation, "Batch normalisation is trained"),
            (all_convolutions_unfrozen, "All convolutions"),
            (early_half_unfrozen, "nearer to the logits"),
            (last_convolution_only, "where does the half begin"),
            (half_of_all_layers_counted, "where does the half begin"),
            (nothing_unfrozen, "the one inside the model"),
            (head_frozen, "The head is frozen"),
            (rate_of_the_head, "learning rate is"),
            (softmax_loss_on_logits, "returns logits"),
            (loss_for_one_hot_labels, "whole-number labels"),
            (backbone_returned, "must return the model"),
            (nothing_returned, "returned nothing"),
        ],
    },
    "diagnosis": {
        "right": [DIAGNOSIS, small_letters, with_a_remark],
        "wrong": [
            (DIAGNOSIS | {"missing preprocessing": "D", "rate too high": "B"}, "'missing preprocessing' is another"),
            (DIAGNOSIS | {"missing preprocessing": "A", "nothing unfrozen": "B"}, "at which loss"),
            (DIAGNOSIS | {"rate too high": "A", "nothing unfrozen": "D"}, "'rate too high' is another"),
            (DIAGNOSIS | {"rate too high": "C", "fine-tuned with care": "D"}, "first epoch of fine-tuning"),
            (DIAGNOSIS | {"nothing unfrozen": "C", "fine-tuned with care": "A"}, "'nothing unfrozen' is another"),
            (DIAGNOSIS | {"nothing unfrozen": "B"}, "A run stands for two causes"),
            (DIAGNOSIS | {"rate too high": "E"}, "none of the runs"),
            (DIAGNOSIS | {"rate too high": 3}, "none of the runs"),
            ({"nothing unfrozen": "A"}, "no entry 'missing preprocessing'"),
            (["B", "D", "A", "C"], "must be a dict"),
        ],
    },
    "resolution_plan": {
        "right": [_rows(), two_large_sizes, as_a_table],
        "wrong": [
            (_rows((64,)), "There is one size"),
            (_rows(seeds=(2026,)), "fewer than three seeds"),
            (_rows(seeds=(1, 1, 1)), "The same training stands there twice"),
            (seeds_only_for_the_first, "fewer than three seeds"),
            (other_seeds_for_the_second, "different seeds"),
            (rate_changes_with_the_size, "rate changes"),
            (epochs_change_with_the_size, "epochs changes"),
            (fewer_images_where_they_are_dear, "images changes"),
            (_rows(**{"judged on": "test"}), "on the test images"),
            (_rows(**{"judged on": "train"}), "which split"),
            (_rows((128, 224)), "and the budget is"),
            (_rows(images=100), "at least 1,000"),
            (without_judge, "no entry 'judged on'"),
            ([], "plan is empty"),
            (_rows()[0], "must be a list"),
        ],
    },
}
