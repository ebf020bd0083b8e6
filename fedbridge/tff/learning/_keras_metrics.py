"""TFF's own Keras metrics: counters of examples and batches, and the mean loss.

Keras' classes are known only where Keras is imported, so these are made on first use.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any


@functools.cache
def counters() -> dict[str, type]:
    """`NumExamplesCounter` and `NumBatchesCounter` (learning/metrics/counters.py)."""
    keras = _keras()

    class NumExamplesCounter(keras.metrics.Sum):
        def __init__(self, name: str = "num_examples", dtype: Any = "int64"):
            super().__init__(name=name, dtype=dtype)

        def update_state(self, y_true: Any, y_pred: Any = None, sample_weight: Any = None) -> Any:
            first = y_true
            while isinstance(first, dict | list | tuple):
                first = next(iter(first.values())) if isinstance(first, dict) else first[0]
            return super().update_state(_rows(first))

    class NumBatchesCounter(keras.metrics.Sum):
        def __init__(self, name: str = "num_batches", dtype: Any = "int64"):
            super().__init__(name=name, dtype=dtype)

        def update_state(self, y_true: Any, y_pred: Any = None, sample_weight: Any = None) -> Any:
            return super().update_state(1)

    made = NumExamplesCounter, NumBatchesCounter
    for one in made:
        one.__qualname__, one.__module__ = one.__name__, "tensorflow_federated.learning.metrics"
    return {one.__name__: one for one in made}


def mean_loss(loss: Callable[[Any, Any], Any]) -> Any:
    """The metric "loss": the loss of batches, weighted by their rows, without regularization."""
    keras = _keras()

    class Loss(keras.metrics.Mean):
        def __init__(self, name: str = "loss", dtype: Any = "float32"):
            super().__init__(name=name, dtype=dtype)

        def update_state(self, y_true: Any, y_pred: Any = None, sample_weight: Any = None) -> Any:
            first = y_pred[0] if isinstance(y_pred, list | tuple) else y_pred
            return super().update_state(loss(y_true, y_pred), _rows(first))

    return Loss()


def mean_of_batches(loss: Callable[..., Any]) -> Any:
    """The metric "loss" of a reconstruction: the loss of batches, each counted once."""
    return _keras().metrics.MeanMetricWrapper(loss, name="loss")


def _keras() -> Any:
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        return tensorflow.keras
    import keras

    return keras


def _rows(values: Any) -> Any:
    """How many there are; in a graph only TensorFlow knows."""
    rows = values.shape[0]
    if rows is not None:
        return rows
    import tensorflow as tf

    return tf.shape(values)[0]
