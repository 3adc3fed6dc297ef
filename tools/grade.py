"""Grade a folder of students' notebooks with nbgrader: marks in one CSV, a page of feedback for each notebook.

    python tools/grade.py submissions/    collect, autograde in a sandbox, write feedback and marks
    python tools/grade.py                 feedback and marks anew, after free text was graded by hand in the formgrader

The folder holds `<student>/<assignment>.ipynb`, `<student>_<assignment>.ipynb`, or nbgrader's own
`<student>/<assignment>/<assignment>.ipynb`; a `timestamp.txt` beside a student's notebook says when it was handed in,
without one it is on time. Each is put back into the form of the assignment first: what students wrote is theirs, every
other cell comes from the release. `make assignments` must have been there before.
"""

import argparse
import ast
import contextlib
import csv
import json
import os
import re
import shutil
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import nbformat
import nbgrader
import sandbox
from assignments import CONFIG, EXERCISES, defined_names, load_config
from nbconvert.preprocessors.sanitize import SanitizeHTML
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde, GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import Execute, GetGrades, NbGraderPreprocessor
from nbgrader.utils import capture_log, is_grade, is_locked, is_solution
from sqlalchemy.exc import SAWarning
from traitlets import Float, Integer, List, Unicode
from traitlets.config import Config

LARGEST = 32 << 20  # bytes of a notebook
MOST_CELLS = 1000
TEMPLATES = [str(Path(__file__).resolve().parent / "templates"),
             str(Path(nbgrader.__file__).parent / "server_extensions" / "formgrader" / "templates")]
STUDENT = re.compile(r"\w[\w.@ -]*")
SHOWN = ("text/plain", "text/html", "text/markdown", "text/latex", "image/png", "image/jpeg")
COLUMNS = ["assignment", "student_id", "timestamp", "raw_score", "late_submission_penalty", "score", "max_score",
           "to_grade_by_hand", "remark"]
TURN = threading.Lock()  # nbgrader and its database see one submission at a time: only sandboxes run side by side


class SubmissionError(Exception):
    """A notebook that cannot be graded; the message says why."""


@dataclass(frozen=True)
class Submission:
    """A student's notebook for an assignment, where it was found."""

    student: str
    assignment: str
    path: Path


# --- collect ---


def find(folder: Path, assignments: list[str]) -> tuple[list[Submission], list[tuple[str, str]]]:
    """The submissions of a folder, and what else is there: pairs of a name and the reason why it is not graded."""
    found, refused = {}, []
    for path in sorted(folder.rglob("*.ipynb")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts):
            continue
        name = "/".join(parts)
        submission = _named(path, parts, assignments)
        if submission is None:
            refused.append((name, "its name does not say student and assignment: the assignments are "
                                  f"{', '.join(assignments)}."))
        elif not STUDENT.fullmatch(submission.student):
            refused.append((name, "a student's name may hold letters, digits, spaces and . _ @ - only."))
        elif path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            refused.append((name, "it is a link, and links are not followed."))
        elif (submission.student, submission.assignment) in found:
            refused.append((name, f"{submission.student} has handed in {submission.assignment} twice: see the other."))
        else:
            found[submission.student, submission.assignment] = submission
    refused += [(entry.name, "there is no notebook in it.") for entry in sorted(folder.iterdir())
                if entry.is_dir() and not entry.name.startswith(".") and not any(entry.rglob("*.ipynb"))]
    return list(found.values()), refused


def _named(path: Path, parts: tuple, assignments: list[str]) -> Submission | None:
    if len(parts) == 1:
        owner = next(((path.stem.removesuffix(f"_{name}"), name) for name in assignments
                      if path.stem.endswith(f"_{name}")), None)
        return Submission(*owner, path) if owner else None
    if path.stem in assignments and (len(parts) == 2 or (len(parts) == 3 and parts[1] == path.stem)):
        return Submission(parts[0], path.stem, path)
    return None


