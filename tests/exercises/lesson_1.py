"""Right and wrong solutions of the exercises of lesson 1; what a wrong one does wrong is in its name."""

from itertools import product

import numpy as np
import tensorflow as tf
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import StandardScaler

from cifar_helpers import training
from cifar_helpers.data import Split

# --- 1 · predicted ---

PREDICTED = {"megabytes": 138.24, "batches": 352, "last batch": 72, "farthest": 9, "brighter": [15, 210, 4],
             "divided": [0, 0, 1]}
PREDICTED_BY_NUMPY = {
    "megabytes": np.empty((100, 32, 32, 3), np.uint8).nbytes * 450 / 1e6, "batches": int(np.ceil(45_000 / 128)),
    "last batch": 45_000 % 128, "farthest": np.int64(9), "brighter": np.array([5, 200, 250], np.uint8) + np.uint8(10),
    "divided": np.array([0, 128, 255], np.uint8) // 255}
PREDICTED_ROUNDED = {"megabytes": 138, "batches": 352.0, "last batch": 72, "farthest": 9, "brighter": (15, 210, 4),
                     "divided": (0, 0, 1)}

# --- 2 · ranges ---

RANGES = {"A": "scaled twice", "B": "bytes", "C": "integer division", "D": "standardised", "E": "off by one",
          "F": "scaled once"}

# --- 3 · standardised ---


def standardised_with_numpy(train, validation):
    mean, deviation = train.mean(axis=(0, 1, 2)), train.std(axis=(0, 1, 2))
    return (train - mean) / deviation, (validation - mean) / deviation


def standardised_after_scaling_in_float32(train, validation):
    train, validation = train.astype(np.float32) / 255, validation.astype(np.float32) / 255
    mean, deviation = train.reshape(-1, 3).mean(axis=0), train.reshape(-1, 3).std(axis=0)
    return [(part - mean) / (deviation + 1e-7) for part in (train, validation)]


def standardised_with_sklearn(train, validation):
    scaler = StandardScaler().fit(train.reshape(-1, 3))
    return tuple(scaler.transform(part.reshape(-1, 3)).reshape(part.shape) for part in (train, validation))


def standardised_channel_by_channel(train, validation):
    results = []
    for part in (train, validation):
        result = np.empty(part.shape, np.float32)
        for channel in range(3):
            values = train[..., channel].astype(float)
            result[..., channel] = (part[..., channel] - values.mean()) / values.std(ddof=1)
        results.append(result)
    return tuple(results)


def validation_by_its_own_statistics(train, validation):
    return tuple((part - part.mean((0, 1, 2))) / part.std((0, 1, 2)) for part in (train, validation))


def statistics_of_both_splits(train, validation):
    both = np.concatenate([train, validation])
    return tuple((part - both.mean((0, 1, 2))) / both.std((0, 1, 2)) for part in (train, validation))


def one_mean_for_all_channels(train, validation):
    return tuple((part - train.mean()) / train.std() for part in (train, validation))


def statistics_of_each_position(train, validation):
    return tuple((part - train.mean(0)) / train.std(0) for part in (train, validation))


def statistics_of_each_image(train, validation):
    return tuple((part - part.mean((1, 2), keepdims=True)) / part.std((1, 2), keepdims=True)
                 for part in (train, validation))


def mean_subtracted_in_uint8(train, validation):
    mean, deviation = train.mean((0, 1, 2)).astype(np.uint8), train.std((0, 1, 2))
    return (train - mean) / deviation, (validation - mean) / deviation


def divided_by_the_variance(train, validation):
    mean, variance = train.mean((0, 1, 2)), train.var((0, 1, 2))
    return (train - mean) / variance, (validation - mean) / variance


def divided_without_subtracting(train, validation):
    deviation = train.std((0, 1, 2))
    return train / deviation, validation / deviation


def validation_left_as_it_was(train, validation):
    return (train - train.mean((0, 1, 2))) / train.std((0, 1, 2)), validation.astype(float)


def rounded_to_bytes(train, validation):
    return tuple(np.rint(part).astype(np.uint8) for part in standardised_with_numpy(train, validation))


def splits_swapped(train, validation):
    return standardised_with_numpy(train, validation)[::-1]


def training_images_only(train, validation):
    return standardised_with_numpy(train, validation)[0]


# --- 4 · pipeline ---


def pipeline_of_slices(images, labels, batch_size):
    return tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).batch(batch_size).prefetch(1)


