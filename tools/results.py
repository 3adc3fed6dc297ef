"""Keep everything that speaks of results equal to the JSON in `results/`.

    python tools/results.py --write    write tables, rows and figures from the JSON
    python tools/results.py --check    write nothing; say what differs, and exit with 1 where something does

Written are: in the pages of PAGES, what stands between `<!-- results: NAME -->` and `<!-- end -->` (see `blocks`); in
the first cell of each lesson, minutes and accuracy in the rows of the budgets for which there are results; and
`results/figures/`. A figure is drawn anew only where its data or the function that draws it have changed, which its
SHA-256 tells, so that checking depends on no version of matplotlib.
"""

import argparse
import hashlib
import inspect
import io
import itertools
import json
import math
import re
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import openers
import pairs

from cifar_helpers import machine
from cifar_helpers.archives import CLASS_NAMES
from cifar_helpers.errors import CourseError

machine.import_tensorflow()  # before Keras, without its start-up log

from cifar_helpers import plots  # noqa: E402
from cifar_helpers.reference import load_reference  # noqa: E402
from cifar_helpers.runs import LESSONS  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = ("laptop", "full")
REMEDY = "run `make results` (`python tools/results.py --write`)"
UNMEASURED = "not measured yet"
PAGES = ("README.md", "results/README.md", "benchmarks/README.md")  # a block may stand in each of them
LABELS = {  # what tables call the runs; a run that has no other name is called by its own
    "baseline": "baseline `Sequential` CNN", "plain": "Conv-BatchNorm net", "augmented": "the same, with augmentation",
    "subclassed": "subclassed CNN, custom loop", "fast": "fast net, custom loop",
    "transfer_frozen": "frozen ResNet50, linear head", "transfer_finetuned": "ResNet50, fine-tuned",
}
MAKE = {
    "benchmark": "make bench FULL=1` and `cp build/benchmark.json results/",
    "backbones": "python benchmarks/backbones.py` and `cp build/backbones.json results/",
    "faults": "make faults` and `cp build/faults.json results/",
    "scaling": "make bench-scaling` and `cp build/scaling.json results/",
}
STYLE = {"svg.hashsalt": "cifar10-course", "svg.fonttype": "path", "axes.grid": True, "grid.alpha": 0.3,
         "figure.facecolor": "white", "savefig.facecolor": "white", "axes.titlesize": 10, "legend.fontsize": 8}


# --- reading ---


def load(folder: Path) -> dict:
    """What stands in `results/`: for each budget `runs` (name to results, one a seed) and `times`; and the content of
    benchmark.json, backbones.json, scaling.json, ablation.json and faults.json, None where there is none.

    Raises CourseError where a file cannot be read, holds an absolute path, is on the stand-in, or where one budget
    mixes images from several sources.
    """
    found = {name: _json(folder / f"{name}.json") for name in ("benchmark", "backbones", "scaling", "ablation",
                                                                  "faults")}
    for budget in BUDGETS:
        here = sorted((folder / budget).glob("*.json"))
        content = {file: _json(file) for file in here}
        if strange := [file.name for file in here if file.name != "lessons.json" and not any(
                re.fullmatch(rf"{name}(-seed\d+)?\.json", file.name) for name in LESSONS)]:
            raise CourseError(f"results/{budget}/{strange[0]} belongs to no run of runs.LESSONS: delete it, or name "
                              "its lesson there.")
        runs = {name: load_reference(name, budget, folder) for name in LESSONS
                if (folder / budget / f"{name}.json").is_file() or any((folder / budget).glob(f"{name}-seed*.json"))}
        images = {result["run"]["data"]["fingerprint"] for results in runs.values() for result in results}
        if len(images) > 1:
            raise CourseError(f"results/{budget} mixes runs on different images ({', '.join(sorted(images))}): make "
                              "them all on the same copy.")
        found[budget] = {"runs": runs, "times": content.get(folder / budget / "lessons.json", {})}
    return found


def _json(file: Path):
    if not file.is_file():
        return None
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise CourseError(f"{file.parent.name}/{file.name} cannot be read ({error}): make it again.") from error
    if path := re.search(r'"[^"]*?(?<![\w.:/])((?:/|[A-Za-z]:\\\\)\w[^"\s]*/[^"\s]*)[^"]*"', text):
        raise CourseError(f"{file.parent.name}/{file.name} holds the absolute path {path[1]}: keep only the file's "
                          "name.")
    if '"is_standin": true' in text:
        raise CourseError(f"{file.parent.name}/{file.name} is on the stand-in: results are on CIFAR-10 only.")
    return content


# --- pages ---


