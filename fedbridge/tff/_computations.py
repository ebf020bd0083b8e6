"""Computations: functions with types, called from a script or from the body of another one.

A computation is typed (`@tff.federated_computation(types)`, or no parameters), or takes its types
from the arguments of a call.
"""

import collections
import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fedbridge.tff import structure
from fedbridge.tff._representations import given, number_of_clients, taken
from fedbridge.tff._type_errors import FederatedTypeError
from fedbridge.tff._types import (
    FunctionType,
    StructType,
    StructWithPythonType,
    Type,
    to_type,
)
from fedbridge.tff._values import Run, Value, as_value, fitted, parameter as parameter_of
from fedbridge.tff.types import infer_type

FEDERATED, TENSORFLOW = "federated", "tensorflow"
_BODY: contextvars.ContextVar[str] = contextvars.ContextVar("body", default="")


@contextlib.contextmanager
def body(kind: str) -> Iterator[None]:
    """While it lasts, calls belong to the body of a computation."""
    token = _BODY.set(kind)
    try:
        yield
    finally:
        _BODY.reset(token)


def in_a_body() -> bool:
    """Whether a call made now belongs to the body of a computation."""
    return bool(_BODY.get())


class Compiled(NamedTuple):
    """What the two kinds of computations have in common.

    Attributes:
        type_signature: From the parameter, if there is one, to the result.
        compute: The result for an argument, in a call.
        inline: The result for an argument of tensors, in the body of TensorFlow's; None where
            there can be none.
    """

    type_signature: FunctionType
    compute: Callable[[Any, Run], Any]
    inline: Callable[[Any], Any] | None = None


class Computation:
    """A function with a type, which `type_signature` gives.

    Args:
        compiled: What it computes.
        name: That of its function, for errors.
    """

    def __init__(self, compiled: Compiled, name: str):
        self._compiled = compiled
        self.__name__ = name

    @property
    def type_signature(self) -> FunctionType:
        """From the parameter, if there is one, to the result."""
        return self._compiled.type_signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Computes; in the body of another computation it becomes part of that.

        Raises:
            FederatedTypeError: Arguments of another type.
        """
        parameter = self.type_signature.parameter
        argument = _packed(parameter, args, kwargs, self.__name__)
        if _BODY.get() == FEDERATED:
            return called(self, as_value(argument) if parameter is not None else None)
        if _BODY.get() == TENSORFLOW:
            if self._compiled.inline is None:
                raise FederatedTypeError(
                    f"{self.__name__} is a federated computation and cannot be called in the body "
                    "of a tff.tf_computation; call it in a tff.federated_computation."
                )
            return self._compiled.inline(argument)
        return self.of(argument)

    def of(self, argument: Any) -> Any:
        """The result for an argument, outside of all bodies; no call of the script's."""
        parameter = self.type_signature.parameter
        clients = number_of_clients(argument, parameter) or 0
        if parameter is not None:
            argument = taken(argument, parameter, clients)
        result = self._compiled.compute(argument, Run(clients, {}))
        return given(result, self.type_signature.result)


