"""Worker processes: what they are given, what comes back, how their deaths are told, and that none stays behind.

The workers import NumPy at most, so that a job takes a fraction of a second.
"""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cifar_helpers import CourseError, cluster, standin

FACTOR = 3
TABLE = {"a": 1}
posix = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
QUICK = {"limit": 20, "show": False}


def rank():
    return json.loads(os.environ["TF_CONFIG"])["task"]["index"]


def alive(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process_id}/status")  # a zombie has died, though its number is still taken
    return not status.exists() or "State:\tZ" not in status.read_text()


def gone(process_ids):
    process_ids = list(process_ids)
    until = time.monotonic() + 5
    while any(map(alive, process_ids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(alive, process_ids))


# --- results and arguments ---


def scaled(values, by, note=None):
    return {"values": values * by * FACTOR, "rank": rank(), "root": math.sqrt(16), "note": note}


def test_results_come_back_in_the_order_of_the_workers():
    values = np.arange(3, dtype=np.float32)
    results = cluster.launch(scaled, workers=2, arguments={"values": values, "by": 2, "note": ["ü", None]}, **QUICK)
    assert [result["rank"] for result in results] == [0, 1]
    for result in results:
        assert result["values"].dtype == np.float32 and np.array_equal(result["values"], values * 6)
        assert result["root"] == 4.0 and result["note"] == ["ü", None]


def look_around():
    names = ("CUDA_VISIBLE_DEVICES", "TF_NUM_INTRAOP_THREADS", "no_proxy")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return {"config": json.loads(os.environ["TF_CONFIG"]), **{name: os.environ[name] for name in names},
            "cores": cores, "tensorflow": "tensorflow" in sys.modules, "id": os.getpid()}


def test_every_worker_knows_the_cluster_and_its_own_place():
    results = cluster.launch(look_around, workers=3, **QUICK)
    clusters = [result["config"]["cluster"] for result in results]
    assert clusters[0] == clusters[1] == clusters[2] and list(clusters[0]) == ["worker"]
    addresses = clusters[0]["worker"]
    assert len(set(addresses)) == 3 and all(address.startswith("127.0.0.1:") for address in addresses)
    assert [result["config"]["task"] for result in results] == [{"type": "worker", "index": n} for n in range(3)]


def test_a_worker_has_one_thread_one_core_no_gpu_and_no_proxy_to_its_peers():
    [result] = cluster.launch(look_around, workers=1, **QUICK)
    assert result["CUDA_VISIBLE_DEVICES"] == "-1" and result["TF_NUM_INTRAOP_THREADS"] == "1"
    assert "127.0.0.1" in result["no_proxy"].split(",")
    assert result["cores"] == 1 and not result["tensorflow"]
    assert gone([result["id"]])


def test_ports_are_different_and_free():
    ports = cluster.free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))


def late_result():
    time.sleep(0.8 * rank())
    return {"left_at": time.time()}


def test_a_worker_that_is_done_waits_for_the_others():
    assert [len(result) for result in cluster.launch(late_result, workers=2, **QUICK)] == [1, 1]


# --- what can be sent ---


def uses_a_table():
    return TABLE


def uses_a_module_of_ours():
    return {"classes": list(standin.CLASS_NAMES), "known": isinstance(CourseError("x"), Exception)}


def shadows_a_table():
    TABLE = 5
    return {"sum": sum(TABLE for _ in range(2))}


def with_default(factor=FACTOR):
    return {"factor": factor}


def test_modules_classes_constants_and_defaults_travel_along():
    [result] = cluster.launch(uses_a_module_of_ours, workers=1, **QUICK)
    assert result == {"classes": list(standin.CLASS_NAMES), "known": True}
    assert cluster.launch(shadows_a_table, workers=1, **QUICK) == [{"sum": 10}]
    assert cluster.launch(with_default, workers=1, **QUICK) == [{"factor": FACTOR}]