def read(path: Path) -> list[dict]:
    """The cells of a notebook, whatever program has saved it: `cell_type`, `source`, `metadata`, `id`, `attachments`.

    Raises SubmissionError where it is no notebook.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise SubmissionError(f"it is larger than {LARGEST >> 20} MB: clear its outputs, and hand it in again.")
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
        if isinstance(content, dict) and content.get("nbformat") in (1, 2, 3):
            content = nbformat.convert(nbformat.from_dict(content), 4)
    except SubmissionError:
        raise
    except UnicodeDecodeError:
        raise SubmissionError("it is not valid: it is no text in UTF-8.") from None
    except (ValueError, RecursionError) as error:
        empty = not path.stat().st_size
        raise SubmissionError("it is empty." if empty else f"it is not valid JSON: {str(error)[:100]}.") from None
    except Exception as error:  # nbformat's, of many kinds, and the file system's
        raise SubmissionError(f"it cannot be read: {type(error).__name__}: {str(error)[:100]}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise SubmissionError("it is no notebook: it has no cells.")
    if content.get("nbformat", 4) != 4:
        raise SubmissionError(f"its format is {content['nbformat']!r}, and must be 4.")
    if len(content["cells"]) > MOST_CELLS:
        raise SubmissionError(f"it has more than {MOST_CELLS} cells.")
    return [_plain(number, cell) for number, cell in enumerate(content["cells"], start=1)]


def _plain(number: int, cell) -> dict:
    source = cell.get("source") if isinstance(cell, dict) else None
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise SubmissionError(f"it is not valid: its cell {number} has no text.")
    source = source.encode("utf-8", "replace").decode()  # half of a pair of surrogates cannot be written
    kind = cell.get("cell_type")
    told = cell.get("metadata") if isinstance(cell.get("metadata"), dict) else {}
    grader = told.get("nbgrader") if isinstance(told.get("nbgrader"), dict) else {}
    return {"cell_type": kind if kind in ("code", "markdown") else "raw", "source": source, "id": cell.get("id"),
            "grade_id": grader.get("grade_id"), "attachments": cell.get("attachments")}


def put_back(cells: list[dict], release: nbformat.NotebookNode) -> tuple[nbformat.NotebookNode, list[str]]:
    """A student's cells in the form of the released assignment, and what had to be mended.

    A cell of the release is known by its grade_id, its id or its text; what students may not change comes from the
    release, in its order. Cells of students' own stay behind the cell that they followed.
    """
    mended = []
    index = _recognize(cells, release)
    chosen, dropped = {}, set()
    for position, number in index.items():
        first = chosen.setdefault(number, position)
        if first != position:  # a copy
            answered = is_solution(release.cells[number]) and not _same(cells[position], release.cells[number])
            if answered:
                chosen[number] = position
            superseded = first if answered else position
            if not is_solution(release.cells[number]) or _same(cells[superseded], release.cells[number]):
                dropped.add(superseded)
            mended.append(f"more than one {_called(release, number)}")
    known = {position: number for number, position in chosen.items()}

    groups, numbers = [[-1, []]], []
    for position, cell in enumerate(cells):
        if position in dropped:
            continue
        if position in known:
            groups.append([known[position], []])
            numbers.append(known[position])
        groups[-1][1].append((known.get(position), cell))
    if numbers != sorted(numbers):
        groups.sort(key=lambda group: group[0])
        mended.append("cells in another order")
    for number, cell in enumerate(release.cells):
        if number in chosen or not (_graded(cell) or cell.cell_type == "code"):
            continue
        mended.append(f"no {_called(release, number)}")
        before = max((at for at, group in enumerate(groups) if group[0] < number), default=0)
        # A student may have answered in a new cell there: a stub after it would undo that, and a test before it fail.
        place = before + 1
        own = []
        if is_solution(cell):
            kept = 0 if groups[before][0] < 0 else 1
            own, groups[before][1] = groups[before][1][kept:], groups[before][1][:kept]
        groups.insert(place, [number, [(number, None), *own]])

    notebook = nbformat.v4.new_notebook(metadata=deepcopy(release.metadata))
    for _, members in groups:
        for number, cell in members:
            notebook.cells.append(_cell(cell, None if number is None else release.cells[number], len(notebook.cells)))
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    return notebook, mended


def _recognize(cells: list[dict], release: nbformat.NotebookNode) -> dict[int, int]:
    """For each position in `cells` that holds a cell of the release, which one that is."""
    found: dict[int, int] = {}
    grade_ids = {cell.metadata.nbgrader.grade_id: number for number, cell in enumerate(release.cells) if _graded(cell)}
    ids = {cell.id: number for number, cell in enumerate(release.cells)}
    for position, cell in enumerate(cells):
        for key, numbers in ((cell["grade_id"], grade_ids), (cell["id"], ids)):
            if position not in found and isinstance(key, str) and key in numbers:
                found[position] = numbers[key]
    for same in (_same, _has_stub):
        for number, wanted in enumerate(release.cells):
            if number not in found.values():
                position = next((position for position, cell in enumerate(cells)
                                 if position not in found and same(cell, wanted)), None)
                if position is not None:
                    found[position] = number
    for number, wanted in enumerate(release.cells):
        if number not in found.values() and is_solution(wanted):
            position = _only_one_between(number, wanted.cell_type, cells, found)
            if position is not None:
                found[position] = number
    return dict(sorted(found.items()))


def _only_one_between(number: int, kind: str, cells: list[dict], found: dict[int, int]) -> int | None:
    """Where an answer without any id must be: the one unknown cell of its kind between two neighbours that are known.
    """
    start = next((at for at, known in found.items() if known == number - 1), None)
    end = next((at for at, known in found.items() if known == number + 1), len(cells) if start is not None else None)
    if start is None or end is None:
        return None
    between = [at for at in range(start + 1, end) if at not in found and cells[at]["cell_type"] == kind]
    return between[0] if len(between) == 1 else None


def _graded(cell) -> bool:
    return bool(cell.metadata.get("nbgrader"))


def _same(cell: dict, released) -> bool:
    return cell["source"].strip() == released.source.strip()


def _has_stub(cell: dict, released) -> bool:
    """Whether a cell without any id holds the lines around a stub: the head of a function, most of all."""
    if not is_solution(released) or released.cell_type != "code" or cell["cell_type"] != "code":
        return False
    heads = [line for line in released.source.split("\n") if re.match(r"\s*(def|class)\s", line)]
    return bool(heads) and all(line in cell["source"].split("\n") for line in heads)


def _called(release, number: int) -> str:
    cell = release.cells[number]
    return cell.metadata.nbgrader.grade_id if _graded(cell) else f"cell {number + 1} of the release"


def _cell(cell: dict | None, released, number: int):
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell,
            "raw": nbformat.v4.new_raw_cell}
    if released is None:
        source = harmless(cell["source"]) if cell["cell_type"] == "markdown" else cell["source"]
        return make[cell["cell_type"]](source, id=f"own-{number}")
    source = released.source
    if cell is not None and not is_locked(released) and not _same(cell, released):
        source = cell["source"]
    if released.cell_type == "markdown" and source != released.source:
        source = harmless(source)
    made = make[released.cell_type](source, id=released.id, metadata=deepcopy(released.metadata))
    if cell is not None and made.cell_type == "markdown" and (pictures := _attachments(cell["attachments"])):
        made.attachments = pictures
    return made


def harmless(text: str) -> str:
    """Text with its HTML, if there is some, cleaned of what could act in a reader's browser."""
    return SanitizeHTML().sanitize_html_tags(text) if re.search(r"<[/!?A-Za-z]", text) else text