def blocks(results: dict, notebooks: Path, up: str = "") -> dict:
    """For each block of a page the function that makes its text from what stands there.

    lessons      the table of lessons: its third column gets the minutes at the laptop budget, its fourth the badges
    summary      a row a model: its test accuracy and training seconds at each budget
    comparison   the laptop budget's runs, measured on the test images
    full         the same for the full budget
    context      images, versions and hardware behind each of these tables, and the largest memory of a lesson
    benchmark    the lessons' models beside the five predecessors
    backbones    lesson 5's frozen part with other backbones
    faults       what `make faults` injected, and what was survived
    figure NAME  a figure of results/figures with its description

    `up` leads from the page's folder to the repository's ("../").
    """
    made = {
        "lessons": lambda old: lesson_table(old, results["laptop"]["times"], notebooks,
                                            openers.project(notebooks.parent)),
        "summary": lambda old: summary(results),
        "comparison": lambda old: comparison(results, "laptop"),
        "full": lambda old: comparison(results, "full"),
        "context": lambda old: context(results),
        "benchmark": lambda old: benchmark(results["benchmark"]),
        "backbones": lambda old: backbones(results["backbones"]),
        "faults": lambda old: faults_table(results["faults"]),
    }
    alts = {name: alt for name, (_, _, alt) in figures(results).items()}

    def figure(name):
        if name not in alts:
            return missing("laptop" if name == "course" else name)
        return f"![{alts[name]}]({up}results/figures/{name}.svg)"

    return made | {f"figure {name}": lambda old, name=name: figure(name) for name in FIGURES}


def missing(what: str) -> str:
    """The sentence that stands where results are not there."""
    stem, _, budget = what.rpartition("-")
    if what in BUDGETS or (stem and budget in BUDGETS):
        how = f"python tools/reference.py --budget {what if what in BUDGETS else budget}"
    else:
        how = MAKE.get({"accuracy-seconds": "benchmark"}.get(what, what), f"see results/README.md` for {what}: `")
    return f"Not measured yet: `{how}` makes these results, and `make results` writes them here."


def rewritten(text: str, made: dict, page: str = "README.md") -> str:
    """A page's text with every block made anew; what stands outside markers is as it was.

    Raises CourseError, naming the line, where a marker is unknown, malformed, or has no partner.
    """
    out, name, begun, old = [], None, 0, []
    for number, line in enumerate(text.split("\n"), 1):
        opens = re.fullmatch(r"<!-- results: (\S.*?) -->", line)
        if not opens and line != "<!-- end -->":
            if re.search(r"<!--\s*(results\b|end\s*-->)", line):
                raise CourseError(f"{page}, line {number}: {line.strip()!r} is no marker: it must stand alone on "
                                  "its line, as <!-- results: NAME --> or <!-- end -->.")
            (out if name is None else old).append(line)
        elif opens and name is not None:
            raise CourseError(f"{page}, line {number}: a block opens inside the block {name!r} of line {begun}: "
                              "end that one first with <!-- end -->.")
        elif opens and opens[1] not in made:
            raise CourseError(f"{page}, line {number}: there is no block {opens[1]!r}: take one of "
                              f"{', '.join(made)}.")
        elif opens:
            name, begun, old = opens[1], number, []
            out.append(line)
        elif name is None:
            raise CourseError(f"{page}, line {number}: this <!-- end --> ends nothing: delete it.")
        else:
            out += [made[name]("\n".join(old)), line]
            name = None
    if name is not None:
        raise CourseError(f"{page}, line {begun}: the block {name!r} has no <!-- end -->: add one.")
    return "\n".join(out)


def lesson_table(old: str, times: dict, notebooks: Path, about: dict) -> str:
    """The table of lessons that stands there, with the minutes of the laptop budget in its third column, and in its
    fourth the badges that follow from what `openers.project` says of the repository.

    Raises CourseError where a lesson has no row.
    """
    for script in _scripts(notebooks):
        notebook = f"notebooks/{script.stem}.ipynb"
        row = re.compile(rf"^(\| \[[^\n]*\({notebook}\) \|[^\n|]*\|)([^\n|]*)\|[^\n]*$", re.MULTILINE)
        if not (found := row.search(old)):
            raise CourseError(f"README.md's table of lessons has no row for {script.stem}: add one that links to "
                              f"{notebook}.")
        shown = f" {minutes(times.get(_lesson_key(script)))} " if times else found[2]
        badges = " ".join(openers.badges(notebook, about).replace("# ", "").splitlines())
        old = old.replace(found[0], f"{found[1]}{shown}| {badges} |")
    return old


def summary(results: dict) -> str:
    """A row a model: test accuracy over the seeds (mean, range) and training seconds (first seed) at each budget."""
    there = {budget: results[budget]["runs"] for budget in BUDGETS if results[budget]["runs"]}
    if not there:
        return missing("laptop")
    head = ["Lesson and model", *(title for budget in there for title in (f"`{budget}`: test accuracy", "trained in")),
            "Parameters"]
    rows = []
    for name in (name for name in LESSONS if any(name in runs for runs in there.values())):
        at = [runs.get(name, []) for runs in there.values()]
        sizes = dict.fromkeys(f"{result['run']['parameters']:,}" for found in at for result in found[:1])
        row = [f"{int(LESSONS[name][:2])} · {LABELS.get(name, name)}"]
        for found in at:
            row += [_mean_and_range(tested(found)) or "–",
                    f"{found[0]['run']['train_seconds']:,.0f} s" if found else "–"]
        rows.append([*row, " / ".join(sizes)])
    return table(head, rows) + "\n\nMeans, with the range where several seeds were trained. " + provenance(
        [result["run"] for runs in there.values() for found in runs.values() for result in found])


def _mean_and_range(values: list[float]) -> str:
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}" if values else ""


