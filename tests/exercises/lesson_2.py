"""Right and wrong solutions of the exercises of lesson 2; what a wrong one does wrong is in its name."""

from itertools import product

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from scipy.special import log_softmax

# --- 1 · sizes ---

SIZES = {"first convolution": (28, 28, 16), "second convolution": (14, 14, 24), "flattened": 1_176,
         "first parameters": 1_216, "last parameters": 11_770, "loss": 2.3026}
SIZES_COMPUTED = {"first convolution": [32 - 5 + 1, 32 - 5 + 1, 16],
                  "second convolution": np.array([28 // 2, 28 // 2, 24]), "flattened": 7 * 7 * 24,
                  "first parameters": (5 * 5 * 3 + 1) * 16,
                  "last parameters": np.int64((7 * 7 * 24 + 1) * 10), "loss": np.log(10)}
SIZES_ROUNDED = SIZES | {"loss": 2.3, "flattened": 1_176.0}

# --- 2 · cross_entropy ---


def entropy_by_the_largest_logit(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -logs[np.arange(len(labels)), labels].mean()


def entropy_by_scipy(logits, labels):
    return float(np.mean([-log_softmax(row)[label] for row, label in zip(logits, labels, strict=True)]))


def entropy_by_keras(logits, labels):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)


def entropy_by_tensorflow(logits, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def _softmax(logits, axis=1):
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _picked(values, labels):
    return values[np.arange(len(labels)), labels]


def softmax_that_overflows(logits, labels):
    powers = np.exp(logits)
    return -np.log(_picked(powers / powers.sum(axis=1, keepdims=True), labels)).mean()


def cut_off_by_an_epsilon(logits, labels):
    return -np.log(np.clip(_picked(_softmax(logits.astype(np.float64)), labels), 1e-30, 1)).mean()


def sum_over_images(logits, labels):
    return entropy_by_the_largest_logit(logits, labels) * len(labels)


def mean_over_classes_too(logits, labels):
    return -(np.eye(logits.shape[1])[labels] * np.log(_softmax(logits))).mean()


def sign_forgotten(logits, labels):
    return -entropy_by_the_largest_logit(logits, labels)


def softmax_over_images(logits, labels):
    return -np.log(_picked(_softmax(logits, axis=0), labels)).mean()


def softmax_taken_twice(logits, labels):
    return entropy_by_the_largest_logit(_softmax(logits), labels)


def logits_taken_for_probabilities(logits, labels):
    return -np.log(_picked(logits, labels)).mean()


def logits_taken_for_log_probabilities(logits, labels):
    return -_picked(logits, labels).mean()


def most_probable_class_in_place_of_the_label(logits, labels):
    return entropy_by_the_largest_logit(logits, logits.argmax(axis=1))


def loss_in_bits(logits, labels):
    return entropy_by_the_largest_logit(logits, labels) / np.log(2)


def logarithm_to_base_10(logits, labels):
    return entropy_by_the_largest_logit(logits, labels) / np.log(10)


def probability_without_logarithm(logits, labels):
    return 1 - _picked(_softmax(logits), labels).mean()


def one_loss_an_image(logits, labels):
    return -np.log(_picked(_softmax(logits), labels))


def nothing_returned(logits, labels):
    entropy_by_the_largest_logit(logits, labels)


# --- 3 · baseline ---


def _compiled(model, from_logits=True, loss=None):
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def _net(*last, scaling=(layers.Rescaling, 1 / 255), twice=False):
    kind, *settings = scaling
    return keras.Sequential([keras.Input((32, 32, 3)), kind(*settings), *([layers.Rescaling(1 / 255)] if twice else []),
                             layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(),
                             layers.Conv2D(16, 3, activation="relu"), layers.Flatten(), *last])


def build_sequential_with_logits():
    return _compiled(_net(layers.Dropout(0.5), layers.Dense(10, kernel_initializer="zeros")))


def build_functional_with_probabilities():
    images = keras.Input((32, 32, 3), dtype="uint8")
    x = keras.ops.cast(images, "float32") / 127.5 - 1
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, strides=2, activation="relu")(x))
    return _compiled(keras.Model(images, layers.Dense(10, activation="softmax")(x)),
                     loss="sparse_categorical_crossentropy")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.norm = layers.Conv2D(16, 3, padding="same"), layers.BatchNormalization()
        self.pool, self.flatten, self.drop = layers.MaxPooling2D(4), layers.Flatten(), layers.Dropout(0.3)
        self.last = layers.Dense(10, kernel_regularizer="l2")

    def call(self, images, training=False):
        x = keras.ops.relu(self.norm(self.first(keras.ops.cast(images, "float32") / 255), training=training))
        return self.last(self.drop(self.flatten(self.pool(x)), training=training))


def build_subclassed_with_batch_norm():
    return _compiled(Subclassed())


def build_with_a_softmax_layer():
    return _compiled(_net(layers.Dense(32, activation="relu"), layers.Dense(10), layers.Softmax()), from_logits=False)


def build_standardised():
    scaling = layers.Normalization(mean=[125, 123, 114], variance=[63**2, 62**2, 67**2])
    return _compiled(keras.Sequential([keras.Input((32, 32, 3)), scaling, layers.Flatten(), layers.Dense(10)]))


def pixels_not_scaled():
    return _compiled(_net(layers.Dense(10), scaling=(layers.Identity,)))


def pixels_not_scaled_before_a_softmax():
    return _compiled(_net(layers.Dense(10, activation="softmax"), scaling=(layers.Identity,)), from_logits=False)


def pixels_scaled_twice():
    return _compiled(_net(layers.Dense(10), twice=True))


def softmax_with_a_loss_from_logits():
    return _compiled(_net(layers.Dense(10, activation="softmax")))


def logits_with_a_loss_of_probabilities():
    return _compiled(_net(layers.Dense(10)), from_logits=False)


def loss_named_by_a_string():
    return _compiled(_net(layers.Dense(10)), loss="sparse_categorical_crossentropy")


def logits_dropped_out():
    return _compiled(_net(layers.Dense(10), layers.Dropout(0.2)))


def logits_dropped_out_before_the_softmax():
    return _compiled(_net(layers.Dense(10), layers.Dropout(0.2), layers.Softmax()), from_logits=False)


def relu_on_the_logits():
    return _compiled(_net(layers.Dense(10, activation="relu")))


def sigmoid_for_ten_classes():
    return _compiled(_net(layers.Dense(10, activation="sigmoid")), from_logits=False)


def loss_for_one_hot_labels():
    return _compiled(_net(layers.Dense(10)), loss=keras.losses.CategoricalCrossentropy(from_logits=True))


def squared_error():
    return _compiled(_net(layers.Dense(10)), loss=lambda labels, found: keras.ops.mean(
        keras.ops.square(keras.ops.one_hot(keras.ops.cast(labels, "int32"), 10) - found)))


def not_compiled():
    return _net(layers.Dense(10))


def one_output():
    return _compiled(_net(layers.Dense(1)))


# --- 4 · one_image ---


def image_by_predict(model, image):
    logits = model.predict(image[np.newaxis], verbose=0)[0]
    return int(logits.argmax()), float(_softmax(logits, axis=0).max())


def image_by_call_and_keras(model, image):
    probabilities = keras.ops.softmax(model(image[None], training=False))[0]
    return keras.ops.argmax(probabilities), keras.ops.max(probabilities)


def image_by_tensorflow(model, image):
    probabilities = tf.nn.softmax(model(tf.expand_dims(tf.cast(image, tf.float32), 0)), axis=-1).numpy()
    label = np.argmax(probabilities, axis=1)[0]
    return label, probabilities[0, label]


def _logits(model, image):
    return np.asarray(model(image[None]))[0].astype(float)


def batch_axis_forgotten(model, image):
    logits = np.asarray(model(image))
    return int(logits.argmax()), float(_softmax(logits[0], axis=0).max())


def image_scaled_once_more(model, image):
    logits = _logits(model, image / 255)
    return int(logits.argmax()), float(_softmax(logits, axis=0).max())


def model_in_training_mode(model, image):
    logits = np.asarray(model(image[None], training=True))[0]
    return int(_logits(model, image).argmax()), float(_softmax(logits, axis=0).max())


def logit_returned(model, image):
    logits = _logits(model, image)
    return int(logits.argmax()), float(logits.max())


def sigmoid_of_one_logit(model, image):
    logits = _logits(model, image)
    return int(logits.argmax()), float(1 / (1 + np.exp(-logits.max())))


def softmax_over_the_batch(model, image):
    logits = np.asarray(model(image[None]))
    return int(logits[0].argmax()), float(_softmax(logits, axis=0).max())


def softmax_of_a_softmax(model, image):
    logits = _logits(model, image)
    return int(logits.argmax()), float(_softmax(_softmax(logits, axis=0), axis=0).max())


def softmax_that_overflows_for_one_image(model, image):
    logits = _logits(model, image)
    with np.errstate(all="ignore"):
        powers = np.exp(logits)
        return int(logits.argmax()), float((powers / powers.sum())[logits.argmax()])


def least_probable_class(model, image):
    logits = _logits(model, image)
    return int(logits.argmin()), float(_softmax(logits, axis=0).max())


def second_most_probable_class(model, image):
    logits = _logits(model, image)
    return int(np.argsort(logits)[-2]), float(_softmax(logits, axis=0).max())


def probability_of_the_least(model, image):
    logits = _logits(model, image)
    return int(logits.argmax()), float(_softmax(logits, axis=0).min())


def class_name_returned(model, image):
    return "cat", image_by_predict(model, image)[1]


def class_alone(model, image):
    return int(_logits(model, image).argmax())


# --- 5 · curves ---

CURVES = {"A": "labels of other images", "B": "overfitting", "C": "learning rate too high", "D": "stopped too early",
          "best epoch": 4}

# --- 6 · rate_plan ---


def _runs(images, epochs, rates=(3e-4, 1e-3, 3e-3), seeds=(0, 1, 2), **changed):
    return [{"rate": rate, "batch": 64, "images": images, "epochs": epochs, "seed": seed, "judged_on": "validation"}
            | changed for rate, seed in product(rates, seeds)]


def plan_of_more_epochs(budget):
    return _runs(2_000, budget // (9 * 2_000))


def plan_of_more_images(budget):
    images = min(45_000, budget // 9)
    return _runs(images, budget // (9 * images))


def plan_of_more_rates_and_seeds(budget):
    seeds = range(min(3 + budget // 400_000, 8))
    rates = tuple(np.geomspace(1e-4, 1e-2, 5))
    epochs = budget // (len(rates) * len(seeds) * 600)
    return tuple(_runs(600, epochs, rates, seeds))


def plan_of_one_seed(budget):
    return _runs(2_000, budget // (3 * 2_000), seeds=(0,))


def plan_of_two_rates(budget):
    return _runs(2_000, budget // (6 * 2_000), rates=(1e-4, 1e-2))


def plan_of_near_rates(budget):
    return _runs(2_000, budget // (9 * 2_000), rates=(1e-3, 1.1e-3, 1.2e-3))


def plan_judged_on_test_images(budget):
    return _runs(2_000, budget // (9 * 2_000), judged_on="test")


def plan_judged_on_training_images(budget):
    return _runs(2_000, budget // (9 * 2_000), judged_on="train")


def plan_that_forgets_the_seeds(budget):
    return _runs(2_000, budget // (3 * 2_000))


def plan_that_forgets_the_epochs(budget):
    return _runs(min(45_000, budget // 9), 5)


def plan_for_one_budget_only(budget):
    return _runs(2_000, 5)


def plan_with_another_batch_for_each_rate(budget):
    return [run | {"batch": int(64 * run["rate"] / 3e-4)} for run in plan_of_more_epochs(budget)]


def plan_with_more_epochs_for_low_rates(budget):
    return [run | {"epochs": run["epochs"] // (1 if run["rate"] < 1e-3 else 2)} for run in plan_of_more_epochs(budget)]


def plan_with_other_seeds_for_each_rate(budget):
    return [run | {"seed": number} for number, run in enumerate(plan_of_more_epochs(budget))]


def plan_with_one_run_thrice(budget):
    return [run | {"seed": 0} for run in plan_of_more_epochs(budget)]


def plan_with_fractions_of_epochs(budget):
    return _runs(2_000, budget / (9 * 2_000))


def plan_of_more_images_than_there_are(budget):
    return _runs(budget // 9, 1)


SOLUTIONS = {
    "sizes": {
        "right": [SIZES, SIZES_COMPUTED, SIZES_ROUNDED],
        "wrong": [
            (SIZES | {"first convolution": (32, 32, 16)}, "without padding"),
            (SIZES | {"first convolution": (28, 28, 3)}, "how many filters"),
            (SIZES | {"first convolution": (None, 28, 28, 16)}, "has the shape"),
            (SIZES | {"second convolution": (12, 12, 24)}, "keeps height and width"),
            (SIZES | {"second convolution": (28, 28, 24)}, "pooling comes before it"),
            (SIZES | {"flattened": 14 * 14 * 24}, "after the second pooling"),
            (SIZES | {"first parameters": 1_200}, "one bias"),
            (SIZES | {"first parameters": 5 * 5 * 16 + 16}, "input channel"),
            (SIZES | {"last parameters": 11_760}, "a bias for each output"),
            (SIZES | {"loss": 1.0}, "which probability"),
            (SIZES | {"loss": 0.1}, "-log"),
            ({"flattened": 1_176}, "lacks 'first convolution'"),
        ],
    },
    "cross_entropy": {
        "right": [entropy_by_the_largest_logit, entropy_by_scipy, entropy_by_keras, entropy_by_tensorflow],
        "wrong": [
            (softmax_that_overflows, "no float any more"),
            (cut_off_by_an_epsilon, "is cut off"),
            (sum_over_images, "must be a mean"),
            (mean_over_classes_too, "images and classes"),
            (sign_forgotten, "wrong sign"),
            (softmax_over_images, "runs over images"),
            (softmax_taken_twice, "softmax already"),
            (logits_taken_for_probabilities, "no probabilities yet"),
            (logits_taken_for_log_probabilities, "softmax is missing"),
            (most_probable_class_in_place_of_the_label, "most probable class"),
            (loss_in_bits, "in bits"),
            (logarithm_to_base_10, "base 10"),
            (probability_without_logarithm, "logarithm of the probability is missing"),
            (one_loss_an_image, "has the shape"),
            (nothing_returned, "returned nothing"),
        ],
    },
    "baseline": {
        "right": [build_sequential_with_logits, build_functional_with_probabilities, build_subclassed_with_batch_norm,
                  build_with_a_softmax_layer, build_standardised],
        "wrong": [
            (pixels_not_scaled, "Where are they scaled"),
            (pixels_not_scaled_before_a_softmax, "Where are they scaled"),
            (pixels_scaled_twice, "How often are they scaled"),
            (softmax_with_a_loss_from_logits, "one softmax too many"),
            (logits_with_a_loss_of_probabilities, "takes them for probabilities"),
            (loss_named_by_a_string, "takes them for probabilities"),
            (logits_dropped_out, "behind the last dense layer"),
            (logits_dropped_out_before_the_softmax, "behind the last dense layer"),
            (relu_on_the_logits, "No output is ever negative"),
            (sigmoid_for_ten_classes, "do not sum to 1"),
            (loss_for_one_hot_labels, "labels from 0 to 9"),
            (squared_error, "not the cross-entropy"),
            (not_compiled, "not compiled"),
            (one_output, "must have (8, 10)"),
        ],
    },
    "one_image": {
        "right": [image_by_predict, image_by_call_and_keras, image_by_tensorflow],
        "wrong": [
            (batch_axis_forgotten, "one_image stopped with"),
            (image_scaled_once_more, "as it is, 0 to 255"),
            (model_in_training_mode, "training mode"),
            (logit_returned, "is a logit"),
            (sigmoid_of_one_logit, "a sigmoid"),
            (softmax_over_the_batch, "over which axis"),
            (softmax_of_a_softmax, "taken twice"),
            (softmax_that_overflows_for_one_image, "before exp"),
            (least_probable_class, "lowest logit"),
            (second_most_probable_class, "not the highest logit"),
            (probability_of_the_least, "another class"),
            (class_name_returned, "whole numbers"),
            (class_alone, "must return two things"),
        ],
    },
    "curves": {
        "right": [CURVES, CURVES | {"best epoch": 4.0}, {key: CURVES[key] for key in reversed(CURVES)}],
        "wrong": [
            (CURVES | {"A": "overfitting", "B": "labels of other images"}, "Run A is not a case of 'overfitting'"),
            (CURVES | {"A": "learning rate too high"}, "do the curves jump"),
            (CURVES | {"B": "stopped too early", "D": "overfitting"}, "where is the lowest validation loss"),
            (CURVES | {"C": "overfitting"}, "Run C is not a case of 'overfitting': do the curves jump"),
            (CURVES | {"D": "labels of other images"}, "does the training loss fall"),
            (CURVES | {"best epoch": 3}, "epochs count from 1"),
            (CURVES | {"best epoch": 8}, "not fitted to"),
            (CURVES | {"best epoch": [4]}, "has the shape"),
            (CURVES | {"B": "over-fitting"}, "must be one of"),
            ({"A": "labels of other images"}, "lacks run 'B'"),
        ],
    },
    "rate_plan": {
        "right": [plan_of_more_epochs, plan_of_more_images, plan_of_more_rates_and_seeds],
        "wrong": [
            (plan_of_one_seed, "too few seeds"),
            (plan_of_two_rates, "The plan has 2 learning rates"),
            (plan_of_near_rates, "too near to each other"),
            (plan_judged_on_test_images, "may choose a learning rate"),
            (plan_judged_on_training_images, "may choose a learning rate"),
            (plan_that_forgets_the_seeds, "count every run"),
            (plan_that_forgets_the_epochs, "with all its epochs"),
            (plan_for_one_budget_only, "follow from the budget"),
            (plan_with_another_batch_for_each_rate, "two causes"),
            (plan_with_more_epochs_for_low_rates, "two causes"),
            (plan_with_other_seeds_for_each_rate, "the same seeds"),
            (plan_with_one_run_thrice, "stands in the plan twice"),
            (plan_with_fractions_of_epochs, "must be a whole number"),
            (plan_of_more_images_than_there_are, "must be from 500 to 45,000"),
        ],
    },
}
