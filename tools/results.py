"""Keep everything that speaks of results equal to the JSON in `results/`.

    python tools/results.py --write    write tables, rows and figures from the JSON
    python tools/results.py --check    write nothing; say what differs, and exit with 1 where something does

Written are: in the pages of PAGES, what stands between `<!-- results: NAME -->` and `<!-- end -->` (see `blocks`); in
the first cell of each lesson, minutes and accuracy in the rows of the budgets for which there are results; and
`results/figures/`, which figures.py draws.
"""

import argparse
import json
import math
import re
import sys
from pathlib import Path

import figures
import matplotlib
import numpy as np
import openers
import pairs
from figures import BUDGETS, label, tested

from cifar_helpers.errors import CourseError
from cifar_helpers.reference import load_reference
from cifar_helpers.runs import LESSONS

ROOT = Path(__file__).resolve().parent.parent
REMEDY = "run `make results` (`python tools/results.py --write`)"
UNMEASURED = "not measured yet"
PAGES = ("README.md", "results/README.md", "benchmarks/README.md")  # a block may stand in each of them
MAKE = {
    "benchmark": "make bench FULL=1` and `cp build/benchmark.json results/",
    "backbones": "python benchmarks/backbones.py` and `cp build/backbones.json results/",
    "faults": "make faults` and `cp build/faults.json results/",
    "scaling": "make bench-scaling` and `cp build/scaling.json results/",
}


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


def blocks(results: dict, notebooks: Path, alts: dict, up: str = "") -> dict:
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

    `alts` are the figures' descriptions, and `up` leads from the page's folder to the repository's ("../").
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

    def figure(name):
        if name not in alts:
            return missing("laptop" if name == "course" else name)
        return f"![{alts[name]}]({up}results/figures/{name}.svg)"

    return made | {f"figure {name}": lambda old, name=name: figure(name) for name in figures.FIGURES}


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
        row = [label(name)]
        for found in at:
            row += [_mean_and_range(tested(found)),
                    f"{found[0]['run']['train_seconds']:,.0f} s" if found else "–"]
        rows.append([*row, " / ".join(sizes)])
    return table(head, rows) + "\n\nMeans, with the range where several seeds were trained. " + provenance(
        [result["run"] for runs in there.values() for found in runs.values() for result in found])


def _mean_and_range(values: list[float], counted: str = "") -> str:
    spread = f" ({min(values):.3f} to {max(values):.3f}{counted})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}" if values else "–"


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
            label(name), *[_over_seeds(tested(found))] * several,
            *(_share(first.get(key)) for key in ("train_accuracy", "validation_accuracy", "test_accuracy")),
            *[_share(first.get("test_accuracy_flips"))] * flips, _share(first.get("test_loss")),
            f"{first['parameters']:,}", f"{first['train_seconds']:,.0f}",
            _number(first.get("milliseconds_per_image"), ".2f")])
    return table(head, rows)


def _over_seeds(values: list[float]) -> str:
    if len(values) < 2:
        return "one seed" if values else "–"
    return _mean_and_range(values, f", {len(values)} seeds")


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
        peaks = [(took["peak_memory_mb"], key) for key, seeds in results[budget]["times"].items()
                 for took in seeds.values() if took["peak_memory_mb"]]
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
    longest = max(seeds.values(), key=lambda took: took["seconds"])
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


# --- writing and checking ---


def texts(root: Path, results: dict) -> dict[Path, str]:
    """What the pages, the lessons' scripts and alt.json should say."""
    found, alts = {}, {name: alt for name, (_, _, alt) in figures.from_results(results).items()}
    for page in (page for page in PAGES if (root / page).is_file()):
        made = blocks(results, root / "notebooks", alts, "../" * page.count("/"))
        found[root / page] = rewritten((root / page).read_text(encoding="utf-8"), made, page)
    found |= {script: with_rows(script, results) for script in _scripts(root / "notebooks")}
    if alts:
        found[root / "results" / "figures" / "alt.json"] = json.dumps(alts, indent=1, ensure_ascii=False) + "\n"
    return found


def write(root: Path) -> list[Path]:
    """Write what differs, delete figures that nothing makes, and return the paths of both."""
    results = load(root / "results")
    wanted, changed = texts(root, results), []
    for path, (draw, data, _) in ((root / "results" / "figures" / f"{name}.svg", figure)
                                  for name, figure in figures.from_results(results).items()):
        if not figures.is_current(path, draw, data):
            _write(path, figures.svg(draw, data))
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
    drawn = figures.from_results(results)
    made = {f"{name}.svg" for name in drawn} | ({"alt.json"} if drawn else set())
    return [path for path in sorted(folder.glob("*")) if path.name not in made]


def faults(root: Path) -> list[str]:
    """A sentence for each thing that is not what the JSON says; empty where all is."""
    try:
        results = load(root / "results")
        wanted = texts(root, results)
        made = figures.from_results(results)
    except (CourseError, openers.OpenerError) as error:
        return [str(error)]
    except (KeyError, TypeError, IndexError) as error:
        return [f"results/ holds a file without what its tables need ({error!r}): make it again."]
    found = [_difference(path, text, root) for path, text in wanted.items()
             if not path.is_file() or path.read_text(encoding="utf-8") != text]
    found += [f"results/figures/{name}.svg does not show the results, or was edited: {REMEDY}."
              for name, (draw, data, _) in made.items()
              if not figures.is_current(root / "results" / "figures" / f"{name}.svg", draw, data)]
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