def comparison(results: dict, budget: str) -> str:
    """The table of a budget's runs: mean and range of test accuracy over all seeds, then figures of the first seed."""
    runs = results[budget]["runs"]
    if not runs:
        return missing(budget)
    flips = any("test_accuracy_flips" in result["run"] for found in runs.values() for result in found)
    several = any(len(found) > 1 for found in runs.values())
    head = ["Lesson and model", *["Test, mean and range over seeds"] * several, "Train", "Validation", "Test",
            *["Test, with flips"] * flips, "Test loss", "Parameters", "Training, s", "ms an image"]
    rows = []
    for name, found in runs.items():
        first = found[0]["run"]
        rows.append([
            f"{int(LESSONS[name][:2])} · {LABELS.get(name, name)}", *[_over_seeds(tested(found))] * several,
            *(_share(first.get(key)) for key in ("train_accuracy", "validation_accuracy", "test_accuracy")),
            *[_share(first.get("test_accuracy_flips"))] * flips, _share(first.get("test_loss")),
            f"{first['parameters']:,}", f"{first['train_seconds']:,.0f}",
            _number(first.get("milliseconds_per_image"), ".2f")])
    return table(head, rows)


def _over_seeds(values: list[float]) -> str:
    if len(values) < 2:
        return "one seed" if values else "–"
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f}, {len(values)} seeds)"


def tested(found: list[dict]) -> list[float]:
    """Test accuracies of one run's results, as far as they were measured."""
    return [result["run"]["test_accuracy"] for result in found if "test_accuracy" in result["run"]]


def context(results: dict) -> str:
    """A line for each table on images, versions and hardware, and one on memory."""
    lines = []
    for budget in BUDGETS:
        if found := [result["run"] for runs in results[budget]["runs"].values() for result in runs]:
            lines.append(f"- Budget `{budget}`: {provenance(found)}")
    if results["benchmark"]:
        about = results["benchmark"]["context"]
        lines.append(f"- Benchmark, {about.get('size', 'reduced')} size: {provenance([about])}")
    for budget in BUDGETS:
        peaks = [(figures["peak_memory_mb"], key) for key, seeds in results[budget]["times"].items()
                 for figures in seeds.values() if figures["peak_memory_mb"]]
        if peaks:
            most, key = max(peaks)
            lines.append(f"- Largest resident memory of a lesson at the `{budget}` budget: {most / 1000:.1f} GB "
                         f"(`{key}`).")
    return "\n".join(lines) or missing("laptop")


def provenance(found: list[dict]) -> str:
    """Images, seeds, versions, hardware and backbones behind results, each kind named once."""
    def distinct(describe):
        return "; ".join(dict.fromkeys(text for item in found if (text := describe(item))))

    def versions(item):
        named = {"python": "Python", "tensorflow": "TensorFlow", "keras": "Keras"}
        return ", ".join(f"{named[key]} {item['versions'][key]}" for key in named if key in item["versions"])

    def hardware(item):
        about = item["hardware"]
        return (f"{about['processor']}, {about['cores']} cores, {', '.join(about['gpus']) or 'no GPU'}, "
                f"{about['system']}")

    seeds = sorted({item["seed"] for item in found if "seed" in item})
    counts = dict.fromkeys(f"{item['test_images']:,}" for item in found if "test_images" in item)
    parts = [distinct(lambda item: f"{item['data']['name']} ({item['data']['origin']})"),
             f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else "",
             f"{' or '.join(counts)} test images" if counts else "",
             distinct(versions), distinct(hardware), distinct(lambda item: item.get("backbone"))]
    return "; ".join(part for part in parts if part) + "."


def benchmark(content: dict | None) -> str:
    """The lessons' models and the predecessors, pair by pair; fields as benchmarks/common.py describes them."""
    if not content:
        return missing("benchmark")
    about = content["context"]
    compared = about.get("pairs", [])
    head = ["Pair", "Model", "Test", "Training, s", "Whole, s", "Whole / predecessor's",
            "Predecessor's accuracy after, s", "What it claims after, s", "Images/s", "Memory, MB", "Parameters",
            "MFLOP an image"]
    rows = []
    order = sorted(content["records"], key=lambda record: (record["pair"], bool(record["ours"])))
    for pair, name in dict.fromkeys((record["pair"], record["name"]) for record in order):
        group = [record for record in order if (record["pair"], record["name"]) == (pair, name)]
        first = group[0]
        ratios = [entry for entry in compared if (entry["pair"], entry["ours"]) == (pair, name)]
        part = "" if first["fraction"] == 1 else f" ({first['fraction']:.2%} of it)"
        whole = np.mean([record["whole_seconds"] for record in group])
        rows.append([
            str(pair), first["what"], _both(group, "test_accuracy", ".3f"), _both(group, "seconds", ",.0f") + part,
            f"{'≈ ' * bool(part)}{whole:,.0f}", _both(ratios, "seconds_ratio", ".2g"),
            _both([entry for entry in ratios if entry["final"]], "reached_seconds", ",.0f", "not reached"),
            _both([entry for entry in ratios if entry["claimed"] is not None], "claimed_seconds", ",.0f",
                  "not reached"),
            _both(group, "images_per_second", ",.0f"), _both(group, "peak_memory_mb", ",.0f"),
            f"{first['parameters']:,}", _number(first["forward_mflops"], ",.1f"),
        ])
    notes = [f"Size `{about.get('size', 'reduced')}`, each process twice, in turns; “Whole” is the mean of both, and ≈ "
             "says that it was extrapolated from the share in brackets."]
    if about.get("failed"):
        notes.append(f"Failed: {', '.join(map(str, about['failed']))}.")
    return table(head, rows) + "\n\n" + " ".join(notes)


