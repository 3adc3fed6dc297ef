"""Runs are written whole or not at all, found again with what was saved, and kept apart by data and budget."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace

import fixtures
import h5py
import keras
import numpy as np
import pytest
from keras import layers

from cifar_helpers import evaluation, machine, marks, models, paths, runs, standin, transfer
from cifar_helpers.data import Data, Source, Split, load_cifar10
from cifar_helpers.errors import CourseError, DataError

HERE = {"cores": 4, "processor": "A Processor", "gpus": [], "system": "Any x86_64",
        "versions": {"python": "3.11.9", "tensorflow": "2.20.0", "keras": "3.11.0", "numpy": "2.2.0"}}
HISTORY = {"loss": [np.float32(2), 1.5], "accuracy": [0.2, 0.4]}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Where this test's runs stand."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(machine, "describe", lambda: {**HERE})
    return tmp_path / "runs"


def split(count, seed):
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.permutation(np.arange(count) % 10))


DATA = Data(split(30, 0), split(20, 1), split(10, 2), tuple("abcdefghij"),
            Source("CIFAR-10", "fixture", "1234abcd", False))
OTHER = replace(DATA, source=Source("CIFAR-10", "another fixture", "feedbeef", False))
STAND_IN = replace(DATA, source=Source("generated stand-in", "shapes", f"standin-{standin.VERSION}", True))


def at(budget, seed=2026):
    return SimpleNamespace(name=budget, lesson="baseline", seed=seed, epochs=2)


LAPTOP = at("laptop")


class FakeModel:
    """Saves a few bytes in no time, for tests of the folder rather than of the model."""

    def __init__(self, content=b"weights", error=None):
        self.content, self.error = content, error

    def count_params(self):
        return 7

    def to_json(self, **_):
        return "{}"

    def save(self, path):
        Path(path).write_bytes(self.content)
        if self.error:
            raise self.error


def logits(labels, wrong=0):
    """Logits that are wrong for the first labels and right for the others."""
    said = np.array(labels)
    said[:wrong] = (said[:wrong] + 1) % 10
    return 3 * np.eye(10, dtype=np.float32)[said]


def save(name="baseline", model=None, data=DATA, budget=LAPTOP, **options):
    options = {"train_logits": logits(data.train.labels, 3), "validation_logits": logits(data.validation.labels, 5),
               **options}
    return runs.save_run(name, model or FakeModel(), data, budget, HISTORY, 12.345, **options)


def names():
    return [run.name for run in runs.list_runs()]


# --- what a run holds ---


def test_a_run_is_five_files_with_all_that_the_comparison_needs(folder):
    run = save(backbone="ResNet50 from resnet50.keras")
    assert sorted(fixtures.tree(folder / "baseline")) == sorted(
        ["model.keras", "architecture.json", "history.json", "predictions.npz", "run.json"])
    info = json.loads((folder / "baseline" / "run.json").read_text(encoding="utf-8"))
    hardware = {key: value for key, value in HERE.items() if key != "versions"}
    expected = {"name": "baseline", "lesson": "baseline", "budget": "laptop", "seed": 2026, "data": vars(DATA.source),
                "backbone": "ResNet50 from resnet50.keras", "versions": HERE["versions"], "hardware": hardware,
                "parameters": 7, "train_seconds": pytest.approx(12.345, abs=0.01), "train_accuracy": 0.9,
                "validation_accuracy": 0.75, "train_images": 30, "epochs": 2}
    assert info | expected == info
    assert run.info == info and run.name == "baseline" and run.folder == folder / "baseline"
    assert run.history == {"loss": [2, 1.5], "accuracy": [0.2, 0.4]}
    assert runs.load_run("baseline") == run


def test_losses_are_those_of_the_logits():
    info = save().info
    for name, wrong in (("train", 3), ("validation", 5)):
        labels = getattr(DATA, name).labels
        assert info[f"{name}_loss"] == pytest.approx(evaluation.cross_entropy(logits(labels, wrong), labels))


def test_logits_of_the_first_training_images_are_enough():
    info = save(train_logits=logits(DATA.train.labels[:8], 2)).info
    assert (info["train_accuracy"], info["train_images_checked"], info["train_images"]) == (0.75, 8, 30)


def test_logits_that_were_not_given_are_predicted(model):
    info = save(model=model, train_logits=None, validation_logits=None).info
    for name in ("train", "validation"):
        predicted, labels = evaluation.predict_logits(model, getattr(DATA, name).images), getattr(DATA, name).labels
        assert info[f"{name}_accuracy"] == evaluation.accuracy(predicted, labels)
        assert info[f"{name}_loss"] == pytest.approx(evaluation.cross_entropy(predicted, labels), rel=1e-4)
    assert np.allclose(runs.load_predictions(runs.load_run("baseline"))["validation_logits"], predicted, atol=1e-5)


def test_the_hardware_and_versions_are_those_of_this_machine(monkeypatch):
    monkeypatch.undo()
    here = machine.describe()
    assert here["cores"] >= 1 and here["versions"]["keras"] == keras.__version__
    json.dumps(here)


def texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from texts(part)


def test_a_run_tells_no_path_of_this_machine(monkeypatch, tmp_path, folder):
    fixtures.shrink(monkeypatch)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    data = load_cifar10(fixtures.KINDS["png folders"](tmp_path, fixtures.arrays()))
    save(data=data, train_logits=logits(data.train.labels), validation_logits=logits(data.validation.labels))
    for file in folder.glob("baseline/*.json"):
        raw = file.read_text(encoding="utf-8")
        assert str(tmp_path) not in raw and str(Path.home()) not in raw
        for text in texts(json.loads(raw)):
            assert not PurePosixPath(text).is_absolute() and not PureWindowsPath(text).is_absolute(), text


@pytest.mark.parametrize("name", ["", "Baseline", "../baseline", "a/b", "a\\b", ".hidden", "my run", "-a", "2nd", "é",
                                  "baseline\n", "a" * 62])
def test_a_name_that_is_no_folder_name_is_refused(name, tmp_path):
    with pytest.raises(CourseError, match="is no name for a run: use lower-case letters, digits, - and _") as caught:
        save(name)
    assert repr(name) in str(caught.value)
    assert fixtures.tree(tmp_path) == {}


# --- whole or not at all ---


@pytest.fixture(params=[True, False], ids=["with an earlier run", "without"])
def earlier(request, folder):
    """What may stand there before: its files, as `fixtures.tree` gives them."""
    if request.param:
        save(model=FakeModel(b"earlier"))
        return {f"baseline/{name}": raw for name, raw in fixtures.tree(folder / "baseline").items()}
    return {}


def visible(folder):
    """The files of runs, without the lock and what a killed process left in hidden folders."""
    return {name.replace("\\", "/"): raw for name, raw in fixtures.tree(folder).items() if not name.startswith(".")}


def assert_as_before(folder, earlier):
    assert visible(folder) == earlier
    assert names() == (["baseline"] if earlier else [])


@pytest.mark.parametrize(("error", "raised"), [
    (OSError("No space left on device"), CourseError), (RuntimeError("HDF5"), RuntimeError),
    (KeyboardInterrupt(), KeyboardInterrupt),
])
def test_a_model_that_is_saved_half_leaves_all_as_it_was(error, raised, earlier, folder):
    with pytest.raises(raised) as caught:
        save(model=FakeModel(b"half", error))
    assert_as_before(folder, earlier)
    assert set(fixtures.tree(folder)) - set(map(os.path.normpath, earlier)) <= {".lock"}
    if raised is CourseError:
        assert re.search("'baseline' could not be saved .*No space left.*: free some space or set COURSE_RUNS",
                         str(caught.value))


def test_a_process_killed_between_the_two_renames_loses_nothing(folder):
    save()
    left = folder / ".baseline-x1y2"
    left.mkdir()
    (left / ".replaced").mkdir()
    (folder / "baseline").rename(left / ".replaced" / "baseline")
    shutil.copytree(left / ".replaced" / "baseline", left / ".whole")
    [found] = runs.list_runs()
    assert found.name == "baseline"
    assert not left.exists()


def test_what_a_killed_process_left_half_written_is_removed_and_never_listed(folder):
    left = folder / ".baseline-x1y2"
    (left / "baseline").mkdir(parents=True)
    (left / "baseline" / "run.json").write_text('{"format"')
    assert runs.list_runs() == []
    assert not left.exists()


def test_a_full_disk_leaves_all_as_it_was_and_says_what_to_do(earlier, folder, model):
    refused = pytest.raises(CourseError, match=r"could not be saved .* earlier runs are as")
    with fixtures.files_limited_to(5_000), refused:
        save(model=model)
    assert_as_before(folder, earlier)


def test_a_run_that_cannot_be_put_in_place_leaves_the_earlier_one(folder, monkeypatch):
    save(model=FakeModel(b"earlier"))
    before, real = visible(folder), Path.rename

    def rename(path, target):  # as on Windows, where a program holds a file of the new run open
        if Path(target) == folder / "baseline" and path.name == ".whole":
            raise PermissionError(13, "The process cannot access the file")
        return real(path, target)

    with monkeypatch.context() as patch, pytest.raises(CourseError, match="earlier runs are as they were"):
        patch.setattr(Path, "rename", rename)
        save()
    assert visible(folder) == before


def test_a_run_that_cannot_be_put_in_place_leaves_those_that_were_to_make_room(folder, monkeypatch):
    for budget in ("smoke", "laptop", "smoke"):  # the next is in the way of baseline, and that of baseline-smoke
        save(model=FakeModel(budget.encode()), budget=at(budget))
    before, real = visible(folder), Path.rename
    assert names() == ["baseline", "baseline-laptop", "baseline-smoke"]

    def rename(path, target):
        if path.name == ".whole":
            raise PermissionError(13, "The process cannot access the file")
        return real(path, target)

    for budget in ("smoke", "laptop", "full"):
        with monkeypatch.context() as patch, pytest.raises(CourseError, match="earlier runs are as they were"):
            patch.setattr(Path, "rename", rename)
            save(budget=at(budget))
        assert visible(folder) == before
    assert set(fixtures.tree(folder)) - set(before) <= {".lock"}


@pytest.mark.parametrize("name", ["replaced", "whole"])
def test_a_run_may_have_any_name(name):
    for _ in range(2):
        save(name)
    runs.record_test(runs.load_run(name), logits(DATA.test.labels), DATA, 1)
    assert names() == [name]


def test_what_another_process_may_be_writing_stays_where_there_is_no_lock(folder, monkeypatch):
    save()
    left = folder / ".plain-x1y2"
    left.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(paths.FileLock, "acquire", lambda *_, **__: (_ for _ in ()).throw(OSError(37, "No locks")))
        assert names() == ["baseline"] and left.exists()
        os.utime(left, (0, 0))
        assert names() == ["baseline"] and not left.exists()


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "file"))
    with pytest.raises(CourseError, match=r"'baseline' could not be saved .*set COURSE_RUNS to a folder that can"):
        save()
    assert runs.list_runs() == []


# Another process that saves runs. It has the course's own code but not TensorFlow, which takes seconds to import.
PROCESS = """
import os, sys, time, types
from pathlib import Path
from types import SimpleNamespace
import numpy as np

