"""`tff.utils`, which TFF had up to 0.18."""

from typing import Any

from fedbridge.tff import structure
from fedbridge.tff._errors import missing
from fedbridge.tff.structure import update_struct as update_state
from fedbridge.tff.templates import IterativeProcess as IterativeProcess

__all__ = ["IterativeProcess", "assign", "update_state"]


def assign(target: Any, source: Any) -> Any:
    """Assigns the leaves of a structure to the variables of another."""
    import tensorflow as tf

    pairs = zip(structure.flatten(target), structure.flatten(source), strict=True)
    return tf.group(*(variable.assign(value) for variable, value in pairs))


__getattr__ = missing("tff.utils")
