"""Adafactor as TFF has it (learning/optimizers/adafactor.py), which is not optax's.

Every tensor of rank 2 and more is factored, whatever its size; the relative step multiplies the
given rate's minimum by the size of the weights. TFF cannot run its own in a process: on a client
its `set_hparams` loses the state, on the server its step counter turns from int32 to float32.
Here both hold: the counter is float32 from the start.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from fedbridge.jax_core.optimizers._hparams import Scalar, as_hparam, check_hparam, required


class Moment(NamedTuple):
    """The second moment of one tensor; `r` and `c` are empty where its rank is below 2.

    Attributes:
        r: Its mean over the last axis.
        c: Its mean over the last axis but one.
        v: The whole of it: kept where the rank is below 2, else what `r` and `c` say.
    """

    r: Float[Array, "..."]
    c: Float[Array, "..."]
    v: Float[Array, "..."]


def adafactor(
    learning_rate: Scalar,
    *,
    beta_2_decay: Scalar = -0.8,
    epsilon_1: Scalar = 1e-30,
    epsilon_2: Scalar = 1e-3,
    clip_threshold: Scalar = 1.0,
    relative_step: Scalar = True,
) -> optax.GradientTransformation:
    """Adafactor, with TFF's state `{steps, moments, hparams}`.

        t ← t+1;  β ← 1 − t^beta_2_decay;  q ← g² + ε₁
        v ← β·v + (1−β)·q, or for rank ≥ 2, of the means r and c of q over the last two axes,
            r ← β·r + (1−β)·mean(q, -1);  c ← β·c + (1−β)·mean(q, -2);  v ← r·cᵀ / mean(r)
        u ← g / √v;  û ← u / max(1, rms(u) / clip_threshold)
        lr ← min(lr, 1/√t) if relative_step;  w ← w − max(ε₂, rms(w)) · min(lr, √t) · û

    Args:
        learning_rate: lr; with `relative_step` its upper bound.
        beta_2_decay: How fast β goes to 1.
        epsilon_1: ε₁, under the root.
        epsilon_2: ε₂, the least size that weights are taken to have.
        clip_threshold: The largest rms of a step, in units of the rate.
        relative_step: Whether the rate falls as 1/√t.

    Raises:
        ArgumentError: A rate or ε below 0, a decay above 0, a threshold of 0 or less.

    References:
        Shazeer & Stern, 2018, Algorithms 4 and 5. https://arxiv.org/abs/1804.04235
    """
    hparams = {
        "learning_rate": learning_rate,
        "beta_2_decay": beta_2_decay,
        "epsilon_1": epsilon_1,
        "epsilon_2": epsilon_2,
        "clip_threshold": clip_threshold,
        "relative_step": relative_step,
    }
    for name, value in hparams.items():
        check_hparam(name, value)

    def init(params: PyTree) -> OrderedDict:
        return OrderedDict(
            steps=jnp.zeros((), jnp.float32),
            moments=tuple(_zero_moment(jnp.asarray(w)) for w in jax.tree.leaves(params)),
            hparams=OrderedDict((name, as_hparam(name, v)) for name, v in hparams.items()),
        )

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, OrderedDict]:
        gradients, structure = jax.tree.flatten(updates)
        weights = jax.tree.leaves(required(params))
        h, t = state["hparams"], (state["steps"] + 1).astype(jnp.float32)
        beta = 1 - t ** h["beta_2_decay"]
        relative = jnp.minimum(h["learning_rate"], jax.lax.rsqrt(t))
        rate = jnp.where(h["relative_step"], relative, h["learning_rate"])
        rate = jnp.minimum(rate, 1 / jax.lax.rsqrt(t))
        moments = tuple(
            _next_moment(moment, jnp.square(g) + h["epsilon_1"], beta)
            for moment, g in zip(state["moments"], gradients, strict=True)
        )
        moves = [
            -(jnp.maximum(h["epsilon_2"], _rms(w)) * rate * _clipped(g, m, h["clip_threshold"]))
            for w, g, m in zip(weights, gradients, moments, strict=True)
        ]
        new = OrderedDict(steps=t, moments=moments, hparams=h)
        return jax.tree.unflatten(structure, moves), new

    return optax.GradientTransformation(init, update)


def _zero_moment(w: Array) -> Moment:
    r, c = (w.shape[:-1], w.shape[:-2] + w.shape[-1:]) if w.ndim >= 2 else ((0,), (0,))
    return Moment(jnp.zeros(r, w.dtype), jnp.zeros(c, w.dtype), jnp.zeros_like(w))


def _next_moment(moment: Moment, q: Array, beta: Array) -> Moment:
    if q.ndim < 2:
        return moment._replace(v=beta * moment.v + (1 - beta) * q)
    r = beta * moment.r + (1 - beta) * q.mean(-1)
    c = beta * moment.c + (1 - beta) * q.mean(-2)
    v = (r / r.mean(-1, keepdims=True))[..., None] * c[..., None, :]
    return Moment(r, c, v)


def _clipped(g: Any, moment: Moment, threshold: Array) -> Array:
    u = g * jax.lax.rsqrt(moment.v)
    return u / jnp.maximum(1, _rms(u) / threshold)


def _rms(x: Any) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(x)))
