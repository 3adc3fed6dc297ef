"""What every check needs: one sentence instead of a traceback, and arrays of whatever kind as NumPy's."""

from collections.abc import Mapping

import numpy as np


class NotYet(AssertionError):
    """A solution that is not right yet; its message says what is wrong and where to look, and gives no answer away."""

    def _render_traceback_(self):  # what Jupyter shows in place of a traceback
        return [f"Not yet: {self}"]


def expect(right: bool, otherwise: str) -> None:
    """Raise NotYet with the sentence `otherwise` where something is not right."""
    if not right:
        raise NotYet(otherwise)


def outcome(function, *arguments, name: str, **options):
    """What a student's function returns for these arguments.

    Raises NotYet where it cannot be called, stops with an error, or returns nothing.
    """
    expect(callable(function), f"{name} is {type(function).__name__}, and must be a function: run the cell that "
                               "defines it, and pass it without parentheses.")
    try:
        found = function(*arguments, **options)
    except NotYet:
        raise
    except NotImplementedError as error:
        raise NotYet(f"{name} is not written yet: put your lines where it says YOUR CODE HERE, and take out the raise "
                     "below it.") from error
    except Exception as error:
        raise NotYet(f"{name} stopped with {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                     ) from error
    expect(found is not None, f"{name} returned nothing: does it end in return?")
    return found


def array(value, name: str, *, shape: tuple | None = None, kind: str | None = None) -> np.ndarray:
    """A student's array, tensor or list as a NumPy array; `shape` may hold None for any length.

    `kind` is a string of NumPy's kinds, such as "f" for fractions, "iu" for whole numbers.
    """
    try:
        found = np.asarray(value)
    except Exception as error:
        raise NotYet(f"{name} is {type(value).__name__}, and must be an array.") from error
    if shape is not None:
        fits = found.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, found.shape,
                                                                                         strict=True))
        wanted = ", ".join("any" if want is None else str(want) for want in shape) + "," * (len(shape) == 1)
        expect(fits, f"{name} has the shape {found.shape}, and must have ({wanted}).")
    if kind is not None:
        names = {"f": "fractions (float)", "iu": "whole numbers (int)", "u": "whole numbers without a sign (uint)",
                 "b": "truth values (bool)"}
        expect(found.dtype.kind in kind, f"{name} holds {found.dtype}, and must hold {names.get(kind, kind)}.")
    return found


def entries(value, name: str, keys) -> dict:
    """A student's dict with every one of `keys` in it. Raises NotYet where it is none, or where a key is missing."""
    expect(isinstance(value, Mapping), f"{name} is {type(value).__name__}, and must be a dict.")
    missing = [repr(key) for key in keys if key not in value]
    expect(not missing, f"{name} has no entry {', '.join(missing)}: keep the keys as they stand in the task.")
    return dict(value)


def entry(answers, key: str, name: str):
    """What a dict of answers holds under a key; raises NotYet where it is no dict or lacks the key."""
    return entries(answers, name, (key,))[key]


def number(value, name: str) -> float:
    """A student's number of any kind, NumPy's and TensorFlow's and nan included. Raises NotYet where it is none."""
    try:
        return float(np.asarray(value, dtype=float).reshape(()))
    except (TypeError, ValueError) as error:
        raise NotYet(f"{name} is {value!r}, and must be one number.") from error


def number_under(answers, key: str, name: str) -> float:
    """A finite number from a dict of answers; raises NotYet where it is none."""
    value, name = entry(answers, key, name), f"{name}[{key!r}]"
    expect(not isinstance(value, str | bool), f"{name} must be a number.")
    found = number(value, name)
    expect(np.isfinite(found), f"{name} is {found}, and must be a number.")
    return found


def right(what: str) -> None:
    """Say that a check found nothing wrong."""
    print(f"Right: {what}")
