"""Reconstruction models as the builders of the core take them.

Those of Keras models go through the converter; where that does not know a part, and where a model
is written by hand, it is TensorFlow code.
"""

from collections.abc import Callable, Sequence
from typing import Any

from fedbridge import jax_core as fc
from fedbridge.tff import _arguments as arguments
from fedbridge.tff._errors import note, note_constraint
from fedbridge.tff.learning._keras_finalizer import is_made
from fedbridge.tff.learning._keras_metrics import mean_of_batches
from fedbridge.tff.learning._reconstruction import KerasReconstructionModel, ReconstructionModel
from fedbridge.tff.learning._variable_model import (
    BatchOutput,
    MeasuredModel,
    body_of,
    converted_or_code,
)
from fedbridge.tff_io import (
    Partition,
    check_names,
    from_keras_reconstruction_variables,
    from_tensorflow,
    partition_of,
    partly_local,
)


def core_model(model_fn: Any, loss_fn: Any, metrics_fn: Any) -> fc.ReconstructionModel:
    """The model that the builders of the core take.

    Args:
        model_fn: A function that makes a `ReconstructionModel`.
        loss_fn: A function that makes a Keras loss.
        metrics_fn: A function that makes a list of Keras metrics, or None.

    Raises:
        ModelError: It makes something else, or what neither the converter nor TensorFlow computes.
    """
    made = arguments.made_by(model_fn)
    if not isinstance(made, ReconstructionModel):
        raise fc.ModelError(
            f"model_fn returned {type(made).__name__}: Federated Reconstruction takes models with "
            "local variables; return "
            "tff.learning.models.ReconstructionModel.from_keras_model_and_layers(...)."
        )
    loss: Any = loss_fn() if callable(loss_fn) and not hasattr(loss_fn, "reduction") else loss_fn
    makers = list(metrics_fn() or ()) if metrics_fn else []
    metrics = [one if is_made(one) else one() for one in makers]
    check_names([metric.name for metric in metrics])
    if not isinstance(made, KerasReconstructionModel):
        return _by_hand(made, loss, metrics)
    keras_model, groups = made.keras_model, made.groups
    partition = partition_of(keras_model, groups)
    sides = list(keras_model.trainable_weights), list(keras_model.non_trainable_weights)
    return converted_or_code(
        keras_model,
        metrics,
        made.input_spec,
        lambda: from_keras_reconstruction_variables(
            keras_model, groups, loss, metrics, constraints=note_constraint
        ),
        lambda: _as_code(_InTensorFlow(made, sides, loss, metrics), partition),
    )


def _by_hand(made: Any, loss: Any, metrics: Sequence[Any]) -> fc.ReconstructionModel:
    """Of a script's own subclass, whose global variables come before the local ones."""
    groups = [list(getattr(made, f"{group}_variables")) for group in Partition._fields]
    trainable, non_trainable, *local = groups
    firsts = 0, 0, len(trainable), len(non_trainable)
    numbers = [range(n, n + len(group)) for n, group in zip(firsts, groups, strict=True)]
    sides = [*trainable, *local[0]], [*non_trainable, *local[1]]
    return _as_code(_InTensorFlow(made, sides, loss, metrics), Partition(*numbers))


def _as_code(model: "_InTensorFlow", partition: Partition) -> fc.ReconstructionModel:
    report = lambda tensors: model.report_local_unfinalized_metrics()
    body, _ = body_of(model, report, model.metric_finalizers())
    core = from_tensorflow(body._replace(name=model.name), note)
    return partly_local(core, partition, core.metrics)


class _InTensorFlow(MeasuredModel):
    """A reconstruction model with its loss and its metrics, and no difference among variables."""

    def __init__(
        self,
        model: ReconstructionModel,
        sides: tuple[list[Any], list[Any]],
        loss: Callable[..., Any],
        metrics: Sequence[Any],
    ):
        import tensorflow as tf

        self.trainable_variables, self.non_trainable_variables = sides
        self.name, self.input_spec = type(model).__name__, model.input_spec
        self._model, self._loss = model, loss
        self._metrics = [*metrics, mean_of_batches(loss)]
        self.makers = [*metrics, lambda: mean_of_batches(loss)]
        self._forward = tf.function(self._forward_pass)

    def get_metrics(self) -> list[Any]:
        """The metrics given, then the loss."""
        return self._metrics

    def forward_pass(self, batch_input: Any, training: bool = True) -> BatchOutput:
        """The loss alone, of several values their sum, as TFF differentiates it."""
        return self._forward(batch_input, training)

    def _forward_pass(self, batch_input: Any, training: bool) -> BatchOutput:
        import tensorflow as tf

        output = self._model.forward_pass(batch_input, training=training)
        compared = dict(y_true=output.labels, y_pred=output.predictions)
        for metric in self._metrics:
            metric.update_state(**compared)
        loss = tf.reduce_sum(self._loss(**compared))
        return BatchOutput(loss, output.predictions, output.num_examples)
