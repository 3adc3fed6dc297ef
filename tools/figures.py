"""Draw the figures of `results/figures/` from the JSON in `results/`, with a description each.

`tools/results.py` writes and checks them. A figure's file names the SHA-256 of its data and of the functions that draw
it, so that whether it is current depends on no version of matplotlib.
"""

import hashlib
import inspect
import io
import itertools
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from cifar_helpers import machine
from cifar_helpers.archives import CLASS_NAMES

machine.import_tensorflow()  # before Keras, without its start-up log

from cifar_helpers import plots  # noqa: E402
from cifar_helpers.runs import LESSONS  # noqa: E402

BUDGETS = ("laptop", "full")
LABELS = {  # what tables call the runs; a run that has no other name is called by its own
    "baseline": "baseline `Sequential` CNN", "plain": "Conv-BatchNorm net", "augmented": "the same, with augmentation",
    "subclassed": "subclassed CNN, custom loop", "fast": "fast net, custom loop",
    "transfer_frozen": "frozen ResNet50, linear head", "transfer_finetuned": "ResNet50, fine-tuned",
}
STYLE = {"svg.hashsalt": "cifar10-course", "svg.fonttype": "path", "axes.grid": True, "grid.alpha": 0.3,
         "figure.facecolor": "white", "savefig.facecolor": "white", "axes.titlesize": 10, "legend.fontsize": 8}


def tested(found: list[dict]) -> list[float]:
    """Test accuracies of one run's results, as far as they were measured."""
    return [result["run"]["test_accuracy"] for result in found if "test_accuracy" in result["run"]]


def from_results(results: dict) -> dict:
    """The figures for which there are results: name to (function that draws, data that it draws, description)."""
    found = {}
    for budget in BUDGETS:
        runs = {_plain(name): results for name, results in results[budget]["runs"].items()}
        found |= {f"{name}-{budget}": (draw, data, alt) for name, draw, data, alt in (
            _curves(runs, budget), _confusion(runs, budget), _best_confusion(runs, budget), _seeds(runs, budget))
            if data}
    for name, draw, data, alt in (_course(results), _accuracy_seconds(results), _scaling(results["scaling"]),
                                  _ablation(results["ablation"])):
        if data:
            found[name] = (draw, data, alt)
    return found


FIGURES = [f"{name}-{budget}" for budget in BUDGETS for name in ("curves", "confusion", "confusion-best", "seeds")] + [
    "course", "accuracy-seconds", "scaling", "ablation"]


def label(name: str) -> str:
    """What tables call a run: its lesson's number and its name."""
    return f"{int(LESSONS[name][:2])} · {LABELS.get(name, name)}"


def _plain(name: str) -> str:
    return label(name).replace("`", "")


def _listed(parts) -> str:
    return "; ".join(parts) + "."


def _curves(runs: dict, budget: str) -> tuple:
    data = {label: [{key: result["history"][key] for key in ("accuracy", "val_accuracy") if key in result["history"]}
                    for result in found] for label, found in runs.items()}
    first = {label: found[0] for label, found in data.items() if "val_accuracy" in found[0]}
    ends = (f"{label} ends at {history['val_accuracy'][-1]:.3f} on validation images after "
            f"{len(history['accuracy'])} epoch{'s' * (len(history['accuracy']) > 1)}"
            for label, history in first.items())
    return "curves", draw_curves, data and {"runs": data, "budget": budget}, (
        f"Accuracy by epoch at the {budget} budget, a panel a model, first seed: " + _listed(ends))


def draw_curves(data: dict) -> plt.Figure:
    runs = data["runs"]
    columns = min(4, len(runs))
    rows = -(-len(runs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns + 0.4, 2.5 * rows + 0.6), sharey=True,
                                squeeze=False, layout="constrained")
    for axis, (label, found) in zip(axes.flat, runs.items(), strict=False):
        for key, style, name, colour in (("accuracy", "--", "training", plots.PALETTE[7]),
                                         ("val_accuracy", "-", "validation", plots.PALETTE[0])):
            curves = [history[key] for history in found if key in history]
            for values in curves:
                axis.plot(range(1, len(values) + 1), values, style, color=colour, marker=".",
                          alpha=1 / len(curves)**0.5, label=name if values is curves[0] else None)
        epochs = max(len(history["accuracy"]) for history in found)
        axis.set(title=label, xlabel="epoch", xlim=(0.5, epochs + 0.5))  # one epoch is a point, with room about it
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    for axis in axes.flat[len(runs):]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy")
    axes[0, 0].legend()
    figure.suptitle(f"Training curves, budget {data['budget']}, a line a seed")
    return figure


