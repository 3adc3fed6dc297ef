"""Reference runs on lessons of a few lines, and how lessons find the results that ship."""

import json
import os
from pathlib import Path

import pytest
import reference as tool
from fixtures import tree

from cifar_helpers import budgets, reference
from cifar_helpers.errors import CourseError

HARDWARE = {"cores": 2, "gpus": []}
# What a lesson leaves, without its training: run.json as runs.save_run writes it, as far as the tools look at it.
TRAIN = """import json, os
from pathlib import Path
# start_lesson("baseline")
assert os.environ["CIFAR10_REQUIRED"] == "1" and os.environ["MPLBACKEND"] == "Agg"
assert not (Path(os.environ["COURSE_CACHE"]) / "features").exists()
(Path(os.environ["COURSE_CACHE"]) / "features").mkdir()
folder = Path(os.environ["COURSE_RUNS"], "one")
folder.mkdir(parents=True, exist_ok=True)
seed = int(os.environ["COURSE_SEED"])
run = {"name": "one", "lesson": "baseline", "backbone": BACKBONE, "budget": os.environ["COURSE_BUDGET"], "seed": seed,
       "data": {"name": "CIFAR-10", "origin": ORIGIN, "fingerprint": FINGERPRINT, "is_standin": STANDIN},
       "validation_accuracy": 0.5}
(folder / "run.json").write_text(json.dumps(run))
(folder / "history.json").write_text(json.dumps({"accuracy": [0.1, 0.5]}))
"""
GIVEN = {"BACKBONE": "None", "ORIGIN": "'archive a.tar.gz'", "FINGERPRINT": "'aa'", "STANDIN": "False"}
COMPARE = """import json, os
from pathlib import Path
# start_lesson("comparison")
for file in Path(os.environ["COURSE_RUNS"]).glob("*/run.json"):
    file.write_text(json.dumps(json.loads(file.read_text()) | {"test_accuracy": 0.4}))
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A function that writes the two lessons, with changes to the first, runs the tool, and returns its status."""
    monkeypatch.setattr(tool, "LESSONS", {"one": "02_one"})
    monkeypatch.setattr(tool.machine, "describe", lambda: HARDWARE)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "user"))
    (tmp_path / "user" / "features").mkdir(parents=True)
    (tmp_path / "user" / "official.npz").write_bytes(b"images")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "06_compare.py").write_text(COMPARE)

    def run(*more, code=TRAIN, lessons="2", **changed):
        given = "".join(f"{name} = {value}\n" for name, value in (GIVEN | changed).items())
        (folder / "02_one.py").write_text(given + code)
        return tool.main(["--budget", "laptop", "--lessons", lessons, "--results", str(tmp_path / "results"),
                          "--runs", str(tmp_path / "build"), "--notebooks", str(folder), *more])

    return run


def stored(tmp_path, name):
    return json.loads((tmp_path / "results" / "laptop" / name).read_text(encoding="utf-8"))


def test_a_seed_leaves_a_file_a_run_and_the_lessons_time(course, tmp_path):
    assert course("--seeds", "2026,2027", lessons="6,2") == 0
    assert set(tree(tmp_path / "results")) == {
        f"laptop/{name}.json" for name in ("lessons", "one", "one-seed2027")}
    result = stored(tmp_path, "one-seed2027.json")
    assert result["run"]["seed"] == 2027 and result["run"]["test_accuracy"] == 0.4  # of lesson 6, which ran last
    assert result["history"] == {"accuracy": [0.1, 0.5]}
    assert result["command"] == "python tools/reference.py --budget laptop --seeds 2027 --lessons 2,6"
    times = stored(tmp_path, "lessons.json")
    assert list(times) == ["baseline", "comparison"] and list(times["baseline"]) == ["2026", "2027"]
    figures = times["baseline"]["2026"]
    assert figures["cores"] == 2 and figures["gpus"] == [] and isinstance(figures["seconds"], int)
    if hasattr(os, "wait4"):
        assert 5 < figures["peak_memory_mb"] < 100_000


