"""What fedbridge raises at its borders: one sentence that says where, what, and the cure.

    FedbridgeError
    ├── ArgumentError               an argument out of range: of an optimizer, aggregator, algorithm
    ├── ClientDataError             a data file, a client, a feature, a record
    ├── ModelError                  a model, layer, loss or metric that cannot be used
    ├── StateError                  a saved state that cannot be loaded
    ├── ClientStepError             user code failed in a client's local step (debug execution)
    ├── TraceError                  a trace that is damaged, incomplete or too new
    ├── NotReplayableError          a trace that holds something the JAX core does not compute
    ├── ReferenceEnvironmentError   no (working) environment in which TFF runs
    └── ScriptError                 a script that fails under TFF

The command line prints the sentence and exits with 2; a library user catches the class.
"""

import contextlib
import inspect
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np


class FedbridgeError(Exception):
    """Base of every error that fedbridge raises on purpose."""


class ArgumentError(FedbridgeError, ValueError):
    """An argument that cannot be meant, e.g. a negative learning rate; says what is allowed."""


class ClientDataError(FedbridgeError, ValueError):
    """A data file, a client, a feature or a record that cannot be used as it is."""


class ModelError(FedbridgeError, ValueError):
    """A model, layer, loss or metric that fedbridge cannot compute."""


class StateError(FedbridgeError, ValueError):
    """A saved state that is damaged, or belongs to another process."""


class DeviceMemoryError(FedbridgeError, MemoryError):
    """A round that needs more memory than its device has."""


class ClientStepError(FedbridgeError, RuntimeError):
    """User code failed in a client's local step; names client, step and batch."""


class TraceError(FedbridgeError, ValueError):
    """A trace that is damaged, incomplete, or of a newer format."""


class NotReplayableError(FedbridgeError, ValueError):
    """A trace that holds something the JAX core does not compute, named."""


class ReferenceEnvironmentError(FedbridgeError, RuntimeError):
    """There is no environment in which the real TFF runs, or it is broken."""


class ScriptError(FedbridgeError, RuntimeError):
    """A script that fails under the real TFF."""


def check_argument(holds: bool, name: str, value: object, allowed: str) -> None:
    """Refuses an argument that is out of range.

    Raises:
        ArgumentError: It does not hold.

    Example:
        >>> check_argument(0 < 1.5 < 1, "quantile", 1.5, "below 1")
        Traceback (most recent call last):
        fedbridge.jax_core._errors.ArgumentError: quantile is 1.5; it must be below 1.
    """
    if not holds:
        raise ArgumentError(f"{name} is {shown(value)}; it must be {allowed}.")


def shown(value: object, most: int = 100) -> str:
    """A value in an error: on one line, short, without addresses.

    Example:
        >>> shown("a" * 200, most=12)
        "'aaaaaaaa..."
    """
    if hasattr(value, "_fields"):  # of a model, an aggregator: whose weights nobody wants to read
        return f"{type(value).__name__}(...)"
    text = " ".join(re.sub(r" at 0x[0-9a-f]+", "", repr(value)).split())
    return text if len(text) <= most else text[: most - 3] + "..."


def as_scalar(value: object) -> np.ndarray:
    """A number as an array of shape (); what is none, nested lists too, as one that is none."""
    return np.asarray(None if isinstance(value, list | tuple) else value)


def is_real(value: object) -> bool:
    """Whether this is one real number; a bool is none."""
    array = as_scalar(value)
    return array.ndim == 0 and array.dtype.kind in "iuf"


def check_bool(name: str, value: object) -> None:
    """Refuses what is neither true nor false, such as "no", which Python takes for true."""
    holds = isinstance(value, int | np.bool_) and value in (0, 1)
    check_argument(holds, name, value, "True or False")


def check_path(name: str, value: object) -> None:
    """Refuses what names no file or folder, such as None or an empty text."""
    path = isinstance(value, str | os.PathLike) and value != ""
    check_argument(path, name, value, "a text or a pathlib.Path")


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Refuses what is no whole number, or less than the least."""
    check_argument(is_whole(value, least), name, value, f"a whole number of at least {least}")


def check_shape(name: str, value: object) -> None:
    """Refuses what is no shape: a tuple of whole numbers above 0."""
    shape = isinstance(value, tuple) and all(is_whole(size, 1) for size in value)
    check_argument(shape, name, value, "a tuple of whole numbers above 0")


def is_whole(value: Any, least: int) -> bool:
    """Whether this is a whole number of at least so much; a bool is none."""
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return number and bool(value >= least)


@contextlib.contextmanager
def traced(name: str, cure: str = "write it with jnp.where") -> Iterator[None]:
    """Around a call of a user's function with values that only the compiled program knows.

    Args:
        name: What the error calls the function.
        cure: What to write instead.

    Raises:
        ArgumentError: It asks for such a value in Python.
    """
    try:
        yield
    except jax.errors.JAXTypeError as error:
        raise ArgumentError(
            f"{name} takes decisions in Python, or goes through NumPy, but what it is given is "
            f"only known inside the compiled program; {cure}."
        ) from error


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Around a round, and around the wait for it.

    Raises:
        DeviceMemoryError: The device has too little memory for it.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        asked = re.search(r"allocat\w+ ([\d.]+ ?[\w]+)", str(error))
        more = f": it could not have {asked[1]} more" if asked else ""
        raise DeviceMemoryError(
            f"the round needs more memory than its device has{more}; take smaller batches, "
            "fb.sequential or fb.vmapped with a smaller chunk, or data.resident(False)."
        ) from error


def check_function(name: str, value: Any, takes: str) -> None:
    """Refuses what is no function of so many arguments.

    Args:
        name: What the error calls it.
        value: What was given as a function.
        takes: Its arguments in words, `"(local weights, server's weights)"`.

    Example:
        >>> check_function("pull", max, "(a, b)")
        >>> check_function("pull", lambda a: a, "(a, b)")
        Traceback (most recent call last):
        fedbridge.jax_core._errors.ArgumentError: pull is <function <lambda>>; it must be ...
    """
    holds = callable(value)
    if holds:
        try:
            words = takes.removeprefix("(").partition(")")[0]
            inspect.signature(value).bind(*(words.split(",") if words else []))
        except TypeError:
            holds = False
        except ValueError:  # a function of C, which tells nothing
            pass
    check_argument(holds, name, value, f"a function of {takes}")
