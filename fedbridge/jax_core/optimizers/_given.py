"""Which optimizers an algorithm takes: those that step on gradients, state and weights alone."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from fedbridge.jax_core._errors import ArgumentError, check_argument


def check_optimizer(optimizer: Any, name: str) -> None:
    """Refuses what is no optimizer, e.g. a learning rate, and what steps on more than gradients.

    Args:
        optimizer: What was given as one.
        name: What the error calls it.

    Raises:
        ArgumentError: It is none, its update needs e.g. the loss, as `optax.lbfgs` does, or its
            first step is not finite.
    """
    is_one = isinstance(optimizer, optax.GradientTransformation)
    allowed = "an optimizer: one of fedbridge.optimizers or optax's"
    if isinstance(optimizer, optax.MultiSteps):
        allowed = "a GradientTransformation: give its .gradient_transformation()"
    check_argument(is_one, name, optimizer, allowed)
    needed = _needed_besides_gradients(optimizer)
    if needed:
        raise ArgumentError(
            f"{name}: its update needs the argument {needed!r}, and a step has the gradients, the "
            "state and the weights only; take an optimizer that needs no more (not "
            "optax.lbfgs, optax.polyak_sgd or another that looks at losses)."
        )
    if not _steps_at_all(optimizer):
        raise ArgumentError(
            f"{name}: its first step, with gradients of 1, is not finite; its learning rate, or "
            "what its schedule gives at 0, must be a finite number."
        )


def _steps_at_all(optimizer: Any) -> bool:
    """Whether the first step of one of optax's own is finite; fedbridge's look at their numbers."""
    if not isinstance(optimizer, optax.GradientTransformationExtraArgs):
        return True
    try:
        moves = jax.jit(lambda ones: optimizer.update(ones, optimizer.init(ones), ones)[0])(
            jnp.ones((2, 2), jnp.float32)
        )
    except Exception:  # noqa: BLE001 -- of another reason, it may still fit a model
        return True
    return isinstance(moves, Tracer) or bool(np.isfinite(moves).all())


def _needed_besides_gradients(optimizer: Any) -> str | None:
    """The first argument that an update does not go without, also within a chain."""
    if not isinstance(optimizer, optax.GradientTransformationExtraArgs):
        return None
    step = lambda weights: optimizer.update(weights, optimizer.init(weights), weights)
    try:
        jax.eval_shape(step, jax.ShapeDtypeStruct((2, 2), jnp.float32))
    except Exception as error:  # noqa: BLE001 -- of another reason, it may still fit a model
        missing = re.search(
            r"missing .*required keyword-only argument.*?'(\w+)'|(\w+) must be provided", str(error)
        )
        return missing and (missing[1] or missing[2])
    return None
