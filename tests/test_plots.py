"""Every figure is drawn without a warning and says what its reader must know."""

import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from cifar_helpers import marks, plots, start_exercises
from cifar_helpers.runs import LESSONS

# Numbers out of range and layouts that do not fit are warned of with these two; a library's own deprecations are not.
pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")

RNG = np.random.default_rng(0)
NAMES = tuple("abcdefghij")
IMAGES = RNG.integers(0, 256, (7, 32, 32, 3), np.uint8)
LABELS = np.repeat(np.arange(10), 6)
LOGITS = RNG.normal(0, 1, (60, 10)) + 2 * np.eye(10)[LABELS]
HISTORY = {measure: [0.5, 0.4, 0.3] for measure in ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")}
ABLATION = [{"without": "nothing", "seed": 1, "validation_accuracy": 0.9},
            {"without": "flips", "seed": 1, "validation_accuracy": 0.7},
            {"without": "flips", "seed": 2, "validation_accuracy": 0.8}]
PLOTS = {
    "image_grid": lambda title: plots.image_grid(IMAGES, NAMES[:7], title),
    "compare_histories": lambda title: plots.compare_histories({"one": HISTORY, "other": HISTORY}, title),
    "prediction": lambda title: plots.prediction(IMAGES[0], LOGITS[0], 0, NAMES, title),
    "confusion_matrices": lambda title: plots.confusion_matrices({"one": LOGITS.argmax(1)}, LABELS, NAMES, title),
    "calibration": lambda title: plots.calibration({"one": LOGITS, "other": LOGITS / 2}, LABELS, title),
    "curve": lambda title: plots.curve([3, 2, 1], "step", "loss", title),
    "intervals": lambda title: plots.intervals({"one": 0.5, "other": 0.6}, {"one": (0.4, 0.6), "other": (0.6, 0.7)},
                                               title),
    "spread": lambda title: plots.spread({"one": [HISTORY, HISTORY]}, "val_accuracy", title),
    "ablation": lambda title: plots.ablation(ABLATION, title),
}
SHIPPED = {"spread", "ablation"}  # what they show was measured on CIFAR-10, whatever the lesson runs on


@pytest.fixture(autouse=True)
def _clean():
    yield
    plt.close("all")
    for mark in (marks.STAND_IN, marks.RANDOM_BACKBONE):
        marks.discard(mark)


def drawn(figure):
    assert isinstance(figure, plt.Figure)
    figure.draw_without_rendering()  # layout and text are worked out only now
    return figure


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_every_plot_of_the_module_is_tested():
    public = {name for name, value in vars(plots).items()
              if getattr(value, "__module__", "") == plots.__name__ and not name.startswith("_")}
    assert public == set(PLOTS)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_figure_with_its_title(name):
    title = drawn(PLOTS[name]("What this shows")).get_suptitle()
    assert title.startswith("What this shows")
    assert marks.STAND_IN not in title and marks.RANDOM_BACKBONE not in title


@pytest.mark.parametrize("name", sorted(PLOTS.keys() - SHIPPED))
def test_the_title_says_when_the_result_is_not_what_it_seems(name):
    marks.add(marks.STAND_IN)
    assert re.search(r"^What this shows.* · generated stand-in, not CIFAR-10$",
                     PLOTS[name]("What this shows").get_suptitle())
    marks.add(marks.RANDOM_BACKBONE)
    assert drawn(PLOTS[name]("What this shows")).get_suptitle().endswith(
        " · generated stand-in, not CIFAR-10 · untrained backbone")


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_leaves_its_input_as_it_was(name):
    before = [array.copy() for array in (IMAGES, LABELS, LOGITS)]
    PLOTS[name]("title")
    for array, copy in zip((IMAGES, LABELS, LOGITS), before, strict=True):
        assert np.array_equal(array, copy)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 5, 1), (5, 5, 1), (6, 5, 2), (7, 3, 3)])
