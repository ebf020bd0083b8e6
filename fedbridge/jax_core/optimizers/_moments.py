"""Optimizers with two moments: Adam, AdamW, Yogi with a bias correction, FedAdam without one.

The first three place ε as Adam's authors do in a remark ("epsilon hat"), which optax's have not:
`lr·√(1−β₂ᵗ)/(1−β₁ᵗ) · a / (√p + ε)`. Their step counter is int32.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from fedbridge.jax_core._trees import tree_zeros_like
from fedbridge.jax_core.optimizers._hparams import (
    Scalar,
    Slots,
    as_hparam,
    check_hparam,
    required,
    with_hparams,
)


def adam(
    learning_rate: Scalar, beta_1: Scalar = 0.9, beta_2: Scalar = 0.999, epsilon: Scalar = 1e-7
) -> optax.GradientTransformation:
    """Adam (learning/optimizers/adam.py).

    `t ← t+1;  a ← a + (g−a)(1−β₁);  p ← p + (g²−p)(1−β₂);`
    `w ← w − lr·√(1−β₂ᵗ)/(1−β₁ᵗ) · a / (√p + ε)`

    Raises:
        ArgumentError: A rate or ε below 0, a β outside [0, 1].

    Example:
        >>> optimizer = adam(0.5)
        >>> state = optimizer.init(jnp.zeros(()))
        >>> print(f"{float(optimizer.update(jnp.full((), 7.0), state)[0]):.4f}")
        -0.5000

    References:
        Kingma & Ba, 2015, the remark before section 2.1. https://arxiv.org/abs/1412.6980
    """

    def step(gradients: PyTree, state: OrderedDict, weights: PyTree) -> tuple[PyTree, Slots]:
        new = _next_moments(gradients, state, _mean_of_squares)
        return _corrected_moves(state, new), new

    return with_hparams(_hparams(learning_rate, beta_1, beta_2, epsilon), _zero_moments, step)


def adamw(
    learning_rate: Scalar,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.999,
    epsilon: Scalar = 1e-7,
    weight_decay: Scalar = 0.004,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay λ, of every weight (learning/optimizers/adamw.py).

    `t, a, p` as in Adam; `w ← w − lr·( √(1−β₂ᵗ)/(1−β₁ᵗ) · a / (√p + ε) + λ·w )`

    A weight that the loss does not depend on decays too: its gradient is zero here. In TFF it is
    None, and the weight stays as it is.

    Raises:
        ArgumentError: A rate, ε or λ below 0, a β outside [0, 1].

    References:
        Loshchilov & Hutter, 2019. https://arxiv.org/abs/1711.05101
    """
    check_hparam("weight_decay", weight_decay)

    def slots(weights: PyTree) -> Slots:
        # TFF keeps this one hyperparameter behind the slots.
        return {**_zero_moments(weights), "weight_decay": as_hparam("weight_decay", weight_decay)}

    def step(gradients: PyTree, state: OrderedDict, weights: PyTree) -> tuple[PyTree, Slots]:
        new = _next_moments(gradients, state, _mean_of_squares)
        root, rest = _corrections(state, new["step"])
        norm, rate, decay = root / rest, state["learning_rate"], state["weight_decay"]
        move = lambda a, p, w: -(rate * (norm * a / (jnp.sqrt(p) + state["epsilon"]) + decay * w))
        return jax.tree.map(move, *_slots_of(new), required(weights)), new

    return with_hparams(_hparams(learning_rate, beta_1, beta_2, epsilon), slots, step)


def yogi(
    learning_rate: Scalar,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.999,
    epsilon: Scalar = 1e-3,
    initial_preconditioner_value: Scalar = 1e-6,
) -> optax.GradientTransformation:
    """Yogi (learning/optimizers/yogi.py): Adam with an additive second moment.

    `t, a` as in Adam;  `p ← p + (1−β₂)·sign(g²−p)·g²`, starting from
    `initial_preconditioner_value`;  `w ← w − lr·√(1−β₂ᵗ)/(1−β₁ᵗ) · a / (√p + ε)`

    Raises:
        ArgumentError: A rate, ε or initial value below 0, a β outside [0, 1].

    References:
        Zaheer et al., 2018, Algorithm 2.
    """
    check_hparam("initial_preconditioner_value", initial_preconditioner_value)

    def slots(weights: PyTree) -> Slots:
        fill = lambda w: jnp.full_like(w, initial_preconditioner_value)
        return {**_zero_moments(weights), "preconditioner": jax.tree.map(fill, weights)}

    def step(gradients: PyTree, state: OrderedDict, weights: PyTree) -> tuple[PyTree, Slots]:
        new = _next_moments(gradients, state, _signed_squares)
        return _corrected_moves(state, new), new

    return with_hparams(_hparams(learning_rate, beta_1, beta_2, epsilon), slots, step)