def backbones(content: dict | None) -> str:
    """Lesson 5's frozen part with other backbones, a row each with the mean and range over its seeds."""
    if not content:
        return missing("backbones")
    rows = []
    for name in dict.fromkeys(record["name"] for record in content["records"]):
        group = [record for record in content["records"] if record["name"] == name]
        seconds, first = [record["seconds"] for record in group], group[0]
        rows.append([first["what"].partition(", ")[2], _over_seeds([record["test_accuracy"] for record in group]),
                     f"{first['images']:,}",
                     " to ".join(dict.fromkeys(f"{number:,.0f}" for number in (min(seconds), max(seconds)))),
                     f"{first['parameters']:,}", f"{first['forward_mflops']:,.1f}", first["backbone"]])
    return table(["Frozen backbone", "Test, mean and range over seeds", "Training images", "Seconds, features included",
                  "Parameters", "MFLOP an image", "Weights"], rows) + f"\n\n{provenance([content['context']])}"


def faults_table(content: dict | None) -> str:
    """What was injected on purpose, a row a promise; fields as faults/inject.py writes them."""
    if not content:
        return missing("faults")
    rows = [[row["promise"], f"{row['tried']:,}", f"{row['survived']:,}", f"{len(row['lost']):,}",
             f"{row['seconds']:,.0f}"] for row in content["rows"]]
    about = content["context"]
    versions = ", ".join(f"{name} {about['versions'][key]}" for key, name in (
        ("python", "Python"), ("tensorflow", "TensorFlow"), ("keras", "Keras")))
    return table(["Promise", "Cases tried", "Survived", "Lost", "Seconds"], rows) + (
        f"\n\nScale `{about['scale']}`; {versions}; {about['hardware']['processor']}, "
        f"{about['hardware']['cores']} cores, {about['hardware']['system']}.")


def _both(group: list[dict], key: str, form: str, none: str = "–") -> str:
    """The values of two measurements, one where they read alike."""
    return ", ".join(dict.fromkeys(none if entry[key] is None else format(entry[key], form) for entry in group)) or "–"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _share(value: float | None) -> str:
    return _number(value, ".3f")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


# --- the lessons' first cells ---


def minutes(seeds: dict | None) -> str:
    """A lesson's minutes, rounded up, in its longest run; hardware other than two cores is named."""
    if not seeds:
        return UNMEASURED
    longest = max(seeds.values(), key=lambda figures: figures["seconds"])
    whole = math.ceil(longest["seconds"] / 60)
    other = [f"{longest['cores']} cores"] * (longest["cores"] != 2) + longest["gpus"]
    return ("under 1" if whole <= 1 else str(whole)) + (f" ({', '.join(other)})" if other else "")


def accuracy_range(values: list[float]) -> str:
    """From 0.02 below the lowest to 0.02 above the highest, outward to whole hundredths."""
    # round() first: 0.70 - 0.02 is a little less than 0.68 in binary, and floor would make it 0.67
    low, high = round(100 * min(values) - 2, 6), round(100 * max(values) + 2, 6)
    return f"{max(0, math.floor(low)) / 100:.2f} to {min(100, math.ceil(high)) / 100:.2f}"


def with_rows(script: Path, results: dict) -> str:
    """A lesson's script with minutes and accuracies of its first cell as measured.

    Rows of budgets that have no results at all stay as they are, and so does the accuracy of a lesson that saves no
    run; lesson 6 has the test accuracies of all runs. Raises CourseError where a row is not there.
    """
    text = script.read_text(encoding="utf-8")
    cell, rest = _first_cell(text)
    for budget in BUDGETS:
        runs, times = results[budget]["runs"], results[budget]["times"]
        if not runs and not times:
            continue
        own = [name for name, lesson in LESSONS.items() if lesson == script.stem]
        measured = [[result["run"]["validation_accuracy"] for result in runs[name]] for name in own if name in runs]
        if script.name.startswith("06_"):
            own = list(runs)
            measured = [values] if (values := [value for found in runs.values() for value in tested(found)]) else []
        row = re.compile(rf"^(# \| `{budget}` \|)[^|\n]*(\|[^|\n]*)?\|$", re.MULTILINE)
        if len(row.findall(cell)) != 1:
            raise CourseError(f"{script.name} has no row for `{budget}` with minutes and accuracy in the table of its "
                              "first cell: add it.")
        took = minutes(times.get(_lesson_key(script)))
        known = f"| {', '.join(map(accuracy_range, measured)) or UNMEASURED} " if own else None
        cell = row.sub(lambda found, took=took, known=known:
                       f"{found[1]} {took} {(found[2] and known) or found[2] or ''}|", cell)
    return cell + rest


