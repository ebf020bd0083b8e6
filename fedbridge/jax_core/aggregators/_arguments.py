"""What an argument that is a number may be, checked where a process is built."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fedbridge.jax_core._errors import check_argument, is_real

Number = Any
"""A number of Python, NumPy or jax; an int is a fine float, a bool is none."""


def check_number(name: str, value: Number, allowed: str, holds: Callable[[float], bool]) -> None:
    """Refuses what is no number, or none that is allowed, as float32.

    Raises:
        ArgumentError: With the argument, its value, and what is allowed.

    Example:
        >>> check_number("clip", -1.0, "a number above 0", lambda x: x > 0)
        Traceback (most recent call last):
        fedbridge.jax_core._errors.ArgumentError: clip is -1.0; it must be a number above 0.
    """
    with np.errstate(over="ignore"):
        check_argument(
            is_real(value) and bool(holds(float(np.float32(value)))), name, value, allowed
        )


def check_positive(name: str, value: Number) -> None:
    """Refuses what is not above 0; infinity is."""
    check_number(name, value, "a number above 0", lambda x: x > 0)


def check_finite_positive(name: str, value: Number) -> None:
    """Refuses what is not above 0 and finite."""
    check_number(name, value, "a finite number above 0", lambda x: 0 < x < np.inf)


def check_not_negative(name: str, value: Number) -> None:
    """Refuses what is below 0 or not finite."""
    check_number(name, value, "a finite number of at least 0", lambda x: 0 <= x < np.inf)


def check_quantile(name: str, value: Number) -> None:
    """Refuses what is not strictly between 0 and 1."""
    check_number(name, value, "a number between 0 and 1, both excluded", lambda x: 0 < x < 1)
