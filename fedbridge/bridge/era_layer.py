"""Old names before the real TFF 0.87.0, while recording.

Adds what scripts of 2019 to 2024 call to the modules that they call it on. Every function here is
its old self in terms of 0.87.0's: same arguments, same shape of result. What a script uses is noted
once, as one line of `adapted`. Names, life spans and successors are in `eras`.
"""

import asyncio
import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fedbridge.bridge import builders, eras, old_keras, old_types
from fedbridge.bridge.old_checkpoints import OldCheckpointManager
from fedbridge.bridge.old_metrics import old_evaluation_metrics, old_training_metrics
from fedbridge.jax_core import ScriptError


def install(watch: Any) -> None:
    """Adds the old names to the imported TFF. `watch.adapt` gets a line per name used."""
    import tensorflow_federated as tff

    learning, simulation = tff.learning, tff.simulation
    set_context = tff.framework.set_default_context

    def make(*args: Any, **kwargs: Any) -> Any:  # looked up when called: the recorder replaces it
        return learning.models.from_keras_model(*args, **kwargs)

    renamed: dict[str, Any] = {
        "tff.learning.from_keras_model": functools.partial(old_keras.from_keras_model, make),
        "tff.learning.from_compiled_keras_model": functools.partial(
            old_keras.from_compiled_keras_model, make
        ),
        "tff.learning.build_federated_averaging_process": functools.partial(_averaging, watch),
        "tff.learning.build_federated_sgd_process": functools.partial(_federated_sgd, watch),
        "tff.learning.build_federated_evaluation": functools.partial(_evaluation, watch),
        "tff.learning.assign_weights_to_keras_model": _assign_weights_to_keras_model,
        "tff.learning.keras_weights_from_tff_weights": lambda weights: [
            *weights.trainable,
            *weights.non_trainable,
        ],
        "tff.learning.state_with_new_model_weights": _state_with_new_model_weights,
        "tff.utils.update_state": tff.structure.update_struct,
        "tff.utils.assign": _assign,
        "tff.type_at_clients": _type_at(tff.CLIENTS),
        "tff.type_at_server": _type_at(tff.SERVER),
        "tff.types.at_clients": _type_at(tff.CLIENTS),
        "tff.types.at_server": _type_at(tff.SERVER),
        "tff.tf_computation": tff.tensorflow.computation,
        "tff.federated_apply": tff.federated_map,
    }
    for name, function in renamed.items():
        _add(name, _noting(watch, name, function))

    class FileCheckpointManager(OldCheckpointManager):
        manager = tff.program.FileProgramStateManager
        wait = staticmethod(_awaited)

    # Classes must stay classes: scripts derive from them and ask `isinstance`.
    for name, old in {
        "tff.learning.Model": learning.models.VariableModel,
        "tff.learning.BatchOutput": learning.models.BatchOutput,
        "tff.learning.ModelWeights": learning.models.ModelWeights,
        "tff.simulation.ClientData": simulation.datasets.ClientData,
        "tff.simulation.FromTensorSlicesClientData": simulation.datasets.TestClientData,
        "tff.simulation.SqlClientData": simulation.datasets.SqlClientData,
        "tff.simulation.TransformingClientData": simulation.datasets.TransformingClientData,
        "tff.simulation.FileCheckpointManager": FileCheckpointManager,
        "tff.utils.IterativeProcess": tff.templates.IterativeProcess,
        "tff.NamedTupleType": tff.StructType,
    }.items():
        _add(name, old)
    from_function = _client_data_from_function(simulation.datasets.ClientData)
    simulation.datasets.ClientData.from_clients_and_fn = staticmethod(
        _noting(watch, "tff.simulation.ClientData.from_clients_and_fn", from_function)
    )
    for entry in eras.table().values():
        if entry.status == eras.ACCEPTED and entry.name.startswith(
            ("tff.backends.", "tff.framework.")
        ):
            _add(entry.name, _accepting(watch, entry.name))
    tff.framework.set_default_context = _default_context(watch, set_context)
    state = learning.templates.LearningAlgorithmState
    state.model = property(lambda self: self.global_model_weights)
    old_types.teach(watch)
    _teach_keras_old_arguments(watch)


# ----------------------------------------------------------------------------- adding names


def _awaited(coroutine: Any) -> Any:
    """The result of a coroutine; `asyncio.run` would take the script's own event loop away."""
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        return loop.run_until_complete(coroutine)


