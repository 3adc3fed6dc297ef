"""Derive what students get from what instructors write: one nbgrader assignment for each script in exercises/.

    python tools/assignments.py            write build/assignments, ready for nbgrader and zipped for any other LMS
    python tools/assignments.py --check    write nothing; say what is wrong in which line, and exit with 1

A script NN_name.py in jupytext's percent format holds tasks, solutions and hidden tests. `source/` gets it as a
notebook, `release/` the same without solutions and hidden tests, made by nbgrader's own preprocessors, which enter the
assignment into `gradebook.db` as well; `zip/` holds the released notebooks one by one.
"""

import argparse
import ast
import builtins
import os
import re
import sys
import tempfile
import zipfile
from pathlib import Path

import jupytext
import nbformat
from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.utils import capture_log, is_grade, is_solution
from pairs import LESSON, notebook_text
from traitlets.config import Config, PyFileConfigLoader

ROOT = Path(__file__).resolve().parent.parent
EXERCISES = ROOT / "exercises"
CONFIG = ROOT / "nbgrader_config.py"
MARKERS = {"SOLUTION": (re.compile(r"BEGIN SOLUTION"), re.compile(r"END SOLUTION"), is_solution, '"solution": true'),
           "HIDDEN TESTS": (re.compile(r"BEGIN HIDDEN TESTS"), re.compile(r"END HIDDEN TESTS"), is_grade,
                            '"grade": true')}
ALMOST = re.compile(r"###\s*(BEGIN|END)\b", re.IGNORECASE)
PLACEHOLDER = re.compile(r"^\s*(\.\.\.|pass|raise NotImplementedError.*|\w+\s*=\s*(\.\.\.|None))\s*(#.*)?$"
                         r"|YOUR (CODE|ANSWER)")
EPOCH = (1980, 1, 1, 0, 0, 0)  # so that the same notebook gives the same archive


class AssignmentError(Exception):
    """Exercises that cannot become an assignment; the message has a line for each fault, with file and line."""


def load_config(root: Path | None = None, file: Path = CONFIG) -> Config:
    """nbgrader's configuration; `root` stands for the course folder that it names."""
    # nbgrader starts alembic by its name, and an environment that is not activated is not on the path.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    config = PyFileConfigLoader(file.name, path=str(file.parent)).load_config()
    if root is not None:
        config.CourseDirectory.root = str(root.resolve())
    return config


def located(script: Path) -> list[tuple[nbformat.NotebookNode, list[int]]]:
    """The cells of a script, each with the line numbers of its source.

    Raises AssignmentError where the cells of the notebook are not those that the script's markers open.
    """
    text = script.read_text(encoding="utf-8")
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines, start=1) if re.match(r"# ?%%", line)]
    cells = jupytext.reads(text, fmt="py:percent").cells
    if len(starts) != len(cells):
        raise AssignmentError(f"{_name(script)}:1: {len(starts)} lines open a cell, and the notebook has {len(cells)}: "
                              "start the first cell with # %%, and write # %% nowhere else.")
    found = []
    for start, end, cell in zip(starts, [*starts[1:], len(lines) + 1], cells, strict=True):
        numbers = list(range(start + 1, end))
        while numbers and not lines[numbers[0] - 1].strip():
            numbers.pop(0)
        found.append((cell, numbers))
    return found


def faults(scripts: list[Path]) -> list[str]:
    """A line for each thing in the scripts that nbgrader would refuse, or take for something else; empty if none."""
    found, ids = [], {}
    for script in scripts:
        try:
            cells = located(script)
        except AssignmentError as error:
            found.append(str(error))
            continue
        for cell, numbers in cells:
            first = numbers[0] if numbers else 1

            def at(offset: int, what: str, numbers=numbers, first=first, script=script) -> str:
                return f"{_name(script)}:{numbers[offset] if offset < len(numbers) else first}: {what}"

            found += [at(offset, what) for offset, what in [*_marker_faults(cell), *_metadata_faults(cell)]]
            grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
            if grade_id in ids:
                found.append(at(0, f"the grade_id {grade_id!r} is taken already, in {ids[grade_id]}."))
            elif grade_id is not None:
                ids[grade_id] = f"{_name(script)}:{first}"
    return found


