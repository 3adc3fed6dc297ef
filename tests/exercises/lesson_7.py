"""Right and wrong solutions of lesson 7's exercises; a wrong one comes with a part of the message that it must get."""

import json
import pickle
from fractions import Fraction
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

# --- predictions ---

PREDICTED = {"global_batch": 256, "steps_per_epoch": 39, "rate": 0.04, "loss_factor": 4}

# --- replica_loss ---


def loss_numpy(logits, labels, global_batch):
    logits = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log_probabilities[np.arange(len(labels)), labels].sum() / global_batch


def loss_tensorflow(logits, labels, global_batch):
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.nn.compute_average_loss(losses, global_batch_size=global_batch)


def loss_keras(logits, labels, global_batch):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    return loss(labels, logits) / global_batch


def loss_loop(logits, labels, global_batch):
    total = 0.0
    for row, label in zip(logits.astype("float64"), labels, strict=True):
        total += np.logaddexp.reduce(row) - row[label]
    return float(total / global_batch)


def local_mean(logits, labels, global_batch):
    return loss_numpy(logits, labels, len(labels))


def nothing_divides(logits, labels, global_batch):
    return loss_numpy(logits, labels, 1)


def divides_twice(logits, labels, global_batch):
    return local_mean(logits, labels, global_batch) / global_batch


def logits_taken_for_probabilities(logits, labels, global_batch):
    with np.errstate(invalid="ignore"):
        return -np.log(logits[np.arange(len(labels)), labels]).sum() / global_batch


def softmax_twice(logits, labels, global_batch):
    return loss_tensorflow(tf.nn.softmax(logits), labels, global_batch)


def one_loss_an_image(logits, labels, global_batch):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits) / global_batch


def overflows(logits, labels, global_batch):
    with np.errstate(over="ignore", invalid="ignore"):
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return -np.log(probabilities[np.arange(len(labels)), labels]).sum() / global_batch


def two_replicas_written_in(logits, labels, global_batch):
    return local_mean(logits, labels, global_batch) / 2


def sign_forgotten(logits, labels, global_batch):
    return -loss_numpy(logits, labels, global_batch)


def mean_over_classes_too(logits, labels, global_batch):
    losses = -np.eye(10)[labels] * np.asarray(tf.nn.log_softmax(logits))
    return losses.mean() * len(labels) / global_batch


def binary_logarithm(logits, labels, global_batch):
    return loss_numpy(logits, labels, global_batch) / np.log(2)


def spoils_its_input(logits, labels, global_batch):
    logits -= logits.max(axis=1, keepdims=True)
    return loss_numpy(logits, labels, global_batch)


def labels_not_used(logits, labels, global_batch):
    return loss_numpy(logits, logits.argmax(axis=1), global_batch)


def loss_without_return(logits, labels, global_batch):
    loss_numpy(logits, labels, global_batch)


# --- worker_order ---


