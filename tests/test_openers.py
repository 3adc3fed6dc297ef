"""Badges and the cell that finds the course's helpers: derived from one address, tried where nothing is installed."""

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
import zipfile

import jupytext
import openers
import pytest
from openers import ROOT

LESSONS = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "notebooks").glob(openers.SCRIPT))]
EXERCISES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "exercises").glob(openers.SCRIPT))]
WHEEL = openers.project()["wheel"]
VERSION = openers.project()["version"]
SCRIPT = "# %% [markdown]\n# # {title}\n#\n# Some words.\n\n# %%\nx = 1\n"


# --- what stands in the repository ---


def test_every_script_is_as_it_should_be():
    assert openers.faults() == []


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lessons_badges_lead_to_its_own_notebook(lesson):
    notebook = json.loads((ROOT / lesson).with_suffix(".ipynb").read_text(encoding="utf-8"))
    opening = "".join(notebook["cells"][0]["source"])
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    name = urls["Repository"].removeprefix("https://github.com/")
    path = lesson.replace(".py", ".ipynb")
    colab, binder = re.findall(r"^\[!\[Open in \w+\]\(\S+\.svg\)\]\((\S+)\)$", opening, re.MULTILINE)
    assert colab == f"https://colab.research.google.com/github/{name}/blob/v{VERSION}/{path}"
    assert binder == f"https://mybinder.org/v2/gh/{name}/v{VERSION}?labpath={path.replace('/', '%2F')}"


@pytest.mark.parametrize("script", LESSONS + EXERCISES)
def test_the_first_code_cell_finds_the_helpers_and_tests_skip_it(script):
    first = next(cell for cell in jupytext.read(ROOT / script, fmt="py:percent").cells if cell.cell_type == "code")
    assert first.metadata["tags"] == ["nbval-skip"]
    assert first.source == cell()
    assert not re.search(r"^\s*[%!]", first.source, re.MULTILINE)


def test_the_address_stands_in_one_place():
    address = WHEEL.partition("/releases/")[0]
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    derived = ("README.md", *LESSONS, *(lesson.replace(".py", ".ipynb") for lesson in LESSONS), *EXERCISES)
    assert [name for name in files if name not in derived and (ROOT / name).is_file()
            and address.encode() in (ROOT / name).read_bytes()] == ["pyproject.toml"]


# --- write and check ---


