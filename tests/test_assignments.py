"""From exercises to marks, with real nbgrader: on a sample assignment, and, slowly, on those of the course."""

import csv
import json
import os
import re
import sys
import zipfile
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from submissions import FULL, NONE, PART, REFUSED, as_version_3, make_class, official

pytest.importorskip("nbgrader", reason="grading needs the extra `grading`: pip install -e '.[grading]'")

import assignments
import grade
import sandbox
from nbgrader.api import Gradebook
from nbgrader.utils import is_grade, is_solution

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of nbgrader, of no consequence
HERE = Path(__file__).resolve().parent
SAMPLE = HERE / "sample_exercises" / "01_sample.py"
NAME = SAMPLE.stem
AUTO = 12  # points of the sample that need no reader; two more need one


@pytest.fixture(scope="session")
def kind():
    """The sandbox; no hostile code ever runs without one."""
    found = sandbox.kinds()
    if not found and os.environ.get("COURSE_SANDBOX_REQUIRED"):
        pytest.fail("COURSE_SANDBOX_REQUIRED is set, and no sandbox works here")
    return found[0] if found else pytest.skip("no sandbox works here: install bubblewrap")


@pytest.fixture(scope="session")
def derived(tmp_path_factory):
    """nbgrader's course folder with the sample, as `make assignments` leaves it."""
    root = tmp_path_factory.mktemp("course")
    told = assignments.derive([SAMPLE], assignments.load_config(root))
    assert told == [f"{NAME}: 4 graded cells, 14 points"]
    return root


@pytest.fixture
def course(derived, tmp_path):
    """A copy of that folder's configuration, with short limits."""
    import shutil

    config = assignments.load_config(shutil.copytree(derived, tmp_path / "course"))
    config.SandboxExecute.cell_seconds, config.SandboxExecute.memory_mb = 15, 1024
    return config


def notebooks(root: Path):
    read = {step: nbformat.read(root / step / NAME / f"{NAME}.ipynb", as_version=4) for step in ("source", "release")}
    return official(read["source"], read["release"]), read["release"]


def hand_in(folder: Path, student: str, notebook) -> Path:
    path = folder / student / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(notebook if isinstance(notebook, str) else json.dumps(notebook), encoding="utf-8")
    return path


def by_student(rows):
    return {row["student_id"]: row for row in rows}


# --- release ---


