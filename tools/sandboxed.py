"""What runs inside the sandbox: one student's cells in one kernel. It does not trust the kernel, and no one trusts it.

    python sandboxed.py            reads one line of JSON from stdin, writes a line of JSON a cell to stdout
    python sandboxed.py --kernel   is the kernel of the above

In: `cells` (a list of `code` and, for a graded cell, `graded` with the source's `imports` and the `names` that its
solutions define), `cell_seconds`, `output_bytes`, `memory_bytes`, `checks` (names of functions), `own_users` (whether
no process outside counts as this user's). Out, for each cell that ran: `status` ("ok", "error", "timeout", "flood",
"dead", or "changed" where a graded cell passes whatever the answer is) and `outputs` of nbformat.
It stands alone, since the sandbox shows no other file of the tools.
"""

import builtins
import contextlib
import ctypes
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

GRACE_SECONDS = 4  # for a kernel that was interrupted to come to rest
START_SECONDS = 200  # for a kernel to come up: on a busy machine an import takes long
QUIET_SECONDS = 2  # a cell that replied and says nothing for so long is over, also where its last message was lost
THREADS = 1024  # of all processes together, where no one else has this user; root is not bound by it
MARKER = "course_graded"  # the key in a request's metadata that makes a cell a graded one
CHECKS = "COURSE_CHECKS"  # the environment variable that names the checks which a notebook calls
GUARDED = ("builtins", "math", "numpy", "cifar_helpers")  # what checks are made of
PR_SET_DUMPABLE = 4


# --- the kernel ---


def snapshot() -> list:
    """Functions, classes and modules by name in every guarded module, and the code of the functions."""
    found = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in GUARDED and module is not None:
            found += _members(vars(module))
            found += [entry for value in list(vars(module).values())
                      if isinstance(value, type) and value.__module__.startswith("cifar_helpers")
                      for entry in _members(vars(value), value)]
    return found


def _members(names, owner=None) -> list:
    kinds = (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType)
    return [(names if owner is None else owner, name, value,
             (value.__code__, value.__defaults__, value.__kwdefaults__) if isinstance(value, types.FunctionType)
             else None)
            for name, value in list(names.items())
            if isinstance(value, kinds) or (callable(value) and not name.startswith("__"))]


def restore(members: list) -> None:
    """Undo whatever a cell did to them."""
    for owner, name, value, code in members:
        if isinstance(owner, dict):
            if owner.get(name) is not value:
                owner[name] = value
        elif vars(owner).get(name) is not value:
            setattr(owner, name, value)
        if code is not None and (value.__code__, value.__defaults__, value.__kwdefaults__) != code:
            value.__code__, value.__defaults__, value.__kwdefaults__ = code
    known = {(id(owner), name) for owner, name, *_ in members}
    owners = {at for at, _ in known}
    for module in [module for name, module in list(sys.modules.items()) if name.startswith("cifar_helpers.checks")]:
        for name, value in list(vars(module).items()) if id(vars(module)) in owners else ():
            if isinstance(value, types.FunctionType) and (id(vars(module)), name) not in known:
                delattr(module, name)  # a function under the name of one that would have been looked up elsewhere


def start_kernel(arguments: list[str]) -> None:
    """A kernel of IPython that runs graded cells in a clean namespace, and undoes what a cell did to the checks."""
    from ipykernel.ipkernel import IPythonKernel
    from ipykernel.kernelapp import IPKernelApp

    checks = importlib.import_module("cifar_helpers.checks")
    for name in os.environ.get(CHECKS, "").split():
        getattr(checks, name)  # imports the lesson's module, before a student's cell could do it
    members, own, hooks = snapshot(), set(), {}

    def put_back(shell):
        if not own:  # before the first cell
            own.update(vars(shell))
            hooks.update({event: list(shell.events.callbacks[event]) for event in ("pre_execute", "pre_run_cell")})
        restore(members)
        for name in [name for name in vars(shell) if name not in own
                     and isinstance(getattr(type(shell), name, None), types.FunctionType)]:
            delattr(shell, name)  # a method that a cell put before the class's own
        for event, callbacks in hooks.items():
            shell.events.callbacks[event][:] = callbacks
        shell.ast_transformers, shell.custom_exceptions = [], ()
        shell.input_transformers_post.clear()

    def clean(shell, graded):
        module = types.ModuleType("__main__")
        vars(module).update({name: value for name, value in shell.user_ns.items() if not hasattr(builtins, name)})
        exec(graded["imports"], vars(module))
        vars(module).update(dict.fromkeys(graded["without"]))
        return module

    class GradingKernel(IPythonKernel):
        async def do_execute(self, code, silent, *arguments, **options):
            shell = self.shell
            put_back(shell)
            graded = (self.get_parent("shell").get("metadata") or {}).get(MARKER)
            if graded is None:
                return await super().do_execute(code, silent, *arguments, **options)
            module, names = shell.user_module, shell.user_ns
            shown = shell.ast_node_interactivity
            try:
                shell.user_module = clean(shell, graded)
                shell.user_ns = vars(shell.user_module)
                shell.ast_node_interactivity = "none"  # nbgrader would take a value that is shown for points
                return await super().do_execute(code, silent, *arguments, **options)
            finally:
                shell.user_module, shell.user_ns, shell.ast_node_interactivity = module, names, shown

    IPKernelApp.launch_instance(argv=arguments, kernel_class=GradingKernel)


# --- the one who runs the cells ---