for name, content in {
    "keras": {"Model": type("Model", (), {})}, "pandas": {"DataFrame": None}, "cifar_helpers.models": {},
    "cifar_helpers.saved": {},
    "cifar_helpers.evaluation": {"accuracy": lambda *_: 0.5, "confusion": None, "cross_entropy": lambda *_: 0.5,
                                 "predict_logits": None},
}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(content)

from cifar_helpers import machine, runs
from cifar_helpers.data import Data, Source, Split

machine.describe = lambda: {"versions": {"keras": "3"}}

class FakeModel:
    count_params = lambda self: 7
    to_json = lambda self, **_: str(number)
    save = lambda self, path: Path(path).write_bytes(bytes([number]))

def save():
    part = Split(np.zeros((10, 32, 32, 3), np.uint8), np.arange(10))
    data = Data(part, part, part, (), Source("CIFAR-10", "fixture", "1234abcd", False))
    logits = np.full((10, 10), number, np.float32)
    runs.save_run("baseline", FakeModel(), data, SimpleNamespace(name="laptop", lesson="baseline", seed=number),
                  {"loss": [number]}, number, train_logits=logits, validation_logits=logits)
"""
KILLED = """
number, renames = 1, []

def kill(event, arguments):
    if event == "open" and "w" in (arguments[1] or "") and str(arguments[0]).endswith(sys.argv[1]):
        os._exit(9)
    if event == "os.rename" and sys.argv[1].startswith("rename"):
        renames.append(arguments)
        if len(renames) == int(sys.argv[1][6:]):
            os._exit(9)

