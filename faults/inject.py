"""Inject every fault that the course promises to survive, and print one table: promise, tried, survived, lost, seconds.

    python faults/inject.py                     all promises, in full
    python faults/inject.py --scale short 1 5   promises 1 and 5, a few cases each

Each `promise_N_name.py` beside this file has a sentence `PROMISE` and `cases(scale)`, which yields what was tried,
whether it was survived, and what was lost. `build/faults.json` gets the table, with every case that was lost, and the
versions and hardware that it was made with. `COURSE_OLD_PYTHON=/a/python` names a Python with the lowest supported
versions: promise 7 then carries models from one version to the other. Rows of promises that were not tried this time
stay, where scale, versions and hardware are the same.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).resolve().parent
SCALES = ("short", "full")


def modules(numbers: list[int] | None = None) -> list[str]:
    """The names of the modules for these promises, all where none is named, in order.

    Raises ValueError where there is none of a number.
    """
    found = sorted(path.stem for path in FOLDER.glob("promise_[0-9]*_*.py"))
    known = {int(name.split("_")[1]) for name in found}
    if unknown := sorted(set(numbers or []) - known):
        raise ValueError(f"There is no promise {', '.join(map(str, unknown))}: take {', '.join(map(str, known))}.")
    return [name for name in found if not numbers or int(name.split("_")[1]) in numbers]


def tally(name: str, scale: str) -> dict:
    """Run one module's cases and count them; a case that raises ends the module, and counts as lost."""
    module, begun, row = importlib.import_module(name), time.perf_counter(), {"tried": 0, "lost": []}
    try:
        for what, survived, detail in module.cases(scale):
            row["tried"] += 1
            if not survived:
                row["lost"].append(f"{what}: {detail}")
                print(f"  lost: {row['lost'][-1]}", flush=True)
    except Exception as error:  # whatever it is, the other promises are tried all the same
        row["tried"] += 1
        row["lost"].append(f"{name} itself stopped: {error!r}")
        print(f"  {row['lost'][-1]}", flush=True)
    if not row["tried"]:
        row["lost"].append(f"{name} tried nothing")
    return {"number": int(name.split("_")[1]), "promise": module.PROMISE, "module": name, "tried": row["tried"],
            "survived": max(0, row["tried"] - len(row["lost"])), "lost": row["lost"],
            "seconds": round(time.perf_counter() - begun, 1)}


def table(rows: list[dict]) -> str:
    """The rows as text for a terminal."""
    frame = pd.DataFrame([{"": row["number"], "promise": row["promise"], "tried": f"{row['tried']:,}",
                           "survived": f"{row['survived']:,}", "lost": len(row["lost"]), "seconds": row["seconds"]}
                          for row in rows])
    return frame.to_string(index=False)


def kept(file: Path, context: dict, names: list[str]) -> list[dict]:
    """The rows of an earlier table for other modules, where scale, versions and hardware were these."""
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        there = modules()
        return [row for row in before["rows"] if before["context"] == context
                and row["module"] in there and row["module"] not in names]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 where nothing was lost, 1 where something was, 2 where the call makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("promises", nargs="*", type=int, help="numbers of promises (all)")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--out", type=Path, default=FOLDER.parent / "build" / "faults.json")
    options = parser.parse_args(arguments)
    try:
        names = modules(options.promises)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    rows = []
    for name in names:
        print(f"{name} …", flush=True)
        rows.append(tally(name, options.scale))
    from cifar_helpers import machine  # only now: TensorFlow's memory would count in every process that a case forks

    context = {"scale": options.scale, "hardware": (here := machine.describe()), "versions": here.pop("versions")}
    rows = sorted(rows + kept(options.out, context, names), key=lambda row: row["module"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"context": context, "rows": rows}, indent=1, ensure_ascii=False) + "\n",
                           encoding="utf-8")
    print(f"\n{table(rows)}\n\n{options.out}")
    return 1 if any(row["lost"] for row in rows) else 0


if __name__ == "__main__":
    # nothing of a fault run reaches the user's own cache, runs or home
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as scratch:
        tempfile.tempdir = scratch
        sys.exit(main())
