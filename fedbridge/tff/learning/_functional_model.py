"""`tff.learning.models.FunctionalModel`: a model as functions of its weights."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedbridge import jax_core as fc
from fedbridge.tff._errors import note, note_constraint
from fedbridge.tff.learning._keras_finalizer import fresh
from fedbridge.tff.learning._variable_model import BatchOutput, x_and_y
from fedbridge.tff_io import Body, Computed, as_functional, from_keras, from_tensorflow

MetricsFns = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]

NO_METRICS: MetricsFns = (
    OrderedDict,
    lambda state, labels, batch_output, sample_weight=None: OrderedDict(),
    lambda state: OrderedDict(),
)


class FunctionalModel:
    """TFF's model without variables (learning/models/functional.py).

    Args:
        initial_weights: `(trainable, non_trainable)`, NumPy arrays.
        predict_on_batch_fn: A `tf.function` of the weights, "x", and whether it trains.
        loss_fn: Of predictions, "y" and, optionally, weights of the examples.
        metrics_fns: Make a state, update it with "y" and a `BatchOutput`, make metrics of it.
        input_spec: Of a batch.
    """

    def __init__(
        self,
        *,
        initial_weights: tuple[Any, Any],
        predict_on_batch_fn: Callable[..., Any],
        loss_fn: Callable[..., Any],
        metrics_fns: MetricsFns = NO_METRICS,
        input_spec: Any,
    ):
        self.initial_weights, self.input_spec = initial_weights, input_spec
        self.predict_on_batch, self._loss_fn = predict_on_batch_fn, loss_fn
        self.initialize_metrics_state, self._update, self.finalize_metrics = metrics_fns

    def loss(self, output: Any, label: Any, sample_weight: Any = None) -> Any:
        """The loss of predictions."""
        return self._loss_fn(output, label, sample_weight)

    def update_metrics_state(
        self, state: Any, labels: Any, batch_output: BatchOutput, sample_weight: Any = None
    ) -> Any:
        """The state of the metrics after a batch."""
        return self._update(state, labels, batch_output, sample_weight)

    def core_model(self) -> fc.Model:
        """The model as the builders of this namespace take it.

        Raises:
            ModelError: See `fedbridge.tff_io.from_tensorflow`.
        """
        model = from_tensorflow(self._body(), note)
        return as_functional(model, list(model.metrics))

    def _body(self) -> Body:
        import tensorflow as tf

        trainable, non_trainable = jax.tree.map(np.asarray, tuple(self.initial_weights))
        start = self.initialize_metrics_state()
        names = list(_mapping(self.finalize_metrics(start)))
        by_name = isinstance(start, Mapping) and list(start) == names

        def finalizer(name: str) -> Callable[[Any], Any]:
            # The state may not be one of metrics, one by one: then each has all of it.
            whole = lambda part: OrderedDict(start, **{name: part}) if by_name else part
            return lambda part: self.finalize_metrics(whole(part))[name]

        def compute(
            weights: Sequence[Any], fixed: Sequence[Any], batches: Sequence[Any], training: bool
        ) -> Computed:
            packed = (
                jax.tree.unflatten(jax.tree.structure(trainable), list(weights)),
                jax.tree.unflatten(jax.tree.structure(non_trainable), list(fixed)),
            )
            state, loss, rows = self.initialize_metrics_state(), None, 0
            for batch in batches:
                x, y = x_and_y(batch)
                predictions = self.predict_on_batch(packed, x, training)
                loss = self.loss(predictions, y)
                rows = tf.shape(tf.nest.flatten(predictions)[0])[0]
                output = BatchOutput(loss, predictions, rows)
                state = self.update_metrics_state(state, y, output)
            report = state if by_name else dict.fromkeys(names, state)
            return Computed(loss, rows, report, fixed, weights)

        finalizers = {name: finalizer(name) for name in names}
        weights = fc.ModelWeights(trainable, non_trainable)
        return Body("the functional model", weights, self.input_spec, compute, finalizers)


class _OfKeras(FunctionalModel):
    """What `functional_model_from_keras` makes."""

    def __init__(self, keras_model: Any, loss: Any, input_spec: Any, metrics: Mapping[str, Any]):
        arrays = lambda weights: tuple(np.asarray(one) for one in weights)
        super().__init__(
            initial_weights=(
                arrays(keras_model.trainable_weights),
                arrays(keras_model.non_trainable_weights),
            ),
            predict_on_batch_fn=self._predict,
            loss_fn=lambda output, label, sample_weight=None: loss(label, output),
            input_spec=input_spec,
        )
        self._keras_model, self._loss, self._metrics = keras_model, loss, metrics

    def _predict(self, model_weights: Any, x: Any, training: bool = True) -> Any:
        trainable, non_trainable = map(tuple, model_weights)
        if hasattr(self._keras_model, "stateless_call"):  # Keras 3
            call = self._keras_model.stateless_call
            return call(trainable, non_trainable, x, training=training)[0]
        return self._in_graph(trainable, non_trainable, x, training)

    @functools.cached_property
    def _in_graph(self) -> Callable[..., Any]:
        """As in TFF: a copy of the model is made, with the weights in place of its variables."""
        import tensorflow as tf

        def call(trainable: Any, non_trainable: Any, x: Any, training: bool) -> Any:
            rest = {True: list(trainable), False: list(non_trainable)}
            take = lambda _, trainable=True, **given: rest[bool(trainable)].pop(0)
            with tf.variable_creator_scope(take):
                copy = tf.keras.models.clone_model(self._keras_model)
            return copy(x, training)

        return tf.function(call)

    def core_model(self) -> fc.Model:
        """By the converter of Keras models.

        Raises:
            ModelError: For a layer, loss or metric that fedbridge does not compute.
        """
        model = from_keras(
            self._keras_model,
            self._loss,
            list(self._metrics.values()),
            constraints=note_constraint,
        )
        return as_functional(model, list(self._metrics))


def functional_model_from_keras(
    keras_model: Any, loss_fn: Any, input_spec: Any, metrics_constructor: Any = None
) -> FunctionalModel:
    """A functional model of a Keras model; its layers' regularization is left out, as in TFF.

    Args:
        keras_model: A Keras model, or a function that makes one.
        loss_fn: A Keras loss.
        input_spec: Of a batch.
        metrics_constructor: Names to functions that make Keras metrics, or a function that makes
            such a mapping of metrics.

    Raises:
        ModelError: The metrics have no names.
    """
    made = keras_model if hasattr(keras_model, "to_json") else keras_model()
    metrics = metrics_constructor or {}
    if not isinstance(metrics, Mapping):
        metrics = metrics()
    return _OfKeras(
        made,
        loss_fn,
        input_spec,
        {name: fresh(metric) for name, metric in _mapping(metrics).items()},
    )


def create_functional_metric_fns(metrics_constructor: Any) -> MetricsFns:
    """The three functions of Keras metrics, for `FunctionalModel(metrics_fns=...)`.

    Args:
        metrics_constructor: As in `functional_model_from_keras`.

    Raises:
        ModelError: The metrics have no names.
    """
    import tensorflow as tf

    made = metrics_constructor
    if not isinstance(made, Mapping):
        made = made()
    metrics = OrderedDict((name, fresh(metric)) for name, metric in _mapping(made).items())

    def read() -> OrderedDict[str, list[Any]]:
        return OrderedDict(
            (name, [tf.convert_to_tensor(variable) for variable in metric.variables])
            for name, metric in metrics.items()
        )

    def write(state: Mapping[str, Any]) -> None:
        for name, metric in metrics.items():
            for variable, value in zip(metric.variables, state[name], strict=True):
                variable.assign(value)

    def initialize() -> OrderedDict[str, list[Any]]:
        return OrderedDict(
            (name, [tf.zeros(variable.shape, variable.dtype) for variable in metric.variables])
            for name, metric in metrics.items()
        )

    def update(state: Any, labels: Any, batch_output: Any, sample_weight: Any = None) -> Any:
        write(state)
        for metric in metrics.values():
            metric.update_state(labels, batch_output.predictions)
        return read()

    def finalize(state: Any) -> OrderedDict[str, Any]:
        write(state)
        return OrderedDict((name, metric.result()) for name, metric in metrics.items())

    return initialize, update, finalize


def _mapping(metrics: Any) -> Mapping[str, Any]:
    if not isinstance(metrics, Mapping):
        raise fc.ModelError(
            "the metrics of the functional model have no names: give a dictionary of metrics."
        )
    return metrics