def _attachments(found) -> dict:
    """Pictures that were pasted into an answer, where they are in nbformat's form."""
    if not isinstance(found, dict):
        return {}
    return {name: data for name, data in found.items() if isinstance(name, str) and isinstance(data, dict)
            and all(kind in SHOWN and isinstance(content, str) for kind, content in data.items())}


def collect(submission: Submission, root: Path) -> list[str]:
    """Write a submission into nbgrader's `submitted` folder; returns what had to be mended.

    Raises SubmissionError where it cannot be read.
    """
    release = nbformat.read(root / "release" / submission.assignment / f"{submission.assignment}.ipynb", as_version=4)
    cells = read(submission.path)
    try:
        notebook, mended = put_back(cells, release)
    except nbformat.ValidationError as error:
        raise SubmissionError(f"it is not valid: {error.message[:100]}.") from None
    if not any(cell["grade_id"] or cell["id"] in {made.id for made in release.cells} for cell in cells) and \
            len(mended) >= sum(map(_graded, release.cells)):
        raise SubmissionError(f"none of its cells is one of {submission.assignment}.")
    target = root / "submitted" / submission.student / submission.assignment / f"{submission.assignment}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    stamp = submission.path.parent / "timestamp.txt"
    if stamp.is_file() and submission.path.parent.name in (submission.student, submission.assignment):
        moment = stamp.read_text(encoding="utf-8", errors="replace")[:100].strip()
        if stamp.resolve() != (target.parent / "timestamp.txt").resolve():
            (target.parent / "timestamp.txt").write_text(moment + "\n", encoding="utf-8")
    else:
        (target.parent / "timestamp.txt").unlink(missing_ok=True)
    if target.exists() and target.samefile(submission.path):
        kept = root / "received" / submission.student / target.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, kept)  # a collected notebook is the only copy there is
    target.unlink(missing_ok=True)
    nbformat.write(notebook, target)
    return mended


