"""Right and wrong solutions of lesson 4's exercises; a wrong one's name, or its line, says what is wrong with it."""

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from cifar_helpers.checks.lesson_4 import IDEAS

# --- exercise 1: costs ---

COSTS = {"steps": 12, "traces": 2, "arithmetic": 0.5625, "lowest loss": 0.5003}

costs = {
    "right": [COSTS,
              {"steps": 3 * int(np.ceil(400 / 128)), "traces": 2.0, "arithmetic": (24 / 32) ** 2,
               "lowest loss": -(0.91 * np.log(0.91) + 9 * 0.01 * np.log(0.01))},
              {"steps": tf.constant(12), "traces": np.int64(2), "arithmetic": tf.constant(0.56),
               "lowest loss": keras.losses.CategoricalCrossentropy()([[0.91] + [0.01] * 9], [[0.91] + [0.01] * 9])}],
    "wrong": [
        ({**COSTS, "steps": 9}, "left over make a batch"), ({**COSTS, "steps": 9.375}, "a step is whole"),
        ({**COSTS, "steps": 4}, "that is one epoch"), ({**COSTS, "steps": 1200}, "counts images"),
        ({**COSTS, "traces": 1}, "one shape of batch"), ({**COSTS, "traces": 12}, "used again"),
        ({**COSTS, "arithmetic": 0.75}, "both are shorter"), ({**COSTS, "arithmetic": 1}, "at every pixel"),
        ({**COSTS, "lowest loss": 0}, "no prediction reaches"),
        ({**COSTS, "lowest loss": -np.log(0.91)}, "nine other classes"),
        ({**COSTS, "lowest loss": -np.log(0.9)}, "over all ten classes"),
        ({**COSTS, "lowest loss": np.log(10)}, "without an opinion"),
        ({**COSTS, "lowest loss": "low"}, "must be a number"), ({"steps": 12}, "no entry 'traces'"),
    ],
}

# --- exercise 2: epoch ---


def step(model, optimizer, loss_function, images, labels, training=True):
    with tf.GradientTape() as tape:
        logits = model(images, training=training)
        loss = loss_function(labels, logits)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return loss, logits


def read(metrics, reset=True):
    values = [float(metric.result()) for metric in metrics]
    for metric in metrics if reset else ():
        metric.reset_state()
    return values


def update(metrics, loss, labels, logits):
    metrics[0].update_state(loss)
    metrics[1].update_state(labels, logits)


def epoch(model, optimizer, loss_function, metrics, train_batches, validation_batches, *, first_reset=True,
          reset_between=True, training=True, validating=False, repeat=1, learn_from_validation=False):
    """A right epoch; the options make it wrong."""
    if first_reset:
        read(metrics)
    for images, labels in train_batches:
        for _ in range(repeat):
            loss, logits = step(model, optimizer, loss_function, images, labels, training)
        update(metrics, loss, labels, logits)
    loss, accuracy = read(metrics, reset_between)
    for images, labels in validation_batches:
        if learn_from_validation:
            val_loss, logits = step(model, optimizer, loss_function, images, labels)
        else:
            logits = model(images, training=validating)
            val_loss = loss_function(labels, logits)
        update(metrics, val_loss, labels, logits)
    val_loss, val_accuracy = read(metrics)
    return {"loss": loss, "accuracy": accuracy, "val_loss": val_loss, "val_accuracy": val_accuracy}


def epoch_in_graphs(model, optimizer, loss_function, metrics, train_batches, validation_batches):
    optimizer.build(model.trainable_variables)
    train_step = tf.function(lambda images, labels: step(model, optimizer, loss_function, images, labels))
    look = tf.function(lambda images: model(images, training=False))
    values = []
    for batches in (train_batches, validation_batches):
        for metric in metrics:
            metric.reset_state()
        for images, labels in batches:
            if batches is train_batches:
                loss, logits = train_step(images, labels)
            else:
                logits = look(images)
                loss = loss_function(labels, logits)
            update(metrics, loss, labels, logits)
        values += [metric.result() for metric in metrics]
    return dict(zip(("loss", "accuracy", "val_loss", "val_accuracy"), values, strict=True))


def epoch_without_metric_objects(model, optimizer, loss_function, metrics, train_batches, validation_batches):
    history = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
    for images, labels in train_batches:
        loss, logits = step(model, optimizer, loss_function, images, labels)
        history["loss"].append(float(loss))
        history["accuracy"].append(np.mean(np.argmax(logits, axis=1) == labels))
    for images, labels in validation_batches:
        logits = model(images)
        history["val_loss"].append(float(loss_function(labels, logits)))
        history["val_accuracy"].append(np.mean(np.argmax(logits, axis=1) == labels))
    return {key: np.mean(values) for key, values in history.items()}


