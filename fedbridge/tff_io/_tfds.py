"""Data sets of `tensorflow_datasets`, one client for each value of a feature."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, FederatedArrays, check_argument
from fedbridge.tff_io._client_data import from_clients


def from_tfds(builder: Any, split: str = "train", *, client_key: str) -> FederatedArrays:
    """Reads a prepared `tensorflow_datasets` builder, one client for each value of a feature.

    All of the split passes through memory. Files in the format "array_record" are read without
    TensorFlow, others by `as_dataset` with it. For a split by anything else, read it with
    `tfds.as_numpy` and give the arrays to `fb.partition`.

    Args:
        builder: Such as `tfds.builder("emnist")`, after its `download_and_prepare()`; or a name,
            whose data have been prepared.
        split: One that the builder has, also "train[:10%]".
        client_key: The feature whose value is the client's id, as text: one number or string an
            example; "user/id" for the field "id" of the feature "user".

    Returns:
        Clients sorted by id, their examples in the order of the files. Fields of dictionaries are
        features "user/id"; the key stays a feature.

    Raises:
        ClientDataError: tensorflow-datasets or TensorFlow is missing; the data are not prepared; no
            such split or feature; or features that are ragged.
        ArgumentError: A builder that is none.
    """
    if isinstance(builder, str):
        builder = _named(builder)
    check_argument(
        hasattr(builder, "info"),
        "builder",
        builder,
        "a tensorflow_datasets builder, or the name of one",
    )
    where = f"data set {getattr(builder, 'name', 'of tensorflow_datasets')!r}, split {split!r}"
    rows: dict[str, list[dict[str, Any]]] = {}
    for number, element in enumerate(_elements(builder, split, where)):
        row = _flat(element)
        value = np.asarray(row.get(client_key))
        if value.dtype == object and value.size == 1 and not isinstance(value.item(), bytes | str):
            raise ClientDataError(
                f"{where}: it has no feature {client_key!r} (but: {', '.join(sorted(row))}); give "
                "one of them as `client_key`."
            )
        if value.size != 1 or value.dtype.kind == "f":
            raise ClientDataError(
                f"{where}, example {number}: feature {client_key!r} is "
                f"{value.dtype}{list(value.shape)}; a client's id is one whole number or string."
            )
        rows.setdefault(_text(value.item()), []).append(row)
    if not rows:
        raise ClientDataError(f"{where}: it has no examples; give another split.")
    try:
        return from_clients(
            {
                client_id: {name: _column([row[name] for row in mine]) for name in mine[0]}
                for client_id, mine in sorted(rows.items())
            }
        )
    except (ClientDataError, KeyError, ValueError) as error:
        raise ClientDataError(
            f"{where}: its features cannot be packed ({error}); only those of one shape can."
        ) from error


def _named(name: str) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ClientDataError(
            f"data set {name!r}: it is read by tensorflow-datasets, which is not installed; "
            "`pip install 'fedbridge[tensorflow]'`."
        ) from error
    try:
        return tfds.builder(name)
    except (ValueError, tfds.core.DatasetNotFoundError) as error:
        said = str(error.args[0] if error.args else error).strip().split("\n", 1)[0]
        raise ClientDataError(
            f"data set {name!r}: tensorflow-datasets has no such one ({said}); give a name of its "
            "catalog, or a builder."
        ) from error


def _elements(builder: Any, split: str, where: str) -> Iterable[Any]:
    """The examples in the order of the files."""
    try:
        file_format = getattr(builder.info, "file_format", None)
        if getattr(file_format, "value", file_format) == "array_record":
            return builder.as_data_source(split=split)
        import tensorflow_datasets as tfds

        return tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
    except ImportError as error:
        raise ClientDataError(
            f"{where}: its files are read by TensorFlow, which is not installed ({error}); "
            "`pip install 'fedbridge[tensorflow]'`, or prepare it with file_format='array_record'."
        ) from error
    except (AssertionError, KeyError, ValueError, OSError) as error:
        said = str(error.args[0] if error.args else error).strip().split("\n", 1)[0]
        raise ClientDataError(
            f"{where}: it cannot be read ({said}); call the builder's download_and_prepare(), or "
            "give one of its splits."
        ) from error


def _flat(element: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in element.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _column(values: list[Any]) -> Any:
    """Rows of numbers stacked; strings as a list."""
    if isinstance(values[0], bytes | str):
        return values
    return np.stack(values)
