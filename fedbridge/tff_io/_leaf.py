"""LEAF's folders of JSON files: FEMNIST, Shakespeare, Sent140, Reddit, synthetic.

    {"users": ["u0", ...], "num_samples": [2, ...],
     "user_data": {"u0": {"x": [row, row], "y": [row, row]}, ...}}

Reference: Caldas et al., 2018, LEAF: A Benchmark for Federated Settings.
https://arxiv.org/abs/1812.01097, and `read_data` of its models/utils/model_utils.py.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, FederatedArrays, check_path
from fedbridge.tff_io._client_data import _pack

_KEYS = ("users", "num_samples", "user_data")


def from_leaf(folder: str | os.PathLike) -> FederatedArrays:
    """Reads the JSON files of one split of a LEAF data set.

    Numbers become float32, or int64 where all of a feature are written as integers; text becomes
    strings. A row that is a list of several strings (Sent140's five fields) becomes the features
    "x/0", "x/1", ...; one that is a list of token lists (Reddit) becomes one string, its tokens
    joined by spaces as in Stack Overflow's; one that is a dictionary becomes "y/<key>". The whole
    text of a user that LEAF's `--raw` adds is no example, and is left out.

    Args:
        folder: Such as `leaf/data/femnist/data/train`; or one `.json` file. Files are read in the
            order of their names, and clients keep the order of `users`.

    Raises:
        ClientDataError: No JSON files, a damaged or foreign one, a user twice or without data, a
            number of samples other than promised, or rows of various lengths.
    """
    check_path("folder", folder)
    path = Path(folder).expanduser()
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    if not files:
        inner = [p.name for p in sorted(path.glob("*")) if p.is_dir() and any(p.glob("*.json"))]
        cure = f"give one of its folders: {', '.join(inner)}" if inner else "give LEAF's data/train"
        raise ClientDataError(f"{path}: there are no .json files in it; {cure}.")
    raw: dict[str, dict[str, list[Any]]] = {}
    came_from: dict[str, Path] = {}
    for file in files:
        for user, features in _read(file):
            if user in raw:
                raise ClientDataError(
                    f"{file}, client {user!r}: {came_from[user]} has this client, too; give the "
                    "folder of one split."
                )
            raw[user], came_from[user] = features, file
    if not raw:
        raise ClientDataError(f"{path}: its files have no users; give LEAF's data/train.")
    names = dict.fromkeys(name for features in raw.values() for name in features)
    whole = {
        name: all(_whole(features.get(name, ())) for features in raw.values()) for name in names
    }
    clients = {
        user: {
            name: _array(rows, whole[name], f"{came_from[user]}, client {user!r}, feature {name!r}")
            for name, rows in features.items()
        }
        for user, features in raw.items()
    }
    try:
        return dataclasses.replace(_pack(_fill_empty(clients)), source=str(path))
    except ClientDataError as error:
        raise ClientDataError(f"{path}: {error}") from error


def _read(file: Path) -> list[tuple[str, dict[str, list[Any]]]]:
    """The users of a file, each with its flat features."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ClientDataError(
            f"{file}: it does not parse as JSON ({error}); it is truncated or damaged, make it "
            "again."
        ) from error
    missing = [k for k in _KEYS if not isinstance(content, dict) or k not in content]
    if missing:
        raise ClientDataError(
            f"{file}: it has no {missing[0]!r}, so it is no LEAF file; give a folder of files "
            "with users, num_samples and user_data."
        )
    users, counts, data = (content[key] for key in _KEYS)
    lists = isinstance(users, list) and isinstance(counts, list) and isinstance(data, dict)
    if not lists or len(users) != len(counts) or set(map(str, users)) != set(data):
        raise ClientDataError(
            f"{file}: its users, num_samples and user_data are not those of the same clients; the "
            "file is damaged, make it again."
        )
    return [
        (str(user), _features(data[str(user)], count, f"{file}, client {user!r}"))
        for user, count in zip(users, counts, strict=True)
    ]


def _features(data: Any, count: Any, where: str) -> dict[str, list[Any]]:
    if isinstance(data, dict) and isinstance(data.get("raw"), str):
        data = {name: rows for name, rows in data.items() if name != "raw"}
    if not isinstance(data, dict) or not all(isinstance(rows, list) for rows in data.values()):
        raise ClientDataError(f"{where}: its data is no dictionary of lists; make the file again.")
    for name, rows in data.items():
        if len(rows) != count:
            raise ClientDataError(
                f"{where}, feature {name!r}: it has {len(rows)} rows where num_samples promises "
                f"{count}; the file is damaged, make it again."
            )
    flat: dict[str, list[Any]] = {}
    for name, rows in data.items():
        flat |= _flatten(name, rows, where)
    return flat


def _flatten(name: str, rows: list[Any], where: str) -> dict[str, list[Any]]:
    """Rows of dictionaries, and of several strings, become several features."""
    if rows and all(isinstance(row, dict) for row in rows):
        if any(row.keys() != rows[0].keys() for row in rows):
            raise ClientDataError(
                f"{where}, feature {name!r}: its rows have different keys; make the file again."
            )
        parts = {}
        for key in rows[0]:
            parts |= _flatten(f"{name}/{key}", [row[key] for row in rows], where)
        return parts
    if rows and all(_strings(row) for row in rows) and len({len(row) for row in rows}) == 1:
        return {f"{name}/{i}": [row[i] for row in rows] for i in range(len(rows[0]))}
    return {name: list(map(_joined, rows)) if _nested_strings(rows) else rows}


def _strings(row: Any) -> bool:
    return isinstance(row, list) and bool(row) and all(isinstance(v, str) for v in row)


def _nested_strings(rows: list[Any]) -> bool:
    """Whether these are Reddit's: lists of lists of tokens, of which some may be empty."""
    lists = all(isinstance(row, list) for row in rows)
    parts = [part for row in rows for part in row] if lists else []
    texts = [part == [] or _strings(part) for part in parts]
    return all(texts) and any(parts)


def _joined(row: Sequence[Sequence[str]]) -> str:
    return " ".join(token for tokens in row for token in tokens)


def _whole(rows: Any) -> bool:
    """Whether all numbers of (nested) lists are written as integers."""
    if isinstance(rows, list | tuple):
        return all(_whole(row) for row in rows)
    return isinstance(rows, int | str)


def _array(rows: list[Any], whole: bool, where: str) -> np.ndarray:
    if rows and all(isinstance(row, str) for row in rows):
        try:
            strings = [row.encode() for row in rows]
        except UnicodeEncodeError as error:
            raise ClientDataError(f"{where}: it holds half a character; make it again.") from error
        array = np.empty(len(rows), object)
        array[:] = strings
        return array
    try:
        found = np.asarray(rows)
        if found.size and found.dtype.kind not in "biuf":
            raise ValueError
        array = np.asarray(rows, np.int64 if whole else np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise ClientDataError(
            f"{where}: its rows are no numbers of one shape and at most 64 bits; rows of various "
            "lengths, or of numbers and text, cannot be read."
        ) from error
    return array


def _fill_empty(clients: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Clients without rows get the features that the others have, which no row could tell."""
    some = next((f for f in clients.values() if any(len(rows) for rows in f.values())), None)
    if some is None:
        return {user: dict(features) for user, features in clients.items()}
    return {
        user: dict(features)
        if any(len(rows) for rows in features.values())
        else {name: rows[:0] for name, rows in some.items()}
        for user, features in clients.items()
    }