def pipeline_of_numbers(images, labels, batch_size):
    numbers = tf.data.Dataset.range(len(labels)).shuffle(len(labels), seed=3).batch(batch_size)
    return numbers.map(lambda chosen: (tf.gather(tf.cast(images, tf.float32), chosen), tf.gather(labels, chosen)))


def pipeline_of_the_course(images, labels, batch_size):
    return training.batches(Split(images, labels), batch_size, shuffle=True)


class Passes:
    """A pipeline in NumPy alone: every pass draws an order of its own, of `numbers(rng, count)`."""

    def __init__(self, images, labels, size, numbers=lambda rng, count: rng.permutation(count)):
        self.images, self.labels, self.size, self.numbers = images, labels, size, numbers
        self.rng = np.random.default_rng()

    def __iter__(self):
        order = self.numbers(self.rng, len(self.labels))
        for start in range(0, len(order), self.size):
            chosen = order[start:start + self.size]
            yield self.images[chosen], self.labels[chosen]


def images_and_labels_shuffled_apart(images, labels, batch_size):
    parts = [tf.data.Dataset.from_tensor_slices(part).shuffle(len(part)) for part in (images, labels)]
    return tf.data.Dataset.zip(*parts).batch(batch_size)


def batched_before_shuffled(images, labels, batch_size):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size).shuffle(len(images))


def buffer_too_small(images, labels, batch_size):
    return tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(batch_size).batch(batch_size)


def same_order_at_every_pass(images, labels, batch_size):
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    return dataset.shuffle(len(images), seed=0, reshuffle_each_iteration=False).batch(batch_size)


def not_shuffled(images, labels, batch_size):
    return Passes(images, labels, batch_size, lambda rng, count: np.arange(count))


def last_batch_dropped(images, labels, batch_size):
    return Passes(images, labels, batch_size, lambda rng, count: rng.permutation(count)[:count - count % batch_size])


def drawn_with_replacement(images, labels, batch_size):
    return Passes(images, labels, batch_size, lambda rng, count: rng.integers(0, count, count))


def repeated_without_end(images, labels, batch_size):
    return tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).repeat().batch(batch_size)


def scaled_in_the_pipeline(images, labels, batch_size):
    return Passes(images / np.float32(255), labels, batch_size)


def without_batches(images, labels, batch_size):
    return tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images))


def arrays_shuffled_in_place(images, labels, batch_size):
    order = np.random.default_rng().permutation(len(labels))
    images[:], labels[:] = images[order], labels[order]
    return Passes(images, labels, batch_size)


def a_generator_for_one_pass(images, labels, batch_size):
    return iter(Passes(images, labels, batch_size))


# --- 5 · choose_and_report ---


def chosen_by_sorting(models, validation, test):
    def accuracy(model, split):
        return np.mean(model(split[0]) == split[1])

    name = sorted(models, key=lambda name: accuracy(models[name], validation))[-1]
    return name, accuracy(models[name], test)


def chosen_with_sklearn(models, validation, test):
    scores = {name: accuracy_score(validation[1], model(validation[0])) for name, model in models.items()}
    name = max(scores, key=scores.get)
    return name, accuracy_score(test[1], models[name](test[0]))


def chosen_in_a_loop(models, validation, test):
    best_name, best_count = None, -1
    for name, model in models.items():
        count = int((model(validation[0]) == validation[1]).sum())
        if count > best_count:
            best_name, best_count = name, count
    guesses = models[best_name](test[0])
    return [best_name, float(sum(guesses == test[1]) / len(guesses))]


def _share(model, split):
    return float(np.mean(model(split[0]) == split[1]))


def chosen_by_the_test_images(models, validation, test):
    name = max(models, key=lambda name: _share(models[name], test))
    return name, _share(models[name], test)


