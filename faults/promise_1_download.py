"""The download against servers that fail in every way known, and against Ctrl-C and kill -9."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from unittest import mock

from cifar_helpers import download
from cifar_helpers.errors import DataError

PROMISE = "Download: the right archive or none, nothing fetched twice, no endless waiting"
SEED = 1
SECONDS = 0.4  # the time limit without a byte, in place of the course's 15 s
LIMIT = 20  # seconds that a call may take at most; without a limit of its own it would take for ever
PIECE = 4_096


class Server:
    """A loopback server of one file, with faults.

    `sent` counts the bytes of bodies that were handed to the network, `asked` has the places asked from.

    raw      the file
    status   of the answer; another than 200 knows no ranges
    ranges   whether it answers a request for a range with 206
    stop     a function: how many bytes an answer sends before it stalls (`stall`) or drops; None is all
    rate     bytes a second
    delay    seconds until it answers
    framing  "length", "chunked" or "none": how the end of the body is known
    claim    Content-Length, where it is not the true one
    span     Content-Range, where it is not the true one
    shift    how many bytes before the start of the Range an answer begins
    hops     redirects before the answer
    port     where it listens; 0 is a free port
    """

    def __init__(self, raw, *, status=200, ranges=True, stop=None, stall=False, rate=None, delay=0.0, framing="length",
                 claim=None, span=None, shift=0, hops=0, port=0):
        self.sent, self.asked = 0, []
        over, owner = threading.Event(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.close_connection = True
                with suppress(OSError):
                    self.answer()

            def answer(self):
                over.wait(delay)
                hop = int(self.path.rpartition("/")[2] or 0)
                if hop < hops:
                    self.send_response(302)
                    self.send_header("Location", f"/{hop + 1}")
                    self.send_header("Content-Length", "0")
                    self.send_header("Connection", "close")  # the next hop must not reuse it
                    return self.end_headers()
                asked = int(self.headers["Range"][6:-1]) if ranges and status == 200 and self.headers["Range"] else 0
                owner.asked.append(asked)
                begin = max(0, asked - shift)
                if asked and asked >= len(raw):
                    return self.send_error(416)
                self.send_response(206 if asked else status)
                if asked:
                    self.send_header("Content-Range", span or f"bytes {begin}-{len(raw) - 1}/{len(raw)}")
                if framing == "length":
                    self.send_header("Content-Length", str(len(raw) - begin if claim is None else claim))
                elif framing == "chunked":
                    self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                end = len(raw) if stop is None else min(len(raw), begin + stop())
                while begin < end and not over.is_set():
                    piece = raw[begin:min(end, begin + min(PIECE, rate // 20 if rate else PIECE))]
                    owner.sent += len(piece)  # before: whoever has received it must find it counted
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece)
                    begin += len(piece)
                    if rate:
                        over.wait(len(piece) / rate)
                if stall and end < len(raw):
                    over.wait(60)
                elif framing == "chunked" and end == len(raw):
                    self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_):
                pass

        self._over = over
        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads, self._http.block_on_close = True, False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/0"

    def close(self):
        self._over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def archive(rng: random.Random, size: int) -> bytes:
    """Bytes that pass for the official archive while `official` says so."""
    return download.GZIP + rng.randbytes(size - 1)


@contextmanager
def official(raw: bytes):
    """Let the course take `raw` for either official archive."""
    with (mock.patch.dict(download.SHA256, dict.fromkeys(download.SHA256, hashlib.sha256(raw).hexdigest())),
          mock.patch.dict(download.SIZE, dict.fromkeys(download.SIZE, len(raw))),
          mock.patch.dict(os.environ, {"NO_PROXY": "127.0.0.1"})):
        yield


HTML = b"<!DOCTYPE html><title>Please log in</title>" * 20
# What a server does: name -> (options for `Server`, whether one call on this server alone must end with the archive).
# An option may be a function of the file and the generator.
KINDS = {
    "sound": ({}, True),
    "throttled": ({"rate": 400_000}, True),
    "drips": ({"rate": 20_000}, None),
    "silent": ({"delay": 30}, False),
    "stalls at a random byte": ({"stop": lambda raw, rng: lambda: rng.randrange(len(raw)), "stall": True}, None),
    "stalls in every answer": ({"stop": lambda raw, rng: lambda: 10, "stall": True}, False),
    "drops at a random byte": ({"stop": lambda raw, rng: lambda: rng.randrange(len(raw))}, None),
    "drops, and knows no ranges": (
        {"stop": lambda raw, rng: lambda: rng.randrange(len(raw)), "ranges": False}, None),
    "drops, chunked": ({"stop": lambda raw, rng: lambda: rng.randrange(len(raw)), "framing": "chunked"}, None),
    "drops, unknown length": ({"stop": lambda raw, rng: lambda: rng.randrange(len(raw)), "framing": "none"}, None),
    "404": ({"raw": lambda raw, rng: HTML, "status": 404}, False),
    "500": ({"raw": lambda raw, rng: b"", "status": 500, "ranges": False}, False),
    "redirects": ({"hops": 3}, True),
    "redirects without end": ({"hops": 1_000_000}, False),
    "HTML page": ({"raw": lambda raw, rng: HTML, "ranges": False}, False),
    "HTML page, chunked": ({"raw": lambda raw, rng: HTML, "ranges": False, "framing": "chunked"}, False),
    "HTML page of the right size": ({"raw": lambda raw, rng: (HTML * len(raw))[:len(raw)]}, False),
    "another archive of the right size": ({"raw": lambda raw, rng: archive(rng, len(raw))}, False),
    "one wrong bit": ({"raw": lambda raw, rng: flipped(raw, rng)}, False),
    "length too small": ({"claim": lambda raw, rng: rng.randrange(len(raw))}, False),
    "length too large": ({"claim": lambda raw, rng: len(raw) + rng.randrange(1, len(raw))}, False),
    "length is no number": ({"claim": "many"}, True),
    "empty": ({"raw": lambda raw, rng: b"", "ranges": False}, False),
    "larger than the archive": (
        {"raw": lambda raw, rng: archive(rng, 30 * len(raw)), "framing": "chunked", "ranges": False}, False),
    "knows no ranges": ({"ranges": False}, True),
    "206 of another range": ({"shift": 7}, True),
    "206 that says one range and sends another": (
        {"shift": 7, "claim": None, "span": "said", "framing": "none"}, None),
    "unknown length": ({"framing": "none"}, True),
    "chunked": ({"framing": "chunked"}, True),
}


def flipped(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(1, len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1:]


def start(kind: str, raw: bytes, rng: random.Random, part: bytes = b"", **more) -> Server:
    options = {name: value(raw, rng) if callable(value) else value for name, value in KINDS[kind][0].items()}
    if options.get("span") == "said":
        options["span"] = f"bytes {len(part)}-{len(raw) - 1}/{len(raw)}"
    return Server(**{"raw": raw} | options | more)


def fetch(folder: Path, sources: list) -> str:
    """Call the course; the empty text, or how it failed."""
    began = time.monotonic()
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        try:
            download.fetch(folder, sources, seconds=SECONDS)
            failed = ""
        except DataError as error:
            failed = str(error)
    took = time.monotonic() - began
    if took > LIMIT:
        raise AssertionError(f"it took {took:.0f} s")
    if failed and "CIFAR10_PATH" not in failed:
        raise AssertionError(f"no remedy in: {failed}")
    return failed


def look(folder: Path, raw: bytes, whole: bool) -> None:
    """Raise AssertionError where the folder holds a wrong file, or anything but the archive or its part."""
    names = {file.name for file in folder.iterdir()}
    finals = names & set(download.SHA256)
    for name in finals:
        if (folder / name).read_bytes() != raw:
            raise AssertionError(f"a wrong file stands under the final name {name}")
    if whole and (names != finals or len(finals) != 1):
        raise AssertionError(f"the folder holds {sorted(names)}")
    if left := names - finals - {f"{name}.part" for name in download.SHA256}:
        raise AssertionError(f"left behind: {sorted(left)}")


def second_call(folder: Path, raw: bytes, trusted: bool) -> None:
    """A sound server must be able to end what was begun, and send only what is not here where that is `trusted`."""
    part = folder / f"{download.BINARY}.part"
    here = part.stat().st_size if part.is_file() else 0
    done = any((folder / name).is_file() for name in download.SHA256)
    sound = Server(raw)
    try:
        if failed := fetch(folder, [(download.BINARY, sound.url)]):
            raise AssertionError(f"a second call failed: {failed}")
        look(folder, raw, whole=True)
        if trusted and sound.sent > (0 if done else len(raw) - here):
            raise AssertionError(f"{here:,} of {len(raw):,} bytes were here and {sound.sent:,} were sent again")
    finally:
        sound.close()


def beside_a_sound_one(kind, raw, rng, folder):
    bad = start(kind, raw, rng)
    sound = Server(raw, delay=0.1)
    try:
        other = rng.choice(list(download.SHA256))
        if failed := fetch(folder, [(download.BINARY, bad.url), (other, sound.url)]):
            raise AssertionError(failed)
        look(folder, raw, whole=True)
    finally:
        bad.close()
        sound.close()


def alone(kind, raw, rng, folder):
    bad = start(kind, raw, rng)
    try:
        failed = fetch(folder, [(download.BINARY, bad.url)])
        must = KINDS[kind][1]
        if must is not None and must == bool(failed):
            raise AssertionError(failed or "a fault was not noticed")
        look(folder, raw, whole=not failed)
    finally:
        bad.close()
    second_call(folder, raw, trusted=True)


def after_a_part(kind, raw, rng, folder):
    part = raw[:rng.randrange(1, len(raw))]
    (folder / f"{download.BINARY}.part").write_bytes(part)
    bad = start(kind, raw, rng, part)
    try:
        failed = fetch(folder, [(download.BINARY, bad.url)])
        look(folder, raw, whole=not failed)
        left = folder / f"{download.BINARY}.part"
        same_bytes = bad_bytes_are_right(kind)
        if failed and same_bytes and (not left.is_file() or left.stat().st_size < len(part)):
            raise AssertionError("the part that was here is gone or shorter")
    finally:
        bad.close()
    second_call(folder, raw, trusted=same_bytes)


def after_a_wrong_part(kind, raw, rng, folder):
    (folder / f"{download.BINARY}.part").write_bytes(rng.randbytes(rng.randrange(1, 2 * len(raw))))
    beside_a_sound_one(kind, raw, rng, folder)


def bad_bytes_are_right(kind: str) -> bool:
    """Whether every byte that a server of this kind gets into the part belongs there."""
    return kind not in ("another archive of the right size", "one wrong bit", "HTML page of the right size",
                        "206 that says one range and sends another")


# --- Ctrl-C and kill -9 ---

CHILD = f"""
import json, sys
from pathlib import Path
from cifar_helpers import download
print("ready", flush=True)
job = json.loads(sys.stdin.readline())
download.SHA256.update(dict.fromkeys(download.SHA256, job["sha256"]))
download.SIZE.update(dict.fromkeys(download.SIZE, job["size"]))
print("begins", flush=True)
download.fetch(Path(job["folder"]), [(download.BINARY, job["url"])], seconds={SECONDS})
"""


def child() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, env=os.environ | {"NO_PROXY": "127.0.0.1"})


def stopped(how: str, process: subprocess.Popen, raw: bytes, rng: random.Random, folder: Path) -> None:
    """Stop a download at a random moment, once or, by Ctrl-C, twice in quick succession."""
    server = Server(raw, rate=1_000_000)
    try:
        process.stdout.readline()
        job = {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw), "folder": str(folder), "url": server.url}
        print(json.dumps(job), file=process.stdin, flush=True)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 1.2 * len(raw) / 1_000_000))
        if how == "kill -9":
            process.kill()
        else:
            process.send_signal(signal.SIGINT)
            if how == "Ctrl-C twice":
                time.sleep(rng.uniform(0, 0.05))
                process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            raise AssertionError("it goes on 5 s after the signal") from None
        look(folder, raw, whole=process.returncode == 0)
    finally:
        server.close()
    second_call(folder, raw, trusted=True)


def attempt(action, folder_name: str, raw: bytes) -> tuple[bool, str]:
    with tempfile.TemporaryDirectory(prefix=folder_name) as folder, official(raw):
        try:
            action(Path(folder))
        except AssertionError as lost:
            return False, str(lost)
        except Exception as error:  # the course promises DataError and nothing else
            return False, f"{type(error).__name__}: {error}"
    return True, ""


def cases(scale: str):
    """What was tried, whether it survived, and what was lost otherwise."""
    rng = random.Random(SEED)
    arrangements = (beside_a_sound_one, alone, after_a_part, after_a_wrong_part)
    rounds = 2 if scale == "full" else 1
    for number in range(rounds):
        for place, kind in enumerate(KINDS):
            # The short run takes one arrangement a kind, another one for the next kind.
            for arrange in arrangements if scale == "full" else [arrangements[(place + number) % len(arrangements)]]:
                raw = archive(rng, rng.randrange(2_000, 20_000) if kind == "drips" else rng.randrange(2_000, 400_000))
                act = lambda folder: arrange(kind, raw, rng, folder)  # noqa: E731, B023
                yield f"{kind}, {arrange.__name__.replace('_', ' ')}", *attempt(act, "download-", raw)
    ways = ["kill -9"] if os.name == "nt" else ["kill -9", "Ctrl-C", "Ctrl-C twice"]
    count = 60 if scale == "full" else 3
    children = [child() for _ in range(2)]  # they import while others run
    try:
        for number in range(count):
            if number + len(children) < count + 1:
                children.append(child())
            process, raw = children.pop(0), archive(rng, rng.randrange(100_000, 400_000))
            how = ways[number % len(ways)]
            act = lambda folder: stopped(how, process, raw, rng, folder)  # noqa: E731, B023
            yield f"{how} at a random moment", *attempt(act, "download-", raw)
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
    finally:
        for process in children:
            process.kill()
            process.wait()
