"""The runner of the fault injections counts what it was given, and cannot end well where something was lost."""

import json
import sys
from types import SimpleNamespace

import inject
import pytest


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr("cifar_helpers.machine.describe", lambda: {"cores": 2, "versions": {"python": "3.12"}})


@pytest.fixture
def promises(monkeypatch, tmp_path):
    """A folder with the promises that a test names, each with the cases it gives."""
    def make(**cases):
        for name, found in cases.items():
            (tmp_path / f"{name}.py").touch()
            monkeypatch.setitem(sys.modules, name, SimpleNamespace(PROMISE=f"the promise of {name}", cases=found))
        monkeypatch.setattr(inject, "FOLDER", tmp_path)
        return tmp_path / "out" / "faults.json"

    return make


def good(scale):
    yield "a case", True, ""
    yield "another", True, ""


def half(scale):
    yield "a case", True, ""
    yield f"a {scale} case", False, "an hour of training"


def stops(scale):
    yield "a case", True, ""
    raise OSError("no space")


def test_all_survived_ends_well(promises, capsys):
    out = promises(promise_1_good=good)
    assert inject.main(["--out", str(out)]) == 0
    content = json.loads(out.read_text())
    row, = content["rows"]
    assert content["context"] == {"scale": "full", "hardware": {"cores": 2}, "versions": {"python": "3.12"}}
    assert (row["number"], row["tried"], row["survived"], row["lost"]) == (1, 2, 2, [])
    assert "the promise of promise_1_good" in capsys.readouterr().out


def test_a_loss_is_named_and_the_others_still_run(promises, capsys):
    out = promises(promise_1_half=half, promise_2_good=good)
    assert inject.main(["--scale", "short", "--out", str(out)]) == 1
    rows = json.loads(out.read_text())["rows"]
    assert [row["survived"] for row in rows] == [1, 2]
    assert rows[0]["lost"] == ["a short case: an hour of training"]
    assert "an hour of training" in capsys.readouterr().out


@pytest.mark.parametrize("cases", [stops, lambda scale: iter(())], ids=["stops", "tries nothing"])
def test_a_module_that_stops_or_tries_nothing_is_a_loss(promises, cases):
    out = promises(promise_3_bad=cases)
    assert inject.main(["--out", str(out)]) == 1
    assert json.loads(out.read_text())["rows"][0]["lost"]


def test_promises_are_chosen_by_number(promises, capsys):
    out = promises(promise_1_half=half, promise_2_good=good, promise_2_more=good)
    assert inject.main(["2", "--out", str(out)]) == 0
    assert [row["module"] for row in json.loads(out.read_text())["rows"]] == ["promise_2_good", "promise_2_more"]
    assert inject.main(["9", "--out", str(out)]) == 2
    assert "There is no promise 9: take 1, 2." in capsys.readouterr().err


def test_promises_that_are_tried_again_replace_their_rows_and_the_others_stay(promises, monkeypatch):
    out = promises(promise_1_half=half, promise_2_good=good)
    inject.main(["--out", str(out)])
    monkeypatch.setattr(sys.modules["promise_1_half"], "cases", good)
    assert inject.main(["1", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["module"], row["survived"]) for row in rows] == [("promise_1_half", 2), ("promise_2_good", 2)]
    assert inject.main(["2", "--scale", "short", "--out", str(out)]) == 0  # another scale: nothing is kept
    assert [row["module"] for row in json.loads(out.read_text())["rows"]] == ["promise_2_good"]


def test_every_promise_of_the_course_has_a_module():
    assert {int(name.split("_")[1]) for name in inject.modules()} == set(range(1, 9))
