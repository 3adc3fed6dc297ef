# %% [markdown]
# # Exercises 7 · When one machine is not enough
#
# Six exercises, 20 points, on lesson 7: replicas, the global batch, the all-reduce, and what a checkpoint must hold.
# Nothing here starts a second process: the workers of a job are calls of the same function, one after the other, on
# arrays that are small enough to look at. NumPy and TensorFlow are both fine.
#
# Write your lines where it says `YOUR CODE HERE`, delete the `raise` below it, and leave the other cells as they are.
# The cell below each answer checks it and says what is not right yet; run it as often as you like. When your work is
# graded, that cell gives the points, with further tests that you do not see. One answer is a text, which a person
# reads: double-click where it says `YOUR ANSWER HERE`. To hand in, restart the kernel and run all cells, save, and
# submit this notebook under the name that it has. An exercise that is not done costs its own points only.

# %% tags=["nbval-skip"]
# Finds the course's helpers: installed, else in a folder around this one, else, as on Colab, from the course's release.
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

if not find_spec("cifar_helpers"):
    folders = [Path.cwd(), *Path.cwd().parents]
    sys.path += [str(folder) for folder in folders if (folder / "cifar_helpers/__init__.py").is_file()][:1]
if not find_spec("cifar_helpers"):
    wheel = "https://github.com/your.organisation/cifar-course/releases/download/v1.0.0/cifar_helpers-1.0.0-py3-none-any.whl"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--retries=1", wheel]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode or not find_spec("cifar_helpers"):
        why = done.stderr.strip().split("\n")[-1]
        raise ImportError(f"The course could not be installed: connect to the network, restart, and try again. {why}")

# %%
from cifar_helpers import checks, start_exercises

start_exercises()

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

# %% [markdown]
# ## Exercise 1: Predict, then run (2 points)
#
# A net was trained with SGD on one replica, with 128 images a step at the rate 0.02. Now it gets **4 workers with one
# replica each, and 64 images a replica**. There are 10,000 training images; as in the lesson, images left over at an
# epoch's end are dropped.
#
# Put four numbers into the dict `predictions`, before you run anything:
#
# - `global_batch`: the images that one step sees;
# - `steps_per_epoch`: the steps of one epoch;
# - `rate`: the learning rate that the usual rule for SGD gives;
# - `loss_factor`: each worker takes the *mean* loss over its own images, and the all-reduce *sums* the gradients. By
#   which factor is the gradient that all apply too large?

