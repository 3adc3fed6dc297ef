"""`python -m cifar_helpers` says what the course will run on, and one line of advice for each thing amiss."""

import importlib.metadata
import sys
from types import SimpleNamespace

import fixtures
import pytest

import cifar_helpers
from cifar_helpers import __main__ as selfcheck
from cifar_helpers import evaluation, machine, reference

HERE = {"cores": 4, "processor": "A Processor", "gpus": [], "system": "Any x86_64",
        "versions": {"python": "3.11.9", "tensorflow": "2.20.0", "keras": "3.11.0", "numpy": "2.2.0"}}


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    """A machine on which all is well, with CIFAR-10 and a backbone at hand."""
    monkeypatch.setattr(machine, "describe", lambda: HERE)
    monkeypatch.setattr(machine, "prefer_bfloat16", lambda: "float32")  # it would hold for every later test
    monkeypatch.setattr(evaluation, "predict_logits", lambda model, images: None)
    monkeypatch.setattr(selfcheck.shutil, "disk_usage", lambda _: SimpleNamespace(free=50e9))
    monkeypatch.setenv("COURSE_BUDGET", "smoke")
    monkeypatch.delenv("COURSE_OFFLINE", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("CACHE", "RUNS"):
        monkeypatch.setenv(f"COURSE_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("CIFAR10_PATH", str(fixtures.KINDS["npz"](tmp_path, fixtures.arrays())))
    (tmp_path / "resnet50.keras").write_bytes(b"not read here")
    monkeypatch.setenv("BACKBONE_PATH", str(tmp_path / "resnet50.keras"))
    return tmp_path


@pytest.fixture
def check(capsys):
    """Runs the check; gives its exit status, its lines by their first word, and its advice."""

    def run():
        status = selfcheck.main()
        lines = capsys.readouterr().out.splitlines()
        advice = [line.removeprefix("→ ") for line in lines if line.startswith("→")]
        return status, {line.partition(" ")[0]: line for line in lines if not line.startswith("→")}, advice

    return run


def assert_one_advice(found, *parts):
    status, said, advice = found
    assert status == 1 and len(advice) == 1, advice
    assert "Something" in said and "All" not in said
    for part in parts:
        assert str(part) in advice[0]


def test_where_all_is_well_it_says_what_there_is_and_returns_0(check, folders):
    status, said, advice = check()
    assert (status, advice) == (0, [])
    assert said["CIFAR-10"] == f"CIFAR-10 course {cifar_helpers.__version__}"
    assert all(f"{name} {version}" in said["versions"] for name, version in HERE["versions"].items())
    assert "4 cores, A Processor, GPU: none" in said["machine"] and "float32" in said["machine"]
    assert said["budget"].endswith(" smoke")
    assert str(folders / "cifar.npz") in said["data"]
    assert str(folders / "resnet50.keras") in said["backbone"]
    assert str(folders / "cache") in said["course_cache"] and "50 GB free" in said["course_cache"]
    assert str(folders / "runs") in said["course_runs"]
    assert said["All"] == "All is well."


def test_it_leaves_nothing_behind(check, folders):
    before = fixtures.tree(folders)
    check()
    assert fixtures.tree(folders) == before


@pytest.mark.parametrize(("name", "content", "parts"), [
    ("gone.npz", None, ["gone.npz does not exist", "correct CIFAR10_PATH"]),
    ("page.tar.gz", b"<html>", ["page.tar.gz is neither a gzipped archive nor an .npz file", "download"]),
])
def test_a_wrong_data_path_is_one_line_of_advice(name, content, parts, check, folders, monkeypatch):
    if content is not None:
        (folders / name).write_bytes(content)
    monkeypatch.setenv("CIFAR10_PATH", str(folders / name))
    assert_one_advice(check(), *parts)


def test_an_empty_data_folder_is_one_line_of_advice(check, folders, monkeypatch):
    (folders / "empty").mkdir()
    monkeypatch.setenv("CIFAR10_PATH", str(folders / "empty"))
    assert_one_advice(check(), "holds no CIFAR-10", "name the official archive")


def test_an_unknown_budget_is_one_line_of_advice(check, monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", "huge")
    found = check()
    assert_one_advice(found, "COURSE_BUDGET is 'huge'", "smoke, laptop, full")
    assert found[1]["budget"].endswith("unknown")


@pytest.mark.parametrize(("name", "parts"), [
    ("gone.keras", ["gone.keras, which does not exist", "correct it, or unset it"]),
    ("cifar.npz", ["neither a .keras model nor a .weights.h5 file"]),
    ("empty", ["no .keras or .weights.h5 file in it begins with 'resnet50'"]),
])
def test_a_wrong_backbone_path_is_one_line_of_advice(name, parts, check, folders, monkeypatch):
    (folders / "empty").mkdir()
    monkeypatch.setenv("BACKBONE_PATH", str(folders / name))
    assert_one_advice(check(), "BACKBONE_PATH is", *parts)


@pytest.mark.parametrize("variable", ["COURSE_CACHE", "COURSE_RUNS"])
def test_a_folder_that_cannot_be_written_is_one_line_of_advice(variable, check, folders, monkeypatch):
    (folders / "file").write_text("in the way")
    monkeypatch.setenv(variable, str(folders / "file" / "below"))
    found = check()
    assert_one_advice(found, folders / "file" / "below", "cannot be written", f"set {variable} to a folder that can")
    assert variable.lower() not in found[1]


def test_a_full_disk_is_a_line_of_advice_a_folder(check, folders, monkeypatch):
    monkeypatch.setattr(selfcheck.shutil, "disk_usage",
                        lambda folder: SimpleNamespace(free=1e9 if folder == folders / "cache" else 50e9))
    assert_one_advice(check(), folders / "cache", "1.0 GB free", "set COURSE_CACHE to a larger disk")


def test_a_single_core_is_a_line_of_advice(check, monkeypatch):
    monkeypatch.setattr(machine, "describe", lambda: HERE | {"cores": 1})
    assert_one_advice(check(), "One core only")


@pytest.mark.parametrize(("times", "slow"), [(0.5, False), (2.9, False), (3.1, True)])
def test_it_says_how_the_machine_compares(times, slow, check, monkeypatch):
    there = reference.load_reference("fast", "laptop")[0]["run"]["milliseconds_per_image"]
    now = [0.0]
    monkeypatch.setattr(selfcheck.time, "perf_counter", lambda: now[0])

    def predict(model, images):
        now[0] += times * there / 1_000 * len(images)

    monkeypatch.setattr(evaluation, "predict_logits", predict)
    found = check()
    assert f"takes {times * there:.2f} ms an image, and {there:.2f} where" in found[1]["speed"]
    assert found[1]["speed"].endswith(f"expect about {times:.1f} times those")
    if slow:
        assert_one_advice(found, "some 3 times slower", "COURSE_BUDGET=smoke")
    else:
        assert (found[0], found[2]) == (0, [])


def test_a_net_that_cannot_run_is_one_line_of_advice(check, monkeypatch):
    def fail(model, images):
        raise RuntimeError("no kernel for this device\nand a long trace")

    monkeypatch.setattr(evaluation, "predict_logits", fail)
    found = check()
    assert_one_advice(found, "A small net cannot be timed (no kernel for this device)", "install the course anew")
    assert "speed" not in found[1]


@pytest.fixture
def old_keras(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.15.0" if name == "keras" else real(name))


def test_an_unsupported_version_is_one_line_of_advice(check, old_keras):
    found = check()
    assert_one_advice(found, "keras 2.15.0 is not supported", "pip install 'keras")
    assert found[1]["versions"].endswith("not as supported")


def test_the_check_goes_on_where_tensorflow_cannot_be_imported(check, old_keras, monkeypatch):
    monkeypatch.delattr(cifar_helpers, "transfer", raising=False)
    monkeypatch.setitem(sys.modules, "cifar_helpers.transfer", None)  # importing it raises ImportError
    monkeypatch.delenv("BACKBONE_PATH")
    assert_one_advice(check(), "keras 2.15.0 is not supported")


def test_several_things_amiss_are_a_line_each(check, folders, monkeypatch):
    monkeypatch.setenv("COURSE_BUDGET", "huge")
    for variable in ("CIFAR10_PATH", "BACKBONE_PATH"):
        monkeypatch.setenv(variable, str(folders / "gone.keras"))
    status, _, advice = check()
    assert status == 1
    assert [line.split()[0] for line in advice] == ["COURSE_BUDGET", str(folders / "gone.keras"), "BACKBONE_PATH"]


# --- where nothing is named ---


@pytest.mark.parametrize(("file", "where"), [
    ("cache/official-1.npz", "in the course's cache"), ("cache/cifar-10-binary.tar.gz", "in the course's cache"),
    ("keras/datasets/cifar-10-batches-py.tar.gz", "in Keras's cache"), (None, "not here yet"),
])
def test_it_says_where_cifar10_is(file, where, check, folders, monkeypatch):
    monkeypatch.delenv("CIFAR10_PATH")
    if file:
        (folders / file).parent.mkdir(parents=True)
        (folders / file).write_bytes(b"")
    status, said, advice = check()
    assert (status, advice) == (0, [])
    assert where in said["data"]


def test_offline_without_cifar10_is_one_line_of_advice(check, monkeypatch):
    monkeypatch.delenv("CIFAR10_PATH")
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    assert_one_advice(check(), "No CIFAR-10", "set CIFAR10_PATH")


def test_without_a_named_backbone_it_says_when_keras_downloads_one(check, monkeypatch):
    monkeypatch.delenv("BACKBONE_PATH")
    status, said, advice = check()
    assert (status, advice) == (0, [])
    assert "ImageNet" in said["backbone"] and "download" in said["backbone"]


def test_offline_without_a_backbone_is_one_line_of_advice(check, monkeypatch):
    monkeypatch.delenv("BACKBONE_PATH")
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    assert_one_advice(check(), "BACKBONE_PATH", "COURSE_OFFLINE=1")
