"""Keras' layers of sequences that are not recurrent: Embedding and Masking.

Keras 2.14: keras/src/layers/core/embedding.py, masking.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool

from fedbridge.jax_core import ModelError
from fedbridge.tff_io._keras_objects import Spec
from fedbridge.tff_io._keras_parts import Layer, StepMask, no_mask, regularizer


def _embedding(
    input_dim: int,
    output_dim: int,
    mask_zero: bool = False,
    sparse: bool = False,
    input_length: Any = None,
    embeddings_regularizer: Spec | None = None,
) -> Layer:
    """The rows of a table. An id outside it stops TensorFlow; here it gives NaN, as a wrong label.

    The NaN is multiplied in, so that the gradient is NaN too and the client does not count.
    """
    if sparse:
        raise ModelError("sparse=True is not supported; supported: dense embeddings")

    def apply(weights: Sequence[Array], inputs: Sequence[Array], masks: Any, _: Any) -> Array:
        ids = inputs[0].astype(jnp.int32)
        is_row = (ids >= 0) & (ids < input_dim)
        rows = jnp.take(weights[0], ids, axis=0, mode="clip")
        return rows * jnp.where(is_row, 1.0, jnp.nan)[..., None]

    def mask(inputs: Sequence[Array], masks: Any) -> StepMask:
        return inputs[0] != 0

    weights = (("embeddings", (input_dim, output_dim)),)
    penalties = (regularizer(embeddings_regularizer),)
    return Layer(apply, weights, penalties, mask=mask if mask_zero else no_mask)


def _masking(mask_value: float = 0.0) -> Layer:
    def counts(x: Array) -> Bool[Array, "..."]:
        return jnp.any(x != mask_value, axis=-1)

    def apply(weights: Any, inputs: Sequence[Array], masks: Any, _: Any) -> Array:
        x = inputs[0]
        return x * jnp.any(x != mask_value, axis=-1, keepdims=True).astype(x.dtype)

    return Layer(apply, mask=lambda inputs, masks: counts(inputs[0]))


SEQUENCE_LAYERS: dict[str, Callable[..., Layer]] = {"Embedding": _embedding, "Masking": _masking}
