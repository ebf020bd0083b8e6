"""Learning rates that are functions of a number, in TensorFlow or in Python."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from fedbridge import jax_core as fc
from fedbridge.jax_core._compat import on_host


def schedule(given: Any, name: str) -> Callable[[Any], Any]:
    """A function of the number of a round: the script's own, called outside of the program.

    It gets the number as TFF gives it: as a tensor, where TensorFlow is in use.

    Raises:
        ArgumentError: It is no function.
    """
    fc.check_argument(callable(given), name, given, "a function of the number of a round")

    def rate_at(number: Any) -> Any:
        tensorflow = sys.modules.get("tensorflow")
        number = np.int32(number)
        return given(tensorflow.constant(number) if tensorflow else number)

    def call(number: Any) -> np.ndarray:
        return np.asarray(rate_at(number), np.float32)

    rate_at(0)  # what the script raises comes through as it is, and not from within a program
    rate = jax.ShapeDtypeStruct((), np.float32)
    return lambda number: on_host(call, rate, number)


def scheduled(
    optimizer: optax.GradientTransformation, schedule_fn: Callable[[Any], Any]
) -> optax.GradientTransformation:
    """An optimizer whose learning rate follows a function of the step's number.

    A function that JAX cannot trace, one in TensorFlow, is called outside of the program.
    """
    if callable(schedule_fn) and not _is_traceable(schedule_fn):
        schedule_fn = schedule(schedule_fn, "schedule_fn")
    return fc.optimizers.schedule_learning_rate(optimizer, schedule_fn)


def _is_traceable(schedule_fn: Callable[[Any], Any]) -> bool:
    try:
        jax.eval_shape(schedule_fn, jax.ShapeDtypeStruct((), np.int32))
    except (TypeError, ValueError):  # what TensorFlow, or NumPy, says of JAX's numbers
        return False
    return True
