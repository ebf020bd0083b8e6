"""`tff.backends` and `tff.framework`: setters of execution contexts, taken and dropped."""

import types
from collections.abc import Callable
from typing import Any

from fedbridge.bridge import eras
from fedbridge.tff._errors import empty_package, note
from fedbridge.tff.types import type_from_tensors, type_to_tf_tensor_specs


def _package(name: str, **others: Any) -> types.ModuleType:
    """A package with its accepted names, those of the packages in it, and others."""
    package = empty_package(name)
    package.__dict__.update(others)
    inner = set()
    for entry in eras.table().values():
        if not entry.name.startswith(f"{name}."):
            continue
        first, _, rest = entry.name.removeprefix(f"{name}.").partition(".")
        if rest:
            inner.add(first)
        elif entry.status == eras.ACCEPTED or first.endswith("_execution_context"):
            setattr(package, first, _accepting(entry.name))
    for first in sorted(inner):
        setattr(package, first, _package(f"{name}.{first}"))
    return package


def _accepting(name: str) -> Callable[..., Any]:
    def accepting(*args: Any, **kwargs: Any) -> Any:
        note(f"{name} is taken and dropped: execution contexts do not change results")
        return accepting

    return accepting


backends = _package("tff.backends")
framework = _package(
    "tff.framework",
    type_from_tensors=type_from_tensors,
    type_to_tf_tensor_specs=type_to_tf_tensor_specs,
)