def fed_adam(
    learning_rate: Scalar, beta_1: Scalar = 0.9, beta_2: Scalar = 0.99, epsilon: Scalar = 1e-3
) -> optax.GradientTransformation:
    """The server's step of FedAdam, as its paper has it: Adam without a bias correction.

    `a ← a + (g−a)(1−β₁);  p ← p + (g²−p)(1−β₂), starting from ε²;  w ← w − lr · a / (√p + ε)`

    TFF's `build_adam` (here `adam`), Keras' and optax' correct the bias. The paper asks for a p of
    at least ε² to start from; the least is taken here.

    Args:
        learning_rate: lr, the paper's η.
        beta_1: β₁.
        beta_2: β₂.
        epsilon: ε, the paper's τ: the degree of adaptivity.

    Raises:
        ArgumentError: A rate or ε below 0, a β outside [0, 1].

    Example:
        >>> optimizer = fed_adam(0.5, epsilon=1.0)
        >>> state = optimizer.init(jnp.zeros(()))
        >>> print(f"{float(optimizer.update(jnp.full((), 7.0), state)[0]):.4f}")
        -0.1579

    References:
        Reddi et al., 2021, Algorithm 2. https://arxiv.org/abs/2003.00295
    """

    def slots(weights: PyTree) -> Slots:
        fill = lambda w: jnp.full_like(w, epsilon) ** 2
        return {
            "accumulator": tree_zeros_like(weights),
            "preconditioner": jax.tree.map(fill, weights),
        }

    def step(gradients: PyTree, state: OrderedDict, weights: PyTree) -> tuple[PyTree, Slots]:
        new = _moved_moments(gradients, state, _mean_of_squares)
        rate, epsilon = state["learning_rate"], state["epsilon"]
        return jax.tree.map(
            lambda a, p: -(rate * a / (jnp.sqrt(p) + epsilon)), *_slots_of(new)
        ), new

    return with_hparams(_hparams(learning_rate, beta_1, beta_2, epsilon), slots, step)


def _hparams(rate: Scalar, beta_1: Scalar, beta_2: Scalar, epsilon: Scalar) -> dict[str, Scalar]:
    return {"learning_rate": rate, "beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}


def _zero_moments(weights: PyTree) -> Slots:
    zeros = tree_zeros_like(weights)
    return {"step": jnp.zeros((), jnp.int32), "accumulator": zeros, "preconditioner": zeros}


_SecondMoment = Callable[[Any, Any, Scalar], Array]  # (p, g, β₂) -> the next p


def _mean_of_squares(p: Any, g: Any, beta_2: Scalar) -> Array:
    return p + (jnp.square(g) - p) * (1 - beta_2)


def _signed_squares(p: Any, g: Any, beta_2: Scalar) -> Array:
    square = jnp.square(g)
    return p + (1 - beta_2) * jnp.sign(square - p) * square


def _next_moments(gradients: PyTree, state: OrderedDict, second: _SecondMoment) -> Slots:
    return {"step": state["step"] + 1, **_moved_moments(gradients, state, second)}


def _moved_moments(gradients: PyTree, state: OrderedDict, second: _SecondMoment) -> Slots:
    b1, b2 = state["beta_1"], state["beta_2"]
    a = jax.tree.map(lambda a, g: a + (g - a) * (1 - b1), state["accumulator"], gradients)
    p = jax.tree.map(lambda p, g: second(p, g, b2), state["preconditioner"], gradients)
    return {"accumulator": a, "preconditioner": p}


def _corrections(state: OrderedDict, step: Int[Array, ""]) -> tuple[Array, Array]:
    """`√(1−β₂ᵗ)` and `1−β₁ᵗ`."""
    t = step.astype(jnp.float32)
    return jnp.sqrt(1 - state["beta_2"] ** t), 1 - state["beta_1"] ** t


def _corrected_moves(state: OrderedDict, new: Slots) -> PyTree:
    root, rest = _corrections(state, new["step"])
    rate = state["learning_rate"] * root / rest
    return jax.tree.map(
        lambda a, p: -(rate * a / (jnp.sqrt(p) + state["epsilon"])), *_slots_of(new)
    )


def _slots_of(new: Slots) -> tuple[PyTree, PyTree]:
    return new["accumulator"], new["preconditioner"]
