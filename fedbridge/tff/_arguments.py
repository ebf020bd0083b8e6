"""The arguments of TFF's builders, as the core takes them."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import optax

from fedbridge import jax_core as fc
from fedbridge.bridge import keras_optimizers, parts
from fedbridge.tff._errors import note
from fedbridge.tff._keras_optimizers import from_keras
from fedbridge.tff_io import from_tensorflow_optimizer

sgd = functools.partial(fc.optimizers.sgdm, 1.0)
"""TFF's default on the server."""
slow_sgd = functools.partial(fc.optimizers.sgdm, 0.1)
"""Its default where gradients are what is averaged, and in reconstruction."""


def model(model_fn: Any) -> fc.Model:
    """The model that `model_fn` makes.

    Raises:
        ModelError: It makes something else.
    """
    return core_model_of(made_by(model_fn))


def core_model_of(made: Any) -> fc.Model:
    """The model of the core behind what a `model_fn` made.

    Raises:
        ModelError: There is none.
    """
    if isinstance(made, fc.Model):
        return made
    if not hasattr(made, "core_model"):
        raise fc.ModelError(
            f"model_fn returned {type(made).__name__}: return one of tff.learning.models, e.g. "
            "tff.learning.models.from_keras_model(...)."
        )
    return made.core_model()


def aggregator(given: Any, default: Callable[[], fc.Aggregator]) -> Any:
    """How the clients' updates become one: as given, or the default."""
    from fedbridge.tff._aggregation import as_core  # computations, of which few scripts have any

    return default() if given is None else as_core(given)


def made_by(model_fn: Any) -> Any:
    """What `model_fn` makes, or the model that is given in its place.

    Raises:
        ModelError: It is neither a function nor a model.
    """
    made = isinstance(model_fn, fc.Model) or hasattr(model_fn, "core_model")
    if made and not isinstance(model_fn, type):  # a class makes models
        return model_fn
    if not callable(model_fn):
        raise fc.ModelError(
            f"model_fn must be a function without arguments that returns a model, not "
            f"{type(model_fn).__name__}; write `def model_fn(): return from_keras_model(...)`."
        )
    _number_names_anew()
    with _weights_as_made():
        return model_fn()


def listed(name: str, given: Any) -> list[Any]:
    """The list of what is given.

    Raises:
        ArgumentError: It is a single thing.
    """
    fc.check_argument(isinstance(given, Iterable), name, given, "a list")
    return list(given)


def optimizer(given: Any, name: str) -> optax.GradientTransformation:
    """The optimizer behind one of `tff.learning.optimizers`, a Keras one, or a function of them.

    Raises:
        ArgumentError: It is none of these.
        ScriptError: A Keras optimizer whose formula TFF does not have.
    """
    made: Any = given
    finished = isinstance(given, optax.GradientTransformation) or keras_optimizers.is_keras(given)
    if not finished and callable(given):
        made = given()
    if keras_optimizers.is_keras(made):
        return from_keras(made)
    if hasattr(made, "initialize") and hasattr(made, "next"):
        note(f"{type(made).__name__} steps in TensorFlow, called from JAX")
        return from_tensorflow_optimizer(lambda: made)
    is_one = isinstance(made, optax.GradientTransformation)
    allowed = "an optimizer: one of tff.learning.optimizers, or Keras'"
    if hasattr(made, "gradient_transformation"):  # optax.MultiSteps
        allowed = "a GradientTransformation: give its .gradient_transformation()"
    fc.check_argument(is_one, name, made, allowed)
    return made


def optimizer_or(
    given: Any, name: str, default: Callable[[], optax.GradientTransformation]
) -> optax.GradientTransformation:
    """The optimizer, or the default where none is given."""
    return default() if given is None else optimizer(given, name)


def optimizer_of_rate(given: Any, name: str) -> Callable[[Any], optax.GradientTransformation]:
    """A function from a learning rate to an optimizer, of TFF or Keras.

    Raises:
        ArgumentError: It is none.
    """
    fc.check_argument(callable(given), name, given, "a function of a learning rate")
    probe = given(0.5)
    if not keras_optimizers.is_keras(probe):
        return given
    formula, arguments = keras_optimizers.formula(probe)
    return parts.optimizer_of_rate(
        {"name": formula, "arguments": {k: v for k, v in arguments.items() if k != "learning_rate"}}
    )