def limit(memory_bytes: int, own_users: bool) -> None:
    """Bound memory, files and core dumps of this process and of what it starts; hide it from the kernel it starts."""
    try:
        import resource
    except ImportError:  # Windows, without a sandbox
        return
    bounds = {resource.RLIMIT_DATA: memory_bytes, resource.RLIMIT_CORE: 0}
    if own_users and tuple(map(int, os.uname().release.split(".")[:2])) >= (5, 14):
        bounds[resource.RLIMIT_NPROC] = THREADS  # before, it counted all that the user runs, and not the sandbox's only
    for what, bound in bounds.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (bound, bound))
    with contextlib.suppress(OSError, AttributeError):
        # Otherwise the kernel, which has the same user, could write into our standard output.
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


class Kernel:
    """A kernel process, its client, and the cells that it is asked to run."""

    def __init__(self, cell_seconds: float, output_bytes: int, checks: list[str]):
        from jupyter_client import BlockingKernelClient
        from jupyter_client.connect import write_connection_file

        self.cell_seconds, self.output_bytes = cell_seconds, output_bytes
        self.folder = tempfile.mkdtemp(prefix="kernel-")
        file, _ = write_connection_file(str(Path(self.folder) / "connection.json"))
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--kernel", "-f", file, "--HistoryManager.enabled=False"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, CHECKS: " ".join(checks)})
        self.client = BlockingKernelClient()
        self.client.load_connection_file(file)
        self.client.start_channels()
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(RuntimeError):
                self.client.wait_for_ready(timeout=2)
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("no kernel came up")

    def run(self, code: str, graded: dict | None = None) -> tuple[str, list]:
        """The status and the outputs of a cell; a kernel that does not come to rest is killed."""
        client = self.client
        content = {"code": code, "silent": False, "store_history": graded is None, "user_expressions": {},
                   "allow_stdin": False, "stop_on_error": False}
        message = client.session.msg("execute_request", content)
        if graded is not None:
            message["metadata"][MARKER] = graded
        client.shell_channel.send(message)
        request = message["header"]["msg_id"]

        outputs, size, status, reply, idle = [], 0, None, None, False
        deadline, heard = time.monotonic() + self.cell_seconds, time.monotonic()
        while not (reply and (idle or time.monotonic() - heard > QUIET_SECONDS)):
            try:
                said = client.get_iopub_msg(timeout=0.1)
            except queue.Empty:
                said = None
            if said is not None and said["parent_header"].get("msg_id") == request:
                heard = time.monotonic()
                idle = idle or (said["msg_type"] == "status" and said["content"].get("execution_state") == "idle")
                if status is None:
                    size += _add(outputs, said, self.output_bytes - size)
            if reply is None:
                reply = self._reply(request)
            if self.process.poll() is not None:
                return "dead", outputs
            if status is None and (size > self.output_bytes or time.monotonic() > deadline):
                status = "flood" if size > self.output_bytes else "timeout"
                self.process.send_signal(signal.SIGINT)
                deadline = time.monotonic() + GRACE_SECONDS
            elif status is not None and time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                break
        return status or reply["content"].get("status", "error"), outputs

    def _reply(self, request: str) -> dict | None:
        with contextlib.suppress(queue.Empty):
            while True:
                reply = self.client.get_shell_msg(timeout=0)
                if reply["parent_header"].get("msg_id") == request and reply["msg_type"] == "execute_reply":
                    return reply
        return None

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        self.client.stop_channels()
        self.process.kill()
        self.process.wait()


def _add(outputs: list, message: dict, room: int) -> int:
    """Append what a message shows, as far as there is room for it, and return its size in bytes, about."""
    kind, content = message["msg_type"], message["content"]
    if kind in ("display_data", "execute_result", "error"):
        size = len(json.dumps(content))
        if size > room:
            return size
    if kind == "stream":
        whole = str(content["text"])
        text = whole[:max(0, room)]
        if outputs and outputs[-1]["output_type"] == "stream" and outputs[-1]["name"] == content["name"]:
            outputs[-1]["text"] += text
        else:
            outputs.append({"output_type": "stream", "name": content["name"], "text": text})
        return len(whole) + 1
    if kind in ("display_data", "execute_result"):
        outputs.append({"output_type": "display_data", "data": dict(content["data"]), "metadata": {}})
        return size
    if kind == "error":
        outputs.append({"output_type": "error", "ename": str(content["ename"]), "evalue": str(content["evalue"]),
                        "traceback": [str(line) for line in content["traceback"]]})
        return size
    return 100  # what shows nothing takes room on its way too


def main() -> int:
    """Run the cells that stdin names, one after the other, until one ends the kernel."""
    task = json.loads(sys.stdin.readline())
    limit(task["memory_bytes"], task["own_users"])
    kernel = Kernel(task["cell_seconds"], task["output_bytes"], task["checks"])
    _tell(ready=True)
    for cell in task["cells"]:
        graded = cell.get("graded")
        asked = None if graded is None else {"imports": graded["imports"], "without": []}
        status, outputs = kernel.run(cell["code"], asked)
        if status == "ok" and graded and graded["names"]:
            # The same tests must fail where there is no answer: else somebody took their teeth out.
            empty, _ = kernel.run(cell["code"], asked | {"without": graded["names"]})
            status = "changed" if empty == "ok" else status
        _tell(status=status, outputs=outputs)
        if not kernel.alive():
            break
    _tell(done=True)
    kernel.stop()
    return 0


def _tell(**what) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--kernel"]:
        os.environ.setdefault("PYTHONSAFEPATH", "1")
        start_kernel(sys.argv[2:])
    else:
        sys.exit(main())
