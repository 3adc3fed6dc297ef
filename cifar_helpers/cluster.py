"""Several worker processes on this machine, joined by `TF_CONFIG` as the machines of a cluster are."""

import ast
import dis
import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import numpy as np

from cifar_helpers.errors import CourseError
from cifar_helpers.paths import checkout

LINES, WIDTH = 40, 160  # of a worker's output, what a cell shows
PLAIN = (str, int, float, bool, type(None))

# Around the functions of a lesson. A worker that is done stays until all are: one that left early would look dead to
# the others. Its standard input closes when it may go, and also when the process that started it is no more.
PROGRAM = '''\
import json as _json
import os as _os
import sys as _sys
import threading as _threading
import time as _time
import traceback as _traceback
from pathlib import Path as _Path

import numpy as _np

_here = _Path(__file__).parent
_rank = _os.environ["COURSE_WORKER"]


def _leave_with_the_launcher():
    _sys.stdin.buffer.read()
    _leave(0)


def _leave(status):
    _sys.stdout.flush()
    _sys.stderr.flush()
    _os._exit(status)  # without TensorFlow's own way out, which waits for workers that may be gone


def _write(name, content):
    (_here / (name + ".new")).write_bytes(content)
    (_here / (name + ".new")).replace(_here / name)  # it appears whole


_thread = _threading.Thread(target=_leave_with_the_launcher, daemon=True)
_thread.start()

{source}

try:
    with _np.load(_here / "arrays.npz", allow_pickle=False) as _stored:
        _arrays = dict(_stored)
    _result = {name}(**_json.loads((_here / "plain.json").read_text(encoding="utf-8")), **_arrays) or {{}}
    if not isinstance(_result, dict):
        raise TypeError("the function must return a dict of arrays and plain values, or nothing")
    _arrays = {{key: value for key, value in _result.items() if isinstance(value, _np.ndarray)}}
    _np.savez(_here / ("result-" + _rank + ".npz"), **_arrays)
    _rest = {{key: value for key, value in _result.items() if key not in _arrays}}
    _write("result-" + _rank + ".json", _json.dumps(_rest).encode())
except BaseException as _error:
    _traceback.print_exc()
    _said = {{"type": type(_error).__name__, "message": str(_error), "time": _time.time()}}
    _write("error-" + _rank + ".json", _json.dumps(_said).encode())
    _leave(1)
_thread.join()
'''