# --- autograde ---


class SandboxExecute(NbGraderPreprocessor):
    """nbgrader's Execute, with the kernel in a sandbox, and marks that need the tests of the source to have passed."""

    cell_seconds = Float(60, help="after which a cell is interrupted").tag(config=True)
    notebook_seconds = Float(240, help="after which a notebook is ended").tag(config=True)
    memory_mb = Integer(4096, help="that a notebook may hold").tag(config=True)
    output_kb = Integer(4096, help="that a cell may print").tag(config=True)
    scratch_mb = Integer(256, help="that a notebook may write").tag(config=True)
    processes = Integer(64, help="that a notebook may start").tag(config=True)
    kind = Unicode(help="one of sandbox.kinds(), or none").tag(config=True)
    hidden = List(Unicode(), help="folders that no submission may see").tag(config=True)
    course = Unicode(help="nbgrader's course folder").tag(config=True)
    remarks: ClassVar[list[str]]  # what `autograde` wants to know

    def preprocess(self, notebook, resources):
        """Run the notebook's code cells, and write what they gave into it."""
        name = resources["nbgrader"]["assignment"]
        source = nbformat.read(Path(self.course) / "source" / name / f"{name}.ipynb", as_version=4)
        tests = tests_of(source)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        asked = [{"code": cell.source,
                  "graded": tests.get(cell.metadata.nbgrader.grade_id) if is_grade(cell) else None} for cell in cells]
        limits = sandbox.Limits(**{field.name: getattr(self, field.name) for field in fields(sandbox.Limits)})
        TURN.release()
        try:
            said, ended = sandbox.run(asked, self.kind, limits, [Path(folder) for folder in self.hidden],
                                      checks_of(source))
        finally:
            TURN.acquire()
            os.environ["NBGRADER_EXECUTION"] = "autograde"  # nbgrader deletes it, which another thread may have done
        self.remarks += write_outputs(cells, said, ended, limits)
        return notebook, resources


def tests_of(source) -> dict[str, dict]:
    """For each graded code cell of the source: the imports that it relies on, and the names that it tests."""
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    imports = "\n".join(ast.unparse(statement) for cell in code if not is_solution(cell)
                        for statement in ast.parse(cell.source).body
                        if isinstance(statement, (ast.Import, ast.ImportFrom)))
    found, names, ever = {}, [], []
    for cell in code:
        if is_solution(cell):
            names += defined_names(cell.source)
            ever += defined_names(cell.source)
        elif is_grade(cell):
            found[cell.metadata.nbgrader.grade_id] = {"imports": imports, "names": names or list(ever)}
            names = []
    return found


def checks_of(source) -> list[str]:
    """The names of the course's checks that the source calls."""
    text = "\n".join(cell.source for cell in source.cells if cell.cell_type == "code")
    return sorted(set(re.findall(r"\bchecks\.(check_\w+)", text)))


