"""Keras metrics as TFF reports them: the values of their variables, and what these amount to."""

from collections.abc import Callable, Mapping
from typing import Any


def create_keras_metric_finalizer(metric: Any) -> Callable[[Any], Any]:
    """From the values of a Keras metric's variables to the metric's value.

    Args:
        metric: A Keras metric, or a class or function that makes one without arguments.
    """
    own = fresh(metric)

    def finalizer(unfinalized_metric_values: Any) -> Any:
        values = unfinalized_metric_values
        flat = list(values.values()) if isinstance(values, Mapping) else list(values)
        for variable, value in zip(own.variables, flat, strict=True):
            variable.assign(value)
        return own.result()

    return finalizer


def fresh(metric: Any) -> Any:
    """A new Keras metric like this one, or the one that the function or the class makes."""
    return type(metric).from_config(metric.get_config()) if is_made(metric) else metric()


def is_made(metric: Any) -> bool:
    """Whether this is a Keras metric, and not the class or a function that makes one."""
    return hasattr(metric, "update_state") and not isinstance(metric, type)