@pytest.mark.parametrize(("function", "said"), [
    (uses_a_table, "uses 'TABLE', a dict, which workers do not have"),
    (lambda: {}, "no function that workers can be given"),
    (len, "no function that workers can be given"),
])
def test_what_cannot_be_sent_is_said_before_anything_starts(function, said, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(CourseError, match=said):
        cluster.launch(function, workers=1, **QUICK)


def test_a_function_that_leans_on_another_is_refused():
    outside = 3

    def inner():
        return {"outside": outside}

    with pytest.raises(CourseError, match="uses variables of a function around it"):
        cluster.program_source(inner)


@pytest.mark.parametrize("value", [{1, 2}, np.array([None])])
def test_arguments_that_are_no_plain_values_are_refused(value):
    with pytest.raises(CourseError, match=r"give (NumPy arrays|numbers)"):
        cluster.launch(scaled, workers=1, arguments={"values": value, "by": 1}, **QUICK)


def test_a_job_needs_a_worker():
    with pytest.raises(CourseError, match="ask for 1 or more"):
        cluster.launch(scaled, workers=0)


# --- deaths ---


def note_process(folder):
    Path(folder, str(os.getpid())).touch()


def raises(folder):
    note_process(folder)
    if rank() == 1:
        raise ValueError("no such layer\nand more")
    time.sleep(60)


def leaves(folder):
    note_process(folder)
    print("about to leave", flush=True)
    if rank() == 1:
        os._exit(7)
    time.sleep(60)


def is_killed(folder):
    note_process(folder)
    print("I0000 00:00:1.2 3 server.cc:4] Started server", "computing", file=sys.stderr, sep="\n", flush=True)
    print("I0000 00:00:1.3 3 server.cc:5] Another line", file=sys.stderr, flush=True)
    if rank() == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def hangs(folder):
    note_process(folder)
    print("waiting for a sum", flush=True)
    time.sleep(60)


def returns_a_number(folder):
    note_process(folder)
    return 3


@pytest.mark.parametrize(("function", "said"), [
    (raises, r"worker 1 of 2 \(counted from 0\) stopped with ValueError: no such layer\nWorker 0 was stopped"),
    (leaves, r"worker 1 of 2 .* ended with exit status 7 and no result; it said last: about to leave\n"),
    pytest.param(is_killed, r"worker 0 of 2 .* was killed by SIGKILL; it said last: computing\nWorker 1 was",
                 marks=posix),
    (returns_a_number, "stopped with TypeError: the function must return a dict"),
])
def test_a_death_is_told_in_a_sentence_and_nobody_stays_behind(function, said, tmp_path):
    begun = time.monotonic()
    with pytest.raises(CourseError, match=said):
        cluster.launch(function, workers=2, arguments={"folder": str(tmp_path)}, **QUICK)
    assert time.monotonic() - begun < 15
    assert gone(int(file.name) for file in tmp_path.iterdir())


def test_a_job_that_hangs_ends_at_its_limit(tmp_path):
    with pytest.raises(CourseError, match=r"Not all of the 2 workers were done after 3 seconds.*; worker 0 said last"):
        cluster.launch(hangs, workers=2, arguments={"folder": str(tmp_path)}, limit=3, show=False)
    assert gone(int(file.name) for file in tmp_path.iterdir())


def notices():
    if rank() == 1:
        raise RuntimeError("the first")
    time.sleep(1)
    raise OSError("{{function_node x}} peer is gone\nlong story")


def test_with_patience_the_others_may_say_what_they_noticed():
    with pytest.raises(CourseError, match=r"the first\nWorker 0 then stopped with OSError: peer is gone$"):
        cluster.launch(notices, workers=2, patience=15, **QUICK)


def test_workers_go_when_the_process_that_started_them_is_killed(tmp_path):
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_cluster as t; "
            f"t.cluster.launch(t.hangs, workers=2, arguments={{'folder': {str(tmp_path)!r}}})")
    (tmp_path / "scratch").mkdir()  # what a killed launcher leaves behind
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tmp_path / "scratch"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, env=environment) as launcher:
        until = time.monotonic() + 20
        while len(list(tmp_path.glob("[0-9]*"))) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        launcher.kill()
    workers = [int(file.name) for file in tmp_path.glob("[0-9]*")]
    assert len(workers) == 2 and gone(workers)


# --- output ---


def prints(lines, width):
    for number in range(lines):
        print(number, "x" * width)
    print("E0000 not for the reader", file=sys.stderr)


def test_output_is_shown_with_the_workers_number_and_trimmed(capsys):
    assert cluster.launch(prints, workers=2, arguments={"lines": 200, "width": 500}, limit=20) == [{}, {}]
    shown = capsys.readouterr().out.splitlines()
    for number in (0, 1):
        own = [line for line in shown if line.startswith(f"worker {number} | ")]
        assert len(own) == cluster.LINES + 1 and "more output is not shown" in own[-1]
    assert max(map(len, shown)) <= cluster.WIDTH + 12
    assert not any("not for the reader" in line for line in shown)


def test_short_lines_are_shown_as_they_stand(capsys):
    cluster.launch(prints, workers=1, arguments={"lines": 2, "width": 3}, limit=20)
    assert capsys.readouterr().out == "worker 0 | 0 xxx\nworker 0 | 1 xxx\n"


def test_workers_find_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/another/folder")
    environment = cluster._environments(1)[0]
    root = Path(cluster.__file__).parent.parent
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(root), "/another/folder"]
