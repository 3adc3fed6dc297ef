"""Checks of lesson 7: sums over workers, shares of the data, figures of a job, checkpoints. None starts a process."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cifar_helpers.checks.common import NotYet, array, expect, outcome, right

# The job of exercise 1, as its text states it.
IMAGES, WORKERS, PER_REPLICA, BASE_BATCH, BASE_RATE = 10_000, 4, 64, 128, 0.02


def _number(value, name: str) -> float:
    """A number of any kind as a float; raises NotYet where it is something else."""
    expect(not isinstance(value, str | bool | None), f"{name} is {value!r}, and must be a number.")
    try:
        found = np.asarray(value)
    except Exception as error:
        raise NotYet(f"{name} is {type(value).__name__}, and must be a number.") from error
    expect(found.shape == (), f"{name} has the shape {found.shape}, and must be a single number.")
    try:
        return float(found)
    except (TypeError, ValueError) as error:
        raise NotYet(f"{name} is {value!r}, and must be a number.") from error


def _entries(value, name: str, keys: tuple[str, ...]) -> dict:
    """The entries `keys` of a dict; raises NotYet where it is none, or lacks one."""
    expect(isinstance(value, Mapping), f"{name} is {type(value).__name__}, and must be a dict with the keys "
                                       f"{', '.join(keys)}.")
    missing = [key for key in keys if key not in value]
    expect(not missing, f"{name} lacks {', '.join(missing)}: its keys are {', '.join(map(str, value)) or 'none'}.")
    return {key: value[key] for key in keys}


def _close(found: float, wanted: float) -> bool:
    return bool(np.isclose(found, wanted, rtol=1e-4, atol=1e-6))


# --- Exercise 1 ---


def check_predictions(predictions) -> None:
    """Four predictions about a job: a dict of numbers `global_batch`, `steps_per_epoch`, `rate` and `loss_factor`.

    Raises NotYet at the first that is missing, no number, or wrong.
    """
    given = _entries(predictions, "predictions", ("global_batch", "steps_per_epoch", "rate", "loss_factor"))
    given = {key: _number(value, f"predictions[{key!r}]") for key, value in given.items()}

    batch = given["global_batch"]
    expect(batch != PER_REPLICA, f"global_batch: {PER_REPLICA} is what one replica sees. What does one step see?")
    expect(batch == WORKERS * PER_REPLICA, "global_batch: not what all workers together see at one step.")

    steps, whole = given["steps_per_epoch"], IMAGES // (WORKERS * PER_REPLICA)
    expect(steps == round(steps), "steps_per_epoch: a step is done or not done, so this is a whole number.")
    expect(steps not in (IMAGES // PER_REPLICA, -(-IMAGES // PER_REPLICA)),
           "steps_per_epoch: so many steps let every worker go through all the images. They share them.")
    expect(steps != whole + 1, "steps_per_epoch: the last batch is not full. What does this job do with it?")
    expect(steps == whole, "steps_per_epoch: how many full global batches do the images make?")

    rate, factor = given["rate"], WORKERS * PER_REPLICA / BASE_BATCH
    expect(not _close(rate, BASE_RATE), "rate: this is the rate of the old global batch, and the global batch is "
                                        "another now.")
    expect(not _close(rate, BASE_RATE * WORKERS), "rate: multiplied by the number of workers. Compare the two global "
                                                  "batches: was the old one what a single replica gets now?")
    expect(not _close(rate, BASE_RATE * factor**0.5), "rate: scaled by a square root, the advice for Adam. "
                                                      "This job uses SGD.")
    expect(rate >= BASE_RATE, "rate: smaller than before. Does a step that averages over more images need to be "
                              "shorter?")
    expect(_close(rate, BASE_RATE * factor), "rate: not what the rule for SGD gives. By which factor did the global "
                                             "batch grow?")

    large = given["loss_factor"]
    expect(not _close(large, 1), "loss_factor: 1 would be right if the all-reduce took the mean of the gradients.")
    expect(not _close(large, 1 / WORKERS), "loss_factor: upside down. Is the sum of the gradients too large or too "
                                           "small?")
    expect(_close(large, WORKERS), "loss_factor: add up the workers' mean losses for a batch in which every image has "
                                   "the loss 1.")
    right("all four predictions.")


# --- Exercise 2 ---


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def _loss(replica_loss, logits, labels, global_batch) -> float:
    before = logits.copy()
    found = outcome(replica_loss, logits, labels, global_batch, name="replica_loss")
    expect(np.array_equal(before, logits), "replica_loss changes the logits that it is given: work on a copy.")
    value = array(found, "The result of replica_loss")
    expect(value.shape == (), f"replica_loss returns the shape {value.shape}, and must return one number: what becomes "
                              "of the losses of the single images?")
    return _number(value, "The result of replica_loss")


def check_replica_loss(replica_loss) -> None:
    """`replica_loss(logits, labels, global_batch)`: what one replica adds to the mean loss of the global batch.

    It gets logits, float32 (n, 10), labels, int64 (n,), and the number of images in the global batch, and returns a
    scalar. Raises NotYet where the sum over replicas is not the mean cross-entropy of all images.
    """
    random = np.random.default_rng(7)
    logits = (2 * random.standard_normal((12, 10))).astype("float32")
    labels = random.integers(0, 10, 12)
    losses = _cross_entropy(logits.astype("float64"), labels)
    mean = losses.mean()

    # One replica that holds the whole batch: whatever is wrong here is the loss itself, not how it is shared.
    whole = _loss(replica_loss, logits, labels, 12)
    expect(np.isfinite(whole), f"replica_loss is {whole} for ordinary logits: they may be negative, since they are no "
                               "probabilities yet.")
    expect(not _close(whole, losses.sum()), "replica_loss returns the sum of the losses: nothing divides it.")
    expect(not _close(whole, mean / 12), "replica_loss divides twice: a mean divides already.")
    expect(not _close(whole, mean / 10), "replica_loss takes a mean over the classes as well: an image has one loss.")
    expect(not _close(whole, mean / np.log(2)), "replica_loss uses another logarithm: cross-entropy takes the natural "
                                                "one.")
    expect(whole > 0, "replica_loss is negative: a cross-entropy is minus the logarithm of a probability.")
    twice = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expect(not _close(whole, _cross_entropy(twice, labels).mean()),
           "replica_loss applies the softmax twice: a loss function that expects logits does it by itself.")
    expect(not _close(whole, mean / 2), "replica_loss is half of the mean loss where one replica has the whole batch: "
                                        "is a number of replicas written into it?")
    expect(_close(whole, mean), f"With one replica that has the whole batch, replica_loss is {whole / mean:.4g} times "
                                "the mean cross-entropy of the images; look at the loss before you look at the shares.")

    for sizes in ((6, 6), (8, 4), (1, 4, 7)):
        parts = np.split(np.arange(12), np.cumsum(sizes)[:-1])
        found = sum(_loss(replica_loss, logits[part], labels[part], 12) for part in parts)
        how = f"Replicas with {', '.join(map(str, sizes))} of 12 images: their losses add up to "
        means = [losses[part].mean() for part in parts]
        expect(not _close(found, sum(means)), how + "the sum of their own means, and must add up to the mean over the "
                                                    "global batch. By what does each replica divide?")
        expect(_close(found, mean), how + f"{found / mean:.4g} times the mean over the global batch.")

    far = _loss(replica_loss, logits + 1000, labels, 12)
    expect(np.isfinite(far), f"replica_loss is {far} where logits are near 1,000: the exponential overflows. A softmax "
                             "does not change when all logits of an image are moved by the same amount.")
    expect(bool(np.isclose(far, mean, rtol=1e-2)), "replica_loss changes when all logits of an image grow by the same "
                                                   "amount: a softmax does not.")
    right("the losses of all replicas add up to the mean over the global batch.")


# --- Exercise 3 ---


def _rows(worker_order, order, rank, workers, batch) -> np.ndarray:
    before = order.copy()
    found = outcome(worker_order, order, rank, workers, batch, name="worker_order")
    expect(np.array_equal(before, order), "worker_order changes the order that it is given: the other workers need it "
                                          "as it is.")
    rows = array(found, "The result of worker_order", kind="iu")
    steps, share = len(order) // batch, batch // workers
    expect(rows.ndim == 2, f"worker_order returns the shape {rows.shape}, and must return a row for each step.")
    expect(rows.shape != (share, steps) or share == steps, "worker_order returns a column for each step, and must "
                                                           "return a row.")
    where = f"With {workers} workers, a global batch of {batch} and {len(order)} images, worker {rank} "
    expect(len(rows) == steps, f"{where}gets {len(rows)} steps. Count the full global batches; what is left over is "
                               "dropped.")
    expect(rows.shape[1] == share, f"{where}reads {rows.shape[1]} images a step: count what all workers read together "
                                   "at one step.")
    return rows


def check_worker_order(worker_order) -> None:
    """`worker_order(order, rank, workers, global_batch)`: which images one worker reads, a row for each step.

    It gets image numbers, int64 (n,), and three whole numbers, and returns image numbers (steps, global_batch /
    workers). Raises NotYet where the workers' rows of a step do not make up the global batch of that step.
    """
    random = np.random.default_rng(7)
    for workers, batch, images in ((1, 12, 50), (2, 12, 50), (3, 12, 50), (4, 8, 40)):
        order = 100 + random.permutation(images)
        shares = [_rows(worker_order, order, rank, workers, batch) for rank in range(workers)]
        steps = images // batch
        known = np.isin(np.concatenate(shares), order)
        expect(known.all(), "worker_order returns numbers that are not in the order: positions in it, rather than what "
                            "stands there?")
        for rank, rows in enumerate(shares):
            expect(np.unique(rows).size == rows.size, f"Worker {rank} of {workers} reads an image twice in one epoch.")
        for one in range(workers):
            for other in range(one):
                common = np.intersect1d(shares[one], shares[other]).size
                expect(common < shares[one].size, f"Workers {other} and {one} read the same images: does the result "
                                                  "depend on the rank?")
                expect(common == 0, f"Workers {other} and {one} both read {common} of the images: whose are they?")
        together = np.sort(np.concatenate(shares, axis=1), axis=1)  # a row holds what one step sees
        wanted = np.sort(order[:steps * batch].reshape(steps, batch), axis=1)
        if np.array_equal(together, wanted):
            continue
        by_number = np.sort(order)[:steps * batch].reshape(steps, batch)
        expect(not np.array_equal(together, by_number), "The images come in the order of their numbers: the shuffled "
                                                        "order is lost.")
        expect(not np.array_equal(np.unique(together), np.unique(wanted)),
               "Each image is read once in an epoch, but one step of all workers together does not see what one worker "
               "alone would see at that step: put the workers' rows of the first step side by side, and compare.")
        raise NotYet("The workers together read other images than those at the beginning of the order: are others "
                     "dropped, or is it shuffled once more?")
    right("at every step the workers together see the global batch, and no image twice.")


# --- Exercise 4 ---


def _report(examples: int, accuracy: float, loss: float, seconds: float) -> dict:
    return {"examples": examples, "correct": round(examples * accuracy), "loss_sum": examples * loss,
            "seconds": seconds}


def _metrics(job_metrics, reports: list[dict]) -> dict[str, float]:
    found = outcome(job_metrics, [dict(report) for report in reports], name="job_metrics")
    given = _entries(found, "The result of job_metrics", ("accuracy", "loss", "images_per_second"))
    return {key: _number(value, key) for key, value in given.items()}


def _compare_metrics(found: dict[str, float], reports: list[dict]) -> None:
    """Raise NotYet where a figure is not that of the whole job; well-known wrong ones are named."""
    examples, correct, losses, seconds = (np.array([report[key] for report in reports], "float64")
                                          for key in ("examples", "correct", "loss_sum", "seconds"))
    busy = examples > 0
    for key, sums in (("accuracy", correct), ("loss", losses)):
        of_each, value, wanted = sums[busy] / examples[busy], found[key], sums.sum() / examples.sum()
        if _close(value, wanted):
            continue
        expect(not _close(value, of_each[0]), f"{key}: this is what the first worker saw, reported as that of all.")
        expect(not _close(value, of_each[-1]), f"{key}: this is what the last worker saw, reported as that of all.")
        expect(not _close(value, of_each.mean()), f"{key}: a mean of the workers' means. A worker with a few images "
                                                  "counts as much as one with many.")
        expect(not _close(value, of_each.sum()), f"{key}: the sum of the workers' means.")
        expect(not _close(value, 100 * wanted), f"{key}: a percentage, and must be a fraction.")
        expect(not _close(value, sums.sum()), f"{key}: a sum over all images that nothing divides.")
        expect(not _close(value, sums.sum() / len(reports)), f"{key}: divided by the number of workers, not of images.")
        raise NotYet(f"{key} is {value:.4g}, and not the mean over all workers' images.")
    value, speeds = found["images_per_second"], examples / seconds
    if _close(value, examples.sum() / seconds.max()):
        return
    expect(not _close(value, speeds[0]), "images_per_second: the first worker's images alone.")
    expect(not _close(value, speeds.sum()), "images_per_second: the sum of the workers' speeds. One that is done early "
                                            "waits for the others: how long does the job take?")
    expect(not _close(value, speeds.mean()), "images_per_second: a mean of the workers' speeds, as if only one worked.")
    expect(not _close(value, examples.sum() / seconds.sum()), "images_per_second: the workers' seconds are added, as "
                                                              "if they worked one after the other.")
    expect(not _close(value, examples.sum() / seconds.mean()), "images_per_second: divided by the mean of the seconds. "
                                                               "The job is not over when the average worker is.")
    for which, time in (("first", seconds[0]), ("fastest", seconds.min())):
        expect(not _close(value, examples.sum() / time), f"images_per_second: divided by the {which} worker's seconds. "
                                                         "When is the job over?")
    raise NotYet(f"images_per_second is {value:.4g}, and not all images by the seconds of the job.")


def check_job_metrics(job_metrics) -> None:
    """`job_metrics(reports)`: a job's accuracy, loss and images a second from its workers' reports.

    A report is a dict of numbers `examples`, `correct`, `loss_sum` and `seconds`. Raises NotYet where a figure is not
    that of all workers together.
    """
    alone = [_report(40, 0.75, 0.5, 2.0)]
    unequal = [_report(100, 0.9, 0.4, 4.0), _report(40, 0.5, 1.2, 5.0), _report(20, 0.25, 2.0, 2.5)]
    for reports in (unequal, unequal[::-1], alone):
        _compare_metrics(_metrics(job_metrics, reports), reports)
    idle = [*unequal, _report(0, 0.0, 0.0, 1.0)]  # more workers than the last batch has images
    found = _metrics(job_metrics, idle)
    expect(all(np.isfinite(value) for value in found.values()),
           "A figure is not finite where one worker had no images: it is divided by that worker's number of images.")
    _compare_metrics(found, idle)
    right("the figures are those of all workers together.")


# --- Exercise 5 ---

BATCHES, EVERY = 13, 2
CUTS, LAST = (7, 11), (6, 10)  # steps done when the power goes, and those of them that a checkpoint holds


class _PowerCut(BaseException):
    """Not an Exception: nothing that a solution might catch."""


def _start() -> dict:
    return {"weights": np.zeros(3), "velocity": np.zeros(3), "done": 0}


def _momentum(state: dict, batch: np.ndarray) -> dict:
    velocity = 0.9 * np.asarray(state["velocity"]) - 0.1 * (np.asarray(state["weights"]) - batch)
    return {"weights": np.asarray(state["weights"]) + velocity, "velocity": velocity, "done": int(state["done"]) + 1}


def _worker(function, batches: list, folder: Path, rank: int, cut: int | None = None) -> tuple[list, dict | None]:
    """Run a solution, with a power cut before the step after `cut` steps.

    Returns what the step was called with, as pairs of a state and the number of a batch, and the last state, None
    where the power was cut.
    """
    calls = []
    numbers = {batch.tobytes(): number for number, batch in enumerate(batches)}

    def step(state, batch):
        given = _entries(state, "The state that step gets", ("weights", "velocity", "done"))
        seen = {key: np.asarray(value).copy() for key, value in given.items()}
        calls.append((seen, numbers.get(np.asarray(batch).tobytes())))
        expect(len(calls) <= 3 * BATCHES, "train_or_resume never ends: it has done three times as many steps as there "
                                          "are batches.")
        if cut is not None and int(given["done"]) == cut:
            raise _PowerCut
        return _momentum(given, batch)

    try:
        state = outcome(function, step, _start(), batches, folder, rank, EVERY, name="train_or_resume")
    except _PowerCut:
        return calls, None
    return calls, _entries(state, "The result of train_or_resume", ("weights", "velocity", "done"))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _expect_resumed(calls: list, path: list[dict], last: int, who: str) -> None:
    """Raise NotYet where the first step after a power cut does not start from the state after step `last`."""
    expect(bool(calls), f"After a power cut {who} does no step, though the job is not done.")
    state, batch = calls[0]
    expect(state["weights"].shape == (3,) and state["velocity"].shape == (3,),
           f"After a power cut {who} goes on with weights or a velocity of another shape than they had.")
    at = next((number for number, past in enumerate(path) if np.array_equal(past["weights"], state["weights"])), None)
    expect(at is not None, f"After a power cut {who} goes on with weights that the job never had: are they saved at "
                           "full precision, and after a whole step?")
    expect(at != 0, f"After a power cut {who} starts with the first weights again, though the chief had saved others: "
                    "from which folder are checkpoints read?")
    expect(at >= last, f"After a power cut {who} goes on with the weights of step {at}, though step {last} had been "
                       "saved: which checkpoint is the last?")
    expect(at == last, f"After a power cut {who} goes on with the weights of step {at}: with every={EVERY} the last "
                       f"checkpoint holds step {last}.")
    expect(np.array_equal(state["velocity"], path[at]["velocity"]),
           f"After a power cut {who} goes on with the weights of step {at}, but not with the velocity of that step: "
           "what does the optimizer remember?")
    expect(batch == at, f"After a power cut {who} goes on with the weights of step {at} and with batch {batch}, "
                        f"counted from 0: {at} batches have been used.")
    expect(int(state["done"]) == at, f"After a power cut {who} goes on with the weights of step {at}, and counts "
                                     f"{int(state['done'])} steps as done.")


def check_train_or_resume(train_or_resume) -> None:
    """`train_or_resume(step, state, batches, folder, rank, every)`: train, and after a power cut go on.

    It calls `step(state, batch)` for each batch that is left, keeps a checkpoint after every `every` steps, and returns
    the last state, a dict of `weights` and `velocity`, float64 (d,), and the number of steps `done`. Raises NotYet
    where a job that was cut off ends otherwise than one that was not, or where another worker than the chief (rank 0)
    writes to the folder.
    """
    random = np.random.default_rng(7)
    batches = list(random.standard_normal((BATCHES, 3)))
    path = [_start()]
    for batch in batches:
        path.append(_momentum(path[-1], batch))

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        calls, state = _worker(train_or_resume, batches, Path(scratch) / "undisturbed", 0)
        expect([number for _, number in calls] == list(range(BATCHES)),
               f"Undisturbed, step is called {len(calls)} times for {BATCHES} batches, or not in their order.")
        expect(np.array_equal(state["weights"], path[-1]["weights"]),
               "Undisturbed, the weights that come back are not those after the last step: each step goes on from what "
               "the one before it returned.")

        folder = Path(scratch) / "job"
        for number, cut in enumerate(CUTS):
            calls, state = _worker(train_or_resume, batches, folder, 0, cut)
            if number:
                _expect_resumed(calls, path, LAST[number - 1], "worker 0")
            expect(state is None, f"The power is cut after {cut} steps, and train_or_resume returns as if nothing had "
                                  "happened.")
            expect(folder.is_dir() and bool(_files(folder)), f"After {cut} steps with every={EVERY} there is no "
                                                             "checkpoint of worker 0 in the folder.")
        before = _files(folder)
        calls, _ = _worker(train_or_resume, batches, folder, 1)  # on a machine that takes the place of a broken one
        expect(_files(folder) == before, "Worker 1 writes to the folder of the chief's checkpoints: two processes that "
                                         "write the same file spoil it.")
        _expect_resumed(calls, path, LAST[-1], "worker 1")
        calls, state = _worker(train_or_resume, batches, folder, 0)
        _expect_resumed(calls, path, LAST[-1], "worker 0")
        expect(len(calls) == BATCHES - LAST[-1], f"After the power cut {len(calls)} steps are done, and "
                                                 f"{BATCHES - LAST[-1]} were left.")
        expect(np.array_equal(state["weights"], path[-1]["weights"]),
               "A job that was cut off ends with other weights than one that was not.")
    right("a job that lost its power twice ends with the weights of one that did not.")


# --- Exercise 6 ---

RUN = ("workers", "per_replica_batch", "rate", "epochs", "seed", "measured_on")
EPOCHS, SEEDS, FEWEST_EPOCHS, GLOBAL_BATCHES = 36, 3, 3, (128, 512)


def check_design(design) -> None:
    """`design`: an experiment as a list of runs, each a dict of `workers`, `per_replica_batch`, `rate`, `epochs`,
    `seed` and `measured_on`.

    Raises NotYet where it breaks a rule that exercise 6 states.
    """
    expect(isinstance(design, list | tuple), f"design is {type(design).__name__}, and must be a list of runs.")
    expect(len(design) > 0, "design is an empty list: put the runs into it.")
    runs = [_entries(run, f"Run {number}", RUN) for number, run in enumerate(design)]
    for number, run in enumerate(runs):
        expect(isinstance(run["measured_on"], str), f"Run {number}: measured_on is {run['measured_on']!r}, and must be "
                                                    "the name of a split.")
        expect(run["measured_on"] != "test", f"Run {number} is measured on the test set, which is opened once, when "
                                             "every choice has been made.")
        expect(run["measured_on"] == "validation", f"Run {number} is measured on {run['measured_on']!r}: which images "
                                                   "did none of the runs train on, and may be looked at often?")
        run.update({key: _number(run[key], f"Run {number}: {key}") for key in RUN if key != "measured_on"})
        for key in ("workers", "per_replica_batch", "epochs", "seed"):
            expect(run[key] == round(run[key]), f"Run {number}: {key} is {run[key]:g}, and must be a whole number.")
        expect(run["workers"] >= 1, f"Run {number} has no worker.")
        expect(run["epochs"] >= FEWEST_EPOCHS, f"Run {number} trains for fewer than {FEWEST_EPOCHS} epochs.")
        expect(run["per_replica_batch"] == GLOBAL_BATCHES[0], f"Run {number} changes the per-replica batch: the same "
                                                              "in all runs, it leaves the number of workers as the "
                                                              "one thing that changes.")
        batch = run["workers"] * run["per_replica_batch"]
        expect(_close(run["rate"], BASE_RATE * batch / BASE_BATCH),
               f"Run {number} has a global batch of {batch:g} and the rate {run['rate']:g}, which is not what the rule "
               "gives: it is the rule that is to be tested.")
    pairs = [(run["workers"], run["seed"]) for run in runs]
    expect(len(set(pairs)) == len(pairs), "Two runs have the same number of workers and the same seed: the second "
                                          "tells nothing new.")
    arms = {workers: {seed for of, seed in pairs if of == workers} for workers, _ in pairs}
    for batch in GLOBAL_BATCHES:
        expect(batch // GLOBAL_BATCHES[0] in arms, f"No run has a global batch of {batch}: the question names two.")
    expect(len(set(map(frozenset, arms.values()))) == 1, "The numbers of workers are run with different seeds: with "
                                                         "the same ones the runs can be compared in pairs.")
    few = min(map(len, arms.values()))
    expect(few >= SEEDS, f"{few} seed(s) for each number of workers: a difference could be chance. Take at least "
                         f"{SEEDS}.")
    expect(len({run["epochs"] for run in runs}) == 1, "The runs have different numbers of epochs: then more than the "
                                                      "number of workers changes.")
    total = sum(run["epochs"] for run in runs)
    expect(total <= EPOCHS, f"The runs take {total:g} epochs, and the budget is {EPOCHS}.")
    right(f"{len(runs)} runs, {total:g} of {EPOCHS} epochs.")
