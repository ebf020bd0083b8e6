"""Keras models with global and local variables as `ReconstructionModel`s.

What TFF's `ReconstructionModel.from_keras_model_and_layers` and `..._and_variables` compute
(learning/models/reconstruction_model.py). The objective is the loss alone: TFF adds no layer's
regularization here, unlike in `from_keras_model`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fedbridge.jax_core import (
    Batch,
    Forward,
    ModelError,
    ModelWeights,
    ReconstructionModel,
    metrics as fb_metrics,
)
from fedbridge.tff_io._keras_losses import Mask
from fedbridge.tff_io._keras_model import from_keras_config, read_keras
from fedbridge.tff_io._keras_objects import Spec


class Partition(NamedTuple):
    """Which variables of a Keras model are whose: their numbers in Keras' two lists of variables.

    Attributes:
        global_trainable: Of `keras_model.trainable_variables`.
        global_non_trainable: Of `keras_model.non_trainable_variables`.
        local_trainable: Of `keras_model.trainable_variables`.
        local_non_trainable: Of `keras_model.non_trainable_variables`.
    """

    global_trainable: Sequence[int]
    global_non_trainable: Sequence[int]
    local_trainable: Sequence[int]
    local_non_trainable: Sequence[int]


def from_keras_reconstruction(
    keras_model: Any,
    global_layers: Iterable[Any],
    local_layers: Iterable[Any],
    loss: Any,
    metrics: Sequence[Any] = (),
) -> ReconstructionModel:
    """Makes a `ReconstructionModel` of a Keras model, as TFF's `from_keras_model_and_layers`.

    Args:
        keras_model: As in `from_keras`.
        global_layers: The layers whose weights the server has, in the order of its weights.
        local_layers: The layers whose weights each client reconstructs.
        loss: An instance of a Keras loss; TFF's `loss_fn` makes one.
        metrics: Instances of Keras metrics, or functions without arguments that make them; TFF's
            `metrics_fn` makes a list of them.

    Returns:
        A model of batches with the features "x" and "y". Global weights start from those that the
        Keras model has, and so do a client's local ones, every time: for initializers without a
        seed, which TFF draws anew on every client, replace `initial_local_weights`. Its metrics are
        those given, then `loss`: the mean over batches, each counted once.

    Raises:
        ModelError: As `from_keras`; and for a variable that belongs to both kinds of layers, or to
            none.
    """
    layers = {"global": list(global_layers), "local": list(local_layers)}
    sides = {"trainable": "trainable_weights", "non_trainable": "non_trainable_weights"}
    groups = {
        f"{whose}_{side}": [weight for layer in layers[whose] for weight in getattr(layer, name)]
        for whose in layers
        for side, name in sides.items()
    }
    read = read_keras(keras_model, loss, metrics)
    numbers = {
        group: _numbers(chosen, getattr(keras_model, sides[group.partition("_")[2]]))
        for group, chosen in groups.items()
    }
    partition = Partition(**numbers)
    pick = lambda side, which: [side[number] for number in which]
    trainable, non_trainable = read.weights
    return from_keras_reconstruction_config(
        read.class_name,
        read.config,
        loss=read.loss,
        metrics=read.metrics,
        partition=partition,
        global_weights=ModelWeights(
            pick(trainable, partition.global_trainable),
            pick(non_trainable, partition.global_non_trainable),
        ),
        local_weights=ModelWeights(
            pick(trainable, partition.local_trainable),
            pick(non_trainable, partition.local_non_trainable),
        ),
    )
