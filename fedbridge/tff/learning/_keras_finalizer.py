"""Keras metrics as TFF reports them: the values of their variables, and what these amount to."""

from collections.abc import Callable, Mapping
from typing import Any


def create_keras_metric_finalizer(metric: Any) -> Callable[[Any], Any]:
    """From the values of a Keras metric's variables to the metric's value.

    Args:
        metric: A Keras metric, or a function without arguments that makes one.
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
    """A new Keras metric like this one, or the one that the function or class makes."""
    if isinstance(metric, type) or not hasattr(metric, "update_state"):
        return metric()
    return type(metric).from_config(metric.get_config())
