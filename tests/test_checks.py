"""The checks that students call: every right solution passes, every wrong one is told what is wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import checks_table
import jupytext
import numpy as np
import pytest

from cifar_helpers import checks
from cifar_helpers.checks.common import array, expect, outcome

ROOT = Path(__file__).resolve().parent.parent
LESSONS = range(1, 8)
RIGHT, WRONG = 3, 8  # solutions an exercise, at least


@pytest.mark.parametrize("lesson", LESSONS)
def test_right_solutions_pass_and_wrong_ones_are_told_why(lesson, monkeypatch):
    monkeypatch.setattr(checks_table, "SECONDS", 30)  # the table measures speed; a busy machine must not fail a test
    faults = [trial.fault for trial in checks_table.trials(lesson) if trial.fault]
    assert not faults, "\n".join(faults)


def test_a_seed_that_is_set_changes_no_check():
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(1)
    faults = [trial.fault for trial in checks_table.trials(3) if trial.fault and " took " not in trial.fault]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_check_is_tried_on_enough_different_solutions(lesson):
    found = checks_table.solutions(lesson)
    assert found
    for check, cases in found.items():
        wrong = [solution for solution, _ in cases["wrong"]]
        assert len(cases["right"]) >= RIGHT and len(wrong) >= WRONG, check
        every = [*cases["right"], *wrong]
        assert len({id(solution) for solution in every}) == len(every), f"a solution of {check} stands there twice"
        assert all(len(fragment) >= 4 for _, fragment in cases["wrong"]), f"a fragment of {check} names no fault"


def test_every_check_has_solutions_and_one_exercise():
    defined = set(checks.__all__) - {"NotYet"}
    tried = [check for lesson in LESSONS for check in checks_table.solutions(lesson)]
    assert sorted(f"check_{check}" for check in tried) == sorted(defined)
    scripts = {path.stem: set(re.findall(r"\bchecks\.(check_\w+)\(", path.read_text(encoding="utf-8")))
               for path in sorted((ROOT / "exercises").glob("*.py"))}
    assert sorted(scripts) == sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.py"))
    used = [check for called in scripts.values() for check in called]
    assert sorted(used) == sorted(defined)


def test_instructors_page_lists_every_exercise_with_its_points():
    expected = []
    for path in sorted((ROOT / "exercises").glob("*.py")):
        for part in re.split(r"^# ## Exercise ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            number, title = re.match(r"(\d+): (.+) \(", part).groups()
            points = sum(map(float, re.findall(r'^# %%.*"points": ([\d.]+)', part, re.MULTILINE)))
            expected.append((f"{int(path.stem[:2])}.{number} {title}", points))
    page = (ROOT / "INSTRUCTORS.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d\.\d .+?) \| ([\d.]+) \|", page, re.MULTILINE)
    assert [(title, float(points)) for title, points in listed] == expected
    for lesson in LESSONS:
        assert sum(points for title, points in expected if title.startswith(f"{lesson}.")) == 20


def test_each_check_stands_in_the_module_of_its_lesson():
    for lesson in LESSONS:
        for check in checks_table.solutions(lesson):
            assert getattr(checks, f"check_{check}").__module__ == f"cifar_helpers.checks.lesson_{lesson}"


def test_importing_the_checks_does_not_import_tensorflow():
    program = "import sys; from cifar_helpers import checks; dir(checks); print('tensorflow' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT).strip() == "False"


def test_a_check_that_does_not_exist_or_exists_twice_is_named(monkeypatch):
    with pytest.raises(AttributeError, match=r"no check_replica_los in .*check_replica_loss"):
        _ = checks.check_replica_los
    assert "check_replica_loss" in dir(checks)
    monkeypatch.setitem(checks._MODULES, "check_replica_loss", ["lesson_4", "lesson_7"])
    with pytest.raises(AttributeError, match="defined in lesson_4 and in lesson_7"):
        _ = checks.check_replica_loss


# --- common.py ---


def test_students_see_one_sentence_instead_of_a_traceback():
    with pytest.raises(checks.NotYet, match="two left hands") as caught:
        expect(False, "two left hands")
    assert caught.value._render_traceback_() == ["Not yet: two left hands"]


@pytest.mark.parametrize(("function", "fragment"), [
    (3, "must be a function"),
    (lambda x: 1 / x, "f stopped with ZeroDivisionError: division by zero"),
    (lambda x: None, "f returned nothing"),
    (lambda: 1, "f stopped with TypeError"),
])
def test_outcome_says_why_there_is_none(function, fragment):
    with pytest.raises(checks.NotYet, match=fragment):
        outcome(function, 0, name="f")


@pytest.mark.parametrize(("value", "asked", "fragment"), [
    (np.zeros((2, 3)), {"shape": (2, 4)}, r"has the shape \(2, 3\), and must have \(2, 4\)"),
    (np.zeros(2), {"shape": (2, None)}, r"must have \(2, any\)"),
    ([1, 2], {"kind": "f"}, "int64, and must hold fractions"),
    ([[1], [2, 3]], {}, "must be an array"),
])
def test_array_says_what_it_is_instead(value, asked, fragment):
    with pytest.raises(checks.NotYet, match=fragment):
        array(value, "it", **asked)


def test_array_takes_lists_and_any_length():
    assert array([[1, 2]], "it", shape=(None, 2), kind="iu").tolist() == [[1, 2]]


# --- checks_table.py ---


@pytest.fixture
def made_up(monkeypatch):
    """A function that puts a check in place and returns what the table's `attempt` finds with it."""

    def make(check, kind, solution, fragment="", **options):
        monkeypatch.setattr(checks, "check_made_up", check, raising=False)
        return checks_table.attempt("made_up", kind, solution, fragment, **options)

    return make


