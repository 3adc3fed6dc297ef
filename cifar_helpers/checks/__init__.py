"""Checks that students call on their own solutions: `checks.check_name(solution)`, one for each exercise.

- `lesson_1`: images, splits and pipelines
- `lesson_2`: a first network: scaling, logits, validation
- `lesson_3`: augmentation that keeps the class
- `lesson_4`: training steps and loops
- `lesson_5`: preprocessing, frozen layers, fine-tuning
- `lesson_6`: metrics, intervals and paired tests
- `lesson_7`: sums over workers, shares of the data, checkpoints

A check tests shapes, dtypes, ranges and behaviour on small generated inputs. It prints a line where all is right, and
raises NotYet otherwise. A lesson's module is imported when one of its checks is first used, so that a notebook without
TensorFlow does not wait for it.
"""

import re
from importlib import import_module
from pathlib import Path

from cifar_helpers.checks.common import NotYet

# Read rather than imported: the modules of some lessons import TensorFlow.
_MODULES: dict[str, list[str]] = {}
for _path in sorted(Path(__file__).parent.glob("lesson_*.py")):
    for _name in re.findall(r"^def (check_\w+)\(", _path.read_text(encoding="utf-8"), re.MULTILINE):
        _MODULES.setdefault(_name, []).append(_path.stem)

__all__ = ["NotYet", *_MODULES]


def __getattr__(name: str):
    modules = _MODULES.get(name, [])
    if not modules:
        raise AttributeError(f"There is no {name} in {__name__}: take one of {', '.join(_MODULES)}.")
    if len(modules) > 1:
        raise AttributeError(f"{name} is defined in {' and in '.join(modules)}: give one of them another name.")
    return getattr(import_module(f"{__name__}.{modules[0]}"), name)


def __dir__():
    return sorted(__all__)