sys.addaudithook(kill)
save()
"""
SEVERAL = """
number = int(sys.argv[1])
Path(sys.argv[2], f"ready{number}").touch()
while not all(Path(sys.argv[2], f"ready{other}").exists() for other in (1, 2)):
    time.sleep(0.01)
rename = Path.rename
Path.rename = lambda path, target: (time.sleep(0.02), rename(path, target))[1]  # time for the other to interfere
for _ in range(10):
    save()
"""


def start(*arguments):
    return subprocess.Popen([sys.executable, "-c", PROCESS + arguments[0], *map(str, arguments[1:])],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("before", [*runs.FILES, "rename1"])
def test_a_process_that_is_killed_between_two_writes_leaves_all_as_it_was(before, folder):
    save(model=FakeModel(b"earlier"))
    earlier = visible(folder)
    process = start(KILLED, before)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 9, errors
    assert_as_before(folder, earlier)
    assert save(model=FakeModel(b"later")).info["name"] == "baseline"  # the dead process holds no lock
    assert (folder / "baseline" / "model.keras").read_bytes() == b"later"


def test_a_process_that_is_killed_during_the_first_save_leaves_no_run(folder):
    process = start(KILLED, "run.json")
    assert process.wait(timeout=60) == 9
    assert_as_before(folder, {})


def test_a_process_killed_between_its_renames_is_finished_by_the_next(folder):
    save(model=FakeModel(b"earlier"), budget=at("smoke"))
    process = start(KILLED, "rename3")  # the earlier run has its longer name, the new one not yet its own
    assert process.wait(timeout=60) == 9
    assert not (folder / "baseline").exists()
    assert names() == ["baseline", "baseline-smoke"]
    assert (folder / "baseline" / "model.keras").read_bytes() == bytes([1])
    assert {path.name for path in folder.iterdir()} <= {"baseline", "baseline-smoke", ".lock"}


def test_two_processes_that_save_at_once_leave_one_whole_run(folder, tmp_path):
    processes = [start(SEVERAL, number, tmp_path) for number in (1, 2)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    [run] = runs.list_runs()
    number = run.info["seed"]
    assert number in (1, 2)
    assert run.history == {"loss": [number]} and run.info["train_seconds"] == number
    assert (run.folder / "model.keras").read_bytes() == bytes([number])
    assert (run.folder / "architecture.json").read_text() == str(number)
    assert (runs.load_predictions(run)["validation_logits"] == number).all()
    assert {name.partition(os.sep)[0] for name in fixtures.tree(folder)} <= {"baseline", ".lock"}


# --- a run of the same name ---


def test_a_run_of_equal_kind_is_replaced(folder, capsys):
    save(model=FakeModel(b"first"), budget=at("laptop", seed=1))
    save(model=FakeModel(b"second"), budget=at("laptop", seed=2))
    [run] = runs.list_runs()
    assert (run.name, run.info["seed"]) == ("baseline", 2)
    assert (run.folder / "model.keras").read_bytes() == b"second"
    assert sorted(path.name for path in folder.iterdir()) in (["baseline"], [".lock", "baseline"])
    assert "kept" not in capsys.readouterr().out


@pytest.mark.parametrize(("first", "second", "kept"), [
    ({"budget": at("smoke")}, {}, "baseline-smoke"),
    ({}, {"budget": at("full")}, "baseline-laptop"),
    ({"data": STAND_IN}, {}, "baseline-laptop-standin"),
    ({"data": STAND_IN, "budget": at("smoke")}, {}, "baseline-smoke-standin"),
    ({"data": OTHER}, {}, "baseline-laptop"),
    ({"backbone": "random weights"}, {"backbone": "ResNet50 from a.keras"}, "baseline-laptop"),
])
def test_a_run_of_another_kind_is_kept_under_a_longer_name(first, second, kept, capsys):
    earlier, later = save(model=FakeModel(b"first"), **first), save(model=FakeModel(b"second"), **second)
    assert f"The earlier run 'baseline' is kept as {kept!r}" in capsys.readouterr().out
    assert sorted(names()) == ["baseline", kept]
    again = runs.load_run(kept)
    assert again.info | {"name": "baseline"} == earlier.info and again.name == again.info["name"] == kept
    assert (again.folder / "model.keras").read_bytes() == b"first"
    assert runs.load_run("baseline").info == later.info


def test_a_kept_run_makes_room_for_the_next_of_its_kind():
    for seed, name in enumerate(("smoke", "laptop", "smoke", "laptop")):
        save(budget=at(name, seed))
    assert {run.name: run.info["seed"] for run in runs.list_runs()} == {
        "baseline": 3, "baseline-smoke": 2, "baseline-laptop": 1}


def test_an_earlier_run_that_cannot_be_read_is_kept_too(folder):
    save(model=FakeModel(b"first"))
    (folder / "baseline" / "history.json").unlink()
    save(model=FakeModel(b"second"))
    assert (folder / "baseline-unreadable" / "model.keras").read_bytes() == b"first"
    assert names() == ["baseline"]


# --- runs that cannot be read ---


def refused(name="baseline", remedy="run 02_baseline to make it anew"):
    with pytest.raises(CourseError) as caught:
        runs.load_run(name)
    assert f"The run {name!r}" in str(caught.value) and remedy in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("file", runs.FILES)
def test_a_missing_file_is_named_with_a_remedy(file, folder):
    save()
    (folder / "baseline" / file).unlink()
    assert f"lacks {file}: " in refused()


@pytest.mark.parametrize(("name", "lesson"), [("transfer_finetuned", "05_transfer"), ("plain-smoke", "03_augmentation"),
                                              ("mine", "its lesson")])
def test_a_run_that_is_not_there_is_named_with_the_lesson_that_makes_it(name, lesson):
    refused(name, f"run {lesson} to make it anew")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"null", b'{"format": "new"}',
                                     b'{"format": 1}'])
def test_a_damaged_description_is_an_error_with_a_remedy(content, folder):
    save()
    (folder / "baseline" / "run.json").write_bytes(content)
    refused()


@pytest.mark.parametrize("content", [b"", b'{"loss": [1', b"\xff"])
def test_a_damaged_history_is_an_error_with_a_remedy(content, folder):
    save()
    (folder / "baseline" / "history.json").write_bytes(content)
    refused()


def test_a_run_of_a_newer_version_is_not_guessed_at(folder):
    save()
    file = folder / "baseline" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"format": runs.FORMAT + 1}))
    assert "newer version of the course: update the course" in refused()


# --- the list ---


def test_runs_are_listed_in_the_order_of_the_lessons_and_others_last(folder):
    for name in ("zebra", "transfer_frozen", "baseline-smoke", "augmented", "baseline", "apple", "subclassed", "plain"):
        save(name)
    (folder / "notes.txt").write_text("not a run")
    (folder / ".hidden-folder").mkdir()
    assert names() == ["baseline", "baseline-smoke", "plain", "augmented", "subclassed", "transfer_frozen", "apple",
                       "zebra"]


def test_runs_on_other_data_are_left_out_with_a_sentence(capsys):
    save("plain", data=STAND_IN)
    save()
    assert [run.name for run in runs.list_runs(DATA)] == ["baseline"]
    said = capsys.readouterr().out
    assert said.count("Left out: ") == 1
    assert "'plain' was trained on generated stand-in (shapes)" in said and "CIFAR-10 (fixture)" in said
    assert "run 03_augmentation on these" in said
    assert names() == ["baseline", "plain"]
    assert not capsys.readouterr().out


def test_equal_images_from_another_place_are_the_same_data(capsys):
    save()
    moved = replace(DATA, source=replace(DATA.source, origin="another archive"))
    assert [run.name for run in runs.list_runs(moved)] == ["baseline"]
    assert not capsys.readouterr().out


def test_a_run_that_cannot_be_read_is_left_out_with_a_sentence(folder, capsys):
    save()
    save("plain")
    (folder / "plain" / "model.keras").unlink()
    assert names() == ["baseline"]
    assert "Left out: The run 'plain' lacks model.keras" in capsys.readouterr().out


def test_without_a_folder_there_are_no_runs(folder):
    assert runs.list_runs() == [] and not folder.exists()


# --- the test split ---


def test_recording_the_test_adds_its_figures_and_keeps_the_others(folder):
    run = save()
    before = visible(folder)
    tested = runs.record_test(run, logits(DATA.test.labels, 4), DATA, 1.23456)
    added = {"test_accuracy": 0.6, "test_images": 10, "milliseconds_per_image": 1.235,
             "test_confusion": evaluation.confusion(logits(DATA.test.labels, 4), DATA.test.labels).tolist(),
             "test_loss": pytest.approx(evaluation.cross_entropy(logits(DATA.test.labels, 4), DATA.test.labels))}
    assert tested.info == run.info | added
    assert runs.load_run("baseline") == tested
    changed = {name for name, raw in visible(folder).items() if before.get(name) != raw}
    assert changed == {"baseline/predictions.npz", "baseline/run.json"}


def test_predictions_come_back_as_they_were_saved():
    run = save()
    validation = logits(DATA.validation.labels, 5)
    assert list(runs.load_predictions(run)) == ["validation_logits"]
    test = logits(DATA.test.labels, 4)
    predictions = runs.load_predictions(runs.record_test(run, test, DATA, 1))
    assert sorted(predictions) == ["test_labels", "test_logits", "validation_logits"]
    for name, array in (("test_labels", DATA.test.labels), ("test_logits", test), ("validation_logits", validation)):
        assert predictions[name].dtype == array.dtype and np.array_equal(predictions[name], array)


def test_what_flips_at_test_time_reach_stands_apart():
    wrong, sure = logits(DATA.test.labels, 4), 3 * logits(DATA.test.labels)
    tested = runs.record_test(save(), wrong, DATA, 1, mirrored_logits=sure).info
    assert tested["test_accuracy"] == 0.6 and tested["test_accuracy_flips"] == 1


def test_the_test_may_be_recorded_again():
    run = runs.record_test(save(), logits(DATA.test.labels, 10), DATA, 1)
    assert run.info["test_accuracy"] == 0
    assert runs.record_test(run, logits(DATA.test.labels), DATA, 1).info["test_accuracy"] == 1


def test_a_test_that_cannot_be_recorded_leaves_the_run_as_it_was(folder):
    run = runs.record_test(save(), logits(DATA.test.labels, 10), DATA, 1)
    before = visible(folder)
    refused = pytest.raises(CourseError, match=r"test of the run 'baseline' .*could not be saved .*free some space")
    with fixtures.files_limited_to(500), refused:
        runs.record_test(run, logits(DATA.test.labels), DATA, 1)
    assert visible(folder) == before
    assert set(fixtures.tree(folder)) - set(map(os.path.normpath, before)) <= {".lock"}


def test_a_test_is_recorded_whole_or_not_at_all(folder, monkeypatch):
    run = save()
    before = visible(folder)

    def killed(*_):
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(runs, "_put_in_place", killed)
        runs.record_test(run, logits(DATA.test.labels), DATA, 1)
    assert visible(folder) == before and names() == ["baseline"]


def test_the_test_of_a_run_that_was_replaced_in_the_meantime_is_refused(folder):
    run = save(budget=at("laptop", seed=1))
    save(budget=at("laptop", seed=2))
    before = visible(folder)
    with pytest.raises(CourseError, match="'baseline' was saved anew while it was tested: test the new one"):
        runs.record_test(run, logits(DATA.test.labels), DATA, 1)
    assert visible(folder) == before


@pytest.mark.parametrize("data", [OTHER, STAND_IN])
def test_the_test_of_other_data_is_refused_and_the_run_stays_as_it_was(data, folder):
    run = save()
    before = visible(folder)
    with pytest.raises(DataError, match=r"'baseline' was trained on CIFAR-10 .* run 02_baseline on these, or"):
        runs.record_test(run, logits(data.test.labels), data, 1)
    assert visible(folder) == before


def one_byte(raw):
    return raw[:len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1:]


@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: b"junk", lambda raw: raw[:len(raw) // 2], one_byte],
                         ids=["empty", "junk", "half", "one byte"])
def test_damaged_predictions_are_an_error_with_a_remedy(damage):
    run = save()
    file = run.folder / "predictions.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CourseError, match=r"'baseline' .*02_baseline"):
        runs.load_predictions(run)


def test_predictions_without_the_arrays_of_the_comparison_are_an_error_with_a_remedy():
    run = runs.record_test(save(), logits(DATA.test.labels), DATA, 1)
    np.savez(run.folder / "predictions.npz", format=1, validation_logits=np.zeros((1, 10)))
    with pytest.raises(CourseError, match=r"'baseline' .* no test_labels, test_logits.*02_baseline"):
        runs.load_predictions(run)


# --- models ---


@pytest.fixture(scope="module")
def model():
    return sequential()


def sequential():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.Conv2D(4, 5, strides=4),
                             layers.Flatten(), layers.Dropout(0.5), layers.Dense(10)], name="baseline")


def functional():
    """Preprocessing and a nested backbone inside, as lesson 5 makes it."""
    keras.utils.set_random_seed(0)
    inner = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 8, strides=8)(inner)
    backbone = keras.Model(inner, layers.ReLU()(layers.BatchNormalization()(x)), name="backbone")
    inputs = keras.Input((32, 32, 3))
    x = layers.Resizing(48, 48, interpolation="bicubic")(inputs)
    x = backbone(transfer.preprocessing("ResNet50")(x), training=False)
    extractor = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    head = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.Dense(10)])
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, head(extractor(inputs)), name="transfer")


def subclassed():
    keras.utils.set_random_seed(0)
    made = models.SubclassedCNN(name="subclassed")
    made(DATA.train.images[:1])
    return made


def optimizer_state(file):
    """The optimizer's variables in a saved model."""
    with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        found = []
        weights.visit(lambda name: found.append(name) if name.startswith("optimizer/vars/") else None)
        return found