def write_outputs(cells: list, said: list[dict], ended: str, limits: sandbox.Limits) -> list[str]:
    """Put into the cells what the sandbox said of them; returns remarks on what went wrong for another reason than an
    answer that is not right.
    """
    reasons = {"timeout": f"took longer than {limits.cell_seconds:g} seconds, and was stopped",
               "flood": f"printed more than {limits.output_kb} kB, and was stopped",
               "dead": "ended the kernel",
               "changed": "passes without any answer, as something in this notebook has changed the checks"}
    endings = {sandbox.TIMEOUT: f"was running when the notebook had taken {limits.notebook_seconds:g} seconds",
               sandbox.MEMORY: f"took more than {limits.memory_mb} MB of memory",
               sandbox.FLOOD: "printed more than a notebook may",
               sandbox.PROCESSES: f"started more than {limits.processes} processes",
               sandbox.DEAD: "ended the kernel", sandbox.DONE: "did not run: the kernel had ended"}
    remarks: dict[str, list[str]] = {}
    for number, cell in enumerate(cells):
        cell.outputs, cell.execution_count = [], number + 1
        if number < len(said):
            status = str(said[number].get("status"))
            cell.outputs = [made for output in said[number].get("outputs", []) if (made := _output(output))]
            why = reasons.get(status)
            if status == "error" and not any(output.output_type == "error" for output in cell.outputs):
                why = "failed without a word"
        else:
            why = endings[ended] if number == len(said) else endings[sandbox.DONE]
        if is_grade(cell):
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.name = "stdout"  # nbgrader would take a warning for a failure
        if why:
            cell.outputs.append(nbformat.v4.new_output("error", ename="Stopped", evalue=f"This cell {why}.",
                                                       traceback=[f"This cell {why}."]))
            if why != endings[sandbox.DONE]:
                label = cell.metadata.get("nbgrader", {}).get("grade_id") or f"code cell {number + 1}"
                remarks.setdefault(why, []).append(label)
    return [f"{', '.join(labels)}: {why}" for why, labels in remarks.items()]


def _output(told: dict):
    """An output of nbformat from what a kernel said, where it is one; nbgrader takes the value of a cell for points."""
    kind = told.get("output_type")
    if kind == "stream":
        return nbformat.v4.new_output("stream", name="stderr" if told.get("name") == "stderr" else "stdout",
                                      text=str(told.get("text", "")))
    if kind == "display_data":
        data = {key: harmless(value) if key in ("text/html", "text/markdown") else value
                for key, value in told["data"].items() if key in SHOWN and isinstance(value, str)}
        return nbformat.v4.new_output("display_data", data=data) if data else None
    return nbformat.v4.new_output("error", ename=str(told.get("ename")), evalue=str(told.get("evalue")),
                                  traceback=[str(line) for line in told.get("traceback", [])])


def autograde(submission: Submission, config: Config) -> list[str]:
    """Autograde a collected submission with nbgrader; returns remarks. Raises SubmissionError where it did not go."""
    settings = _settings(config, submission)

    class Execution(SandboxExecute):
        remarks: ClassVar[list[str]] = []

    with TURN:
        app = Autograde(coursedir=CourseDirectory(config=settings), config=settings)
        app.force = True
        app.autograde_preprocessors = [Execution if kind is Execute else kind for kind in app.autograde_preprocessors]
        result = capture_log(app)
    if not result["success"]:
        raise SubmissionError(f"nbgrader did not grade it: {_reason(result)}")
    return Execution.remarks


class Grades(GetGrades):
    """nbgrader's GetGrades, which also tells the page what nobody has read yet."""

    def _get_score(self, cell, resources):
        super()._get_score(cell, resources)
        found = self.gradebook.find_grade(cell.metadata.nbgrader.grade_id, self.notebook_id, self.assignment_id,
                                          self.student_id)
        cell.metadata.nbgrader["unread"] = bool(found.needs_manual_grade)


def feedback(submission: Submission, config: Config) -> None:
    """Write nbgrader's page of feedback, in our template. Raises SubmissionError where it did not go."""
    settings = _settings(config, submission)
    settings.HTMLExporter.update(template_name="feedback", template_file="course.html.j2",
                                 extra_template_basedirs=TEMPLATES)
    app = GenerateFeedback(coursedir=CourseDirectory(config=settings), config=settings)
    app.force = True
    app.preprocessors = [Grades if kind is GetGrades else kind for kind in app.preprocessors]
    result = capture_log(app)
    if not result["success"]:
        raise SubmissionError(f"nbgrader wrote no feedback: {_reason(result)}")


