"""Runs students' cells where they can do no harm: in bubblewrap, else in a container, else only where that is wished.

The sandbox has no network, sees Python and the course and nothing else of this machine, can write to its own scratch
folder only, and is ended where it takes too long, too much memory or too many processes. What runs inside is
sandboxed.py; `run` returns what it says, and never waits for it longer than the limits.

Tests and answers share one Python process, as they do in nbgrader everywhere: who writes code against this very grader
can forge marks of his own. He cannot see or touch anything of anyone else.
"""

import importlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import psutil

import cifar_helpers

ROOT = Path(__file__).resolve().parent.parent
INSIDE = ROOT / "tools" / "sandboxed.py"
PACKAGE = Path(cifar_helpers.__file__).resolve().parent
SCRATCH = "/scratch"
FONTS = f"{SCRATCH}/.matplotlib"
SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/etc/fonts",
          "/etc/localtime"]
IMAGE = "cifar-course-grading"
DONE, TIMEOUT, MEMORY, FLOOD, DEAD, PROCESSES = "done", "timeout", "memory", "flood", "dead", "processes"


@dataclass(frozen=True)
class Limits:
    """What one submission may take."""

    cell_seconds: float = 60
    notebook_seconds: float = 240
    memory_mb: int = 4096
    output_kb: int = 4096  # of one cell; a notebook may have four times as much
    scratch_mb: int = 256
    processes: int = 64


def kinds() -> list[str]:
    """The sandboxes that work here, best first: of "bubblewrap", "docker", "podman"; each was tried."""
    found = []
    if sys.platform == "linux" and shutil.which("bwrap") and _works(
            [*_bubblewrap(Limits(), []), sys.executable, "-c", "import ipykernel"]):
        found.append("bubblewrap")
    found += [engine for engine in ("docker", "podman")
              if shutil.which(engine) and _works([engine, "image", "inspect", IMAGE])]
    return found


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def python_folders() -> list[Path]:
    """The folders that this Python needs, the course's own package among them, and none that holds more."""
    program = str(Path(sys.executable).resolve().parent.parent)
    paths = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, program}
    paths.update(sysconfig.get_paths().values())
    # A .pth file may lead to another environment's packages; a checkout on the path would lead to the solutions.
    paths.update(entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages"))
    paths.update(_environment_of(entry) for entry in list(paths))
    found = sorted({Path(path) for path in paths if path and Path(path).is_dir()} - {Path("/")})
    kept = [path for path in found if not any(path != other and path.is_relative_to(other) for other in found)]
    return [*(path for path in kept if not ROOT.is_relative_to(path) and not path.is_relative_to("/usr")), PACKAGE]


def _environment_of(path: str) -> str:
    return next((str(parent) for parent in Path(path).parents if (parent / "pyvenv.cfg").is_file()), "")


def environment() -> dict[str, str]:
    """What a kernel sees of this environment: where Python is, and the course's smallest budget."""
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": SCRATCH, "TMPDIR": SCRATCH,
            "USER": "student", "LANG": "C.UTF-8", "PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1",
            "COURSE_BUDGET": "smoke", "COURSE_OFFLINE": "1", "COURSE_CACHE": f"{SCRATCH}/cache",
            "COURSE_RUNS": f"{SCRATCH}/runs", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3",
            "MPLCONFIGDIR": FONTS, "JUPYTER_PLATFORM_DIRS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            **{name: os.environ[name] for name in ("COURSE_SEED",) if name in os.environ}}


def data_files() -> dict[str, Path]:
    """The images and the backbone that the environment names, to be shown read-only."""
    return {name: Path(os.environ[name]).resolve() for name in ("CIFAR10_PATH", "BACKBONE_PATH")
            if os.environ.get(name) and Path(os.environ[name]).exists()}


def font_list() -> list[Path]:
    """Matplotlib's list of fonts, which takes seconds to make in a folder where there is none."""
    importlib.import_module("matplotlib.font_manager")
    return sorted(Path(matplotlib.get_cachedir()).glob("fontlist-*.json"))


def _bubblewrap(limits: Limits, hidden: list[Path]) -> list[str]:
    command = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL",
               "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox",
               "--proc", "/proc", "--dev", "/dev",
               "--size", str(limits.scratch_mb << 20), "--tmpfs", "/dev/shm",
               "--size", str(1 << 20), "--tmpfs", "/tmp",
               "--size", str(limits.scratch_mb << 20), "--tmpfs", SCRATCH]
    for path in SYSTEM:
        if Path(path).is_symlink():
            command += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).exists():
            command += ["--ro-bind", path, path]
    folders, files = python_folders(), data_files()
    for path in [*folders, INSIDE, *files.values()]:
        command += ["--ro-bind", str(path), str(path)]
    for path in font_list():
        command += ["--ro-bind", str(path), f"{FONTS}/{path.name}"]
    for path in hidden:  # in case it lies within one of those
        if any(path.is_relative_to(folder) for folder in [*folders, *map(Path, SYSTEM)]):
            command += ["--tmpfs", str(path)]
    values = environment() | {name: str(path) for name, path in files.items()}
    for name, value in values.items():
        command += ["--setenv", name, value]
    # Nothing in the small folders that are there to hold mounts can be written either.
    return [*command, "--remount-ro", "/", "--remount-ro", "/dev", "--chdir", SCRATCH, "--"]