def _matrices(runs: dict) -> dict:
    return {label: found[0]["run"]["test_confusion"] for label, found in runs.items()
            if "test_confusion" in found[0]["run"]}


def _confusion(runs: dict, budget: str) -> tuple:
    matrices = _matrices(runs)
    said = (f"{label} is right on {_right(matrix):.1%} and most often takes {_worst(matrix)}"
            for label, matrix in matrices.items())
    return "confusion", draw_confusion, matrices and {"matrices": matrices, "classes": CLASS_NAMES, "budget": budget}, (
        f"Confusion matrices on the test images at the {budget} budget: " + _listed(said))


def _best_confusion(runs: dict, budget: str) -> tuple:
    matrices = _matrices(runs)
    best = max(matrices, key=lambda label: _right(matrices[label]), default=None)
    if best is None:
        return "confusion-best", draw_confusion, None, ""
    return "confusion-best", draw_confusion, {
        "matrices": {best: matrices[best]}, "classes": CLASS_NAMES, "budget": budget}, (
        f"Confusion matrix of the best model at the {budget} budget, {best}: right on {_right(matrices[best]):.1%} of "
        f"the test images; most often it takes {_worst(matrices[best])}.")


def _right(matrix: list) -> float:
    return np.trace(matrix) / np.sum(matrix)


def _worst(matrix: list) -> str:
    wrong = np.array(matrix) - np.diag(np.diag(matrix))
    true, taken = np.unravel_index(wrong.argmax(), wrong.shape)
    return f"{CLASS_NAMES[true]} for {CLASS_NAMES[taken]} ({wrong[true, taken]} images)"


def draw_confusion(data: dict) -> plt.Figure:
    # The counts as labels and predictions, which is what the course's own plot takes.
    labels = np.repeat(range(10), np.sum(next(iter(data["matrices"].values())), axis=1))
    predicted = {label: np.concatenate([np.repeat(range(10), row) for row in matrix])
                 for label, matrix in data["matrices"].items()}
    with plt.rc_context({"axes.grid": False}):
        return plots.confusion_matrices(predicted, labels, data["classes"],
                                        f"Test images, budget {data['budget']}")


def _seeds(runs: dict, budget: str) -> tuple:
    data = {label: values for label, found in runs.items() if len(values := tested(found)) > 1}
    said = (f"{label} {min(values):.3f} to {max(values):.3f}, mean {np.mean(values):.3f}"
            for label, values in data.items())
    return "seeds", draw_seeds, data and {"runs": data, "budget": budget}, (
        f"Test accuracy over seeds at the {budget} budget: " + _listed(said))


def draw_seeds(data: dict) -> plt.Figure:
    runs = data["runs"]
    figure, axis = plt.subplots(figsize=(8, 0.45 * len(runs) + 1.4), layout="constrained")
    for row, values in enumerate(runs.values()):
        axis.plot(values, [row] * len(values), "o", color=plots.PALETTE[0], alpha=0.7, label=None if row else "a seed")
        axis.plot(np.mean(values), row, "|", color="black", markersize=16, label=None if row else "mean")
    axis.set_yticks(range(len(runs)), runs)
    axis.set_ylim(len(runs) - 0.5, -0.5)
    axis.set(xlabel="test accuracy")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the points, which may lie anywhere
    figure.suptitle(f"The same training from different seeds, budget {data['budget']}")
    return figure


def _course(results: dict) -> tuple:
    models = {}
    for name in LESSONS:
        runs = {budget: results[budget]["runs"].get(name, []) for budget in BUDGETS}
        if at := {budget: [values, found[0]["run"]["train_seconds"]] for budget, found in runs.items()
                  if (values := tested(found))}:
            models[_plain(name)] = at
    said = (f"{label} " + ", ".join(f"{np.mean(values):.3f} at {budget} after {seconds:,.0f} s"
                                    for budget, (values, seconds) in at.items()) for label, at in models.items())
    return "course", draw_course, models, "Test accuracy of the course's models: " + _listed(said)


