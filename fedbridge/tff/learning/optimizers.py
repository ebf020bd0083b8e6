"""`tff.learning.optimizers`: TFF's formulas, as transformations of gradients."""

from fedbridge.jax_core.optimizers import (
    Scalar,
    adafactor as build_adafactor,
    adagrad as build_adagrad,
    adam as build_adam,
    adamw as build_adamw,
    rmsprop as build_rmsprop,
    schedule_learning_rate as schedule_learning_rate,
    sgdm,
    yogi as build_yogi,
)
from fedbridge.tff._errors import missing

LEARNING_RATE_KEY = "learning_rate"

__all__ = [
    "LEARNING_RATE_KEY",
    "build_adafactor",
    "build_adagrad",
    "build_adam",
    "build_adamw",
    "build_rmsprop",
    "build_sgdm",
    "build_yogi",
    "schedule_learning_rate",
]


def build_sgdm(  # noqa: ANN201
    learning_rate: Scalar = 0.01, momentum: Scalar | None = None
):
    """SGD, with momentum if it is given and not zero."""
    return sgdm(learning_rate, momentum)


__getattr__ = missing("tff.learning.optimizers")