def refuse(solution):
    expect(solution == 1, f"{solution} is not one.")


def test_table_counts_what_a_check_gets_wrong(made_up, monkeypatch):
    assert made_up(refuse, "right", 1).fault is None
    assert made_up(refuse, "wrong", 2, "not one").fault is None
    assert made_up(refuse, "right", lambda: 1, make=True).fault is None
    bad = [made_up(refuse, "right", 2), made_up(refuse, "wrong", 1), made_up(refuse, "wrong", 2, "not two")]
    assert [trial.fault for trial in bad] == [
        "check_made_up on the right solution 2 found a fault: 2 is not one.",
        "check_made_up on the wrong solution 1 found no fault.",
        "check_made_up on the wrong solution 2 says '2 is not one.', without 'not two'.",
    ]
    shown = checks_table.table({9: bad}, messages=True)
    assert "0/1      0/2" in shown and "2: 2 is not one." in shown and "0 of 2 wrong" in shown
    monkeypatch.setattr(checks_table, "SECONDS", 0.01)
    slow = made_up(lambda solution: sum(range(3_000_000)), "right", 1)
    assert "took" in slow.fault


def test_an_error_in_a_check_is_no_message_to_students(made_up):
    with pytest.raises(ZeroDivisionError):
        made_up(lambda solution: 1 / 0, "wrong", 1)


def test_table_is_one_command(capsys, monkeypatch):
    assert checks_table.main(["7"]) == 0
    shown = capsys.readouterr()
    assert "check_replica_loss" in shown.out and not shown.err
    monkeypatch.setattr(checks_table, "trials", lambda number: [
        checks_table.Trial("made_up", "wrong", "silence", "x", None, 0.0)])
    assert checks_table.main(["7"]) == 1
    assert "found no fault" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        checks_table.main(["99"])


# --- how an assignment opens ---


@pytest.mark.parametrize("script", sorted((ROOT / "exercises").glob("0*.py")), ids=lambda path: path.stem)
def test_every_assignment_is_opened_before_keras_is_imported(script):
    finder, first, *_ = [cell for cell in jupytext.read(script, fmt="py:percent").cells if cell.cell_type == "code"]
    assert "nbval-skip" in finder.metadata["tags"] and "keras" not in finder.source
    assert first.source == "from cifar_helpers import checks, start_exercises\n\nstart_exercises()"


def test_opening_an_assignment_is_silent():
    program = ("from cifar_helpers import start_exercises; start_exercises(); import tensorflow as tf, keras; "
               "keras.layers.Dense(3)(tf.ones((2, 2)))")
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
