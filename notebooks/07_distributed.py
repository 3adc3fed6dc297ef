# %% [markdown]
# # 7 · When one machine is not enough
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your.organisation/cifar-course/blob/v1.0.0/notebooks/07_distributed.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/your.organisation/cifar-course/v1.0.0?labpath=notebooks%2F07_distributed.ipynb)
#
# > **Questions**: How do several GPUs, or several machines, train one model? What must they agree on? What happens when
# > one of them dies?
# >
# > **You will**: run lesson 4's loop under `tf.distribute`; divide a loss by the global batch; start a cluster of two
# > worker processes; show that their weights stay equal; kill one of them and go on from a checkpoint
#
# | Budget | Minutes on two cores |
# |---|---|
# | `smoke` | under 1 |
# | `laptop` | 2 |
# | `full` | 6 |
#
# On a GPU the minutes have not been measured yet.

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
from cifar_helpers import load_cifar10, start_lesson, take

budget = start_lesson("distributed")
data = take(load_cifar10(), budget.train_images, budget.validation_images)
data

# %%
import os
import signal
import tempfile
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from cifar_helpers import CourseError, cluster
from cifar_helpers.evaluation import accuracy, predict_logits
from cifar_helpers.marks import marked
from cifar_helpers.models import SubclassedCNN

# %% [markdown]
# ## One model, many copies
#
# *Data parallel* training keeps a copy of the model, a **replica**, on every device. At each step every replica gets
# its share of the batch and computes the gradient on it. An **all-reduce** sums the gradients over all replicas and
# hands the sum to each. All apply the same update, so the copies stay equal, and nobody is in charge.
#
# - The **global batch** is what one step sees in all; the **per-replica batch** is one replica's share of it.
# - A **worker** is a process that drives one or more replicas, usually one worker a machine.
#
# ## Divide by the global batch
#
# The sum of the replicas' gradients must be the gradient of the mean loss over the *global* batch. A mean over each
# replica's own examples, as in lesson 4, does not give that. **Predict first**: five losses, three on one replica and
# two on the other. Which of the lines below prints their mean?

# %%
losses = tf.constant([4.0, 1.0, 1.0, 2.0, 7.0])
shares = [losses[:3], losses[3:]]
of_five = [tf.nn.compute_average_loss(share, global_batch_size=5) for share in shares]
print(f"sum of the means     {sum(float(tf.reduce_mean(share)) for share in shares):.2f}")
print(f"mean of the means    {np.mean([tf.reduce_mean(share) for share in shares]):.2f}")
print(f"sum of the averages  {float(sum(of_five)):.2f}")

assert np.isclose(sum(of_five), np.mean(losses))

# %% [markdown]
# The first is what you get by leaving lesson 4's loss as it is: twice too large for two replicas, eight times for
# eight. The second is right only for equal shares. `compute_average_loss` sums a replica's losses and divides by the
# global batch; it needs a loss *an example*, so the loss function must not reduce.
#
# ## The pieces of the loop
#
# They are lesson 4's, as functions. First the model and the optimizer. Within `strategy.scope()` every variable they
# make is *mirrored*: one copy on each replica, with equal values. Dropout is off: each replica would draw its own, and
# we want to compare. Weights are 32-bit numbers as always, except in one short job that compares in 64 bits.

