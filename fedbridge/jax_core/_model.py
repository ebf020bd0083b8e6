"""A model: the weights it starts from, what it computes on a batch, and what it reports.

As TFF's `FunctionalModel` (learning/models/functional.py), with what that lacks: a mask for the
padded rows of a batch, a random key, non-trainable weights that change, and a loss to report that
may differ from the objective that is differentiated.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from fedbridge.jax_core._errors import check_argument, check_function

Batch = Mapping[str, Any]
"""One batch: feature name to array, `[batch, ...]`."""


class ModelWeights(NamedTuple):
    """TFF's pair of weights (learning/models/model_weights.py).

    Attributes:
        trainable: What the optimizers change.
        non_trainable: Statistics that training may change but no optimizer does.
    """

    trainable: PyTree
    non_trainable: PyTree = ()


class Forward(NamedTuple):
    """What a model computes on one batch.

    Attributes:
        objective: The scalar that is differentiated: a mean or a sum over the real examples, plus
            regularization.
        predictions: The model's output, `[batch, ...]`.
        metric_loss: The scalar that is reported; as in TFF, without regularization.
        num_examples: The number of real examples.
        non_trainable: The non-trainable weights after the batch.
    """

    objective: Float[Array, ""]
    predictions: PyTree
    metric_loss: Float[Array, ""]
    num_examples: Int[Array, ""]
    non_trainable: PyTree = ()


class ForwardFn(Protocol):
    """Computes a model on one batch.

    Args:
        weights: The weights to compute with.
        batch: The features of the batch, `[batch, ...]` each.
        mask: Which rows are real; None where all of them are.
        key: For dropout and the like.
        training: Whether this is a training step (a Python bool, known at trace time).
    """

    def __call__(
        self,
        weights: ModelWeights,
        batch: Batch,
        mask: Bool[Array, " batch"] | None,
        key: Key[Array, ""],
        training: bool,
    ) -> Forward: ...


class Metric(NamedTuple):
    """A metric as three pure functions; its accumulator is summed over batches and clients.

    Attributes:
        zero: The accumulator before the first batch: a tree of float32 or int32 arrays.
        update: `(accumulator, batch, forward, mask) -> accumulator`.
        finalize: `accumulator -> value`, on the sum over all clients.

    Example:
        >>> num_batches = Metric(
        ...     zero=lambda: 0,
        ...     update=lambda count, batch, forward, mask: count + 1,
        ...     finalize=lambda count: count,
        ... )
    """

    zero: Callable[[], PyTree]
    update: Callable[[PyTree, Batch, Forward, Any], PyTree]
    finalize: Callable[[PyTree], PyTree]


class Model(NamedTuple):
    """A model that federated algorithms can train and evaluate.

    Attributes:
        initial_weights: The weights that training starts from.
        forward: What the model computes on a batch.
        metrics: Name to metric, in the order in which they are reported.
        masked: True where masked rows change nothing. False for opaque code that knows no mask:
            it only ever sees batches of their true size.
        check: Called with every cohort before its round; raises where the model cannot use it.
        functional: Whether it stands for a `FunctionalModel` of TFF's (`fb.as_functional` makes
            such): local training keeps no hyperparameters of the clients' optimizer for it.
    """

    initial_weights: ModelWeights
    forward: ForwardFn
    metrics: Mapping[str, Metric]
    masked: bool = True
    check: Callable[[Any], None] = lambda cohort: None
    functional: bool = False


def check_model(model: Any) -> None:
    """Refuses what is no model, e.g. a function that makes one, uncalled."""
    is_one = isinstance(model, Model)
    check_argument(is_one, "model", model, "a model: one of fb.models, called, or fb.from_keras")
    check_weights_and_forward(model, "(weights, batch, mask, key, training)")
    check_metrics(model)


def check_weights_and_forward(model: Any, takes: str) -> None:
    """Refuses a model without weights, or without a function of such arguments."""
    weights = isinstance(model.initial_weights, ModelWeights)
    allowed = "fb.ModelWeights(trainable, non_trainable)"
    check_argument(weights, "initial_weights of the model", model.initial_weights, allowed)
    check_function("forward of the model", model.forward, takes)


def check_metrics(model: Any) -> None:
    """Refuses a model whose metrics are none, e.g. a list of them."""
    metrics = model.metrics
    named = isinstance(metrics, Mapping)
    check_argument(
        named, "metrics of the model", metrics, "a mapping of names to fb.metrics, or {}"
    )
    for name, metric in metrics.items():
        shown = f"metrics[{name!r}] of the model"
        check_argument(isinstance(metric, Metric), shown, metric, "one of fb.metrics, called")
        check_function(f"zero of {shown}", metric.zero, "()")
        check_function(f"update of {shown}", metric.update, "(accumulator, batch, forward, mask)")
        check_function(f"finalize of {shown}", metric.finalize, "(accumulator)")