def launch(function, *, workers: int = 2, arguments: dict | None = None, limit: float = 240, patience: float = 0,
           show: bool = True) -> list[dict]:
    """Run `function(**arguments)` in `workers` processes at once, and return what each returned, in their order.

    The function's source, that of the lesson's functions it calls, and the imports and plain constants they use are
    written into a program in a temporary folder. Each process finds the cluster in `TF_CONFIG`, as on machines of its
    own: addresses on the loopback interface, free ports. It sees no GPU, computes with one thread and, on Linux, stays
    on one core. Arguments and the returned dict hold NumPy arrays and what JSON holds; nothing is pickled.

    What the workers print appears here as it comes, unless `show` is False; their error streams do not. When one dies,
    the others get `patience` seconds to notice; then they are stopped. None outlives this call, nor this process.

    Raises CourseError where the function cannot be sent, where a worker dies (named, with its last words), and where
    they are not all done after `limit` seconds.
    """
    if workers < 1:
        raise CourseError(f"A job of {workers} workers was asked for: ask for 1 or more.")
    arrays = {key: value for key, value in (arguments or {}).items() if isinstance(value, np.ndarray)}
    try:
        plain = json.dumps({key: value for key, value in (arguments or {}).items() if key not in arrays})
    except TypeError as error:
        raise CourseError(f"A worker's arguments cannot be sent ({error}): give NumPy arrays, numbers, text, and lists "
                          "and dicts of them.") from error
    if unsafe := [key for key, value in arrays.items() if value.dtype.hasobject]:
        raise CourseError(f"The array {unsafe[0]!r} holds Python objects, which are not sent: give numbers.")
    program = PROGRAM.format(source=program_source(function), name=function.__name__)
    with tempfile.TemporaryDirectory(prefix="course-cluster-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        (folder / "worker.py").write_text(program, encoding="utf-8")
        (folder / "plain.json").write_text(plain, encoding="utf-8")
        np.savez(folder / "arrays.npz", **arrays)
        processes: list[subprocess.Popen] = []
        try:
            for environment in _environments(workers):
                processes.append(_start(folder, environment))
            _wait(processes, folder, limit, patience, show)
            return [_result(folder, rank) for rank in range(workers)]
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()
                process.stdin.close()


# --- the program ---


def program_source(function) -> str:
    """The imports, constants and functions that `function` needs, and the function itself, as Python source.

    Raises CourseError where it uses a value that is neither a module, nor a function, nor a plain constant.
    """
    imports: dict[str, None] = {}  # dicts, for they keep the order
    sources: dict[str, None] = {}
    _collect(function, imports, sources, set())
    return "\n".join(imports) + "\n\n\n" + "\n\n".join(sources)


def _collect(function, imports, sources, seen) -> None:
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise CourseError(f"{function!r} is no function that workers can be given: define one with `def`.")
    if function.__closure__:
        raise CourseError(f"{function.__name__} uses variables of a function around it: define it on its own, and "
                          "give it what it needs as arguments.")
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise CourseError(f"The source of {function.__name__} cannot be found: define it in a cell or in a "
                          "file.") from error
    seen.add(function.__name__)
    for name in sorted(_global_names(function, source) & function.__globals__.keys() - seen):
        if name in seen:  # by way of a function before it in the alphabet
            continue
        seen.add(name)
        value = function.__globals__[name]
        if isinstance(value, FunctionType) and value.__globals__ is function.__globals__:
            _collect(value, imports, sources, seen)
        elif isinstance(value, ModuleType):
            imports[f"import {value.__name__} as {name}"] = None
        elif inspect.isroutine(value) or inspect.isclass(value):
            imports[_import_of(value, name, function)] = None
        elif type(value) in PLAIN:  # a subclass's repr need not be Python
            imports[f"{name} = {value!r}"] = None
        else:
            raise CourseError(f"{function.__name__} uses {name!r}, a {type(value).__name__}, which workers do not "
                              "have: give it to `launch` as an argument.")
    sources[source] = None


def _global_names(function, source: str) -> set[str]:
    """What a function's body, and the functions in it, look up outside; and what its first line names."""
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names |= {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    definition = ast.parse(source).body[0]
    opening = [definition.args, *definition.decorator_list]
    return names | {node.id for part in opening for node in ast.walk(part) if isinstance(node, ast.Name)}


def _import_of(value, name, function) -> str:
    module, original = getattr(value, "__module__", None), getattr(value, "__name__", "")
    if module in (None, "__main__", function.__globals__.get("__name__")) or not original.isidentifier():
        raise CourseError(f"{function.__name__} uses {name!r}, which workers cannot import: put it into a module, or "
                          "use a function.")
    return f"from {module} import {original} as {name}"


# --- the processes ---


def free_ports(count: int) -> list[int]:
    """As many different ports of the loopback interface that nothing listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _environments(workers: int) -> list[dict]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    away = ",".join(filter(None, (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1")))
    shared = os.environ | {
        "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8",
        "no_proxy": away, "NO_PROXY": away,
    }
    if root := checkout():  # a lesson may have found it there, not installed
        shared["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    return [shared | {"COURSE_WORKER": str(rank), "TF_CONFIG": json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}})} for rank in range(workers)]


def _start(folder: Path, environment: dict) -> subprocess.Popen:
    rank = int(environment["COURSE_WORKER"])
    with (folder / f"output-{rank}").open("wb") as output, (folder / f"errors-{rank}").open("wb") as errors:
        process = subprocess.Popen([sys.executable, str(folder / "worker.py")], env=environment,
                                   stdin=subprocess.PIPE, stdout=output, stderr=errors)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        with suppress(OSError):  # it is gone already, or the system forbids it: then the limit on threads must do
            os.sched_setaffinity(process.pid, {cores[rank % len(cores)]})
    return process


def _wait(processes, folder, limit, patience, show) -> None:
    """Until every worker has left its result; shows their output meanwhile."""
    begun, shown = time.monotonic(), [0] * len(processes)
    first, since = None, 0.0
    while True:
        done = [(folder / f"result-{rank}.json").is_file() for rank in range(len(processes))]
        dead = [rank for rank, process in enumerate(processes) if process.poll() is not None and not done[rank]]
        seconds = time.monotonic() - begun
        if show:
            shown = [_show(folder, rank, count) for rank, count in enumerate(shown)]
        if all(done):
            return
        if dead and first is None:
            first, since = min(dead, key=lambda rank: _order(folder, processes[rank], rank)), seconds
        if first is not None and (seconds - since >= patience or len(dead) + sum(done) == len(processes)):
            raise CourseError(_death(processes, folder, first, dead, since))
        if seconds > limit:
            late = done.index(False)
            raise CourseError(f"Not all of the {len(processes)} workers were done after {limit:g} seconds, and they "
                              f"were stopped; worker {late} said last: {_last_words(folder, late)}")
        time.sleep(0.05)


def _order(folder, process, rank) -> tuple:
    """Of several deaths, the first: by a signal before by an error, which may follow from it; then by time."""
    return process.returncode >= 0, (_error(folder, rank) or {"time": 0.0})["time"]


def _death(processes, folder, first, dead, seconds) -> str:
    error, status = _error(folder, first), processes[first].returncode
    if error:
        how = f"stopped with {error['type']}: {_first_line(error['message'])}"
    elif status < 0:
        how = f"was killed by {_signal_name(-status)}; it said last: {_last_words(folder, first)}"
    else:
        how = f"ended with exit status {status} and no result; it said last: {_last_words(folder, first)}"
    told = f"After {seconds:.0f} seconds worker {first} of {len(processes)} (counted from 0) {how}"
    for rank in range(len(processes)):
        if rank != first:
            error = _error(folder, rank) if rank in dead else None
            told += (f"\nWorker {rank} then stopped with {error['type']}: {_first_line(error['message'])}" if error
                     else f"\nWorker {rank} was stopped by the launcher.")
    return told


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _error(folder: Path, rank: int) -> dict | None:
    try:
        return json.loads((folder / f"error-{rank}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _first_line(message: str) -> str:
    """An error's message in a line, without TensorFlow's node names and headings."""
    message = re.sub(r"\{\{function_node.*?\}\} ", "", message)
    lines = [line.strip() for line in message.splitlines()]
    useful = [line for line in lines if line and line not in ("Graph execution error:",)
              and not line.startswith(("Detected at node", "File ", "[[{{"))]
    return textwrap.shorten(useful[0] if useful else "no message", 2 * WIDTH, placeholder=" …")


def _last_words(folder: Path, rank: int) -> str:
    """The last line of a worker's error stream that is no log of TensorFlow's or gRPC's, else of its output."""
    for name in (f"errors-{rank}", f"output-{rank}"):
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines()]
        useful = [line for line in lines if line and not re.match(
            r"[IWEF]\d{4} |\d{4}-\d\d-\d\d \d\d:\d\d|WARNING: All log messages|I tensorflow|[\^~ ]+$", line)]
        if useful:
            return textwrap.shorten(useful[-1], 2 * WIDTH, placeholder=" …")
    return "nothing"


def _show(folder: Path, rank: int, count: int) -> int:
    """Print a worker's new whole lines, up to LINES in all, and return how many there were by now."""
    with (folder / f"output-{rank}").open("rb") as file:
        text = file.read().decode("utf-8", errors="replace")
    lines = text[:text.rfind("\n") + 1].splitlines()
    for number in range(count, min(len(lines), LINES + 1)):
        line = lines[number] if number < LINES else "… (more output is not shown)"
        print(f"worker {rank} | {textwrap.shorten(line, WIDTH, placeholder=' …') if len(line) > WIDTH else line}")
    return len(lines)


def _result(folder: Path, rank: int) -> dict:
    with np.load(folder / f"result-{rank}.npz", allow_pickle=False) as stored:
        return json.loads((folder / f"result-{rank}.json").read_text(encoding="utf-8")) | dict(stored)
