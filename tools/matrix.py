"""Run every lesson on every supported Python and TensorFlow, and as on Colab: each row in a clean environment.

    python tools/matrix.py                     every row: some four minutes and 2 GB of disk each, one after the other
    python tools/matrix.py colab-2.19 3.13-newest
    python tools/matrix.py --list              the rows, and which of them cannot run here

A row makes an environment, with a wheel of the course that is built here, or, as on Colab, with everything but the
course. Then it runs each lesson's notebook, as it stands, at the smoke budget, in a folder that is empty at first. The
first cell of a notebook finds the course or installs the wheel, which this machine serves in place of the release.
A warning that our code causes is an error, and nothing that was installed may have changed in the end. COURSE_BUDGET
does not count here; CIFAR10_PATH and BACKBONE_PATH do, and without them the lessons work on stand-ins.

`build/matrix.json` gets a row's seconds, how many lessons passed, and what failed first. The exit status is 1 where
something failed; a row that cannot run here is named, and is no failure.
"""

import argparse
import functools
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
import openers
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from run_course import seconds

from cifar_helpers.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
TENSORFLOWS = ("2.19", "2.20", "newest")
COLAB = {tensorflow: f"constraints-colab-{tensorflow}.txt" for tensorflow in ("2.19", "2.20")}
COLAB_PYTHON = "3.12"
UNMADE = {("3.13", "2.19"): "TensorFlow 2.19 is not made for Python 3.13"}
KERNEL = ("ipykernel", "ipywidgets")  # what notebooks need, beside the course's own requirements
CELL_SECONDS = 900
SERVES = "import sys, venv, ensurepip; print('.'.join(map(str, sys.version_info[:2])))"


@dataclass(frozen=True)
class Row:
    """One environment: `constraints` is a file of the repository or empty; `colab` installs all but the course."""

    name: str
    python: str
    tensorflow: str = "newest"
    constraints: str = ""
    colab: bool = False


def described() -> dict:
    """The `project` table of pyproject.toml, where the supported range stands."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def rows() -> list[Row]:
    """Every row, in order: each supported Python with each TensorFlow, the lowest versions of all, and Colab's."""
    supported = SpecifierSet(described()["requires-python"])
    pythons = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported]
    return [*(Row(f"{python}-{tensorflow}", python, tensorflow) for python in pythons for tensorflow in TENSORFLOWS),
            Row("lowest", pythons[0], "2.19", "constraints-lowest.txt"),
            *(Row(f"colab-{name}", COLAB_PYTHON, name, file, True) for name, file in COLAB.items())]


def python_for(version: str) -> str | None:
    """An interpreter of this version that can make environments: this one, one on the path, or one of pyenv's."""
    here = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"), reverse=True)
    for candidate in (sys.executable, shutil.which(f"python{version}"), *here):
        if candidate:
            done = subprocess.run([candidate, "-c", SERVES], capture_output=True, text=True, check=False)
            if done.stdout.strip() == version:
                return str(candidate)
    return None


def why_not(row: Row) -> str | None:
    """Why a row cannot run here, and what to do; None where it can."""
    if reason := UNMADE.get((row.python, row.tensorflow)):
        return reason
    if not python_for(row.python):
        return (f"no Python {row.python} with venv here: `pyenv install {row.python}`, or the system's packages "
                f"python{row.python} and python{row.python}-venv")
    return None


# --- a row ---


def requirements(row: Row, wheel: Path) -> list[str]:
    """What pip is asked to install before the lessons run."""
    chosen = [] if row.tensorflow == "newest" else [f"tensorflow=={row.tensorflow}.*"]
    course = [Requirement(text).name for text in described()["dependencies"]] if row.colab else [str(wheel)]
    return [*course, *chosen, *KERNEL]