def _add(name: str, value: Any) -> None:
    """Sets a dotted name in the imported TFF; packages that are gone are made anew."""
    import tensorflow_federated as tff

    *packages, last = name.split(".")[1:]
    module: Any = tff
    for package in packages:
        if not hasattr(module, package):
            full = f"{module.__name__}.{package}"
            setattr(module, package, types.ModuleType(full))
            sys.modules[full] = getattr(module, package)
        module = getattr(module, package)
    setattr(module, last, value)


def _noting(watch: Any, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with its first use noted as an adaptation."""
    found = eras.lookup(name)
    line = f"{name} -> {found.becomes}" if found and found.becomes else name

    # No functools.wraps: AutoGraph and inspect shall see this function, not a partial inside.
    def noting(*args: Any, **kwargs: Any) -> Any:
        watch.adapt(line)
        return function(*args, **kwargs)

    return noting


def _accepting(watch: Any, name: str) -> Callable[..., Any]:
    """A setter of execution contexts: takes anything, does nothing, and is noted."""

    def accepting(*args: Any, **kwargs: Any) -> Any:
        watch.adapt(f"{name} is taken and dropped: execution contexts do not change results")
        return accepting

    return accepting


def _default_context(watch: Any, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """As `_accepting`, but for the context that a federated program cannot do without."""
    import tensorflow_federated as tff

    accepting = _accepting(watch, "tff.framework.set_default_context")

    def set_default_context(context: Any) -> Any:
        if not isinstance(context, tff.program.FederatedContext):
            return accepting(context)
        watch.refuse("the rounds of a federated program are awaited, where they are not watched.")
        return original(context)

    return set_default_context


def _type_at(placement: Any) -> Callable[..., Any]:
    def type_at(member: Any, all_equal: bool | None = None) -> Any:
        import tensorflow_federated as tff

        return tff.FederatedType(member, placement, all_equal)

    return type_at


# ----------------------------------------------------------------------------- processes


def _averaging(
    watch: Any,
    model_fn: Callable[[], Any],
    client_optimizer_fn: Any = None,
    server_optimizer_fn: Any = None,
    client_weight_fn: Any = None,
    *,
    client_weighting: Any = None,
    model_update_aggregation_factory: Any = None,
    metrics_aggregator: Any = None,
    use_experimental_simulation_loop: bool | None = None,
    **retired: Any,
) -> Any:
    """`build_federated_averaging_process` of 0.1 to 0.27; its `next` gives metrics of that time."""
    import tensorflow as tf
    import tensorflow_federated as tff

    for name, value in {"client_weight_fn": client_weight_fn, **retired}.items():
        if value is not None:
            raise ScriptError(
                f"build_federated_averaging_process({name}=...) has no counterpart in TFF 0.87.0; "
                "leave it out, or use tff.learning.algorithms.build_weighted_fed_avg."
            )
    if callable(client_weighting):
        raise ScriptError(
            "build_federated_averaging_process(client_weighting=...) takes only a "
            "tff.learning.ClientWeighting in TFF 0.87.0; a function has no counterpart."
        )
    arguments = {
        "model_fn": model_fn,
        # Up to 0.12 the clients' optimizer could be left out with a compiled model only.
        "client_optimizer_fn": client_optimizer_fn or tf.keras.optimizers.SGD,
        "server_optimizer_fn": server_optimizer_fn,
        "model_aggregator": model_update_aggregation_factory,
        "metrics_aggregator": metrics_aggregator,
    }
    unweighted = isinstance(
        model_update_aggregation_factory, tff.aggregators.UnweightedAggregationFactory
    )
    if metrics_aggregator is None:
        del arguments["metrics_aggregator"]
    if client_weighting is not None and not unweighted:
        arguments["client_weighting"] = client_weighting
    process = builders.build(
        "build_unweighted_fed_avg" if unweighted else "build_weighted_fed_avg",
        "tff.learning.build_federated_averaging_process",
        **arguments,
    )
    return _with_old_metrics(process)


def _federated_sgd(watch: Any, model_fn: Any, server_optimizer_fn: Any = None, **_: Any) -> Any:
    process = builders.build(
        "build_fed_sgd",
        "tff.learning.build_federated_sgd_process",
        model_fn=model_fn,
        server_optimizer_fn=server_optimizer_fn,
    )
    return _with_old_metrics(process)


def _with_old_metrics(process: Any) -> Any:
    """The process, with the metrics of `next` in the shapes of 0.1 to 0.19."""
    inner = process.next

    class OldNext(type(inner)):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            output = inner(*args, **kwargs)
            work = getattr(output, "metrics", None)
            if not isinstance(work, Mapping):  # inside another computation
                return output
            return type(output)(output.state, old_training_metrics(work))

        __hash__ = type(inner).__hash__

    following = object.__new__(OldNext)
    following.__dict__.update(inner.__dict__)

    class OldProcess(type(process)):
        next = property(lambda self: following)

    process.__class__ = OldProcess
    return process


def _evaluation(watch: Any, model_fn: Any, *_: Any, **__: Any) -> Any:
    """`build_federated_evaluation` of 0.1 to 0.79: a function of (weights, data)."""
    process = builders.build(
        "build_fed_eval", "tff.learning.build_federated_evaluation", model_fn=model_fn
    )

    def evaluation(server_model_weights: Any, federated_dataset: Any) -> Any:
        weights = getattr(server_model_weights, "global_model_weights", server_model_weights)
        state = process.set_model_weights(process.initialize(), weights)
        metrics = process.next(state, federated_dataset).metrics
        return old_evaluation_metrics(metrics["client_work"]["eval"]["current_round_metrics"])

    return evaluation


# ----------------------------------------------------------------------------- weights, data


def _assign_weights_to_keras_model(keras_model: Any, tff_weights: Any) -> None:
    weights = getattr(tff_weights, "global_model_weights", tff_weights)
    weights.assign_weights_to(keras_model)


def _assign(target: Any, source: Any) -> Any:
    import tensorflow as tf

    pairs = zip(tf.nest.flatten(target), tf.nest.flatten(source), strict=True)
    return tf.group(*(variable.assign(value) for variable, value in pairs))


def _state_with_new_model_weights(
    server_state: Any, trainable_weights: Iterable[Any], non_trainable_weights: Iterable[Any]
) -> Any:
    import tensorflow_federated as tff

    weights = tff.learning.models.ModelWeights(list(trainable_weights), list(non_trainable_weights))
    return server_state._replace(global_model_weights=weights)


def _client_data_from_function(base: type) -> type:
    """The `ClientData` behind `from_clients_and_fn`, whose function takes a Python string."""
    import tensorflow as tf

    class ClientDataFromFunction(base):
        def __init__(self, client_ids: Iterable[str], create_tf_dataset_for_client_fn: Any):
            self._ids, self._function = list(client_ids), create_tf_dataset_for_client_fn
            self._spec = self._function(self._ids[0]).element_spec

        @property
        def client_ids(self) -> list[str]:
            return list(self._ids)

        @property
        def serializable_dataset_fn(self) -> Any:
            raise NotImplementedError("the function of from_clients_and_fn takes a Python string")

        def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
            if client_id not in self._ids:
                raise ValueError(f"no client {client_id!r} in this ClientData")
            return self._function(client_id)

        @property
        def element_type_structure(self) -> Any:
            return self._spec

        @property
        def dataset_computation(self) -> Any:
            raise NotImplementedError("the function of from_clients_and_fn takes a Python string")

        def preprocess(self, preprocess_fn: Callable[[Any], Any]) -> Any:
            return ClientDataFromFunction(
                self._ids, lambda client_id: preprocess_fn(self._function(client_id))
            )

    return ClientDataFromFunction


# ----------------------------------------------------------------------------- Keras


def _teach_keras_old_arguments(watch: Any) -> None:
    """`SGD(lr=0.5)`: Keras 2.14 warns and trains with its default, 0.01, instead."""
    import tensorflow as tf

    for name in ("SGD", "Adam", "Adagrad", "RMSprop"):
        cls = getattr(tf.keras.optimizers, name)
        original = cls.__init__

        def initialize(
            self: Any, *args: Any, _original: Any = original, _name: str = name, **kwargs: Any
        ) -> None:
            if "lr" in kwargs:
                kwargs["learning_rate"] = kwargs.pop("lr")
                watch.adapt(f"tf.keras.optimizers.{_name}(lr=...) -> learning_rate=...")
            if not kwargs.get("decay", True):
                del kwargs["decay"]
            _original(self, *args, **kwargs)

        initialize.__signature__ = inspect.signature(original)
        cls.__init__ = initialize