def test_release_has_neither_solutions_nor_hidden_tests(derived):
    right, release = notebooks(derived)
    text = (derived / "release" / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8")
    assert "SOLUTION" not in text and "HIDDEN" not in text and "0.75" not in text and "astype" not in text
    assert "YOUR ANSWER HERE" in text and "raise NotImplementedError" in text
    assert [cell.id for cell in release.cells] == [cell.id for cell in right.cells]
    assert all(cell.metadata.deletable is False for cell in release.cells if is_solution(cell) or is_grade(cell))
    # "Run all" would stop at the first answer that is not there, without a word.
    first, *others = [cell for cell in release.cells if cell.cell_type == "code"]
    assert "tags" not in first.metadata and all(cell.metadata.tags == ["raises-exception"] for cell in others)
    with zipfile.ZipFile(derived / "zip" / f"{NAME}.zip") as archive:
        assert archive.read(f"{NAME}/{NAME}.ipynb").decode() == text


@pytest.mark.parametrize("script", sorted(assignments.EXERCISES.glob("0*.py")), ids=lambda path: path.stem)
def test_an_exercise_that_is_not_done_stops_no_other(script):
    cells = [cell for cell in nbformat.reads(assignments.source_text(script), as_version=4).cells
             if cell.cell_type == "code"]
    start = next(number for number, cell in enumerate(cells) if "start_exercises()" in cell.source)
    goes_on = ["raises-exception" in cell.metadata.get("tags", []) for cell in cells]
    assert not any(goes_on[:start + 1]) and all(goes_on[start + 1:])


def test_deriving_anew_changes_nothing(course):
    root = Path(course.CourseDirectory.root)
    files = [*root.glob("*/*/*.ipynb"), *root.glob("zip/*")]
    before = [file.read_bytes() for file in files]
    assignments.derive([SAMPLE], course)
    assert [file.read_bytes() for file in files] == before and len(files) == 3


@pytest.mark.parametrize(("old", "new", "said"), [
    ("    ### END SOLUTION\n\n# %% nbgrader={\"grade\": false, \"grade_id\": \"scaled-check\"",
     "\n# %% nbgrader={\"grade\": false, \"grade_id\": \"scaled-check\"",
     ":20: BEGIN SOLUTION without an END SOLUTION"),
    ("    return np.asarray", "    ### BEGIN SOLUTION\n    return np.asarray", ":21: BEGIN SOLUTION within"),
    ("    ### BEGIN SOLUTION\n    return np.as", "    return np.as", ":21: END SOLUTION without"),
    ("### END HIDDEN TESTS\n\n# %% [markdown]\n# ## Exercise 2", "\n# %% [markdown]\n# ## Exercise 2",
     ":32: BEGIN HIDDEN TESTS without"),
    ("### BEGIN HIDDEN TESTS\nassert np", "### BEGIN HIDDEN TEST\nassert np",
     ":32: '### BEGIN HIDDEN TEST' is no"),
    ('"grade_id": "accuracy",', '"grade_id": "scaled",', ":69: the grade_id 'scaled' is taken already, in "),
    ('"grade_id": "scaled", "locked": false, "schema_version": 3, "solution": true',
     '"grade_id": "scaled", "locked": false, "schema_version": 3, "solution": false',
     ":19: a cell with BEGIN SOLUTION"),
    ("def scaled(images):", "def scaled(images):\n    pass", ":20: students see 'pass'"),
    ('"points": 4,', "", ":30: its nbgrader metadata is not valid"),
    ("def scaled(images):", "def sorted(images):", ":19: an answer may not have the name of a builtin: sorted"),
    ("def scaled(images):", "def scaled(images:", ":"),
])
def test_faults_name_file_and_line(tmp_path, old, new, said):
    text = SAMPLE.read_text(encoding="utf-8")
    assert old in text
    script = tmp_path / "exercises" / SAMPLE.name
    script.parent.mkdir()
    script.write_text(text.replace(old, new, 1), encoding="utf-8")
    found = assignments.faults([script])
    assert any(line.startswith(f"exercises/{SAMPLE.name}{said}") for line in found), found
    with pytest.raises(assignments.AssignmentError):
        assignments.derive([script], assignments.load_config(tmp_path / "course"))
    assert not (tmp_path / "course" / "release").exists()


def test_a_grade_id_is_taken_only_once_in_the_whole_course(tmp_path):
    second = tmp_path / "02_again.py"
    second.write_text(SAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    assert sum("is taken already, in sample_exercises/01_sample.py" in line
               for line in assignments.faults([SAMPLE, second])) == 8


def test_a_stub_that_is_not_in_the_solution_is_found(course):
    release = deepcopy(notebooks(Path(course.CourseDirectory.root))[1])
    assert assignments.stub_faults(SAMPLE, release, course) == []
    cell = next(cell for cell in release.cells if is_solution(cell))
    cell.source = cell.source.replace("def scaled(images)", "def scaled(pictures)")
    assert assignments.stub_faults(SAMPLE, release, course) == [
        "sample_exercises/01_sample.py:19: students would see 'def scaled(pictures):', which is not in the solution."]


def test_the_exercises_of_the_course_have_no_faults():
    assert assignments.faults(assignments.exercise_scripts(assignments.EXERCISES)) == []


def test_students_can_run_a_check_in_every_graded_cell():
    # nbgrader's button "Validate" looks at those only: without a visible test it would call an empty notebook right.
    for script in assignments.exercise_scripts(assignments.EXERCISES):
        for cell, (number, *_) in assignments.located(script):
            if is_grade(cell) and cell.cell_type == "code":
                assert cell.source.startswith("checks.check_"), f"{script.name}:{number}"


def test_every_assignment_says_in_the_same_words_how_to_answer_and_to_hand_in():
    said = {}
    for script in assignments.exercise_scripts(assignments.EXERCISES):
        (opening, _), *cells = assignments.located(script)
        text = any(is_grade(cell) and cell.cell_type == "markdown" for cell, _ in cells)
        said.setdefault(text, set()).add(" ".join(opening.source.split("\n\n")[2].split()))
    assert {text: len(words) for text, words in said.items()} == {True: 1, False: 1}
    assert all(("YOUR ANSWER HERE" in words) == text for text in said for words in said[text])


# --- collect ---


def test_names_say_student_and_assignment(tmp_path):
    for name in ("ann/01_sample.ipynb", "bob_01_sample.ipynb", "cy/01_sample/01_sample.ipynb", "ann_01_sample.ipynb",
                 "dora/01_sample (1).ipynb", "e*/01_sample.ipynb", ".hidden/01_sample.ipynb", "f/.ipynb_checkpoints/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}", encoding="utf-8")
    (tmp_path / "gil").mkdir()
    found, refused = grade.find(tmp_path, [NAME])
    assert {submission.student for submission in found} == {"ann", "bob", "cy"}
    assert {name: why.split(":")[0] for name, why in refused} == {
        "ann_01_sample.ipynb": "ann has handed in 01_sample twice",
        "dora/01_sample (1).ipynb": "its name does not say student and assignment",
        "e*/01_sample.ipynb": "a student's name may hold letters, digits, spaces and . _ @ - only.",
        "f": "there is no notebook in it.", "gil": "there is no notebook in it."}


@pytest.mark.parametrize(("content", "why"), [
    (b"", "it is empty"), (b'{"cells": [', "it is not valid JSON"), (b"\x89PNG\xff", "it is no text in UTF-8"),
    (b"[]", "it is no notebook"), (b'{"cells": [{"source": 3}]}', "its cell 1 has no text"),
    (b"[" * 99_999, "it is not valid"),
    (b'{"cells": [], "nbformat": 7}', "its format is 7"), (b'{"cells": [{"source": "x"}]}', "none of its cells"),
])
def test_what_is_no_notebook_is_refused_with_the_reason(derived, tmp_path, content, why):
    path = tmp_path / f"{NAME}.ipynb"
    path.write_bytes(content)
    with pytest.raises(grade.SubmissionError, match=why):
        grade.collect(grade.Submission("ann", NAME, path), derived)


def test_an_older_format_is_converted(derived, tmp_path):
    right, release = notebooks(derived)
    notebook, mended = grade.put_back(grade.read(hand_in(tmp_path, "ann", as_version_3(right))), release)
    assert mended == [] and [cell.source for cell in notebook.cells] == [cell.source for cell in right.cells]


def test_what_students_may_not_change_comes_from_the_release(derived, tmp_path):
    right, release = notebooks(derived)
    changed = deepcopy(right)
    for cell in changed.cells:
        if is_grade(cell) and cell.cell_type == "code":
            cell.source = "0"
            cell.metadata.nbgrader.update(points=99, solution=True)
    notebook, _ = grade.put_back(grade.read(hand_in(tmp_path, "ann", changed)), release)
    assert notebook.cells == grade.put_back(grade.read(hand_in(tmp_path, "bob", right)), release)[0].cells


def test_html_of_students_cannot_act(derived, tmp_path):
    right, release = notebooks(derived)
    right.cells.append(nbformat.v4.new_markdown_cell("a < b, <script>alert(1)</script>"))
    right.cells.append(nbformat.v4.new_markdown_cell("a < 3"))
    notebook, _ = grade.put_back(grade.read(hand_in(tmp_path, "ann", right)), release)
    assert "<script" not in notebook.cells[-2].source and notebook.cells[-1].source == "a < 3"


# --- sandbox ---


def test_choice_without_a_sandbox_is_never_silent(monkeypatch, capsys):
    monkeypatch.setattr(sandbox, "kinds", list)
    monkeypatch.setattr(grade.sys, "stdin", None)
    with pytest.raises(SystemExit, match="apt install bubblewrap"):
        grade.choose(unsafe=False, wanted=None)
    assert grade.choose(unsafe=True, wanted=None) == "none" and "No sandbox" in capsys.readouterr().err


def test_container_has_no_network_and_writes_to_scratch_only(monkeypatch, tmp_path):
    for name in ("BACKBONE_PATH", "COURSE_CACHE", "COURSE_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CIFAR10_PATH", str(tmp_path))
    command = sandbox._container("docker", sandbox.Limits(memory_mb=100), "one")
    assert command[command.index("--network"):][:2] == ["--network", "none"] and "--read-only" in command
    assert "100m" in command and f"{tmp_path}:/data/{tmp_path.name}:ro" in command
    assert sum(part == "--volume" for part in command) == 2


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """A stand-in for docker, which runs the program of a container without one, and notes how it was called."""
    calls, program = tmp_path / "calls", tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f"""#!/bin/sh
echo "$*" >> {calls}
if [ "$1" = run ]; then exec {sys.executable} {sandbox.INSIDE}; fi
""", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return lambda: [line.split() for line in calls.read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(("code", "seconds", "ending"), [("print(42)", 60, "done"), ("while True: pass", 2, "timeout")])
def test_a_container_is_removed_however_it_ended(engine, code, seconds, ending):
    assert "docker" in sandbox.kinds()
    said, ended = sandbox.run([{"code": code}], "docker", sandbox.Limits(notebook_seconds=seconds))
    assert ended == ending and [word["outputs"][0]["text"] for word in said] == (["42\n"] if ending == "done" else [])
    tried, ran, removed = engine()
    assert tried == ["image", "inspect", sandbox.IMAGE]
    assert ran == sandbox._container("docker", sandbox.Limits(), ran[ran.index("--name") + 1])[1:]
    assert removed == ["rm", "--force", ran[ran.index("--name") + 1]]


def test_cells_run_without_a_sandbox_where_that_is_wished():
    graded = {"imports": "import math", "names": ["f"]}
    said, ended = sandbox.run([{"code": "f = math = lambda: 3"}, {"code": "assert f() == 3 and math.pi > 3",
                                                                  "graded": graded},
                               {"code": "assert f() == 4", "graded": graded}, {"code": "assert True", "graded": graded},
                               {"code": "import os; os._exit(0)"}, {"code": "1"}], "none", sandbox.Limits())
    assert [word["status"] for word in said] == ["ok", "ok", "error", "changed", "dead"] and ended == "done"


def test_sandbox_hides_this_machine(kind, derived):
    code = f"""import os, socket
print(sorted(os.listdir("/scratch")), os.path.exists({str(derived)!r}), os.path.exists({str(SAMPLE)!r}))
for path in ("/x", "/tmp/x", "/dev/x", os.path.dirname(os.__file__) + "/x"):
    try:
        open(path, "w").write("x" * (1 << 21))
        print("written", path)
    except OSError:
        pass
try:
    socket.create_connection(("1.1.1.1", 53), timeout=2)
except OSError:
    print("no network")
print(sum(name.isdecimal() for name in os.listdir("/proc")))"""
    said, ended = sandbox.run([{"code": code}], kind, sandbox.Limits(), [derived])
    text = said[0]["outputs"][0]["text"].splitlines()
    assert ended == "done" and said[0]["status"] == "ok"
    assert text[0].endswith("False False") and text[1] == "no network" and int(text[2]) <= 4


# --- grade ---


def outputs_of_nothing(cells, *_):
    return [{"status": "ok", "outputs": []} for _ in cells], "done"


def test_late_and_manual_marks_are_nbgraders(course, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "run", outputs_of_nothing)
    course.LateSubmissionPlugin.penalty_method = "zero"
    root = Path(course.CourseDirectory.root)
    db = f"sqlite:///{root / 'gradebook.db'}"
    with Gradebook(db, "cifar10") as gradebook:
        gradebook.update_or_create_assignment(NAME, duedate="2027-03-05 18:00:00")
    right, _ = notebooks(root)
    folder = tmp_path / "in"
    for student, moment in (("early", "2027-03-05 17:59:00"), ("late", "2027-03-05 18:01:00")):
        (hand_in(folder, student, right).parent / "timestamp.txt").write_text(f"{moment} UTC\n", encoding="utf-8")
    hand_in(folder, "none", right)
    rows = by_student(grade.grade(folder, course, "none"))
    assert {student: row["score"] for student, row in rows.items()} == {"early": "12", "late": "0", "none": "12"}
    assert {row["to_grade_by_hand"] for row in rows.values()} == {"2"}
    page = root / "feedback" / "early" / NAME / f"{NAME}.html"
    assert "12 of 14 points" in page.read_text(encoding="utf-8")
    assert "not read yet, 2 points" in page.read_text(encoding="utf-8")

    with Gradebook(db, "cifar10") as gradebook:
        found = gradebook.find_grade("why", NAME, NAME, "early")
        found.manual_score, found.needs_manual_grade = 1.5, False
        gradebook.find_comment("why", NAME, NAME, "early").manual_comment = "Which rates?"
        gradebook.db.commit()
    rows = by_student(grade.grade(None, course, "none"))
    assert rows["early"]["score"] == "13.5" and rows["early"]["to_grade_by_hand"] == "0"
    text = page.read_text(encoding="utf-8")
    assert "13.5 of 14 points" in text and "Which rates?" in text and "not read yet" not in text
    assert re.search(r"1.5 of 2</span><a [^>]*>Exercise 3: .*, the text</a>", text) and 'name="viewport"' in text
    assert "-12</span>Handed in late" in (root / "feedback" / "late" / NAME / page.name).read_text(encoding="utf-8")


def test_what_went_wrong_is_a_remark_and_costs_marks(course, tmp_path, monkeypatch):
    def said(cells, *_):
        many = outputs_of_nothing(cells)[0]
        many[3]["status"] = "changed"
        return many[:5], "memory"

    monkeypatch.setattr(sandbox, "run", said)
    right, _ = notebooks(Path(course.CourseDirectory.root))
    hand_in(tmp_path / "in", "ann", right)
    row = by_student(grade.grade(tmp_path / "in", course, "none"))["ann"]
    assert row["score"] == "0"
    assert row["remark"] == ("scaled-points: passes without any answer, as something in this notebook has changed the "
                             "checks; numbers-points: took more than 1024 MB of memory")


def test_a_file_that_got_a_better_name_is_no_longer_refused(course, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "run", outputs_of_nothing)
    right, _ = notebooks(Path(course.CourseDirectory.root))
    path, folder = hand_in(tmp_path / "in", "ann", right), tmp_path / "in"
    named = path.rename(folder / f"ann {NAME}.ipynb")
    path.parent.rmdir()
    refused = "not graded: its name does not say student and assignment"
    for given in (folder, None):  # it is still so where only feedback is made anew
        rows = by_student(grade.grade(given, course, "none"))
        assert list(rows) == [named.name] and rows[named.name]["remark"].startswith(refused)
    named.rename(folder / f"ann_{NAME}.ipynb")
    assert [(row["student_id"], row["score"]) for row in grade.grade(folder, course, "none")] == [("ann", "12")]


def test_a_warning_or_a_shown_value_is_no_mark():
    cell = nbformat.v4.new_code_cell("x", metadata={"nbgrader": {"grade": True, "points": 4, "grade_id": "x"}})
    outputs = [{"output_type": "stream", "name": "stderr", "text": "a warning"},
               {"output_type": "display_data", "data": {"text/plain": "99", "application/javascript": "alert(1)"}}]
    remarks = grade.write_outputs([cell], [{"status": "ok", "outputs": outputs}], "done", sandbox.Limits())
    assert remarks == [] and grade.is_grade(cell)
    assert [output.output_type for output in cell.outputs] == ["stream", "display_data"]
    assert cell.outputs[0].name == "stdout" and list(cell.outputs[1].data) == ["text/plain"]


def test_right_untouched_and_cheating(course, kind, tmp_path):
    folder, root = tmp_path / "in", Path(course.CourseDirectory.root)
    expected = make_class(root, NAME, folder)
    wanted = {"right", "untouched", "cheat-no-errors", "cheat-replaces-checks", "crashes"}
    for student in set(expected) - wanted:
        for path in [*folder.glob(f"{student}/*"), *folder.glob(f"{student}_*")]:
            path.unlink()
        if (folder / student).is_dir():
            (folder / student).rmdir()
    rows = by_student(grade.grade(folder, course, kind))
    assert {student: marks(row) for student, row in rows.items()} == {student: expected[student] for student in wanted}
    assert "has changed the checks" in rows["cheat-no-errors"]["remark"]


def marks(row) -> str:
    if row["remark"].startswith("not graded"):
        return REFUSED
    score = float(row["score"])
    return {0: NONE, AUTO: FULL}.get(score, PART)


@pytest.mark.slow
def test_a_class_of_30(course, kind, tmp_path):
    folder, root = tmp_path / "in", Path(course.CourseDirectory.root)
    expected = make_class(root, NAME, folder)
    assert len(expected) == 30
    before = {path: path.read_bytes() for path in [*folder.rglob("*.ipynb"), *root.glob("release/*/*")]}
    rows = by_student(grade.grade(folder, course, kind))
    assert {student: marks(row) for student, row in rows.items()} == expected
    assert all(path.read_bytes() == content for path, content in before.items())
    pages = {path.parent.parent.name for path in root.glob("feedback/*/*/*.html")}
    assert pages == {student for student, result in expected.items() if result != REFUSED}
    assert "SEEN" not in "".join(line for path in root.glob("autograded/spies/*/*.ipynb")
                                 for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"
                                 for output in cell.outputs for line in output.get("text", ""))
    with (root / "marks.csv").open(encoding="utf-8", newline="") as lines:
        assert [row["student_id"] for row in csv.DictReader(lines)] == [row["student_id"] for row in rows.values()]


@pytest.mark.slow
def test_every_assignment_gives_the_solution_all_and_the_release_no_points(kind, tmp_path):
    config = assignments.load_config(tmp_path / "course")
    scripts = assignments.exercise_scripts(assignments.EXERCISES)
    assignments.derive(scripts, config)
    root, folder = tmp_path / "course", tmp_path / "in"
    wanted = {}
    for script in scripts:
        source, release = (nbformat.read(root / step / script.stem / f"{script.stem}.ipynb", as_version=4)
                           for step in ("source", "release"))
        for student, notebook in (("solution", official(source, release)), ("untouched", release)):
            path = folder / student / f"{script.stem}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(notebook), encoding="utf-8")
        automatic = sum(cell.metadata.nbgrader.points for cell in release.cells
                        if is_grade(cell) and not is_solution(cell))
        wanted |= {(script.stem, "solution"): (automatic, ""), (script.stem, "untouched"): (0, "")}
    rows = grade.grade(folder, config, kind)
    assert {(row["assignment"], row["student_id"]): (float(row["score"] or -1), row["remark"])
            for row in rows} == wanted
