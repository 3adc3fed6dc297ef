"""Pieces to play with: sliders, filters and an upload, each under a figure that also stands where there are no widgets.

The figure is an output of its own, so that a saved notebook, a page made of it and a front end without widgets have it.
"""

import base64
import functools
import html
import io
import sys
from importlib import resources

import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from cifar_helpers import archives, evaluation, plots, runs
from cifar_helpers.data import Split
from cifar_helpers.errors import CourseError
from cifar_helpers.marks import marked

AMOUNTS = 5  # a slider in the figure
PICTURES = 10  # on a page of mistakes
THUMBNAIL = 192  # pixels across; what is smaller is enlarged to this
ANY = "any"
# Boxes are shown by this type themselves: ipywidgets 7, which Colab has, makes no bundle of one as 8 does.
WIDGET = "application/vnd.jupyter.widget-view+json"


def augmentation(pictures: Split, class_names, changes: dict[str, tuple]):
    """One picture, changed as far as sliders say, beside the same picture as it is.

    `changes` has, by a slider's name, `(make, lowest, highest)`: `make(amount)` gives a layer, or a function of images,
    float32 (1, 32, 32, 3) from 0 to 255, and `training`; an amount of 0 is no change. The changes are applied in their
    order. There is a picture a class to choose from, the first one in `pictures`.

    Shows a figure of each change at five amounts. Returns the box of widgets, or None without ipywidgets.
    """
    firsts = {class_names[label]: pictures.images[place]
              for label, place in zip(*np.unique(pictures.labels, return_index=True), strict=True)}
    name, image = next(iter(firsts.items()))
    rows = {change: np.linspace(low, high, AMOUNTS) for change, (_, low, high) in changes.items()}
    figure, axes = plt.subplots(len(rows), AMOUNTS, figsize=(1.4 * AMOUNTS, 1.62 * len(rows) + 0.4), squeeze=False,
                                layout="constrained")
    for line, (change, amounts) in zip(axes, rows.items(), strict=True):
        for axis, amount in zip(line, amounts, strict=True):
            axis.imshow(_changed(image, changes, {change: float(amount)}))
            axis.set_title(f"{change} {amount:.2g}", fontsize=9)
            axis.axis("off")
    figure.suptitle(marked(f"One picture ({name}), each change at {AMOUNTS} amounts"))

    def build(widgets):
        chosen = widgets.Dropdown(options=list(firsts), description="picture")
        sliders = {change: widgets.FloatSlider(value=0, min=low, max=high, step=(high - low) / 32, description=change)
                   for change, (_, low, high) in changes.items()}
        reset, shown = widgets.Button(description="as it is"), widgets.HTML()

        def draw(_=None):
            amounts = {change: slider.value for change, slider in sliders.items() if slider.value}
            said = ", ".join(f"{change} {amount:.2g}" for change, amount in amounts.items()) or "no change"
            image = firsts[chosen.value]
            shown.value = (_picture(image, f"{chosen.value}, as it is")
                           + _picture(_changed(image, changes, amounts), f"{chosen.value}: {said}"))

        def back(_):
            for slider in sliders.values():
                slider.value = 0

        for control in (chosen, *sliders.values()):
            control.observe(draw, names="value")
        reset.on_click(back)
        draw()
        return widgets.HBox([widgets.VBox([chosen, *sliders.values(), reset]), shown], layout={"flex_flow": "row wrap"})

    return _play(figure, build, "sliders")


def _changed(image: np.ndarray, changes: dict[str, tuple], amounts: dict[str, float]) -> np.ndarray:
    """The image, uint8 (32, 32, 3), after the changes whose amount is not 0."""
    batch = image[np.newaxis].astype(np.float32)
    for change, (make, _, _) in changes.items():
        if amounts.get(change):
            batch = make(amounts[change])(batch, training=True)
    return _bytes(np.asarray(batch, np.float32)[0])


