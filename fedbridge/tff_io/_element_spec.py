"""What an element of a data set holds: files of tf.train.Examples store neither shapes nor dtypes.

TFF's `load_data` functions know them for TFF's data sets; so does the table here.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fedbridge.jax_core import ClientDataError
from fedbridge.tff_io._example_proto import parse_example
from fedbridge.tff_io._wire import BYTES, FLOAT, INT64

ElementSpec = Mapping[str, tuple[tuple[int, ...], Any]]
"""Feature name to (shape, dtype); the dtype of strings is `bytes`."""


class FeatureSpec(NamedTuple):
    """Shape and dtype of a feature; a dtype of None stands for strings."""

    shape: tuple[int, ...]
    dtype: np.dtype | None

    @property
    def kind(self) -> int:
        """How a tf.train.Example stores it."""
        if self.dtype is None:
            return BYTES
        return FLOAT if self.dtype.kind == "f" else INT64


_STRING = FeatureSpec((), None)
_BOOL, _INT32, _INT64 = (FeatureSpec((), np.dtype(d)) for d in (np.bool_, np.int32, np.int64))


def read_spec(element_spec: ElementSpec) -> dict[str, FeatureSpec]:
    """A user's element spec, checked.

    Raises:
        ClientDataError: A dtype that a record cannot hold, or an array of strings.

    Example:
        >>> read_spec({"y": ((), "int32")})
        {'y': FeatureSpec(shape=(), dtype=dtype('int32'))}
    """
    spec = {}
    for name, (shape, dtype) in element_spec.items():
        shape = tuple(int(n) for n in shape)
        dtype = None if dtype in (bytes, str, "bytes", "str", "string") else np.dtype(dtype)
        if dtype is None and shape:
            raise ClientDataError(
                f"feature {name!r} of `element_spec`: only one string a record is supported; give "
                "it the shape ()."
            )
        if dtype is not None and dtype.kind not in "fiub":
            raise ClientDataError(
                f"feature {name!r} of `element_spec`: a record cannot hold {dtype}; give floats, "
                "integers, booleans or `bytes`."
            )
        spec[name] = FeatureSpec(shape, dtype)
    return spec


def infer_spec(record: bytes, where: str) -> dict[str, FeatureSpec]:
    """The features of a record, as TFF's loaders give them where TFF knows the data set.

    Raises:
        ClientDataError: The record does not parse, or holds several strings in one feature.
    """
    example = parse_example(record, where)
    known = _known_spec(frozenset(example))
    if known is not None:
        return known
    spec = {}
    for name, (kind, values) in example.items():
        if kind == BYTES and len(values) != 1:
            raise ClientDataError(
                f"{where}, feature {name!r}: it holds {len(values)} strings, and only one a record "
                "is supported; name the features to read with `element_spec`."
            )
        dtype = {BYTES: None, FLOAT: np.dtype(np.float32), INT64: np.dtype(np.int64)}[kind]
        spec[name] = FeatureSpec(() if len(values) == 1 else (len(values),), dtype)
    return spec


def _known_spec(names: frozenset[str]) -> dict[str, FeatureSpec] | None:
    """TFF's data sets by their feature names."""
    if names == {"label", "pixels"}:  # EMNIST
        return {"label": _INT32, "pixels": FeatureSpec((28, 28), np.dtype(np.float32))}
    if names == {"creation_date", "score", "tags", "title", "tokens", "type"}:  # Stack Overflow
        return {name: _INT64 if name == "score" else _STRING for name in sorted(names)}
    if names == {"snippets"}:  # Shakespeare
        return {"snippets": _STRING}
    if names == {"coarse_label", "image", "label"}:  # CIFAR-100
        image = FeatureSpec((32, 32, 3), np.dtype(np.uint8))
        return {"coarse_label": _INT64, "image": image, "label": _INT64}
    if len(names) == 41 and {"image", "attractive", "smiling", "young"} <= names:  # CelebA
        image = FeatureSpec((84, 84, 3), np.dtype(np.int64))
        return {name: image if name == "image" else _BOOL for name in sorted(names)}
    return None