def test_the_users_cache_is_read_and_left_alone(course, tmp_path):
    before = tree(tmp_path / "user")
    assert course("--seeds", "1,2") == 0  # the lesson itself looks that no features are left of the seed before
    assert tree(tmp_path / "user") == before and (tmp_path / "user" / "features").is_dir()
    assert (tmp_path / "build" / "cache" / "official.npz").read_bytes() == b"images"


@pytest.mark.parametrize(("changed", "said"), [
    ({"STANDIN": "True"}, "'one' was trained on the stand-in"),
    ({"BACKBONE": "'random weights'"}, "'one' has a backbone with random weights: set BACKBONE_PATH"),
    ({"code": TRAIN + "raise ValueError('no luck')"}, "02_one stopped with ValueError: no luck (its output: "),
    ({"code": TRAIN + "os._exit(3)"}, "02_one stopped with exit status 3"),
    ({"code": "# start_lesson(\"baseline\")"}, "02_one ended without saving 'one' at the laptop budget with seed 2026"),
    ({"code": TRAIN.replace('int(os.environ["COURSE_SEED"])', "7")}, "whether start_lesson takes COURSE_SEED"),
    ({"code": "print(1)"}, "does not call start_lesson"),
    ({"code": TRAIN + "(folder / 'run.json').write_text('{')"}, "'one' cannot be read"),
])
def test_a_lesson_that_fails_leaves_earlier_results(course, tmp_path, capsys, changed, said):
    assert course() == 0
    before = tree(tmp_path / "results")
    capsys.readouterr()
    assert course(**changed) == 1
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1
    assert tree(tmp_path / "results") == before


def test_images_from_two_sources_are_not_mixed(course, tmp_path, capsys):
    assert course("--seeds", "2027") == 0
    before = tree(tmp_path / "results")
    assert course(FINGERPRINT="'bb'") == 1
    assert "would mix results on different images (fingerprints aa, bb)" in capsys.readouterr().err
    assert tree(tmp_path / "results") == before
    assert course("--seeds", "2027", FINGERPRINT="'bb'") == 0  # in the place of the only one there


def test_one_lesson_that_fails_does_not_stop_the_others(course, tmp_path, capsys):
    assert course("--seeds", "1,2", code=TRAIN + "assert seed == 2", lessons="2") == 1
    assert [name for name in tree(tmp_path / "results") if "seed" in name] == ["laptop/one-seed2.json"]
    assert "02_one stopped with AssertionError" in capsys.readouterr().err


def test_the_comparisons_time_is_not_kept_where_it_had_to_train(course, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "LESSONS", {"one": "02_one", "other": "03_other"})
    assert course(lessons="2,6") == 0
    assert "trained other first" in capsys.readouterr().out
    assert list(stored(tmp_path, "lessons.json")) == ["baseline"]
    assert stored(tmp_path, "one.json")["run"]["test_accuracy"] == 0.4


def test_the_comparisons_time_is_not_kept_where_runs_were_measured_before(course, tmp_path, capsys):
    assert course(lessons="2,6") == 0
    before = stored(tmp_path, "lessons.json")
    assert list(before) == ["baseline", "comparison"]
    capsys.readouterr()
    assert course(lessons="6") == 0
    assert "found one measured before: its time is not kept" in capsys.readouterr().out
    assert stored(tmp_path, "lessons.json") == before


def test_an_unknown_lesson_is_a_usage_error(course, capsys):
    assert course(lessons="2,9") == 2
    assert capsys.readouterr().err == "There is no lesson 9: take 2, 6.\n"


