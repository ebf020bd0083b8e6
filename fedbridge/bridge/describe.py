"""An object of a script as JSON: the name of what made it, and its arguments, nested.

What TFF's functions make is opaque. So while recording they are replaced by functions that call
the original and mark what it made; a mark can be written down, and `rebuild` reads it:

    {"name": "clipping_factory", "arguments": {"clipping_norm": 1.0, "inner_agg_factory": {...}}}
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_MARK = "_fedbridge"


class UndescribedError(Exception):
    """Something is no plain value and no work of a function that is known; the text names it."""


class Schedule(NamedTuple):
    """A function of the number of a round or step; in a trace, its values from 0 on."""

    function: Callable[[Any], Any]


def remember(made: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    """Marks what `name(**arguments)` made, and returns it."""
    setattr(made, _MARK, {"name": name, "arguments": dict(arguments)})
    return made


def mark_of(made: Any) -> dict[str, Any] | None:
    """The name and the arguments that it was made of, as they were given; None for no mark."""
    return getattr(made, _MARK, None)


def remembering(
    name: str, original: Callable[..., Any], schedules: tuple[str, ...] = ()
) -> Callable[..., Any]:
    """`original`, with a mark on all it makes. Given as an argument, it is written by its name.

    Args:
        name: What it is called in a trace.
        original: The function.
        schedules: Which of its arguments are functions of the number of a round or step.
    """
    signature = inspect.signature(original)

    @functools.wraps(original)
    def remembering(*args: Any, **kwargs: Any) -> Any:
        given = arguments(signature, args, kwargs)
        made = original(*args, **kwargs)
        return remember(made, name, given | {key: Schedule(given[key]) for key in schedules})

    setattr(remembering, _MARK, {"function": name})
    return remembering


def remember_instances(cls: type, name: str) -> None:
    """Marks every instance that the class makes from now on; those of its subclasses stay bare."""
    original = cls.__init__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if type(self) is cls:
            _, *given = arguments(signature, (self, *args), kwargs).items()
            remember(self, name, dict(given))

    cls.__init__ = initialize
    for word, method in list(vars(cls).items()):
        if isinstance(method, classmethod) and not word.startswith("_"):
            remember_class_method(cls, word, f"{name}.{word}")


def remember_class_method(cls: type, word: str, name: str) -> None:
    """Marks what a class method makes from now on."""
    original = vars(cls)[word].__func__
    signature = inspect.signature(original)

    @functools.wraps(original)
    def make(cls: type, *args: Any, **kwargs: Any) -> Any:
        _, *given = arguments(signature, (cls, *args), kwargs).items()
        return remember(original(cls, *args, **kwargs), name, dict(given))

    setattr(cls, word, classmethod(make))


def arguments(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by name, defaults and keywords of `**kwargs` too."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for key, value in bound.arguments.items():
        kind = signature.parameters[key].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        elif kind is not inspect.Parameter.VAR_POSITIONAL or value:
            named[key] = value
    return named


def described(value: Any, number: Callable[[Any], Any] | None = None) -> Any:
    """A value as JSON; functions of a round stay `Schedule`s until `with_values`.

    Args:
        value: A plain value, or what a marked function made.
        number: What every number becomes; by default it stays an integer or a float.

    Raises:
        UndescribedError: There is something else in it.

    Example:
        >>> class Factory: pass
        >>> described({"inner": remember(Factory(), "SumFactory", {}), "clip": 1})
        {'inner': {'name': 'SumFactory', 'arguments': {}}, 'clip': 1}
        >>> described(Factory())
        Traceback (most recent call last):
        fedbridge.bridge.describe.UndescribedError: Factory
    """
    if value is None or isinstance(value, bool | str | Schedule):
        return value
    if isinstance(value, list | tuple):
        return [described(part, number) for part in value]
    if isinstance(value, Mapping):
        return {str(key): described(part, number) for key, part in value.items()}
    mark = mark_of(value)
    if mark is not None and "function" in mark:
        return dict(mark)
    if mark is not None:
        inner = {key: described(part, number) for key, part in mark["arguments"].items()}
        return {"name": mark["name"], "arguments": inner}
    try:
        plain = value.item() if hasattr(value, "item") else value
        if isinstance(plain, int | float):
            return number(plain) if number else plain
        return float(value)
    except (AttributeError, TypeError, ValueError):
        raise UndescribedError(getattr(value, "__name__", type(value).__name__)) from None


def with_values(description: Any, values: Callable[[Schedule], list[float]]) -> Any:
    """A description with the values of its schedules, which is JSON.

    >>> with_values({"rate": Schedule(lambda k: 0.5**k)}, lambda s: [s.function(k) for k in (0, 1)])
    {'rate': {'values': [1.0, 0.5]}}
    """
    if isinstance(description, Schedule):
        return {"values": values(description)}
    if isinstance(description, Mapping):
        return {key: with_values(part, values) for key, part in description.items()}
    if isinstance(description, list):
        return [with_values(part, values) for part in description]
    return description


def parts(description: Any) -> list[Any]:
    """A description and all that is nested in it, outermost first.

    >>> inner = {"name": "build_adam", "arguments": {}}
    >>> [part["name"] for part in parts({"name": "schedule", "arguments": {"of": inner}})
    ...  if isinstance(part, dict) and "name" in part]
    ['schedule', 'build_adam']
    """
    children: list[Any] = []
    if isinstance(description, Mapping):
        children = list(description.values())
    elif isinstance(description, list):
        children = description
    return [description, *(part for child in children for part in parts(child))]


def is_adaptive(optimizer: Mapping[str, Any] | None) -> bool:
    """Whether an optimizer, described, divides by what it has seen: that amplifies rounding."""
    plain = ("build_sgdm", "keras_sgd_nesterov", "schedule_learning_rate")
    return any(
        part["name"] not in plain
        for part in parts(optimizer)
        if isinstance(part, Mapping) and "name" in part
    )