def training_forgotten(*arguments):
    return epoch(*arguments, training=False)


def training_in_validation(*arguments):
    return epoch(*arguments, validating=True)


def no_reset_before(*arguments):
    return epoch(*arguments, first_reset=False)


def no_reset_between(*arguments):
    return epoch(*arguments, reset_between=False)


def gradients_applied_twice(model, optimizer, loss_function, metrics, train_batches, validation_batches):
    read(metrics)
    for images, labels in train_batches:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = loss_function(labels, logits)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        optimizer.apply(gradients, model.trainable_variables)
        update(metrics, loss, labels, logits)
    loss, accuracy = read(metrics)
    values = epoch(model, optimizer, loss_function, metrics, [], validation_batches)
    return values | {"loss": loss, "accuracy": accuracy}


def learns_from_validation(*arguments):
    return epoch(*arguments, learn_from_validation=True)


def never_applied(model, optimizer, loss_function, metrics, train_batches, validation_batches):
    return epoch(model, keras.optimizers.SGD(0.0), loss_function, metrics, train_batches, validation_batches)


def first_batch_only(model, optimizer, loss_function, metrics, train_batches, validation_batches):
    return epoch(model, optimizer, loss_function, metrics, train_batches[:1], validation_batches)


def validates_first(model, optimizer, loss_function, metrics, train_batches, validation_batches):
    before = epoch(model, optimizer, loss_function, metrics, [], validation_batches)
    after = epoch(model, optimizer, loss_function, metrics, train_batches, [])
    return after | {key: before[key] for key in ("val_loss", "val_accuracy")}


def per_cent(*arguments):
    values = epoch(*arguments)
    return values | {"accuracy": 100 * values["accuracy"]}


def loss_of_the_last_batch(model, optimizer, loss_function, metrics, train_batches, validation_batches):
    values = epoch(model, optimizer, loss_function, metrics, train_batches, validation_batches)
    images, labels = train_batches[-1]
    return values | {"loss": loss_function(labels, model(images, training=True))}


def validation_without_accuracy(*arguments):
    return {key: value for key, value in epoch(*arguments).items() if key != "val_accuracy"}


def no_accuracy_in_validation(*arguments):
    return epoch(*arguments) | {"val_accuracy": 0.0}


def as_handed_out(*arguments):
    return epoch(*arguments, first_reset=False, reset_between=False, training=False, repeat=2,
                 learn_from_validation=True)


def nothing_returned(*arguments):
    epoch(*arguments)


epoch_solutions = {
    "right": [epoch, epoch_in_graphs, epoch_without_metric_objects],
    "wrong": [
        (training_forgotten, "trained in inference mode"), (training_in_validation, "validates in training mode"),
        (no_reset_before, "in the metrics before the epoch"), (no_reset_between, "metrics in between"),
        (gradients_applied_twice, "twice as far"), (learns_from_validation, "learned from the validation batches"),
        (never_applied, "weights are as they were"), (first_batch_only, "Only the first batch"),
        (validates_first, "Validation ran before training"), (per_cent, "not per cent"),
        (loss_of_the_last_batch, "all of them?"), (validation_without_accuracy, "no entry 'val_accuracy'"),
        (no_accuracy_in_validation, "val_accuracy is 0.000"), (nothing_returned, "returned nothing"),
        (as_handed_out, "for which batches"),
    ],
}

# --- exercise 3: accumulate ---


def accumulate(model, optimizer, loss_function, batches, *, training=True, weigh=None, divide=None):
    """One step for all batches; `weigh` and `divide` make it wrong: the weight of a batch, and of what to divide by."""
    weigh = weigh or (lambda number, labels: len(labels))
    total, loss_sum, sizes = None, 0.0, []
    for number, (images, labels) in enumerate(batches):
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(images, training=training))
        gradients = tape.gradient(loss, model.trainable_variables)
        weighted = [weigh(number, labels) * gradient for gradient in gradients]
        total = weighted if total is None else [a + b for a, b in zip(total, weighted, strict=True)]
        loss_sum += float(loss) * len(labels)
        sizes.append(len(labels))
    count = divide(sizes) if divide else sum(sizes)
    mean = [gradient / count for gradient in total]
    optimizer.apply_gradients(zip(mean, model.trainable_variables, strict=True))
    return loss_sum / sum(sizes)