def chosen_by_both_splits(models, validation, test):
    name = max(models, key=lambda name: _share(models[name], validation) + 3 * _share(models[name], test))
    return name, _share(models[name], test)


def validation_accuracy_reported(models, validation, test):
    name = max(models, key=lambda name: _share(models[name], validation))
    return name, _share(models[name], validation)


def best_test_accuracy_reported(models, validation, test):
    name = max(models, key=lambda name: _share(models[name], validation))
    return name, max(_share(model, test) for model in models.values())


def all_models_see_the_test_images(models, validation, test):
    scores = {name: (_share(model, validation), _share(model, test)) for name, model in models.items()}
    name = max(scores, key=lambda name: scores[name][0])
    return name, scores[name][1]


def the_worst_is_chosen(models, validation, test):
    name = "model C" if len(models) == 3 else "model B"
    return name, _share(models[name], test)


def percent_reported(models, validation, test):
    name, accuracy = chosen_with_sklearn(models, validation, test)
    return name, 100 * accuracy


def number_instead_of_name(models, validation, test):
    scores = [_share(model, validation) for model in models.values()]
    return int(np.argmax(scores)), _share(list(models.values())[int(np.argmax(scores))], test)


def name_alone(models, validation, test):
    return chosen_with_sklearn(models, validation, test)[0]


def errors_counted_as_hits(models, validation, test):
    name, accuracy = chosen_with_sklearn(models, validation, test)
    return name, 1 - accuracy


# --- 6 · colour_plan ---


def _run(features="colour", seed=0, **changed):
    return {"features": features, "images": 1_000, "C": 1e-4, "seed": seed, "scored_on": "validation"} | changed


PLAN = [_run(features, seed) for features in ("colour", "grey") for seed in range(3)]
PLAN_OF_MANY_SEEDS = [_run(features, seed, images=300, C=1)
                      for features, seed in product(("grey", "colour"), range(10))]
PLAN_WITH_OTHER_SEEDS = tuple(_run(features, seed, images=500)
                              for seed in (2026, 7, 41, 5) for features in ("grey", "colour"))