def _settings(config: Config, submission: Submission) -> Config:
    settings = deepcopy(config)
    settings.CourseDirectory.student_id, settings.CourseDirectory.assignment_id = (submission.student,
                                                                                   submission.assignment)
    return settings


def _reason(result: dict) -> str:
    lines = [line.strip() for line in result.get("log", "").splitlines() + result.get("error", "").splitlines()]
    return next((line for line in lines if re.match(r"[\w.]*(Error|Exception|Missing\w*)\b:", line)),
                lines[-1] if lines else "it did not say why.")[:300]


# --- marks ---


def write_marks(config: Config, file: Path, remarks: dict[tuple[str, str], str], collected: bool) -> list[dict]:
    """Write marks.csv from the gradebook and the remarks, and return its rows.

    `remarks` has a key (assignment, student or name of a file); what is not in the gradebook gets a row without marks.
    Remarks in a file that is there already stay, but for those; where submissions were collected, those on files whose
    names said no assignment go, since such a file has another name by now, or was told of again.
    """
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as lines:
            remarks = {(row["assignment"], row["student_id"]): row["remark"] for row in csv.DictReader(lines)
                       if row["assignment"] or not collected} | remarks
    rows = []
    with Gradebook(CourseDirectory(config=config).db_url, config.CourseDirectory.course_id) as gradebook:
        for assignment in gradebook.assignments:
            for found in gradebook.assignment_submissions(assignment.name):
                remark = remarks.pop((assignment.name, found.student_id), "")
                if remark.startswith("not graded"):
                    rows.append(_row(assignment.name, found.student_id, remark))
                    continue
                penalty = found.late_submission_penalty or 0
                waiting = sum(grade.max_score for notebook in found.notebooks for grade in notebook.grades
                              if grade.needs_manual_grade)
                rows.append({"assignment": assignment.name, "student_id": found.student_id,
                             "timestamp": found.timestamp or "", "raw_score": f"{found.score:g}",
                             "late_submission_penalty": f"{penalty:g}", "score": f"{max(0, found.score - penalty):g}",
                             "max_score": f"{found.max_score:g}", "to_grade_by_hand": f"{waiting:g}",
                             "remark": remark})
    rows += [_row(assignment, name, remark) for (assignment, name), remark in remarks.items() if remark]
    rows.sort(key=lambda row: (row["assignment"], row["student_id"]))
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _row(assignment: str, name: str, remark: str) -> dict:
    return dict.fromkeys(COLUMNS, "") | {"assignment": assignment, "student_id": name, "remark": remark}


# --- all of it ---


def grade(folder: Path | None, config: Config, kind: str, workers: int = 2) -> list[dict]:
    """Grade what is in the folder (None: nothing new), write feedback and marks.csv, and return its rows.

    `kind` is one of `sandbox.kinds()`, or "none". One submission's failure is a remark on it, and no other's.
    """
    root, folder = Path(config.CourseDirectory.root), None if folder is None else folder.resolve()
    with contextlib.chdir(root):  # where nbgrader goes for each submission, and several may be on their way
        return _grade(folder, config, kind, workers, root)


def _grade(folder: Path | None, config: Config, kind: str, workers: int, root: Path) -> list[dict]:
    names = sorted(path.name for path in (root / "release").glob("*") if path.is_dir())
    remarks: dict[tuple[str, str], str] = {}
    graded = [Submission(path.parent.parent.name, path.stem, path)
              for path in sorted((root / "autograded").glob("*/*/*.ipynb"))]
    if folder is not None:
        config = deepcopy(config)
        config.SandboxExecute.update(kind=kind, course=str(root),
                                     hidden=[str(path.resolve()) for path in (root, folder, EXERCISES)])
        found, refused = find(folder, names)
        remarks = {("", name): f"not graded: {why}" for name, why in refused}
        with ThreadPoolExecutor(workers) as pool:
            outcomes = list(pool.map(lambda submission: _graded_or_why(submission, config), found))
        for submission, outcome in zip(found, outcomes, strict=True):
            remarks[submission.assignment, submission.student] = outcome
        graded = [submission for submission, outcome in zip(found, outcomes, strict=True)
                  if not outcome.startswith("not graded")]
    for submission in graded:
        try:
            feedback(submission, config)
        except SubmissionError as error:
            key = submission.assignment, submission.student
            remarks[key] = "; ".join(filter(None, [remarks.get(key), str(error)]))
    return write_marks(config, root / "marks.csv", remarks, folder is not None)


