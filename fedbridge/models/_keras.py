"""Flax layers that start as Keras' do, and weights in the order of Keras' models.

Keras 2.14: keras/src/initializers/initializers.py; biases start from zeros in both.
"""

import functools
from typing import Any

from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from fedbridge.jax_core import Batch, Forward, Model, ModelWeights

Dense = functools.partial(nn.Dense, kernel_init=nn.initializers.glorot_uniform())
Conv = functools.partial(nn.Conv, kernel_init=nn.initializers.glorot_uniform())


def in_keras_order(model: Model) -> Model:
    """The model of a flax module, its weights a list in the order in which the module makes them.

    Of a module that calls its layers in the order in which Keras lists them, that is the order of
    `keras_model.trainable_variables`; within a layer both have a kernel before its bias.
    """
    flat = flatten_dict(model.initial_weights.trainable)

    def forward(
        weights: ModelWeights, batch: Batch, mask: Any, key: Any, training: bool
    ) -> Forward:
        params = unflatten_dict(dict(zip(flat, weights.trainable, strict=True)))
        return model.forward(weights._replace(trainable=params), batch, mask, key, training)

    return model._replace(initial_weights=ModelWeights([*flat.values()], []), forward=forward)