# %%
def build(rate, dtype):
    """A net with fixed first weights, and its optimizer; to be called in the scope of a strategy."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(2026)
    model = SubclassedCNN(dropout=0.0)
    model(np.zeros((1, 32, 32, 3), "uint8"))  # creates the weights
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    optimizer.build(model.trainable_variables)
    return model, optimizer


# %% [markdown]
# The step. `strategy.run` calls `replica_step` once on every replica, with that replica's share. Where is the
# all-reduce? In `apply_gradients`: called on a replica, a Keras optimizer sums the gradients over all replicas before
# it applies them. `strategy.reduce` sums the losses, for us to look at.

# %%
def make_step(strategy, model, optimizer, global_batch):
    loss_function = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1, reduction=None)

    def replica_step(images, labels):
        with tf.GradientTape() as tape:
            losses = loss_function(tf.one_hot(labels, 10), model(images, training=True))
            loss = tf.nn.compute_average_loss(losses, global_batch_size=global_batch)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    @tf.function
    def step(images, labels):
        return strategy.reduce("SUM", strategy.run(replica_step, args=(images, labels)), axis=None)

    return step


# %% [markdown]
# The data. TensorFlow calls `for_worker` once in each worker. Of the list of image numbers, `shard` takes every
# *n*-th, so that a step of all workers together sees one global batch and no image twice. (With
# `strategy.experimental_distribute_dataset` you batch by the global batch instead, and TensorFlow does the sharding.)

# %%
def distribute(strategy, images, labels, order, global_batch):
    def for_worker(context):
        mine = tf.data.Dataset.from_tensor_slices(order).shard(context.num_input_pipelines, context.input_pipeline_id)
        mine = mine.batch(context.get_per_replica_batch_size(global_batch), drop_remainder=True)
        return mine.map(lambda which: (tf.gather(images, which), tf.gather(labels, which))).prefetch(2)

    return strategy.distribute_datasets_from_function(for_worker)


# %% [markdown]
# **Checkpoints.** A long job on many machines will lose one of them sooner or later. `tf.train.Checkpoint` keeps
# weights *and* optimizer: its momentum and its count of steps. All workers must call `save`, since reading some
# variables takes all of them, but only one file may stand: worker 0, the *chief*, writes the real one and the others
# write to a place of their own, which nobody reads. All restore the chief's; on several machines its folder must be
# one that all of them see.

# %%
def restore(rank, folder, model, optimizer):
    """A manager that saves; weights and optimizer are set to the chief's last checkpoint, where there is one."""
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    if latest := tf.train.latest_checkpoint(folder):
        checkpoint.restore(latest).assert_existing_objects_matched()
        print(f"goes on from {Path(latest).name}")
    return tf.train.CheckpointManager(checkpoint, folder if rank == 0 else f"{folder}-worker-{rank}", max_to_keep=2)


# %% [markdown]
# And the loop. It does not know how many replicas there are: the strategy does. `dies_at` is for the end of the
# lesson: at that step, worker 1 kills itself.

