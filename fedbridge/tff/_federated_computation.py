"""`@tff.federated_computation` as far as a first test of an installation uses it."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fedbridge.tff._errors import refuse


def federated_computation(*args: Any) -> Any:
    """A computation without arguments: it gives what its function returned.

    Raises:
        MissingNameError: It has arguments.

    Example:
        >>> federated_computation(lambda: "Hello, World!")()
        b'Hello, World!'
    """
    if len(args) != 1 or not inspect.isfunction(args[0]) or inspect.signature(args[0]).parameters:
        refuse("tff.federated_computation")
    return _constant(args[0])


def _constant(function: Callable[[], Any]) -> Callable[[], Any]:
    value = function()
    value = value.encode() if isinstance(value, str) else np.asarray(value)[()]
    return lambda: value
