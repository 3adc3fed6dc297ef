"""A class of 30: what students hand in, right, wrong, saved by all kinds of programs, and hostile.

    python tests/submissions.py build/assignments 01_sample folder    write the class into a folder

Every submission is made from an assignment's source and release, so that the same class sits for any assignment.
"""

import json
import sys
from copy import deepcopy
from pathlib import Path

import nbformat

FULL, PART, NONE, REFUSED = "full", "part", "none", "not graded"  # of the marks that need no reader
STUBBORN = """import time
while True:
    try:
        time.sleep(0.1)
    except KeyboardInterrupt:
        pass"""
DELETE = """import os, shutil
for folder in ("/", "/tmp", os.getcwd(), os.path.expanduser("~"), {course!r}, os.path.dirname(os.__file__)):
    shutil.rmtree(folder, ignore_errors=True)
"""
SPY = """import os
for found in os.walk({course!r}):
    print("SEEN", found)
import socket
try:
    socket.create_connection(("1.1.1.1", 53), timeout=2)
    print("SEEN the network")
except OSError:
    pass
"""
CHEATS = {  # each before stubs, which earn nothing by themselves
    "cheat-replaces-checks": """from cifar_helpers import checks
from cifar_helpers.checks import common
for module in (checks, common):
    for name in dir(module):
        if name.startswith("check_") or name in ("expect", "outcome", "array"):
            setattr(module, name, lambda *all, **more: 0)
common.NotYet.__init__ = lambda *all: None""",
    "cheat-other-code": """from cifar_helpers.checks import common
common.expect.__code__ = (lambda right, otherwise: None).__code__
common.outcome.__code__ = (lambda function, *arguments, name, **options: 0).__code__
import numpy as np
np.allclose = lambda *all, **more: True""",
    "cheat-shadows-names": """class Anything:
    def __getattr__(self, name): return self
    def __call__(self, *all, **more): return self
    def __eq__(self, other): return True
    def __iter__(self): return iter(())
common = checks = np = tf = keras = Anything()
isinstance = any = all = lambda *all: True""",
    "cheat-no-errors": """import sys
shell = get_ipython()
class Fine:
    success, error_before_exec, error_in_exec, result, execution_count = True, None, None, None, 1
type(shell).run_cell = lambda *all, **more: Fine()
async def fine(*all, **more): return Fine()
type(shell).run_cell_async = fine
shell.run_cell, shell.run_cell_async = type(shell).run_cell, fine
type(shell).showtraceback = lambda *all, **more: None""",
    "cheat-transforms-code": """import ast
class NoTests(ast.NodeTransformer):
    def visit_Module(self, node): return ast.Module(body=[], type_ignores=[])
get_ipython().ast_transformers.append(NoTests())
get_ipython().input_transformers_post.append(lambda lines: ["0"])
get_ipython().set_custom_exc((BaseException,), lambda *all: None)""",
    "cheat-prints-marks": """print("{'score': 100, 'max_score': 100}")
import sys
def shown(*all, **more):
    sys.displayhook(100)
    sys.stdout.write("100")
get_ipython().events.register("pre_run_cell", shown)
get_ipython().events.register("post_run_cell", shown)
100""",
}


def official(source, release):
    """The release with the solutions that the source holds."""
    answers = {cell.metadata.nbgrader.grade_id: cell.source for cell in source.cells if _is(cell, "solution")}
    notebook = deepcopy(release)
    for cell in notebook.cells:
        if _is(cell, "solution"):
            cell.source = answers[cell.metadata.nbgrader.grade_id]
    return notebook


def _is(cell, what: str) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get(what))


def _positions(notebook, what: str) -> list[int]:
    return [at for at, cell in enumerate(notebook.cells) if _is(cell, what) and cell.cell_type == "code"]


def _own(source: str):
    return nbformat.v4.new_code_cell(source)