@pytest.fixture
def root(tmp_path):
    """A repository with one lesson and one exercise, as they should be."""
    for folder in ("notebooks", "exercises"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "01_first.py").write_text(SCRIPT.format(title=f"1 · {folder}"), encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "my-course"\nversion = "2.3.0"\n[project.urls]\nRepository = "https://github.com/me/it"\n')
    assert openers.main(["--write", str(tmp_path)]) == 0
    return tmp_path


def changed(root, find, replacement, folder="notebooks"):
    script = root / folder / "01_first.py"
    text = script.read_text(encoding="utf-8")
    assert re.search(find, text)
    script.write_text(re.sub(find, replacement, text, count=1), encoding="utf-8")


def test_what_is_written_is_accepted_and_writing_again_changes_nothing(root):
    scripts = sorted(root.glob("*/*.py"))
    before = [script.read_bytes() for script in scripts]
    assert openers.main(["--check", str(root)]) == 0
    assert openers.write(root) == [] and [script.read_bytes() for script in scripts] == before
    lesson, exercise = before[1].decode(), before[0].decode()
    assert "/me/it/blob/v2.3.0/notebooks/01_first.ipynb)" in lesson and "[![" not in exercise
    for text in (lesson, exercise):
        assert '"https://github.com/me/it/releases/download/v2.3.0/my_course-2.3.0-py3-none-any.whl"' in text
        assert text.endswith("# %%\nx = 1\n") and "# Some words.\n" in text


@pytest.mark.parametrize(("find", "replacement", "said"), [
    (r"blob/v2\.3\.0/notebooks/01_first", "blob/v2.3.0/notebooks/02_other", "no badges, or badges that do not lead"),
    (r"# \[!\[Open in Colab.*\n# \[!\[Open in Binder.*\n#\n", "", "no badges, or badges that do not lead"),
    (r"(# \[!\[Open in Colab.*\n# \[!\[Open in Binder.*\n#\n)(# Some words.\n)", r"\2#\n\1", "elsewhere than below"),
    (r"--no-deps", "--upgrade", "lacks the cell that finds"),
    (r'# %% tags=\["nbval-skip"\]\n', "# %%\n", "lacks the cell that finds"),
    (r'(?s)(# %% tags=\["nbval-skip"\].*?)(# %%\nx = 1\n)', r"\2\n\1", "lacks the cell that finds"),
])
def test_a_fault_is_named_and_mended(root, find, replacement, said, capsys):
    changed(root, find, replacement)
    wrong = (root / "notebooks" / "01_first.py").read_bytes()
    assert openers.main(["--check", str(root)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("notebooks/01_first.py ") and said in message and "make notebooks" in message
    assert (root / "notebooks" / "01_first.py").read_bytes() == wrong  # a check never writes
    openers.write(root)
    mended = (root / "notebooks" / "01_first.py").read_text(encoding="utf-8")
    assert openers.faults(root) == [] and mended.count("[![Open in Colab]") == mended.count("nbval-skip") == 1


def test_a_lesson_under_a_new_name_or_address_or_version_is_a_fault(root):
    (root / "notebooks" / "01_first.py").rename(root / "notebooks" / "02_second.py")
    assert "badges that do not lead to its notebook" in openers.faults(root)[0]
    openers.write(root)
    described = (root / "pyproject.toml").read_text()
    for find, replacement in (("me/it", "you/it"), ("2.3.0", "2.4.0")):
        described = described.replace(find, replacement)
        (root / "pyproject.toml").write_text(described)
        assert len(openers.faults(root)) == 3  # the badges and the cell of the lesson, the cell of the exercise
        openers.write(root)
        assert openers.faults(root) == [] and replacement in (root / "notebooks" / "02_second.py").read_text()


@pytest.mark.parametrize("address", ["", "https://github.com/me", "https://github.com/me/it/", "https://example.org/me/it"])
def test_an_address_that_colab_cannot_open_is_refused(root, address, capsys):
    described = (root / "pyproject.toml").read_text().replace("https://github.com/me/it", address)
    (root / "pyproject.toml").write_text(described)
    before = (root / "notebooks" / "01_first.py").read_bytes()
    for option in ("--check", "--write"):
        assert openers.main([option, str(root)]) == 1
        assert f"Repository is {address!r}" in capsys.readouterr().err
    assert (root / "notebooks" / "01_first.py").read_bytes() == before


def test_a_lesson_without_a_heading_is_named(root, capsys):
    changed(root, r"# # .*\n", "")
    assert openers.main(["--check", str(root)]) == 1
    assert capsys.readouterr().err.startswith("notebooks/01_first.py has no place for badges")


def test_a_page_shows_badges_as_words():
    shown = openers.without_pictures(openers.badges("notebooks/01_first.ipynb", openers.project()))
    assert "![" not in shown and "[Open in Colab](https://colab.research.google.com/github/" in shown
    assert openers.without_pictures("![a figure](figure.svg)") == "![a figure](figure.svg)"


# --- the cell, where the course is not installed ---


def cell():
    return openers.opener(openers.project()).partition("\n")[2].strip()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The Python of an environment with nothing but pip."""
    return make_environment(tmp_path_factory.mktemp("bare"))


def make_environment(folder):
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def execute(python, folder, address=WHEEL, then="", path=""):
    """Run the cell in `folder`, and what stands in `then` after it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_"))}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "no_proxy": "127.0.0.1"} | ({"PYTHONPATH": path} if path else {})
    source = cell().replace(WHEEL, address)
    return subprocess.run([python, "-c", f"{source}\n{then}"], cwd=folder, env=environment, capture_output=True,
                          text=True, check=False)


def said(done):
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.strip()


@pytest.fixture
def server(tmp_path):
    """A folder that is served on this machine: the folder, its address, and what was asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, code="-", size="-"):
            asked.append((self.path, int(code)))

        def log_error(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{listener.server_port}", asked
        listener.shutdown()
        thread.join()


def write_wheel(path):
    """A package of one file that asks for another package, which does not exist."""
    about = f"cifar_helpers-{VERSION}.dist-info"
    metadata = ["Metadata-Version: 2.1", "Name: cifar-helpers", f"Version: {VERSION}", "Requires-Dist: no-such-package"]
    files = {"cifar_helpers/__init__.py": "print('imported')\n", f"{about}/METADATA": "\n".join(metadata) + "\n",
             f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"]))


def test_an_importable_package_is_left_alone(bare, tmp_path):
    (tmp_path / "somewhere" / "cifar_helpers").mkdir(parents=True)
    (tmp_path / "somewhere" / "cifar_helpers" / "__init__.py").write_text("raise SystemExit('not to be imported yet')")
    (tmp_path / "empty").mkdir()
    then = "print([name for name in sys.modules if 'cifar' in name], 'folders' in globals())"
    done = execute(bare, tmp_path / "empty", then=then, path=str(tmp_path / "somewhere"))
    assert said(done) == "[] False"


@pytest.mark.parametrize("folder", ["notebooks", "exercises", "."])
def test_the_checkout_around_it_is_found(bare, folder):
    then = "print(find_spec('cifar_helpers').origin, 'wheel' in globals())"
    assert said(execute(bare, ROOT / folder, then=then)) == f"{ROOT / 'cifar_helpers' / '__init__.py'} False"


def test_a_folder_of_that_name_is_no_checkout(bare, tmp_path):
    (tmp_path / "cifar_helpers" / "notebooks").mkdir(parents=True)  # a clone under the package's name, say
    done = execute(bare, tmp_path / "cifar_helpers" / "notebooks", address="http://127.0.0.1:9/a.whl")
    assert "ImportError: The course could not be installed" in done.stderr


def test_the_release_is_installed_alone_and_once(tmp_path, server):
    folder, address, asked = server
    wheel = folder / WHEEL.rpartition("/")[2]
    write_wheel(wheel)
    python = make_environment(tmp_path / "own")  # the others need one in which nothing was installed
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        done = execute(python, tmp_path / "empty", f"{address}/{wheel.name}", then="import cifar_helpers")
        assert said(done) == "imported"
    assert asked == [(f"/{wheel.name}", 200)]


def test_a_release_that_cannot_be_had_is_said_in_a_sentence(bare, tmp_path, server):
    _, address, asked = server
    done = execute(bare, tmp_path, f"{address}/{WHEEL.rpartition('/')[2]}", then="print('went on')")
    assert done.returncode == 1 and not done.stdout and asked
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith("ImportError: ")]
    assert "could not be installed: connect to the network, restart, and try again. ERROR: " in sentence
    assert "404" in sentence  # pip's own reason
    assert said(execute(bare, ROOT / "notebooks")) == ""  # nothing is left behind that would be found
