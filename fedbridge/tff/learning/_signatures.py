"""`type_signature` of what learning processes are made of, printed as TFF prints it."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fedbridge import jax_core as fc
from fedbridge.tff._arguments import made_by
from fedbridge.tff._client_batches import cohort, without_rows
from fedbridge.tff._process import LearningProcess, ModelWeights, as_core, evaluation
from fedbridge.tff._types import (
    CLIENTS,
    SERVER,
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    StructWithPythonType,
    TensorType,
    Type,
    to_type,
)
from fedbridge.tff.types import infer_type, structure_from_tensor_type_tree


class Typed:
    """A function with a type, which is found when it is asked for.

    Args:
        function: The function.
        signature: Its type.
    """

    def __init__(self, function: Callable[..., Any], signature: Callable[[], FunctionType]):
        self._function, self._signature = function, signature

    @functools.cached_property
    def type_signature(self) -> FunctionType:
        """From the parameter, if there is one, to the result."""
        return self._signature()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it."""
        return self._function(*args, **kwargs)


def weights_type_from_model(model: Any) -> StructWithPythonType:
    """The type of the weights of a model, or of what a `model_fn` makes."""
    made = model if hasattr(model, "trainable_variables") else made_by(model)
    weights = infer_type(ModelWeights.from_model(made))
    assert isinstance(weights, StructWithPythonType)
    return weights


def typed(build: Callable[..., LearningProcess]) -> Callable[..., LearningProcess]:
    """A builder whose processes know their types; its first argument is `model_fn`."""

    @functools.wraps(build)
    def building(model_fn: Any, *args: Any, **kwargs: Any) -> LearningProcess:
        return with_types(build(model_fn, *args, **kwargs), lambda: _input_type(model_fn))

    return building


def with_types(process: LearningProcess, element: Callable[[], Type]) -> LearningProcess:
    """The process, which knows its types, and runs rounds of no clients.

    Args:
        process: A new one.
        element: Gives the type of what a client's data set consists of.
    """

    @functools.cache
    def state() -> Any:
        return infer_type(process.initialize())

    def weights() -> Type:
        return state().global_model_weights

    def following() -> FunctionType:
        data = SequenceType(element())
        given = StructType(
            [("state", _at_server(state())), ("client_data", FederatedType(data, CLIENTS))]
        )
        made = [("state", state()), ("metrics", _metrics_type(process, data))]
        return FunctionType(given, StructType([(name, _at_server(type_)) for name, type_ in made]))

    signatures: dict[str, Callable[[], FunctionType]] = {
        "initialize": lambda: FunctionType(None, _at_server(state())),
        "next": following,
        "get_model_weights": lambda: FunctionType(state(), weights()),
        "set_model_weights": lambda: FunctionType(
            StructType([("state", state()), ("model_weights", weights())]), state()
        ),
    }
    for name, signature in signatures.items():
        setattr(process, name, Typed(getattr(process, name), signature))
    process.nobody = lambda: without_rows(structure_from_tensor_type_tree(_zeros, element()))
    return process


def typed_evaluation(process: LearningProcess) -> Typed:
    """`build_federated_evaluation`'s function of (weights, data), which knows its type.

    Args:
        process: Of an evaluation, with types.
    """
    evaluate = evaluation(process)

    def signature() -> FunctionType:
        typed: Any = process
        data = typed.next.type_signature.parameter[1]
        weights = _at_server(typed.get_model_weights.type_signature.result)
        batch = structure_from_tensor_type_tree(_zeros, data.member.element)
        metrics = infer_type(evaluate(process.initialize(), [[batch]]))
        given = StructType([("server_model_weights", weights), ("federated_dataset", data)])
        return FunctionType(given, _at_server(metrics))

    return Typed(evaluate, signature)


def _at_server(member: Type) -> FederatedType:
    return FederatedType(member, SERVER)


def _input_type(model_fn: Any) -> Type:
    model = made_by(model_fn)
    spec = getattr(model, "input_spec", None)
    if spec is None:
        raise fc.ModelError(
            "the type of `next`, and a round of no clients, need to know what a batch looks like; "
            "pass input_spec to from_keras_model."
        )
    return to_type(spec)


def _metrics_type(process: LearningProcess, data: SequenceType) -> Type:
    """The type of the metrics of a round with one row of zeros."""
    batch = structure_from_tensor_type_tree(_zeros, data.element)
    clients = cohort(process._read([[batch]]), 1)
    core = process._process
    return infer_type(process._metrics(core.next(as_core(process.initialize()), clients).metrics))


def _zeros(type_spec: TensorType) -> np.ndarray:
    return np.zeros([size or 1 for size in type_spec.shape or ()], type_spec.dtype)
