"""`tff.learning.models.VariableModel`: a model as an object with variables.

Builders take one as what it is underneath, a model of the core (`core_model`). Its methods run in
TensorFlow, for scripts that call them: strategies of personalization, Federated Core.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from fedbridge import jax_core as fc
from fedbridge.tff._errors import note, note_constraint
from fedbridge.tff.learning._keras_finalizer import create_keras_metric_finalizer, is_made
from fedbridge.tff.learning._keras_metrics import counters, mean_loss
from fedbridge.tff_io import Body, Computed, from_keras, from_tensorflow

_Core = TypeVar("_Core")


class BatchOutput(NamedTuple):
    """What a forward pass computes: a mean loss, predictions `[batch, ...]`, how many examples."""

    loss: Any = None
    predictions: Any = None
    num_examples: Any = None


class VariableModel:
    """A model of a script's own: TensorFlow variables, and functions of batches.

    A subclass gives `trainable_variables`, `non_trainable_variables`, `local_variables` (those of
    its metrics), `input_spec`, `forward_pass(batch_input, training) -> BatchOutput`,
    `report_local_unfinalized_metrics()` and `metric_finalizers()`.
    """

    def core_model(self) -> fc.Model:
        """The model as the builders of this namespace take it.

        Raises:
            ModelError: See `fedbridge.tff_io.from_tensorflow`; and for a model of TFF before 0.20,
                whose metrics only builders of that time make (`_reported_model`).
        """
        if not hasattr(self, "metric_finalizers"):
            raise fc.ModelError(
                f"{type(self).__name__} has no metric_finalizers: models report metrics by "
                "report_local_unfinalized_metrics() and metric_finalizers(), since TFF 0.20; write "
                "these in place of report_local_outputs and federated_output_computation, or use "
                "build_federated_averaging_process, of their time."
            )
        model: Any = self  # its subclass has the rest
        report = lambda tensors: model.report_local_unfinalized_metrics()
        return from_tensorflow(body_of(model, report, model.metric_finalizers())[0], note)


def body_of(
    model: Any, report: Callable[[list[Any]], Mapping[str, Any]], finalizers: Mapping[str, Any]
) -> tuple[Body, list[Any]]:
    """The model as a function of weights and batches, which sets its variables before.

    Args:
        model: Of a script.
        report: Makes its unfinalized metrics of its `local_variables`.
        finalizers: Of the same names.

    Returns:
        The body, and those variables.
    """
    import tensorflow as tf

    def variables(name: str) -> list[Any]:
        found = tf.nest.flatten(getattr(model, name))
        # Keras 3 has its own around TensorFlow's.
        return [one if isinstance(one, tf.Variable) else one.value for one in found]

    trainable, non_trainable = (
        variables("trainable_variables"),
        variables("non_trainable_variables"),
    )
    local = [(variable, variable.numpy()) for variable in variables("local_variables")]

    def compute(
        weights: Sequence[Any], fixed: Sequence[Any], batches: Sequence[Any], training: bool
    ) -> Computed:
        pairs = zip([*trainable, *non_trainable], [*weights, *fixed], strict=True)
        for variable, value in [*pairs, *local]:
            variable.assign(value)
        output = BatchOutput(num_examples=0)
        for batch in batches:
            output = model.forward_pass(batch, training=training)
        rows = output.num_examples
        if rows is None:
            rows = tf.shape(tf.nest.flatten(output.predictions)[0])[0]
        after = [tf.convert_to_tensor(variable) for variable in non_trainable]
        reported = report([tf.convert_to_tensor(variable) for variable, _ in local])
        return Computed(output.loss, rows, reported, after, trainable)

    initial = fc.ModelWeights([v.numpy() for v in trainable], [v.numpy() for v in non_trainable])
    body = Body(type(model).__name__, initial, model.input_spec, compute, finalizers)
    return body, [variable for variable, _ in local]


class MeasuredModel(VariableModel):
    """A model with Keras metrics: a subclass gives `get_metrics`.

    Attributes:
        makers: Functions that make the first of the metrics, or these metrics themselves.
    """

    makers: Sequence[Any] = ()
    _finalizers: OrderedDict[str, Callable[[Any], Any]] | None = None

    def get_metrics(self) -> list[Any]:
        """All metrics."""
        raise NotImplementedError

    @property
    def local_variables(self) -> list[Any]:
        """Those of the metrics."""
        return [variable for metric in self.get_metrics() for variable in metric.variables]

    def report_local_unfinalized_metrics(self) -> OrderedDict[str, list[Any]]:
        """The values of the metrics' variables."""
        import tensorflow as tf

        return OrderedDict(
            (metric.name, [tf.convert_to_tensor(variable) for variable in metric.variables])
            for metric in self.get_metrics()
        )

    def metric_finalizers(self) -> OrderedDict[str, Callable[[Any], Any]]:
        """From those values to the metrics."""
        if self._finalizers is None:
            metrics = self.get_metrics()
            makers = [*self.makers, *metrics[len(self.makers) :]]
            self._finalizers = OrderedDict(
                (metric.name, create_keras_metric_finalizer(make))
                for metric, make in zip(metrics, makers, strict=True)
            )
        return self._finalizers

    def reset_metrics(self) -> None:
        """The metrics start anew."""
        for variable in self.local_variables:
            variable.assign(variable * 0)


