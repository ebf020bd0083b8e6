"""Keras' optimizers where their formula is not one of TFF 0.87.0's.

They are what a trace names when a script gave TFF a Keras optimizer: Keras 2.14's formulas
(keras/optimizers/{sgd,rmsprop}.py, keras/optimizers/legacy/adagrad.py), in TFF's form.
"""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from fedbridge.jax_core.optimizers import Scalar, Slots, check_hparam, sgdm, with_hparams


def keras_sgd_nesterov(learning_rate: Scalar, momentum: Scalar) -> optax.GradientTransformation:
    """`a ← m·a + g;  w ← w − lr·(g + m·a)`: `SGD(momentum=m, nesterov=True)`."""
    return sgdm(learning_rate, momentum, nesterov=True)


def keras_rmsprop(
    learning_rate: Scalar, decay: Scalar = 0.9, epsilon: Scalar = 1e-7
) -> optax.GradientTransformation:
    """`v ← ρ·v + (1−ρ)·g²;  w ← w − lr·g / √(v + ε)`: `RMSprop(rho=ρ)`, ε inside the root."""

    def step(gradients: PyTree, state: OrderedDict, weights: PyTree) -> tuple[PyTree, Slots]:
        rate, decay, epsilon = (state[k] for k in ("learning_rate", "decay", "epsilon"))
        v = jax.tree.map(
            lambda v, g: decay * v + (1 - decay) * jnp.square(g), state["preconditioner"], gradients
        )
        # 1/√ as one rounded operation and then a product, as Keras has it.
        updates = jax.tree.map(lambda v, g: -(rate * g * jax.lax.rsqrt(v + epsilon)), v, gradients)
        return updates, {"preconditioner": v}

    hparams = {"learning_rate": learning_rate, "decay": decay, "epsilon": epsilon}
    return with_hparams(hparams, _filled("preconditioner", 0.0), step)


def keras_legacy_adagrad(
    learning_rate: Scalar, initial_preconditioner_value: Scalar = 0.1, epsilon: Scalar = 1e-7
) -> optax.GradientTransformation:
    """`p ← p + g²;  w ← w − lr·g / (√p + ε)`: `legacy.Adagrad`, ε outside the root."""
    check_hparam("initial_preconditioner_value", initial_preconditioner_value)

    def step(gradients: PyTree, state: OrderedDict, weights: PyTree) -> tuple[PyTree, Slots]:
        rate, epsilon = state["learning_rate"], state["epsilon"]
        p = jax.tree.map(lambda p, g: p + jnp.square(g), state["preconditioner"], gradients)
        updates = jax.tree.map(lambda p, g: -(rate * g / (jnp.sqrt(p) + epsilon)), p, gradients)
        return updates, {"preconditioner": p}

    hparams = {"learning_rate": learning_rate, "epsilon": epsilon}
    return with_hparams(hparams, _filled("preconditioner", initial_preconditioner_value), step)


def _filled(name: str, value: float):
    return lambda weights: {name: jax.tree.map(lambda w: jnp.full_like(w, value), weights)}