@pytest.mark.parametrize("make", [sequential, functional, subclassed])
def test_a_trained_model_comes_back_with_equal_predictions(make, tmp_path):
    trained = make()
    trained.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trained.fit(DATA.train.images, DATA.train.labels, batch_size=15, verbose=0)
    expected = trained.predict(DATA.test.images, verbose=0)
    run = save(model=trained)
    assert run.info["parameters"] == trained.count_params()
    again = runs.load_model(run)
    assert type(again) is type(trained) and not again.compiled
    assert np.array_equal(again.predict(DATA.test.images, verbose=0), expected)
    assert trained.compiled and np.array_equal(trained.predict(DATA.test.images, verbose=0), expected)
    if make is functional:
        trained.save(tmp_path / "model.keras")
        assert optimizer_state(tmp_path / "model.keras") and not optimizer_state(run.folder / "model.keras")


def test_the_architecture_is_written_in_words(model):
    run = save(model=model)
    again = keras.models.model_from_json((run.folder / "architecture.json").read_text(encoding="utf-8"))
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]


def other_layer(raw):
    """The same file with a layer that Keras does not know, as a later version may write."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(written, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'"class_name": "Conv2D"', b'"class_name": "Conv2Q"'))
    return written.getvalue()


@pytest.mark.parametrize("damage", [
    lambda raw: b"", lambda raw: b"junk", lambda raw: raw[:len(raw) // 2], other_layer, one_byte,
], ids=["empty", "junk", "half", "unknown layer", "one byte"])
def test_a_damaged_model_is_an_error_that_names_the_version_that_saved_it(damage, model):
    run = save(model=model)
    file = run.folder / "model.keras"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CourseError, match=r"model of the run 'baseline' was saved by Keras 3\.11\.0 and Keras "
                                          rf"{re.escape(keras.__version__)} cannot read it: update Keras, or run"):
        runs.load_model(run)


def test_a_model_with_code_inside_is_not_run():
    inputs = keras.Input((32, 32, 3))
    unsafe = keras.Model(inputs, layers.Lambda(lambda x: x)(inputs))
    with pytest.raises(CourseError, match="Lambda layer"):
        runs.load_model(save(model=unsafe))


# --- the table ---


def test_the_table_has_a_row_a_run_and_says_in_a_note_what_must_be_known():
    save()
    runs.record_test(runs.load_run("baseline"), logits(DATA.test.labels, 4), DATA, 1.5)
    save("plain", data=STAND_IN)
    save("subclassed", budget=at("smoke"))
    save("transfer_frozen", data=STAND_IN, budget=at("full"), backbone=transfer.RANDOM)
    table = runs.table(runs.list_runs())
    assert [sorted(said for said in ("stand-in", marks.RANDOM_BACKBONE, "smoke budget", "full budget") if said in note)
            for note in table.note] == [[], ["stand-in"], ["smoke budget"],
                                        ["full budget", "stand-in", marks.RANDOM_BACKBONE]]
    assert table.note["baseline"] == ""

    def column(*words):
        [title] = [title for title in table.columns if set(words) <= set(title.split())]
        return table[title]

    first = {words: column(*words)["baseline"] for words in (("acc", "train"), ("acc", "val"), ("acc", "test"))}
    assert list(first.values()) == [0.9, 0.75, 0.6]
    assert (column("parameters")["baseline"], column("ms/image")["baseline"]) == (7, 1.5)
    assert column("train", "s")["baseline"] == pytest.approx(12.345, abs=0.1)
    assert column("loss", "test")["baseline"] == pytest.approx(
        evaluation.cross_entropy(logits(DATA.test.labels, 4), DATA.test.labels), abs=1e-3)
    assert column("acc", "test").isna().tolist() == [False, True, True, True]


def test_the_name_for_random_weights_is_the_one_that_the_note_looks_for():
    assert transfer.RANDOM == "random weights"
    assert save(backbone=transfer.RANDOM).marks == marks.RANDOM_BACKBONE


def test_a_table_of_no_runs_is_empty():
    assert len(runs.table([])) == 0


# --- lessons that were not run ---

NOTES = """import os, sys
from pathlib import Path
Path(os.environ["COURSE_RUNS"]).mkdir(exist_ok=True)
with Path(os.environ["COURSE_RUNS"], "log.txt").open("a") as log:
    print(Path(__file__).stem, os.environ["COURSE_BUDGET"], Path.cwd().name, file=log)
