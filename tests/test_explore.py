"""Sliders, filters and an upload do what they say; the figure is there with and without them."""

import base64
import io
import re
import sys
import time
from datetime import UTC, datetime

import keras
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from keras import layers
from nbclient import NotebookClient
from PIL import Image

from cifar_helpers import explore, marks, models, runs
from cifar_helpers.data import Split
from cifar_helpers.errors import CourseError, DataError

pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")

NAMES = ("airplane", "cat", "<dog>")
RNG = np.random.default_rng(0)
PICTURES = Split(RNG.integers(60, 200, (6, 32, 32, 3), np.uint8), np.array([1, 1, 0, 2, 0, 1]))
CHANGES = {
    "shift": (lambda x: layers.RandomTranslation(0.0, (x, x)), -0.5, 0.5),
    "darker": (lambda x: lambda images, training: images - x, 0, 100),
}


@pytest.fixture(autouse=True)
def _clean():
    yield
    plt.close("all")
    marks.discard(marks.STAND_IN)


def parts(box):
    for child in getattr(box, "children", ()):
        yield child
        yield from parts(child)


def control(box, description):
    [found] = [part for part in parts(box) if getattr(part, "description", "") == description]
    return found


def html(box):
    return box.children[-1].value


def pictures(box):
    """What the box shows: a list of (caption, pixels)."""
    return [(alt, np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))))
            for encoded, alt in re.findall(r'src="data:image/png;base64,([^"]+)" alt="([^"]+)"', html(box))]


def title():
    return plt.gcf().get_suptitle()


# --- the augmentation explorer ---


def test_sliders_start_at_no_change_and_show_the_picture_twice():
    box = explore.augmentation(PICTURES, NAMES, CHANGES)
    (left, before), (right, after) = pictures(box)
    assert "as it is" in left and "no change" in right
    np.testing.assert_array_equal(before, PICTURES.images[2])  # the first airplane
    np.testing.assert_array_equal(after, before)


def test_a_slider_changes_the_picture_by_just_its_amount_each_time():
    box = explore.augmentation(PICTURES, NAMES, CHANGES)
    for amount in (0.25, -0.5, 0.25):
        control(box, "shift").value = amount
        (_, before), (said, after) = pictures(box)
        pixels = round(amount * 32)
        inside = slice(max(pixels, 0), 32 + min(pixels, 0))
        np.testing.assert_allclose(after[:, inside].astype(int), np.roll(before, pixels, axis=1)[:, inside], atol=1)
        assert f"shift {amount:.2g}" in said


def test_a_move_takes_a_small_part_of_the_100_milliseconds_in_which_a_picture_must_follow():
    changes = CHANGES | {"turn": (lambda x: layers.RandomRotation((x, x)), -0.5, 0.5),
                         "zoom": (lambda x: layers.RandomZoom((x, x)), -0.5, 0.5)}
    box, took = explore.augmentation(PICTURES, NAMES, changes), []
    for change in changes:
        control(box, change).value = 0.25
    for amount in np.linspace(0.1, 0.4, 12):
        begun = time.process_time()  # which other programs do not slow down
        control(box, "shift").value = amount
        took.append(time.process_time() - begun)
    assert np.median(took) < 0.1


def test_changes_add_up_and_one_button_takes_them_back():
    box = explore.augmentation(PICTURES, NAMES, CHANGES)
    control(box, "shift").value, control(box, "darker").value = 0.25, 50
    (_, before), (said, after) = pictures(box)
    assert "shift 0.25, darker 50" in said
    assert abs(int(after[:, 8:].astype(int).mean()) - (before[:, :-8].mean() - 50)) <= 2
    control(box, "as it is").click()
    np.testing.assert_array_equal(pictures(box)[1][1], before)


def test_every_class_has_a_picture_whose_name_is_no_markup():
    box = explore.augmentation(PICTURES, NAMES, CHANGES)
    assert control(box, "picture").options == NAMES
    control(box, "picture").value = "<dog>"
    assert "<dog>" not in html(box)
    assert pictures(box)[0][0] == "&lt;dog&gt;, as it is"
    np.testing.assert_array_equal(pictures(box)[0][1], PICTURES.images[3])