def draw_course(data: dict) -> plt.Figure:
    figure, axis = plt.subplots(figsize=(9, 0.5 * len(data) + 1.3), layout="constrained")
    styles = {"laptop": ("o", plots.PALETTE[0]), "full": ("D", plots.PALETTE[1])}
    for row, at in enumerate(data.values()):
        means = {budget: np.mean(values) for budget, (values, _) in at.items()}
        axis.plot(list(means.values()), [row] * len(means), color="0.6", linewidth=2, zorder=1)
        for budget, (values, seconds) in at.items():
            marker, colour = styles[budget]
            axis.plot([min(values), max(values)], [row, row], color=colour, linewidth=5, alpha=0.4, zorder=2,
                      solid_capstyle="butt")
            axis.plot(means[budget], row, marker, color=colour, markersize=8, zorder=3)
            right = means[budget] == max(means.values())
            axis.annotate(f"{means[budget]:.3f}, {seconds:,.0f} s", (max(values) if right else min(values), row),
                          (9 if right else -9, 0), textcoords="offset points", va="center", fontsize=9,
                          ha="left" if right else "right")
    for budget in (budget for budget in styles if any(budget in at for at in data.values())):
        marker, colour = styles[budget]
        axis.plot([], [], marker, color=colour, markersize=8, linestyle="none", label=f"budget {budget}")
    axis.set_yticks(range(len(data)), data)
    axis.set_ylim(len(data) - 0.4, -0.6)
    low, high = axis.get_xlim()
    axis.set_xlim(low - 0.25 * (high - low), high + 0.25 * (high - low))  # the texts stand there
    axis.set(xlabel="test accuracy (mean, range over seeds), after seconds of training")
    axis.legend(loc="lower left")
    figure.suptitle("The course's models on two budgets")
    return figure


def _accuracy_seconds(results: dict) -> tuple:
    models = {}
    if content := results["benchmark"]:
        for record in content["records"]:
            label = record["what"] if record["ours"] else f"{record['predecessor']}: {record['what']}"
            model = models.setdefault(label, {"pair": record["pair"], "ours": bool(record["ours"]),
                                              "share": record["fraction"], "points": [], "curves": [], "claims": []})
            model["points"].append([record["seconds"], record["test_accuracy"]])
            model["curves"].append([record["history"]["seconds"], record["history"]["validation_accuracy"]])
            if record["claimed_accuracy"] is not None:
                model["claims"].append([record["whole_seconds"], record["claimed_accuracy"]])
    else:
        for name, found in results["laptop"]["runs"].items():
            if tested(found):
                points = [[result["run"]["train_seconds"], result["run"]["test_accuracy"]] for result in found
                          if "test_accuracy" in result["run"]]
                models[_plain(name)] = {"pair": None, "ours": True, "share": 1, "points": points, "claims": [],
                                        "curves": [curve for result in found if (curve := _timed(result))]}
    said = (f"{label} {np.mean([accuracy for _, accuracy in model['points']]):.3f} in "
            f"{np.mean([seconds for seconds, _ in model['points']]):,.0f} s" +
            (f" ({model['share']:.2%} of its training)" if model["share"] < 1 else "")
            for label, model in models.items())
    return "accuracy-seconds", draw_accuracy_seconds, models, (
        "Test accuracy against training seconds: " + _listed(said))


def _timed(result: dict) -> list | None:
    """Seconds and validation accuracy an epoch; what went before the history, such as features, counts too."""
    seconds, values = result["history"].get("seconds"), result["history"].get("val_accuracy")
    if not seconds or not values:
        return None
    before = result["run"]["train_seconds"] - seconds[-1]
    return [[round(before + second, 2) for second in seconds], values]


def draw_accuracy_seconds(data: dict) -> plt.Figure:
    panels = {}
    for label, model in data.items():
        panels.setdefault(model["pair"], {})[label] = model
    rows = -(-len(panels) // 2)
    columns = min(2, len(panels))
    figure, axes = plt.subplots(rows, columns, figsize=(5.5 * columns, 4.4 * rows + 0.4), sharex=True, sharey=True,
                                squeeze=False, layout="constrained")
    for axis, (pair, models) in zip(axes.flat, panels.items(), strict=False):
        for colour, (label, model) in zip(itertools.cycle(plots.PALETTE[:7]), models.items(), strict=False):
            ours = model["ours"]
            for seconds, values in model["curves"]:
                axis.plot(seconds, values, "-" if ours else ":", color=colour, linewidth=1, alpha=0.6)
            part = f" ({model['share']:.2%} of its training)" if model["share"] < 1 else ""
            axis.plot(*zip(*model["points"], strict=True), "o" if ours else "s", linestyle="none", color=colour,
                      markerfacecolor="white" if part else colour, label=label + part)
            if model["claims"]:
                axis.plot(*zip(*model["claims"], strict=True), "x", linestyle="none", color=colour)
        axis.set(xscale="log", xlabel="training seconds")
        axis.set_title(f"Predecessor {pair} and the lesson that answers it" if pair else "")
        axis.tick_params(labelbottom=True)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=7.5)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy")
    for axis in axes.flat[len(panels):]:
        axis.set_axis_off()
    claims = "; cross: what it claims, after its whole training" * any(model["claims"] for model in data.values())
    figure.suptitle(f"Accuracy against training seconds (mark: test; line: validation{claims})")
    return figure