def install(row: Row, folder: Path, wheel: Path) -> Path:
    """Make the row's environment and return its Python. Raises CourseError with pip's last words."""
    subprocess.run([python_for(row.python), "-m", "venv", "--clear", folder], check=True, capture_output=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    limits = ["-c", str(ROOT / row.constraints)] if row.constraints else []
    for wanted in (["pip"], requirements(row, wheel)):  # Colab's pip, too, installs the course
        command = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *limits, *wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
        if done.returncode:
            raise CourseError(f"pip: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return python


def installed(python: Path) -> dict[str, str]:
    """Names and versions of all that is installed there."""
    done = subprocess.run([python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
                          capture_output=True, text=True, check=True, env=_environment())
    return {package["name"]: package["version"] for package in json.loads(done.stdout)}


def _environment(**more: str) -> dict[str, str]:
    """This process's environment without what would let the course of this checkout be found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COURSE_", "MPL"))}
    away = ",".join(filter(None, (os.environ.get("no_proxy"), "127.0.0.1")))
    return kept | {"no_proxy": away, "NO_PROXY": away} | more


def warnings_as_errors() -> str:
    """PYTHONWARNINGS under which a warning that a lesson's cell or one of our modules causes is an error."""
    modules = sorted((ROOT / "cifar_helpers").rglob("*.py"))
    ours = ["__main__", *(".".join(module.relative_to(ROOT).with_suffix("").parts) for module in modules)]
    return ",".join(f"error:::{module}" for module in ours)


def run_notebook(notebook: Path, address: str, python: Path, folder: Path, environment: dict) -> float:
    """Run all cells of a notebook in `folder`, its release at `address`, and return the seconds of its first code cell.

    Raises CourseError with the cell and the reason where one fails.
    """
    text = notebook.read_text(encoding="utf-8")
    release = openers.project(ROOT)["wheel"]
    if text.count(release) != 1:
        raise CourseError(f"{notebook.stem} does not name the release once: run `make notebooks`")
    content = nbformat.reads(text.replace(release, address), as_version=4)
    done, ended = [], []

    class Kernel(AsyncKernelManager):
        async def is_alive(self):
            ended.append(await self.provisioner.poll() if self.provisioner else None)  # a status says what killed it
            return await super().is_alive()

        @property
        def kernel_spec(self):
            argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="row", language="python")

    client = NotebookClient(content, kernel_manager_class=Kernel, timeout=CELL_SECONDS, startup_timeout=180,
                            resources={"metadata": {"path": str(folder)}},
                            on_cell_execute=lambda cell, cell_index: done.append(cell))
    try:
        client.execute(env=environment, stderr=subprocess.DEVNULL)
    except (CellExecutionError, RuntimeError, TimeoutError) as error:
        where = f"cell {len(done)} ({_first_line(done[-1])})" if done else "the start of its kernel"
        said = (str(getattr(error, "evalue", error)).splitlines() or [""])[0]
        if isinstance(error, CellExecutionError):
            said = f"{error.ename}: {said}"
        elif status := next(filter(None, ended), None):
            said = f"{said}, by {signal.Signals(-status).name}" if status < 0 else f"{said}, with status {status}"
        raise CourseError(f"{notebook.stem}, {where}: {said}") from error
    times = next(cell for cell in content.cells if cell.cell_type == "code").metadata["execution"]
    begun, ended = (datetime.fromisoformat(times[name]) for name in ("iopub.execute_input", "shell.execute_reply"))
    return (ended - begun).total_seconds()


def _first_line(cell) -> str:
    return next((line for line in cell.source.splitlines() if line.strip() and not line.startswith("#")), "")


@contextmanager
def served(folder: Path):
    """The address of a folder, served on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def run_row(row: Row, notebooks: list[Path], wheel: Path, address: str, folder: Path) -> dict:
    """Run one row and return what `build/matrix.json` says about it."""
    begun = time.monotonic()
    result = {"row": row.name, "passed": 0, "lessons": len(notebooks), "skipped": None}
    shutil.rmtree(folder, ignore_errors=True)
    try:
        python = install(row, folder / "environment", wheel)
        before = installed(python)
        result["versions"] = {name: before.get(name) for name in ("tensorflow", "keras", "numpy", "ipykernel")}
        opened, failures = run_notebooks(row.name, notebooks, address, python, folder / "cache")
        result |= {"passed": len(opened), "first_cell_seconds": opened}
        failures += changes(before, installed(python), row.colab)
    except (CourseError, subprocess.CalledProcessError) as error:
        failures = [f"environment: {error}"]
    return result | {"seconds": round(time.monotonic() - begun), "first_failure": failures[0] if failures else None}


def run_notebooks(name: str, notebooks: list[Path], address: str, python: Path, cache: Path) -> tuple[dict, list[str]]:
    """Run lessons in a new folder: the seconds of each first cell, by lesson that passed, and a sentence a failure."""
    opened, failures = {}, []
    environment = _environment(COURSE_BUDGET="smoke", COURSE_OFFLINE="1", COURSE_CACHE=str(cache),
                               PYTHONWARNINGS=warnings_as_errors())
    # Not under the checkout, which a first cell would find.
    with tempfile.TemporaryDirectory(prefix="course-matrix-", ignore_cleanup_errors=True) as empty:
        for notebook in notebooks:
            print(f"{name}: {notebook.stem}", flush=True)
            try:
                opened[notebook.stem] = round(run_notebook(notebook, address, python, Path(empty), environment), 1)
            except CourseError as error:
                failures.append(str(error))
                print(f"{name}: {error}", flush=True)
    return opened, failures


def changes(before: dict[str, str], after: dict[str, str], colab: bool) -> list[str]:
    """A sentence where lessons changed what was installed; Colab gets the course, and nothing else."""
    expected = before | ({"cifar-helpers": described()["version"]} if colab else {})
    names = sorted({name for name, _ in set(expected.items()) ^ set(after.items())})
    said = ", ".join(f"{name} {expected.get(name, 'none')} is {after.get(name, 'none')}" for name in names)
    return [f"what is installed is not what it should be: {said}"] if names else []


# --- the whole ---


def build_wheel(folder: Path) -> Path:
    """A wheel of the course, built anew. Raises CourseError with pip's last words."""
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-w", folder, ROOT], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CourseError(f"The wheel cannot be built: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return next(folder.glob("*.whl"))


def table(results: list[dict]) -> str:
    """The results as a table for a terminal."""
    lines = [("row", "seconds", "passed", "first failure, or why it did not run")]
    for result in results:
        passed = "–" if result["skipped"] else f"{result['passed']} of {result['lessons']}"
        said = f"skipped: {result['skipped']}" if result["skipped"] else result["first_failure"] or ""
        lines.append((result["row"], str(result.get("seconds", "–")), passed, said))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join("  ".join([*(text.ljust(width) for text, width in zip(line[:3], widths, strict=True)), line[3]])
                     .rstrip() for line in lines)


def chosen_rows(names: list[str]) -> list[Row]:
    """The rows of these names, all where there is none. Raises CourseError where a name is none."""
    known = {row.name: row for row in rows()}
    if unknown := [name for name in names if name not in known]:
        raise CourseError(f"There is no row {', '.join(unknown)}: take {', '.join(known)}.")
    return [known[name] for name in names] or list(known.values())


def run(chosen: list[Row], notebooks: list[Path], build: Path, keep: bool) -> list[dict]:
    """Run rows one after the other; the file of results is written after each. Raises CourseError."""
    folder = build / "matrix"
    wheel = build_wheel(folder / "wheel")
    results = []
    with served(wheel.parent) as address:
        for row in chosen:
            if reason := why_not(row):
                results.append({"row": row.name, "skipped": reason, "first_failure": None})
            else:
                results.append(run_row(row, notebooks, wheel, f"{address}/{wheel.name}", folder / row.name))
                if not keep:
                    shutil.rmtree(folder / row.name, ignore_errors=True)
            (build / "matrix.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the exit status is 1 where a lesson failed, 2 where the call makes no sense."""
    parser = argparse.ArgumentParser(description="Run every lesson on every supported Python and TensorFlow.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows (all); --list names them")
    parser.add_argument("--list", action="store_true", help="name the rows, and say which of them cannot run here")
    parser.add_argument("--lessons", default="", help="which lessons, like 1,2 (all)")
    parser.add_argument("--keep", action="store_true", help="leave the environments and folders in build/matrix")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="where everything goes (build/)")
    options = parser.parse_args(arguments)
    try:
        chosen = chosen_rows(options.rows)
        if options.list:
            print("\n".join(f"{row.name:12} {why_not(row) or ''}".rstrip() for row in chosen))
            return 0
        numbers = [int(number) for number in re.findall(r"\d+", options.lessons)]
        notebooks = [path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
                     if not numbers or int(path.name[:2]) in numbers]
        results = run(chosen, notebooks, options.build.resolve(), options.keep)
    except (CourseError, openers.OpenerError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{table(results)}\n\n{len(results)} rows in {seconds(sum(row.get('seconds', 0) for row in results))}")
    return 1 if any(row["first_failure"] for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