def every_nth(order, rank, workers, global_batch):
    steps = len(order) // global_batch
    return order[:steps * global_batch][rank::workers].reshape(steps, global_batch // workers)


def block_of_each_batch(order, rank, workers, global_batch):
    share, steps = global_batch // workers, len(order) // global_batch
    batches = np.reshape(order[:steps * global_batch], (steps, global_batch))
    return batches[:, rank * share:(rank + 1) * share]


def loop_over_steps(order, rank, workers, global_batch):
    rows = []
    for start in range(0, len(order) - global_batch + 1, global_batch):
        rows.append([int(number) for number in order[start:start + global_batch]][rank::workers])
    return rows


def dataset_shard(order, rank, workers, global_batch):
    mine = tf.data.Dataset.from_tensor_slices(order).shard(workers, rank)
    return tf.stack(list(mine.batch(global_batch // workers, drop_remainder=True)))[:len(order) // global_batch]


def same_images_for_all(order, rank, workers, global_batch):
    return every_nth(order, 0, workers, global_batch)


def blocks_of_the_epoch(order, rank, workers, global_batch):
    steps = len(order) // global_batch
    return np.split(order[:steps * global_batch], workers)[rank].reshape(steps, global_batch // workers)


def positions(order, rank, workers, global_batch):
    return every_nth(np.arange(len(order)), rank, workers, global_batch)


def global_batch_for_each(order, rank, workers, global_batch):
    steps = len(order) // global_batch
    return order[:steps * global_batch].reshape(steps, global_batch)


def rest_filled_up(order, rank, workers, global_batch):
    missing = -len(order) % global_batch
    return every_nth(np.concatenate([order, order[:missing]]), rank, workers, global_batch)


def own_shuffle(order, rank, workers, global_batch):
    return every_nth(np.random.default_rng(rank).permutation(order), rank, workers, global_batch)


def shuffling_lost(order, rank, workers, global_batch):
    return every_nth(np.sort(order), rank, workers, global_batch)


def flat(order, rank, workers, global_batch):
    return every_nth(order, rank, workers, global_batch).ravel()


def columns_for_steps(order, rank, workers, global_batch):
    return every_nth(order, rank, workers, global_batch).T


def overlapping_blocks(order, rank, workers, global_batch):
    steps, share = len(order) // global_batch, global_batch // workers
    batches = order[:steps * global_batch].reshape(steps, global_batch)
    start = max(0, rank * share - 1)
    return batches[:, start:start + share]


def drops_the_beginning(order, rank, workers, global_batch):
    return every_nth(order[len(order) % global_batch:], rank, workers, global_batch)


def with_replacement(order, rank, workers, global_batch):
    rows = every_nth(order, rank, workers, global_batch).copy()
    rows[-1] = rows[0]
    return rows


def fractions(order, rank, workers, global_batch):
    return every_nth(order, rank, workers, global_batch) / 1


def shuffles_the_given(order, rank, workers, global_batch):
    order.sort()
    return every_nth(order, rank, workers, global_batch)


# --- job_metrics ---


def total(reports, key):
    return sum(report[key] for report in reports)


def metrics_sums(reports):
    examples = total(reports, "examples")
    return {"accuracy": total(reports, "correct") / examples, "loss": total(reports, "loss_sum") / examples,
            "images_per_second": examples / max(report["seconds"] for report in reports)}


def metrics_numpy(reports):
    table = np.array([[report[key] for key in ("examples", "correct", "loss_sum", "seconds")] for report in reports])
    examples, correct, loss, _ = table.sum(axis=0)
    return {"images_per_second": examples / table[:, 3].max(), "loss": loss / examples, "accuracy": correct / examples,
            "examples": examples}


def metrics_weighted(reports):
    busy = [report for report in reports if report["examples"]]
    weights = [report["examples"] for report in busy]
    return {"accuracy": np.average([report["correct"] / report["examples"] for report in busy], weights=weights),
            "loss": np.average([report["loss_sum"] / report["examples"] for report in busy], weights=weights),
            "images_per_second": min(sum(weights) / report["seconds"] for report in reports)}


def metrics_tensorflow(reports):
    columns = {key: tf.constant([report[key] for report in reports], "float64") for key in reports[0]}
    examples = tf.reduce_sum(columns["examples"])
    return {"accuracy": tf.reduce_sum(columns["correct"]) / examples,
            "loss": tf.reduce_sum(columns["loss_sum"]) / examples,
            "images_per_second": examples / tf.reduce_max(columns["seconds"])}


def of_the_chief(reports):
    return metrics_sums(reports[:1])


def of_the_last(reports):
    return metrics_sums(reports[-1:])


def mean_of_accuracies(reports):
    return metrics_sums(reports) | {"accuracy": np.mean([report["correct"] / max(1, report["examples"])
                                                         for report in reports])}


def mean_of_losses(reports):
    return metrics_sums(reports) | {"loss": np.mean([report["loss_sum"] / report["examples"] for report in reports])}


def per_cent(reports):
    found = metrics_sums(reports)
    return found | {"accuracy": 100 * found["accuracy"]}


def loss_by_workers(reports):
    return metrics_sums(reports) | {"loss": total(reports, "loss_sum") / len(reports)}


def sum_of_speeds(reports):
    return metrics_sums(reports) | {"images_per_second": sum(report["examples"] / report["seconds"]
                                                             for report in reports)}


def seconds_added(reports):
    return metrics_sums(reports) | {"images_per_second": total(reports, "examples") / total(reports, "seconds")}


def seconds_averaged(reports):
    seconds = total(reports, "seconds") / len(reports)
    return metrics_sums(reports) | {"images_per_second": total(reports, "examples") / seconds}


def seconds_of_the_chief(reports):
    return metrics_sums(reports) | {"images_per_second": total(reports, "examples") / reports[0]["seconds"]}


def idle_worker_divides_by_zero(reports):
    with np.errstate(invalid="ignore"):
        shares = np.array([report["correct"] for report in reports]) / np.array([report["examples"]
                                                                                 for report in reports])
    examples = np.array([report["examples"] for report in reports])
    return metrics_sums(reports) | {"accuracy": (shares * examples).sum() / examples.sum()}


def loss_left_out(reports):
    return {key: value for key, value in metrics_sums(reports).items() if key != "loss"}


# --- train_or_resume ---


def save(state, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **state)


def load(file):
    with np.load(file) as stored:
        return dict(stored)


def one_file(step, state, batches, folder, rank, every):
    if (folder / "last.npz").exists():
        state = load(folder / "last.npz")
    for batch in batches[int(state["done"]):]:
        state = step(state, batch)
        if state["done"] % every == 0 and rank == 0:
            save(state, folder / "last.npz")
    return state


def a_file_each(step, state, batches, folder, rank, every):
    found = sorted(folder.glob("*.pickle"), key=lambda path: int(path.stem))
    if found:
        state = pickle.loads(found[-1].read_bytes())
    mine = folder if rank == 0 else Path(f"{folder}-worker-{rank}")
    mine.mkdir(parents=True, exist_ok=True)
    while state["done"] < len(batches):
        state = step(state, batches[state["done"]])
        if state["done"] % every == 0:
            (mine / f"{state['done']}.pickle").write_bytes(pickle.dumps(state))
    return state


def text_and_a_last_save(step, state, batches, folder, rank, every):
    file = folder / "state.json"
    if file.is_file():
        state = json.loads(file.read_text())
    for number, batch in enumerate(batches, 1):
        if number <= state["done"]:
            continue
        state = step(state, batch)
        if rank == 0 and (number % every == 0 or number == len(batches)):
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"weights": state["weights"].tolist(), "velocity": state["velocity"].tolist(),
                                        "done": state["done"]}))
    return state | {"weights": np.array(state["weights"]), "velocity": np.array(state["velocity"])}


def tensorflow_checkpoint(step, state, batches, folder, rank, every):
    variables = {key: tf.Variable(value) for key, value in state.items()}
    checkpoint = tf.train.Checkpoint(**variables)
    if latest := tf.train.latest_checkpoint(str(folder)):
        checkpoint.restore(latest)
    place = str(folder) if rank == 0 else f"{folder}-worker-{rank}"
    manager = tf.train.CheckpointManager(checkpoint, place, max_to_keep=2)
    for batch in batches[int(variables["done"]):]:
        for key, value in step(variables, batch).items():
            variables[key].assign(value)
        if int(variables["done"]) % every == 0:
            manager.save(checkpoint_number=int(variables["done"]))
    return variables


def saves_weights_only(step, state, batches, folder, rank, every):
    file = folder / "last.npz"
    if file.exists():
        state = state | load(file)
    for batch in batches[int(state["done"]):]:
        state = step(state, batch)
        if state["done"] % every == 0 and rank == 0:
            save({"weights": state["weights"], "done": state["done"]}, file)
    return state


def batches_from_the_start(step, state, batches, folder, rank, every):
    if (folder / "last.npz").exists():
        state = load(folder / "last.npz")
    for batch in batches:
        state = step(state, batch)
        if state["done"] % every == 0 and rank == 0:
            save(state, folder / "last.npz")
    return state


def count_of_steps_forgotten(step, state, batches, folder, rank, every):
    skipped = 0
    if (folder / "last.npz").exists():
        stored = load(folder / "last.npz")
        skipped = int(stored["done"])
        state = state | {"weights": stored["weights"], "velocity": stored["velocity"]}
    for number, batch in enumerate(batches[skipped:], skipped + 1):
        state = step(state, batch)
        if number % every == 0 and rank == 0:
            save(state | {"done": number}, folder / "last.npz")
    return state


def every_worker_writes(step, state, batches, folder, rank, every):
    return one_file(step, state, batches, folder, 0, every)


def each_reads_its_own(step, state, batches, folder, rank, every):
    return one_file(step, state, batches, folder if rank == 0 else Path(f"{folder}-{rank}"), 0, every)


def never_saves(step, state, batches, folder, rank, every):
    for batch in batches:
        state = step(state, batch)
    return state


def saves_at_the_end(step, state, batches, folder, rank, every):
    state = never_saves(step, state, batches, folder, rank, every)
    save(state, folder / "last.npz")
    return state


def never_reads(step, state, batches, folder, rank, every):
    for batch in batches:
        state = step(state, batch)
        if state["done"] % every == 0 and rank == 0:
            save(state, folder / "last.npz")
    return state


def saves_every_step(step, state, batches, folder, rank, every):
    return one_file(step, state, batches, folder, rank, 1)


def names_sorted_as_text(step, state, batches, folder, rank, every):
    found = sorted(folder.glob("*.npz"))
    if found:
        state = load(found[-1])
    for batch in batches[int(state["done"]):]:
        state = step(state, batch)
        if state["done"] % every == 0 and rank == 0:
            save(state, folder / f"checkpoint-{state['done']}.npz")
    return state


def needs_a_checkpoint(step, state, batches, folder, rank, every):
    save_folder, state = folder, load(folder / "last.npz")
    return one_file(step, state, batches, save_folder, rank, every)


def steps_from_the_first_state(step, state, batches, folder, rank, every):
    for batch in batches:
        last = step(state, batch)
        if last["done"] % every == 0 and rank == 0:
            save(last, folder / "last.npz")
    return last


def rounds_the_weights(step, state, batches, folder, rank, every):
    if (folder / "last.npz").exists():
        state = load(folder / "last.npz")
    for batch in batches[int(state["done"]):]:
        state = step(state, batch)
        if state["done"] % every == 0 and rank == 0:
            save(state | {"weights": np.float16(state["weights"])}, folder / "last.npz")
    return state


def stops_one_step_early(step, state, batches, folder, rank, every):
    return one_file(step, state, batches[:-1], folder, rank, every)


# --- design ---


def runs(arms=(1, 4), seeds=(1, 2, 3), epochs=6, change=None):
    """Runs that keep to the rules, each as `change(run)` leaves it."""
    made = [{"workers": workers, "per_replica_batch": 128, "rate": 0.02 * workers, "epochs": epochs, "seed": seed,
             "measured_on": "validation"} for workers in arms for seed in seeds]
    return [run | change(run) for run in made] if change else made


def four_only(key, value):
    return runs(change=lambda run: {key: value} if run["workers"] == 4 else {})


SOLUTIONS = {
    "predictions": {
        "right": [
            PREDICTED,
            {"global_batch": 4 * 64, "steps_per_epoch": 10_000 // (4 * 64), "rate": 0.02 * 4 * 64 / 128,
             "loss_factor": 4.0},
            {key: np.float32(value) for key, value in PREDICTED.items()},
            {"global_batch": tf.constant(256), "steps_per_epoch": np.int64(39), "rate": Fraction(1, 25),
             "loss_factor": np.array(4)},
        ],
        "wrong": [
            (PREDICTED | {"global_batch": 64}, "what one replica sees"),
            (PREDICTED | {"global_batch": 512}, "not what all workers together see"),
            (PREDICTED | {"steps_per_epoch": 156}, "They share them"),
            (PREDICTED | {"steps_per_epoch": 40}, "last batch is not full"),
            (PREDICTED | {"steps_per_epoch": 39.0625}, "whole number"),
            (PREDICTED | {"rate": 0.02}, "rate of the old global batch"),
            (PREDICTED | {"rate": 0.08}, "number of workers"),
            (PREDICTED | {"rate": 0.02 * 2**0.5}, "square root"),
            (PREDICTED | {"rate": 0.01}, "smaller than before"),
            (PREDICTED | {"loss_factor": 1}, "took the mean of the gradients"),
            (PREDICTED | {"loss_factor": 0.25}, "upside down"),
            (PREDICTED | {"loss_factor": 256}, "every image has the loss 1"),
            (PREDICTED | {"rate": "0.04"}, "must be a number"),
            (PREDICTED | {"rate": None}, "must be a number"),
            ({"global_batch": 256, "steps_per_epoch": 39}, "lacks rate, loss_factor"),
            ([256, 39, 0.04, 4], "must be a dict"),
        ],
    },
    "replica_loss": {
        "right": [loss_numpy, loss_tensorflow, loss_keras, loss_loop],
        "wrong": [
            (local_mean, "the sum of their own means"),
            (nothing_divides, "nothing divides it"),
            (divides_twice, "divides twice"),
            (logits_taken_for_probabilities, "they are no probabilities yet"),
            (softmax_twice, "softmax twice"),
            (one_loss_an_image, "must return one number"),
            (overflows, "the exponential overflows"),
            (two_replicas_written_in, "number of replicas written into it"),
            (sign_forgotten, "minus the logarithm"),
            (mean_over_classes_too, "mean over the classes"),
            (binary_logarithm, "natural one"),
            (spoils_its_input, "changes the logits"),
            (labels_not_used, "times the mean cross-entropy"),
            (loss_without_return, "returned nothing"),
        ],
    },
    "worker_order": {
        "right": [every_nth, block_of_each_batch, loop_over_steps, dataset_shard],
        "wrong": [
            (same_images_for_all, "read the same images"),
            (blocks_of_the_epoch, "does not see what one worker alone would see"),
            (positions, "positions in it"),
            (global_batch_for_each, "reads 12 images a step"),
            (rest_filled_up, "what is left over is dropped"),
            (own_shuffle, "shuffled once more"),
            (shuffling_lost, "the shuffled order is lost"),
            (flat, "a row for each step"),
            (columns_for_steps, "a column for each step"),
            (overlapping_blocks, "both read"),
            (drops_the_beginning, "are others dropped"),
            (with_replacement, "reads an image twice"),
            (fractions, "whole numbers"),
            (shuffles_the_given, "changes the order"),
        ],
    },
    "job_metrics": {
        "right": [metrics_sums, metrics_numpy, metrics_weighted, metrics_tensorflow],
        "wrong": [
            (of_the_chief, "what the first worker saw"),
            (of_the_last, "what the last worker saw"),
            (mean_of_accuracies, "accuracy: a mean of the workers' means"),
            (mean_of_losses, "loss: a mean of the workers' means"),
            (per_cent, "a percentage"),
            (loss_by_workers, "divided by the number of workers"),
            (sum_of_speeds, "the sum of the workers' speeds"),
            (seconds_added, "one after the other"),
            (seconds_averaged, "not over when the average worker is"),
            (seconds_of_the_chief, "the first worker's seconds"),
            (idle_worker_divides_by_zero, "where one worker had no images"),
            (loss_left_out, "lacks loss"),
        ],
    },
    "train_or_resume": {
        "right": [one_file, a_file_each, text_and_a_last_save, tensorflow_checkpoint],
        "wrong": [
            (saves_weights_only, "but not with the velocity"),
            (batches_from_the_start, "with batch 0"),
            (count_of_steps_forgotten, "counts 0 steps as done"),
            (every_worker_writes, "Worker 1 writes to the folder"),
            (each_reads_its_own, "worker 1 starts with the first weights again"),
            (never_saves, "there is no checkpoint"),
            (saves_at_the_end, "there is no checkpoint"),
            (never_reads, "worker 0 starts with the first weights again"),
            (saves_every_step, "with every=2 the last checkpoint"),
            (names_sorted_as_text, "which checkpoint is the last"),
            (needs_a_checkpoint, "stopped with FileNotFoundError"),
            (steps_from_the_first_state, "goes on from what the one before it returned"),
            (rounds_the_weights, "full precision"),
            (stops_one_step_early, "12 times for 13 batches"),
        ],
    },
    "design": {
        "right": [
            runs(),
            runs(arms=(1, 2, 4), epochs=4),
            tuple(runs(arms=(4, 1), seeds=(7, 11, 13, 17), epochs=3)),
            runs(epochs=5, change=lambda run: {"note": "one key more", "seed": np.int64(run["seed"])}),
        ],
        "wrong": [
            (runs(seeds=(1,)), "could be chance"),
            (runs(arms=(1,)) + [run | {"seed": run["seed"] + 10} for run in runs(arms=(4,))], "different seeds"),
            (runs(change=lambda run: {"measured_on": "test"}), "opened once"),
            (runs(change=lambda run: {"measured_on": "train"}), "did none of the runs train on"),
            (four_only("rate", 0.02), "not what the rule gives"),
            (four_only("rate", 0.04), "not what the rule gives"),
            (runs(epochs=7), "the budget is 36"),
            (four_only("epochs", 5), "different numbers of epochs"),
            (four_only("per_replica_batch", 32), "changes the per-replica batch"),
            (runs(arms=(4,)), "No run has a global batch of 128"),
            (runs(arms=(1, 2)), "No run has a global batch of 512"),
            (runs(seeds=(1, 1, 1)), "tells nothing new"),
            (runs(epochs=2), "fewer than 3 epochs"),
            ([], "empty list"),
            ({"workers": [1, 4]}, "must be a list of runs"),
            (four_only("seed", "one"), "must be a number"),
        ],
    },
}