def _container(engine: str, limits: Limits, name: str) -> list[str]:
    """The image brings its own Python and course (see grading.Dockerfile); only sandboxed.py comes from here."""
    # The limit of processes counts threads, of which TensorFlow starts several for each core.
    command = [engine, "run", "--rm", "--name", name, "--interactive", "--network", "none", "--read-only",
               "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "1000:1000",
               "--pids-limit", str(16 * limits.processes),
               "--memory", f"{limits.memory_mb}m", "--memory-swap", f"{limits.memory_mb}m",
               "--tmpfs", f"{SCRATCH}:rw,mode=1777,size={limits.scratch_mb}m", "--workdir", SCRATCH,
               "--volume", f"{INSIDE}:/sandboxed.py:ro"]
    values = {name: value for name, value in environment().items() if name not in ("PATH", "PYTHONPATH")}
    for name, path in data_files().items():
        command += ["--volume", f"{path}:/data/{path.name}:ro"]
        values[name] = f"/data/{path.name}"
    for name, value in values.items():
        command += ["--env", f"{name}={value}"]
    return [*command, IMAGE, "python", "/sandboxed.py"]


def run(cells: list[dict], kind: str, limits: Limits, hidden: list[Path] | None = None,
        checks: list[str] | None = None) -> tuple[list[dict], str]:
    """Run the cells (see sandboxed.py) and return what it says of those that ran, and how it ended.

    `kind` is one of `kinds()`, or "none" for no sandbox at all; `hidden` are folders that must not be seen inside,
    `checks` the functions of `cifar_helpers.checks` that must be as they are whatever a cell does to them. It
    ended "done", or because of "timeout", "memory", "flood" or "processes", or "dead": then the last cell that is
    missing in the answer is the one that did it. Raises RuntimeError where not even a kernel came up.
    """
    name = f"{IMAGE}-{uuid.uuid4().hex}"
    if kind == "bubblewrap":
        command = [*_bubblewrap(limits, hidden or []), sys.executable, str(INSIDE)]
    elif kind == "none":
        command = [sys.executable, str(INSIDE)]
    else:
        command = _container(kind, limits, name)
    task = {"cells": cells, "cell_seconds": limits.cell_seconds, "output_bytes": limits.output_kb << 10,
            "memory_bytes": limits.memory_mb << 20, "checks": checks or [], "own_users": kind == "bubblewrap"}
    with tempfile.TemporaryDirectory(prefix="grading-") as folder, tempfile.TemporaryFile() as complaints:
        options = {}
        if kind == "none":
            values = environment() | {"HOME": folder, "TMPDIR": folder, "COURSE_CACHE": f"{folder}/cache",
                                      "COURSE_RUNS": f"{folder}/runs", "MPLCONFIGDIR": f"{folder}/matplotlib"}
            options = {"cwd": folder, "env": {**os.environ, **values, "PATH": os.environ.get("PATH", "")}}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, **options)
        try:
            with process.stdin:
                process.stdin.write(json.dumps(task).encode() + b"\n")
            said, ended = _listen(process, limits)
        except BrokenPipeError:
            said, ended = [], DEAD
        finally:
            _end(process)
            if kind not in ("bubblewrap", "none"):  # a container outlives the command that started it
                _works([kind, "rm", "--force", name])
        if not said:
            complaints.seek(0)
            words = complaints.read(2000).decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"no kernel came up: {words[-1] if words else ended}")
    return [word for word in said if "status" in word], ended


def _listen(process: subprocess.Popen, limits: Limits) -> tuple[list[dict], str]:
    """Lines of JSON until the process ends or goes beyond a limit; the time is counted from the kernel's start."""
    said, rest, size = [], b"", 0
    deadline = time.monotonic() + 240  # for a kernel to start; sandboxed.py gives up before
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if time.monotonic() > deadline:
                return said, TIMEOUT
            if excess := _excess(process.pid, limits):
                return said, excess
            if not selector.select(timeout=0.25):
                continue
            if not (chunk := os.read(process.stdout.fileno(), 1 << 20)):
                return said, DEAD
            size += len(chunk)
            if size > limits.output_kb << 13:  # escapes in JSON and a finished notebook's worth of outputs
                return said, FLOOD
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                word = json.loads(line)
                if not said:
                    deadline = time.monotonic() + limits.notebook_seconds
                if word.get("done"):
                    return said, DONE
                said.append(word)


def _excess(pid: int, limits: Limits) -> str | None:
    try:
        family = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return None
    if len(family) > limits.processes:
        return PROCESSES
    memory = 0
    for process in family:
        try:
            memory += process.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    # A quarter more than one process may have: that one is to get an error, and to go on with its next cell.
    return MEMORY if memory > (limits.memory_mb << 20) * 1.25 else None


def _end(process: subprocess.Popen) -> None:
    """End the process and all that it started; what runs in a namespace of its own ends with its first process."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        family = []
    process.kill()
    for member in family:
        try:
            member.kill()
        except psutil.Error:
            continue
    process.stdout.close()
    process.wait()
