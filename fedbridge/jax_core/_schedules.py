"""A check at the border: is this function of the round a schedule of learning rates?"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fedbridge.jax_core._errors import ArgumentError
from fedbridge.jax_core.optimizers._hparams import check_hparam


def check_schedule(schedule_fn: Callable[[Any], Any], name: str) -> None:
    """Refuses a schedule that cannot be traced, or whose first value is no learning rate.

    Args:
        schedule_fn: From the int32 number of a round or step to a rate.
        name: What the error calls it.

    Raises:
        ArgumentError: It takes decisions in Python, or its value at 0 is negative or not finite.
    """
    try:
        jax.eval_shape(schedule_fn, jax.ShapeDtypeStruct((), jnp.int32))
    except jax.errors.JAXTypeError as error:
        raise ArgumentError(
            f"{name} takes decisions in Python, or goes through NumPy, but the number of the round "
            "is only known inside the compiled program; write it with jnp.where and "
            "jnp.asarray(rates)[k], or take one of optax's schedules."
        ) from error
    check_hparam("learning_rate", schedule_fn(jnp.zeros((), jnp.int32)), f"{name}(0)")
