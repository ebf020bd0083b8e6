"""A learning rate that follows a schedule (learning/optimizers/scheduling.py)."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from fedbridge.jax_core._errors import ArgumentError
from fedbridge.jax_core._schedules import check_schedule
from fedbridge.jax_core.optimizers._hparams import Scalar, as_hparam


def schedule_learning_rate(
    optimizer: optax.GradientTransformation, schedule_fn: Callable[[Int[Array, ""]], Scalar]
) -> optax.GradientTransformation:
    """An optimizer whose step k, counted from 0, has the learning rate `schedule_fn(k)`.

    On the server k counts rounds. On a client it counts the local steps of one round, since a
    client's optimizer starts anew in each. The state is `{round_num: int32, optimizer: {...}}`, and
    there are no hyperparameters to set.

    Args:
        optimizer: One with a `learning_rate` in its state: any of this module's but Adafactor. An
            optax optimizer takes a schedule itself, `optax.sgd(schedule_fn)`.
        schedule_fn: From the int32 number of a step, traced, to a rate. Only its value at 0 is
            looked at here: a rate that later turns NaN shows in the weights.

    Raises:
        ArgumentError: The optimizer has no learning rate in its state (so also: it is scheduled
            already); the schedule cannot be traced; `schedule_fn(0)` is negative or not finite.

    Example:
        >>> from fedbridge.jax_core.optimizers import sgdm
        >>> optimizer = schedule_learning_rate(sgdm(), lambda k: 0.5 / (k + 1))
        >>> state = optimizer.init(jnp.zeros(()))
        >>> first, state = optimizer.update(jnp.ones(()), state)
        >>> second, state = optimizer.update(jnp.ones(()), state)
        >>> float(first), float(second)
        (-0.5, -0.25)
    """
    state = jax.eval_shape(optimizer.init, jax.ShapeDtypeStruct((), jnp.float32))
    if not (isinstance(state, Mapping) and "learning_rate" in state):
        names = ", ".join(state) if isinstance(state, Mapping) else type(state).__name__
        raise ArgumentError(
            f"optimizer has a state ({names}) without learning_rate; it must be one of "
            "fedbridge.optimizers (not Adafactor, and not scheduled already), or give the "
            "schedule to optax's own optimizer."
        )
    check_schedule(schedule_fn, "schedule_fn")

    def scheduled(round_num: Int[Array, ""], inner: Any) -> OrderedDict:
        rate: Float[Array, ""] = as_hparam("learning_rate", schedule_fn(round_num))
        return OrderedDict(
            round_num=round_num, optimizer=OrderedDict({**inner, "learning_rate": rate})
        )

    def init(params: PyTree) -> OrderedDict:
        return scheduled(jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, OrderedDict]:
        moves, inner = optimizer.update(updates, state["optimizer"], params)
        return moves, scheduled(state["round_num"] + 1, inner)

    return optax.GradientTransformation(init, update)