# %%
KILL = int(getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has no SIGKILL, and its SIGTERM ends a process as hard


def train(strategy, rank, images, labels, order, global_batch, rate, folder, checkpoint_steps, dies_at=None,
          dtype="float32"):
    with strategy.scope():
        model, optimizer = build(rate, dtype)
    manager = restore(rank, folder, model, optimizer)
    done = int(tf.convert_to_tensor(optimizer.iterations))
    batches = distribute(strategy, images, labels, order[done * global_batch:], global_batch)
    step = make_step(strategy, model, optimizer, global_batch)
    losses, times = [], []
    for number, batch in enumerate(batches, done + 1):
        if number == dies_at and rank == 1:
            print(f"is killed before step {number}")
            os.kill(os.getpid(), KILL)
        losses.append(float(step(*batch)))
        times.append(time.perf_counter())
        if number % checkpoint_steps == 0:
            manager.save(checkpoint_number=number)
    return report(model, done, losses, times, global_batch)


# %%
def report(model, done, losses, times, global_batch):
    """What is sent back: arrays and plain values. The first step is not timed, since it traces the graph."""
    print(f"steps {done + 1} to {done + len(losses)}, loss {losses[0]:.3f} to {losses[-1]:.3f}")
    weights = np.concatenate([np.ravel(weight) for weight in model.get_weights()])
    speed = (len(times) - 1) * global_batch / (times[-1] - times[0])
    return {"weights": weights, "done": done, "losses": losses, "images_per_second": speed}


# %% [markdown]
# All jobs of this lesson get the same numbers: which image comes when, how many at once, and at what rate. The order
# is drawn here once, an epoch after the other; the images left over at an epoch's end are dropped.

# %%
GLOBAL_BATCH = 128
scratch = tempfile.TemporaryDirectory(prefix="course-distributed-", ignore_cleanup_errors=True)
steps = len(data.train) // GLOBAL_BATCH
random = np.random.default_rng(budget.seed)
order = np.concatenate([random.permutation(len(data.train))[:steps * GLOBAL_BATCH] for _ in range(budget.epochs)])
total = budget.epochs * steps
job = {"images": data.train.images, "labels": data.train.labels, "order": order, "global_batch": GLOBAL_BATCH,
       "rate": 0.02, "checkpoint_steps": budget.checkpoint_steps}
print(f"{total} steps of {GLOBAL_BATCH} images, a checkpoint every {budget.checkpoint_steps}")

# %% [markdown]
# ## Several GPUs in one machine: `MirroredStrategy`
#
# It makes a replica on every GPU that it finds, all driven by one process; without a GPU it makes one on the CPU. With
# four GPUs this very cell would train on four.

# %%
mirrored = tf.distribute.MirroredStrategy()
print(f"{mirrored.num_replicas_in_sync} replica(s), {GLOBAL_BATCH // mirrored.num_replicas_in_sync} images each a step")
short = job | {"order": order[:3 * GLOBAL_BATCH]}
here = train(mirrored, 0, **short, folder=f"{scratch.name}/here")
assert len(here["losses"]) == 3 and np.isfinite(here["weights"]).all()

# %% [markdown]
# To see more than one replica without a GPU, split the CPU into two *logical devices*. That must happen before
# TensorFlow computes anything, and in this kernel it has, so a fresh process does it. `cluster.launch` writes the
# source of a function, of those that it calls and of their imports into a program, runs it in as many processes as we
# ask for, shows what they print and gives back what they return.

# %%
def two_replicas(images, labels, **job):
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    numbers = strategy.run(lambda: tf.distribute.get_replica_context().replica_id_in_sync_group + 1)
    print("each replica's number", [int(number) for number in strategy.experimental_local_results(numbers)])
    everywhere = strategy.run(lambda: tf.distribute.get_replica_context().all_reduce(
        "sum", tf.distribute.get_replica_context().replica_id_in_sync_group + 1))
    print("after an all-reduce  ", [int(number) for number in strategy.experimental_local_results(everywhere)])
    return train(strategy, 0, images, labels, **job)


exact = job | {"order": order[:320], "global_batch": 32, "dtype": "float64"}
[two] = cluster.launch(two_replicas, workers=1, arguments=exact | {"folder": f"{scratch.name}/two"})

# %% [markdown]
# ## Several machines: `MultiWorkerMirroredStrategy`
#
# Now each machine runs the same program. The environment variable `TF_CONFIG` tells each where all of them are and
# which of them it is. On a real cluster, you or the scheduler set it; here `launch` does, for two processes on this
# machine that talk over the loopback interface.
#
# The strategy must be made before anything else in the program, for it starts the server that the others wait for.
# After that the worker is one call. (A loop of our own is no luxury here: `fit` under this strategy stops with an error
# in Keras 3.15.) Where we want to compare, each worker first does ten steps in 64-bit numbers, then the job.

# %%
def worker(images, labels, order, compare=False, **job):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    rank = strategy.cluster_resolver.task_id
    print(os.environ["TF_CONFIG"])
    shared = {"strategy": strategy, "rank": rank, "images": images, "labels": labels}
    result = {}
    if compare:
        exact = job | {"global_batch": 32, "dtype": "float64", "folder": job["folder"] + "-exact"}
        result["exact"] = train(**shared, order=order[:320], **exact)["weights"]
    return result | train(**shared, order=order, **job)


pair = cluster.launch(worker, workers=2, arguments=job | {"folder": f"{scratch.name}/pair", "compare": True})
assert np.array_equal(pair[0]["weights"], pair[1]["weights"])

# %% [markdown]
# After the last step the two workers' weights are equal to the last bit: both applied the same sums.
#
# The same job again, with a single worker that gets the whole global batch. **Predict first**: will its weights equal
# those of the two? To the last bit?

# %%
[alone] = cluster.launch(worker, workers=1, arguments=job | {"folder": f"{scratch.name}/alone", "compare": True})

for bits, key in ((64, "exact"), (32, "weights")):
    difference = np.abs(pair[0][key] - alone[key]).max() / np.abs(alone[key]).max()
    print(f"{bits} bits: one worker and two differ by up to {difference:.1e} of the largest weight")

assert np.allclose(alone["exact"], pair[0]["exact"], rtol=0, atol=1e-9)
assert np.allclose(alone["exact"], two["weights"], rtol=0, atol=1e-9)

# %% [markdown]
# **Explain both numbers.** A sum in another order is rounded differently: in 64 bits by about 1e-16, in 32 bits by
# about 1e-7. Now and then such a crumb decides which of two nearly equal values max-pooling passes on, or on which side
# of zero a ReLU's input falls, and every later step builds on that. So the 64-bit jobs show that the *computation* is
# the same, and the 32-bit jobs drift apart with the number of steps, though neither is more right than the other.

# %%
figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
axis.plot(range(1, total + 1), alone["losses"], label="one worker")
axis.plot(range(1, total + 1), pair[0]["losses"], "--", label="two workers")
axis.set(xlabel="step", ylabel="loss")
axis.grid(alpha=0.3)
axis.legend()
figure.suptitle(marked("The same global batches on one worker and on two"));

# %%
model, _ = build(job["rate"], "float32")
shapes = [weight.shape for weight in model.get_weights()]
pieces = np.split(pair[0]["weights"], np.cumsum([np.prod(shape) for shape in shapes])[:-1])
model.set_weights([piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)])
found = accuracy(predict_logits(model, data.validation.images), data.validation.labels)
print(f"validation accuracy of what two workers trained: {found:.3f}")

