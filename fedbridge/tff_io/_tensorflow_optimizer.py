"""Optimizers in TensorFlow, as transformations of gradients: JAX's program calls them."""

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from fedbridge.jax_core import ModelError
from fedbridge.jax_core.optimizers._hparams import required
from fedbridge.tff_io._tensorflow_model import narrow, on_host_in_32_bits


@runtime_checkable
class TensorFlowOptimizer(Protocol):
    """The form of `tff.learning.optimizers.Optimizer` (learning/optimizers/optimizer.py)."""

    def initialize(self, specs: Any) -> Any:
        """The state for weights of these `tf.TensorSpec`s: a structure of tensors."""
        ...

    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
        """The state and the weights after a step."""
        ...


def from_tensorflow_optimizer(
    make: Callable[[], TensorFlowOptimizer],
) -> optax.GradientTransformation:
    """The same optimizer for the core, which waits for TensorFlow at every step.

    Weights and gradients come as flat lists of tensors, in the order of the model's; the state
    keeps its structure, in 32 bits between the steps.

    Args:
        make: Gives an optimizer of TFF's form, in TensorFlow code; called once for each list of
            shapes, so that one with variables has its own for each.

    Raises:
        ModelError: The state has other parts than tensors and numbers.
    """

    @functools.lru_cache(maxsize=16)
    def made(specs: tuple[tuple[tuple[int, ...], str], ...]) -> tuple[PyTree, Any]:
        import tensorflow as tf

        optimizer = make()
        listed = [tf.TensorSpec(shape, dtype) for shape, dtype in specs]
        with jax.ensure_compile_time_eval(), tf.init_scope():
            state = tf.nest.map_structure(np.asarray, optimizer.initialize(listed))
        if not all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(state)):
            raise ModelError(
                f"the state of {type(optimizer).__name__} is a {type(state).__name__}; it must be "
                "a structure of tensors: of dictionaries, lists and tuples."
            )
        return state, tf.function(optimizer.next)

    def of(weights: PyTree) -> tuple[PyTree, Any]:
        return made(tuple((leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(weights)))

    def init(params: PyTree) -> PyTree:
        return jax.tree.map(jnp.asarray, jax.tree.map(narrow, of(params)[0]))

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        before, step = of(required(params))
        leaves, structure = jax.tree.flatten(params)
        shapes = [np.empty(leaf.shape, leaf.dtype) for leaf in leaves]

        def call(state: PyTree, weights: list[Any], gradients: list[Any]) -> Any:
            import tensorflow as tf

            wide = jax.tree.map(lambda leaf, like: np.asarray(leaf, like.dtype), state, before)
            tensors = lambda tree: tf.nest.map_structure(tf.constant, tree)
            arrays = lambda leaves: [np.asarray(leaf) for leaf in leaves]
            new, after = step(tensors(wide), *map(tensors, map(arrays, (weights, gradients))))
            moves = [np.subtract(b, a) for a, b in zip(arrays(weights), arrays(after), strict=True)]
            return moves, tf.nest.map_structure(np.asarray, new)

        given = state, leaves, jax.tree.leaves(updates)
        moves, new = on_host_in_32_bits(call, (shapes, before), *given)
        return jax.tree.unflatten(structure, moves), new

    return optax.GradientTransformation(init, update)
