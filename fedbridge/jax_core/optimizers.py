"""TFF's optimizers (learning/optimizers/) as optax transformations, with TFF's formulas and states.

The state is TFF's: an OrderedDict of the hyperparameters, float32, and of the slots. So a
hyperparameter can be read and set between rounds (`get_hparams`, `set_hparams`), and a state has
the same leaves under the same names as TFF's. Any optax optimizer may stand in their place.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from fedbridge.jax_core._trees import tree_zeros_like

_HPARAMS = ("learning_rate", "momentum", "beta_1", "beta_2", "epsilon", "decay")


def get_hparams(state: PyTree) -> OrderedDict[str, Any]:
    """The hyperparameters in an optimizer's state; empty for optimizers that keep none there."""
    if not isinstance(state, OrderedDict):
        return OrderedDict()
    return OrderedDict((name, state[name]) for name in state if name in _HPARAMS)


def set_hparams(state: PyTree, hparams: Mapping[str, Any]) -> PyTree:
    """The state with other hyperparameters."""
    return type(state)({**state, **hparams}) if hparams else state


Slots = Mapping[str, PyTree]


def with_hparams(
    hparams: Mapping[str, float],
    slots: Callable[[PyTree], Slots],
    step: Callable[[PyTree, OrderedDict], tuple[PyTree, Slots]],
) -> optax.GradientTransformation:
    """An optimizer in TFF's form: its state holds the hyperparameters, then the slots.

    Args:
        hparams: Name to value; float32 in the state.
        slots: `weights -> {name: tree}`, what it starts from.
        step: `(gradients, state) -> (what is added to the weights, the new slots)`.
    """

    def init(params: PyTree) -> OrderedDict:
        values = {name: jnp.asarray(value, jnp.float32) for name, value in hparams.items()}
        return OrderedDict({**values, **slots(params)})

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, OrderedDict]:
        moves, new_slots = step(updates, state)
        return moves, OrderedDict({**state, **new_slots})

    return optax.GradientTransformation(init, update)


def sgdm(
    learning_rate: float = 0.01, momentum: float | None = None
) -> optax.GradientTransformation:
    """`a ← m·a + g;  w ← w − lr·a` (learning/optimizers/sgdm.py); without momentum, `w ← w − lr·g`.

    Example:
        >>> optimizer = sgdm(0.5)
        >>> state = optimizer.init(jnp.zeros(()))
        >>> float(optimizer.update(jnp.ones(()), state)[0])
        -0.5
    """

    def step(gradients: PyTree, state: OrderedDict) -> tuple[PyTree, dict[str, PyTree]]:
        rate = state["learning_rate"]
        if not momentum:
            return jax.tree.map(lambda g: -(rate * g), gradients), {}
        velocity = jax.tree.map(
            lambda a, g: state["momentum"] * a + g, state["accumulator"], gradients
        )
        return jax.tree.map(lambda a: -(rate * a), velocity), {"accumulator": velocity}

    if not momentum:
        return with_hparams({"learning_rate": learning_rate}, lambda params: {}, step)
    hparams = {"learning_rate": learning_rate, "momentum": momentum}
    return with_hparams(hparams, lambda params: {"accumulator": tree_zeros_like(params)}, step)


def adagrad(
    learning_rate: float, initial_preconditioner_value: float = 0.1, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """`p ← p + g²;  w ← w − lr·g / √(p + ε)` (learning/optimizers/adagrad.py)."""

    def slots(params: PyTree) -> dict[str, PyTree]:
        fill = lambda leaf: jnp.full_like(leaf, initial_preconditioner_value)
        return {"preconditioner": jax.tree.map(fill, params)}

    def step(gradients: PyTree, state: OrderedDict) -> tuple[PyTree, dict[str, PyTree]]:
        rate, epsilon = state["learning_rate"], state["epsilon"]
        p = jax.tree.map(lambda p, g: p + jnp.square(g), state["preconditioner"], gradients)
        divide = lambda g, p: -(rate * g / jnp.sqrt(p + epsilon))
        return jax.tree.map(divide, gradients, p), {"preconditioner": p}

    return with_hparams({"learning_rate": learning_rate, "epsilon": epsilon}, slots, step)


def adam(
    learning_rate: float, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """Adam with "epsilon hat" (learning/optimizers/adam.py), which optax's own has not.

    `t ← t+1;  a ← a + (g−a)(1−β₁);  p ← p + (g²−p)(1−β₂);`
    `w ← w − lr·√(1−β₂ᵗ)/(1−β₁ᵗ) · a / (√p + ε)`

    References:
        Kingma & Ba, 2015, the remark on efficiency before section 2.1.
    """
    hparams = {
        "learning_rate": learning_rate,
        "beta_1": beta_1,
        "beta_2": beta_2,
        "epsilon": epsilon,
    }

    def slots(params: PyTree) -> dict[str, PyTree]:
        zeros = tree_zeros_like(params)
        return {"step": jnp.zeros((), jnp.int32), "accumulator": zeros, "preconditioner": zeros}

    def step(gradients: PyTree, state: OrderedDict) -> tuple[PyTree, dict[str, PyTree]]:
        b1, b2 = state["beta_1"], state["beta_2"]
        count = state["step"] + 1
        t = count.astype(jnp.float32)
        rate = state["learning_rate"] * jnp.sqrt(1 - b2**t) / (1 - b1**t)
        a = jax.tree.map(lambda a, g: a + (g - a) * (1 - b1), state["accumulator"], gradients)
        p = jax.tree.map(
            lambda p, g: p + (jnp.square(g) - p) * (1 - b2), state["preconditioner"], gradients
        )
        updates = jax.tree.map(lambda a, p: -(rate * a / (jnp.sqrt(p) + state["epsilon"])), a, p)
        return updates, {"step": count, "accumulator": a, "preconditioner": p}

    return with_hparams(hparams, slots, step)


def rmsprop(
    learning_rate: float, decay: float = 0.9, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """`p ← p + (g²−p)(1−decay);  w ← w − lr·g / (√p + ε)` (learning/optimizers/rmsprop.py)."""
    hparams = {"learning_rate": learning_rate, "decay": decay, "epsilon": epsilon}

    def step(gradients: PyTree, state: OrderedDict) -> tuple[PyTree, dict[str, PyTree]]:
        rate, epsilon = state["learning_rate"], state["epsilon"]
        p = jax.tree.map(
            lambda p, g: p + (jnp.square(g) - p) * (1 - state["decay"]),
            state["preconditioner"],
            gradients,
        )
        updates = jax.tree.map(lambda g, p: -(rate * g / (jnp.sqrt(p) + epsilon)), gradients, p)
        return updates, {"preconditioner": p}

    slots = lambda params: {"preconditioner": tree_zeros_like(params)}
    return with_hparams(hparams, slots, step)
