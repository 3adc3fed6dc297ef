"""Build the course's site in build/site: lessons with their outputs, exercises, results, reference, search.

    python tools/build_site.py                  lessons as `make course` left them in build/, else at the smoke budget
    python tools/build_site.py --budget laptop  lessons that are not there run at the laptop budget

The pages need no network. Sources are laid out in build/site-source as they stand in the repository, so that links
between them lead to pages; Sphinx's warnings are errors.
"""

import argparse
import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import run_course
from assignments import EXERCISES
from nbgrader.preprocessors import ClearSolutions
from nbgrader.utils import is_solution
from openers import without_pictures
from pairs import NOTEBOOKS, notebook_text
from run_course import LessonError

import cifar_helpers
from cifar_helpers.budgets import NAMES
from cifar_helpers.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "INSTRUCTORS.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "data/README.md",
         "results/README.md", "benchmarks/README.md")
HIDDEN = re.compile(r"^\s*### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS\n?", re.MULTILINE | re.DOTALL)
MARKERS = re.compile(r"^\s*### (BEGIN|END) (SOLUTION|HIDDEN TESTS)\n?", re.MULTILINE)


def executed(script: Path, build: Path, *others: Path) -> nbformat.NotebookNode:
    """The notebook of a script with its outputs: from one of these folders where its cells are the script's, else run
    now, into `build`.

    Raises LessonError where a cell fails.
    """
    wanted, path = nbformat.reads(notebook_text(script), as_version=4), build / f"{script.stem}.ipynb"
    for kept in [folder / path.name for folder in (*others, build)]:
        if not kept.is_file():
            continue
        there = nbformat.read(kept, as_version=4)
        complete = all(cell.get("execution_count") for cell in there.cells if cell.cell_type == "code"
                       and run_course.SKIP not in cell.metadata.get("tags", []))
        if complete and [cell.source for cell in there.cells] == [cell.source for cell in wanted.cells]:
            return there
    source = script.with_suffix(".ipynb")
    if not source.is_file():  # exercises have no notebook beside them
        source = build / "source" / source.name
        source.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(wanted, source)
    build.mkdir(parents=True, exist_ok=True)
    run_course.run_lesson(source, build)
    return nbformat.read(path, as_version=4)