def test_a_change_that_makes_pixels_too_dark_or_bright_keeps_them_from_0_to_255():
    box = explore.augmentation(PICTURES, NAMES, {"brighter": (lambda x: lambda images, training: images + x, 0, 999)})
    control(box, "brighter").value = 999
    assert pictures(box)[1][1].min() == 255


def test_the_figure_has_every_change_at_five_amounts():
    marks.add(marks.STAND_IN)
    explore.augmentation(PICTURES, NAMES, CHANGES)
    titles = [axis.get_title() for axis in plt.gcf().axes]
    assert titles[:5] == ["shift -0.5", "shift -0.25", "shift 0", "shift 0.25", "shift 0.5"] and len(titles) == 10
    assert "airplane" in title() and marks.STAND_IN in title()


# --- the browser of mistakes ---

LABELS = np.repeat([0, 1, 2], 20)
IMAGES = np.tile(np.arange(60, dtype=np.uint8)[:, None, None, None], (1, 32, 32, 3))  # each says its number


def logits(**wrong):
    """Right everywhere but at `true_taken=(numbers, logit)`, classes by their numbers."""
    found = 9.0 * np.eye(3)[LABELS]
    for taken, (numbers, sure) in wrong.items():
        found[numbers] = sure * np.eye(3)[int(taken[1:])]
    return found


LOGITS = {
    "first": logits(t1=(np.arange(3), 2.0), t2=(np.arange(20, 22), 5.0)),  # 3 airplanes as cats, 2 cats as dogs
    "worse": logits(t2=(np.arange(0, 13), 3.0), t0=(np.arange(40, 41), 0.5)),
    "perfect": logits(),
}


def shown(box):
    return [(int(pixels[0, 0, 0]), caption) for caption, pixels in pictures(box)]


def two():
    return explore.mistakes(IMAGES, LABELS, {name: LOGITS[name] for name in ("worse", "first")}, NAMES)


def test_it_opens_with_all_mistakes_of_the_best_model_the_surest_first():
    box = two()
    assert control(box, "model").value == "first"
    assert [number for number, _ in shown(box)] == [20, 21, 0, 1, 2]
    assert shown(box)[0][1] == "cat, taken for &lt;dog&gt; (99%)"
    assert "5 mistakes in 60 pictures" in html(box)


def test_true_class_predicted_class_and_confidence_filter():
    box = two()
    control(box, "true class").value = 0
    assert [number for number, _ in shown(box)] == [0, 1, 2]
    control(box, "taken for").value = 2
    assert "0 mistakes" in html(box) and not shown(box)
    control(box, "true class").value = None
    assert [number for number, _ in shown(box)] == [20, 21]
    control(box, "taken for").value = None
    control(box, "confidence from").value = 0.9
    assert [number for number, _ in shown(box)] == [20, 21]


def test_pages_hold_ten_and_a_filter_leads_back_to_the_first():
    box = two()
    control(box, "model").value = "worse"
    assert [number for number, _ in shown(box)] == list(range(10))
    assert control(box, "page").max == 2
    control(box, "page").value = 2
    assert [number for number, _ in shown(box)] == [10, 11, 12, 40]
    control(box, "true class").value = 2
    assert control(box, "page").value == 1 and [number for number, _ in shown(box)] == [40]
    assert "1 mistake in 60 pictures" in html(box)


def test_the_figure_shows_the_mistake_made_most_often():
    two()
    assert title() == "first, its most frequent mistake: airplane taken for cat (3 of 20)"
    assert [axis.get_title() for axis in plt.gcf().axes][:3] == ["79% sure"] * 3


def test_a_model_without_a_mistake_has_a_figure_that_says_so():
    box = explore.mistakes(IMAGES, LABELS, {"perfect": LOGITS["perfect"]}, NAMES)
    assert title() == "perfect: no mistake" and "0 mistakes" in html(box)


# --- a picture of one's own ---


def file(pixels, kind="PNG"):
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind)
    return written.getvalue()


def uploaded(box, content):
    control(box, "your picture").value = (
        {"name": "mine.png", "type": "image/png", "size": len(content), "last_modified": datetime.now(UTC),
         "content": memoryview(content)},)


