"""Binder, conda and the dev container start from environment.yml, which names versions of nothing but Python."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_environment_has_a_supported_python_and_names_no_other_version():
    plain = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
    [python] = [line.partition("=")[2] for line in plain if line.startswith("python=")]
    assert python in SpecifierSet(PROJECT["requires-python"])
    assert [line for line in plain if "=" in line] == [f"python={python}"]


def test_the_environment_installs_the_course_at_tested_versions_and_nothing_else():
    [pip] = [line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict)]
    constraints, course = pip
    assert constraints.startswith("-c ") and (ROOT / constraints.removeprefix("-c ")).is_file()
    extra = re.fullmatch(r"-e \.\[(\w+)\]", course)[1]
    assert extra in PROJECT["optional-dependencies"]


def test_no_other_file_of_binders_is_there():
    # repo2docker would take these instead of environment.yml, or a folder `binder` instead of everything here.
    others = ("binder", ".binder", "Dockerfile", "requirements.txt", "runtime.txt", "Pipfile", "apt.txt", "install.R")
    assert not [name for name in others if (ROOT / name).exists()]


@pytest.mark.skipif(sys.platform == "win32", reason="Binder runs Linux")
@pytest.mark.parametrize(("given", "budget"), [({}, "smoke"), ({"COURSE_BUDGET": "laptop"}, "laptop")])
def test_binder_starts_at_the_smoke_budget(given, budget):
    command = [ROOT / "start", "printenv", "COURSE_BUDGET"]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"} | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == budget


def test_the_dev_container_makes_that_environment_and_takes_its_python():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    command = container["postCreateCommand"].split()
    assert command[:3] == ["conda", "env", "create"] and (ROOT / command[-1]).name == "environment.yml"
    assert not container["image"].endswith(":latest") and ":" in container["image"]
    python = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert f"/envs/{ENVIRONMENT['name']}/" in python
