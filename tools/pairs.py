"""Keep every lesson's notebook equal to its script.

    python tools/pairs.py --write    write NN_name.ipynb beside every NN_name.py
    python tools/pairs.py --check    write nothing; say which notebooks differ, and exit with 1 where one does

The script, in jupytext's percent format, is what people edit, review and lint; the notebook is what they open. It goes
one way only, and the same script gives the same bytes on every system, so that comparing them is the whole check.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

import jupytext
import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
LESSON = "[0-9][0-9]_*"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
REMEDY = "run `make notebooks` (`python tools/pairs.py --write`)"


def notebook_text(script: Path) -> str:
    """The notebook that belongs to a script: no outputs, and nothing that changes from one call to the next."""
    notebook = jupytext.reads(script.read_text(encoding="utf-8"), fmt="py:percent")
    extra = {key: value for key, value in notebook.metadata.items() if key != "jupytext"}
    notebook.metadata = nbformat.from_dict({**extra, "kernelspec": KERNEL, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: Counter = Counter()
    for cell in notebook.cells:
        cell.source = cell.source.strip("\n")
        # How many blank lines the script has between cells is of no interest in a notebook.
        for key in [key for key in cell.metadata if key.startswith("lines_to_")]:
            del cell.metadata[key]
        content = f"{cell.cell_type}\n{cell.source}"
        # From the content, so that a new cell leaves the others' ids alone; the count tells equal cells apart.
        cell.id = hashlib.sha256(f"{seen[content]}\n{content}".encode()).hexdigest()[:8]
        seen[content] += 1
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"


def write(folder: Path) -> list[Path]:
    """Write the notebooks that differ from their scripts, and return their paths."""
    written = []
    for script in sorted(folder.glob(f"{LESSON}.py")):
        notebook, content = script.with_suffix(".ipynb"), notebook_text(script).encode()
        if not notebook.is_file() or notebook.read_bytes() != content:
            notebook.write_bytes(content)  # bytes: text would get another line end on Windows
            written.append(notebook)
    return written


def faults(folder: Path) -> list[str]:
    """A sentence for each notebook that is not what its script says; empty where all are."""
    scripts = sorted(folder.glob(f"{LESSON}.py"))
    if not scripts:
        return [f"{folder.name}/ holds no lesson: a lesson is a script named like 01_name.py."]
    found = [fault for script in scripts if (fault := _fault(script))]
    orphans = sorted(path for path in folder.glob("*.ipynb") if path.with_suffix(".py") not in scripts)
    return found + [f"{_name(path)} has no script {path.stem}.py: write one, or delete the notebook."
                    for path in orphans]


def _fault(script: Path) -> str | None:
    notebook = script.with_suffix(".ipynb")
    if not notebook.is_file():
        return f"{_name(notebook)} is missing: {REMEDY}."
    content = notebook.read_bytes()
    if content == notebook_text(script).encode():
        return None
    if _has_outputs(content):
        return f"{_name(notebook)} holds outputs: {REMEDY}, which writes it without them."
    return f"{_name(notebook)} differs from {script.name}: change the script, then {REMEDY}."


def _has_outputs(content: bytes) -> bool:
    try:
        cells = json.loads(content)["cells"]
        return any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # no notebook at all: then it differs, and that is said


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def main(arguments: list[str] | None = None) -> int:
    """Write or check; the exit status is 1 where a check found something."""
    parser = argparse.ArgumentParser(description="Keep every lesson's notebook equal to its script.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the notebooks from their scripts")
    what.add_argument("--check", action="store_true", help="write nothing, and fail where a notebook differs")
    parser.add_argument("folder", nargs="?", type=Path, default=NOTEBOOKS, help="where the lessons are (notebooks/)")
    options = parser.parse_args(arguments)
    if options.write:
        for path in write(options.folder):
            print(f"wrote {_name(path)}")
        return 0
    found = faults(options.folder)
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
