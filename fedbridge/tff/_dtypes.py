"""Dtypes and shapes in all their spellings, as NumPy's dtype and a tuple of sizes."""

from typing import Any

import numpy as np

from fedbridge.tff._type_errors import FederatedTypeError

ArrayShape = tuple[int | None, ...] | None


def is_dtype(obj: Any) -> bool:
    """Whether an object is a dtype, of NumPy or of TensorFlow."""
    is_numpy = isinstance(obj, np.dtype) or (isinstance(obj, type) and issubclass(obj, np.generic))
    return is_numpy or hasattr(obj, "as_numpy_dtype")


def dtype_of(obj: Any) -> np.dtype:
    """The dtype of TFF: NumPy's, and one for all texts.

    Raises:
        FederatedTypeError: TFF has no such arrays.
    """
    if getattr(obj, "name", "") == "string" and hasattr(obj, "as_numpy_dtype"):
        return np.dtype(np.str_)
    dtype = np.dtype(getattr(obj, "as_numpy_dtype", obj))
    if dtype.kind in "SUO":
        return np.dtype(np.str_)
    if dtype.kind not in "biufcV":
        raise FederatedTypeError(f"TFF has no arrays of {dtype}; use numbers, bool or text.")
    return np.dtype(dtype.type)


def is_shape(obj: Any) -> bool:
    """Whether an object is a shape, of NumPy or of TensorFlow."""
    if obj is None or hasattr(obj, "as_list"):
        return True
    sizes = isinstance(obj, list | tuple)
    return sizes and all(size is None or isinstance(size, int) for size in obj)


def shape_of(obj: Any) -> ArrayShape:
    """The sizes, None where one is not known; None where not even their number is."""
    if hasattr(obj, "as_list"):
        obj = None if obj.rank is None else obj.as_list()
    return None if obj is None else tuple(obj)