# %% [markdown]
# ## How much faster?
#
# Each worker computes with one thread, on Linux on a core of its own, so two workers have twice the processor that one
# has. **Predict first**: twice the images a second?

# %%
speeds = {"one worker": alone["images_per_second"], "two workers": pair[0]["images_per_second"]}
figure, axis = plt.subplots(figsize=(5, 2.8), layout="constrained")
bars = axis.bar(list(speeds), list(speeds.values()), width=0.5)
axis.bar_label(bars, fmt="{:,.0f}")
axis.axhline(2 * speeds["one worker"], linestyle=":", color="grey")
axis.set(ylabel="images a second")
figure.suptitle(marked("Throughput, and twice that of one worker (dotted)"));

# %% [markdown]
# **Where does the rest go?** At each step the workers exchange a gradient of the size of the model and wait for the
# slower one. What this cannot show: two processes on one machine share its memory and its caches, whatever else runs on
# the two cores slows them both, and a loopback interface is no network. What it does show: the program, and that
# communication has a price. The price is a smaller share where a step computes more: a larger per-replica batch, or a
# net with more arithmetic a parameter.
#
# ## The learning rate
#
# More replicas can be used in two ways. Keep the *global* batch, as above: the mathematics stays, and each replica gets
# less to do. Or keep the *per-replica* batch: the global batch grows, an epoch has fewer steps, and each step averages
# over more images, so that it can be longer. The usual rule for SGD multiplies the rate by the same factor as the
# global batch, with a warm-up of some epochs ([Goyal et al. 2017](https://arxiv.org/abs/1706.02677)). It holds up to a
# point, which depends on the problem; for Adam, a square root is the common advice.

# %%
def scaled_rate(global_batch, base_rate=0.02, base_batch=128):
    return base_rate * global_batch / base_batch


