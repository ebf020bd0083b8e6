"""Models for EMNIST's handwriting: 28x28 pixels, 62 characters or 10 digits."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fedbridge.jax_core import Model, max_pool
from fedbridge.models._from_flax import from_flax


class _Dense(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, inputs, train: bool):
        return nn.Dense(self.num_classes)(inputs.reshape(len(inputs), -1))


class _MLP(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, inputs, train: bool):
        hidden = nn.relu(nn.Dense(200)(inputs.reshape(len(inputs), -1)))
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(200)(hidden)))


class _CNN(nn.Module):
    num_classes: int
    dropout: tuple[float, float]

    @nn.compact
    def __call__(self, inputs, train: bool):
        hidden = nn.relu(nn.Conv(32, (3, 3), padding="VALID")(inputs))
        hidden = nn.relu(nn.Conv(64, (3, 3), padding="VALID")(hidden))
        hidden = max_pool(hidden, (2, 2), (2, 2), "VALID")
        hidden = nn.Dropout(self.dropout[0], deterministic=not train)(hidden)
        hidden = nn.relu(nn.Dense(128)(hidden.reshape(len(hidden), -1)))
        hidden = nn.Dropout(self.dropout[1], deterministic=not train)(hidden)
        return nn.Dense(self.num_classes)(hidden)


def softmax_regression(
    shape: tuple[int, ...] = (28, 28),
    num_classes: int = 62,
    *,
    x: str = "pixels",
    y: str = "label",
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """Softmax regression on flattened inputs; by default on EMNIST's features.

    Args:
        shape: Of one input.
        num_classes: Of the labels, counted from zero.
        x: The feature that holds the inputs.
        y: The feature that holds the labels.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.
    """
    sample = np.zeros((1, *shape), np.float32)
    module = _Dense(num_classes)
    return from_flax(module, sample, x=x, y=y, compute_dtype=compute_dtype, seed=seed)


def emnist_mlp(
    only_digits: bool = False, *, compute_dtype: Any = jnp.float32, seed: int = 0
) -> Model:
    """Two hidden layers of 200 units: 209,662 parameters, 199,210 for digits only.

    McMahan et al. (2017), section 3; the layers and the initialization's family are those of TFF's
    `2nn` (simulation/baselines/emnist/emnist_models.py), the loss is computed from logits.
    """
    return _from_pixels(_MLP(_num_classes(only_digits)), compute_dtype, seed)


def emnist_cnn(
    only_digits: bool = False,
    *,
    dropout: tuple[float, float] = (0.25, 0.5),
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """The CNN of Reddi et al. (2021): 1,206,590 parameters, 1,199,882 for digits only.

    The layers and the initialization's family are those of TFF's `cnn_dropout`
    (simulation/baselines/emnist/emnist_models.py), the loss is computed from logits.

    Args:
        only_digits: 10 classes instead of 62.
        dropout: The rates after the pooling and after the hidden dense layer; 0 for none.
        compute_dtype: As in `from_flax`.
        seed: Of the initial weights.
    """
    return _from_pixels(_CNN(_num_classes(only_digits), dropout), compute_dtype, seed)


def _num_classes(only_digits: bool) -> int:
    return 10 if only_digits else 62


def _from_pixels(module: nn.Module, compute_dtype: Any, seed: int) -> Model:
    return from_flax(
        module,
        np.zeros((1, 28, 28), np.float32),
        x="pixels",
        y="label",
        prepare=lambda pixels: pixels[..., None],
        compute_dtype=compute_dtype,
        seed=seed,
    )