"""


@pytest.fixture
def lessons(monkeypatch, tmp_path, folder):
    """Lessons that only note that they were run; gives what they noted."""
    (tmp_path / "notebooks").mkdir()
    for lesson in set(runs.LESSONS.values()):
        (tmp_path / "notebooks" / f"{lesson}.py").write_text(NOTES)
    monkeypatch.setattr(runs, "checkout", lambda: tmp_path)

    def noted():
        log = folder / "log.txt"
        return log.read_text().splitlines() if log.exists() else []

    noted.folder = tmp_path / "notebooks"
    return noted


def test_every_lesson_is_run_at_the_smoke_budget_where_there_is_no_run(lessons, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_BUDGET", "full")
    runs.train_missing(DATA)
    assert lessons() == [f"{lesson} smoke notebooks"
                         for lesson in ("02_baseline", "03_augmentation", "04_custom_loop", "05_transfer")]
    said = capsys.readouterr().out
    assert all(f"{line.split()[0]} has not been run on these images" in said for line in lessons())
    assert os.environ["COURSE_BUDGET"] == "full"


@pytest.mark.parametrize(("there", "run"), [
    (["baseline", "plain", "augmented", "subclassed", "fast", "transfer_frozen", "transfer_finetuned"], []),
    (["baseline", "plain", "subclassed", "fast", "transfer_frozen", "transfer_finetuned"], ["03_augmentation"]),
    (["baseline-smoke", "plain-laptop", "augmented", "subclassed-full", "fast"], ["05_transfer"]),
])
def test_only_lessons_whose_runs_are_missing_are_run(there, run, lessons):
    for name in there:
        save(name)
    runs.train_missing(DATA)
    assert [line.split()[0] for line in lessons()] == run


def test_runs_on_other_data_or_damaged_ones_count_as_missing(lessons, folder):
    save(data=OTHER)
    save("subclassed")
    (folder / "subclassed" / "run.json").write_text("{")
    runs.train_missing(DATA, ["baseline", "subclassed"])
    assert [line.split()[0] for line in lessons()] == ["02_baseline", "04_custom_loop"]


@pytest.mark.parametrize(("ending", "said"), [
    ("raise ValueError('no such thing')", "ValueError: no such thing"),
    ("sys.exit('The data are missing.')", "The data are missing."),
    ("os._exit(3)", ""),
], ids=["error", "exit", "killed"])
def test_a_lesson_that_fails_is_named_with_its_error(ending, said, lessons):
    (lessons.folder / "02_baseline.py").write_text(NOTES + ending)
    with pytest.raises(CourseError, match=f"02_baseline stopped with .*{re.escape(said)}.*: open it and run it"):
        runs.train_missing(DATA)
    assert len(lessons()) == 1


def test_a_lesson_that_is_not_there_is_named(lessons, monkeypatch, tmp_path):
    (lessons.folder / "02_baseline.py").unlink()
    with pytest.raises(CourseError, match=r"02_baseline\.py is not here: run the lesson itself first"):
        runs.train_missing(DATA)
