"""The course's tools, on lessons of a few lines."""

import html
import io
import json
import os
import re
import subprocess
import sys

import nbformat
import pairs
import pytest
import run_course

SCRIPT = """# %% [markdown]
# # 1 · A lesson
# [![Open in Colab](https://host/badge.svg)](https://host/01_first.ipynb)
# On to [the next](02_next.ipynb#start).

# %%
import sys
print(sys.executable)

# %% tags=["nbval-skip"]
raise SystemExit("a cell for students only")

# %%
{cell}
"""
DRAW = """import matplotlib.pyplot as plt
plt.plot([1, 2]);"""
COMPARE = """import os
from pathlib import Path
Path(os.environ["COURSE_BUILD"], "comparison.txt").write_text("model  accuracy\\n", encoding="utf-8")"""


@pytest.fixture
def lesson(tmp_path):
    """A function that writes a lesson with one more cell, and its notebook, and returns the notebook's path."""

    def make(name: str, cell: str = "x = 1"):
        folder = tmp_path / "notebooks"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(SCRIPT.format(cell=cell), encoding="utf-8", newline="\n")
        pairs.write(folder)
        return folder / f"{name}.ipynb"

    return make


# --- pairs.py ---


def edit(notebook, change):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    change(content)
    notebook.write_text(json.dumps(content), encoding="utf-8")


def test_pair_is_accepted_and_rewriting_changes_nothing(lesson, capsys):
    notebook = lesson("01_first")
    before = notebook.read_bytes()
    assert b"\r" not in before and "·".encode() in before and before.endswith(b"}\n")
    assert pairs.main(["--write", str(notebook.parent)]) == 0
    assert notebook.read_bytes() == before
    assert pairs.main(["--check", str(notebook.parent)]) == 0
    assert capsys.readouterr() == ("", "")


def test_notebook_is_clean_and_keeps_tags(lesson):
    notebook = nbformat.read(lesson("01_first"), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.metadata for cell in code] == [{}, {"tags": ["nbval-skip"]}, {}]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3" and "jupytext" not in notebook.metadata


def test_ids_are_unique_and_outlive_a_new_cell(lesson):
    def ids(cell):
        return [cell.id for cell in nbformat.read(lesson("01_first", cell), as_version=4).cells]

    few, more = ids("x = 1"), ids("y = 2\n\n# %%\nx = 1\n\n# %%\nx = 1")
    assert len(set(more)) == len(more) and set(few) < set(more)


def test_windows_line_ends_in_a_script_change_nothing(lesson):
    notebook = lesson("01_first")
    script = notebook.with_suffix(".py")
    script.write_bytes(script.read_bytes().replace(b"\n", b"\r\n"))
    assert pairs.faults(notebook.parent) == []


@pytest.mark.parametrize(("change", "said"), [
    (lambda content: content["cells"][1]["source"].append("\nx = 2"), "01_first.ipynb differs from 01_first.py"),
    (lambda content: content["cells"][1].update(execution_count=3), "01_first.ipynb holds outputs"),
    (lambda content: content["cells"][1]["outputs"].append({"output_type": "stream", "name": "stdout", "text": "1"}),
     "01_first.ipynb holds outputs"),
    (lambda content: content.clear(), "01_first.ipynb differs from 01_first.py"),
])
def test_check_finds_a_changed_notebook_and_leaves_it(lesson, change, said, capsys):
    notebook = lesson("01_first")
    edit(notebook, change)
    before = notebook.read_bytes()
    assert pairs.main(["--check", str(notebook.parent)]) == 1
    message = capsys.readouterr().err
    assert said in message and "make notebooks" in message and message.count("\n") == 1
    assert notebook.read_bytes() == before


def test_check_finds_missing_and_orphaned_notebooks(lesson):
    first, second = lesson("01_first"), lesson("02_second")
    first.unlink()
    second.rename(second.with_name("02_old.ipynb"))
    messages = pairs.faults(first.parent)
    assert [message.split(":")[0] for message in messages] == [
        "notebooks/01_first.ipynb is missing", "notebooks/02_second.ipynb is missing",
        "notebooks/02_old.ipynb has no script 02_old.py"]
    assert not first.exists()


def test_every_lesson_of_the_course_is_what_its_script_says():
    assert pairs.faults(pairs.NOTEBOOKS) == []


def test_check_of_a_folder_without_lessons_fails(tmp_path):
    assert "holds no lesson" in pairs.faults(tmp_path)[0]


