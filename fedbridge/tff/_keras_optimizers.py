"""Keras optimizers as the core's: in JAX where TFF has the formula, else in TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from fedbridge.bridge import keras_optimizers, parts
from fedbridge.jax_core import ScriptError
from fedbridge.jax_core.aggregators._dp_queries import clip_by_global_norm
from fedbridge.tff._errors import note
from fedbridge.tff._schedules import scheduled
from fedbridge.tff_io import from_tensorflow_optimizer


def from_keras(optimizer: Any) -> optax.GradientTransformation:
    """The optimizer of the core that steps as one of Keras does.

    TFF gives every client, in every round, an optimizer that starts anew; the server's goes on.

    Raises:
        ScriptError: One of Keras 3 whose formula TFF does not have.
    """
    try:
        name, arguments = keras_optimizers.step_formula(optimizer)
    except ScriptError:
        # Keras 3; and averages that start from weights which are not there yet.
        if hasattr(optimizer, "stateless_apply") or getattr(optimizer, "use_ema", False):
            raise
        note(f"{keras_optimizers.described(optimizer)} steps in TensorFlow, called from JAX")
        return from_tensorflow_optimizer(lambda: _AsTFF(optimizer))
    made = parts.optimizer({"name": name, "arguments": arguments})
    rate = keras_optimizers.schedule(optimizer)
    made = made if rate is None else scheduled(made, rate)
    for option, limit in reversed(keras_optimizers.clips(optimizer)):
        made = _clipped(_CLIPS[option], limit, made)
    return made


def _clipped(
    clip: Callable[[PyTree, float], PyTree], limit: float, inner: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Clips the gradients before a step; the state is that of the step."""

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        return inner.update(clip(updates, limit), state, params)

    return optax.GradientTransformation(inner.init, update)


def _by_norm(gradients: PyTree, limit: float) -> PyTree:
    """`tf.clip_by_norm` of each: `g · c / max(‖g‖, c)`."""

    def clip(gradient: Array) -> Array:
        norm = jnp.sqrt(jnp.sum(jnp.square(gradient)))
        return gradient * limit / jnp.maximum(norm, limit)

    return jax.tree.map(clip, gradients)


def _by_global_norm(gradients: PyTree, limit: float) -> PyTree:
    return clip_by_global_norm(gradients, jnp.float32(limit))[0]


def _by_value(gradients: PyTree, limit: float) -> PyTree:
    return jax.tree.map(lambda gradient: jnp.clip(gradient, -limit, limit), gradients)


_CLIPS: dict[str, Callable[[PyTree, float], PyTree]] = {
    "clipnorm": _by_norm,
    "global_clipnorm": _by_global_norm,
    "clipvalue": _by_value,
}


class _AsTFF:
    """A Keras optimizer in the form of TFF's (learning/optimizers/keras_optimizer.py)."""

    def __init__(self, optimizer: Any):
        self._optimizer = optimizer

    def initialize(self, specs: Sequence[Any]) -> list[Any]:
        import tensorflow as tf

        self._slots, self._weights = [], [tf.Variable(tf.zeros(s.shape, s.dtype)) for s in specs]

        def kept(create: Callable[..., Any], **given: Any) -> Any:
            self._slots.append(create(**given))
            return self._slots[-1]

        # One of its own for these weights: a Keras optimizer belongs to the first that it sees.
        with tf.variable_creator_scope(kept):
            own = type(self._optimizer).from_config(self._optimizer.get_config())
            make = own._create_all_weights if hasattr(own, "_create_all_weights") else own.build
            make(self._weights)
        self._own = own
        return [variable.read_value() for variable in self._slots]

    def next(
        self, state: Sequence[Any], weights: Sequence[Any], gradients: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        for variable, value in zip([*self._slots, *self._weights], [*state, *weights], strict=True):
            variable.assign(value)
        self._own.apply_gradients(list(zip(gradients, self._weights, strict=True)))
        read = lambda variables: [variable.read_value() for variable in variables]
        return read(self._slots), read(self._weights)