def sequential():
    return keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 127.5, offset=-1), layers.Conv2D(2, 3),
                             layers.GlobalAveragePooling2D(), layers.Dense(3)])


def transfer():
    """Layers as lesson 5's: enlarging and preprocessing in a model within the model."""
    inputs = keras.Input((32, 32, 3))
    backbone = keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(2, 3, strides=8)])
    x = layers.Resizing(64, 64, interpolation="bicubic")(inputs)
    x = backbone(keras.applications.resnet50.preprocess_input(x), training=False)
    right = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    outer = keras.Input((32, 32, 3))
    return keras.Model(outer, keras.Sequential([keras.Input((2,)), layers.Dense(3)])(right(outer)))


def subclassed():
    model = models.SubclassedCNN(classes=3)
    model(np.zeros((1, 32, 32, 3)))
    return model


MODELS = {"baseline": sequential, "subclassed": subclassed, "transfer_frozen": transfer}
DATA = {"name": "CIFAR-10", "origin": "fixture", "fingerprint": "0", "is_standin": False}


@pytest.fixture
def saved(monkeypatch, tmp_path):
    """Three runs with models that were written to files, as the lessons' are, and read again."""
    found = []
    for name, build in MODELS.items():
        build().save(tmp_path / "model.keras")
        (tmp_path / name).mkdir()
        (tmp_path / "model.keras").rename(tmp_path / name / "model.keras")
        found.append(runs.Run(name, tmp_path / name, {"data": DATA, "budget": "smoke", "backbone": None,
                                                      "versions": {"keras": keras.__version__}}, {}))
    return found


def captions(box):
    return [caption for caption, _ in pictures(box)]


@pytest.mark.parametrize(("value", "content"), [
    ((), None), ({}, None), (({"name": "a.png", "content": memoryview(b"new")},), b"new"),
    ({"a.png": {"metadata": {"name": "a.png"}, "content": b"old"}}, b"old"),
])
def test_an_upload_is_read_from_old_and_new_ipywidgets(value, content):
    assert explore._uploaded(value) == content


def test_every_step_of_an_upload_is_shown(saved):
    box = explore.own_picture(saved, NAMES)
    assert not pictures(box)
    wide = np.full((40, 90, 3), 200, np.uint8)
    wide[:, 25:65] = (255, 100, 0)  # the middle
    uploaded(box, file(wide))
    assert captions(box)[:3] == ["the picture, 90 x 40", "its middle, 40 x 40", "shrunk, 32 x 32"]
    assert captions(box)[3].startswith("as the first weights meet it, -1 to 1")
    assert (pictures(box)[2][1] == (255, 100, 0)).all()
    assert all(name in html(box) for name in ("airplane", "cat", "&lt;dog&gt;")) and html(box).count("%</td>") == 3


def test_a_backbone_gets_it_enlarged_and_preprocessed(saved):
    box = explore.own_picture(saved, NAMES, "transfer_frozen")
    uploaded(box, file(np.full((32, 32, 3), (250, 20, 20), np.uint8)))
    assert captions(box)[3] == "enlarged, 64 x 64"
    assert (pictures(box)[3][1] == (250, 20, 20)).all()
    lowest, highest = 20 - 116.779, 250 - 123.68  # ImageNet's means of green and red, which Keras takes away
    assert captions(box)[4] == f"as the first weights meet it, {lowest:.3g} to {highest:.3g}"
    assert (pictures(box)[4][1][..., 2] == 255).all()  # blue comes first now


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_is_the_models_for_the_small_picture(saved, name):
    picture = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    box = explore.own_picture(saved, NAMES, "baseline")
    control(box, "model").value = name
    uploaded(box, file(picture))
    [run] = [run for run in saved if run.name == name]
    want = keras.ops.softmax(runs.load_model(run).predict(picture[np.newaxis].astype("float32"), verbose=0))[0]
    given = dict(re.findall(r"<td[^>]*>([^<]+)</td><td>(\d+)%</td>", html(box)))
    for label, share in zip(("airplane", "cat", "&lt;dog&gt;"), np.asarray(want), strict=True):
        assert abs(int(given[label]) - 100 * share) <= 0.6
    assert list(map(int, given.values())) == sorted(map(int, given.values()), reverse=True)


