# %% [markdown]
# # 6 · Open the test set, once
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/your.organisation/cifar-course/blob/v1.0.0/notebooks/06_comparison.ipynb)
# [![Open in Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/your.organisation/cifar-course/v1.0.0?labpath=notebooks%2F06_comparison.ipynb)
#
# > **Questions**: Which model is best, and is the difference more than chance? What do they get wrong, and do they
# > know?
# >
# > **You will**: measure every saved run on the held-out test set; read confusion matrices, precision and recall; put
# > intervals on accuracies; test differences; look at confident mistakes; draw calibration curves; try a picture of
# > your own
#
# | Budget | Minutes on two cores | Test accuracy |
# |---|---|---|
# | `smoke` | under 1 | says nothing |
# | `laptop` | 2 | 0.63 to 0.91 |
# | `full` | 6 | 0.70 to 0.96 |
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

budget = start_lesson("comparison")
data = take(load_cifar10(), test=budget.test_images)
data

# %%
import itertools
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cifar_helpers import evaluation, explore, plots, runs

# %% [markdown]
# ## What there is to compare
#
# Each lesson saved its models under `runs/`. A run that is missing is trained now, at the smoke budget, and marked so:
# run its lesson for a real one. A run on other images is left out, with a sentence that says why.

# %%
runs.train_missing(data)
saved = runs.list_runs(data)
for run in saved:
    print(f"{run.name:22} {run.info['parameters']:12,} parameters   {run.marks}")

# %% [markdown]
# ## The test set, once a model
#
# Until now no test image has been looked at by any model. Each is measured here once, as it was saved; the figures go
# into its run. `predict_logits` feeds the images in batches; `record_test` adds accuracy and loss to `run.json`.
# Lesson 4's fast net looks at each picture twice, as it is and mirrored; what both looks reach stands apart.
#
# **Predict first**: write down the order you expect, best first, and by how much the best two differ.

# %%
for number, run in enumerate(saved):
    if run.info.get("test_images") == len(data.test):
        continue  # measured before: once is enough
    model = runs.load_model(run)
    evaluation.predict_logits(model, data.test.images[:100])  # the first call builds the graph
    begun = time.perf_counter()
    logits = evaluation.predict_logits(model, data.test.images)
    milliseconds = 1_000 * (time.perf_counter() - begun) / len(data.test)
    mirrored = data.test.images[:, :, ::-1] if run.name.startswith("fast") else None
    mirrored_logits = None if mirrored is None else evaluation.predict_logits(model, mirrored)
    saved[number] = runs.record_test(run, logits, data, milliseconds, mirrored_logits)

# %%
table = runs.table(saved)
for run in saved:
    if "test_accuracy_flips" in run.info:
        print(f"{run.name}, with flips at test time: {run.info['test_accuracy_flips']:.3f}")
table

# %% [markdown]
# **Read the table by row.** How far apart are training, validation and test accuracy? Validation chose nothing here
# but the lessons' settings, so it should be close to test. Which model buys its accuracy with time, and which with
# parameters that others have trained?
#
# The runner of the whole course prints this table at its end, so it is kept as text too.

# %%
if build := os.environ.get("COURSE_BUILD"):
    lines = [str(data.source), "", table.to_string(), ""]
    Path(build, "comparison.txt").write_text("\n".join(lines), encoding="utf-8")

# %% [markdown]
# ## Where do they go wrong?
#
# In a confusion matrix each row is a true class. The diagonal is right; elsewhere stands what the class was taken for.

# %%
logits = {run.name: runs.load_predictions(run)["test_logits"] for run in saved}
labels, names = data.test.labels, data.class_names
assert all(values.shape == (len(labels), 10) for values in logits.values())
predicted = {name: values.argmax(axis=1) for name, values in logits.items()}
plots.confusion_matrices(predicted, labels, names, "Confusion matrices on the test images");

# %% [markdown]
# **Compare the matrices.** Which pair of classes do all models confuse? Is the confusion symmetric? Which pair does
# the pretrained net tell apart that the others do not?
#
# ## Precision, recall, F1
#
# *Precision*: of those called cat, the share that are cats. *Recall*: of the cats, the share that were called cat. F1
# is their harmonic mean.

# %%
best = max(logits, key=lambda name: evaluation.accuracy(logits[name], labels))
print(best)
scores = evaluation.per_class(logits[best], labels, names)
recomputed = np.mean(predicted[best][labels == 3] == 3)
assert np.isclose(scores.recall.iloc[3], recomputed)
scores.round(3)