def _first_cell(text: str) -> tuple[str, str]:
    end = text.find("\n# %%", 1)
    return (text, "") if end < 0 else (text[:end], text[end:])


def _lesson_key(script: Path) -> str:
    found = re.search(r"start_lesson\(\"(\w+)\"", script.read_text(encoding="utf-8"))
    return found[1] if found else script.stem


def _scripts(notebooks: Path) -> list[Path]:
    return sorted(notebooks.glob(f"{pairs.LESSON}.py"))


# --- figures ---


def figures(results: dict) -> dict:
    """The figures for which there are results: name to (function that draws, data that it draws, description)."""
    found = {}
    for budget in BUDGETS:
        runs = {_plain(name): results for name, results in results[budget]["runs"].items()}
        found |= {f"{name}-{budget}": (draw, data, alt) for name, draw, data, alt in (
            _curves(runs, budget), _confusion(runs, budget), _best_confusion(runs, budget), _seeds(runs, budget))
            if data}
    for name, draw, data, alt in (_course(results), _accuracy_seconds(results), _scaling(results["scaling"]),
                                  _ablation(results["ablation"])):
        if data:
            found[name] = (draw, data, alt)
    return found


FIGURES = [f"{name}-{budget}" for budget in BUDGETS for name in ("curves", "confusion", "confusion-best", "seeds")] + [
    "course", "accuracy-seconds", "scaling", "ablation"]


def _plain(name: str) -> str:
    return f"{int(LESSONS[name][:2])} · {LABELS.get(name, name).replace('`', '')}"


def _listed(parts) -> str:
    return "; ".join(parts) + "."


def _curves(runs: dict, budget: str) -> tuple:
    data = {label: [{key: result["history"][key] for key in ("accuracy", "val_accuracy") if key in result["history"]}
                    for result in found] for label, found in runs.items()}
    first = {label: found[0] for label, found in data.items() if "val_accuracy" in found[0]}
    ends = (f"{label} ends at {history['val_accuracy'][-1]:.3f} on validation images after "
            f"{len(history['accuracy'])} epoch{'s' * (len(history['accuracy']) > 1)}"
            for label, history in first.items())
    return "curves", draw_curves, data and {"runs": data, "budget": budget}, (
        f"Accuracy by epoch at the {budget} budget, a panel a model, first seed: " + _listed(ends))


def draw_curves(data: dict) -> plt.Figure:
    runs = data["runs"]
    columns = min(4, len(runs))
    rows = -(-len(runs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns + 0.4, 2.5 * rows + 0.6), sharey=True,
                                squeeze=False, layout="constrained")
    for axis, (label, found) in zip(axes.flat, runs.items(), strict=False):
        for key, style, name, colour in (("accuracy", "--", "training", plots.PALETTE[7]),
                                         ("val_accuracy", "-", "validation", plots.PALETTE[0])):
            curves = [history[key] for history in found if key in history]
            for values in curves:
                axis.plot(range(1, len(values) + 1), values, style, color=colour, marker=".",
                          alpha=1 / len(curves)**0.5, label=name if values is curves[0] else None)
        epochs = max(len(history["accuracy"]) for history in found)
        axis.set(title=label, xlabel="epoch", xlim=(0.5, epochs + 0.5))  # one epoch is a point, with room about it
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes.flat[len(runs):]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy")
    axes[0, 0].legend()
    figure.suptitle(f"Training curves, budget {data['budget']}, a line a seed")
    return figure


def _matrices(runs: dict) -> dict:
    return {label: found[0]["run"]["test_confusion"] for label, found in runs.items()
            if "test_confusion" in found[0]["run"]}


def _confusion(runs: dict, budget: str) -> tuple:
    matrices = _matrices(runs)
    said = (f"{label} is right on {_right(matrix):.1%} and most often takes {_worst(matrix)}"
            for label, matrix in matrices.items())
    return "confusion", draw_confusion, matrices and {"matrices": matrices, "classes": CLASS_NAMES, "budget": budget}, (
        f"Confusion matrices on the test images at the {budget} budget: " + _listed(said))


def _best_confusion(runs: dict, budget: str) -> tuple:
    matrices = _matrices(runs)
    best = max(matrices, key=lambda label: _right(matrices[label]), default=None)
    if best is None:
        return "confusion-best", draw_confusion, None, ""
    return "confusion-best", draw_confusion, {
        "matrices": {best: matrices[best]}, "classes": CLASS_NAMES, "budget": budget}, (
        f"Confusion matrix of the best model at the {budget} budget, {best}: right on {_right(matrices[best]):.1%} of "
        f"the test images; most often it takes {_worst(matrices[best])}.")


def _right(matrix: list) -> float:
    return np.trace(matrix) / np.sum(matrix)


def _worst(matrix: list) -> str:
    wrong = np.array(matrix) - np.diag(np.diag(matrix))
    true, taken = np.unravel_index(wrong.argmax(), wrong.shape)
    return f"{CLASS_NAMES[true]} for {CLASS_NAMES[taken]} ({wrong[true, taken]} images)"