def accumulate_in_variables(model, optimizer, loss_function, batches):
    sums = [tf.Variable(tf.zeros(weight.shape)) for weight in model.trainable_variables]
    count, loss_sum = sum(len(labels) for _, labels in batches), 0.0
    for images, labels in batches:
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(images, training=True)) * len(labels) / count
        for one, gradient in zip(sums, tape.gradient(loss, model.trainable_variables), strict=True):
            one.assign_add(gradient)
        loss_sum += loss
    optimizer.apply([one.value() for one in sums], model.trainable_variables)
    return loss_sum


def accumulate_running_mean(model, optimizer, loss_function, batches):
    mean, mean_loss, seen = None, 0.0, 0
    for images, labels in batches:
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(images, training=True))
        gradients = [gradient.numpy() for gradient in tape.gradient(loss, model.trainable_variables)]
        seen += len(labels)
        share = len(labels) / seen
        mean = mean or [0] * len(gradients)
        mean = [(1 - share) * a + share * b for a, b in zip(mean, gradients, strict=True)]
        mean_loss = (1 - share) * mean_loss + share * loss.numpy()
    optimizer.apply_gradients(zip(map(tf.constant, mean), model.trainable_variables, strict=True))
    return mean_loss


def gradients_added(*arguments):
    return accumulate(*arguments, weigh=lambda number, labels: 1, divide=lambda sizes: 1)


def batches_weighted_alike(*arguments):
    return accumulate(*arguments, weigh=lambda number, labels: 1, divide=len)


def last_batch_alone(*arguments):
    return accumulate(*arguments, weigh=lambda number, labels: float(number == 3), divide=lambda sizes: 1)


def last_batch_divided(*arguments):
    return accumulate(*arguments, weigh=lambda number, labels: float(number == 3), divide=len)


def divided_by_images_twice(*arguments):
    return accumulate(*arguments, weigh=lambda number, labels: 1)


def never_divided(*arguments):
    return accumulate(*arguments, divide=lambda sizes: 1)


def inference_mode(*arguments):
    return accumulate(*arguments, training=False)


def a_step_a_batch(model, optimizer, loss_function, batches):
    losses = [step(model, optimizer, loss_function, images, labels)[0] for images, labels in batches]
    return float(np.mean(losses))


def applied_twice(model, optimizer, loss_function, batches):
    return accumulate(model, optimizer, loss_function, batches, divide=lambda sizes: sum(sizes) / 2)


def all_at_once(model, optimizer, loss_function, batches):
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    return step(model, optimizer, loss_function, images, labels)[0]


def shares_applied_one_by_one(model, optimizer, loss_function, batches):
    """The right sum, in as many steps as batches: the gradients are all taken beforehand."""
    found, count = [], sum(len(labels) for _, labels in batches)
    for images, labels in batches:
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(images, training=True)) * (len(labels) / count)
        found.append((loss, tape.gradient(loss, model.trainable_variables)))
    for _, gradients in found:
        optimizer.apply(gradients, model.trainable_variables)
    return sum(float(loss) for loss, _ in found)


def loss_weighted_by_batches(model, optimizer, loss_function, batches):
    losses = [float(loss_function(labels, model(images, training=True))) for images, labels in batches]
    accumulate(model, optimizer, loss_function, batches)
    return np.mean(losses)


def loss_after_the_step(model, optimizer, loss_function, batches):
    accumulate(model, optimizer, loss_function, batches)
    images, labels = batches[0]
    return loss_function(labels, model(images, training=True))


def not_applied(model, optimizer, loss_function, batches):
    return accumulate(model, keras.optimizers.SGD(0.0), loss_function, batches)


def no_loss_returned(*arguments):
    accumulate(*arguments)


accumulate_solutions = {
    "right": [accumulate, accumulate_in_variables, accumulate_running_mean],
    "wrong": [
        (gradients_added, "were added up"), (batches_weighted_alike, "the last has fewer images"),
        (last_batch_alone, "the last batch alone"), (last_batch_divided, "the last batch alone"),
        (divided_by_images_twice, "a mean already"), (never_divided, "never divided"),
        (inference_mode, "inference mode"), (a_step_a_batch, "a step of its own"),
        (applied_twice, "applied twice"), (all_at_once, "at once"),
        (shares_applied_one_by_one, "must count one"), (loss_weighted_by_batches, "The loss weighs each batch"),
        (loss_after_the_step, "before the step"), (not_applied, "weights are as they were"),
        (no_loss_returned, "returned nothing"),
    ],
}

# --- exercise 4: rates ---


def cosine_of_keras(steps, peak):
    rise = steps // 5
    return keras.optimizers.schedules.CosineDecay(0.0, steps - rise, warmup_target=peak, warmup_steps=rise)


