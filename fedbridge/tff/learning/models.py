"""`tff.learning.models`: Keras models as models of the core."""

from collections.abc import Sequence
from typing import Any

from fedbridge import jax_core as fc
from fedbridge.tff._errors import missing
from fedbridge.tff._process import ModelWeights as ModelWeights
from fedbridge.tff.learning._signatures import (
    weights_type_from_model as weights_type_from_model,
)
from fedbridge.tff_io import from_keras


def from_keras_model(
    keras_model: Any,
    loss: Any,
    input_spec: Any = None,
    loss_weights: Sequence[float] | None = None,
    metrics: Sequence[Any] | None = None,
) -> fc.Model:
    """A Keras model as TFF trains it (learning/models/keras_utils.py).

    Args:
        keras_model: A Sequential or functional model of Keras 2 or 3, not compiled.
        loss: A Keras loss, or a list with one for each output.
        input_spec: What a batch looks like; the batches themselves say it too.
        loss_weights: For a list of losses.
        metrics: Keras metrics, or functions that make them.

    Raises:
        ModelError: For a layer, loss or metric that fedbridge does not compute.
    """
    return from_keras(keras_model, loss, metrics or (), loss_weights=loss_weights)


__getattr__ = missing("tff.learning.models")