def _marker_faults(cell) -> list[tuple[int, str]]:
    found = []
    for kind, (begin, end, may_hold, needed) in MARKERS.items():
        opened, ever = None, False
        for offset, line in enumerate(cell.source.split("\n")):
            if begin.search(line):
                if opened is not None:
                    found.append((offset, f"BEGIN {kind} within the one before: end that first."))
                opened, ever = offset, True
            elif end.search(line):
                if opened is None:
                    found.append((offset, f"END {kind} without a BEGIN {kind} before it."))
                opened = None
        if opened is not None:
            found.append((opened, f"BEGIN {kind} without an END {kind} after it."))
        if ever and not may_hold(cell):
            found.append((0, f"a cell with BEGIN {kind} needs the nbgrader metadata {needed}, and has not."))
        if kind == "SOLUTION" and is_solution(cell) and not ever:
            found.append((0, "a solution cell without BEGIN SOLUTION: students would not see its stub."))
    hidden = False
    for offset, line in enumerate(cell.source.split("\n")):
        known = any(begin.search(line) or end.search(line) for begin, end, *_ in MARKERS.values())
        if ALMOST.search(line) and not known:
            found.append((offset, f"{line.strip()!r} is no marker of nbgrader: students would see it."))
        hidden = (hidden or "BEGIN SOLUTION" in line) and "END SOLUTION" not in line
        if is_solution(cell) and not hidden and PLACEHOLDER.search(line):
            found.append((offset, f"students see {line.strip()!r}, which is no part of the solution: put what they are "
                                  "to write between the markers."))
    return found


def _metadata_faults(cell) -> list[tuple[int, str]]:
    told = cell.metadata.get("nbgrader")
    if told is None:
        odd = [key for key in ("title", "grade_id", "grade", "points") if "nbgrader" in str(cell.metadata.get(key, ""))]
        return [(0, "the nbgrader metadata in the line that opens the cell is not valid JSON.")] if odd else []
    try:
        MetadataValidator().validate_cell(cell)
    except Exception as error:  # jsonschema's, nbgrader's own, or a key that is missing
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return [(0, f"its nbgrader metadata is not valid: {reason}.")]
    found = []
    if not re.fullmatch(r"[A-Za-z0-9_-]+", told.get("grade_id", "")):
        found.append((0, f"the grade_id {told.get('grade_id')!r} must be of letters, digits, - and _ only."))
    if cell.cell_type == "code":
        if is_grade(cell) and is_solution(cell):
            found.append((0, "a code cell is graded by hand where it is a solution: put the tests into a cell of their "
                             "own."))
        try:
            shadowed = sorted(name for name in defined_names(cell.source) if hasattr(builtins, name))
        except SyntaxError as error:
            return [*found, ((error.lineno or 1) - 1, f"{error.msg}.")]
        if is_solution(cell) and shadowed:
            found.append((0, f"an answer may not have the name of a builtin: {', '.join(shadowed)}."))
    return found