for replicas in (1, 2, 4, 8):
    print(f"{replicas} x 128 images: rate {scaled_rate(128 * replicas):.2f}, "
          f"{-(-len(data.train) // (128 * replicas)):,} steps an epoch")
assert scaled_rate(GLOBAL_BATCH) == job["rate"]

# %% [markdown]
# ## When a worker dies
#
# Now a power cut: in the middle of the job worker 1 kills itself with a signal that no program can catch. **Predict
# first**: what does worker 0 do, which stands in the all-reduce and waits for a sum?

# %%
dies_at = total * 2 // 3
killed = job | {"folder": f"{scratch.name}/killed"}
try:
    cluster.launch(worker, workers=2, arguments=killed | {"dies_at": dies_at}, patience=budget.patience)
except CourseError as error:
    print(error)
else:
    raise AssertionError("the job outlived its worker")

# %% [markdown]
# Without worker 1 there is no sum, so the whole job ends. Left alone, worker 0 learns of it when worker 1's heartbeats
# have stayed away for some seconds; `launch` gives it `patience` seconds for that and then stops it, so that nothing
# hangs. At the `smoke` budget that is one second, in which nothing is noticed yet. (On Windows the message gives an
# exit status, since there are no signals.)
#
# On a cluster a scheduler starts the job again. So do we: the same call, without the accident.

# %%
resumed = cluster.launch(worker, workers=2, arguments=killed)

last_checkpoint = (dies_at - 1) // budget.checkpoint_steps * budget.checkpoint_steps
print(f"killed before step {dies_at}, went on after step {resumed[0]['done']}")
assert resumed[0]["done"] == last_checkpoint
assert resumed[0]["losses"] == pair[0]["losses"][last_checkpoint:]
for result in resumed:
    assert np.array_equal(result["weights"], pair[0]["weights"])

scratch.cleanup()

# %% [markdown]
# The steps since the checkpoint were done twice, and nothing else is lost: the final weights are those of the job that
# was never disturbed, to the last bit. That takes three things: the optimizer's state in the checkpoint, the place in
# the data (here the number of steps), and the same number of workers. **Which of the three** would a checkpoint of the
# model alone have missed?
#
# ## Where to read on
#
# Beyond this lesson: `ParameterServerStrategy`, where workers do not wait for each other and variables live on servers
# of their own ([guide](https://www.tensorflow.org/tutorials/distribute/parameter_server_training)); *model parallelism*
# for a net that is too large for one device, for example with
# [`keras.distribution`](https://keras.io/guides/distribution/) on JAX; and
# [`jax.distributed`](https://docs.jax.dev/en/latest/multi_process.html) for several machines with JAX.
# TensorFlow's [guide](https://www.tensorflow.org/guide/distributed_training) lists all strategies.
#
# ## Key points
# - A replica is a copy of the model; after an all-reduce of the gradients all apply the same update and stay equal.
# - Divide the loss by the global batch, and let the optimizer sum.
# - The same global batches give the same result on one worker and on two, up to rounding.
# - Speed-up is what is left after communication; measure it.
# - One dead worker ends the job. A checkpoint of model *and* optimizer makes that cheap.
#
# ## Exercises
# 1. **Divide by the wrong number.** Replace `compute_average_loss` by `tf.reduce_mean` in `make_step`. Which assert
#    fails, and to what change of the learning rate does the error amount?
# 2. **Sum twice.** Put `gradients = tf.distribute.get_replica_context().all_reduce("sum", gradients)` before
#    `apply_gradients`. Compare one worker and two again. With Adam, would the losses show it?
# 3. **Forget the optimizer.** Leave it out of the checkpoint, and take the number of steps done from the file's name.
#    How far from the undisturbed weights does the restarted job end?
# 4. **Weak scaling.** Give two workers a global batch of 256 at the rate of `scaled_rate(256)`. Compare images a second
#    and the loss after the same number of *images*.
