"""Models for EMNIST's handwriting: 28x28 pixels, 62 characters or 10 digits.

The layers, their initializers and the order of the weights are those of TFF's
simulation/baselines/emnist/emnist_models.py. Where TFF's models end in a softmax, the predictions
here are the logits before it.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fedbridge.jax_core import (
    Model,
    check_argument,
    check_bool,
    check_shape,
    check_whole,
    is_real,
    max_pool,
)
from fedbridge.models._from_flax import from_flax
from fedbridge.models._keras import Conv, Dense, in_keras_order
from fedbridge.models._losses import PerExample, absolute_error, cross_entropy, squared_error

Pixels = Callable[[Any], Any]
"""What is done to pixels, `[batch, 28, 28]` or `[batch, 28, 28, 1]`, before the first layer."""


class _Dense(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, inputs, train: bool):
        return Dense(self.num_classes)(inputs.reshape(len(inputs), -1))


class _TwoHiddenLayers(nn.Module):
    num_classes: int
    hidden_units: int

    @nn.compact
    def __call__(self, inputs, train: bool):
        hidden = nn.relu(Dense(self.hidden_units)(inputs.reshape(len(inputs), -1)))
        return Dense(self.num_classes)(nn.relu(Dense(self.hidden_units)(hidden)))


class _CNN(nn.Module):
    num_classes: int
    dropout: tuple[float, float]

    @nn.compact
    def __call__(self, inputs, train: bool):
        hidden = nn.relu(Conv(32, (3, 3), padding="VALID")(inputs))
        hidden = nn.relu(Conv(64, (3, 3), padding="VALID")(hidden))
        hidden = max_pool(hidden, (2, 2), (2, 2), "VALID")
        hidden = nn.Dropout(self.dropout[0], deterministic=not train)(hidden)
        hidden = nn.relu(Dense(128)(hidden.reshape(len(hidden), -1)))
        hidden = nn.Dropout(self.dropout[1], deterministic=not train)(hidden)
        return Dense(self.num_classes)(hidden)


class _OriginalFedAvgCNN(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, inputs, train: bool):
        hidden = max_pool(nn.relu(Conv(32, (5, 5))(inputs)), (2, 2), (2, 2), "SAME")
        hidden = max_pool(nn.relu(Conv(64, (5, 5))(hidden)), (2, 2), (2, 2), "SAME")
        hidden = nn.relu(Dense(512)(hidden.reshape(len(hidden), -1)))
        return Dense(self.num_classes)(hidden)


class _Autoencoder(nn.Module):
    @nn.compact
    def __call__(self, inputs, train: bool):
        hidden = inputs
        for units in (1000, 500, 250):
            hidden = nn.sigmoid(Dense(units)(hidden))
        hidden = Dense(30)(hidden)
        for units in (250, 500, 1000, 784):
            hidden = nn.sigmoid(Dense(units)(hidden))
        return hidden


def softmax_regression(
    shape: tuple[int, ...] = (28, 28),
    num_classes: int = 62,
    *,
    x: str = "pixels",
    y: str = "label",
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """Softmax regression on flattened inputs; by default on EMNIST's features, as in FedJAX.

    Args:
        shape: Of one input.
        num_classes: Of the labels, counted from zero.
        x: The feature that holds the inputs.
        y: The feature that holds the labels.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.
    """
    check_shape("shape", shape)
    check_whole("num_classes", num_classes)
    sample = np.zeros((1, *shape), np.float32)
    module = _Dense(num_classes)
    model = from_flax(module, sample, x=x, y=y, compute_dtype=compute_dtype, seed=seed)
    return in_keras_order(model)


def emnist_2nn(
    only_digits: bool = False,
    hidden_units: int = 200,
    *,
    x: str = "pixels",
    y: str = "label",
    loss: PerExample = cross_entropy,
    prepare: Pixels = lambda pixels: pixels,
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """Two hidden layers of 200 units: 209,662 parameters, 199,210 for digits only.

    McMahan et al. (2017), section 3; TFF's `create_two_hidden_layer_model`, `2nn` in its task.

    Args:
        only_digits: 10 classes instead of 62.
        hidden_units: Of each hidden layer.
        x: As in `emnist_cnn`, and so are the others.
        y: The feature that holds the labels.
        loss: Of labels and logits.
        prepare: What is done to the pixels first.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.
    """
    check_whole("hidden_units", hidden_units)
    module = _TwoHiddenLayers(_num_classes(only_digits), hidden_units)
    return _from_pixels(module, x, y, loss, prepare, compute_dtype, seed)


def emnist_cnn(
    only_digits: bool = False,
    *,
    dropout: tuple[float, float] = (0.25, 0.5),
    x: str = "pixels",
    y: str = "label",
    loss: PerExample = cross_entropy,
    prepare: Pixels = lambda pixels: pixels,
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """The CNN of Reddi et al. (2021): 1,206,590 parameters, 1,199,882 for digits only.

    TFF's `create_conv_dropout_model`, `cnn_dropout` in its task; FedJAX's `create_conv_model`.

    Args:
        only_digits: 10 classes instead of 62.
        dropout: The rates after the pooling and after the hidden dense layer; 0 for none.
        x: The feature that holds the pixels, `[batch, 28, 28]` or `[batch, 28, 28, 1]`.
        y: The feature that holds the labels.
        loss: Of labels and logits. By default and in FedJAX their cross-entropy; TFF's is
            `fb.models.clipped_cross_entropy`.
        prepare: What is done to the pixels first, of which 1.0 is paper; FedJAX turns them into
            ink: `prepare=lambda pixels: 1 - pixels`.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.

    Example:
        >>> import fedbridge as fb
        >>> model = fb.models.emnist_cnn(loss=fb.models.clipped_cross_entropy)
        >>> [weight.shape for weight in model.initial_weights.trainable][:3]
        [(3, 3, 1, 32), (32,), (3, 3, 32, 64)]
    """
    pair = isinstance(dropout, tuple) and len(dropout) == 2 and all(map(is_real, dropout))
    rates = pair and all(0 <= rate < 1 for rate in dropout)
    check_argument(rates, "dropout", dropout, "two rates of at least 0 and below 1")
    module = _CNN(_num_classes(only_digits), dropout)
    return _from_pixels(module, x, y, loss, prepare, compute_dtype, seed)


def emnist_original_fedavg_cnn(
    only_digits: bool = False,
    *,
    x: str = "pixels",
    y: str = "label",
    loss: PerExample = cross_entropy,
    prepare: Pixels = lambda pixels: pixels,
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """The CNN of McMahan et al. (2017): 1,690,046 parameters, 1,663,370 for digits only.

    TFF's `create_original_fedavg_cnn_model`, `cnn` in its task: two 5x5 convolutions, each with a
    max-pooling, and a hidden layer of 512 units. Arguments as in `emnist_cnn`.
    """
    module = _OriginalFedAvgCNN(_num_classes(only_digits))
    return _from_pixels(module, x, y, loss, prepare, compute_dtype, seed)


def emnist_autoencoder(
    *, x: str = "x", y: str = "y", compute_dtype: Any = jnp.float32, seed: int = 0
) -> Model:
    """The bottleneck of 30 units of Hinton and Salakhutdinov (2006): 2,837,314 parameters.

    TFF's `create_autoencoder_model`. The loss is the mean squared error.

    Args:
        x: The feature that holds the images, `[batch, 784]`, as `fb.preprocessing`'s
            `emnist_autoencoder` makes them: 1.0 is ink.
        y: The feature that holds the same images, to be predicted.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.
    """
    model = from_flax(
        _Autoencoder(),
        np.zeros((1, 784), np.float32),
        squared_error,
        x=x,
        y=y,
        metrics={"mean_squared_error": squared_error, "mean_absolute_error": absolute_error},
        compute_dtype=compute_dtype,
        seed=seed,
    )
    return in_keras_order(model)


def _num_classes(only_digits: bool) -> int:
    check_bool("only_digits", only_digits)
    return 10 if only_digits else 62


def _from_pixels(
    module: nn.Module,
    x: str,
    y: str,
    loss: PerExample,
    prepare: Pixels,
    compute_dtype: Any,
    seed: int,
) -> Model:
    def with_channel(pixels: Any) -> Any:
        pixels = prepare(pixels)
        return pixels[..., None] if pixels.ndim == 3 else pixels

    model = from_flax(
        module,
        np.zeros((1, 28, 28), np.float32),
        loss,
        x=x,
        y=y,
        prepare=with_channel,
        compute_dtype=compute_dtype,
        seed=seed,
    )
    return in_keras_order(model)