# %% nbgrader={"grade": false, "grade_id": "predictions", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
predictions = {"global_batch": 4 * 64, "steps_per_epoch": 10_000 // 256, "rate": 0.02 * 256 / 128, "loss_factor": 4}
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "predictions-points", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_predictions(predictions)
### BEGIN HIDDEN TESTS
expected_batches = np.arange(10_000 // (4 * 64) * 4 * 64).reshape(-1, 4, 64)
losses_of_step = np.ones((4, 64))
assert float(predictions["global_batch"]) == expected_batches[0].size
assert float(predictions["steps_per_epoch"]) == len(expected_batches)
assert abs(float(predictions["rate"]) - 0.02 * expected_batches[0].size / 128) < 1e-6
assert abs(float(predictions["loss_factor"]) - losses_of_step.mean(axis=1).sum() / losses_of_step.mean()) < 1e-6
### END HIDDEN TESTS

# %% [markdown]
# Now run it. Four workers fit the slope of a line with one weight, so that the gradient is a single number.

# %%
random = np.random.default_rng(0)
x = random.standard_normal(10_000)
y = 3 * x
batches = np.arange(len(x) // 256 * 256).reshape(-1, 4, 64)  # steps, workers, images


def slope_gradient(weight, images):
    """The gradient of the mean squared error over some images with respect to the weight."""
    return 2 * np.mean((weight * x[images] - y[images]) * x[images])


local_means = sum(slope_gradient(0.0, images) for images in batches[0])
print(f"{batches[0].size} images a step, {len(batches)} steps, "
      f"a gradient {local_means / slope_gradient(0.0, batches[0]):.2f} times too large")

# %% [markdown]
# ## Exercise 2: One replica's part of the loss (3 points)
#
# Complete `replica_loss(logits, labels, global_batch)`. It gets the logits of the images that **one replica** holds,
# float32 `(n, 10)`, their labels, int64 `(n,)`, and the number of images in the global batch. It returns one number:
# what this replica adds to the mean cross-entropy of the global batch. Replicas may hold different numbers of images.
# The logits may be large, as they are early in a training that goes wrong.

# %% nbgrader={"grade": false, "grade_id": "replica-loss", "locked": false, "schema_version": 3, "solution": true, "task": false}
def replica_loss(logits, labels, global_batch):
    ### BEGIN SOLUTION
    shifted = logits - np.max(logits, axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    losses = -log_probabilities[np.arange(len(labels)), labels]
    return np.sum(losses) / global_batch
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "replica-loss-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_replica_loss(replica_loss)
### BEGIN HIDDEN TESTS
# Ten equal logits: each image has the loss log 10, wherever it is.
level = [float(replica_loss(np.zeros((n, 10), "float32"), np.arange(n) % 10, 20)) for n in (3, 7, 10)]
assert np.isclose(sum(level), np.log(10), rtol=1e-5)
assert np.allclose(np.array(level) / level[0], np.array([3, 7, 10]) / 3, rtol=1e-4)
# The right class is ahead by 800: no loss. It is behind by 800: the loss is 800.
extreme = np.zeros((2, 10), "float32")
extreme[:, 4] = 800
assert abs(float(replica_loss(extreme, np.array([4, 4]), 2))) < 1e-5
assert np.isclose(float(replica_loss(extreme, np.array([4, 5]), 2)), 400, rtol=1e-3)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 3: Who reads which images? (3 points)
#
# Complete `worker_order(order, rank, workers, global_batch)`. It gets the shuffled image numbers of an epoch, `order`,
# int64 `(n,)`, the worker's rank, from 0, the number of workers, and the global batch, a multiple of it. It returns the
# image numbers that this worker reads, whole numbers `(steps, global_batch // workers)`, a row for each step.
#
# At each step, all workers together must see exactly the images that one worker alone would see at that step: the next
# `global_batch` numbers of the order. Images that do not fill a global batch are dropped.

# %% nbgrader={"grade": false, "grade_id": "worker-order", "locked": false, "schema_version": 3, "solution": true, "task": false}
def worker_order(order, rank, workers, global_batch):
    ### BEGIN SOLUTION
    steps = len(order) // global_batch
    return np.reshape(order[:steps * global_batch], (steps, global_batch))[:, rank::workers]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "worker-order-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_worker_order(worker_order)
### BEGIN HIDDEN TESTS
for n, size, count in ((37, 6, 2), (64, 16, 8), (30, 30, 5)):
    drawn = np.random.default_rng(n).permutation(np.arange(1_000, 1_000 + n))
    rows = np.concatenate([np.asarray(worker_order(drawn.copy(), worker, count, size)) for worker in range(count)],
                          axis=1)
    assert rows.shape == (n // size, size)
    for number, row in enumerate(rows):
        assert sorted(row) == sorted(drawn[number * size:(number + 1) * size])
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 4: Find the bug (3 points)
#
# At the end of a validation each worker sends a report: how many images it had (`examples`), how many of them it got
# right (`correct`), the sum of their losses (`loss_sum`), and how long it took (`seconds`). All workers begin together.
# `published` below made the figures of a report on a training with three workers. They look good. They are wrong, and
# not for one reason only.

# %%
reports = [{"examples": 96, "correct": 84, "loss_sum": 38.4, "seconds": 4.0},
           {"examples": 64, "correct": 40, "loss_sum": 76.8, "seconds": 5.0},
           {"examples": 32, "correct": 16, "loss_sum": 51.2, "seconds": 2.5}]


def published(reports):
    accuracy = np.mean([report["correct"] / report["examples"] for report in reports])
    loss = reports[0]["loss_sum"] / reports[0]["examples"]
    speed = sum(report["examples"] / report["seconds"] for report in reports)
    return {"accuracy": accuracy, "loss": loss, "images_per_second": speed}


published(reports)

# %% [markdown]
# Write `job_metrics(reports)`, which returns a dict with the same three keys: the top-1 accuracy, from 0 to 1, and the
# mean loss, both over all workers' images, and how many images a second the job as a whole validated. A worker may have
# had no images at all.

# %% nbgrader={"grade": false, "grade_id": "job-metrics", "locked": false, "schema_version": 3, "solution": true, "task": false}
def job_metrics(reports):
    ### BEGIN SOLUTION
    examples = sum(report["examples"] for report in reports)
    return {"accuracy": sum(report["correct"] for report in reports) / examples,
            "loss": sum(report["loss_sum"] for report in reports) / examples,
            "images_per_second": examples / max(report["seconds"] for report in reports)}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "job-metrics-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_job_metrics(job_metrics)
### BEGIN HIDDEN TESTS
hidden = [{"examples": 10, "correct": 1, "loss_sum": 30.0, "seconds": 8.0},
          {"examples": 90, "correct": 81, "loss_sum": 45.0, "seconds": 6.0},
          {"examples": 0, "correct": 0, "loss_sum": 0.0, "seconds": 0.5}]
for given in (hidden, hidden[::-1]):
    marked_metrics = {key: float(value) for key, value in job_metrics(given).items()}
    assert np.isclose(marked_metrics["accuracy"], 0.82)
    assert np.isclose(marked_metrics["loss"], 0.75)
    assert np.isclose(marked_metrics["images_per_second"], 12.5)
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 5: Go on after a power cut (4 points)
#
# Complete `train_or_resume(step, state, batches, folder, rank, every)`, which each worker of a job runs.
#
# - `step(state, batch)` does one training step and returns the new state.
# - `state` is a dict: `weights` and `velocity`, the optimizer's momentum, float64 `(d,)`, and `done`, an int, the number
#   of steps done. The `state` that is passed in is that of a new job.
# - `batches` is the list of *all* batches of the job, the same at every start.
# - `folder`, a `Path` that may not exist yet, is where the checkpoints are. Only the chief, `rank` 0, may write there;
#   all workers read from it.
# - After every `every` steps, counted from the beginning of the job, the chief saves a checkpoint.
#
# The function returns the last state. When the job is started again after a power cut, it must end with the weights of
# an undisturbed job, to the last bit. You may use these two functions:

# %%
def save(state, file):
    """Write a state to a file; it appears under its name only once it is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"unfinished-{file.name}")
    np.savez(unfinished, **state)
    unfinished.replace(file)


def load(file):
    """The state in a file that `save` wrote."""
    with np.load(file) as stored:
        return {"weights": stored["weights"], "velocity": stored["velocity"], "done": int(stored["done"])}


# %% nbgrader={"grade": false, "grade_id": "train-or-resume", "locked": false, "schema_version": 3, "solution": true, "task": false}
def train_or_resume(step, state, batches, folder, rank, every):
    ### BEGIN SOLUTION
    last = folder / "last.npz"
    if last.exists():
        state = load(last)
    for batch in batches[state["done"]:]:
        state = step(state, batch)
        if rank == 0 and state["done"] % every == 0:
            save(state, last)
    ### END SOLUTION
    return state


# %% nbgrader={"grade": true, "grade_id": "train-or-resume-points", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
checks.check_train_or_resume(train_or_resume)
### BEGIN HIDDEN TESTS


class PowerCut(BaseException):
    pass


def fragile_step(life):
    """A step with momentum that raises PowerCut after `life` calls."""
    calls = []

    def one_step(state, batch):
        if len(calls) == life:
            raise PowerCut
        calls.append(state)
        velocity = 0.5 * np.asarray(state["velocity"]) + batch
        return {"weights": np.asarray(state["weights"]) - 0.1 * velocity, "velocity": velocity,
                "done": int(state["done"]) + 1}

    return one_step


hidden_batches = list(np.random.default_rng(5).standard_normal((29, 2)))
new_job = {"weights": np.ones(2), "velocity": np.zeros(2), "done": 0}
with tempfile.TemporaryDirectory() as hidden_folder:
    undisturbed = train_or_resume(fragile_step(99), dict(new_job), hidden_batches, Path(hidden_folder) / "a", 0, 3)
    for life in (8, 9, 7):  # cut after 8 steps, then after 9 more, then after 7 more
        try:
            train_or_resume(fragile_step(life), dict(new_job), hidden_batches, Path(hidden_folder) / "b", 0, 3)
            raise AssertionError("the power cut went unnoticed")
        except PowerCut:
            pass
    chief_files = sorted(path.name for path in (Path(hidden_folder) / "b").rglob("*"))
    second = train_or_resume(fragile_step(29 - 21), dict(new_job), hidden_batches, Path(hidden_folder) / "b", 2, 3)
    assert chief_files == sorted(path.name for path in (Path(hidden_folder) / "b").rglob("*"))
    first = train_or_resume(fragile_step(29 - 21), dict(new_job), hidden_batches, Path(hidden_folder) / "b", 0, 3)
for after in (first, second):
    assert np.array_equal(after["weights"], undisturbed["weights"]) and int(after["done"]) == 29
### END HIDDEN TESTS

# %% [markdown]
# ## Exercise 6: An experiment within a budget (5 points)
#
# The usual rule for SGD multiplies the learning rate by the same factor as the global batch. **Does our net reach the
# same validation accuracy with a global batch of 512 as with 128, if the rule is followed?** Design the experiment: a
# list `design` of runs, each a dict with these keys.
#
# | Key | What it holds |
# |---|---|
# | `workers` | the number of workers, with one replica each |
# | `per_replica_batch` | images a replica and step |
# | `rate` | the learning rate; 0.02 belongs to a global batch of 128 |
# | `epochs` | at least 3 |
# | `seed` | a whole number |
# | `measured_on` | the split on which the accuracy is measured |
#
# The budget is 36 epochs in all. Only the number of workers changes from run to run, and the rate as the rule says.
# Differences between runs that differ in nothing but the seed must be visible too, so each number of workers is run at
# least three times. More than two numbers of workers are allowed. (3 points)

# %% nbgrader={"grade": false, "grade_id": "scaling-design", "locked": false, "schema_version": 3, "solution": true, "task": false}
### BEGIN SOLUTION
design = [{"workers": workers, "per_replica_batch": 128, "rate": 0.02 * workers, "epochs": 6, "seed": seed,
           "measured_on": "validation"} for workers in (1, 4) for seed in (1, 2, 3)]
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "scaling-design-points", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_design(design)
### BEGIN HIDDEN TESTS
assert sum(run["epochs"] for run in design) <= 36
assert {run["measured_on"] for run in design} == {"validation"}
assert all(abs(run["rate"] - 0.02 * run["workers"] * run["per_replica_batch"] / 128) < 1e-6 for run in design)
assert {1, 4} <= {run["workers"] for run in design} and len({run["per_replica_batch"] for run in design}) == 1
assert min(len({run["seed"] for run in design if run["workers"] == workers}) for workers in (1, 4)) >= 3
### END HIDDEN TESTS

# %% [markdown]
# Somebody ran such a design. The figures below are made up for this exercise: the validation accuracy after each epoch,
# for three seeds each.

# %%
measured = {"1 worker, rate 0.02": [[0.41, 0.50, 0.55, 0.585, 0.61, 0.625], [0.43, 0.51, 0.56, 0.59, 0.615, 0.63],
                                    [0.40, 0.495, 0.545, 0.58, 0.605, 0.62]],
            "4 workers, rate 0.08": [[0.27, 0.41, 0.50, 0.555, 0.595, 0.62], [0.31, 0.44, 0.52, 0.57, 0.60, 0.627],
                                     [0.24, 0.38, 0.48, 0.545, 0.59, 0.615]]}
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for (name, curves), color in zip(measured.items(), ("C0", "C1"), strict=True):
    for number, curve in enumerate(curves):
        axis.plot(range(1, 7), curve, color=color, marker=".", label=name if number == 0 else None)
axis.set(xlabel="epoch", ylabel="validation accuracy")
axis.grid(alpha=0.3)
axis.legend()
figure.suptitle("Made-up figures: two numbers of workers, three seeds each");

# %% [markdown]
# **Read the plot** (2 points). In three to five sentences: what do the curves say about the rule after one epoch, and
# what after six? Compare the distance between the two colours with the spread within one. Name one thing that would
# change the beginning of the orange curves, and say why the six epochs of the four workers are not the same number of
# *steps* as those of the one.

# %% [markdown] nbgrader={"grade": true, "grade_id": "scaling-text", "locked": false, "points": 2, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# After one epoch the four workers are far behind: the gap between the colours is several times the spread within one.
# After six epochs the gap is smaller than the difference between two seeds, so these runs show no loss of accuracy;
# three seeds cannot rule out a small one. A warm-up, in which the rate rises over the first epochs, would help at the
# beginning, where a rate of 0.08 is too much for fresh weights. Four workers see 512 images a step, so an epoch has a
# quarter of the steps; after six epochs they have made a quarter of the updates, each of them longer.
# ### END SOLUTION

# %% [markdown]
# ## To discuss (no points)
#
# No points; bring an answer to the next meeting.
#
# 1. A department has four old laptops on a wireless network, and one machine with a GPU. Someone proposes to join the
#    laptops with `MultiWorkerMirroredStrategy`. What would you measure in an hour before anyone buys cables?
# 2. A job has 256 workers, and each machine fails once in a year on average. How often does the job stop, and how would
#    you choose the number of steps between two checkpoints? What does a checkpoint cost, and what does none cost?
# 3. Batch normalisation computes its mean and variance over the images of one replica. What changes when the same
#    global batch is spread over more and more replicas, although every loss is divided by the global batch?