def draw_confusion(data: dict) -> plt.Figure:
    # The counts as labels and predictions, which is what the course's own plot takes.
    labels = np.repeat(range(10), np.sum(next(iter(data["matrices"].values())), axis=1))
    predicted = {label: np.concatenate([np.repeat(range(10), row) for row in matrix])
                 for label, matrix in data["matrices"].items()}
    with plt.rc_context({"axes.grid": False}):
        return plots.confusion_matrices(predicted, labels, data["classes"],
                                        f"Test images, budget {data['budget']}")


def _seeds(runs: dict, budget: str) -> tuple:
    data = {label: values for label, found in runs.items() if len(values := tested(found)) > 1}
    said = (f"{label} {min(values):.3f} to {max(values):.3f}, mean {np.mean(values):.3f}"
            for label, values in data.items())
    return "seeds", draw_seeds, data and {"runs": data, "budget": budget}, (
        f"Test accuracy over seeds at the {budget} budget: " + _listed(said))


def draw_seeds(data: dict) -> plt.Figure:
    runs = data["runs"]
    figure, axis = plt.subplots(figsize=(8, 0.45 * len(runs) + 1.4), layout="constrained")
    for row, values in enumerate(runs.values()):
        axis.plot(values, [row] * len(values), "o", color=plots.PALETTE[0], alpha=0.7, label=None if row else "a seed")
        axis.plot(np.mean(values), row, "|", color="black", markersize=16, label=None if row else "mean")
    axis.set_yticks(range(len(runs)), runs)
    axis.set_ylim(len(runs) - 0.5, -0.5)
    axis.set(xlabel="test accuracy")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the points, which may lie anywhere
    figure.suptitle(f"The same training from different seeds, budget {data['budget']}")
    return figure


def _course(results: dict) -> tuple:
    models = {}
    for budget in BUDGETS:
        for name, found in results[budget]["runs"].items():
            if values := tested(found):
                models.setdefault(_plain(name), {})[budget] = [values, found[0]["run"]["train_seconds"]]
    models = {_plain(name): models[_plain(name)] for name in LESSONS if _plain(name) in models}
    said = (f"{label} " + ", ".join(f"{np.mean(values):.3f} at {budget} after {seconds:,.0f} s"
                                    for budget, (values, seconds) in at.items()) for label, at in models.items())
    return "course", draw_course, models, "Test accuracy of the course's models: " + _listed(said)


def draw_course(data: dict) -> plt.Figure:
    figure, axis = plt.subplots(figsize=(9, 0.5 * len(data) + 1.3), layout="constrained")
    styles = {"laptop": ("o", plots.PALETTE[0]), "full": ("D", plots.PALETTE[1])}
    named = set()
    for row, at in enumerate(data.values()):
        means = {budget: np.mean(values) for budget, (values, _) in at.items()}
        axis.plot(list(means.values()), [row] * len(means), color="0.6", linewidth=2, zorder=1)
        for budget, (values, seconds) in at.items():
            marker, colour = styles[budget]
            axis.plot([min(values), max(values)], [row, row], color=colour, linewidth=5, alpha=0.4, zorder=2,
                      solid_capstyle="butt")
            axis.plot(means[budget], row, marker, color=colour, markersize=8, zorder=3, linestyle="none",
                      label=None if budget in named else f"budget {budget}")
            right = means[budget] == max(means.values())
            axis.annotate(f"{means[budget]:.3f}, {seconds:,.0f} s", (max(values) if right else min(values), row),
                          (9 if right else -9, 0), textcoords="offset points", va="center", fontsize=9,
                          ha="left" if right else "right")
            named.add(budget)
    axis.set_yticks(range(len(data)), data)
    axis.set_ylim(len(data) - 0.4, -0.6)
    low, high = axis.get_xlim()
    axis.set_xlim(low - 0.25 * (high - low), high + 0.25 * (high - low))  # the texts stand there
    axis.set(xlabel="test accuracy (mean, range over seeds), after seconds of training")
    axis.legend(loc="lower left")
    figure.suptitle("The course's models on two budgets")
    return figure


def _accuracy_seconds(results: dict) -> tuple:
    models = {}
    if content := results["benchmark"]:
        for record in content["records"]:
            label = record["what"] if record["ours"] else f"{record['predecessor']}: {record['what']}"
            model = models.setdefault(label, {"pair": record["pair"], "ours": bool(record["ours"]),
                                              "share": record["fraction"], "points": [], "curves": [], "claims": []})
            model["points"].append([record["seconds"], record["test_accuracy"]])
            model["curves"].append([record["history"]["seconds"], record["history"]["validation_accuracy"]])
            if record["claimed_accuracy"] is not None:
                model["claims"].append([record["whole_seconds"], record["claimed_accuracy"]])
    else:
        for name, found in results["laptop"]["runs"].items():
            if tested(found):
                points = [[result["run"]["train_seconds"], result["run"]["test_accuracy"]] for result in found
                          if "test_accuracy" in result["run"]]
                models[_plain(name)] = {"pair": None, "ours": True, "share": 1, "points": points, "claims": [],
                                        "curves": [curve for result in found if (curve := _timed(result))]}
    said = (f"{label} {np.mean([accuracy for _, accuracy in model['points']]):.3f} in "
            f"{np.mean([seconds for seconds, _ in model['points']]):,.0f} s" +
            (f" ({model['share']:.2%} of its training)" if model["share"] < 1 else "")
            for label, model in models.items())
    return "accuracy-seconds", draw_accuracy_seconds, models, (
        "Test accuracy against training seconds: " + _listed(said))