def with_texts(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The notebook with each figure's description where the site's builder takes it from, and without outside pictures.

    Raises CourseError where a figure has none, or a cell left an error or wrote to the error stream.
    """
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown":
            cell.source = without_pictures(cell.source)
        if cell.cell_type != "code":
            continue
        if any(output.output_type == "error" or output.get("name") == "stderr" for output in cell.outputs):
            raise CourseError(f"{name}, cell {number} left an error or wrote to the error stream: mend it first.")
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        texts = [output.metadata.get("image/png", {}).get("alt", "").strip() for output in pictures]
        if not all(texts):
            raise CourseError(f"{name}, cell {number} shows a figure without a description: open the notebook with "
                              "start_lesson, or call cifar_helpers.alt.show_in_notebooks() in its first cell.")
        if texts:
            cell.metadata["mystnb"] = {"image": {"alt": " ".join(texts)}}
        if run_course.SKIP in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [*cell.metadata["tags"], "remove-cell"]  # it finds the helpers, and shows nothing
    return notebook


def with_folded_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An instructor's notebook for readers: each task with its stub, its solution folded, without hidden tests."""
    stubs = ClearSolutions().preprocess(copy.deepcopy(notebook), {})[0]
    cells = []
    for cell, stub in zip(notebook.cells, stubs.cells, strict=True):
        if not is_solution(cell):
            cell.source = HIDDEN.sub("", cell.source).strip("\n")
            if cell.source:
                cells.append(cell)
            continue
        if cell.cell_type == "markdown":
            answer = MARKERS.sub("", cell.source).strip()
            cells.append(nbformat.v4.new_markdown_cell(
                f'<details class="solution">\n<summary>Model answer</summary>\n\n{answer}\n\n</details>'))
            continue
        cells.append(nbformat.v4.new_markdown_cell(f"```python\n{stub.source}\n```"))
        cell.source = MARKERS.sub("", cell.source).rstrip("\n")
        cell.metadata = nbformat.from_dict({"tags": ["hide-input"], "mystnb": {
            "code_prompt_show": "Show a solution", "code_prompt_hide": "Hide the solution"}})
        cells.append(cell)
    for cell in cells:
        cell.metadata.pop("nbgrader", None)
    notebook.cells = cells
    return notebook


def api_pages(folder: Path) -> None:
    """A page a module of `cifar_helpers`, and their list, both from the package's own docstring."""
    folder.mkdir()
    modules = re.findall(r"^(\w+) {2,}(\S.*)$", cifar_helpers.__doc__, re.MULTILINE)
    rows = [f"| [`{name}`]({name}.md) | {line} |" for name, line in modules]
    tree = "\n".join(name for name, _ in modules)
    (folder / "index.md").write_text(
        "# `cifar_helpers`, module by module\n\nWhat a lesson needs and does not teach. Each page is written from the "
        "module's docstrings.\n\n| Module | What for |\n|---|---|\n" + "\n".join(rows)
        + f"\n\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n", encoding="utf-8")
    for name, _ in modules:
        (folder / f"{name}.md").write_text(
            f"# `{name}`\n\n```{{eval-rst}}\n.. automodule:: cifar_helpers.{name}\n   :members:\n```\n",
            encoding="utf-8")


def figures_page(source: Path) -> None:
    """All figures of results/, each with its description."""
    texts = json.loads((source / "results/figures/alt.json").read_text(encoding="utf-8"))
    shown = "\n\n".join(f"## {text.partition(':')[0]}\n\n![{text}](results/figures/{name}.svg)\n\n{text}"
                        for name, text in texts.items())
    (source / "figures.md").write_text(
        f"# Figures\n\nDrawn from the reference results; the tables stand in {{doc}}`results/README`.\n\n{shown}\n",
        encoding="utf-8")


def lay_out(source: Path, build: Path) -> None:
    """Everything that Sphinx reads, in `source`. Raises CourseError or LessonError with one sentence."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "site", source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", source)
    shutil.copytree(ROOT / "results" / "figures", source / "results" / "figures")
    for page in PAGES:
        (source / page).parent.mkdir(exist_ok=True)
        text = without_pictures((ROOT / page).read_text(encoding="utf-8"))
        (source / page).write_text(re.sub(r"\]\((\.\./)?README\.md", r"](\1index.md", text), encoding="utf-8")
    for folder, scripts, change in (("notebooks", NOTEBOOKS, lambda notebook: notebook),
                                    ("exercises", EXERCISES, with_folded_solutions)):
        (source / folder).mkdir()
        others = [build] if folder == "notebooks" else []  # what `make course` left there stays as it is
        for script in sorted(scripts.glob("[0-9][0-9]_*.py")):
            notebook = change(with_texts(executed(script, build / f"site-{folder}", *others), script.stem))
            nbformat.write(notebook, source / folder / f"{script.stem}.ipynb")
    api_pages(source / "api")
    figures_page(source)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the exit status is 1 where a lesson or Sphinx found a fault."""
    parser = argparse.ArgumentParser(description="Build the course's site in build/site.")
    parser.add_argument("--budget", choices=NAMES, default="smoke", help="for lessons that are not in build/ (smoke)")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="where everything goes (build/)")
    options = parser.parse_args(arguments)
    build = options.build.resolve()
    # What a user trained, and the table of `make course`, stay as they are.
    os.environ |= {"COURSE_BUDGET": options.budget, "COURSE_BUILD": str(build / "site-notebooks"),
                   "COURSE_RUNS": str(build / "site-runs")}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        lay_out(build / "site-source", build)
    except (CourseError, LessonError) as error:
        print(error, file=sys.stderr)
        return 1
    shutil.rmtree(build / "site", ignore_errors=True)
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run([*sphinx, build / "site-source", build / "site"], check=False)
    if not done.returncode:
        print(f"The site: {build / 'site' / 'index.html'}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