def _graded_or_why(submission: Submission, config: Config) -> str:
    started = time.monotonic()
    try:
        with TURN:
            mended = collect(submission, Path(config.CourseDirectory.root))
        remark = "; ".join(mended + autograde(submission, config))
    except SubmissionError as error:
        remark = f"not graded: {error}"
    except Exception as error:  # of whatever kind, it is no one else's
        remark = f"not graded: {type(error).__name__}: {str(error)[:200]}"
    print(f"{submission.student}, {submission.assignment}: {time.monotonic() - started:.0f} s"
          f"{'; ' + remark if remark else ''}", flush=True)
    return remark


def choose(unsafe: bool, wanted: str | None) -> str:
    """The sandbox to use; "none" where there is none and the one who grades says that this is meant.

    Raises SystemExit with what to install where he does not.
    """
    found = sandbox.kinds()
    if wanted in found or (found and wanted is None):
        return wanted or found[0]
    problem = (f"{f'No {wanted}' if wanted else 'No sandbox'}: bubblewrap does not work here, and neither docker nor "
               f"podman has the image {sandbox.IMAGE}. Students' code could read and delete your files.\n"
               "On Debian and Ubuntu: apt install bubblewrap (0.7 or newer). Elsewhere: docker build -t "
               f"{sandbox.IMAGE} -f tools/grading.Dockerfile .")
    if unsafe:
        print(f"{problem}\nGoing on without one, as --unsafe says.", file=sys.stderr)
        return "none"
    if sys.stdin is not None and sys.stdin.isatty():
        print(problem, file=sys.stderr)
        if input("Run their code on this machine all the same? [yes/no] ").strip().lower() == "yes":
            return "none"
        raise SystemExit("Nothing was graded.")
    raise SystemExit(f"{problem}\nNothing was graded; --unsafe would do it without.")


def main(arguments: list[str] | None = None) -> int:
    """Grade; the exit status is 1 where a submission could not be graded."""
    parser = argparse.ArgumentParser(description="Grade a folder of students' notebooks with nbgrader.")
    parser.add_argument("folder", nargs="?", type=Path, help="of submissions; without it, feedback and marks anew")
    parser.add_argument("--unsafe", action="store_true", help="where no sandbox works, go on without")
    parser.add_argument("--sandbox", choices=["bubblewrap", "docker", "podman"], help="this one and no other")
    parser.add_argument("--workers", type=int, default=2, help="notebooks that run at the same time (2)")
    parser.add_argument("--config", type=Path, default=CONFIG, help="nbgrader_config.py")
    parser.add_argument("--course", type=Path, help="nbgrader's course folder (what nbgrader_config.py says)")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=SAWarning)  # nbgrader's, of no consequence
    config = load_config(options.course, options.config)
    root = Path(config.CourseDirectory.root)
    if not (root / "gradebook.db").is_file():
        print(f"There are no assignments in {root}: run `make assignments` first.", file=sys.stderr)
        return 2
    if options.folder is not None and not options.folder.is_dir():
        print(f"{options.folder} is no folder.", file=sys.stderr)
        return 2
    kind = choose(options.unsafe, options.sandbox) if options.folder else "none"
    rows = grade(options.folder, config, kind, options.workers)
    refused = [row for row in rows if row["remark"].startswith("not graded")]
    for row in refused:
        print(f"{row['student_id']}: {row['remark']}", file=sys.stderr)
    print(f"{len(rows) - len(refused)} graded, {len(refused)} not. Marks: {root / 'marks.csv'}. "
          f"Feedback: {root / 'feedback'}.")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
