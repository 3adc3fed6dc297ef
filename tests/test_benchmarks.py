"""The benchmarks: the predecessors' nets, what is measured, in which order, and what a failure leaves."""

import ast
import copy
import importlib
import json
import re
from types import SimpleNamespace

import ablation
import backbones
import common
import keras
import ours
import passes
import predecessor_2
import predecessor_3
import predecessor_4
import pytest
import run
import scaling
from keras import layers

from cifar_helpers import archives, budgets, machine, models, runs, standin, transfer
from cifar_helpers import data as data_module
from cifar_helpers.errors import CourseError


@pytest.fixture
def few_pictures(tmp_path, monkeypatch):
    """A stand-in of 2,420 pictures where the course, in any process, looks for the one that it draws."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("CIFAR10_PATH", "CIFAR10_REQUIRED", "BACKBONE_PATH"):
        monkeypatch.delenv(name, raising=False)
    arrays = archives.Arrays(*standin.generate(220, 22), "a few drawn shapes")
    return data_module._split_and_keep(arrays, data_module.STAND_IN, is_standin=True)


def made_up(name, pair=1, measurement=1, **changed):
    """A record with every field, of a model that trained for two epochs."""
    theirs = name.startswith("predecessor")
    return {
        "name": name, "what": "a net", "predecessor": pair, "ours": not theirs, "main": theirs, "test_accuracy": 0.5,
        "test_images": 100, "validation_accuracy": 0.6, "claimed_accuracy": 0.7 if theirs else None, "seconds": 80.0,
        "fraction": 1.0, "whole_seconds": 80.0, "images": 1_000, "epochs": 2, "images_per_second": 25.0,
        "peak_memory_mb": 1_234.5, "parameters": 122_570, "trainable_tensors": 10, "forward_mflops": 12.25,
        "history": {"seconds": [40.0, 80.0], "validation_accuracy": [0.3, 0.6]}, "backbone": None,
        "precision": "float32", "data": "CIFAR-10", "budget": None, "seed": 1, "pair": pair, "measurement": measurement,
    } | changed


def made_up_content(records, **context):
    source = {"name": "CIFAR-10", "origin": "made up", "fingerprint": "1", "is_standin": False}
    return {"context": {"data": source, "size": "full", "order": [], "failed": [], "pairs": run.compare(records)}
            | context, "records": records}


# --- the predecessors' nets ---


def test_predecessor_3_is_the_net_of_lesson_2_without_scaling():
    net = predecessor_3.build(layers.Identity())
    assert net.count_params() == 122_570
    given = {"keras": keras, "layers": layers, "budget": SimpleNamespace(seed=1)}
    lesson = common.lesson_functions("2", ("build",), given)["build"](layers.Identity(), "lesson")
    assert [weight.shape for weight in lesson.weights] == [weight.shape for weight in net.weights]


def test_predecessor_2_costs_what_it_is_known_to_cost():
    operations = 3 * common.forward_mflops(predecessor_2.build()) * 1e6 * 50_000 * 100
    assert operations == pytest.approx(1.2e15, rel=0.05)


@pytest.fixture(scope="module")
def resnet():
    return keras.applications.ResNet50(include_top=False, weights=None, input_shape=(None, None, 3))


def test_predecessor_4_trains_its_head_alone_until_the_right_object_is_unfrozen(resnet):
    resnet.trainable = False
    net = predecessor_4.build_resnet(resnet, 32)
    dense = 2_048 * 256 + 256 + 256 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert net.count_params() - resnet.count_params() == dense + 4 * (256 + 128 + 64)
    before = len(net.trainable_weights)
    assert before == 4 * 2 + 3 * 2  # kernels and biases of four dense layers, scale and shift of three normalisations
    predecessor_4.unfreeze(resnet)
    assert len(net.trainable_weights) - before == 112 - 6  # as the predecessor's own counts differ
    assert not any(layer.trainable for layer in resnet.layers if isinstance(layer, layers.BatchNormalization))


# --- what is measured ---


def test_operations_are_those_counted_by_hand(resnet):
    dense = keras.Sequential([keras.Input((7,)), layers.Dense(5)])
    assert common.forward_mflops(dense, (7,)) * 1e6 == pytest.approx(2 * 7 * 5 + 5)
    convolutions = 2 * (30 * 30 * 32 * 27 + 13 * 13 * 64 * 288) + 30 * 30 * 32 + 13 * 13 * 64
    pooling = 4 * (15 * 15 * 32 + 6 * 6 * 64)
    head = 2 * (2_304 * 128 + 128 * 10) + 128 + 10
    scaling_pixels = 2 * 32 * 32 * 3
    assert common.forward_mflops(models.SubclassedCNN()) * 1e6 == pytest.approx(
        convolutions + pooling + head + scaling_pixels)
    assert common.forward_mflops(resnet, (224, 224, 3)) / 2 == pytest.approx(3_856, rel=0.01)


@pytest.mark.parametrize(("platform", "factor"), [("linux", 1_024), ("darwin", 1)])
def test_peak_memory_has_the_same_unit_on_every_system(platform, factor, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(common.sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: type("Usage", (), {"ru_maxrss": 5_000_000}))
    assert common.peak_memory_mb() == 5 * factor


def test_peak_memory_of_this_process_is_plausible():
    pytest.importorskip("resource")
    assert 100 < common.peak_memory_mb() < 100_000


def test_extrapolation():
    whole = {"seconds": 83.0, "startup": 2.0, "trained": 450, "batch": 10, "whole": 450}
    assert common.extrapolate([whole]) == (1, 83)
    part = {"seconds": 12.0, "startup": 2.0, "trained": 110, "batch": 10, "whole": 1_010}
    assert common.extrapolate([part]) == (pytest.approx(110 / 1_010), pytest.approx(2 + 0.1 * 1_000))
    fraction, seconds = common.extrapolate([whole, part])
    assert (fraction, seconds) == (pytest.approx(560 / 1_460), pytest.approx(83 + 102))


def test_one_batch_says_nothing_about_speed():
    with pytest.raises(CourseError, match="take more with --images"):
        common.extrapolate([{"seconds": 12.0, "startup": 12.0, "trained": 10, "batch": 32, "whole": 1_010}])


def test_the_clock_sets_the_first_batches_apart(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(common.time, "perf_counter", lambda: now[0])
    clock = common.Clock(offset=50.0)

    def after(seconds, call, *arguments):
        now[0] += seconds
        call(*arguments)

    after(0, clock.on_train_begin)
    for epoch in range(2):
        after(3 if epoch == 0 else 1, clock.on_train_batch_end, 0)
        after(1, clock.on_train_batch_end, 1)
        after(0, clock.on_test_begin)
        after(2 if epoch == 0 else 1, clock.on_test_batch_end, 0)
        after(0, clock.on_epoch_end, epoch)
    assert clock.seconds == [56, 59] and clock.total == 9
    assert clock.phase(20, 2, 10, 400) == {"seconds": 9, "startup": 5, "trained": 40, "batch": 10, "whole": 400}


# --- lessons ---


def test_a_share_of_a_budget_keeps_epochs_and_sizes(monkeypatch):
    monkeypatch.setattr(budgets, "LESSONS", copy.deepcopy(budgets.LESSONS))
    before = copy.deepcopy(budgets.LESSONS)
    ours.reduce_budgets("laptop", 0.1, {"fine_tune_images": 32})
    transfer_budget = budgets.LESSONS["transfer"]["laptop"]
    assert transfer_budget["train_images"] == before["transfer"]["laptop"]["train_images"] // 10
    assert transfer_budget["fine_tune_images"] == 32
    for key in ("image_size", "head_epochs", "fine_tune_epochs"):
        assert transfer_budget[key] == before["transfer"]["laptop"][key]
    assert budgets.LESSONS["augmentation"]["laptop"]["train_images"] == 4_500  # None is all 45,000
    assert budgets.LESSONS["transfer"]["full"] == before["transfer"]["full"]


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_is_a_share(share):
    with pytest.raises(CourseError, match="must lie above 0"):
        ours.reduce_budgets("laptop", share, {})


@pytest.mark.parametrize("lesson", ["0", "99", "two"])
def test_an_unknown_lesson_is_one_sentence(lesson, capsys):
    assert common.main(ours.measure, [lesson, "--answers", "1"]) == 1
    assert re.fullmatch(rf"There is no lesson {lesson} in .*: take a number such as 2\.\n", capsys.readouterr().err)


def test_a_lesson_without_the_wanted_function_is_named():
    with pytest.raises(CourseError, match=r"02_baseline\.py defines no function no_such"):
        common.lesson_functions("2", ("build", "no_such"), {})


def test_width_multiplies_every_block_of_lesson_3():
    def widths(factor):
        return [layer.filters for layer in scaling.widened(factor, 1).layers if isinstance(layer, layers.Conv2D)]

    assert widths(2) == [2 * width for width in widths(1)]
    assert widths(0.5) == [width // 2 for width in widths(1)] and len(widths(1)) >= 3


# --- the order, failures, and what is shown ---


def test_processes_take_turns():
    order = [(process["script"].removesuffix(".py"), process["pair"], process["measurement"])
             for process in run.schedule("reduced", [1, 5], 7)]
    assert order == [
        ("predecessor_1", 1, 1), ("ours", 1, 1), ("predecessor_1", 1, 2), ("ours", 1, 2),
        ("predecessor_5", 5, 1), ("ours", 5, 1), ("predecessor_5", 5, 2), ("ours", 5, 2),
        ("missing_preprocessing", 5, 1)]
    assert all(process["options"].endswith("--seed 7") for process in run.schedule("full", [1, 2, 3, 4, 5], 7))


@pytest.mark.parametrize("size", run.PLANS)
def test_scripts_take_the_options_that_the_plans_give(size, monkeypatch):
    class Taken(Exception):
        pass

    def taken(*_):
        raise Taken

    monkeypatch.setattr(common, "load", taken)
    monkeypatch.setattr(ours, "reduce_budgets", taken)
    for name in ("COURSE_BUDGET", "COURSE_SEED", "MPLBACKEND"):
        monkeypatch.setenv(name, "smoke")  # ours.py sets them: they go back afterwards
    for process in run.schedule(size, [1, 2, 3, 4, 5], 7):
        script = importlib.import_module(process["script"].removesuffix(".py"))
        with pytest.raises(Taken):
            script.measure(process["options"].split())
        if process["script"].startswith("predecessor"):  # no speed follows from a first batch alone
            images = re.findall(r"--(?:large-)?images (\d+)", process["options"])
            assert all(int(number) > script.BATCH for number in images)


def test_measurements_of_scaling_take_turns():
    calls = []
    points = [{"x": x, "measure": lambda x=x: calls.append(x) or float(len(calls))} for x in (1, 2)]
    assert [point["seconds"] for point in scaling.take_turns(points, 2)] == [[1, 3], [2, 4]]
    assert calls == [1, 2, 1, 2]


SCRIPT = """import sys
print("a line of no interest")
if {fails}:
    sys.exit("this is why")