def test_a_grid_has_a_place_for_every_picture_and_axes_on_none(count, columns, rows):
    figure = drawn(plots.image_grid(IMAGES[:count], NAMES[:count], "title", columns))
    assert len(figure.axes) == rows * columns
    assert [axis.get_title() for axis in figure.axes if axis.images] == list(NAMES[:count])
    assert not any(axis.axison for axis in figure.axes)


def test_a_grid_takes_floats_from_0_to_1():
    drawn(plots.image_grid(IMAGES / 255, NAMES[:7], "title"))


def test_histories_may_lack_validation_and_have_one_epoch():
    figure = drawn(plots.compare_histories({"short": {"loss": [1], "accuracy": [0]}, "long": HISTORY}, "title"))
    assert legend(figure.axes[0]) == ["short, training", "long, training", "long, validation"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "accuracy"]


MANY = [f"run {number}" for number in range(12)]


@pytest.mark.parametrize("draw", [
    lambda: plots.compare_histories(dict.fromkeys(MANY, HISTORY), "title"),
    lambda: plots.calibration(dict.fromkeys(MANY, LOGITS), LABELS, "title"),
], ids=["compare_histories", "calibration"])
def test_more_runs_than_colours_are_all_drawn(draw):
    said = " ".join(legend(drawn(draw()).axes[0]))
    assert all(name in said for name in MANY)


def test_a_prediction_shows_probabilities_and_the_true_class():
    figure = drawn(plots.prediction(IMAGES[0], LOGITS[0], 3, NAMES, "title"))
    bars = [bar.get_width() for bar in figure.axes[1].patches]
    assert sum(bars) == pytest.approx(1) and len(bars) == 10
    assert figure.axes[0].get_title() == "true class: d"
    assert len({bar.get_facecolor() for bar in figure.axes[1].patches}) == 2


@pytest.mark.parametrize("models", [1, 4])
def test_a_confusion_matrix_a_model_in_shares_of_the_true_class(models):
    predicted = LOGITS.argmax(axis=1)
    figure = drawn(plots.confusion_matrices({f"model {n}": predicted for n in range(models)}, LABELS, NAMES, "title"))
    filled = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in filled] == [
        f"model {n}: {np.mean(predicted == LABELS):.1%} right" for n in range(models)]
    for axis in filled:
        rows = np.reshape([float(text.get_text()) for text in axis.texts], (10, 10))
        assert np.allclose(rows.sum(axis=1), 100, atol=5)  # each is rounded


def test_a_class_without_images_has_an_empty_row_of_the_matrix():
    few = LABELS < 4
    figure = drawn(plots.confusion_matrices({"one": LOGITS.argmax(1)[few]}, LABELS[few], NAMES, "title"))
    assert [text.get_text() for text in figure.axes[0].texts[-10:]] == ["0"] * 10


@pytest.mark.parametrize("scale", [0, 1, 1_000])
@pytest.mark.parametrize("labels", [LABELS, LOGITS.argmax(1), (LOGITS.argmax(1) + 1) % 10],
                         ids=["sometimes right", "always right", "never right"])
def test_calibration_stays_between_0_and_1(scale, labels):
    figure = drawn(plots.calibration({"one": scale * LOGITS.astype(np.float32)}, labels, "title"))
    for line in figure.axes[0].lines:
        for values in line.get_data():
            assert np.min(values) >= 0 and np.max(values) <= 1 + 1e-6


def test_calibration_of_a_model_that_is_as_sure_as_it_is_right_lies_on_the_diagonal():
    sure = np.repeat([0.55, 0.95], 400)
    right = np.concatenate([np.arange(400) < 400 * share for share in (0.55, 0.95)])
    logits = np.log(np.column_stack([sure, 1 - sure]))
    line = drawn(plots.calibration({"one": logits}, np.where(right, 0, 1), "title")).axes[0].lines[1]
    assert np.allclose(*line.get_data(), atol=0.05)


