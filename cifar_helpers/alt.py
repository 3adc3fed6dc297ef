"""What a figure shows, in words: for those who cannot see it, and for a page that has lost its pictures."""

import sys

import numpy as np

MOST_NAMED = 30  # pictures or rows that are named one by one


def describe(figure) -> str:
    """A matplotlib Figure in words, read from what is drawn: its title, then each plot with its names and ranges.

    Pictures are named by their titles, curves by where they begin and end, bars and points by their largest and
    smallest, a matrix by its diagonal and the largest value beside it. Returns one line, never an empty one.
    """
    axes = [axis for axis in figure.axes if axis.has_data()]
    pictures = [axis for axis in axes if axis.images]
    others = [said for axis in axes if not axis.images and (said := _axis(axis))]
    said = [_pictures(pictures)] * bool(pictures) + others
    title = " ".join(figure.get_suptitle().split())
    return ". ".join([title] * bool(title) + said).strip() + "." if title or said else "An empty figure."


def show_in_notebooks() -> None:
    """From the next cell on each figure that this notebook shows carries its description, as `alt` of the picture.

    Pages that are made of the notebook have it where a picture's text belongs. Outside a notebook nothing happens.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or not hasattr(shell, "kernel"):
        return
    import matplotlib
    from matplotlib.figure import Figure

    if "inline" not in matplotlib.get_backend():
        return  # a front end that draws figures itself
    import matplotlib_inline.backend_inline  # noqa: F401  it sets its own formatter now, or at the end of this cell

    def replace(*_):
        shell.events.unregister("post_run_cell", replace)
        formatter = shell.display_formatter.formatters["image/png"]
        try:
            draw = formatter.lookup_by_type(Figure)
        except KeyError:
            return  # figures are not shown as PNG here
        if getattr(draw, "describes", False):
            return

        def described(figure):
            png = draw(figure)
            return png if png is None else (png, {"alt": describe(figure)})

        described.describes = True
        formatter.for_type(Figure, described)

    shell.events.register("post_run_cell", replace)


def _pictures(axes) -> str:
    names = [" ".join(axis.get_title().split()) for axis in axes]
    count = f"{len(axes)} picture{'s' * (len(axes) > 1)}"
    named = [name for name in names if name]
    if not named:
        return count
    return f"{count}: {', '.join(named[:MOST_NAMED])}{' and more' * (len(named) > MOST_NAMED)}"


def _axis(axis) -> str:
    """One plot of a figure in words; empty where nothing is drawn that could be named."""
    if any(type(part).__name__ == "QuadMesh" for part in axis.collections):
        return _matrix(axis)
    said = [*_bars(axis), *_intervals(axis), *_curves(axis), *_dots(axis)]
    title = " ".join((axis.get_title() or axis.get_ylabel()).split())
    return ": ".join([title] * bool(title) + ["; ".join(said)]) if said else title


def _matrix(axis) -> str:
    mesh = next(part for part in axis.collections if type(part).__name__ == "QuadMesh")
    values = np.ma.filled(np.ma.asarray(mesh.get_array(), float), np.nan)
    columns = _names(axis.xaxis)
    rows = _names(axis.yaxis) or columns  # of several matrices in a row, the first names the rows
    values = values.reshape(-1, len(columns))
    title = " ".join(axis.get_title().split())
    if len(rows) != len(values) or len(values) != len(columns):
        return f"{title}: {values.shape[0]} rows and {values.shape[1]} columns from {values.min():.3g} to " \
               f"{values.max():.3g}"
    diagonal, beside = values.diagonal(), values - np.diag(np.full(len(values), np.inf))
    row, column = np.unravel_index(beside.argmax(), beside.shape)
    return (f"{title}: on the diagonal from {diagonal.min():.3g} ({rows[diagonal.argmin()]}) to {diagonal.max():.3g} "
            f"({rows[diagonal.argmax()]}); the largest beside it is {rows[row]} taken for {columns[column]}, "
            f"{values[row, column]:.3g}")


def _bars(axis) -> list[str]:
    found = []
    for container in axis.containers:
        if type(container).__name__ != "BarContainer" or not len(container):
            continue
        lying = getattr(container, "orientation", "vertical") == "horizontal"
        values = np.array([bar.get_width() if lying else bar.get_height() for bar in container])
        names = _names(axis.yaxis if lying else axis.xaxis)
        if len(names) != len(values):
            names = [f"bar {number}" for number in range(1, len(values) + 1)]
        label = _label(container, axis.get_xlabel() if lying else axis.get_ylabel())
        found.append(f"bars of {label} from {values.min():.3g} ({names[values.argmin()]}) to {values.max():.3g} "
                     f"({names[values.argmax()]})")
    return found


def _intervals(axis) -> list[str]:
    """Points with error bars, each on a row of its own."""
    names, found = _names(axis.yaxis), []
    for container in axis.containers:
        if type(container).__name__ == "ErrorbarContainer" and container.has_xerr:
            point, bar = container.lines[0], container.lines[2][0].get_segments()[0]
            row = round(float(point.get_ydata()[0]))
            name = names[row] if 0 <= row < len(names) else "a point"
            found.append(f"{name} {float(point.get_xdata()[0]):.3f} ({bar[0][0]:.3f} to {bar[1][0]:.3f})")
    return found


def _curves(axis) -> list[str]:
    parts_of_intervals = {id(line) for container in axis.containers for line in _flat(container)}
    found, unit = [], axis.get_xlabel() or "x"
    for line in axis.lines:
        x, y = (np.asarray(values, float) for values in line.get_data())
        if id(line) in parts_of_intervals or len(y) < 2 or not np.isfinite(y).any():
            continue
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
        said = f"{_label(line, axis.get_ylabel() or 'a line')} from {y[0]:.3g} to {y[-1]:.3g} over {unit} {x[0]:.4g} " \
               f"to {x[-1]:.4g}"
        for value, place, word in ((y.max(), x[y.argmax()], "highest"), (y.min(), x[y.argmin()], "lowest")):
            if value not in (y[0], y[-1]):
                said += f", {word} {value:.3g} at {place:.4g}"
        found.append(said)
    return found


def _flat(part):
    for piece in part if isinstance(part, tuple | list) else [part]:
        yield from _flat(piece) if isinstance(piece, tuple | list) else [piece]


def _dots(axis) -> list[str]:
    names, found = _names(axis.yaxis), []
    for part in axis.collections:
        if type(part).__name__ != "PathCollection":
            continue
        x, y = np.ma.filled(np.ma.asarray(part.get_offsets(), float), np.nan).T
        if not len(x):
            continue
        rows = sorted(set(np.round(y[np.isfinite(y)]).astype(int)))
        if len(names) and all(0 <= row < len(names) for row in rows):
            found += [f"{names[row]} {_range(x[np.round(y) == row])}" for row in rows[:MOST_NAMED]]
        else:
            found.append(f"{len(x)} points, {axis.get_xlabel() or 'x'} {_range(x)}, "
                         f"{axis.get_ylabel() or 'y'} {_range(y)}")
    if found and names:  # a row whose values do not fit has them as a text
        found += [f"{names[round(text.get_position()[1])]} {text.get_text()}" for text in axis.texts
                  if 0 <= round(text.get_position()[1]) < len(names)]
    return found


def _range(values: np.ndarray) -> str:
    low, high = np.nanmin(values), np.nanmax(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _label(part, otherwise: str) -> str:
    label = str(part.get_label() or "")
    return label if label and not label.startswith("_") else otherwise or "values"


def _names(axis) -> list[str]:
    """The words at an axis, and an empty list where they are numbers."""
    names = [" ".join(tick.get_text().split()) for tick in axis.get_ticklabels()]
    words = [name for name in names if name and not name.replace("−", "-").replace("-", "").replace(".", "").isdigit()]
    return names if len(words) == len(names) else []
