"""Arguments that users give, checked and refused in Keras's words."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np


def require(is_right: Any, expected: str, received: str) -> None:
    """Raise a `ValueError` that says what was expected and what was received, unless right."""
    if not is_right:
        raise ValueError(f"{expected} Received: {received}")


def numbers(name: str, value: Any, expected: str, most: float = np.inf, least: float = 0) -> Any:
    """Return a finite real number as a float, and a sequence of them as a list of floats.

    Args:
        name: Of the argument.
        value: What was given: a number, a sequence, an array or a tensor of any backend.
        expected: What it must be, for the message.
        most: The largest number that is right.
        least: The smallest.

    Raises:
        ValueError: If it is anything else.
    """
    from keras import ops

    try:
        array = ops.convert_to_numpy(value)
    except (TypeError, ValueError):
        array = np.array(None)
    is_real = array.dtype.kind in "iuf" and array.ndim <= 1 and array.size
    is_right = is_real and np.isfinite(array).all() and least <= array.min() <= array.max() <= most
    require(is_right, f"`{name}` must be {expected}.", f"{name}={value!r}")
    return array.astype("float64").tolist()


def number(name: str, value: Any, expected: str, most: float = np.inf, least: float = 0) -> float:
    """Return a finite real number, but no sequence, as a float."""
    found = numbers(name, value, expected, most, least)
    require(isinstance(found, float), f"`{name}` must be {expected}.", f"{name}={value!r}")
    return float(found)


def integer(name: str, value: Any) -> int:
    """Return an int of any library, but no bool, as Python's."""
    is_int = not isinstance(value, bool) and hasattr(value, "__index__")
    require(is_int, f"`{name}` must be an int.", f"{name}={value!r}")
    return operator.index(value)


def shapes(y_true: Any, y_pred: Any) -> str:
    """Return the shapes of labels and scores for a message."""
    return f"y_true.shape={tuple(y_true.shape)}, y_pred.shape={tuple(y_pred.shape)}"


def fits(shape: Sequence[int | None], expected: Sequence[int | None]) -> bool:
    """Tell whether two shapes are equal, as far as they are known."""
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(a == b or None in (a, b) for a, b in pairs)
