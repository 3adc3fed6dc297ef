"""Run the course's lessons in order, and leave what they show as pages in `build/`.

    python tools/run_course.py                   every lesson
    python tools/run_course.py 2 5               lessons 2 and 5
    python tools/run_course.py --budget smoke    every lesson, as little training as possible

Each lesson runs in a kernel of its own. `build/` gets the executed notebooks, a page of each that needs no network, and
an index. Lesson 6 writes its table to `comparison.txt` in the folder that COURSE_BUILD names; it is shown at the end.
"""

import argparse
import asyncio
import copy
import html
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from openers import without_pictures
from traitlets import default

from cifar_helpers.budgets import NAMES, budget_name
from cifar_helpers.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
SKIP = "nbval-skip"  # the tests skip these cells too
TABLE = "comparison.txt"
# The stock page asks three hosts for scripts: for TeX, for diagrams and for plug-ins. Ours needs none of them. And it
# leaves out what a figure says of itself.
PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block data_png scoped %}
{%- set text = output | get_metadata('alt', 'image/png') -%}
{{ super() | replace('<img ', '<img alt="' ~ (text | escape_html) ~ '" ', 1) if text else super() }}
{%- endblock %}
{% block body_header %}{{ super() }}
<nav style="font-family: sans-serif; padding: 1em 6em"><a href="index.html" style="color: #1565c0">All lessons</a></nav>
{% endblock %}
"""
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The lessons, as they ran</title>
<style>body {{ font-family: sans-serif; line-height: 1.6; margin: 2em auto; max-width: 80em; padding: 0 1em }}
pre {{ overflow-x: auto }}</style>
</head>
<body>
<main>
<h1>The lessons, as they ran</h1>
<ul>
{links}
</ul>
{table}</main>
</body>
</html>
"""


class LessonError(Exception):
    """A lesson that did not run to its end; the message says which, where and why."""


class ThisKernelManager(AsyncKernelManager):
    """Starts this very interpreter, whatever kernel named python3 a user has installed elsewhere."""

    @default("kernel_spec_manager")
    def _only_the_native_kernel(self):
        return KernelSpecManager(kernel_dirs=[], parent=self)


class Progress:
    """A line that moves while a lesson runs; in a file or a pipe, one line at the start and one at the end."""

    def __init__(self, lesson: str, cells: int, out=None):
        self.lesson, self.cells, self.out = lesson, cells, out or sys.stdout
        self.cell, self.started = 0, time.monotonic()
        self._moves, self._over = self.out.isatty(), threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self):
        if self._moves:
            self._ticker.start()
        else:
            print(f"{self.lesson}: {self.cells} cells", file=self.out, flush=True)
        return self

    def __exit__(self, kind, error, trace):
        self._over.set()
        if self._moves:
            self._ticker.join()
        how = "done" if kind is None else f"stopped in cell {self.cell} of {self.cells}"
        line = f"{self.lesson}: {how}, {seconds(time.monotonic() - self.started)}"
        print(self._overwriting(line) if self._moves else line, file=self.out, flush=True)

    def _tick(self):
        while not self._over.wait(0.5):
            line = f"{self.lesson}: cell {self.cell}/{self.cells}, {seconds(time.monotonic() - self.started)}"
            print(self._overwriting(line), end="", file=self.out, flush=True)

    def _overwriting(self, line: str) -> str:
        width = shutil.get_terminal_size().columns - 1  # a full line would wrap, and the next one start below it
        return "\r" + line[:width].ljust(width)


def seconds(number: float) -> str:
    """A duration as people say it: `48 s`, `3 min 20 s`."""
    minutes, rest = divmod(round(number), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def lessons(folder: Path, numbers: list[int]) -> list[Path]:
    """The notebooks to run, in order; all of them where no number is given.

    Raises CourseError where there is none, or none of a number.
    """
    found = {int(path.name[:2]): path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise CourseError(f"{folder.name}/ holds no lesson: run `make notebooks`.")
    if unknown := [str(number) for number in numbers if number not in found]:
        raise CourseError(f"There is no lesson {', '.join(unknown)}: take {', '.join(map(str, found))}.")
    return [path for number, path in found.items() if not numbers or number in numbers]


def run_lesson(path: Path, build: Path) -> None:
    """Run one lesson in its own folder; `build` gets the executed notebook, and the page where it ran to its end.

    Raises LessonError where a cell failed or the kernel died; then the notebook in `build` holds what ran until there.
    """
    notebook = nbformat.read(path, as_version=4)
    executed, page = build / path.name, build / f"{path.stem}.html"
    for stale in (executed, page):
        stale.unlink(missing_ok=True)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()
             and SKIP not in cell.metadata.get("tags", [])]
    try:
        with Progress(path.stem, len(cells)) as progress:
            _execute(notebook, path.parent, progress)
    except CellExecutionError as error:
        why = f"failed with {error.ename}: {(str(error.evalue).splitlines() or [''])[0]}"
        raise LessonError(_sentence(path, progress.cell, cells, why, executed)) from error
    except RuntimeError as error:  # nbclient's word for a kernel that died or never came up
        why = ("ended the kernel: the machine may be out of memory" if progress.cell else
               "was out of reach: `python -m ipykernel_launcher` may say why")
        raise LessonError(_sentence(path, progress.cell, cells, why, executed)) from error
    finally:
        # Cells' times and the kernel's path would be the machine's, not the lesson's.
        notebook.metadata = nbformat.from_dict({key: value for key, value in notebook.metadata.items()
                                                if key in ("kernelspec", "language_info", "title")})
        _write(executed, nbformat.writes(notebook) + "\n")
    _write(page, _page(notebook, path))


def _execute(notebook, folder: Path, progress: Progress) -> None:
    interrupted = threading.Event()

    def count(cell, cell_index):
        progress.cell += 1

    def stop_cleanly_on_signals(notebook):
        # nbclient's own handlers end in an assertion; cancelling lets it shut the kernel down. Windows has no such
        # handlers, and Python's own exception reaches us there.
        task = asyncio.current_task()

        def stop():
            interrupted.set()
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):
                asyncio.get_running_loop().add_signal_handler(number, stop)

    client = NotebookClient(
        notebook, kernel_manager_class=ThisKernelManager, kernel_name=NATIVE_KERNEL_NAME,
        resources={"metadata": {"path": str(folder)}}, skip_cells_with_tag=SKIP, timeout=None, startup_timeout=120,
        on_notebook_start=stop_cleanly_on_signals, on_cell_execute=count,
        record_timing=False, store_widget_state=False, coalesce_streams=True,  # a progress bar leaves one line
    )
    try:
        client.execute(stderr=subprocess.DEVNULL)  # what a cell writes there is among its outputs all the same
    except (RuntimeError, asyncio.CancelledError) as error:
        if interrupted.is_set():
            raise KeyboardInterrupt from error
        raise