class KerasModel(MeasuredModel):
    """What `from_keras_model` makes."""

    def __init__(
        self,
        keras_model: Any,
        loss: Any,
        input_spec: Any,
        loss_weights: Any,
        metrics: Sequence[Any],
    ):
        _check_built(keras_model)
        self._keras_model, self._loss, self._loss_weights = keras_model, loss, loss_weights
        self.input_spec = input_spec
        # As in TFF, functions make their metrics now.
        self._given = [m if is_made(m) else m() for m in metrics]
        self.makers = list(metrics)
        self._metrics: list[Any] | None = None
        self._forward: Callable[..., BatchOutput] | None = None
        self._core: fc.Model | None = None

    def core_model(self) -> fc.Model:
        """By the converter of Keras models; where that does not know a part, as TensorFlow code.

        Raises:
            ModelError: For a layer, loss or metric that neither computes.
        """
        if self._core is None:
            self._core = converted_or_code(
                self._keras_model,
                self._given,
                self.input_spec,
                lambda: from_keras(
                    self._keras_model,
                    self._loss,
                    self._given,
                    loss_weights=self._loss_weights,
                    constraints=note_constraint,
                ),
                super().core_model,
            )
        return self._core

    @property
    def trainable_variables(self) -> list[Any]:
        """Keras' own."""
        return list(self._keras_model.trainable_weights)

    @property
    def non_trainable_variables(self) -> list[Any]:
        """Keras' own."""
        return list(self._keras_model.non_trainable_weights)

    def get_metrics(self) -> list[Any]:
        """The metrics given, then TFF's: the loss, and the counters that are not among them."""
        if self._metrics is None:
            names = [metric.name for metric in self._given]
            added = [mean_loss(self._loss_of), *(make() for make in counters().values())]
            self._metrics = [*self._given, *(m for m in added if m.name not in names)]
        return self._metrics

    def predict_on_batch(self, x: Any, training: bool = True) -> Any:
        """Keras' predictions."""
        return self._keras_model(x, training=training)

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        """The loss with the layers' regularization; the metrics are updated."""
        import tensorflow as tf

        forward = self._forward = self._forward or tf.function(self._forward_pass)
        return forward(batch_input, training)

    def _forward_pass(self, batch_input: Any, training: bool) -> BatchOutput:
        import tensorflow as tf

        x, y = x_and_y(batch_input)
        predictions = self.predict_on_batch(x, training)
        for metric in self.get_metrics():
            metric.update_state(y, predictions)
        loss = self._loss_of(y, predictions)
        if loss.shape.rank and not self._keras_model.losses and hasattr(self._loss, "reduction"):
            loss = tf.reduce_sum(loss)  # what a tape differentiates
        elif loss.shape.rank:
            raise fc.ModelError(
                f"the loss gives {loss.shape} values where TFF takes one; give a loss object of "
                "Keras, e.g. tf.keras.losses.MeanSquaredError(), or a function that takes the mean"
            )
        loss = tf.add_n([loss, *self._keras_model.losses])
        return BatchOutput(loss, predictions, tf.shape(tf.nest.flatten(x)[0])[0])

    def _loss_of(self, y: Any, predictions: Any) -> Any:
        given = self._loss
        if not isinstance(given, list | tuple):
            return given(y, predictions)
        weights = self._loss_weights or [1.0] * len(given)
        each = zip(weights, given, y, predictions, strict=True)
        return sum(weight * loss(one, prediction) for weight, loss, one, prediction in each)


def converted_or_code(
    keras_model: Any,
    metrics: Sequence[Any],
    input_spec: Any,
    convert: Callable[[], _Core],
    take: Callable[[], _Core],
) -> _Core:
    """What `convert` makes; where that does not know a part, what `take` makes, with a note.

    Args:
        keras_model: The model.
        metrics: Made ones.
        input_spec: What a batch looks like; None: nobody says.
        convert: By the converter of Keras models.
        take: Of the same model as TensorFlow code.

    Raises:
        ModelError: By the converter, where there is no TensorFlow, two metrics share a name, which
            is wrong in TensorFlow too, or a layer is recurrent: those are the converter's alone.
    """
    try:
        return convert()
    except fc.ModelError as unknown:
        names = [metric.name for metric in metrics]
        there = "tensorflow" in sys.modules and input_spec is not None
        recurrent = _is_recurrent(keras_model)
        if there and len(set(names)) == len(names) and not recurrent:
            reason = str(unknown).partition(";")[0]
        elif recurrent:
            raise fc.ModelError(
                f"{unknown} (a model with recurrent layers is not run as TensorFlow "
                "code, where there is more)"
            ) from unknown
        else:
            raise
    note(f"the Keras model is taken as TensorFlow code: {reason}")
    return take()


def _check_built(keras_model: Any) -> None:
    """Looks whether a model has its weights; of a Sequential one Keras 2 tells itself.

    Raises:
        ModelError: It has none, in Keras 3, which makes them later, where TFF would not see them.
    """
    if list(keras_model.weights) or not getattr(keras_model, "layers", ()):
        return
    modules = [base.__module__ for base in type(keras_model).__mro__]
    if "keras.src.ops.operation" in modules:
        raise fc.ModelError(
            f"the model {keras_model.name!r} has no weights yet; give it an input shape, e.g. "
            "keras.Input as its first layer, or use Keras 2: install tf-keras"
        )
    note("the model has no weights yet, so that nothing is trained, as in TFF")


def _is_recurrent(layer: Any) -> bool:
    inner = [*getattr(layer, "layers", ()), *filter(None, [getattr(layer, "layer", None)])]
    return hasattr(layer, "cell") or any(map(_is_recurrent, inner))


def x_and_y(batch: Any) -> tuple[Any, Any]:
    """What a batch gives to the model, and what it compares predictions with."""
    if hasattr(batch, "_asdict"):
        batch = batch._asdict()
    if isinstance(batch, Mapping):
        return batch["x"], batch["y"]
    x, y = batch
    return x, y
