"""What every lesson promises in its form: how it opens and ends, how long its cells are, what it leaves alone."""

import ast
import re
from pathlib import Path

import jupytext
import pytest

from cifar_helpers import budgets

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
SCRIPTS = {script.stem: script for script in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))}
every_lesson = pytest.mark.parametrize("name", SCRIPTS)
LONGEST, USUAL, SHARE = 26, 14, 0.9  # lines of a cell, without blank ones and comments


def cells(name):
    """A lesson's cells; magics in comments are magics again, as they are in the notebook."""
    return jupytext.read(SCRIPTS[name], fmt="py:percent").cells


def code(name, skipped=False):
    """The sources of the code cells, with or without those that tests do not run and that may hold magics."""
    return [cell.source for cell in cells(name)
            if cell.cell_type == "code" and (skipped or "nbval-skip" not in cell.metadata.get("tags", []))]


def calls(source):
    """Every call in a cell, as (the function's last name, the call)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", "")), node


def lines_of_code(source):
    return sum(1 for line in source.splitlines() if line.strip() and not line.strip().startswith("#"))


def test_there_are_seven_lessons_in_order():
    assert [name[:2] for name in SCRIPTS] == ["01", "02", "03", "04", "05", "06", "07"]


# --- how it opens and ends ---


@every_lesson
def test_it_opens_with_its_number_its_questions_and_what_you_will_do(name):
    assert cells(name)[0].cell_type == "markdown"
    opening = cells(name)[0].source
    assert re.match(rf"# {int(name[:2])} · \S", opening)
    assert "**Questions**" in opening and "**You will**" in opening


@every_lesson
@pytest.mark.parametrize("budget", budgets.NAMES)
def test_it_opens_with_a_table_that_has_a_row_for_every_budget(name, budget):
    rows = [line for line in cells(name)[0].source.splitlines() if re.match(rf"\|[\s`*]*{budget}\b", line)]
    assert len(rows) == 1


@every_lesson
def test_it_ends_with_key_points_and_at_least_three_numbered_exercises(name):
    assert cells(name)[-1].cell_type == "markdown"
    _, _, ending = cells(name)[-1].source.partition("## Key points\n")
    points, _, exercises = ending.partition("## Exercises\n")
    assert re.search(r"^[-*] \S", points, re.MULTILINE)
    numbers = [int(number) for number in re.findall(r"^(\d+)\. \S", exercises, re.MULTILINE)]
    assert len(numbers) >= 3 and numbers == list(range(1, len(numbers) + 1))
    assert not re.search("^#", exercises, re.MULTILINE)


# --- budgets ---


def lesson_key(name):
    [key] = [call.args[0].value for source in code(name) for function, call in calls(source)
             if function == "start_lesson"]
    return key


@every_lesson
def test_it_starts_with_a_budget_that_there_is(name):
    assert lesson_key(name) in budgets.LESSONS


def test_every_lesson_has_a_budget_of_its_own():
    assert sorted(map(lesson_key, SCRIPTS)) == sorted(budgets.LESSONS)


@every_lesson
@pytest.mark.parametrize("budget", budgets.NAMES)
def test_every_number_it_takes_from_its_budget_is_there(name, budget):
    used = {node.attr for source in code(name) for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "budget"}
    assert used - {"name", "lesson", "seed"} <= set(budgets.LESSONS[lesson_key(name)][budget])


@every_lesson
def test_every_number_of_its_budget_is_used(name):
    source = "\n".join(code(name))
    for key in budgets.LESSONS[lesson_key(name)]["laptop"]:
        assert f"budget.{key}" in source


# --- cells ---


@every_lesson
def test_code_is_python_without_magics_and_shell_escapes(name):
    for source in code(name):
        assert not re.search(r"^\s*[%!]", source, re.MULTILINE)
        compile(source, name, "exec")


@every_lesson
def test_cells_are_short(name):
    lengths = [lines_of_code(source) for source in code(name)]
    assert max(lengths) <= LONGEST
    assert sum(length <= USUAL for length in lengths) >= SHARE * len(lengths), sorted(lengths)[-5:]


@every_lesson
def test_it_checks_itself(name):
    assert any(isinstance(node, ast.Assert) for source in code(name) for node in ast.walk(ast.parse(source)))


@every_lesson
@pytest.mark.parametrize("outdated", ["ImageDataGenerator", r"\.h5\b", r"\bLambda\b", "pickle"])
def test_it_uses_nothing_outdated_or_unsafe(name, outdated):
    assert not re.search(outdated, "\n".join(code(name, skipped=True)))


# --- what a reader must know, and what stays closed ---


def is_marked(node):
    return isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "marked"


def draws_for_the_lesson(call):
    """Whether a call is one of `plots`, which mark their titles themselves."""
    return getattr(getattr(call.func, "value", None), "id", "") == "plots"


@every_lesson
def test_every_title_says_what_a_reader_must_know(name):
    for source in code(name):
        found = list(calls(source))
        titles = [call.args[0] for function, call in found if function in ("suptitle", "title")]
        titles += [keyword.value for _, call in found if not draws_for_the_lesson(call)
                   for keyword in call.keywords if keyword.arg == "title"]
        assert all(map(is_marked, titles)), source
        for function, call in found:  # a picture's own caption needs no mark under a figure's title that has it
            assert function != "set_title" or is_marked(call.args[0]) or titles, source


@every_lesson
def test_every_figure_it_draws_itself_has_a_marked_title(name):
    for source in code(name):
        if any(function in ("subplots", "figure") and not draws_for_the_lesson(call)
               for function, call in calls(source)):
            assert any(is_marked(call) for _, call in calls(source)), source


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name[:2] not in ("01", "06")])
def test_test_images_stay_closed_but_in_the_comparison(name):
    assert not re.search(r"\.test\b", "\n".join(code(name, skipped=True)))


def test_the_first_lesson_shows_only_shapes_and_class_counts_of_the_test_images():
    assert ".test.images" not in "\n".join(code(next(iter(SCRIPTS)), skipped=True))
