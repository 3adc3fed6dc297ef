"""What a figure shows, in words: every figure of the course gets a description that its data bear out."""

import io

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from cifar_helpers import alt, plots
from cifar_helpers.marks import STAND_IN, add, discard

NAMES = ("airplane", "automobile", "bird", "cat")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def predictions(*taken):
    """Labels, and predictions that take (class, for class) in so many of ten images of each class."""
    labels = np.repeat(np.arange(4), 10)
    predicted = labels.copy()
    for true, other, count in taken:
        predicted[np.flatnonzero(labels == true)[:count]] = other
    return labels, predicted


def test_a_grid_names_its_pictures():
    figure = plots.image_grid(np.zeros((3, 32, 32, 3)), ["cat", "dog,\ntaken for cat", ""], "Three")
    assert alt.describe(figure) == "Three. 3 pictures: cat, dog, taken for cat."
    many = plots.image_grid(np.zeros((40, 32, 32, 3)), ["cat"] * 40, "Many")
    assert alt.describe(many).endswith("and more.") and len(alt.describe(many)) < 300


def test_matrices_say_what_is_right_and_what_is_confused_most():
    labels, first = predictions((3, 2, 4), (0, 1, 1))
    _, second = predictions((2, 3, 5))
    said = alt.describe(plots.confusion_matrices({"a": first, "b": second}, labels, NAMES, "Errors"))
    assert "on the diagonal from 60 (cat) to 100 (automobile); the largest beside it is cat taken for bird, 40" in said
    assert "on the diagonal from 50 (bird) to 100 (airplane); the largest beside it is bird taken for cat, 50" in said


def test_curves_say_where_they_begin_and_end_and_which_measure_they_show():
    history = {"loss": [2.0, 0.5, 1.0], "accuracy": [0.1, 0.2, 0.4], "val_loss": [2.0, 1.0, 1.5]}
    said = alt.describe(plots.compare_histories({"net": history}, "Curves"))
    assert said.startswith("Curves. loss: net, training from 2 to 1 over epoch 1 to 3, lowest 0.5 at 2; "
                           "net, validation from 2 to 1.5")
    assert ". accuracy: net, training from 0.1 to 0.4 over epoch 1 to 3." in said


def test_intervals_bars_and_dots_give_their_figures():
    said = alt.describe(plots.intervals({"a": 0.5, "b": 0.6}, {"a": (0.4, 0.6), "b": (0.55, 0.65)}, "How sure"))
    assert "a 0.500 (0.400 to 0.600); b 0.600 (0.550 to 0.650)" in said
    said = alt.describe(plots.prediction(np.zeros((32, 32, 3)), np.array([0.0, 9, 0, 1]), 3, NAMES, "One"))
    assert "true class: cat" in said and "(automobile)" in said
    records = [{"without": name, "seed": seed, "validation_accuracy": value + seed / 100}
               for name, value in (("nothing", 0.8), ("moving", 0.7), ("rate", 0.1)) for seed in (0, 1)]
    said = alt.describe(plots.ablation(records, "Ideas"))
    assert "nothing 0.8 to 0.81" in said and "moving 0.7 to 0.71" in said
    assert "rate ◀ 0.10, 0.11" in said  # too far off to be drawn among the others


def test_what_must_be_said_beside_a_figure_is_said_in_its_description():
    add(STAND_IN)
    try:
        assert STAND_IN in alt.describe(plots.curve([1, 2], "step", "rate", "Rate"))
    finally:
        discard(STAND_IN)


def test_no_description_is_empty():
    assert alt.describe(plt.figure()) == "An empty figure."
    figure, axis = plt.subplots()
    axis.plot([np.nan, np.nan])
    assert alt.describe(figure).strip(". ")


def test_describing_changes_nothing_that_is_drawn():
    figure, pictures = plots.curve([1, 2, 1], "step", "rate", "Rate"), []
    for _ in range(2):
        pictures.append(io.BytesIO())
        figure.savefig(pictures[-1], metadata={"Software": None})
        alt.describe(figure)
    assert pictures[0].getvalue() == pictures[1].getvalue()


@pytest.mark.parametrize("first", ["", "import matplotlib.pyplot as plt\n"])
def test_a_notebook_keeps_the_description_beside_the_picture(first):
    cells = [first + "from cifar_helpers import alt\nalt.show_in_notebooks()\nalt.show_in_notebooks()",
             "import matplotlib.pyplot as plt\nplt.plot([1, 3], label='line'); plt.suptitle('A title');",
             "1 + 1"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [output for output in notebook.cells[1].outputs if "image/png" in output.get("data", {})]
    assert [output.metadata["image/png"]["alt"] for output in shown] == ["A title. line from 1 to 3 over x 0 to 1."]
    assert notebook.cells[2].outputs[0].data == {"text/plain": "2"}


def test_outside_a_notebook_nothing_happens():
    assert alt.show_in_notebooks() is None
