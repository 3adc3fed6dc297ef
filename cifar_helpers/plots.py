"""The course's figures. Each returns its matplotlib Figure; titles say when a result is not on CIFAR-10."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from cifar_helpers.evaluation import probabilities
from cifar_helpers.marks import marked

PALETTE = sns.color_palette("colorblind")


def image_grid(images: np.ndarray, titles, title: str, columns: int = 5) -> plt.Figure:
    """Pictures (n, 32, 32, 3), uint8 or floats from 0 to 1, each with its own title, in rows of `columns`."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.7 * columns, 1.85 * rows + 0.5), squeeze=False,
                                layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, text in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image)
        axis.set_title(text, fontsize=9)
    figure.suptitle(marked(title))
    return figure


def _count_epochs(axis: plt.Axes) -> None:
    """Name the x axis and count it in whole numbers, where there is one epoch too."""
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def compare_histories(histories: dict[str, dict], title: str) -> plt.Figure:
    """Loss and accuracy an epoch, training dashed and validation solid, a colour a run."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, measure in zip(axes, ("loss", "accuracy"), strict=True):
        for colour, (name, history) in zip(itertools.cycle(PALETTE), histories.items(), strict=False):
            epochs = range(1, len(history[measure]) + 1)
            axis.plot(epochs, history[measure], "--", color=colour, marker=".", label=f"{name}, training")
            if f"val_{measure}" in history:
                axis.plot(epochs, history[f"val_{measure}"], color=colour, marker="o", markersize=4,
                          label=f"{name}, validation")
        axis.set_ylabel(measure)
        _count_epochs(axis)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle(marked(title))
    return figure


def prediction(image: np.ndarray, logits: np.ndarray, label: int, class_names, title: str) -> plt.Figure:
    """One picture beside a bar chart of the model's probabilities; the true class is drawn in another colour."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=(1, 2), layout="constrained")
    left.imshow(image)
    left.axis("off")
    left.set_title(f"true class: {class_names[label]}", fontsize=10)
    colours = [PALETTE[2] if number == label else PALETTE[0] for number in range(len(class_names))]
    right.barh(list(class_names), probabilities(logits), color=colours)
    right.invert_yaxis()
    right.set(xlim=(0, 1), xlabel="probability")
    figure.suptitle(marked(title))
    return figure


def confusion_matrices(predictions: dict[str, np.ndarray], labels: np.ndarray, class_names, title: str) -> plt.Figure:
    """A matrix a model: of each true class (row), the share that was taken for each class (column)."""
    columns = min(3, len(predictions))
    rows = -(-len(predictions) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.1 * columns + 0.6, 4.5 * rows + 0.4), squeeze=False,
                                layout="constrained")
    for axis in axes.flat[len(predictions):]:
        axis.axis("off")
    for number, (axis, (name, predicted)) in enumerate(zip(axes.flat, predictions.items(), strict=False)):
        shares = confusion_matrix(labels, predicted, labels=range(len(class_names)), normalize="true") * 100
        sns.heatmap(shares, annot=True, fmt=".0f", annot_kws={"size": 7}, cmap="cividis", vmin=0, vmax=100,
                    cbar=False, square=True, ax=axis, xticklabels=class_names,
                    yticklabels=class_names if number % columns == 0 else False)
        axis.set_title(f"{name}: {np.mean(predicted == labels):.1%} right", fontsize=10)
        axis.set_xlabel("predicted class")
        if number % columns == 0:
            axis.set_ylabel("true class")
        axis.tick_params(labelsize=8)
    figure.suptitle(marked(f"{title} (% of each true class)"))
    return figure


def calibration(logits: dict[str, np.ndarray], labels: np.ndarray, title: str) -> plt.Figure:
    """How often a model is right, for how sure it said it was; on the diagonal the two agree."""
    figure, axis = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
    axis.plot([0, 1], [0, 1], ":", color="grey", label="perfectly calibrated")
    for colour, (name, values) in zip(itertools.cycle(PALETTE), logits.items(), strict=False):
        right = values.argmax(axis=1) == labels
        share, confidence = calibration_curve(right, probabilities(values).max(axis=1), n_bins=10, strategy="quantile")
        axis.plot(confidence, share, marker="o", markersize=4, color=colour, label=name)
    axis.set(xlabel="confidence in the predicted class", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.suptitle(marked(title))
    return figure


def curve(values, xlabel: str, ylabel: str, title: str) -> plt.Figure:
    """One line over 0, 1, 2, …"""
    figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
    axis.plot(values, color=PALETTE[0])
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.3)
    figure.suptitle(marked(title))
    return figure


def intervals(points: dict[str, float], ranges: dict[str, tuple[float, float]], title: str) -> plt.Figure:
    """A point and an interval, each 0 to 1, a row a model."""
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(points) + 1.3), layout="constrained")
    for row, (name, point) in enumerate(points.items()):
        low, high = ranges[name]
        axis.errorbar(point, row, xerr=[[point - low], [high - point]], fmt="o", capsize=4, color=PALETTE[0])
        axis.annotate(f"{point:.3f}", (point, row), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8)
    axis.set_yticks(range(len(points)), points)
    axis.set_ylim(len(points) - 0.4, -0.7)
    axis.set(xlabel="test accuracy")
    axis.grid(axis="x", alpha=0.3)
    figure.suptitle(marked(title))
    return figure


def spread(histories: dict[str, list[dict]], measure: str, title: str) -> plt.Figure:
    """A measure an epoch as mean over seeds, with the range over seeds behind it, a colour a run.

    `histories` has a history a seed for each run, as `reference.histories` gives them; where they differ in length, all
    are drawn as far as the shortest goes. The title gets no mark: results that ship are of CIFAR-10 and of pretrained
    backbones, whatever the lesson runs on.
    """
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    for colour, (name, found) in zip(itertools.cycle(PALETTE), histories.items(), strict=False):
        length = min(len(history[measure]) for history in found)
        values = np.array([history[measure][:length] for history in found])
        epochs = range(1, length + 1)
        axis.plot(epochs, values.mean(axis=0), color=colour, label=f"{name}, {len(found)} seed{'s' * (len(found) > 1)}")
        axis.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.25, linewidth=0)
    axis.set_ylabel(measure.replace("val_", "validation "))
    _count_epochs(axis)
    if histories:
        axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.suptitle(title)
    return figure


def ablation(records: list[dict], title: str) -> plt.Figure:
    """A dot a training: the validation accuracy of a recipe `without` one of its ideas, the best above.

    What is more than 0.25 below the best stands as a number at the edge. `records` are those of
    `reference.load_ablation`. The title gets no mark, as in `spread`.
    """
    table = pd.DataFrame(records)
    far = table.validation_accuracy < table.validation_accuracy.max() - 0.25  # it would squeeze all the others together
    order = table.groupby("without").validation_accuracy.mean().sort_values(ascending=False).index
    figure, axis = plt.subplots(figsize=(8, 0.4 * len(order) + 1.3), layout="constrained")
    sns.stripplot(table[~far], x="validation_accuracy", y="without", order=order, jitter=False, size=7, alpha=0.8,
                  color=PALETTE[0], ax=axis)
    for name, values in table[far].groupby("without").validation_accuracy:
        axis.text(0.01, list(order).index(name), "◀ " + ", ".join(f"{value:.2f}" for value in values),
                  transform=axis.get_yaxis_transform(), va="center")
    axis.set(xlabel="validation accuracy", ylabel="without")
    axis.grid(axis="x", alpha=0.3)
    figure.suptitle(title)
    return figure