def _sentence(path: Path, number: int, cells: list, why: str, executed: Path) -> str:
    where = f"cell {number} of {len(cells)}" if number else "the start of its kernel"
    first = f" ({cells[number - 1].source.strip().splitlines()[0]})" if number else ""
    return f"{path.stem}, {where}{first} {why}. What ran until there is in {_shown(executed)}."


def _page(notebook, path: Path) -> str:
    """The notebook as one page with its pictures inside; links to other lessons lead to their pages."""
    exporter = HTMLExporter(extra_loaders=[DictLoader({"page.html.j2": PAGE})], template_file="page.html.j2",
                            embed_images=True)
    resources = {"metadata": {"name": title(notebook) or path.stem, "path": str(path.parent)}}
    shown = copy.deepcopy(notebook)
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = without_pictures(cell.source)
    body, _ = exporter.from_notebook_node(shown, resources)
    return re.sub(r'href="(?:\./)?(\d\d_\w+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', body)


def title(notebook) -> str:
    """The first heading, or nothing where there is none."""
    heading = re.compile(r"^# +(.+)$", re.MULTILINE)
    return next((found[1].strip() for cell in notebook.cells
                 if cell.cell_type == "markdown" and (found := heading.search(cell.source))), "")


def write_index(build: Path) -> None:
    """`index.html` with a link to every page in `build`, and the table where there is one."""
    links = []
    for page in sorted(build.glob("[0-9][0-9]_*.html")):
        name = title(nbformat.read(page.with_suffix(".ipynb"), as_version=4)) or page.stem
        links.append(f'<li><a href="{page.name}">{html.escape(name)}</a></li>')
    table = build / TABLE
    shown = f"<pre>{html.escape(table.read_text(encoding='utf-8'))}</pre>\n" if table.is_file() else ""
    _write(build / "index.html", INDEX.format(links="\n".join(links), table=shown))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def run(folder: Path, build: Path, numbers: list[int]) -> None:
    """Run lessons, write the index, and show the table where a lesson has written it.

    Raises CourseError or LessonError with one sentence for the user.
    """
    chosen = lessons(folder, numbers)
    build.mkdir(parents=True, exist_ok=True)
    print(f"Budget {budget_name()}, {len(chosen)} of {len(lessons(folder, []))} lessons", flush=True)
    os.environ["COURSE_BUILD"] = str(build)  # the kernels inherit it
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    before = _changed(build / TABLE)
    try:
        for path in chosen:
            run_lesson(path, build)
    finally:
        write_index(build)
    if _changed(build / TABLE) != before:
        print("\n" + (build / TABLE).read_text(encoding="utf-8").rstrip("\n"))
    print(f"\nThe lessons with their figures: {_shown(build / 'index.html')}")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the exit status is 1 where a lesson failed, 2 where the call makes no sense."""
    parser = argparse.ArgumentParser(description="Run the course's lessons in order, and leave their pages in build/.")
    parser.add_argument("numbers", nargs="*", type=int, metavar="LESSON", help="which lessons to run (all)")
    parser.add_argument("--budget", choices=NAMES, help="how much to train (COURSE_BUDGET, else laptop)")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="where the lessons are (notebooks/)")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="where the pages go (build/)")
    options = parser.parse_args(arguments)
    if options.budget:
        os.environ["COURSE_BUDGET"] = options.budget
    # nbconvert logs one line for each figure without a description, and Windows cannot print every character.
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    sys.stdout.reconfigure(errors="replace")
    sys.stderr.reconfigure(errors="replace")
    try:
        run(options.notebooks.resolve(), options.build.resolve(), options.numbers)
    except (CourseError, LessonError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, LessonError) else 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