def _timed(result: dict) -> list | None:
    """Seconds and validation accuracy an epoch; what went before the history, such as features, counts too."""
    seconds, values = result["history"].get("seconds"), result["history"].get("val_accuracy")
    if not seconds or not values:
        return None
    before = result["run"]["train_seconds"] - seconds[-1]
    return [[round(before + second, 2) for second in seconds], values]


def draw_accuracy_seconds(data: dict) -> plt.Figure:
    panels = list(dict.fromkeys(model["pair"] for model in data.values()))
    rows = -(-len(panels) // 2)
    columns = min(2, len(panels))
    figure, axes = plt.subplots(rows, columns, figsize=(5.5 * columns, 4.4 * rows + 0.4), sharex=True, sharey=True,
                                squeeze=False, layout="constrained")
    for axis, pair in zip(axes.flat, panels, strict=False):
        colours = itertools.cycle(plots.PALETTE[:7])
        for label, model in ((label, model) for label, model in data.items() if model["pair"] == pair):
            colour, ours = next(colours), model["ours"]
            for seconds, values in model["curves"]:
                axis.plot(seconds, values, "-" if ours else ":", color=colour, linewidth=1, alpha=0.6)
            part = f" ({model['share']:.2%} of its training)" if model["share"] < 1 else ""
            axis.plot(*zip(*model["points"], strict=True), "o" if ours else "s", linestyle="none", color=colour,
                      markerfacecolor="white" if part else colour, label=label + part)
            if model["claims"]:
                axis.plot(*zip(*model["claims"], strict=True), "x", linestyle="none", color=colour)
        axis.set(xscale="log", xlabel="training seconds")
        axis.set_title(f"Predecessor {pair} and the lesson that answers it" if pair else "")
        axis.tick_params(labelbottom=True)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=7.5)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy")
    for axis in axes.flat[len(panels):]:
        axis.set_axis_off()
    claims = "; cross: what it claims, after its whole training" * any(model["claims"] for model in data.values())
    figure.suptitle(f"Accuracy against training seconds (mark: test; line: validation{claims})")
    return figure


def _scaling(content: dict | None) -> tuple:
    if not content:
        return "scaling", draw_scaling, None, ""
    data = {}
    for record in content["records"]:
        data.setdefault(record["series"], []).append([record["x"], record["images"], record["seconds"]])
    said = (f"{SERIES[name][0]} from {points[0][0]:,} to {points[-1][0]:,}: {_milliseconds(points[0]):.2f} to "
            f"{_milliseconds(points[-1]):.2f} ms an image" for name, points in data.items())
    return "scaling", draw_scaling, data, "How cost grows: " + _listed(said)


SERIES = {  # what the x of a series is, and its title
    "images": ("training images", "An epoch of lesson 2's net"), "features": ("images", "Features from ResNet50"),
    "size": ("pixels a side", "ResNet50, forward"), "width": ("factor on every width", "Training lesson 3's net"),
}


def _milliseconds(point: list) -> float:
    _, images, seconds = point
    return 1_000 * np.mean(seconds) / images


def draw_scaling(data: dict) -> plt.Figure:
    figure, axes = plt.subplots(1, len(data), figsize=(3.1 * len(data) + 0.4, 3.2), squeeze=False,
                                layout="constrained")
    for axis, (name, points) in zip(axes[0], data.items(), strict=True):
        xlabel, title = SERIES[name]
        counts = name in ("images", "features")  # elsewhere each point has as many images as the others
        scale = [1 if counts else 1_000 / images for _, images, _ in points]
        means = [np.mean(seconds) * by for (_, _, seconds), by in zip(points, scale, strict=True)]
        axis.plot([x for x, _, _ in points], means, color=plots.PALETTE[0])
        for (x, _, seconds), by in zip(points, scale, strict=True):
            axis.plot([x] * len(seconds), np.multiply(seconds, by), "o", color=plots.PALETTE[0], markersize=4)
        axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="seconds" if counts else "ms an image", title=title)
        axis.set_xticks([x for x, _, _ in points], [f"{x:,}" for x, _, _ in points], rotation=45)
        axis.minorticks_off()
    figure.suptitle("How cost grows, each point measured more than once")
    return figure


def _ablation(content: dict | None) -> tuple:
    if not content:
        return "ablation", draw_ablation, None, ""
    values = {}
    for record in content["records"]:
        values.setdefault(record["without"], []).append(record["validation_accuracy"])
    said = (f"{name} {np.mean(found):.3f}" for name, found in values.items())
    return ("ablation", draw_ablation, content["records"],
            "Mean validation accuracy without one idea at a time: " + _listed(said))


def draw_ablation(data: list[dict]) -> plt.Figure:
    return plots.ablation(data, "Lesson 4's fast net without one of its ideas")


SHARED = (plots.confusion_matrices, plots.ablation)  # what these functions call, and what their figures change with


