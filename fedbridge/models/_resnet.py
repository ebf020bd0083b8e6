"""ResNets for small images, with group normalization before activations and convolutions.

The layers, their initializers and the order of the weights are those of TFF's
simulation/models/resnet_models.py, which baselines/cifar100 uses: after the first convolution and
pooling, which divide height and width by four, no layer has a stride.

References:
    He et al., 2016. https://arxiv.org/abs/1603.05027
    Hsieh et al., 2020: group normalization. https://arxiv.org/abs/1910.00189
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fedbridge.jax_core import (
    Batch,
    Forward,
    Model,
    ModelWeights,
    check_shape,
    check_whole,
    max_pool,
)
from fedbridge.models._from_flax import from_flax
from fedbridge.models._keras import in_keras_order
from fedbridge.models._losses import PerExample, cross_entropy

_Conv = functools.partial(nn.Conv, use_bias=False, kernel_init=nn.initializers.he_normal())
# Keras' groups and epsilon; flax's faster variance, E[x²] - E[x]², would lose digits.
_Norm = functools.partial(nn.GroupNorm, 32, epsilon=1e-3, use_fast_variance=False)

Convolutions = tuple[tuple[int, int], ...]
"""Of a block: (window, how many times the stage's filters), one pair a convolution."""

BASIC: Convolutions = ((3, 1), (3, 1))
BOTTLENECK: Convolutions = ((1, 1), (3, 1), (1, 4))


class _Block(nn.Module):
    """Convolutions, each after a normalization and a ReLU, and what they are added to."""

    filters: int
    convolutions: Convolutions
    is_first: bool

    @nn.compact
    def __call__(self, inputs):
        hidden = inputs
        for number, (window, times) in enumerate(self.convolutions):
            if number or not self.is_first:  # the first convolution of all has done this
                hidden = nn.relu(_Norm()(hidden))
            last = number == len(self.convolutions) - 1
            filters = self.filters * times
            if last and inputs.shape[-1] != filters:  # here, where Keras lists its weights
                inputs = _Norm()(_Conv(filters, (1, 1))(inputs))
            hidden = _Conv(filters, (window, window))(hidden)
        return inputs + hidden


class _ResNet(nn.Module):
    num_classes: int
    convolutions: Convolutions
    blocks: tuple[int, ...]

    @nn.compact
    def __call__(self, images, train: bool):
        hidden = nn.relu(_Norm()(_Conv(64, (7, 7), strides=2)(images)))
        hidden = max_pool(hidden, (3, 3), (2, 2), "SAME")
        for stage, blocks in enumerate(self.blocks):
            for number in range(blocks):
                is_first = stage == number == 0
                hidden = _Block(64 * 2**stage, self.convolutions, is_first)(hidden)
        hidden = nn.relu(_Norm()(hidden)).mean((1, 2))
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01))(hidden)


def resnet18(
    input_shape: tuple[int, int, int] = (24, 24, 3),
    num_classes: int = 100,
    *,
    l2: float = 1e-4,
    loss: PerExample = cross_entropy,
    x: str = "x",
    y: str = "y",
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """TFF's `create_resnet18` with group normalization: 11,227,812 parameters for CIFAR-100.

    Args:
        input_shape: (height, width, channels) of an image.
        num_classes: Of the labels, counted from zero.
        l2: What the squares of the convolutions' and the last layer's weights count in the
            objective; as in TFF, the reported loss is without them.
        loss: Of labels and logits; TFF's is `fb.models.clipped_cross_entropy`.
        x: The feature that holds the images, `[batch, *input_shape]`.
        y: The feature that holds the labels.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.
    """
    module = _ResNet(num_classes, BASIC, (2, 2, 2, 2))
    return _resnet(module, input_shape, l2, loss, x, y, compute_dtype, seed)


def resnet34(
    input_shape: tuple[int, int, int] = (24, 24, 3),
    num_classes: int = 100,
    *,
    l2: float = 1e-4,
    loss: PerExample = cross_entropy,
    x: str = "x",
    y: str = "y",
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """TFF's `create_resnet34` with group normalization: 21,335,972 parameters for CIFAR-100.

    Args:
        input_shape: As in `resnet18`, and so are the others.
        num_classes: Of the labels.
        l2: Of the weights, in the objective.
        loss: Of labels and logits.
        x: The feature that holds the images.
        y: The feature that holds the labels.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.
    """
    module = _ResNet(num_classes, BASIC, (3, 4, 6, 3))
    return _resnet(module, input_shape, l2, loss, x, y, compute_dtype, seed)


def resnet50(
    input_shape: tuple[int, int, int] = (24, 24, 3),
    num_classes: int = 100,
    *,
    l2: float = 1e-4,
    loss: PerExample = cross_entropy,
    x: str = "x",
    y: str = "y",
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """TFF's `create_resnet50` with group normalization: 23,712,932 parameters for CIFAR-100.

    Args:
        input_shape: As in `resnet18`, and so are the others.
        num_classes: Of the labels.
        l2: Of the weights, in the objective.
        loss: Of labels and logits.
        x: The feature that holds the images.
        y: The feature that holds the labels.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.
    """
    module = _ResNet(num_classes, BOTTLENECK, (3, 4, 6, 3))
    return _resnet(module, input_shape, l2, loss, x, y, compute_dtype, seed)


def _resnet(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    l2: float,
    loss: PerExample,
    x: str,
    y: str,
    compute_dtype: Any,
    seed: int,
) -> Model:
    check_shape("input_shape", input_shape)
    check_whole("num_classes", module.num_classes)
    sample = np.zeros((1, *input_shape), np.float32)
    plain = in_keras_order(
        from_flax(module, sample, loss, x=x, y=y, compute_dtype=compute_dtype, seed=seed)
    )

    def forward(
        weights: ModelWeights, batch: Batch, mask: Any, key: Any, training: bool
    ) -> Forward:
        found = plain.forward(weights, batch, mask, key, training)
        kernels = [weight for weight in weights.trainable if weight.ndim > 1]
        squares = sum(jnp.square(weight).sum() for weight in (*kernels, weights.trainable[-1]))
        return found._replace(objective=found.objective + l2 * squares)

    return plain._replace(forward=forward)
