"""What README.md, the lessons and the figures say is what results/ holds, here and on made-up results."""

import json
import re
import shutil

import figures
import matplotlib.pyplot as plt
import pairs
import pytest
from fixtures import tree

import results as tool
from cifar_helpers.errors import CourseError

README = """Text before.

<!-- results: lessons -->
| Lesson | You learn to | Minutes | Open |
|---|---|---|---|
| [2 Baseline](notebooks/02_baseline.ipynb) | fit, and read a curve | 99 | [![old](a.svg)](b) |
| [6 Comparison](notebooks/06_comparison.ipynb) | compare | 99 |
<!-- end -->

<!-- results: comparison -->
<!-- end -->
<!-- results: full -->
<!-- end -->
<!-- results: context -->
<!-- end -->
<!-- results: benchmark -->
<!-- end -->
<!-- results: figure seeds-laptop -->
<!-- end -->
Text after: 0.123."""
LESSON = """# %% [markdown]
# # 2 · A lesson
# | Budget | Minutes | Validation accuracy |
# |---|---|---|
# | `smoke` | under 1 | says nothing |
# | `laptop` | 99 | 0.99 |
# | `full` | 98 | 0.98 |

# %%
budget = start_lesson("{key}")
# | `laptop` | no table of the first cell | 1 |
"""
ABOUT = {
    "data": {"name": "CIFAR-10", "origin": "archive a.tar.gz", "fingerprint": "aa", "is_standin": False},
    "hardware": {"cores": 2, "processor": "A CPU", "gpus": [], "system": "Linux x86_64"},
    "versions": {"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.0.0"},
}


def run(name, seed, accuracy, **more):
    matrix = [[round(100 * accuracy) if row == column else 0 for column in range(10)] for row in range(10)]
    for row in range(10):
        matrix[row][(row + 1) % 10] = 100 - matrix[row][row]
    return {"run": ABOUT | {
        "name": name, "backbone": None, "budget": "laptop", "seed": seed, "parameters": 122_570, "train_seconds": 61.4,
        "train_accuracy": 0.75, "validation_accuracy": accuracy, "test_accuracy": accuracy - 0.01, "test_loss": 0.884,
        "milliseconds_per_image": 0.061, "test_confusion": matrix} | more,
        "history": {"accuracy": [0.3, 0.5], "val_accuracy": [0.4, accuracy], "seconds": [20.0, 50.0]}}


