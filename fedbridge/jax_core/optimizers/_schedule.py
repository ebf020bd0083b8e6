"""A learning rate that follows a schedule (learning/optimizers/scheduling.py)."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from fedbridge.jax_core._errors import ArgumentError, check_argument, check_function, traced
from fedbridge.jax_core.optimizers._given import check_optimizer
from fedbridge.jax_core.optimizers._hparams import Scalar, as_hparam, check_hparam, get_hparams


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
        schedule_fn: From the int32 number of a step, traced, to a rate. Its value at 0 is looked at
            here, every later one before its round: on the server one, on the clients those of all
            local steps of the cohort.

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
    check_has_learning_rate(optimizer, "optimizer")
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


def check_has_learning_rate(optimizer: optax.GradientTransformation, name: str) -> None:
    """Refuses an optimizer whose state has no learning rate that could be set.

    Args:
        optimizer: Any optax optimizer.
        name: What the error calls it.

    Raises:
        ArgumentError: It has none: optax's own, Adafactor, one that is scheduled already.
    """
    check_optimizer(optimizer, name)
    state = jax.eval_shape(optimizer.init, jax.ShapeDtypeStruct((), jnp.float32))
    if not (isinstance(state, Mapping) and "learning_rate" in state):
        names = ", ".join(state) if isinstance(state, Mapping) else type(state).__name__
        raise ArgumentError(
            f"{name} has a state ({names}) without learning_rate; it must be one of "
            "fedbridge.optimizers (not Adafactor, and not scheduled already), or give the "
            "schedule to optax's own optimizer."
        )


def check_schedule(schedule_fn: Callable[[Int[Array, ""]], Scalar], name: str) -> None:
    """Refuses a schedule that cannot be traced, or whose first value is no learning rate.

    Args:
        schedule_fn: From the int32 number of a round or step to a rate.
        name: What the error calls it.

    Raises:
        ArgumentError: It is no function, takes decisions in Python, or its value at 0 is negative
            or not finite.
    """
    check_function(name, schedule_fn, "(the round's number)")
    cure = "write it with jnp.where and jnp.asarray(rates)[k], or take one of optax's schedules"
    try:
        with traced(name, cure):
            jax.eval_shape(schedule_fn, jax.ShapeDtypeStruct((), jnp.int32))
    except TypeError:
        value = schedule_fn(jnp.zeros((), jnp.int32))
        check_argument(False, f"{name}(0)", value, "a number of at least 0")
    with jax.ensure_compile_time_eval():  # also within the program of a schedule over rounds
        check_rate(schedule_fn, name, jnp.zeros((), jnp.int32))


def check_rate(
    schedule_fn: Callable[[Int[Array, ""]], Scalar], name: str, number: Int[Array, ""]
) -> None:
    """Refuses a schedule whose value at this number is no learning rate; outside of a program.

    Args:
        schedule_fn: From the int32 number of a round to a rate.
        name: What the error calls it.
        number: Of the round.

    Raises:
        ArgumentError: A value that is negative, not finite, or no number.
    """
    check_hparam("learning_rate", schedule_fn(number), f"{name}({int(number)})")


def check_local_steps(optimizer: optax.GradientTransformation, name: str, count: int) -> None:
    """Refuses an optimizer whose schedule gives no learning rate in one of its first steps.

    Args:
        optimizer: Of `schedule_learning_rate`.
        name: What the error calls it.
        count: How many steps are taken.

    Raises:
        ArgumentError: A rate that is negative or not finite.
    """
    for number, rate in enumerate(_rates(optimizer, 1 << max(count - 1, 0).bit_length())[:count]):
        check_hparam("learning_rate", rate, f"the learning rate of {name} in local step {number}")


@functools.lru_cache(maxsize=64)
def _rates(optimizer: optax.GradientTransformation, count: int) -> list[float]:
    """The learning rates of the first steps; for powers of two, so that few programs do."""
    zero = jnp.zeros(())

    def step(state: Any, _: None) -> tuple[Any, Float[Array, ""]]:
        return optimizer.update(zero, state, zero)[1], state["optimizer"]["learning_rate"]

    return np.asarray(jax.lax.scan(step, optimizer.init(zero), length=count)[1]).tolist()


def has_schedule(optimizer: optax.GradientTransformation, weights: PyTree) -> bool:
    """Whether this is an optimizer of `schedule_learning_rate`; others may know these weights."""
    return is_scheduled(jax.eval_shape(optimizer.init, weights))


def is_scheduled(state: PyTree) -> bool:
    """Whether this is the state of an optimizer whose learning rate follows a schedule."""
    return isinstance(state, Mapping) and isinstance(state.get("optimizer"), Mapping)


def scheduled_in(tree: PyTree) -> list[Mapping]:
    """The states of scheduled optimizers in a tree, e.g. MimeLite's base optimizer's."""
    return [node for node in jax.tree.leaves(tree, is_leaf=is_scheduled) if is_scheduled(node)]


def check_learning_rate(state: PyTree) -> None:
    """Refuses an optimizer's state whose learning rate is none; outside of a program.

    A scheduled optimizer's state holds the rate of the round to come.

    Raises:
        ArgumentError: It is negative or not finite.
    """
    scheduled = is_scheduled(state)
    number = f", round_num {int(state['round_num'])}" if scheduled else ""
    hparams = get_hparams(state["optimizer"] if scheduled else state)
    if "learning_rate" in hparams:
        rate = np.asarray(hparams["learning_rate"]).item()
        check_hparam("learning_rate", rate, f"learning_rate of the optimizer's state{number},")
