"""How the site's pages come about: descriptions of figures, folded solutions, a page a module."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

pytest.importorskip("nbgrader", reason="the site folds solutions with nbgrader: pip install '.[site]'")

import build_site

import cifar_helpers
from cifar_helpers.errors import CourseError


def figure(alt):
    metadata = {"image/png": {"alt": alt}} if alt else {}
    return new_output("display_data", {"image/png": "iVBORw0KGgo="}, metadata=metadata)


def test_a_figure_takes_its_description_to_the_page():
    cells = [new_code_cell("one", outputs=[figure("A curve.")]),
             new_code_cell("two", outputs=[figure("B."), figure("C.")]), new_code_cell("none"),
             new_code_cell("colab", metadata={"tags": ["nbval-skip"]})]
    done = build_site.with_texts(new_notebook(cells=cells), "01_x").cells
    texts = [cell.metadata.get("mystnb", {}).get("image", {}).get("alt") for cell in done]
    assert texts == ["A curve.", "B. C.", None, None]
    assert done[3].metadata["tags"] == ["nbval-skip", "remove-cell"]


@pytest.mark.parametrize(("output", "said"), [
    (figure(""), "01_x, cell 2 shows a figure without a description"),
    (new_output("stream", name="stderr", text="a warning"), "01_x, cell 2 left an error or wrote"),
    (new_output("error", ename="ValueError", evalue="", traceback=[]), "01_x, cell 2 left an error or wrote"),
])
def test_what_must_not_be_shown_is_named(output, said):
    notebook = new_notebook(cells=[new_markdown_cell("#"), new_code_cell("x", outputs=[output])])
    with pytest.raises(CourseError, match=said):
        build_site.with_texts(notebook, "01_x")


def test_badges_are_words_where_no_other_host_is_asked():
    cell = new_markdown_cell("# 1\n\n[![Open in Colab](https://host/badge.svg)](https://host/1.ipynb)")
    [done] = build_site.with_texts(new_notebook(cells=[cell]), "01_x").cells
    assert done.source == "# 1\n\n[Open in Colab](https://host/1.ipynb)"


def graded(grade, solution):
    return {"nbgrader": {"grade": grade, "solution": solution, "locked": not solution, "task": False,
                         "grade_id": f"cell-{grade}-{solution}", "schema_version": 3, "points": 1}}


def test_solutions_are_folded_and_hidden_tests_left_out():
    code = "def f():\n    ### BEGIN SOLUTION\n    return 42\n    ### END SOLUTION"
    answer = "### BEGIN SOLUTION\nBecause.\n### END SOLUTION"
    tests = "checks.check_f(f)\n### BEGIN HIDDEN TESTS\nassert f() == 42\n### END HIDDEN TESTS"
    cells = [new_markdown_cell("The task"), new_code_cell(code, metadata=graded(False, True)),
             new_code_cell(tests, metadata=graded(True, False)),
             new_markdown_cell(answer, metadata=graded(True, True))]
    done = build_site.with_folded_solutions(new_notebook(cells=cells)).cells
    assert [cell.cell_type for cell in done] == ["markdown", "markdown", "code", "code", "markdown"]
    stub, solution, check, text = done[1:]
    assert check.source == "checks.check_f(f)"
    assert "YOUR CODE HERE" in stub.source and "42" not in stub.source
    assert solution.source == "def f():\n    return 42" and solution.metadata["tags"] == ["hide-input"]
    assert "<summary>Model answer</summary>\n\nBecause.\n\n</details>" in text.source
    assert not any("BEGIN" in cell.source or "nbgrader" in cell.metadata for cell in done)


def test_every_module_has_a_page(tmp_path):
    build_site.api_pages(tmp_path / "api")
    index = (tmp_path / "api" / "index.md").read_text(encoding="utf-8")
    folder = build_site.ROOT / "cifar_helpers"
    modules = {path.stem for path in folder.glob("[!_]*.py")} | {"checks"}
    assert {path.stem for path in (tmp_path / "api").glob("*.md")} == modules | {"index"}
    assert all(f"[`{name}`]({name}.md)" in index for name in modules) and cifar_helpers.__doc__


def test_a_notebook_that_ran_is_taken_only_where_its_cells_are_the_scripts(tmp_path, monkeypatch):
    script = tmp_path / "01_x.py"
    script.write_text("# %%\n1 + 1\n", encoding="utf-8")
    ran = []

    def run_lesson(path, build):
        ran.append(path.name)
        cells = [new_code_cell("1 + 1", execution_count=1)]
        nbformat.write(new_notebook(cells=cells), build / path.name)

    monkeypatch.setattr(build_site.run_course, "run_lesson", run_lesson)
    for _ in range(2):
        assert build_site.executed(script, tmp_path / "build").cells[0].execution_count == 1
    assert len(ran) == 1
    script.write_text("# %%\n1 + 2\n", encoding="utf-8")
    build_site.executed(script, tmp_path / "build")
    assert len(ran) == 2


def test_what_the_course_left_is_taken_and_never_written_over(tmp_path, monkeypatch):
    script, course, own = tmp_path / "01_x.py", tmp_path / "course", tmp_path / "own"
    script.write_text("# %%\n1 + 1\n", encoding="utf-8")
    course.mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell("1 + 1", execution_count=7)]), course / "01_x.ipynb")
    before = (course / "01_x.ipynb").read_bytes()

    def run_lesson(path, build):
        nbformat.write(new_notebook(cells=[new_code_cell("1 + 2", execution_count=1)]), build / path.name)

    monkeypatch.setattr(build_site.run_course, "run_lesson", run_lesson)
    assert build_site.executed(script, own, course).cells[0].execution_count == 7 and not own.exists()
    script.write_text("# %%\n1 + 2\n", encoding="utf-8")
    assert build_site.executed(script, own, course).cells[0].execution_count == 1
    assert (course / "01_x.ipynb").read_bytes() == before