def digest(draw, data: dict) -> str:
    """SHA-256 of the data that a figure shows and of the source of the functions that draw it."""
    parts = [json.dumps(data, sort_keys=True), json.dumps(STYLE), inspect.getsource(draw)]
    parts += [inspect.getsource(function) for function in SHARED if f".{function.__name__}(" in parts[2]]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def svg(draw, data: dict) -> bytes:
    """The figure, with its digest and one of the drawing itself in its description."""
    with plt.style.context(["default", STYLE]):
        figure = draw(data)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None,
                                                    "Description": f"data {digest(draw, data)}, drawing {'0' * 64}"})
        plt.close(figure)
    text = out.getvalue().replace("\r\n", "\n")
    return text.replace(f"drawing {'0' * 64}", f"drawing {_drawing_digest(text)}").encode()


def _drawing_digest(text: str) -> str:
    return hashlib.sha256(re.sub(r"drawing [0-9a-f]{64}", f"drawing {'0' * 64}", text).encode()).hexdigest()


def _is_current(path: Path, draw, data: dict) -> bool:
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    said = re.search(r"data ([0-9a-f]{64}), drawing ([0-9a-f]{64})", text)
    return bool(said) and said.groups() == (digest(draw, data), _drawing_digest(text))


# --- writing and checking ---


def texts(root: Path, results: dict) -> dict[Path, str]:
    """What the pages, the lessons' scripts and alt.json should say."""
    found = {}
    for page in (page for page in PAGES if (root / page).is_file()):
        made = blocks(results, root / "notebooks", "../" * page.count("/"))
        found[root / page] = rewritten((root / page).read_text(encoding="utf-8"), made, page)
    found |= {script: with_rows(script, results) for script in _scripts(root / "notebooks")}
    if alts := {name: alt for name, (_, _, alt) in figures(results).items()}:
        found[root / "results" / "figures" / "alt.json"] = json.dumps(alts, indent=1, ensure_ascii=False) + "\n"
    return found


def write(root: Path) -> list[Path]:
    """Write what differs, delete figures that nothing makes, and return the paths of both."""
    results = load(root / "results")
    wanted, changed = texts(root, results), []
    for path, (draw, data, _) in ((root / "results" / "figures" / f"{name}.svg", figure)
                                  for name, figure in figures(results).items()):
        if not _is_current(path, draw, data):
            _write(path, svg(draw, data))
            changed.append(path)
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            _write(path, text.encode())
            changed.append(path)
    for path in _orphans(root, results):
        path.unlink()
        changed.append(path)
    if any(path.parent.name == "notebooks" for path in changed):
        changed += pairs.write(root / "notebooks")
    return changed


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _orphans(root: Path, results: dict) -> list[Path]:
    folder = root / "results" / "figures"
    made = {f"{name}.svg" for name in figures(results)} | ({"alt.json"} if figures(results) else set())
    return [path for path in sorted(folder.glob("*")) if path.name not in made]


def faults(root: Path) -> list[str]:
    """A sentence for each thing that is not what the JSON says; empty where all is."""
    try:
        results = load(root / "results")
        wanted = texts(root, results)
        made = figures(results)
    except (CourseError, openers.OpenerError) as error:
        return [str(error)]
    except (KeyError, TypeError, IndexError) as error:
        return [f"results/ holds a file without what its tables need ({error!r}): make it again."]
    found = [_difference(path, text, root) for path, text in wanted.items()
             if not path.is_file() or path.read_text(encoding="utf-8") != text]
    found += [f"results/figures/{name}.svg does not show the results, or was edited: {REMEDY}."
              for name, (draw, data, _) in made.items()
              if not _is_current(root / "results" / "figures" / f"{name}.svg", draw, data)]
    found += [f"results/figures/{path.name} is made by nothing: {REMEDY}, which deletes it."
              for path in _orphans(root, results)]
    needed = {"comparison": results["laptop"]["runs"], "full": results["full"]["runs"],
              "lessons": results["laptop"]["times"], "benchmark": results["benchmark"]}
    shown = "\n".join(text for path, text in wanted.items() if path.suffix == ".md")
    return found + [f"No page has the block {name!r} for results that are there: put <!-- results: {name} --> and "
                    f"<!-- end --> into one of {', '.join(PAGES)}, and {REMEDY}." for name, content in needed.items()
                    if content and f"<!-- results: {name} -->" not in shown]


def _difference(path: Path, text: str, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    if not path.is_file():
        return f"{name} is missing: {REMEDY}."
    lines = zip(path.read_text(encoding="utf-8").split("\n"), text.split("\n"), strict=False)
    number = next((number for number, (have, want) in enumerate(lines, 1) if have != want), 1)
    return f"{name} differs from the results from line {number} on: {REMEDY}."


def main(arguments: list[str] | None = None) -> int:
    """Write or check; the exit status is 1 where a check found something or the results cannot be used."""
    parser = argparse.ArgumentParser(description="Keep pages, lessons and figures equal to results/.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write tables, rows and figures")
    what.add_argument("--check", action="store_true", help="write nothing, and fail where something differs")
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="the checkout (this one)")
    options = parser.parse_args(arguments)
    matplotlib.use("Agg")
    if options.write:
        try:
            for path in write(options.root):
                print(f"wrote {path.relative_to(options.root)}" if path.exists() else f"deleted {path.name}")
        except (CourseError, openers.OpenerError) as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    found = faults(options.root)
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