def mistakes(images: np.ndarray, labels: np.ndarray, logits: dict[str, np.ndarray], class_names):
    """The pictures that a model gets wrong, the surest mistakes first, by true class, predicted class and confidence.

    `images` are uint8 (n, 32, 32, 3), `labels` whole numbers (n,), and `logits` has (n, classes) by the model's name.
    Confidence is the probability, from 0 to 1, that the model gives the class it predicts.

    Shows a figure of the mistake that the most accurate model makes most often. Returns the box of widgets, or None
    without ipywidgets.
    """
    best = max(logits, key=lambda name: evaluation.accuracy(logits[name], labels))
    wrong = evaluation.confusion(logits[best], labels)
    np.fill_diagonal(wrong, 0)
    true, taken = np.unravel_index(wrong.argmax(), wrong.shape)
    found, confidence = _wrong(logits[best], labels, true, taken, 0)
    title = f"{best}: no mistake"
    if len(found):
        title = (f"{best}, its most frequent mistake: {class_names[true]} taken for {class_names[taken]} "
                 f"({len(found):,} of {np.sum(labels == true):,})")
        found = found[:PICTURES]
        figure = plots.image_grid(images[found], [f"{confidence[i]:.0%} sure" for i in found], title)
    else:
        figure = plt.figure(figsize=(5, 0.6))
        figure.suptitle(marked(title))

    def build(widgets):
        model = widgets.Dropdown(options=list(logits), value=best, description="model")
        classes = [(ANY, None), *((name, number) for number, name in enumerate(class_names))]
        true_class = widgets.Dropdown(options=classes, description="true class")
        predicted = widgets.Dropdown(options=classes, description="taken for")
        surer = widgets.FloatSlider(value=0, min=0, max=1, step=0.05, description="confidence from",
                                    style={"description_width": "initial"})
        page = widgets.BoundedIntText(value=1, min=1, max=1, description="page")
        shown = widgets.HTML()

        def draw(_=None):
            found, confidence = _wrong(logits[model.value], labels, true_class.value, predicted.value, surer.value)
            page.max = max(1, -(-len(found) // PICTURES))
            start = (page.value - 1) * PICTURES
            count = f"{len(found):,} mistake{'s' * (len(found) != 1)} in {len(labels):,} pictures"
            sure = f", the surest first: {start + 1:,} to {min(start + PICTURES, len(found)):,}"
            predictions = logits[model.value].argmax(axis=1)
            shown.value = f"<p>{count}{sure if len(found) else ''}</p>" + "".join(
                _picture(images[i], f"{class_names[labels[i]]}, taken for {class_names[predictions[i]]} "
                                    f"({confidence[i]:.0%})", 112) for i in found[start:start + PICTURES])

        def filtered(_):
            page.value = 1
            draw()

        for control in (model, true_class, predicted, surer):
            control.observe(filtered, names="value")
        page.observe(draw, names="value")
        draw()
        return widgets.VBox([model, true_class, predicted, surer, page, shown])

    return _play(figure, build, "filters")


def _wrong(logits, labels, true, predicted, least) -> tuple[np.ndarray, np.ndarray]:
    """The places of wrong answers, the surest first, and the confidence of all answers; None stands for any class."""
    answers, confidence = logits.argmax(axis=1), evaluation.probabilities(logits).max(axis=1)
    kept = (answers != labels) & (confidence >= least)
    kept &= (true is None) | (labels == true)
    kept &= (predicted is None) | (answers == predicted)
    found = np.flatnonzero(kept)
    return found[np.argsort(-confidence[found], kind="stable")], confidence


def own_picture(saved: list[runs.Run], class_names, first: str | None = None, picture=None):
    """A picture of any size on its way into a saved run's model, step by step, and the three likeliest classes.

    `saved` are runs as `runs.list_runs` gives them, and `first` is the name of the one to begin with. A PNG or JPEG
    file that is uploaded goes to the kernel and is kept nowhere; where it is none, `archives.read_picture` says why.

    Shows a figure of the steps for `picture`, a path or bytes, or for a flower that comes with scikit-learn and is of
    none of the classes. Returns the box of widgets, or None without ipywidgets.

    Raises CourseError where there is no saved run or the model cannot be read, and DataError where `picture` cannot.
    """
    if not saved:
        raise CourseError("There is no saved run to ask: run lesson 2 first.")
    by_name = {run.name: run for run in saved}
    first = first or saved[0].name
    load = functools.lru_cache(maxsize=1)(lambda name: runs.load_model(by_name[name]))
    if picture is None:
        picture = resources.files("sklearn.datasets.images").joinpath("flower.jpg").read_bytes()
    steps, shares = _answer(load(first), archives.read_picture(picture, None))
    figure, axes = plt.subplots(1, len(steps) + 1, figsize=(2.2 * len(steps) + 2.8, 3.4), layout="constrained",
                                width_ratios=[1] * len(steps) + [1.2])
    for axis, (step, pixels) in zip(axes, steps.items(), strict=False):
        axis.imshow(pixels)
        axis.set_title(step.replace(", ", "\n", 1), fontsize=9)
        axis.axis("off")
    likely = _likeliest(shares, class_names)
    axes[-1].barh(list(likely), list(likely.values()), color=plots.PALETTE[0])
    axes[-1].invert_yaxis()
    axes[-1].set(xlim=(0, 1), xlabel="probability")
    figure.suptitle(marked(f"A picture of any size, step by step, and the three likeliest classes for {first}"))

    def build(widgets):
        names = [(f"{run.name} ({run.marks})" if run.marks else run.name, run.name) for run in saved]
        model = widgets.Dropdown(options=names, value=first, description="model", layout={"width": "max-content"})
        upload = widgets.FileUpload(accept=".png,.jpg,.jpeg", multiple=False, description="your picture")
        # Jupyter's server drops a message over 10 MB, and its connection with it, without a word to anybody
        shown = widgets.HTML("<p>Upload a PNG or JPEG file of up to 10 MB, or choose another model.</p>")

        def draw(_):
            shown.value = "<p>Asking the model.</p>"
            given = _uploaded(upload.value)
            given = picture if given is None else given
            try:
                steps, shares = _answer(load(model.value), archives.read_picture(given, None))
            except CourseError as error:
                shown.value = f'<p role="alert">{html.escape(str(error))}</p>'
                return
            rows = "".join(f'<tr><td style="padding-right: 1em">{html.escape(name)}</td><td>{share:.0%}</td></tr>'
                           for name, share in _likeliest(shares, class_names).items())
            shown.value = ("".join(_picture(pixels, step) for step, pixels in steps.items())
                           + f"<p>The three likeliest classes:</p><table>{rows}</table>")

        for control in (model, upload):
            control.observe(draw, names="value")
        return widgets.VBox([model, upload, shown])

    return _play(figure, build, "an upload")


def _uploaded(value) -> bytes | None:
    """The file that an upload holds, None where it holds none; ipywidgets 7, which Colab has, keeps files by name."""
    files = list(value.values() if isinstance(value, dict) else value)
    return bytes(files[-1]["content"]) if files else None


def _answer(model: keras.Model, pixels: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The steps of a picture, uint8 (h, w, 3), with their names, and the model's probabilities (classes,)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top:top + side, left:left + side]
    small = np.asarray(Image.fromarray(square).resize((32, 32), Image.Resampling.BICUBIC))
    steps = {f"the picture, {width} x {height}": pixels, f"its middle, {side} x {side}": square,
             "shrunk, 32 x 32": small}
    enlarged, seen = _inside(model, small[np.newaxis].astype(np.float32))
    if enlarged is not None:
        steps[f"enlarged, {enlarged.shape[1]} x {enlarged.shape[0]}"] = _bytes(enlarged)
    low, high = seen.min(), seen.max()  # any range, which is stretched to be seen
    steps[f"as the first weights meet it, {low:.3g} to {high:.3g}"] = _bytes((seen - low) / max(high - low, 1e-6) * 255)
    return steps, evaluation.probabilities(evaluation.predict_logits(model, small[np.newaxis]))[0]


def _inside(model: keras.Model, batch: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """What a model makes of pixels before its first weights: after its Resizing, if it has one, and in the end."""
    if hasattr(model, "scale"):  # lesson 4's classes
        return None, np.asarray(model.scale(batch), np.float32)[0]
    enlarged = seen = model.inputs[0]
    for layer in getattr(model, "operations", model.layers):
        if getattr(layer, "weights", None):
            if isinstance(layer, keras.Model) and seen is model.inputs[0]:
                return _inside(layer, batch)  # lesson 5's steps stand in a model within the model
            break
        shape = getattr(layer.output, "shape", ())
        if len(shape) == 4 and shape[-1] == 3:
            seen = layer.output
            enlarged = seen if isinstance(layer, keras.layers.Resizing) else enlarged
    values = [np.asarray(value, np.float32)[0] for value in keras.Model(model.inputs[0], [enlarged, seen])(batch)]
    return values[0] if enlarged is not model.inputs[0] else None, values[1]


def _likeliest(shares: np.ndarray, class_names) -> dict[str, float]:
    return {class_names[number]: float(shares[number]) for number in np.argsort(-shares, kind="stable")[:3]}


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _picture(pixels: np.ndarray, caption: str, across: int = THUMBNAIL) -> str:
    """HTML of a picture, uint8 (h, w, 3), over its caption; a browser enlarges small ones without blurring them."""
    picture, file = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((across, across))
    picture.save(file, "PNG")
    caption, encoded = html.escape(caption), base64.b64encode(file.getvalue()).decode()
    return (f'<figure style="display: inline-block; width: {across}px; margin: 0 1em 1em 0; vertical-align: top; '
            f'line-height: 1.3"><img src="data:image/png;base64,{encoded}" alt="{caption}" '
            f'style="width: {across}px; image-rendering: pixelated"><figcaption>{caption}</figcaption></figure>')


def _play(figure: plt.Figure, build, what: str):
    """Show the figure and, below it, what `build` makes of the module ipywidgets; return that, or None without it.

    Outside a notebook nothing is shown: the figure is there for pyplot, as those of `plots` are.
    """
    try:
        import ipywidgets
    except ImportError:
        ipywidgets = None
    box = build(ipywidgets) if ipywidgets else None
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):
        from IPython.display import display

        display(figure)
        plt.close(figure)  # it would be shown again at the end of the cell
        if box is None:
            print(f"Here would be {what}: run `python -m pip install 'ipywidgets>=8'` and restart Jupyter.")
        else:  # the text is for front ends and pages that show no widgets, in place of Python's name for the box
            display({WIDGET: {"version_major": 2, "version_minor": 0, "model_id": box.model_id},
                     "text/plain": f"In JupyterLab there are {what} here."}, raw=True)
    return box
