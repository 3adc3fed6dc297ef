"""Lesson 4's fast net with one idea taken away at a time: what does each buy?

    python benchmarks/ablation.py                     all ideas, two seeds
    python benchmarks/ablation.py --seeds 2026 --epochs 1 --images 5000 --out /tmp/ablation.json

The lesson's own cells are run, with one piece of text replaced. Writes a JSON file: `context` (as in common.py, and
`epochs` and `images` of each training) and `records`, one a training: `without`, `seed`, `validation_accuracy`,
`seconds`.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jupytext

ROOT = Path(__file__).resolve().parent.parent
LESSON = ROOT / "notebooks" / "04_custom_loop.py"
WHOLE = "nothing"
# what is taken away: (text of the lesson, what stands in its place)
IDEAS = {
    WHOLE: [],
    "whitening": [("layers.Conv2D(24, 2, use_bias=False, trainable=False)", "layers.Conv2D(24, 2, use_bias=False)"),
                  ("fast.whiten.kernel.assign(whitening_filters(fast.scale(some)))", "pass")],
    "identity start": [("    convolution.kernel.assign(kernel)", "    pass")],
    "moving": [("generator.integers(0, places, (len(padded), 2))", "np.full((len(padded), 2), shift)")],
    "mirroring": [("mirrored = mirrored_first ^ (epoch % 2 == 1)", "mirrored = np.zeros(len(padded), bool)")],
    "alternating (mirrored at random)": [("mirrored = mirrored_first ^ (epoch % 2 == 1)",
                                          "mirrored = generator.random(len(padded)) < 0.5")],
    "small pictures first": [("size = 24 if epoch < budget.fast_epochs // 2 else 32", "size = 32")],
    "label smoothing": [("label_smoothing=0.2", "label_smoothing=0.0")],
    "faster biases": [("64 * gradient if", "gradient if")],
    "a falling rate": [("SGD(fast_rate,", "SGD(0.3,")],
    "division by 9": [("return self.logits(self.peak(x)) / 9", "return self.logits(self.peak(x))")],
}


def lesson_cells(without: str) -> ast.Module:
    """The cells that the fast net needs, with an idea taken away; checks that hold for the whole recipe are dropped.

    Raises ValueError where the lesson does not hold the text to replace exactly once.
    """
    cells = [cell.source for cell in jupytext.read(LESSON, fmt="py:percent").cells if cell.cell_type == "code"]
    first = next(number for number, source in enumerate(cells) if "class FastCNN" in source)
    last = next(number for number, source in enumerate(cells) if "fast_step(images, labels)" in source
                and "def fast_step" not in source)
    needed = [source for source in cells[:first]
              if "start_lesson(" in source or source.startswith("import sys") or "def metrics_and_reset" in source
              or source.startswith("loss_function")] + cells[first:last + 1]
    text = "\n# cell\n".join(needed)
    for old, new in IDEAS[without]:
        if text.count(old) != 1:
            raise ValueError(f"{LESSON.name} holds {old!r} {text.count(old)} times: mend IDEAS in this file.")
        text = text.replace(old, new)
    module = ast.parse(text)
    module.body = [node for node in module.body if not isinstance(node, ast.Assert)]
    return module


def train(without: str, seed: int, epochs: int, images: int) -> dict:
    """Train once, in this process; returns the record, and what it was trained on and with as `context`."""
    import common

    from cifar_helpers import budgets

    budgets.LESSONS["custom_loop"]["laptop"] |= {"fast_epochs": epochs, "train_images": images}
    names = {"__name__": "ablation"}
    with tempfile.TemporaryDirectory() as folder:  # the lesson keeps its progress there; no other training finds it
        os.environ |= {"COURSE_BUDGET": "laptop", "COURSE_SEED": str(seed), "COURSE_RUNS": folder}
        exec(compile(lesson_cells(without), LESSON.name, "exec"), names)  # the course's own lesson
    history = names["fast_history"]
    return {"without": without, "seed": seed, "validation_accuracy": round(history["val_accuracy"][-1], 4),
            "seconds": round(history["seconds"][-1], 1),
            "context": common.context(names["data"]) | {"epochs": epochs, "images": len(names["data"].train)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="2026,2027", help="numbers with commas between")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=20_000, help="training images")
    parser.add_argument("--without", default=",".join(IDEAS), help="ideas with commas between")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "ablation.json")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seeds, ideas = [int(seed) for seed in options.seeds.split(",")], options.without.split(",")
    if unknown := [idea for idea in ideas if idea not in IDEAS]:
        parser.error(f"no such idea: {', '.join(unknown)}; take from {', '.join(IDEAS)}")
    if options.one:
        options.out.write_text(json.dumps(train(ideas[0], seeds[0], options.epochs, options.images)))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    records, context = [], None
    for seed in seeds:
        for idea in ideas:
            record = run_alone(idea, seed, options)
            context = record.pop("context")
            records.append(record)
            print(f"without {idea:34} seed {seed}: {record['validation_accuracy']:.4f}, {record['seconds']:.0f} s",
                  flush=True)
            options.out.write_text(json.dumps({"context": context, "records": records}, indent=1) + "\n")


def run_alone(idea: str, seed: int, options) -> dict:
    """One training in a process of its own, so that none inherits another's graphs or memory."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", "--without", idea, "--seeds", str(seed), "--epochs",
                   str(options.epochs), "--images", str(options.images), "--out", str(Path(folder) / "record.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"without {idea}, seed {seed}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return json.loads((Path(folder) / "record.json").read_text())


if __name__ == "__main__":
    main()