def metrics_aggregator(given: Any) -> Any:
    """How the clients' metrics become a round's: as TFF takes it, or an aggregator of the core.

    TFF takes `finalize_then_sample` itself, or `functools.partial(finalize_then_sample, ...)`.
    """
    called = getattr(given, "func", given) is fc.finalize_then_sample
    return given() if called else given or fc.sum_then_finalize


def evaluation_aggregator(given: Any, model_fn: Any) -> fc.EvaluationAggregator:
    """How an evaluation adds up the clients' metrics: what one of the factories created.

    Raises:
        ArgumentError: Something else, or one whose finalizers are not the model's.
    """
    if given is None:
        return fc.sum_over_rounds
    _check_evaluation(given)
    made = made_by(model_fn)
    own = getattr(made, "metric_finalizers", lambda: getattr(made, "finalize_metrics", None))()
    fc.check_argument(
        own is not None and _shape_of(given.finalizers) == _shape_of(own),
        "metric_finalizers",
        given.finalizers,
        "the model's own, metric_finalizers() or finalize_metrics",
    )
    return given.aggregator


def reconstruction_aggregator(given: Any, metrics: Mapping[str, Any]) -> fc.EvaluationAggregator:
    """The same for the evaluation of a reconstruction, whose metrics the builder makes itself.

    Raises:
        ArgumentError: Something else, or one whose finalizers are of other metrics.
    """
    if given is None:
        return fc.sum_over_rounds
    _check_evaluation(given)
    named = isinstance(given.finalizers, Mapping) and list(given.finalizers) == list(metrics)
    names = ", ".join(map(repr, metrics))
    allowed = f"a mapping of finalizers with the names {names}, in this order"
    fc.check_argument(named, "metric_finalizers", given.finalizers, allowed)
    return given.aggregator


def _check_evaluation(given: Any) -> None:
    fits = isinstance(given, EvaluationProcess)
    allowed = "what a factory of tff.learning.metrics creates, e.g. SumThenFinalizeFactory"
    fc.check_argument(fits, "metrics_aggregation_process", given, allowed)


class EvaluationProcess(NamedTuple):
    """What a factory of metrics creates: the core's aggregator, and the script's finalizers."""

    aggregator: fc.EvaluationAggregator
    finalizers: Any


def _shape_of(finalizers: Any) -> Any:
    """The names of finalizers and the code that each runs, which two models of one kind share."""
    if isinstance(finalizers, Mapping):
        return [(name, _shape_of(one)) for name, one in finalizers.items()]
    function = getattr(finalizers, "python_function", finalizers)
    return getattr(function, "__code__", function)


def no_distributor(given: Any) -> None:
    """Takes TFF's plain broadcast and nothing else.

    Raises:
        ArgumentError: Another one.
    """
    plain = given is None or given == BROADCAST
    fc.check_argument(plain, "model_distributor", given, "left out: the model is sent as it is")


BROADCAST = "broadcast"
"""What `build_broadcast_process` gives: the model is sent as it is."""


def _number_names_anew() -> None:
    """A second `AUC()` is "auc_1" to Keras 2; TFF calls `model_fn` in a graph of its own."""
    backend = getattr(getattr(sys.modules.get("tensorflow"), "keras", None), "backend", None)
    reset = getattr(backend, "reset_uids", None)
    if reset is not None:
        reset()


@contextlib.contextmanager
def _weights_as_made() -> Iterator[None]:
    """While a `model_fn` runs, what it puts into the weights of Keras models is lost.

    TFF calls it in a graph of its own and makes every variable anew, so that only initializers
    count (seen with TFF 0.87.0).
    """
    keras = getattr(sys.modules.get("tensorflow"), "keras", None) or sys.modules.get("keras")

    def lost(*args: Any, **kwargs: Any) -> None:
        note(
            "weights set in model_fn are lost, as in TFF, which makes them anew; put them into the "
            "state with process.set_model_weights"
        )

    if keras is None:
        yield
        return
    places = [(keras.layers.Layer, "set_weights"), (keras.Model, "load_weights")]
    own = [getattr(*place) for place in places]
    for place in places:
        setattr(*place, lost)
    try:
        yield
    finally:
        for place, method in zip(places, own, strict=True):
            setattr(*place, method)
