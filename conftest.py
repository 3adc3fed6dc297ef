"""What every test and every notebook's kernel sees: the smallest budget, no network, folders that vanish afterwards.

CIFAR10_PATH and BACKBONE_PATH stay as the user set them: with them the notebooks run on the real images and weights.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).resolve().parent


def pytest_configure(config):
    # Kernels inherit the environment, so it must stand before the first one starts. Lesson 6 reads what the lessons
    # before it saved, so there is one folder of runs for the whole session.
    scratch = TemporaryDirectory(prefix="course-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(scratch.cleanup)
    environment = pytest.MonkeyPatch()
    config.add_cleanup(environment.undo)
    environment.setenv("COURSE_BUDGET", "smoke")
    environment.setenv("COURSE_OFFLINE", "1")
    environment.delenv("COURSE_SEED", raising=False)
    environment.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("runs", "build"):
        folder = Path(scratch.name) / name
        folder.mkdir()
        environment.setenv(f"COURSE_{name.upper()}", str(folder))
    # A warning that a lesson's cell or one of our modules causes fails the cell.
    modules = sorted((ROOT / "cifar_helpers").rglob("*.py"))
    ours = ["__main__", *(".".join(module.relative_to(ROOT).with_suffix("").parts) for module in modules)]
    environment.setenv("PYTHONWARNINGS", ",".join(f"error:::{module}" for module in ours), prepend=",")