SOLUTIONS = {
    "predicted": {
        "right": [PREDICTED, PREDICTED_BY_NUMPY, PREDICTED_ROUNDED],
        "wrong": [
            (PREDICTED | {"megabytes": 46.08}, "all three colours"),  # one value a pixel
            (PREDICTED | {"megabytes": 552.96}, "bytes of one uint8"),  # as float32
            (PREDICTED | {"batches": 351}, "do not fill one"),
            (PREDICTED | {"last batch": 128}, "full batches leave over"),
            (PREDICTED | {"farthest": 10}, "counted from 0"),
            (PREDICTED | {"farthest": 44_999}, "in the buffer"),
            (PREDICTED | {"brighter": [15, 210, 260]}, "too large for one"),
            (PREDICTED | {"brighter": [15, 210, 255]}, "too large for one"),  # clipped
            (PREDICTED | {"divided": [0, 0.5, 1]}, "whole numbers"),
            (PREDICTED | {"divided": [0, 1, 1]}, "whole numbers"),  # rounded
            (PREDICTED | {"divided": 0}, "has the shape"),
            ({"megabytes": 138.24}, "lacks 'batches'"),
            (list(PREDICTED.values()), "must be a dict"),
        ],
    },
    "ranges": {
        "right": [RANGES, dict(sorted(RANGES.items(), reverse=True)),
                  {letter: np.str_(name) for letter, name in RANGES.items()}],
        "wrong": [
            (RANGES | {"A": "scaled once"}, "Panel A cannot be 'scaled once': look at its largest value"),
            (RANGES | {"A": "integer division"}, "Panel A"),
            (RANGES | {"B": "off by one", "E": "bytes"}, "Panel B cannot be 'off by one': look at its smallest value"),
            (RANGES | {"C": "scaled once", "F": "integer division"}, "how many different values"),
            (RANGES | {"D": "scaled once"}, "Panel D cannot be 'scaled once': look at its smallest value"),
            (RANGES | {"F": "standardised"}, "Panel F"),
            (RANGES | {"E": "bytes"}, "Panel E cannot be 'bytes'"),
            (RANGES | {"B": "raw"}, "must be one of"),
            ({"A": "scaled twice"}, "lacks panel 'B'"),
            (list(RANGES.values()), "must be a dict"),
        ],
    },
    "standardised": {
        "right": [standardised_with_numpy, standardised_after_scaling_in_float32, standardised_with_sklearn,
                  standardised_channel_by_channel],
        "wrong": [
            (validation_by_its_own_statistics, "statistics of their own"),
            (statistics_of_both_splits, "training and validation images together"),
            (one_mean_for_all_channels, "each channel by itself"),
            (statistics_of_each_position, "Each pixel position"),
            (statistics_of_each_image, "Each image has mean 0"),
            (mean_subtracted_in_uint8, "no values below 0"),
            (divided_by_the_variance, "by what must be divided"),
            (divided_without_subtracting, "what has to be subtracted"),
            (validation_left_as_it_was, "same subtraction and division"),
            (rounded_to_bytes, "fractions (float)"),
            (splits_swapped, "The first array has the shape"),
            (training_images_only, "must return two arrays"),
        ],
    },
    "pipeline": {
        "right": [pipeline_of_slices, pipeline_of_numbers, pipeline_of_the_course, Passes],
        "wrong": [
            (images_and_labels_shuffled_apart, "label of another image"),
            (batched_before_shuffled, "images or whole batches"),
            (buffer_too_small, "how many images does the buffer hold"),
            (same_order_at_every_pass, "a new pass needs a new one"),
            (not_shuffled, "Nothing is shuffled"),
            (last_batch_dropped, "do not fill"),
            (drawn_with_replacement, "with replacement"),
            (repeated_without_end, "one pass must be one epoch"),
            (scaled_in_the_pipeline, "the model scales them"),
            (without_batches, "without a batch axis"),
            (arrays_shuffled_in_place, "not in place"),
            (a_generator_for_one_pass, "once only"),
        ],
    },
    "choose_and_report": {
        "right": [chosen_by_sorting, chosen_with_sklearn, chosen_in_a_loop],
        "wrong": [
            (chosen_by_the_test_images, "best on the test images"),
            (chosen_by_both_splits, "best on the test images"),
            (validation_accuracy_reported, "flatter"),
            (best_test_accuracy_reported, "not the chosen model's share"),
            (all_models_see_the_test_images, "only the chosen one may"),
            (the_worst_is_chosen, "highest validation accuracy"),
            (percent_reported, "from 0 to 1"),
            (number_instead_of_name, "a key of models"),
            (name_alone, "must return two things"),
            (errors_counted_as_hits, "right answers on the test images"),
        ],
    },
    "colour_plan": {
        "right": [PLAN, PLAN_OF_MANY_SEEDS, PLAN_WITH_OTHER_SEEDS],
        "wrong": [
            ([_run(features, seed, scored_on="test") for features, seed in product(("colour", "grey"), range(3))],
             "which images may answer"),
            ([_run(features) for features in ("colour", "grey")], "too few seeds"),
            ([_run("colour", seed) for seed in range(3)] + [_run("grey", seed) for seed in range(3, 6)],
             "do not have the same seeds"),
            ([_run("colour", seed) for seed in range(3)] + [_run("grey", seed, C=1.0) for seed in range(3)],
             "two causes"),
            ([_run("colour", seed, images=900) for seed in range(3)] + [_run("grey", seed) for seed in range(3)],
             "two causes"),
            ([_run("colour", seed) for seed in range(6)], "with what is it compared"),
            ([_run(features, seed) for features, seed in product(("colour", "grey"), range(4))], "the budget is"),
            ([_run(features, 0) for features, _ in product(("colour", "grey"), range(3))], "stands in the plan twice"),
            ([_run(features, seed, images=50) for features, seed in product(("colour", "grey"), range(3))],
             "must have 200 to"),
            ([_run("gray", seed) for seed in range(3)], "'colour' or 'grey'"),
            ([{"features": "colour", "images": 500}], "must be a dict with exactly"),
            ([_run(features, None) for features in ("colour", "grey")], "must be whole numbers"),
            ([], "has none"),
        ],
    },
}
