"""A preprocessing that can be written down: a function of `fb.preprocessing` and its arguments.

What it makes of the rows is stored; what it does to batches is a function, and no function can be
stored. It is found again by having the preprocessing done to no rows.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge import preprocessing
from fedbridge.jax_core import ClientDataError, FederatedArrays, check_argument
from fedbridge.tff_io._element_spec import FeatureSpec
from fedbridge.tff_io._sql import joined_blocks

Preprocess = Callable[[FederatedArrays], FederatedArrays]
Described = Mapping[str, Any]
"""The function's name and its arguments, as JSON holds them."""


def describe(preprocess: Preprocess | None) -> Described | None:
    """Writes a preprocessing down.

    Args:
        preprocess: A function of `fb.preprocessing`, or a `functools.partial` of one with named
            arguments; None: the data stay as they are.

    Raises:
        ClientDataError: Another function, or arguments that it does not take.
    """
    if preprocess is None:
        return None
    check_argument(callable(preprocess), "preprocess", preprocess, "a function, or None")
    partial = functools.partial(preprocess)  # of a partial, it is the same one
    name = getattr(partial.func, "__name__", repr(partial.func))
    if getattr(preprocessing, name, None) is not partial.func or not _takes_data(partial.func):
        raise ClientDataError(
            f"preprocess: {name} is no function of fb.preprocessing that takes data, and only such "
            "a one can be stored with them; convert without it, and apply it to what is read."
        )
    try:
        inspect.signature(partial.func).bind(None, *partial.args, **partial.keywords)
    except TypeError as error:
        raise ClientDataError(
            f"preprocess: {name} cannot be called so ({error}); give it with all its arguments, as "
            f"functools.partial(fb.preprocessing.{name}, name=value)."
        ) from None
    if partial.args:
        raise ClientDataError(
            f"preprocess: the first argument of {name} is the data; name the others, as "
            f"functools.partial(fb.preprocessing.{name}, name=value)."
        )
    return {"name": name, "arguments": {k: _plain(v) for k, v in partial.keywords.items()}}


def rebuild(described: Described | None) -> Preprocess:
    """The preprocessing that was written down.

    Raises:
        ClientDataError: This version of fedbridge does not have it.
    """
    if described is None:
        return lambda data: data
    function = getattr(preprocessing, described["name"], None)
    if function is None or not _takes_data(function):
        raise ClientDataError(
            f"these data were made by {described['name']}, which this version of fedbridge does "
            "not have; convert them again."
        )
    arguments = described["arguments"].items()
    return functools.partial(
        function, **{k: tuple(v) if isinstance(v, list) else v for k, v in arguments}
    )


def no_rows(spec: Mapping[str, FeatureSpec], client_ids: Sequence[str] = ()) -> FederatedArrays:
    """Data with these features, of clients who have none."""
    columns = {name: joined_blocks([], feature) for name, feature in spec.items()}
    return FederatedArrays(tuple(client_ids), np.zeros(len(client_ids) + 1, np.int64), columns)


def needed_features(
    preprocess: Preprocess, spec: Mapping[str, FeatureSpec], source: Path
) -> list[str]:
    """The features without which the preprocessing would fail, or give others.

    Raises:
        ClientDataError: It is not made for the features of this file.
    """
    try:
        found = list(preprocess(no_rows(spec)).features)
    except ClientDataError as error:
        raise ClientDataError(f"{source}: {error}") from error

    def does_without(name: str) -> bool:
        others = {other: feature for other, feature in spec.items() if other != name}
        try:
            return list(preprocess(no_rows(others)).features) == found
        except ClientDataError:
            return False

    return [name for name in spec if not does_without(name)]


def _takes_data(function: Any) -> bool:
    return inspect.isfunction(function) and "data" in inspect.signature(function).parameters


def _plain(value: Any) -> Any:
    """An argument as JSON gives it back: numbers, and lists of words."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ClientDataError(
                f"preprocess: the word {value!r} is no UTF-8 text, and cannot be stored; leave it "
                "out of the vocabulary."
            ) from None
    return str(value) if isinstance(value, str) else [_plain(item) for item in value]