def make_class(root: Path, assignment: str, folder: Path) -> dict[str, str]:
    """Write the class's submissions into a folder; returns what each is to get, by the student's name."""
    read = {step: nbformat.read(root / step / assignment / f"{assignment}.ipynb", as_version=4)
            for step in ("source", "release")}
    right, stub = official(read["source"], read["release"]), read["release"]
    expected: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)

    def hand_in(student: str, notebook, marks: str, flat: bool = False):
        path = folder / (f"{student}_{assignment}.ipynb" if flat else f"{student}/{assignment}.ipynb")
        path.parent.mkdir(exist_ok=True)
        if isinstance(notebook, bytes):
            path.write_bytes(notebook)
        else:
            path.write_text(notebook if isinstance(notebook, str) else json.dumps(notebook), encoding="utf-8")
        expected[student] = marks

    def changed(notebook, change):
        made = deepcopy(notebook)
        change(made)
        return made

    def first_answer(text: str, notebook=right):
        return changed(notebook, lambda made: made.cells[_positions(made, "solution")[0]].update(source=text))

    def before(text: str, notebook=stub):
        """A cell of one's own before the first answer."""
        return changed(notebook, lambda made: made.cells.insert(_positions(made, "solution")[0], _own(text)))

    # Right, and saved by all kinds of programs
    hand_in("right", right, FULL)
    hand_in("right.flat", right, FULL, flat=True)
    hand_in("Zoë Müller", changed(right, lambda made: made.cells.append(_own("print('done')"))), FULL)
    hand_in("jupyterlab", changed(right, _as_jupyterlab), FULL)
    hand_in("colab", changed(right, _as_colab), FULL)
    hand_in("vscode", changed(right, _as_vscode), FULL)
    hand_in("no-metadata", changed(right, _without_metadata), FULL)

    # Cells deleted, put in another order, duplicated, edited where they are not to be
    hand_in("deleted-tests", changed(right, lambda made: [made.cells.pop(at) for at in
                                                          reversed(_positions(made, "grade"))]), FULL)
    hand_in("deleted-answer", changed(right, lambda made: made.cells.pop(_positions(made, "solution")[0])), PART)
    hand_in("other-order", changed(right, lambda made: made.cells.reverse()), FULL)
    hand_in("duplicated", changed(right, lambda made: made.cells.insert(
        _positions(made, "solution")[0], deepcopy(stub.cells[_positions(stub, "solution")[0]]))), FULL)
    hand_in("edited-tests", changed(stub, lambda made: [made.cells[at].update(source="print('right')") for at in
                                                        _positions(made, "grade")]), NONE)
    hand_in("edited-points", changed(first_answer("raise ValueError"), lambda made: [
        made.cells[at].metadata.nbgrader.update(points=100, grade=True, locked=False)
        for at in _positions(made, "grade")]), PART)

    # Wrong
    hand_in("untouched", stub, NONE)
    hand_in("syntax-error", first_answer("def wrong(:\n    return"), PART)
    hand_in("first-only", changed(stub, lambda made: [
        made.cells[at].update(source=right.cells[at].source) for at in _positions(made, "solution")[:1]]), PART)

    # Hostile
    hand_in("never-ends", first_answer("while True:\n    pass"), PART)
    hand_in("never-ends-stubborn", first_answer(STUBBORN), NONE)
    hand_in("memory", first_answer("hoard = []\nwhile True:\n    hoard.append(bytearray(1 << 26))"), PART)
    hand_in("floods", first_answer("while True:\n    print('x' * 1000)"), PART)
    hand_in("crashes", first_answer("import os\nos._exit(1)"), NONE)
    hand_in("deletes", before(DELETE.format(course=str(root))), NONE)
    hand_in("spies", before(SPY.format(course=str(root)), right), FULL)
    for student, cheat in list(CHEATS.items())[:5]:
        hand_in(student, before(cheat), NONE)
    hand_in("cheat-prints-marks", before(CHEATS["cheat-prints-marks"]), NONE)

    # Not valid
    hand_in("truncated", json.dumps(right)[:-200], REFUSED)
    return expected


def _as_jupyterlab(notebook):
    for number, cell in enumerate(notebook.cells):
        cell.metadata.update({"tags": ["raises-exception"], "jupyter": {"source_hidden": True}, "trusted": True})
        if cell.cell_type == "code":
            cell.execution_count = number
            cell.outputs = [nbformat.v4.new_output("stream", text="as it ran\n")]
    notebook.metadata.update({"kernelspec": {"name": "conda-env-mine-py", "display_name": "Mine", "language": "python"},
                              "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}})


def _as_colab(notebook):
    notebook.nbformat_minor = 0
    notebook.metadata = nbformat.from_dict({"colab": {"provenance": [], "gpuType": "T4"}, "accelerator": "GPU",
                                            "kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for number, cell in enumerate(notebook.cells):
        del cell["id"]
        cell.metadata["id"] = f"aB3_{number}"
        cell.metadata["colab"] = {"base_uri": "https://localhost:8080/"}
        if cell.cell_type == "code":
            cell.outputs = [nbformat.from_dict({"output_type": "stream", "name": "stdout", "text": ["a", "b"]})]


def _as_vscode(notebook):
    notebook.nbformat_minor = 2
    notebook.metadata = nbformat.from_dict({"kernelspec": {"display_name": ".venv", "language": "python", "name": "x"},
                                            "language_info": {"name": "python", "version": "3.13.0"}})
    for cell in notebook.cells:
        del cell["id"]
        cell.metadata["vscode"] = {"languageId": "python"}
        cell["source"] = cell.source.splitlines(keepends=True)


def _without_metadata(notebook):
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        del cell["id"]
    notebook.nbformat_minor = 4


def as_version_3(notebook) -> dict:
    cells = [{"cell_type": cell.cell_type, "metadata": cell.metadata,
              **({"input": cell.source, "outputs": [], "language": "python", "collapsed": False}
                 if cell.cell_type == "code" else {"source": cell.source})} for cell in notebook.cells]
    return {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""},
            "worksheets": [{"cells": cells, "metadata": {}}]}


if __name__ == "__main__":
    print(json.dumps(make_class(Path(sys.argv[1]).resolve(), sys.argv[2], Path(sys.argv[3])), indent=1,
                     ensure_ascii=False))
