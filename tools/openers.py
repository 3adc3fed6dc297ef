"""Let every lesson open anywhere: badges for Colab and Binder, and a first cell that finds the course's helpers.

    python tools/openers.py --write    write both into every lesson's script, and the cell into every exercise's
    python tools/openers.py --check    write nothing; say which scripts differ, and exit with 1 where one does

Everything follows from pyproject.toml, which holds the repository's address and the version, and from the script's own
path. Badges lead to the notebook of the version's tag, so that a lesson and the release which its cell installs agree.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"notebooks": True, "exercises": False}  # with badges or without: no notebook of an exercise is published
SCRIPT = "[0-9][0-9]_*.py"
REMEDY = "run `make notebooks` (`python tools/openers.py --write`)"
GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)")
BADGES = re.compile(r"(^# \[!\[Open in .*\n)+#\n", re.MULTILINE)
HEADING = re.compile(r"\A# %% \[markdown\]\n# # .*\n#\n")
# Colab has every dependency: `--no-deps` leaves what is installed as it is, and `start_lesson` names what is missing.
OPENER = '''\
# %% tags=["nbval-skip"]
# Finds the course's helpers: installed, else in a folder around this one, else, as on Colab, from the course's release.
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

if not find_spec("cifar_helpers"):
    folders = [Path.cwd(), *Path.cwd().parents]
    sys.path += [str(folder) for folder in folders if (folder / "cifar_helpers/__init__.py").is_file()][:1]
if not find_spec("cifar_helpers"):
    wheel = "{wheel}"
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--retries=1", wheel]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode or not find_spec("cifar_helpers"):
        why = done.stderr.strip().split("\\n")[-1]
        raise ImportError(f"The course could not be installed: connect to the network, restart, and try again. {{why}}")

'''


class OpenerError(Exception):
    """Something that openers cannot be derived from; the message is one sentence."""


def project(root: Path = ROOT) -> dict:
    """`repository` (owner/name), `version` and the address of the `wheel`, as pyproject.toml has them.

    Raises OpenerError where the address is none on GitHub, from where Colab opens notebooks.
    """
    described = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address, version = described.get("urls", {}).get("Repository", ""), described["version"]
    found = GITHUB.fullmatch(address)
    if not found:
        raise OpenerError(f"pyproject.toml, [project.urls]: Repository is {address!r}; write "
                          "https://github.com/OWNER/NAME without anything after it.")
    name = re.sub(r"[-_.]+", "_", described["name"])
    return {"repository": found[1], "version": version,
            "wheel": f"{address}/releases/download/v{version}/{name}-{version}-py3-none-any.whl"}


def badges(notebook: str, about: dict) -> str:
    """The two lines of a script that link to its notebook, a path within the repository."""
    colab = f"https://colab.research.google.com/github/{about['repository']}/blob/v{about['version']}/{quote(notebook)}"
    binder = f"https://mybinder.org/v2/gh/{about['repository']}/v{about['version']}?labpath={quote(notebook, safe='')}"
    return (f"# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n"
            f"# [![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})\n")


def opener(about: dict) -> str:
    """The cell that finds the course's helpers, as it stands in a script."""
    return OPENER.format(wheel=about["wheel"])


def without_pictures(markdown: str) -> str:
    """A text in which a badge is a link with words: for pages that ask no other host for anything."""
    return re.sub(r"\[!\[(Open in \w+)\]\([^)]*\)\]", r"[\1]", markdown)


def derived(script: Path, root: Path, about: dict) -> str:
    """The script as it should be. Raises OpenerError where its first cell has no place for badges."""
    before, *cells = re.split(r"^(?=# ?%%)", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = [cell for cell in cells if not _is_opener(cell)]
    if not cells or not HEADING.match(cells[0]):
        raise OpenerError(f"{_name(script)} has no place for badges: let its first cell begin with a heading and an "
                          "empty line.")
    cells[0] = BADGES.sub("", cells[0])
    if FOLDERS.get(script.parent.name, True):
        notebook = script.with_suffix(".ipynb").relative_to(root).as_posix()
        cells[0] = HEADING.sub(lambda found: f"{found[0]}{badges(notebook, about)}#\n", cells[0])
    return "".join([before, cells[0], opener(about), *cells[1:]])


def _is_opener(cell: str) -> bool:
    return 'find_spec("cifar_helpers")' in cell


def write(root: Path = ROOT) -> list[Path]:
    """Write the scripts that are not as they should be, and return their paths."""
    about, written = project(root), []
    for script in _scripts(root):
        content = derived(script, root, about).encode()
        if script.read_bytes() != content:
            script.write_bytes(content)  # bytes: text would get another line end on Windows
            written.append(script)
    return written


def faults(root: Path = ROOT) -> list[str]:
    """A sentence for each script that is not as it should be; empty where all are."""
    about, found = project(root), []
    for script in _scripts(root):
        text, wanted = script.read_text(encoding="utf-8"), derived(script, root, about)
        if [text[slice(*place)] for place in _badges(text)] != [wanted[slice(*place)] for place in _badges(wanted)]:
            found.append(f"{_name(script)} has no badges, or badges that do not lead to its notebook: {REMEDY}.")
        elif _badges(text) != _badges(wanted):
            found.append(f"{_name(script)} has its badges elsewhere than below its heading: {REMEDY}.")
        if BADGES.sub("", text) != BADGES.sub("", wanted):
            found.append(f"{_name(script)} lacks the cell that finds the course's helpers, or has another: {REMEDY}.")
    return found


def _badges(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in BADGES.finditer(text)]


def _scripts(root: Path) -> list[Path]:
    return sorted(script for folder in FOLDERS for script in (root / folder).glob(SCRIPT))


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def main(arguments: list[str] | None = None) -> int:
    """Write or check; the exit status is 1 where a check found something."""
    parser = argparse.ArgumentParser(description="Let every lesson open anywhere: badges, and a cell for its helpers.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write both into the scripts")
    what.add_argument("--check", action="store_true", help="write nothing, and fail where a script differs")
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="where pyproject.toml and the lessons are (.)")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    try:
        if options.write:
            for path in write(root):
                print(f"wrote {_name(path)}")
            return 0
        found = faults(root)
    except OpenerError as error:
        found = [str(error)]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
