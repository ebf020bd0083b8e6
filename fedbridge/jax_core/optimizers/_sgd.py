"""Optimizers without bias correction: SGD, momentum, Adagrad, RMSprop."""

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import PyTree

from fedbridge.jax_core._errors import check_argument, check_bool
from fedbridge.jax_core._trees import tree_zeros_like
from fedbridge.jax_core.optimizers._hparams import Scalar, Slots, check_hparam, with_hparams


def sgdm(
    learning_rate: Scalar = 0.01, momentum: Scalar | None = None, nesterov: bool = False
) -> optax.GradientTransformation:
    """`a ← m·a + g;  w ← w − lr·a` (learning/optimizers/sgdm.py); without momentum, `w ← w − lr·g`.

    Args:
        learning_rate: lr.
        momentum: m; with None or 0 there is neither accumulator nor hyperparameter.
        nesterov: `w ← w − lr·(g + m·a)` instead, as in TFF's later releases; 0.87.0 lacks it.

    Raises:
        ArgumentError: A rate below 0, a momentum outside [0, 1], `nesterov` without momentum.

    Example:
        >>> optimizer = sgdm(0.5)
        >>> state = optimizer.init(jnp.zeros(()))
        >>> float(optimizer.update(jnp.ones(()), state)[0])
        -0.5
    """
    check_bool("nesterov", nesterov)
    if momentum is not None:
        check_hparam("momentum", momentum)
    plain = momentum is None or (not isinstance(momentum, Tracer) and momentum == 0)
    check_argument(
        not (plain and nesterov),
        "momentum with nesterov=True",
        momentum,
        "a number above 0 and at most 1",
    )

    def step(gradients: PyTree, state: OrderedDict, weights: PyTree) -> tuple[PyTree, Slots]:
        scale = optax.scale(-state["learning_rate"])
        descend = lambda moves: scale.update(moves, scale.init(moves))[0]
        if plain:
            return descend(gradients), {}
        trace = optax.trace(state["momentum"], nesterov)
        new: Any
        moves, new = trace.update(gradients, optax.TraceState(state["accumulator"]))
        return descend(moves), {"accumulator": new.trace}

    if plain:
        return with_hparams({"learning_rate": learning_rate}, lambda weights: {}, step)
    hparams = {"learning_rate": learning_rate, "momentum": momentum}
    return with_hparams(hparams, lambda weights: {"accumulator": tree_zeros_like(weights)}, step)


def adagrad(
    learning_rate: Scalar, initial_preconditioner_value: Scalar = 0.1, epsilon: Scalar = 1e-7
) -> optax.GradientTransformation:
    """`p ← p + g²;  w ← w − lr·g / √(p + ε)` (learning/optimizers/adagrad.py).

    Args:
        learning_rate: lr.
        initial_preconditioner_value: What p starts from.
        epsilon: ε, inside the root.

    Raises:
        ArgumentError: One of them is below 0.

    References:
        Duchi et al., 2011. https://jmlr.org/papers/v12/duchi11a.html
    """
    check_hparam("initial_preconditioner_value", initial_preconditioner_value)

    def slots(weights: PyTree) -> Slots:
        fill = lambda w: jnp.full_like(w, initial_preconditioner_value)
        return {"preconditioner": jax.tree.map(fill, weights)}

    def step(gradients: PyTree, state: OrderedDict, weights: PyTree) -> tuple[PyTree, Slots]:
        # Not optax's, which is 0 where TFF's is 0/0: without ε, and nothing in p yet.
        rate, epsilon = state["learning_rate"], state["epsilon"]
        p = jax.tree.map(lambda p, g: p + jnp.square(g), state["preconditioner"], gradients)
        moves = jax.tree.map(lambda g, p: -(rate * g / jnp.sqrt(p + epsilon)), gradients, p)
        return moves, {"preconditioner": p}

    return with_hparams({"learning_rate": learning_rate, "epsilon": epsilon}, slots, step)


def rmsprop(
    learning_rate: Scalar, decay: Scalar = 0.9, epsilon: Scalar = 1e-7
) -> optax.GradientTransformation:
    """`p ← p + (g²−p)(1−decay);  w ← w − lr·g / (√p + ε)` (learning/optimizers/rmsprop.py).

    Args:
        learning_rate: lr.
        decay: How much of p stays at each step.
        epsilon: ε, outside the root.

    Raises:
        ArgumentError: A rate or ε below 0, a decay outside [0, 1].
    """

    def step(gradients: PyTree, state: OrderedDict, weights: PyTree) -> tuple[PyTree, Slots]:
        rate, decay, epsilon = state["learning_rate"], state["decay"], state["epsilon"]
        p = jax.tree.map(
            lambda p, g: p + (jnp.square(g) - p) * (1 - decay), state["preconditioner"], gradients
        )
        moves = jax.tree.map(lambda g, p: -(rate * g / (jnp.sqrt(p) + epsilon)), gradients, p)
        return moves, {"preconditioner": p}

    hparams = {"learning_rate": learning_rate, "decay": decay, "epsilon": epsilon}
    return with_hparams(hparams, lambda weights: {"preconditioner": tree_zeros_like(weights)}, step)