open(sys.argv[-1], "w").write({content!r})
"""


def test_a_failing_script_leaves_the_others_results(tmp_path, capsys):
    out = tmp_path / "build" / "benchmark.json"
    for name in ("predecessor_1", "plain", "late"):
        left = json.dumps(made_up_content([made_up(name)]))
        (tmp_path / f"{name}.py").write_text(SCRIPT.format(fails=name == "plain", content=left), encoding="utf-8")
    (tmp_path / "silent.py").write_text("", encoding="utf-8")
    processes = [{"script": f"{name}.py", "options": "--seed 1", "pair": 1, "measurement": 2}
                 for name in ("predecessor_1", "plain", "silent", "late")]
    content = run.run_all(processes, out, "full", tmp_path)
    assert json.loads(out.read_text(encoding="utf-8")) == content
    assert [record["name"] for record in content["records"]] == ["predecessor_1", "late"]
    assert {(record["pair"], record["measurement"]) for record in content["records"]} == {(1, 2)}
    assert content["context"]["failed"] == ["plain.py --seed 1", "silent.py --seed 1"]
    assert [entry["ours"] for entry in content["context"]["pairs"]] == ["late"]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[1] == "2/4 plain.py --seed 1: failed with status 1: this is why"
    assert said[2].startswith("3/4 silent.py --seed 1: failed: it left no records")


def test_exit_status_says_whether_all_went_well(tmp_path, monkeypatch, capsys):
    content = made_up_content([made_up("predecessor_1")])
    monkeypatch.setattr(run, "run_all", lambda *_: content)
    assert run.main(["--pairs", "1", "--out", str(tmp_path / "x.json")]) == 0
    content["context"]["failed"].append("predecessor_2.py")
    assert run.main(["--pairs", "1", "--out", str(tmp_path / "x.json")]) == 1
    with pytest.raises(SystemExit, match="2"):
        run.main(["--pairs", "1,6"])
    assert "name predecessors 1 to 5" in capsys.readouterr().err


def test_a_pair_is_compared_within_one_measurement():
    curve = {"seconds": [5.0, 10.0, 20.0], "validation_accuracy": [0.5, 0.61, 0.72]}
    records = [made_up("predecessor_1", measurement=1), made_up("predecessor_1", measurement=2, whole_seconds=40.0),
               made_up("fast", seconds=20.0, whole_seconds=20.0, history=curve), made_up("fast", pair=3)]
    entry, = run.compare(records)
    assert (entry["ours"], entry["predecessor"], entry["seconds_ratio"]) == ("fast", "predecessor_1", 0.25)
    assert (entry["target"], entry["final"], entry["reached_seconds"], entry["reached_ratio"]) == (0.6, True, 10, 0.125)
    assert (entry["claimed"], entry["claimed_seconds"], entry["claimed_ratio"]) == (0.7, 20, 0.25)


def test_what_is_not_reached_has_no_seconds():
    low = {"seconds": [5.0], "validation_accuracy": [0.1]}
    entry, = run.compare([made_up("predecessor_1", fraction=0.5, claimed_accuracy=None), made_up("slow", history=low)])
    assert entry["reached_seconds"] is entry["reached_ratio"] is entry["claimed"] is entry["claimed_ratio"] is None
    assert entry["final"] is False


def test_tables_show_both_measurements():
    records = [made_up(name, measurement=measurement, seconds=seconds, whole_seconds=2 * seconds, fraction=0.5)
               for measurement in (1, 2) for name, seconds in (("predecessor_1", 80.0), ("fast", 20.0 * measurement))]
    text = run.tables(made_up_content(records))
    lines = [line.split() for line in text.splitlines()]
    row = next(line for line in lines if line[:2] == ["1", "fast"])
    assert " ".join(row) == ("1 fast 0.500 / 0.500 20.0 / 40.0 50.00% 40 / 80 25 / 25 1,234 / 1,234 122,570 12.2 "
                             "0.25 / 0.5")
    assert "0.600 (where it stopped)" in text and "0.700 (claimed)" in text and text.endswith("Images: CIFAR-10.")


def test_tables_say_what_the_figures_do_not_mean():
    records = [made_up("predecessor_4", backbone=transfer.RANDOM)]
    source = {"name": "generated stand-in", "origin": "shapes", "fingerprint": "1", "is_standin": True}
    text = run.tables(made_up_content(records, data=source, size="reduced"))
    assert "mean nothing for CIFAR-10" in text and "random weights in predecessor_4" in text
    assert "accuracies say little" in text
    assert run.tables({"context": {"size": "full", "pairs": []}, "records": []}) == "Nothing was measured."


@pytest.mark.slow
def test_a_predecessor_and_a_lesson_are_measured_for_real(few_pictures, tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_RUNS", raising=False)
    options = ("--images 100 --epochs 2 --test-images 50", "2 --budget smoke --answers 3 --test-images 50")
    processes = [{"script": script, "options": f"{option} --seed 3", "pair": 3, "measurement": 1}
                 for script, option in zip(("predecessor_3.py", "ours.py"), options, strict=True)]
    content = run.run_all(processes, tmp_path / "benchmark.json", "reduced")
    assert content["context"]["failed"] == [] and content["context"]["data"] == vars(few_pictures.source)
    assert content["context"]["versions"].keys() == machine.describe()["versions"].keys()
    theirs, lesson = content["records"]
    assert theirs.keys() == lesson.keys() == made_up("x").keys()
    assert (theirs["name"], lesson["name"]) == ("predecessor_3", "baseline") and lesson["budget"] == "smoke"
    assert set(runs.LESSONS) >= {lesson["name"]}
    for record in (theirs, lesson):
        assert record["test_images"] == 50 and 0 <= record["test_accuracy"] <= 1
        assert record["data"] == "generated stand-in" and record["parameters"] == 122_570
        assert len(record["history"]["seconds"]) == len(record["history"]["validation_accuracy"]) == record["epochs"]
        assert record["seconds"] == pytest.approx(record["history"]["seconds"][-1], abs=0.02)
        assert 1 < record["forward_mflops"] < 100 and record["peak_memory_mb"] != 0
    assert theirs["fraction"] == pytest.approx(200 / 450_000, abs=1e-6) and lesson["fraction"] == 1
    assert theirs["whole_seconds"] > theirs["seconds"] and theirs["seed"] == 3
    assert str(tmp_path) not in json.dumps(content)


# --- other backbones ---


def test_another_backbone_changes_one_line_of_lesson_5(tmp_path):
    script = common.lesson_script("5")
    copied = ours.with_backbone(script, "MobileNetV2", tmp_path).read_text(encoding="utf-8").splitlines()
    own = script.read_text(encoding="utf-8").splitlines()
    assert copied != own and set(copied) ^ set(own) == {'BACKBONE = "ResNet50"', 'BACKBONE = "MobileNetV2"'}
    with pytest.raises(CourseError, match=r"02_baseline\.py has no line BACKBONE"):
        ours.with_backbone(common.lesson_script("2"), "MobileNetV2", tmp_path)


def test_backbones_take_turns_and_a_failure_is_told(monkeypatch, tmp_path, capsys):
    def run_all(processes, out, size):
        orders.append([process["options"] for process in processes])
        return made_up_content([made_up("transfer_frozen_mobilenetv2", what="a small net", seed=7)], failed=failed)

    orders, failed = [], []
    monkeypatch.setattr(run, "run_all", run_all)
    assert common.main(backbones.measure, ["--seeds", "7,8", "--out", str(tmp_path / "a.json")]) == 0
    assert [(option.split()[2], option.split()[-1]) for option in orders[0]] == [
        ("MobileNetV2", "7"), ("ResNet50", "7"), ("MobileNetV2", "8"), ("ResNet50", "8")]
    assert "a small net, seed 7: test accuracy 0.500 after 80 s" in capsys.readouterr().out
    failed.append("ours.py 5")
    assert common.main(backbones.measure, []) == 1
    assert capsys.readouterr().err == "Not measured: ours.py 5.\n"


def test_passes_are_measured_for_real(monkeypatch, capsys):
    monkeypatch.setattr(machine, "prefer_bfloat16", lambda: "float32")  # it would hold for every later test
    passes.measure(["--passes", "2", "--images", "200,300"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[-5] for row in rows] == ["is", "steady"] * 2  # "as it is"
    assert all(0 < float(row.split()[-4]) <= float(row.split()[-2]) for row in rows)


@pytest.mark.slow
def test_another_backbone_is_measured_for_real(few_pictures, tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_RUNS", raising=False)
    out = tmp_path / "backbones.json"
    options = ["--backbones", "MobileNetV2", "--seeds", "3", "--share", "0.002", "--test-images", "20"]
    assert common.main(backbones.measure, [*options, "--out", str(out)]) == 0
    [record] = json.loads(out.read_text(encoding="utf-8"))["records"]
    assert record["name"] == "transfer_frozen_mobilenetv2" and record["backbone"] == transfer.RANDOM
    assert record["what"].endswith(", MobileNetV2 at 160 pixels") and record["parameters"] == 2_270_794


# --- the ablation ---


@pytest.mark.parametrize("idea", ablation.IDEAS)
def test_an_idea_is_taken_away_where_the_lesson_has_it_and_nothing_else_changes(idea):
    whole, without = (ast.unparse(ablation.lesson_cells(name)) for name in (ablation.WHOLE, idea))
    changed = len(set(whole.splitlines()) ^ set(without.splitlines()))
    assert changed == 0 if idea == ablation.WHOLE else 1 <= changed <= 2 * len(ablation.IDEAS[idea])


def test_a_lesson_that_has_lost_an_idea_is_named(monkeypatch):
    monkeypatch.setitem(ablation.IDEAS, "warp drive", [("engage()", "pass")])
    with pytest.raises(ValueError, match=r"04_custom_loop.py holds 'engage\(\)' 0 times"):
        ablation.lesson_cells("warp drive")


def test_an_unknown_idea_is_named_with_the_known_ones(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ablation.py", "--without", "magic"])
    with pytest.raises(SystemExit, match="2"):
        ablation.main()
    assert re.search("no such idea: magic; take from nothing, whitening", capsys.readouterr().err)
