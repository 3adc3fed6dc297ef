"""The lessons as a student meets them: in the JupyterLab that `make lab` starts, driven in a real browser.

Lab works in a copy of the lessons, at the smoke budget, and writes its settings, runs and caches to a scratch folder.
What a cell left is read from the notebook that Lab saves. `build/screenshots/lab-….png` show what was seen, and
test_site.py puts them on the page that it makes.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from PIL import Image

from cifar_helpers.paths import cache_dir

pytest.importorskip("nbgrader", reason="nbgrader makes the students' exercises: pip install '.[grading]'")

import assignments

pytestmark = [pytest.mark.browser,
              pytest.mark.skipif(shutil.which("make") is None, reason="no make is installed: `make lab` needs it")]
ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
MINUTE = 60_000  # milliseconds, as Playwright counts
PATIENCE = 4  # minutes: waiting ends when what is waited for has come, so that only a fault takes so long
SETTINGS = {  # all cells stay in the page, where Playwright finds them, and nobody is asked about news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
MOVES = 12  # of a slider


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The JupyterLab of `make lab` on copies of the lessons and of the first assignment: its address and folder."""
    for old in SCREENSHOTS.glob("lab-*.png"):
        old.unlink()
    scratch = tmp_path_factory.mktemp("lab")
    folder = scratch / "course"
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    release_first_assignment(scratch, folder / "exercises")
    cache = scratch / "cache"  # the images are taken over, features are extracted anew
    cache.mkdir()
    for file in cache_dir().glob("*.npz"):
        (cache / file.name).symlink_to(file)
    for name, chosen in SETTINGS.items():
        file = scratch / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(chosen), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    options = ["--no-browser", f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1",
               f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=lab", *["--allow-root"] * root]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(scratch / "config"), "JUPYTER_DATA_DIR": str(scratch / "data"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"), "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(scratch / "workspaces"),
        "COURSE_CACHE": str(cache), "COURSE_RUNS": str(scratch / "runs")}
    # this Python's environment is there already, whatever make would think of it
    command = ["make", "-o", ".venv/.installed", "lab", f"VENV_PYTHON={sys.executable}",
               f"LAB_OPTIONS={' '.join(options)}"]
    with (scratch / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    found = SimpleNamespace(folder=folder, workspaces=scratch / "workspaces",
                            address=f"http://127.0.0.1:{port}", log=scratch / "lab.log")
    try:
        for _ in range(2 * 60 * PATIENCE):
            with suppress(OSError):
                if ask(found, "api/status"):
                    break
            assert server.poll() is None, found.log.read_text(errors="replace")
            time.sleep(0.5)
        yield found
    finally:
        os.killpg(server.pid, signal.SIGINT)
        os.killpg(server.pid, signal.SIGTERM)  # Lab asks at the first signal and ends at the second
        server.wait(60 * PATIENCE)


def release_first_assignment(scratch, folder):
    """What students get: the notebook without solutions, as nbgrader makes it."""
    (scratch / "scripts").mkdir()
    shutil.copy2(ROOT / "exercises" / "01_load_and_visualize.py", scratch / "scripts")
    assert assignments.main(["--exercises", str(scratch / "scripts"), "--course", str(scratch / "nbgrader")]) == 0
    folder.mkdir()
    [released] = (scratch / "nbgrader" / "release").rglob("01_load_and_visualize.ipynb")
    shutil.copy2(released, folder)


def ask(lab, path, method="GET"):
    request = urllib.request.Request(f"{lab.address}/{path}?token=lab", method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
    return json.loads(text) if text else None


@pytest.fixture
def tab(lab, browser):
    """A tab in Lab as it opens; its kernels end with the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE * MINUTE)
    tab = context.new_page()
    tab.goto(f"{lab.address}/?token=lab")
    tab.locator(".jp-DirListing-item").first.wait_for()
    yield tab
    context.close()
    for session in ask(lab, "api/sessions"):
        ask(lab, f"api/sessions/{session['id']}", "DELETE")
    shutil.rmtree(lab.workspaces, ignore_errors=True)  # or the next tab would open what this one had open


def screenshot(tab, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=SCREENSHOTS / f"lab-{name}.png")


def menu(tab, *names):
    """Choose an entry of the menu bar, or of the context menu where the first name is None."""
    first, *others = names
    if first:
        tab.locator(".lm-MenuBar-item", has_text=re.compile(f"^{first}$")).click()
    for name in others:
        tab.locator(".lm-Menu-item:visible", has_text=re.compile(f"^{name}")).first.click()


def cells(tab):
    return tab.locator(".jp-NotebookPanel:visible .jp-CodeCell")


def open_notebook(lab, tab, name, folder="notebooks"):
    """Open a file of the folder with a double click, as Lab shows it, and wait for its kernel."""
    if folder != "notebooks":
        tab.locator(".jp-BreadCrumbs-home").click()
        tab.locator(".jp-DirListing-item", has_text=folder).dblclick()
    tab.locator(".jp-DirListing-item", has_text=name).dblclick()
    kernel_has_started(lab, tab)


def kernel_has_started(lab, tab):
    """Wait for the one kernel: cells that are run before it is there wait for a dialog that asks which it should be."""
    wait_until(tab, lambda: [session for session in ask(lab, "api/sessions")
                             if session["kernel"]["connections"] and session["kernel"]["execution_state"] == "idle"])
    tab.locator("#jp-main-statusbar", has_text="| Idle").wait_for()


def run_all(tab, minutes=15):
    """Run all cells and wait for the number of the last one."""
    menu(tab, "Run", "Run All Cells")
    last = cells(tab).last.locator(".jp-InputArea-prompt")
    wait_until(tab, lambda: re.search(r"\[\d+\]", last.inner_text()) or errors(tab), minutes)
    tab.locator("#jp-main-statusbar", has_text="| Idle").wait_for()


def wait_until(tab, condition, minutes=PATIENCE):
    """Look four times a second; the browser goes on working meanwhile."""
    end = time.monotonic() + 60 * minutes
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        tab.wait_for_timeout(250)
    return found


def errors(tab):
    return tab.locator(".jp-NotebookPanel:visible [data-mime-type='application/vnd.jupyter.error']").all_inner_texts()


def saved(tab, lab, path):
    """The notebook as Lab saves it, after the menu's Save."""
    file = lab.folder / path
    before = file.stat().st_mtime_ns
    menu(tab, "File", "Save Notebook")
    wait_until(tab, lambda: file.stat().st_mtime_ns != before)
    return nbformat.read(file, as_version=4)


def outputs(notebook, kind):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
            if output.output_type == kind or output.get("name") == kind or kind in output.get("data", {})]


def assert_clean(notebook):
    """Every cell ran, and none left an error or wrote to the error stream."""
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert not outputs(notebook, "error")
    assert not [output.text for output in outputs(notebook, "stderr")]


# --- lessons ---


def test_lesson_1_runs_from_top_to_bottom_and_shows_its_figures(lab, tab):
    open_notebook(lab, tab, "01_load_and_visualize.ipynb")
    run_all(tab)
    screenshot(tab, "lesson-1-end")
    figures = tab.locator(".jp-NotebookPanel:visible .jp-OutputArea img")
    assert figures.count() >= 4
    figures.first.scroll_into_view_if_needed()
    assert all(figure.evaluate("image => image.complete && image.naturalWidth > 100") for figure in figures.all())
    screenshot(tab, "lesson-1-figure")
    notebook = saved(tab, lab, "notebooks/01_load_and_visualize.ipynb")
    assert_clean(notebook)
    assert len(outputs(notebook, "image/png")) == figures.count()


def test_progress_bars_move(lab, tab):
    open_notebook(lab, tab, "05_transfer.ipynb")
    tab.evaluate("""() => {
        window.seen = [];
        new MutationObserver(() => {
            for (const part of document.querySelectorAll('.jp-OutputArea-output pre'))
                for (const bar of part.textContent.matchAll(/([^\\n\\r]*?): +(\\d+)%\\|/g))
                    if (!window.seen.some(one => one[0] === bar[1] && one[1] === bar[2]))
                        window.seen.push([bar[1], bar[2]]);
        }).observe(document.body, {childList: true, subtree: true, characterData: true});
    }""")
    run_all(tab)
    bars = {}
    for name, share in tab.evaluate("window.seen"):
        bars.setdefault(name, []).append(int(share))
    screenshot(tab, "lesson-5-end")
    assert_clean(saved(tab, lab, "notebooks/05_transfer.ipynb"))
    assert len(bars) >= 2 and all(shares[-1] == 100 for shares in bars.values()), bars
    assert any(len(shares) >= 2 and shares == sorted(shares) for shares in bars.values()), bars


def test_the_script_of_a_lesson_opens_as_a_notebook_and_runs(lab, tab):
    tab.locator(".jp-DirListing-item", has_text="01_load_and_visualize.py").click(button="right")
    tab.locator(".lm-Menu-item:visible", has_text="Open With").hover()
    menu(tab, None, "Notebook")
    tab.locator("dialog button", has_text="Select").click()  # a script does not say what kernel it wants
    kernel_has_started(lab, tab)
    expected = nbformat.read(lab.folder / "notebooks" / "01_load_and_visualize.ipynb", as_version=4)
    assert cells(tab).count() == sum(cell.cell_type == "code" for cell in expected.cells)
    start = cells(tab).filter(has_text="start_lesson(").first
    run(tab, cells(tab).first)
    run(tab, start)
    wait_until(tab, lambda: "Budget smoke" in start.inner_text())
    screenshot(tab, "script-as-notebook")
    assert not errors(tab)


# --- an exercise ---

SOLUTION = """predicted = {"megabytes": 138.24, "batches": 352, "last batch": 72, "farthest": 9,
             "brighter": [15, 210, 4], "divided": [0, 0, 1]}"""


def test_an_exercise_is_told_what_is_not_yet_right_and_when_it_is(lab, tab):
    open_notebook(lab, tab, "01_load_and_visualize.ipynb", "exercises")
    task = cells(tab).filter(has_text="predicted = {}").first
    check = cells(tab).filter(has_text="checks.check_predicted(predicted)").first
    assert "YOUR CODE HERE" in task.inner_text() and "138" not in task.inner_text()
    number = task.get_attribute("data-windowed-list-index")
    task = tab.locator(f".jp-NotebookPanel:visible .jp-CodeCell[data-windowed-list-index='{number}']")
    run(tab, cells(tab).first)
    run(tab, cells(tab).filter(has_text="start_exercises()").first)
    for text, said in ((SOLUTION.replace("352", "351"), "Not yet: "), (SOLUTION, "Right: ")):
        task.locator(".cm-content").click()
        tab.keyboard.press("ControlOrMeta+a")
        tab.keyboard.insert_text(text)
        run(tab, task)
        run(tab, check)
        output = check.locator(".jp-OutputArea")
        wait_until(tab, lambda said=said, output=output: said in output.inner_text())
        output.scroll_into_view_if_needed()
        screenshot(tab, f"exercise-{said.split(':')[0].lower().replace(' ', '-')}")
    assert not errors(tab)


def run(tab, cell):
    cell.locator(".cm-content").click()
    tab.keyboard.press("ControlOrMeta+Enter")
    prompt = cell.locator(".jp-InputArea-prompt")
    wait_until(tab, lambda: re.search(r"\[\d+\]", prompt.inner_text()))


# --- pieces to play with ---


def test_a_slider_changes_the_picture_at_once(lab, tab):
    open_notebook(lab, tab, "03_augmentation.ipynb")
    run_all(tab)
    piece = tab.locator(".jp-NotebookPanel:visible .jp-OutputArea", has=tab.locator(".widget-slider")).first
    piece.scroll_into_view_if_needed()
    before, after = (piece.locator("figure img").nth(number).get_attribute("src") for number in (0, 1))
    assert before == after
    took = []
    handle = piece.locator(".noUi-handle").first
    for _ in range(MOVES):
        tab.evaluate("""box => {
            const image = box.querySelectorAll('figure img')[1].src;
            window.took = new Promise(done => {
                let begun;
                box.addEventListener('keydown', () => begun = performance.now(), {capture: true, once: true});
                const observer = new MutationObserver(() => {
                    if (box.querySelectorAll('figure img')[1].src === image) return;
                    observer.disconnect();
                    requestAnimationFrame(() => done(performance.now() - begun));
                });
                observer.observe(box, {childList: true, subtree: true, attributes: true, characterData: true});
            });
        }""", piece.element_handle())
        handle.press("ArrowRight")
        took.append(tab.evaluate("window.took"))
    print(f"\nA picture follows its slider in {min(took):.0f} to {max(took):.0f} ms, the median is "
          f"{sorted(took)[MOVES // 2]:.0f} ms")
    piece.locator("figure").nth(1).scroll_into_view_if_needed()
    screenshot(tab, "augmentation-explorer")
    assert f"shift {MOVES / 32:.2g}" in piece.inner_text()
    piece.locator("button", has_text="as it is").click()
    wait_until(tab, lambda: "no change" in piece.inner_text())
    assert_clean(saved(tab, lab, "notebooks/03_augmentation.ipynb"))


def test_mistakes_are_filtered_and_a_picture_of_ones_own_is_named(lab, tab, tmp_path):
    open_notebook(lab, tab, "06_comparison.ipynb")
    run_all(tab)
    areas = tab.locator(".jp-NotebookPanel:visible .jp-OutputArea")
    piece = areas.filter(has=tab.locator("label", has_text="taken for")).first
    piece.scroll_into_view_if_needed()
    everything = piece.locator("p").first.inner_text()
    chosen = piece.locator("select").nth(1)
    name = chosen.locator("option").nth(4).inner_text()
    chosen.select_option(name)
    wait_until(tab, lambda: piece.locator("p").first.inner_text() != everything)
    screenshot(tab, "mistakes")
    assert all(caption.startswith(f"{name}, taken for ") for caption in piece.locator("figcaption").all_inner_texts())
    piece = areas.filter(has=tab.locator("label, button", has_text="your picture")).first
    piece.scroll_into_view_if_needed()
    Image.new("RGB", (400, 300), (200, 40, 40)).save(tmp_path / "mine.jpg")
    (tmp_path / "mine.png").write_text("no picture")
    with tab.expect_file_chooser() as chosen:
        piece.locator("button", has_text="your picture").click()
    chosen.value.set_files(tmp_path / "mine.jpg")
    wait_until(tab, lambda: "the picture, 400 x 300" in piece.inner_text())
    assert piece.locator("td", has_text="%").count() == 3
    screenshot(tab, "own-picture")
    with tab.expect_file_chooser() as chosen:
        piece.locator("button", has_text="your picture").click()
    chosen.value.set_files(tmp_path / "mine.png")
    wait_until(tab, lambda: "The uploaded picture is no PNG or JPEG" in piece.inner_text())
    screenshot(tab, "own-picture-bad")
    assert_clean(saved(tab, lab, "notebooks/06_comparison.ipynb"))