def _scaling(content: dict | None) -> tuple:
    if not content:
        return "scaling", draw_scaling, None, ""
    data = {}
    for record in content["records"]:
        data.setdefault(record["series"], []).append([record["x"], record["images"], record["seconds"]])
    said = (f"{SERIES[name][0]} from {points[0][0]:,} to {points[-1][0]:,}: {_milliseconds(points[0]):.2f} to "
            f"{_milliseconds(points[-1]):.2f} ms an image" for name, points in data.items())
    return "scaling", draw_scaling, data, "How cost grows: " + _listed(said)


SERIES = {  # what the x of a series is, and its title
    "images": ("training images", "An epoch of lesson 2's net"), "features": ("images", "Features from ResNet50"),
    "size": ("pixels a side", "ResNet50, forward"), "width": ("factor on every width", "Training lesson 3's net"),
}


def _milliseconds(point: list) -> float:
    _, images, seconds = point
    return 1_000 * np.mean(seconds) / images


def draw_scaling(data: dict) -> plt.Figure:
    figure, axes = plt.subplots(1, len(data), figsize=(3.1 * len(data) + 0.4, 3.2), squeeze=False,
                                layout="constrained")
    for axis, (name, points) in zip(axes[0], data.items(), strict=True):
        xlabel, title = SERIES[name]
        counts = name in ("images", "features")  # elsewhere each point has as many images as the others
        scale = [1 if counts else 1_000 / images for _, images, _ in points]
        means = [np.mean(seconds) * by for (_, _, seconds), by in zip(points, scale, strict=True)]
        axis.plot([x for x, _, _ in points], means, color=plots.PALETTE[0])
        for (x, _, seconds), by in zip(points, scale, strict=True):
            axis.plot([x] * len(seconds), np.multiply(seconds, by), "o", color=plots.PALETTE[0], markersize=4)
        axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="seconds" if counts else "ms an image", title=title)
        axis.set_xticks([x for x, _, _ in points], [f"{x:,}" for x, _, _ in points], rotation=45)
        axis.minorticks_off()
    figure.suptitle("How cost grows, each point measured more than once")
    return figure


def _ablation(content: dict | None) -> tuple:
    if not content:
        return "ablation", draw_ablation, None, ""
    values = {}
    for record in content["records"]:
        values.setdefault(record["without"], []).append(record["validation_accuracy"])
    said = (f"{name} {np.mean(found):.3f}" for name, found in values.items())
    return ("ablation", draw_ablation, content["records"],
            "Mean validation accuracy without one idea at a time: " + _listed(said))


def draw_ablation(data: list[dict]) -> plt.Figure:
    return plots.ablation(data, "Lesson 4's fast net without one of its ideas")


SHARED = (plots.confusion_matrices, plots.ablation)  # what these functions call, and what their figures change with


def digest(draw, data: dict) -> str:
    """SHA-256 of the data that a figure shows and of the source of the functions that draw it."""
    parts = [json.dumps(data, sort_keys=True), json.dumps(STYLE), inspect.getsource(draw)]
    parts += [inspect.getsource(function) for function in SHARED if f".{function.__name__}(" in parts[2]]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def svg(draw, data: dict) -> bytes:
    """The figure, with its digest and one of the drawing itself in its description."""
    with plt.style.context(["default", STYLE]):
        figure = draw(data)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None,
                                                    "Description": f"data {digest(draw, data)}, drawing {'0' * 64}"})
        plt.close(figure)
    text = out.getvalue().replace("\r\n", "\n")
    return text.replace(f"drawing {'0' * 64}", f"drawing {_drawing_digest(text)}").encode()


def _drawing_digest(text: str) -> str:
    return hashlib.sha256(re.sub(r"drawing [0-9a-f]{64}", f"drawing {'0' * 64}", text).encode()).hexdigest()


def is_current(path: Path, draw, data: dict) -> bool:
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    said = re.search(r"data ([0-9a-f]{64}), drawing ([0-9a-f]{64})", text)
    return bool(said) and said.groups() == (digest(draw, data), _drawing_digest(text))