def line_in_python(steps, peak):
    return lambda step: peak * min(step / (steps / 5), (steps - step) / (0.8 * steps))


class CosineSchedule(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, steps, peak):
        self.steps, self.peak = steps, peak

    def __call__(self, step):
        done = tf.cast(step, tf.float32) / self.steps
        return self.peak * tf.where(done < 0.2, 5 * done, 0.5 + 0.5 * tf.cos(np.pi * (done - 0.2) / 0.8))


def by_interpolation(steps, peak):
    return lambda step: np.interp(step, [0, steps / 5, steps], [peak / 20, peak, 0])


def a_tenth_each_epoch(steps, peak):
    return lambda step: peak * 0.1 ** (step // (steps // 5))


def a_tenth_each_epoch_after_a_rise(steps, peak):
    return lambda step: peak * min(5 * step / steps, 1) * 0.1 ** max(0, (step - steps / 5) // (steps // 5))


def constant(steps, peak):
    return lambda step: peak


def no_rise(steps, peak):
    return keras.optimizers.schedules.CosineDecay(peak, steps)


def rise_counted_in_the_fall(steps, peak):
    return keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=peak, warmup_steps=steps // 5)


def fall_too_short(steps, peak):
    return keras.optimizers.schedules.CosineDecay(0.0, steps // 2, warmup_target=peak, warmup_steps=steps // 5)


def peak_in_the_middle(steps, peak):
    return lambda step: peak * min(2 * step / steps, 2 - 2 * step / steps)


def below_zero(steps, peak):
    return lambda step: peak * min(5 * step / steps, 1.5 - 2.5 * step / steps)


def peak_ignored(steps, peak):
    return line_in_python(steps, 0.1)


def a_staircase(steps, peak):
    return lambda step: line_in_python(steps, peak)(step if step < steps / 5 else step // (steps / 10) * (steps / 10))


def no_schedule_but_a_rate(steps, peak):
    return peak


def falls_too_early(steps, peak):
    return lambda step: peak * (5 * step / steps if step < steps / 5 else ((1.25 - 1.25 * step / steps) ** 4))


def level_instead_of_rising(steps, peak):
    return lambda step: peak / 10 if step < steps / 5 else line_in_python(steps, peak)(step)


rates = {
    "right": [cosine_of_keras, line_in_python, CosineSchedule, by_interpolation],
    "wrong": [
        (a_tenth_each_epoch, "a fraction of itself"), (a_tenth_each_epoch_after_a_rise, "a fraction of itself"),
        (constant, "the same at each step"), (no_rise, "does not begin low"),
        (rise_counted_in_the_fall, "After the last step the rate is still"), (fall_too_short, "before training ends"),
        (peak_in_the_middle, "after a fifth of them"), (below_zero, "below zero"),
        (peak_ignored, "of the peak that was asked for"), (a_staircase, "steps count, not epochs"),
        (no_schedule_but_a_rate, "called with a step"), (falls_too_early, "Half way down"),
        (level_instead_of_rising, "does not rise at each step"),
    ],
}

# --- exercise 5: two_looks ---


def accuracy(logits, labels):
    return np.mean(np.argmax(logits, axis=1) == labels)


def report_of_logits(predict, images, labels):
    once, mirrored = predict(images), predict(images[:, :, ::-1])
    return {"accuracy": accuracy(once, labels), "accuracy with flips": accuracy(once + mirrored, labels)}


def report_of_probabilities(predict, images, labels):
    once, mirrored = (softmax(predict(pictures), axis=1) for pictures in (images, np.flip(images, axis=2)))
    return {"accuracy": accuracy(once, labels), "accuracy with flips": accuracy((once + mirrored) / 2, labels)}


def report_in_tensorflow(predict, images, labels):
    looks = tf.stack([predict(images), predict(tf.image.flip_left_right(images))])
    sums = {"accuracy": looks[0], "accuracy with flips": tf.reduce_sum(looks, axis=0)}
    return {name: tf.reduce_mean(tf.cast(tf.argmax(logits, 1) == labels, tf.float32)) for name, logits in sums.items()}


def with_second_look(second, predict, images, labels):
    once = predict(images)
    return {"accuracy": accuracy(once, labels), "accuracy with flips": accuracy(once + predict(second), labels)}


def flips_as_plain(predict, images, labels):
    right = report_of_logits(predict, images, labels)
    return {"accuracy": right["accuracy with flips"], "accuracy with flips": right["accuracy with flips"]}


def figures_exchanged(predict, images, labels):
    right = report_of_logits(predict, images, labels)
    return {"accuracy": right["accuracy with flips"], "accuracy with flips": right["accuracy"]}


def upside_down(predict, images, labels):
    return with_second_look(images[:, ::-1], predict, images, labels)


def colours_reversed(predict, images, labels):
    return with_second_look(images[..., ::-1], predict, images, labels)


def order_reversed(predict, images, labels):
    return with_second_look(images[::-1], predict, images, labels)


def same_look_twice(predict, images, labels):
    return with_second_look(images, predict, images, labels)


def mirrored_alone(predict, images, labels):
    return {"accuracy": accuracy(predict(images), labels),
            "accuracy with flips": accuracy(predict(images[:, :, ::-1]), labels)}


def either_look_counts(predict, images, labels):
    looks = [np.argmax(predict(pictures), axis=1) == labels for pictures in (images, images[:, :, ::-1])]
    return {"accuracy": np.mean(looks[0]), "accuracy with flips": np.mean(looks[0] | looks[1])}


def accuracies_averaged(predict, images, labels):
    both = [accuracy(predict(pictures), labels) for pictures in (images, images[:, :, ::-1])]
    return {"accuracy": both[0], "accuracy with flips": np.mean(both)}


def in_per_cent(predict, images, labels):
    return {name: 100 * value for name, value in report_of_logits(predict, images, labels).items()}


def flips_alone_reported(predict, images, labels):
    return {"accuracy": report_of_logits(predict, images, labels)["accuracy with flips"]}


def larger_logit_wins(predict, images, labels):
    once, mirrored = predict(images), predict(images[:, :, ::-1])
    return {"accuracy": accuracy(once, labels), "accuracy with flips": accuracy(np.maximum(once, mirrored), labels)}


def error_for_accuracy(predict, images, labels):
    return {name: 1 - value for name, value in report_of_logits(predict, images, labels).items()}


two_looks = {
    "right": [report_of_logits, report_of_probabilities, report_in_tensorflow],
    "wrong": [
        (flips_as_plain, "accuracy is the figure with flips"), (figures_exchanged, "accuracy is the figure with flips"),
        (upside_down, "upside down"), (colours_reversed, "exchanges red and blue"),
        (order_reversed, "reverses the order"), (same_look_twice, "where does the second look come in"),
        (mirrored_alone, "mirrored pictures alone"), (either_look_counts, "uses the label"),
        (accuracies_averaged, "averages two accuracies"), (in_per_cent, "not per cent"),
        (flips_alone_reported, "no entry 'accuracy with flips'"), (larger_logit_wins, "mean of the logits"),
        (error_for_accuracy, "and the plain one of these images is"),
    ],
}

# --- exercise 6: ablation ---

WITHOUT = ({}, {"whitening": False}, {"identity start": False})


def runs(settings=WITHOUT, seeds=(1, 2, 3), epochs=6, where="validation"):
    return [IDEAS | setting | {"seed": seed, "epochs": epochs, "measured on": where}
            for setting in settings for seed in seeds]


def changed(number, **settings):
    plan = runs()
    plan[number] = plan[number] | {key.replace("_", " "): value for key, value in settings.items()}
    return plan


ablation = {
    "right": [runs(), runs(seeds=(2026, 2027, 2028, 2029), epochs=5),
              tuple(runs((*WITHOUT, {"label smoothing": 0.0}), epochs=5)),
              lambda: (run for run in runs(epochs=3, seeds=range(6)))],
    "wrong": [
        (runs(epochs=8), "there are 60 to spend"), (runs(seeds=(1,)), "nobody can tell what a seed alone"),
        (runs(seeds=(1, 1, 1)), "a repeated run"), (runs(WITHOUT[1:]), "No run has all ideas"),
        (runs(WITHOUT[:2]), "No run does without identity start alone"),
        (runs(({}, {"whitening": False, "identity start": False})), "at once"),
        (changed(3, small_pictures_first=False), "at once"),
        (runs(where="test"), "measured on the test set"), (runs(where="train"), "that it was trained on"),
        (runs(where="everything"), "one of the three splits"),
        (changed(4, epochs=4), "train longer than others"),
        (runs(WITHOUT[:2]) + runs(WITHOUT[2:], seeds=(4, 5, 6)), "different seeds"),
        ([{key: value for key, value in run.items() if key != "seed"} for run in runs()], "seed"),
        (runs()[0], "a list of runs"), (6, "a list of runs"), ([], "holds no run"),
        (changed(2, epochs=0), "trains for 0 epochs"),
    ],
}

SOLUTIONS = {"costs": costs, "epoch": epoch_solutions, "accumulate": accumulate_solutions, "rates": rates,
             "two_looks": two_looks, "ablation": ablation}
