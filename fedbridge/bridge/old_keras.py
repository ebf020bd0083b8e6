"""Keras models as scripts of 2019 to 2023 gave them to TFF, in terms of today's call."""

from collections.abc import Callable, Mapping
from typing import Any

from fedbridge.jax_core import ScriptError


def from_keras_model(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`from_keras_model` in both its old call forms.

    (keras_model, loss, input_spec, loss_weights, metrics), and before that
    (keras_model, dummy_batch, loss, loss_weights, metrics, optimizer).

    Args:
        make: Today's `from_keras_model`.
        args: As in the script.
        kwargs: As in the script.
    """
    import tensorflow as tf

    names = ["keras_model", "loss", "input_spec", "loss_weights", "metrics"]
    if "dummy_batch" in kwargs or (
        len(args) > 1 and isinstance(args[1], tuple | list | Mapping)
        and not all(isinstance(part, tf.keras.losses.Loss) for part in args[1])
    ):  # fmt: skip
        names = ["keras_model", "dummy_batch", "loss", "loss_weights", "metrics", "optimizer"]
    given = dict(zip(names, args, strict=False)) | kwargs
    if "dummy_batch" in given:
        given["input_spec"] = _spec(given.pop("dummy_batch"))
    if given.pop("optimizer", None) is not None:
        raise ScriptError(
            "from_keras_model(optimizer=...) trains on single machines only; give the optimizer "
            "to build_federated_averaging_process."
        )
    given["loss"] = _loss(given["loss"])
    return make(**given)


def from_compiled_keras_model(make: Callable[..., Any], keras_model: Any, dummy_batch: Any) -> Any:
    """A model with the loss and the metrics that it was compiled with; `make` as above."""
    loss = _loss(keras_model.loss)
    # Inside TFF's graph Keras makes a model of its first generation, which keeps them elsewhere.
    compiled = keras_model.compiled_metrics
    given = compiled._user_metrics if compiled is not None else keras_model._compile_metrics
    metrics = [_metric(metric, loss) for metric in _flat(given)]
    keras_model._is_compiled = False  # 0.87.0 refuses compiled models, for being compiled only
    return make(keras_model, loss=loss, input_spec=_spec(dummy_batch), metrics=metrics)


def _spec(batch: Any) -> Any:
    """The spec of a dummy batch: any number of rows like its rows."""
    import tensorflow as tf

    def one(array: Any) -> Any:
        tensor = tf.convert_to_tensor(array)
        return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)

    return tf.nest.map_structure(one, batch)


def _loss(loss: Any) -> Any:
    """A Keras loss object, from one, from its name, or from the function of that name."""
    import tensorflow as tf

    if isinstance(loss, tf.keras.losses.Loss | list):
        return loss
    if isinstance(loss, type):
        return loss()
    found = tf.keras.losses.get(loss)
    cls = getattr(tf.keras.losses, _camel(getattr(found, "__name__", "")), None)
    if cls is not None and getattr(found, "__module__", "").startswith("keras."):
        return cls()

    class ScriptLoss(tf.keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return found(y_true, y_pred)

    return ScriptLoss()


def _metric(metric: Any, loss: Any) -> Any:
    """A Keras metric object; "accuracy" is the one that goes with the loss, as in Keras."""
    import tensorflow as tf

    if isinstance(metric, tf.keras.metrics.Metric):
        return metric
    if metric in ("accuracy", "acc"):
        kind = type(loss).__name__
        cls = {
            "SparseCategoricalCrossentropy": tf.keras.metrics.SparseCategoricalAccuracy,
            "CategoricalCrossentropy": tf.keras.metrics.CategoricalAccuracy,
            "BinaryCrossentropy": tf.keras.metrics.BinaryAccuracy,
        }.get(kind)
        if cls is None:
            raise ScriptError(
                f"metrics=['accuracy'] with {kind} depends on the labels; name the metric's class."
            )
        return cls(name=metric)
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", str(metric))
    cls = getattr(tf.keras.metrics, _camel(name), None)
    if cls is None:
        raise ScriptError(f"the metric {name!r} is not one of Keras' classes; name the class.")
    return cls(name=name)


def _camel(name: str) -> str:
    """sparse_categorical_crossentropy -> SparseCategoricalCrossentropy."""
    return "".join(part.capitalize() for part in name.split("_"))


def _flat(nested: Any) -> list[Any]:
    if nested is None:
        return []
    if isinstance(nested, Mapping):
        nested = list(nested.values())
    if isinstance(nested, list | tuple):
        return [leaf for part in nested for leaf in _flat(part)]
    return [nested]