class PolymorphicComputation:
    """A computation that takes its types from its arguments.

    Args:
        compiler: The computation for a type of the parameter, and whether its elements are
            arguments (None: as the function takes them).
        name: That of its function.
    """

    def __init__(self, compiler: Callable[[Type, bool | None], Compiled], name: str):
        self._compiler = compiler
        self._known: dict[tuple[Type, bool | None], Computation] = {}
        self.__name__ = name

    def fn_for_argument_type(self, arg_type: Type, unpack: bool | None = None) -> Computation:
        """The computation for a type of the parameter."""
        key = arg_type, unpack
        if key not in self._known:
            self._known[key] = Computation(self._compiler(arg_type, unpack), self.__name__)
        return self._known[key]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Computes with the types that the arguments have."""
        if _BODY.get() == FEDERATED:
            args = tuple(map(as_value, args))
            kwargs = {name: as_value(value) for name, value in kwargs.items()}
        if len(args) == 1 and not kwargs:
            return self.fn_for_argument_type(infer_type(args[0]))(args[0])
        packed = structure.Struct([*((None, arg) for arg in args), *kwargs.items()])
        return self.fn_for_argument_type(infer_type(packed), True)(packed)


def decorator(compiler: Callable[..., Compiled]) -> Callable[..., Any]:
    """A decorator in all of TFF's forms: `@d`, `@d(types)`, `d(function)`, `d(function, types)`.

    Args:
        compiler: The computation of a function, for the type of its parameter, None for none, and
            whether its elements are arguments.
    """

    def decorate(*args: Any) -> Any:
        if args and callable(args[0]) and not isinstance(args[0], type):
            return made(args[0], args[1:])
        return lambda function: made(function, args)

    def made(function: Callable[..., Any], types: tuple[Any, ...]) -> Any:
        name = getattr(function, "__name__", None) or type(function).__name__
        parameters = list(inspect.signature(function).parameters.values())
        if parameters and not types:
            return PolymorphicComputation(
                lambda parameter, unpack: compiler(function, parameter, unpack), name
            )
        parameter = _parameter_type(parameters, [to_type(t) for t in types if t is not None], name)
        return Computation(compiler(function, parameter, None), name)

    return decorate


def compile_federated(
    function: Callable[..., Any], parameter_type: Type | None, unpack: bool | None
) -> Compiled:
    """The computation whose body is a function of values."""
    with body(FEDERATED):
        if parameter_type is None:
            parameter, made = None, function()
        else:
            parameter = parameter_of(parameter_type)
            made = apply(
                function, parameter_type, lambda: parameter, lambda: list(parameter), unpack
            )
        result = as_value(not_none(made, function))

    def compute(argument: Any, run: Run) -> Any:
        bound = dict(run.bound)
        if parameter is not None:
            bound[id(parameter)] = argument
        return Run(run.clients, bound).of(result)

    return Compiled(FunctionType(parameter_type, result.type_signature), compute)


federated_computation = decorator(compile_federated)


def called(computation: Computation, argument: Value | None) -> Value:
    """A call in the body of a federated computation."""
    signature = computation.type_signature
    compute = computation._compiled.compute
    if argument is None or signature.parameter is None:
        return Value(signature.result, lambda run: compute(None, run))
    value = fitted(argument, signature.parameter)
    return Value(signature.result, lambda run: compute(run.of(value), run))


def function_of(fn: Any, parameter_type: Type | None, operation: str) -> Computation:
    """The computation that an operation is given, for a type of its parameter.

    Raises:
        FederatedTypeError: It is none, or takes something else.
    """
    if isinstance(fn, PolymorphicComputation) and parameter_type is not None:
        return fn.fn_for_argument_type(parameter_type)
    if inspect.isfunction(fn):  # as TFF took it up to 0.30
        return function_of(federated_computation(fn), parameter_type, operation)
    if not isinstance(fn, Computation):
        raise FederatedTypeError(
            f"{operation} needs a computation, not {type(fn).__name__}; decorate the function with "
            "@tff.tf_computation."
        )
    expected = fn.type_signature.parameter
    if expected is None or parameter_type is None:
        if expected is not parameter_type:
            raise FederatedTypeError(
                f"{operation}: {fn.__name__} takes {expected or 'nothing'}, but is given "
                f"{parameter_type or 'nothing'}."
            )
    elif not expected.is_assignable_from(parameter_type):
        raise FederatedTypeError(
            f"{operation}: {fn.__name__} takes {expected}, but is given {parameter_type}."
        )
    return fn


# --------------------------------------------------------------------------- parameters


def apply(
    function: Callable[..., Any],
    parameter_type: Type,
    whole: Callable[[], Any],
    parts: Callable[[], list[Any]],
    unpack: bool | None,
) -> Any:
    """A function of its one argument, or of the argument's elements where it takes them so.

    Raises:
        FederatedTypeError: It takes it neither way.
    """
    signature = inspect.signature(function)
    if not unpack and _binds(signature, [None], {}):
        return function(whole())
    if isinstance(parameter_type, StructType):
        names = structure.name_list_with_nones(parameter_type)
        unnamed = names.count(None)
        if _binds(signature, [None] * unnamed, dict.fromkeys(names[unnamed:])):
            found = parts()
            named: dict[Any, Any] = dict(zip(names[unnamed:], found[unnamed:], strict=True))
            return function(*found[:unnamed], **named)
    raise FederatedTypeError(
        f"{getattr(function, '__name__', 'the function')}{signature} does not take an argument of "
        f"type {parameter_type}."
    )


def not_none(made: Any, function: Callable[..., Any]) -> Any:
    """What a body returned.

    Raises:
        FederatedTypeError: Nothing.
    """
    if made is None:
        raise FederatedTypeError(
            f"{getattr(function, '__name__', 'the function')} returned None; a computation must "
            "return a value."
        )
    return made


def _binds(signature: inspect.Signature, args: list[Any], kwargs: dict[Any, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _parameter_type(
    parameters: list[inspect.Parameter], types: list[Type], name: str
) -> Type | None:
    """The types of a decorator as one, with the names of the function's parameters."""
    if not types:
        if parameters:
            raise FederatedTypeError(f"{name} has parameters, but no types for them.")
        return None
    if len(parameters) == 1:
        return types[0] if len(types) == 1 else StructType(types)
    if len(types) == 1 and isinstance(types[0], StructType):
        if None not in structure.name_list_with_nones(types[0]):
            return types[0]
        types = list(types[0])
    if len(types) != len(parameters):
        raise FederatedTypeError(
            f"{name} has {len(parameters)} parameters, but {len(types)} types for them."
        )
    pairs = [(p.name, type_) for p, type_ in zip(parameters, types, strict=True)]
    return StructWithPythonType(pairs, collections.OrderedDict)


def _packed(parameter: Type | None, args: Any, kwargs: dict[str, Any], name: str) -> Any:
    """The arguments of a call as one."""
    if parameter is None:
        if args or kwargs:
            raise FederatedTypeError(f"{name} takes no arguments.")
        return None
    if len(args) == 1 and not kwargs:
        return args[0]
    names = structure.name_list_with_nones(parameter) if isinstance(parameter, StructType) else []
    rest = names[len(args) :]
    if len(args) > len(names) or set(rest) != set(kwargs) or len(rest) != len(kwargs):
        raise FederatedTypeError(f"{name} takes {parameter}, not these arguments.")
    values = [*args, *(kwargs[n] for n in rest if n is not None)]
    return structure.Struct(zip(names, values, strict=True))