def transparent():
    clear = np.zeros((9, 9, 4), np.uint8)
    return file(clear)


@pytest.mark.parametrize(("content", "said"), [
    (b"", "no PNG or JPEG"), (b"%PDF-1.7 something", "no PNG or JPEG"),
    (file(np.zeros((50, 50, 3), np.uint8))[:-30], "damaged"), (transparent(), "transparent"),
    (b"<svg onload='alert(1)'>", "no PNG or JPEG")])
def test_a_bad_file_is_answered_with_one_sentence_and_the_next_is_read(saved, content, said):
    box = explore.own_picture(saved, NAMES)
    uploaded(box, content)
    assert said in html(box) and "The uploaded picture" in html(box) and not pictures(box)
    uploaded(box, file(np.zeros((50, 50, 3), np.uint8), "JPEG"))
    assert len(pictures(box)) == 4


def test_a_run_that_has_gone_is_answered_with_one_sentence(saved):
    box = explore.own_picture(saved, NAMES)
    (saved[1].folder / "model.keras").unlink()
    control(box, "model").value = "subclassed"
    assert "&#x27;subclassed&#x27;" in html(box) and not pictures(box)


def test_marks_of_a_run_stand_beside_its_name(saved):
    assert ("baseline (smoke budget)", "baseline") in control(explore.own_picture(saved, NAMES), "model").options


def test_the_figure_shows_the_steps_for_a_flower(saved):
    explore.own_picture(saved, NAMES, "transfer_frozen")
    titles = [axis.get_title() for axis in plt.gcf().axes]
    assert titles[:2] == ["the picture\n640 x 427", "its middle\n427 x 427"] and len(titles) == 6
    assert "transfer_frozen" in title()


def test_a_picture_of_the_lessons_own_takes_the_flowers_place(saved, tmp_path):
    (tmp_path / "mine.png").write_bytes(file(np.zeros((8, 20, 3), np.uint8)))
    explore.own_picture(saved, NAMES, picture=tmp_path / "mine.png")
    assert plt.gcf().axes[0].get_title() == "the picture\n20 x 8"
    with pytest.raises(DataError):
        explore.own_picture(saved, NAMES, picture=b"nothing")


def test_without_a_run_it_says_what_to_do():
    with pytest.raises(CourseError, match="run lesson 2"):
        explore.own_picture([], NAMES)


# --- with and without widgets ---

PIECES = {
    "augmentation": lambda saved: explore.augmentation(PICTURES, NAMES, CHANGES),
    "mistakes": lambda saved: two(),
    "own_picture": lambda saved: explore.own_picture(saved, NAMES),
}


@pytest.mark.parametrize("piece", PIECES)
def test_without_ipywidgets_the_figure_stands_alone(monkeypatch, saved, piece):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert PIECES[piece](saved) is None
    assert plt.get_fignums() and title()


CELL = """
import sys
import time
from datetime import UTC, datetime
{first}
import numpy as np
from cifar_helpers import alt, explore
from cifar_helpers.data import Split
alt.show_in_notebooks()
"""
CALL = """
pictures = Split(np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1]))
explore.augmentation(pictures, ("a", "b"), {"darker": (lambda x: lambda images, training: images - x, 0, 9)});
"""


@pytest.mark.parametrize("there", [True, False])
def test_a_notebook_keeps_the_figure_and_then_the_widgets_or_how_to_get_them(there):
    first = "" if there else "sys.modules['ipywidgets'] = None"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.format(first=first)),
                                               nbformat.v4.new_code_cell(CALL)])
    NotebookClient(notebook, timeout=300, kernel_name="python3", store_widget_state=False).execute()
    figure, after = notebook.cells[1].outputs
    assert "image/png" in figure.data and "One picture (a)" in figure.metadata["image/png"]["alt"]
    if there:
        assert set(after.data) == {"application/vnd.jupyter.widget-view+json", "text/plain"}
        assert after.data["text/plain"] == "In JupyterLab there are sliders here."
    else:
        assert after.name == "stdout" and "pip install 'ipywidgets" in after.text