def defined_names(source: str) -> list[str]:
    """The names that code binds at its top level: functions, classes, variables."""
    names = []
    for statement in ast.parse(source).body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.append(statement.name)
        else:
            names += [node.id for node in ast.walk(statement)
                      if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return list(dict.fromkeys(names))


def stub_faults(script: Path, release: nbformat.NotebookNode, config: Config) -> list[str]:
    """A line for each line of a released solution cell that stands neither in its solution nor in nbgrader's stub."""
    solutions = {cell.metadata.nbgrader.grade_id: (cell, numbers) for cell, numbers in located(script)
                 if is_solution(cell)}
    stubs = {line.strip() for text in (config.ClearSolutions.get("code_stub", {}).get("python", ""),
                                       config.ClearSolutions.get("text_stub", "")) for line in text.split("\n")}
    found = []
    for cell in release.cells:
        if not is_solution(cell):
            continue
        source, numbers = solutions[cell.metadata.nbgrader.grade_id]
        lines = source.source.split("\n")
        found += [f"{_name(script)}:{numbers[0]}: students would see {line.strip()!r}, which is not in the solution."
                  for line in cell.source.split("\n") if line not in lines and line.strip() not in stubs]
    return found


def derive(scripts: list[Path], config: Config) -> list[str]:
    """Write source, release and zip of every script into the config's course folder; returns a line of each.

    The gradebook stays as it is but for the assignments' cells. Raises AssignmentError where a script has faults, or
    nbgrader refuses it: then nothing of it is released.
    """
    if found := faults(scripts):
        raise AssignmentError("\n".join(found))
    root = Path(config.CourseDirectory.root)
    told = []
    for script in scripts:
        name = script.stem
        source = root / "source" / name / f"{name}.ipynb"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(source_text(script).encode())
        result = generate(name, config)
        if not result["success"]:
            raise AssignmentError(f"{_name(script)}:1: nbgrader refuses it: {_reason(result)}")
        release = root / "release" / name / f"{name}.ipynb"
        notebook = nbformat.read(release, as_version=4)
        if found := stub_faults(script, notebook, config):
            release.unlink()
            raise AssignmentError("\n".join(found))
        archive = root / "zip" / f"{name}.zip"
        archive.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(zipfile.ZipInfo(f"{name}/{name}.ipynb", EPOCH), release.read_bytes(), zipfile.ZIP_DEFLATED)
        points = {cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader.points for cell in notebook.cells
                  if is_grade(cell)}
        told.append(f"{name}: {len(points)} graded cells, {sum(points.values()):g} points")
    return told


def source_text(script: Path) -> str:
    """The notebook of a script, in which an exercise that is not done does not stop "run all" before the others."""
    notebook = nbformat.reads(notebook_text(script), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    start = next((place for place, cell in enumerate(code) if "start_exercises()" in cell.source), 0)
    for cell in code[start + 1:]:  # without what opens the notebook nothing runs
        cell.metadata.tags = [*cell.metadata.get("tags", []), "raises-exception"]
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"


def generate(name: str, config: Config) -> dict:
    """nbgrader's own `generate_assignment`; returns `success`, and `error` and `log` where there is something."""
    settings = config.copy()
    settings.CourseDirectory.assignment_id = name
    app = GenerateAssignment(coursedir=CourseDirectory(config=settings), config=settings)
    app.force = True
    return capture_log(app)


def _reason(result: dict) -> str:
    lines = [line.strip() for line in (result.get("log") or result.get("error", "")).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if re.match(r"\w*(Error|Exception)\b", line)), lines[-1])


def exercise_scripts(folder: Path) -> list[Path]:
    """The scripts of a folder, in order. Raises AssignmentError where there is none."""
    if not (found := sorted(folder.glob(f"{LESSON}.py"))):
        raise AssignmentError(f"{folder.name}/ holds no exercises: they are scripts named like 01_name.py.")
    return found


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def main(arguments: list[str] | None = None) -> int:
    """Derive or check; the exit status is 1 where a script has faults."""
    parser = argparse.ArgumentParser(description="Derive the students' assignments from exercises/.")
    parser.add_argument("--check", action="store_true", help="write nothing into the course folder")
    parser.add_argument("--exercises", type=Path, default=EXERCISES, help="where the scripts are (exercises/)")
    parser.add_argument("--course", type=Path, help="nbgrader's course folder (what nbgrader_config.py says)")
    options = parser.parse_args(arguments)
    try:
        scripts = exercise_scripts(options.exercises)
        with tempfile.TemporaryDirectory() as scratch:
            config = load_config(Path(scratch) if options.check else options.course)
            told = derive(scripts, config)
    except AssignmentError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(told))
    if not options.check:
        print(f"Written to {config.CourseDirectory.root}: source, release, zip and gradebook.db.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