def record(name, ours, measurement, seconds, **more):
    return {"name": name, "what": f"the {name}", "predecessor": 1, "ours": ours, "test_accuracy": 0.7,
            "claimed_accuracy": None if ours else 0.7018, "seconds": seconds, "fraction": 1.0, "whole_seconds": seconds,
            "images_per_second": 1234.5, "peak_memory_mb": 900.2, "parameters": 99, "forward_mflops": 25.25,
            "history": {"seconds": [1, seconds], "validation_accuracy": [0.5, 0.7]}, "pair": 1,
            "measurement": measurement} | more


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small checkout with made-up results of one run and a benchmark, with everything written from them."""
    tmp_path = tmp_path_factory.mktemp("written")
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "my-course"\nversion = "2.3.0"\n[project.urls]\nRepository = "https://github.com/me/it"\n')
    for name, key in (("02_baseline", "baseline"), ("06_comparison", "comparison")):
        (tmp_path / "notebooks" / f"{name}.py").write_text(LESSON.format(key=key), encoding="utf-8")
    results = tmp_path / "results"
    put(results / "laptop" / "baseline.json", run("baseline", 2026, 0.70))
    put(results / "laptop" / "baseline-seed7.json", run("baseline", 7, 0.68))
    put(results / "laptop" / "lessons.json", {"baseline": {
        "7": {"seconds": 30, "peak_memory_mb": 900, "cores": 2, "gpus": []},
        "2026": {"seconds": 121, "peak_memory_mb": 1000, "cores": 2, "gpus": []}}})
    pair = {"pair": 1, "ours": "subclassed", "final": True, "reached_seconds": 20.0, "claimed": 0.7018,
            "claimed_seconds": None}
    put(results / "benchmark.json", {
        "context": ABOUT | {"size": "full", "failed": [], "pairs": [
            pair | {"measurement": 1, "seconds_ratio": 0.5}, pair | {"measurement": 2, "seconds_ratio": 0.52}]},
        "records": [record("predecessor_1", False, 1, 83.0, fraction=0.1, whole_seconds=830.0),
                    record("subclassed", True, 1, 40.0), record("predecessor_1", False, 2, 85.0, fraction=0.1,
                                                                 whole_seconds=850.0),
                    record("subclassed", True, 2, 42.0)]})
    tool.write(tmp_path)
    return tmp_path


@pytest.fixture
def root(written, tmp_path):
    """A copy of that checkout, to change."""
    return shutil.copytree(written, tmp_path / "root")


def block(root, name):
    return re.search(rf"<!-- results: {name} -->\n(.*?)\n?<!-- end -->", (root / "README.md").read_text("utf-8"),
                     re.DOTALL)[1]


# --- the course's own ---


def test_what_the_course_says_is_what_its_results_hold():
    assert tool.faults(tool.ROOT) == []


def test_the_check_writes_nothing(root):
    before = tree(root)
    assert tool.main(["--check", str(root)]) == 0
    assert tree(root) == before


# --- what is written ---


def test_text_outside_blocks_stays_and_a_second_writing_changes_nothing(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert text.startswith("Text before.\n\n<!-- results") and text.endswith("<!-- end -->\nText after: 0.123.")
    assert tool.write(root) == []


def test_the_table_of_lessons_gets_the_longest_runs_minutes_and_badges(root):
    first, second = block(root, "lessons").splitlines()[2:]
    assert first.startswith("| [2 Baseline](notebooks/02_baseline.ipynb) | fit, and read a curve | 3 | [![Open in C")
    assert second.startswith("| [6 Comparison](notebooks/06_comparison.ipynb) | compare | not measured yet | [![Open ")
    assert first.endswith("(https://mybinder.org/v2/gh/me/it/v2.3.0?labpath=notebooks%2F02_baseline.ipynb) |")
    assert "old" not in first and second.count("[![Open in ") == 2


def test_an_address_that_leads_nowhere_is_one_sentence(root, capsys):
    (root / "pyproject.toml").write_text('[project]\nname = "a"\nversion = "1"\n')
    for what in ("--write", "--check"):
        assert tool.main([what, str(root)]) == 1
        assert capsys.readouterr().err.startswith("pyproject.toml, [project.urls]: Repository is ''; write ")


def test_the_comparison_has_the_lowest_seeds_figures_and_the_spread(root):
    head, _, row = block(root, "comparison").splitlines()
    assert "Test, with flips" not in head and head.startswith("| Lesson and model | Test, mean and range over seeds |")
    assert row == ("| 2 · baseline `Sequential` CNN | 0.680 (0.670 to 0.690, 2 seeds) | 0.750 | 0.680 | 0.670 | 0.884 "
                   "| 122,570 | 61 | 0.06 |")


def test_the_summary_has_both_budgets_side_by_side(root):
    put(root / "results/full/baseline.json", run("baseline", 1, 0.8, train_seconds=1234.5, test_images=10_000))
    put(root / "results/full/fast.json", run("fast", 1, 0.9, parameters=7))
    with (root / "README.md").open("a", encoding="utf-8") as readme:
        readme.write("\n<!-- results: summary -->\n<!-- end -->\n")
    tool.write(root)
    head, _, baseline, fast, _, about = block(root, "summary").splitlines()
    assert head == ("| Lesson and model | `laptop`: test accuracy | trained in | `full`: test accuracy | trained in "
                    "| Parameters |")
    assert baseline == "| 2 · baseline `Sequential` CNN | 0.680 (0.670 to 0.690) | 61 s | 0.790 | 1,234 s | 122,570 |"
    assert fast == "| 4 · fast net, custom loop | – | – | 0.890 | 61 s | 7 |"
    assert "seeds 1, 7, 2026; 10,000 test images; Python 3.11.7" in about


def test_a_block_in_another_page_is_written_with_links_from_there(root, capsys):
    page = root / "results" / "README.md"
    page.write_text("<!-- results: figure seeds-laptop -->\n<!-- end -->\n<!-- results: context -->\n<!-- end -->\n")
    assert tool.write(root) == [page]
    text = page.read_text(encoding="utf-8")
    assert "](../results/figures/seeds-laptop.svg)\n<!-- end -->\n<!-- results: context -->\n- Budget" in text
    replace(page, "<!-- end -->\n<!--", "<!--")
    assert tool.main(["--check", str(root)]) == 1
    assert capsys.readouterr().err.startswith("results/README.md, line 3: a block opens inside the block 'figure seeds")


def test_other_backbones_have_a_row_each_with_the_spread_over_seeds(root):
    small = {"what": "lesson 5: transfer frozen, a small net at 160 pixels", "images": 8_000,
             "backbone": "a small net from a file"}
    put(root / "results/backbones.json", {"context": ABOUT, "records": [
        record("small", True, number, seconds, test_accuracy=accuracy, seed=number, **small)
        for number, (seconds, accuracy) in enumerate(((70.4, 0.85), (90.2, 0.87)), 1)]})
    with (root / "README.md").open("a", encoding="utf-8") as readme:
        readme.write("\n<!-- results: backbones -->\n<!-- end -->\n")
    tool.write(root)
    assert block(root, "backbones").splitlines()[2] == (
        "| a small net at 160 pixels | 0.860 (0.850 to 0.870, 2 seeds) | 8,000 | 70 to 90 | 99 | 25.2 "
        "| a small net from a file |")
    (root / "results/backbones.json").unlink()
    tool.write(root)
    assert block(root, "backbones").startswith("Not measured yet: `python benchmarks/backbones.py` and `cp")


def test_flips_stand_apart_and_a_run_that_was_not_tested_has_dashes(root):
    put(root / "results/laptop/fast.json", run("fast", 1, 0.9, test_accuracy_flips=0.912))
    untested = run("subclassed", 1, 0.6)
    untested["run"] = {key: value for key, value in untested["run"].items() if not key.startswith("test_")}
    put(root / "results/laptop/subclassed.json", untested)
    tool.write(root)
    rows = block(root, "comparison")
    assert "| Test | Test, with flips |" in rows and "| one seed | 0.750 | 0.900 | 0.890 | 0.912 |" in rows
    assert "| 4 · subclassed CNN, custom loop | – | 0.750 | 0.600 | – | – | – | 122,570 | 61 | 0.06 |" in rows


def test_results_that_are_missing_are_a_sentence_that_says_how_to_make_them(root):
    assert block(root, "full").startswith("Not measured yet: `python tools/reference.py --budget full` makes")
    (root / "results" / "benchmark.json").unlink()
    tool.write(root)
    assert block(root, "benchmark").startswith("Not measured yet: `make bench FULL=1`")
    shutil.rmtree(root / "results")
    tool.write(root)
    assert tool.faults(root) == [] and "Not measured yet" in block(root, "comparison")
    assert "Not measured yet: `python tools/reference.py --budget laptop`" in block(root, "figure seeds-laptop")


def test_the_benchmark_shows_both_measurements_and_what_was_extrapolated(root):
    rows = block(root, "benchmark").splitlines()
    assert rows[2] == ("| 1 | the predecessor_1 | 0.700 | 83, 85 (10.00% of it) | ≈ 840 | – | – | – "
                       "| 1,234 | 900 | 99 | 25.2 |")
    assert rows[3] == ("| 1 | the subclassed | 0.700 | 40, 42 | 41 | 0.5, 0.52 | 20 "
                       "| not reached | 1,234 | 900 | 99 | 25.2 |")


def test_the_benchmark_has_one_row_a_model_where_a_script_trains_several():
    records = [record(name, True, measurement, 40.0 + measurement) for measurement in (1, 2)
               for name in ("plain", "augmented")]
    rows = tool.benchmark({"context": {"size": "full"}, "records": records}).splitlines()[2:4]
    assert [row.split(" | ")[1] for row in rows] == ["the plain", "the augmented"]
    assert all("| 41, 42 |" in row for row in rows)


def test_the_context_names_images_versions_hardware_and_memory(root):
    first, second, third = block(root, "context").splitlines()
    assert first == ("- Budget `laptop`: CIFAR-10 (archive a.tar.gz); seeds 7, 2026; Python 3.11.7, TensorFlow 2.21.0, "
                     "Keras 3.15.1; A CPU, 2 cores, no GPU, Linux x86_64.")
    assert second.startswith("- Benchmark, full size: CIFAR-10") and "1.0 GB (`baseline`)" in third


def test_a_lessons_rows_are_measured_and_its_other_lines_stay(root):
    rows = {name: (root / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
            for name in ("02_baseline", "06_comparison")}
    before = LESSON.format(key="baseline")
    assert rows["02_baseline"] == before.replace("| 99 | 0.99 |", "| 3 | 0.66 to 0.72 |")
    assert "# | `laptop` | not measured yet | 0.65 to 0.71 |" in rows["06_comparison"]
    assert pairs.faults(root / "notebooks") == []


def test_a_lesson_without_runs_keeps_its_accuracy_and_may_have_two_columns(root):
    script = root / "notebooks" / "02_baseline.py"
    for name, row, wanted in (("01_load", "| 9 | 0.10 |", "| 3 | 0.10 |"), ("07_more", "| 9 |", "| 3 |")):
        other = script.rename(script.with_name(f"{name}.py"))
        other.write_text(LESSON.format(key="baseline").replace("| 99 | 0.99 |", row), encoding="utf-8")
        assert f"# | `laptop` {wanted}\n" in tool.with_rows(other, tool.load(root / "results"))
        script = other


@pytest.mark.parametrize(("seconds", "text"), [(1, "under 1"), (60, "under 1"), (61, "2"), (600, "10")])
def test_minutes_are_rounded_up(seconds, text):
    took = {"seconds": seconds, "cores": 2, "gpus": []}
    assert tool.minutes({"1": took}) == text
    assert tool.minutes({"1": took | {"cores": 16, "gpus": ["A GPU"]}}) == f"{text} (16 cores, A GPU)"


@pytest.mark.parametrize(("values", "text"), [
    ([0.70], "0.68 to 0.72"), ([0.701, 0.689], "0.66 to 0.73"), ([0.995], "0.97 to 1.00"), ([0.01], "0.00 to 0.03")])
def test_a_range_goes_outward(values, text):
    assert tool.accuracy_range(values) == text


# --- figures ---


def test_figures_are_drawn_once_with_a_description_and_no_date(root):
    folder = root / "results" / "figures"
    alts = json.loads((folder / "alt.json").read_text(encoding="utf-8"))
    assert set(alts) == {"curves-laptop", "confusion-laptop", "confusion-best-laptop", "seeds-laptop", "course",
                         "accuracy-seconds"} == {path.stem for path in folder.glob("*.svg")}
    assert "0.670 to 0.690, mean 0.680" in alts["seeds-laptop"] and "airplane for automobile (32" in str(alts)
    assert block(root, "figure seeds-laptop") == f"![{alts['seeds-laptop']}](results/figures/seeds-laptop.svg)"
    text = (folder / "seeds-laptop.svg").read_text(encoding="utf-8")
    assert "<dc:date>" not in text and "<text" not in text and "fill: #ffffff" in text
    assert not plt.get_fignums()


def test_every_kind_of_figure_is_drawn_the_same_twice(root):
    put(root / "results" / "scaling.json", {"context": ABOUT, "records": [
        {"series": name, "x": x, "images": 10 * x, "seconds": [x, 2 * x]} for name in figures.SERIES for x in (1, 4)]})
    put(root / "results" / "ablation.json", {"context": ABOUT, "records": [
        {"name": "all", "without": None, "seed": 1, "validation_accuracy": 0.9, "seconds": 1},
        {"name": "less", "without": "a part", "seed": 1, "validation_accuracy": 0.8, "seconds": 1}]})
    put(root / "results" / "full" / "baseline.json", run("baseline", 1, 0.8))
    made = figures.from_results(tool.load(root / "results"))
    assert set(made["course"][1]["2 · baseline Sequential CNN"]) == {"laptop", "full"}
    for name in ("scaling", "ablation", "accuracy-seconds", "course"):
        draw, data, alt = made[name]
        assert figures.svg(draw, data) == figures.svg(draw, data)
        assert alt.endswith(".") and re.search(r"\d", alt)
    assert set(made) <= set(figures.FIGURES)


def test_without_a_benchmark_the_lessons_stand_alone_against_time(root):
    (root / "results" / "benchmark.json").unlink()
    [model] = figures.from_results(tool.load(root / "results"))["accuracy-seconds"][1].values()
    assert model["points"] == [[61.4, 0.67], [61.4, pytest.approx(0.69)]]
    assert model["curves"][0] == [[31.4, 61.4], [0.4, 0.68]]  # 11.4 s went before the first epoch


def test_the_faults_stand_in_a_table_with_what_was_lost():
    rows = [{"number": 1, "promise": "Download", "tried": 1_200, "survived": 1_199, "lost": ["a case: a byte"],
             "seconds": 61.2}]
    about = ABOUT | {"scale": "full"}
    text = tool.faults_table({"context": about, "rows": rows})
    assert "| Download | 1,200 | 1,199 | 1 | 61 |" in text
    assert "Scale `full`" in text and about["versions"]["keras"] in text
    assert "make faults" in tool.faults_table(None)


# --- what is caught ---


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(("file", "old", "new", "said"), [
    ("README.md", "| 0.670 |", "| 0.770 |", r"README.md differs from the results from line 13 on: run `make results`"),
    ("README.md", "![Test", "![A test", r"README.md differs"),
    ("notebooks/02_baseline.py", "| 3 | 0.66", "| 2 | 0.66", r"notebooks/02_baseline.py differs .* line 6 on"),
    ("results/figures/alt.json", "0.680", "0.690", r"figures/alt.json differs"),
    ("results/figures/seeds-laptop.svg", "data ", "data f", r"seeds-laptop.svg does not show the results"),
    ("results/figures/seeds-laptop.svg", "fill: #ffffff", "fill: #fffffe", r"seeds-laptop.svg .* was edited"),
    ("results/laptop/baseline.json", '"test_accuracy": 0.69', '"test_accuracy": 0.79', r"README.md differs"),
    ("results/laptop/baseline.json", '"accuracy": [0.3', '"accuracy": [0.4', r"curves-laptop.svg does not show"),
    ("results/laptop/lessons.json", '"seconds": 121', '"seconds": 120', r"README.md differs"),
    ("results/laptop/baseline.json", '"aa"', '"bb"', r"results/laptop mixes runs on different images \(aa, bb\)"),
    ("results/laptop/baseline.json", "archive a", "archive /home/ann/a", r"absolute path /home/ann/a.tar.gz"),
    ("results/benchmark.json", '"is_standin": false', '"is_standin": true', r"benchmark.json is on the stand-in"),
    ("results/benchmark.json", "{", "", r"benchmark.json cannot be read"),
    ("results/benchmark.json", '"whole_seconds"', '"whole"', r"without what its tables need \(KeyError"),
    ("README.md", "<!-- results: comparison -->\n", "", r"line \d+: this <!-- end --> ends nothing"),
    ("README.md", "<!-- results: benchmark -->", "<!-- results: bench -->", r"there is no block 'bench'"),
    ("README.md", "<!-- end -->\nText after", "Text after", r"line \d+: the block 'figure seeds-laptop' has no"),
    ("README.md", "<!-- end -->\n\n<!-- results: comparison", "<!-- results: comparison",
     r"line 8: a block opens inside the block 'lessons' of line 3"),
    ("README.md", "<!-- end -->", "see <!-- end -->", r"line 8: .* is no marker"),
    ("README.md", "(notebooks/02_baseline.ipynb)", "(02)", r"table of lessons has no row for 02_baseline"),
    ("notebooks/02_baseline.py", "# | `laptop` | 3", "# | laptop | 3", r"02_baseline.py has no row for `laptop`"),
])
def test_a_change_on_either_side_is_caught_and_left(root, capsys, file, old, new, said):
    replace(root / file, old, new)
    before = tree(root)
    assert tool.main(["--check", str(root)]) == 1
    assert re.search(said, capsys.readouterr().err)
    assert tree(root) == before


def test_a_change_of_the_drawing_function_is_caught(root, monkeypatch):
    def draw_seeds(data):
        return None

    monkeypatch.setattr(figures, "draw_seeds", draw_seeds)
    assert ["seeds-laptop.svg" in fault for fault in tool.faults(root)] == [True]


def test_a_figure_that_nothing_makes_is_caught_and_deleted(root):
    stray = root / "results" / "figures" / "stray.svg"
    stray.write_text("<svg/>")
    assert tool.faults(root) == ["results/figures/stray.svg is made by nothing: run `make results` (`python "
                                 "tools/results.py --write`), which deletes it."]
    tool.write(root)
    assert not stray.exists() and tool.faults(root) == []


def test_a_missing_figure_is_caught(root):
    (root / "results" / "figures" / "seeds-laptop.svg").unlink()
    assert ["seeds-laptop.svg" in fault for fault in tool.faults(root)] == [True]


def test_results_that_nothing_shows_are_caught(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    (root / "README.md").write_text(text.replace("<!-- results: comparison -->", "<!-- results: context -->"), "utf-8")
    assert any("No page has the block 'comparison'" in fault for fault in tool.faults(root))


def test_a_file_that_belongs_to_no_run_is_caught(root):
    put(root / "results" / "laptop" / "old_net.json", run("old_net", 1, 0.5))
    assert "laptop/old_net.json belongs to no run" in tool.faults(root)[0]


def test_faulty_markers_stop_writing_before_anything_is_written(root, capsys):
    replace(root / "README.md", "<!-- results: full -->", "<!-- results: fool -->")
    replace(root / "results" / "laptop" / "baseline.json", '"test_accuracy": 0.69', '"test_accuracy": 0.79')
    before = tree(root)
    assert tool.main(["--write", str(root)]) == 1
    assert "there is no block 'fool'" in capsys.readouterr().err
    assert tree(root) == before


def test_rewriting_a_text_without_markers_returns_it():
    assert tool.rewritten("a\n<!-- a comment -->\nb", {}) == "a\n<!-- a comment -->\nb"
    with pytest.raises(CourseError, match="line 2"):
        tool.rewritten("a\n  <!-- results: x -->", {"x": str})
