"""`tff.learning.models.model_from_functional`: a functional model as one with variables."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from fedbridge import jax_core as fc
from fedbridge.tff.learning._functional_model import FunctionalModel
from fedbridge.tff.learning._keras_finalizer import create_keras_metric_finalizer
from fedbridge.tff.learning._variable_model import BatchOutput, VariableModel, x_and_y


def model_from_functional(
    functional_model: Any, metric_constructors: Sequence[Callable[[], Any]] = ()
) -> VariableModel:
    """A functional model as one with variables (learning/models/functional.py).

    Args:
        functional_model: Its own metrics are left out.
        metric_constructors: Functions that make Keras metrics, which come after the "loss".

    Raises:
        ArgumentError: Something else than a functional model.
        ModelError: Two metrics of one name.
    """
    is_one = isinstance(functional_model, FunctionalModel)
    fc.check_argument(is_one, "functional_model", functional_model, "a FunctionalModel")
    return _OfFunctional(functional_model, metric_constructors)


class _OfFunctional(VariableModel):
    def __init__(self, model: FunctionalModel, makers: Sequence[Callable[[], Any]]):
        import tensorflow as tf

        self._model, self._makers = model, list(makers)
        trainable, non_trainable = model.initial_weights
        self.trainable_variables = tuple(map(tf.Variable, trainable))
        self.non_trainable_variables = tuple(
            tf.Variable(value, trainable=False) for value in non_trainable
        )
        self.input_spec = model.input_spec
        self._num_examples = tf.Variable(tf.constant(0), trainable=False)
        self._loss_sum = tf.Variable(tf.constant(0.0), trainable=False)
        self._metrics = [make() for make in self._makers]
        names = [metric.name for metric in self._metrics]
        if len(set(names)) < len(names):
            raise fc.ModelError(f"metric_constructors make two metrics of one name: {names}.")

    @property
    def local_variables(self) -> tuple[Any, ...]:
        """Those of the loss and the metrics."""
        of_metrics = [variable for metric in self._metrics for variable in metric.variables]
        return (self._loss_sum, self._num_examples, *of_metrics)

    def predict_on_batch(self, x: Any, training: bool = True) -> Any:
        """The predictions."""
        weights = self.trainable_variables, self.non_trainable_variables
        values = tuple(tuple(variable.read_value() for variable in side) for side in weights)
        return self._model.predict_on_batch(values, x, training)

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        """The loss of a batch; the metrics are updated."""
        import tensorflow as tf

        x, y = x_and_y(batch_input)
        predictions = self.predict_on_batch(x, training)
        loss = self._model.loss(predictions, y)
        rows = tf.shape(tf.nest.flatten(predictions)[0])[0]
        self._num_examples.assign_add(rows)
        self._loss_sum.assign_add(loss * tf.cast(rows, tf.float32))
        for metric in self._metrics:
            metric.update_state(y, predictions)
        return BatchOutput(loss, predictions, rows)

    def report_local_unfinalized_metrics(self) -> OrderedDict[str, list[Any]]:
        """The values of the metrics' variables."""
        import tensorflow as tf

        loss = [self._loss_sum.read_value(), tf.cast(self._num_examples, tf.float32)]
        values = lambda metric: [tf.convert_to_tensor(variable) for variable in metric.variables]
        of_metrics = {metric.name: values(metric) for metric in self._metrics}
        return OrderedDict(loss=loss, **of_metrics)

    def metric_finalizers(self) -> OrderedDict[str, Callable[[Any], Any]]:
        """From those values to the metrics."""
        made = zip(self._metrics, self._makers, strict=True)
        of_metrics = {metric.name: create_keras_metric_finalizer(make) for metric, make in made}
        return OrderedDict(loss=lambda values: values[0] / values[1], **of_metrics)

    def reset_metrics(self) -> None:
        """The metrics start anew."""
        for variable in self.local_variables:
            variable.assign(variable * 0)