# %% [markdown]
# ## How sure are the accuracies?
#
# Another ten thousand test images would give another figure. The *bootstrap* draws new test sets from ours, with
# replacement, and looks at how the accuracy varies: 95% of the draws lie in the interval.

# %%
intervals = {name: evaluation.accuracy_interval(values, labels, budget.bootstrap) for name, values in logits.items()}
points = {name: evaluation.accuracy(values, labels) for name, values in logits.items()}
plots.intervals(points, intervals, "Test accuracy with 95% bootstrap intervals");

# %% [markdown]
# The interval speaks of the test images only. A second training run with another seed moves the accuracy too, and that
# it does not see.
#
# ## Is one better than the other?
#
# Two intervals may overlap and the models still differ, since both saw the *same* images. McNemar's test looks only at
# images where exactly one of the two is right: if they are equally good, that is a fair coin.

# %%
rows = [{"first": a, "second": b, **evaluation.mcnemar(logits[a], logits[b], labels)}
        for a, b in itertools.combinations(logits, 2)]
pairs = pd.DataFrame(rows)
pairs["Holm-corrected"] = evaluation.holm(pairs["p"])
pairs.assign(**{name: pairs[name].map("{:.1g}".format) for name in ("p", "Holm-corrected")})

# %% [markdown]
# Many pairs, many chances to be fooled: Holm's correction raises each p-value so that the chance of *any* false alarm
# stays at 5%. **Which differences survive?** Did fine-tuning beat its own frozen head?
#
# ## The most confident mistakes

# %%
probabilities = evaluation.probabilities(logits[best])
wrong = np.flatnonzero(predicted[best] != labels)
worst = wrong[np.argsort(-probabilities[wrong].max(axis=1))][:10]
titles = [f"{names[labels[i]]}, taken for\n{names[predicted[best][i]]} ({probabilities[i].max():.0%})" for i in worst]
plots.image_grid(data.test.images[worst], titles, f"{best}: wrong and sure of it");

# %% [markdown]
# **Whose mistake is it?** Which would you have got wrong? Are there pictures whose *label* you doubt?
#
# Ten pictures are few. `explore.mistakes` draws the mistake that the best model makes most often and, below it, filters
# to browse all mistakes of every model.

# %%
explore.mistakes(data.test.images, labels, logits, names);

# %% [markdown]
# **Look for a habit.** Take the pair of classes that the matrices show most, first one way round, then the other. What
# do the pictures share: background, pose, size, colour? Choose another model: which of these mistakes does it make too?
# Raise the confidence: from where on are most of the pictures left such that you side with the model?
#
# ## Do the models know what they know?
#
# Of the pictures for which a model says "80% sure", 80% should be right. Below the diagonal it is overconfident.

# %%
plots.calibration(logits, labels, "Calibration on the test images");

# %% [markdown]
# **Compare lesson 2's net with lesson 4's.** One was trained with label smoothing. On which side of the diagonal does
# each lie?
#
# ## A picture of your own
#
# A camera gives millions of pixels, and a model takes 32 x 32. `explore.own_picture` shows each step from one to the
# other, and the three likeliest classes. The flower comes with scikit-learn and is of *none* of the ten classes.
#
# **Predict first**: what will the best model call it, and how sure will it be?

# %%
explore.own_picture(saved, names, best);

# %% [markdown]
# The probabilities add up to one over ten classes, and "none of these" is not among them. **Now your own**: upload a
# photograph of one of the ten classes, a PNG or JPEG file of up to 10 MB. Does the model name it, and could you, from
# the 32 x 32 pixels alone? Then crop it so that the thing stands at the edge, or fills a tenth of the picture. Which
# model minds least? Your picture goes to the machine that runs this notebook, and is kept nowhere.
#
# ## Key points
# - The test set is used once a model, after everything was decided.
# - A table says how good; a confusion matrix says at what.
# - An accuracy comes with an interval; a difference on the same images comes with a paired test.
# - Confident mistakes show wrong labels and wrong habits.
# - A calibrated model says how far to trust it.
#
# ## Exercises
# 1. **An ensemble.** Average the probabilities of two runs. Which pair gains most, and why not the two best?
# 2. **Temperature.** Divide one run's *validation* logits by a number T and choose T by validation loss. Draw the
#    calibration curve of the test logits divided by it.
# 3. **Fewer images.** Take 500 test images at random. Which differences are still significant?
# 4. **Reject.** Let the best model say "I do not know" below a confidence. Plot accuracy against the share it answers.
