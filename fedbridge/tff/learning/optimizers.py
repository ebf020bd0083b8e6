"""`tff.learning.optimizers`: TFF's formulas, as transformations of gradients."""

import abc
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import optax

from fedbridge.jax_core import ArgumentError
from fedbridge.jax_core.optimizers import (
    Scalar,
    adafactor as build_adafactor,
    adagrad as build_adagrad,
    adam as build_adam,
    adamw as build_adamw,
    rmsprop as build_rmsprop,
    sgdm,
    yogi as build_yogi,
)
from fedbridge.tff._errors import missing
from fedbridge.tff._schedules import scheduled

LEARNING_RATE_KEY = "learning_rate"
State = TypeVar("State")
Weights = TypeVar("Weights")
Hparams = TypeVar("Hparams")

__all__ = [
    "LEARNING_RATE_KEY",
    "Optimizer",
    "build_adafactor",
    "build_adagrad",
    "build_adam",
    "build_adamw",
    "build_rmsprop",
    "build_sgdm",
    "build_yogi",
    "check_weights_gradients_match",
    "handle_indexed_slices_gradients",
    "schedule_learning_rate",
]


def build_sgdm(  # noqa: ANN201
    learning_rate: Scalar = 0.01, momentum: Scalar | None = None
):
    """SGD, with momentum if it is given and not zero."""
    return sgdm(learning_rate, momentum)


def schedule_learning_rate(
    optimizer: Any, schedule_fn: Callable[[Any], Any]
) -> optax.GradientTransformation:
    """An optimizer whose learning rate follows a function of the step's number.

    A function that JAX cannot trace, one in TensorFlow, is called outside of the program.
    """
    return scheduled(optimizer, schedule_fn)


class Optimizer(abc.ABC, Generic[State, Weights, Hparams]):
    """The base of a script's own in TensorFlow, for Federated Core (optimizers/optimizer.py).

    What the builders here make is one too; the algorithms take those, optax's and Keras'.
    """

    @abc.abstractmethod
    def initialize(self, specs: Any) -> Any:
        """The state, for weights of these specs."""

    @abc.abstractmethod
    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
        """The state and the weights after a step."""

    def get_hparams(self, state: Any) -> Any:
        """The hyperparameters in the state."""
        return OrderedDict()

    def set_hparams(self, state: Any, hparams: Any) -> Any:
        """The state with other ones."""
        return state


Optimizer.register(optax.GradientTransformation)


def check_weights_gradients_match(weights: Any, gradients: Any) -> None:
    """Checks that weights and gradients in TensorFlow match; a gradient may be None.

    Raises:
        ArgumentError: They have other structures, shapes or dtypes.
    """
    import tensorflow as tf

    def check(weight: Any, gradient: Any) -> None:
        if gradient is None:
            return
        if not weight.shape.is_compatible_with(gradient.shape) or weight.dtype != gradient.dtype:
            raise TypeError(f"{weight.dtype} {weight.shape}, and {gradient.dtype} {gradient.shape}")

    try:
        tf.nest.assert_same_structure(weights, gradients, check_types=True)
        tf.nest.map_structure(check, weights, gradients)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            "the weights and the gradients of an optimizer must have the same structure, shapes "
            f"and dtypes: {error}"
        ) from error


def handle_indexed_slices_gradients(gradients: Any) -> Any:
    """The gradients, `tf.IndexedSlices` among them as tensors."""
    import tensorflow as tf

    dense = lambda x: tf.convert_to_tensor(x) if isinstance(x, tf.IndexedSlices) else x
    return tf.nest.map_structure(dense, gradients)


__getattr__ = missing("tff.learning.optimizers")
