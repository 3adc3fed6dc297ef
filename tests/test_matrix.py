"""The table of supported versions: its rows follow from pyproject.toml, and what fails in one is named."""

import json
import sys

import matrix
import nbformat
import openers
import pytest
from packaging.requirements import Requirement

from cifar_helpers.errors import CourseError

NEEDED = {needed.name: needed.specifier for needed in map(Requirement, matrix.described()["dependencies"])}


def test_the_rows_are_the_supported_range():
    rows = {row.name: row for row in matrix.rows()}
    assert list(rows) == [*(f"{python}-{tensorflow}" for python in ("3.11", "3.12", "3.13")
                            for tensorflow in ("2.19", "2.20", "newest")), "lowest", "colab-2.19", "colab-2.20"]
    oldest = next(bound.version for bound in NEEDED["tensorflow"] if bound.operator == ">=")
    assert matrix.TENSORFLOWS[0] == oldest == rows["lowest"].tensorflow
    assert not NEEDED["tensorflow"].contains("2.18.9")
    assert all((matrix.ROOT / row.constraints).is_file() for row in rows.values() if row.constraints)


@pytest.mark.parametrize("tensorflow", matrix.COLAB)
def test_what_colab_ships_is_supported_and_complete(tensorflow):
    lines = (matrix.ROOT / matrix.COLAB[tensorflow]).read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pinned["tensorflow"].startswith(f"{tensorflow}.")
    assert [name for name, range_ in NEEDED.items() if name not in pinned or not range_.contains(pinned[name])] == []


def test_a_row_that_cannot_run_here_is_named_and_is_no_failure(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(matrix, "python_for", lambda version: None)
    monkeypatch.setattr(matrix, "build_wheel", lambda folder: folder / "course.whl")
    (tmp_path / "matrix" / "wheel").mkdir(parents=True)
    assert matrix.main(["3.13-2.19", "3.12-2.20", "--build", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "3.13-2.19  –        –       skipped: TensorFlow 2.19 is not made for Python 3.13" in said
    assert "3.12-2.20  –        –       skipped: no Python 3.12 with venv here: `pyenv install 3.12`" in said
    assert [row["row"] for row in json.loads((tmp_path / "matrix.json").read_text())] == ["3.13-2.19", "3.12-2.20"]


def test_an_unknown_row_is_a_usage_error(capsys):
    assert matrix.main(["3.10-2.19"]) == 2
    assert capsys.readouterr().err.startswith("There is no row 3.10-2.19: take 3.11-2.19, ")


def test_this_python_is_found_and_none_that_is_not_there():
    assert matrix.python_for(".".join(map(str, sys.version_info[:2])))
    assert matrix.python_for("3.99") is None


def test_a_row_asks_for_its_tensorflow_and_colab_for_all_but_the_course(tmp_path):
    rows = {row.name: row for row in matrix.rows()}
    wheel = tmp_path / "course.whl"
    assert matrix.requirements(rows["3.12-2.20"], wheel)[:2] == [str(wheel), "tensorflow==2.20.*"]
    assert not [wanted for wanted in matrix.requirements(rows["3.12-newest"], wheel) if "tensorflow" in wanted]
    colab = matrix.requirements(rows["colab-2.20"], wheel)
    assert set(NEEDED) <= set(colab) and "tensorflow==2.20.*" in colab and str(wheel) not in colab


# --- a row's notebooks, in this very environment ---


@pytest.fixture
def notebooks(tmp_path):
    """A function that writes lessons, a cell after the first each, and returns their paths."""

    def make(*cells):
        paths = []
        for number, source in enumerate(cells, 1):
            first = nbformat.v4.new_code_cell(f"wheel = '{openers.project()['wheel']}'")
            notebook = nbformat.v4.new_notebook(cells=[first, nbformat.v4.new_code_cell(f"# Why.\n{source}")])
            paths.append(tmp_path / f"0{number}_lesson.ipynb")
            nbformat.write(notebook, paths[-1])
        return paths

    return make


def run(paths, tmp_path):
    return matrix.run_notebooks("row", paths, "http://127.0.0.1/course.whl", sys.executable, tmp_path / "cache")


def test_lessons_run_in_one_folder_that_is_empty_at_first(notebooks, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", "/a/folder/of/mine")
    monkeypatch.setenv("PYTHONPATH", "/a/folder/of/mine")
    opened, failures = run(notebooks("""\
import os, pathlib
assert list(pathlib.Path.cwd().iterdir()) == [] and wheel == "http://127.0.0.1/course.whl"
assert "COURSE_RUNS" not in os.environ and "PYTHONPATH" not in os.environ
assert os.environ["COURSE_BUDGET"] == "smoke"
pathlib.Path("left").touch()""", "assert open('left')"), tmp_path)
    assert failures == [] and list(opened) == ["01_lesson", "02_lesson"]
    assert all(0 <= seconds < 60 for seconds in opened.values())


def test_what_fails_is_named_and_the_others_run(notebooks, tmp_path, capsys):
    opened, failures = run(notebooks(
        "1 / 0", "import warnings\nwarnings.warn('ours')", "import os\nos._exit(3)", "import os\nos.abort()",
        "1"), tmp_path)
    assert list(opened) == ["05_lesson"]
    assert failures[0] == "01_lesson, cell 2 (1 / 0): ZeroDivisionError: division by zero"
    assert failures[1] == "02_lesson, cell 2 (import warnings): UserWarning: ours"
    assert failures[2].startswith("03_lesson, cell 2 (import os): Kernel died, with status 3")
    assert failures[3].startswith("04_lesson, cell 2 (import os): Kernel died")
    assert sys.platform == "win32" or failures[3].endswith(", by SIGABRT")


def test_a_notebook_that_does_not_name_the_release_is_refused(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "01_lesson.ipynb")
    with pytest.raises(CourseError, match="01_lesson does not name the release once"):
        matrix.run_notebook(tmp_path / "01_lesson.ipynb", "", sys.executable, tmp_path, {})


def test_what_the_lessons_change_is_named():
    before = {"numpy": "2.0.2", "pip": "24"}
    course = {"cifar-helpers": matrix.described()["version"]}
    assert matrix.changes(before, before, colab=False) == [] == matrix.changes(before, before | course, colab=True)
    [sentence] = matrix.changes(before, before | course | {"numpy": "2.4.0"}, colab=True)
    assert sentence.endswith("not what it should be: numpy 2.0.2 is 2.4.0")
    [sentence] = matrix.changes(before, before, colab=True)
    assert "cifar-helpers" in sentence and sentence.endswith(" is none")