@pytest.mark.parametrize(("text", "kept"), [
    ("binary archive /home/ann/cifar.tar.gz, not official", "binary archive cifar.tar.gz, not official"),
    (r"arrays C:\Users\ann\cifar.npz", "arrays cifar.npz"),
    ("image folders ~/data/cifar", "image folders cifar"),
    ("folder /my data/cifar copy", "folder cifar copy"),  # CIFAR10_PATH: a space in it ends no path
    ("ResNet50 with Keras's ImageNet weights, 1/2", "ResNet50 with Keras's ImageNet weights, 1/2"),
    ("AMD EPYC / bfloat16", "AMD EPYC / bfloat16"),
])
def test_no_absolute_path_is_written(course, tmp_path, monkeypatch, text, kept):
    monkeypatch.setenv("CIFAR10_PATH", "/my data/cifar copy")
    assert course(ORIGIN=repr(text)) == 0
    assert stored(tmp_path, "one.json")["run"]["data"]["origin"] == kept
    assert str(tmp_path) not in json.dumps([content.decode() for content in tree(tmp_path / "results").values()])


# --- cifar_helpers.reference ---


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A function that writes a result into the checkout's results/, or into the package's."""
    monkeypatch.setattr(reference, "checkout", lambda: tmp_path)
    monkeypatch.setattr(reference, "PACKAGED", tmp_path / "package")

    def write(where, name, seed, accuracy=0.5):
        folder = tmp_path / where / "full"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"run": {"seed": seed}, "history": {"accuracy": [accuracy]},
                                               "command": "python tools/reference.py"}))

    return write


def test_results_come_one_a_seed_in_the_order_of_the_seeds(shipped):
    for name, seed in (("plain.json", 2026), ("plain-seed3.json", 3), ("plain-seed10.json", 10),
                       ("plain-other.json", 1), ("plainer.json", 2)):
        shipped("results", name, seed)
    assert [result["run"]["seed"] for result in reference.load_reference("plain")] == [3, 10, 2026]
    assert set(reference.load_reference("plain")[0]) == {"run", "history"}
    shipped("results", "augmented.json", 2026, 0.9)
    assert reference.histories(["augmented", "plainer"]) == {
        "augmented": [{"accuracy": [0.9]}], "plainer": [{"accuracy": [0.5]}]}


def test_a_run_without_results_is_left_out_of_the_histories_and_named(shipped, capsys):
    shipped("results", "plain.json", 2026, 0.9)
    assert list(reference.histories(["augmented", "plain"])) == ["plain"]
    assert "ships no results of 'augmented' at the full budget" in capsys.readouterr().out


def test_the_package_brings_its_own_where_there_is_no_checkout(shipped, monkeypatch):
    shipped("package", "plain.json", 1)
    assert reference.load_reference("plain")[0]["run"]["seed"] == 1  # a checkout without results/
    monkeypatch.setattr(reference, "checkout", lambda: None)
    assert reference.load_reference("plain")[0]["run"]["seed"] == 1


@pytest.mark.parametrize(("name", "how"), [
    ("plain", "`python tools/reference.py --budget full --lessons 3`"), ("x", "--budget full`")])
def test_a_result_that_is_not_there_is_named_with_a_remedy(shipped, name, how):
    with pytest.raises(CourseError, match=f"ships no results of '{name}' at the full budget: .*{how}"):
        reference.load_reference(name)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": {"seed": 1}}', '{"run": {}, "history": {}}',
                                     '{"run": {"seed": 1}, "history": [1]}'])
def test_a_damaged_result_is_named(shipped, tmp_path, content):
    shipped("results", "plain.json", 1)
    Path(tmp_path, "results", "full", "plain.json").write_text(content)
    with pytest.raises(CourseError, match=r"full/plain\.json cannot be read .*: take the file from"):
        reference.load_reference("plain")


def test_the_wheel_carries_the_results():
    text = (tool.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packed = f'results = "cifar_helpers/{reference.PACKAGED.name}"'
    assert packed in text.partition("[tool.hatch.build.targets.wheel.force-include]")[2].partition("\n\n")[0]


def test_every_budget_can_be_asked_for():
    with pytest.raises(SystemExit, match="2"):
        tool.main(["--budget", "huge"])
    assert {"laptop", "full"} <= set(budgets.NAMES)