# --- run_course.py ---


@pytest.fixture
def foreign_kernel(tmp_path, monkeypatch):
    """A user's kernel that has the usual name and cannot start."""
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/no/such/python", "-f", "{connection_file}"], "display_name": "Old", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A function that runs the course that `lesson` wrote, and returns the exit status."""
    build = tmp_path / "build"
    monkeypatch.setenv("COURSE_BUILD", str(build))  # the runner sets both: they go back afterwards
    monkeypatch.setenv("COURSE_BUDGET", "smoke")
    return lambda *more: run_course.main([*more, "--notebooks", str(tmp_path / "notebooks"), "--build", str(build)])


def test_course_leaves_pages_and_shows_the_comparison(lesson, course, foreign_kernel, tmp_path, capsys):
    lesson("01_first", DRAW)
    lesson("02_next", COMPARE)
    assert course() == 0
    said = capsys.readouterr().out
    assert "01_first: 2 cells\n01_first: done" in said and "\nmodel  accuracy\n" in said and "index.html" in said
    build = tmp_path / "build"
    executed = nbformat.read(build / "01_first.ipynb", as_version=4)
    assert executed.cells[1].outputs[0].text.strip() == sys.executable
    assert set(executed.metadata) == {"kernelspec", "language_info"}
    assert str(tmp_path) not in json.dumps([executed.metadata, [cell.metadata for cell in executed.cells]])
    page = (build / "01_first.html").read_text(encoding="utf-8")
    assert "<title>1 · A lesson</title>" in page and 'href="02_next.html#start"' in page
    assert 'src="data:image/png' in page and "<script" not in page and 'src="http' not in page
    assert '<a href="https://host/01_first.ipynb">Open in Colab</a>' in page
    index = (build / "index.html").read_text(encoding="utf-8")
    assert 'href="01_first.html"' in index and "model  accuracy" in index


def test_failing_cell_is_named_and_what_ran_is_kept(lesson, course, tmp_path, capsys):
    lesson("01_first", "x = 1 + 'a'\n\n# %%\nprint('not reached')")
    lesson("02_next")
    assert course() == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("01_first, cell 2 of 3 (x = 1 + 'a') failed with TypeError: unsupported")
    assert captured.err.count("\n") == 1 and "02_next" not in captured.out
    cells = nbformat.read(tmp_path / "build" / "01_first.ipynb", as_version=4).cells
    assert cells[1].outputs and cells[3].outputs[0].ename == "TypeError" and not cells[4].outputs
    assert not (tmp_path / "build" / "01_first.html").exists()


def test_kernel_that_dies_is_reported(lesson, course, capsys):
    lesson("01_first", "import os; os._exit(3)")
    assert course("1") == 1
    assert "01_first, cell 2 of 2 (import os; os._exit(3)) ended the kernel" in capsys.readouterr().err


def test_unknown_lesson_and_budget_are_usage_errors(lesson, course, capsys):
    lesson("01_first")
    assert course("2") == 2
    assert capsys.readouterr().err == "There is no lesson 2: take 1.\n"
    with pytest.raises(SystemExit, match="2"):
        course("--budget", "huge")


def test_progress_moves_on_a_terminal_and_fits_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with run_course.Progress("03_a_lesson_with_a_long_name", 12, terminal) as progress:
        progress.cell = 3
        progress._over.wait(0.8)
    lines = terminal.getvalue().removesuffix("\n").split("\r")[1:]
    assert len(lines) >= 2 and {len(line) for line in lines} == {29}


def test_seconds():
    assert [run_course.seconds(number) for number in (0.4, 59.6, 200)] == ["0 s", "1 min 00 s", "3 min 20 s"]


# --- what the tests themselves rely on ---


def test_kernels_fail_on_our_own_warnings_only():
    def run(code):
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)

    assert run("import warnings; warnings.warn('ours')").returncode == 1
    assert run("import warnings; warnings.warn_explicit('theirs', UserWarning, 'x.py', 1, 'keras.x')").returncode == 0


def test_a_page_says_what_its_figures_show(tmp_path):
    output = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="},
                                    metadata={"image/png": {"alt": 'A "curve" from 1 to 2.'}})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw()", outputs=[output])])
    page = run_course._page(notebook, tmp_path / "01_x.ipynb")
    pictures = re.findall("<img [^>]*>", page)
    assert len(pictures) == 1 and 'A "curve" from 1 to 2.' in html.unescape(pictures[0])
