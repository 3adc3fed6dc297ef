"""The five predecessors and the lessons that answer them, side by side: A B A B, a process each.

Writes `build/benchmark.json` after every process (its form: see common.py) and prints tables. A script that fails is
named, the others run on, and the exit status is 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import pandas as pd

from cifar_helpers.errors import CourseError

FOLDER = Path(__file__).resolve().parent
# A pair is a predecessor's options, and ours.py's for the lesson that answers it. At the reduced size both train on the
# same share of their images where both start from nothing.
PLANS = {
    "reduced": {
        1: ("--images 4500 --test-images 2000", "4 --share 0.1 --test-images 2000"),
        2: ("--images 2250 --epochs 1 --augmented-epochs 1 --test-images 2000", "3 --share 0.05 --test-images 2000"),
        3: ("--images 4500 --test-images 2000", "2 --share 0.1 --test-images 2000"),
        4: ("--images 64 --epochs 1 --fine-tune-epochs 1 --test-images 20",
            "5 --share 0.02 --set fine_tune_images=64 --test-images 50"),
        5: ("--images 200 --epochs 1 --large-images 64 --large-epochs 1 --test-images 100 --large-test-images 10",
            "5 --share 0.01 --set fine_tune_images=32 --only transfer_frozen --test-images 50"),
    },
    "full": {
        1: ("", "4 --only fast --set epochs=1"),
        2: ("--images 11250 --epochs 1 --augmented-epochs 1", "3"),
        3: ("", "2"),
        4: ("--images 500 --epochs 1 --fine-tune-epochs 1 --test-images 500", "5 --test-images 2000"),
        5: ("--images 4500 --epochs 2 --large-images 500 --large-epochs 1 --large-test-images 200",
            "5 --share 0.3 --set fine_tune_images=64 --only transfer_frozen --test-images 2000"),
    },
}
CAUSE = {"reduced": "--images 100 --test-images 100", "full": "--images 1000 --test-images 1000"}


def schedule(size: str, pairs: list[int], seed: int) -> list[dict]:
    """The processes in their order: each pair's predecessor and lesson twice in turn, then predecessor 5's cause."""
    made = []
    for pair in pairs:
        theirs, ours = PLANS[size][pair]
        for measurement in (1, 2):
            made.append({"script": f"predecessor_{pair}.py", "options": theirs, "pair": pair,
                         "measurement": measurement})
            made.append({"script": "ours.py", "options": f"{ours} --answers {pair}", "pair": pair,
                         "measurement": measurement})
    if 5 in pairs:
        made.append({"script": "missing_preprocessing.py", "options": CAUSE[size], "pair": 5, "measurement": 1})
    return [process | {"options": f"{process['options']} --seed {seed}".strip()} for process in made]


def run_all(processes: list[dict], out: Path, size: str, folder: Path = FOLDER) -> dict:
    """Run the processes one after another, write `out` after each, and return what it holds."""
    content = {"context": {"size": size, "order": [], "failed": [], "pairs": []}, "records": []}
    for number, process in enumerate(processes, 1):
        begun = time.monotonic()
        fault = run_one(process, content, folder)
        command = f"{process['script']} {process['options']}"
        content["context"]["order"].append(command)
        if fault:
            content["context"]["failed"].append(command)
        content["context"]["pairs"] = compare(content["records"])
        common.write(out, content)
        print(f"{number}/{len(processes)} {command}: {fault or f'{time.monotonic() - begun:.0f} s'}", flush=True)
    return content


def run_one(process: dict, content: dict, folder: Path) -> str | None:
    """Run one process and join what it leaves to `content`; returns what went wrong, in one line, or None."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as scratch:
        left = Path(scratch) / "records.json"
        command = [sys.executable, str(folder / process["script"]), *process["options"].split(), "--out", str(left)]
        done = subprocess.run(command, env=os.environ | {"MPLBACKEND": "Agg"}, capture_output=True, text=True,
                              errors="replace", check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing was said"]
            return f"failed with status {done.returncode}: {said[-1]}"
        try:
            found = json.loads(left.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"failed: it left no records ({error})"
    known = content["context"].setdefault("data", found["context"]["data"])
    if known["fingerprint"] != found["context"]["data"]["fingerprint"]:
        return "failed: it ran on other images than those before it"
    for key, value in found["context"].items():
        content["context"].setdefault(key, value)
    content["records"] += [record | {"pair": process["pair"], "measurement": process["measurement"]}
                           for record in found["records"]]
    return None


# --- comparing ---


def reached(history: dict, target: float) -> float | None:
    """Seconds at the end of the first epoch whose validation accuracy is at least `target`; None where none is."""
    return next((seconds for seconds, value in zip(history["seconds"], history["validation_accuracy"], strict=True)
                 if value >= target), None)


def compare(records: list[dict]) -> list[dict]:
    """Each lesson's model beside the main model of the predecessor that it answers; the fields stand in common.py."""
    compared = []
    for ours in records:
        theirs = next((record for record in records if record["main"] and not record["ours"]
                       and (record["pair"], record["measurement"]) == (ours["pair"], ours["measurement"])), None)
        if not ours["ours"] or theirs is None:
            continue
        target, claimed = theirs["validation_accuracy"], theirs["claimed_accuracy"]
        seconds = reached(ours["history"], target)
        claimed_seconds = None if claimed is None else reached(ours["history"], claimed)
        compared.append({
            "pair": ours["pair"], "measurement": ours["measurement"], "ours": ours["name"],
            "predecessor": theirs["name"], "seconds_ratio": ratio(ours["whole_seconds"], theirs["whole_seconds"]),
            "target": target, "final": theirs["fraction"] == 1, "reached_seconds": seconds,
            "reached_ratio": ratio(seconds, theirs["history"]["seconds"][-1]), "claimed": claimed,
            "claimed_seconds": claimed_seconds, "claimed_ratio": ratio(claimed_seconds, theirs["whole_seconds"]),
        })
    return compared


def ratio(value: float | None, base: float) -> float | None:
    """Rounded to three significant digits; None where there is no value."""
    return None if value is None else float(f"{value / base:.3g}")


def both(values: list, form: str = "{:,.0f}") -> str:
    """The measurements of one figure beside each other; a dash where there is none."""
    return " / ".join("–" if value is None else form.format(value) for value in values) or "–"


def tables(content: dict) -> str:
    """What was measured, a row a model, and how fast each lesson's model was at the predecessor's accuracy."""
    records, pairs = content["records"], content["context"]["pairs"]
    rows, reaching = [], []
    for pair, name in dict.fromkeys((record["pair"], record["name"]) for record in records):
        same = [record for record in records if (record["pair"], record["name"]) == (pair, name)]
        compared = [entry for entry in pairs if (entry["pair"], entry["ours"]) == (pair, name)]
        first = same[0]
        rows.append({
            "pair": pair, "model": name, "test acc": both([record["test_accuracy"] for record in same], "{:.3f}"),
            "seconds": both([record["seconds"] for record in same], "{:,.1f}"), "trained": f"{first['fraction']:.2%}",
            "whole s": both([record["whole_seconds"] for record in same]),
            "images/s": both([record["images_per_second"] for record in same]),
            "peak MB": both([record["peak_memory_mb"] for record in same]),
            "parameters": f"{first['parameters']:,}", "MFLOPs": f"{first['forward_mflops']:,.1f}",
            "of its s": both([entry["seconds_ratio"] for entry in compared], "{:.3g}"),
        })
        for entry in compared:
            reaching.append({
                "pair": pair, "model": name, "predecessor": entry["predecessor"],
                "reaches": f"{entry['target']:.3f} ({'its last' if entry['final'] else 'where it stopped'})",
                "in s": both([entry["reached_seconds"]], "{:,.1f}"),
                "of its s": both([entry["reached_ratio"]], "{:.3g}"),
            })
            if entry["claimed"] is not None:
                reaching.append(reaching[-1] | {
                    "reaches": f"{entry['claimed']:.3f} (claimed)", "in s": both([entry["claimed_seconds"]], "{:,.1f}"),
                    "of its s": both([entry["claimed_ratio"]], "{:.3g}")})
    shown = [pd.DataFrame(part).to_string(index=False) for part in (rows, reaching) if part]
    random = sorted({record["name"] for record in records if record["backbone"] == "random weights"})
    notes = [f"Images: {content['context']['data']['name']}."] if records else ["Nothing was measured."]
    if records and content["context"]["data"]["is_standin"]:
        notes.append("These are not photographs: the accuracies mean nothing for CIFAR-10.")
    if random:
        notes.append(f"The backbone has random weights in {', '.join(random)}: their accuracies mean nothing.")
    if content["context"]["size"] == "reduced":
        notes.append("At the reduced size nothing is trained to its end: the accuracies say little.")
    return "\n\n".join([*shown, " ".join(notes)])


def pair_numbers(text: str) -> list[int]:
    """`1,3` as numbers; raises ArgumentTypeError where one is no predecessor's."""
    numbers = text.split(",")
    if not set(numbers) <= {str(pair) for pair in PLANS["full"]}:
        raise argparse.ArgumentTypeError(f"{text!r}: name predecessors 1 to 5 with commas between, such as 1,3")
    return sorted({int(number) for number in numbers})


def main(arguments=None) -> int:
    """Run the benchmark; 0 where every script ended well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="lessons at the laptop budget, predecessors 1 and 3 whole")
    parser.add_argument("--pairs", type=pair_numbers, default=list(PLANS["full"]), help="such as 1,3 (default all)")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path, default=FOLDER.parent / "build" / "benchmark.json")
    options = parser.parse_args(arguments)
    size = "full" if options.full else "reduced"
    try:
        content = run_all(schedule(size, options.pairs, options.seed), options.out, size)
    except OSError as error:
        raise CourseError(f"{options.out} cannot be written ({error}): name another file with --out.") from error
    print(f"\n{tables(content)}\n\n{options.out}")
    return 1 if content["context"]["failed"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CourseError as error:
        sys.exit(str(error))