def test_intervals_are_drawn_a_row_a_model_from_the_top():
    points = {name: 0.1 * number for number, name in enumerate("abc", 1)}
    axis = drawn(plots.intervals(points, {name: (at - 0.05, at + 0.02) for name, at in points.items()}, "t")).axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["a", "b", "c"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    assert [text.get_text() for text in axis.texts] == ["0.100", "0.200", "0.300"]
    ends = [bar.get_segments()[0][:, 0] for bar in axis.collections]
    assert [tuple(pair) for pair in ends] == [pytest.approx((at - 0.05, at + 0.02)) for at in points.values()]
    assert all(one[0] < other[0] for one, other in itertools.pairwise(ends))


def test_spread_is_the_mean_and_range_over_seeds_without_a_mark():
    marks.add(marks.STAND_IN)
    figure = drawn(plots.spread({"one": [{"val_accuracy": [0.1, 0.3, 0.9]}, {"val_accuracy": [0.3, 0.5]}],
                                 "other": [HISTORY]}, "val_accuracy", "What ships"))
    [axis] = figure.axes
    assert np.allclose(axis.lines[0].get_data(), [[1, 2], [0.2, 0.4]])
    band = axis.collections[0].get_paths()[0].vertices
    assert [(band[band[:, 0] == x, 1].min(), band[band[:, 0] == x, 1].max()) for x in (1, 2)] == [
        pytest.approx((0.1, 0.3)), pytest.approx((0.3, 0.5))]
    assert legend(axis) == ["one, 2 seeds", "other, 1 seed"] and axis.get_ylabel() == "validation accuracy"
    assert figure.get_suptitle() == "What ships"


def test_an_ablation_has_a_row_an_idea_and_a_dot_a_training():
    figure = drawn(plots.ablation(ABLATION, "What ships"))
    [axis] = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["nothing", "flips"]
    assert sorted(x for dots in axis.collections for x, _ in dots.get_offsets()) == [0.7, 0.8, 0.9]
    assert not axis.texts


def test_an_ablation_shows_what_is_far_below_as_a_number_at_the_edge():
    lost = [{"without": "everything", "seed": 1, "validation_accuracy": 0.1, "seconds": 1}]
    [axis] = drawn(plots.ablation(ABLATION + lost, "What ships")).axes
    assert [text.get_text() for text in axis.texts] == ["◀ 0.10"]
    assert axis.get_xlim()[0] > 0.5


@pytest.mark.parametrize("epochs", [1, 2, 5, 20])
def test_epochs_are_counted_in_whole_numbers(epochs):
    history = {measure: [0.5] * epochs for measure in HISTORY}
    for figure in (plots.compare_histories({"one": history}, ""), plots.spread({"one": [history]}, "loss", "")):
        for axis in figure.axes:
            low, high = axis.get_xlim()
            ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
            assert ticks and all(tick == int(tick) for tick in ticks)


# What a reader without one kind of cone sees of linear RGB: Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009.
COLOUR_BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def distances(colours, seen):
    """The CIELAB distance of each pair of colours as somebody with this colour vision sees them."""
    linear = [np.where(np.array(colour) <= 0.04045, np.array(colour) / 12.92, ((np.array(colour) + 0.055) / 1.055)**2.4)
              for colour in colours]
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = [to_xyz @ np.clip(np.array(seen) @ one, 0, 1) / (0.9505, 1, 1.089) for one in linear]
    f = [np.where(one > 0.008856, np.cbrt(one), 7.787 * one + 16 / 116) for one in xyz]
    lab = [np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)]) for x, y, z in f]
    return [float(np.linalg.norm(one - other)) for one, other in itertools.combinations(lab, 2)]


@pytest.mark.parametrize("seen", COLOUR_BLIND.values(), ids=COLOUR_BLIND)
def test_readers_who_are_colour_blind_can_tell_the_models_apart(seen):
    with plt.rc_context():
        start_exercises()
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"][:len(LESSONS)]
    own = [plots.PALETTE[number] for number in range(len(LESSONS))]
    for colours in (own, [to_rgb(colour) for colour in cycle]):
        assert min(distances(colours, seen)) > 10


def test_the_distance_of_colours_finds_pairs_that_look_alike():
    assert min(distances([to_rgb("tab:orange"), to_rgb("tab:green")], COLOUR_BLIND["protan"])) < 5
