"""A TFF HDF5 file in pieces: ranges of its clients, each read by itself."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge.jax_core import ClientDataError, FederatedArrays
from fedbridge.tff_io._client_data import _pack
from fedbridge.tff_io._element_spec import FeatureSpec
from fedbridge.tff_io._hdf5_child import _DAMAGE, _GROUP, RefusedError, _rows
from fedbridge.tff_io._prepared import Preprocess, needed_features
from fedbridge.tff_io._sql_pieces import PIECE_BYTES, Plan

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(source: Path) -> bool:
    """Whether the file begins as HDF5 files do."""
    with source.open("rb") as stream:
        return stream.read(len(_SIGNATURE)) == _SIGNATURE


def plan_clients(source: Path, split: str | None) -> Plan:
    """Looks at the first client, and divides the others.

    Raises:
        ClientDataError: As `from_hdf5`.
    """
    if split is not None and not source.stem.endswith(split):
        raise ClientDataError(
            f"{source}: split {split!r} was asked for, and a file holds one split, which its name "
            "ends with; give that split's file, or leave out `split`."
        )
    with _clients(source) as (h5py, group, ids):
        first = _read(h5py, source, group, ids[:1], None)
    each = max(1, PIECE_BYTES * len(ids) // max(source.stat().st_size, 1))
    pieces = [(at, min(at + each, len(ids)) - 1) for at in range(0, len(ids), each)]
    spec = {
        name: FeatureSpec(rows.shape[1:], None if rows.dtype == object else rows.dtype)
        for name, rows in first.client(ids[0]).items()
    }
    return Plan(split, spec, exact=False, pieces=pieces)


def client_ids(source: Path) -> list[str]:
    """The clients of a file, sorted as TFF does.

    Raises:
        ClientDataError: As `from_hdf5`.
    """
    with _clients(source) as (_, _, ids):
        return ids


@contextlib.contextmanager
def open_clients(
    source: Path, plan: Plan, preprocess: Preprocess
) -> Iterator[Callable[[int], tuple[np.ndarray, FederatedArrays]]]:
    """A function that reads a piece: the positions of its elements' clients, and the elements.

    Raises:
        ClientDataError: As `from_hdf5` and the preprocessing.
    """
    needed, names = needed_features(preprocess, plan.spec), set(plan.spec)
    with _clients(source) as (h5py, group, ids):

        def read(number: int) -> tuple[np.ndarray, FederatedArrays]:
            first, last = plan.pieces[number]
            for client_id in ids[first : last + 1]:
                if set(group[client_id]) != names:
                    raise ClientDataError(
                        f"{source}, client {client_id!r}: its features are not "
                        f"{', '.join(sorted(names))}, those of client {ids[0]!r}; write the file "
                        "again."
                    )
            data = _read(h5py, source, group, ids[first : last + 1], needed)
            owner = np.repeat(np.arange(first, last + 1), np.diff(data.offsets))
            return owner, preprocess(data.pooled())

        yield read


@contextlib.contextmanager
def _clients(source: Path) -> Iterator[tuple[Any, Any, list[str]]]:
    """h5py, the group of the clients, and their ids."""
    try:
        import h5py
    except ImportError as error:
        raise ClientDataError(
            f"{source}: HDF5 files are read by h5py, which is not installed; "
            "`pip install 'fedbridge[hdf5]'`."
        ) from error
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(h5py.File(source, "r"))
            group = file.get(_GROUP)
            ids = sorted(group) if isinstance(group, h5py.Group) else []
        except _DAMAGE as error:
            raise _damaged(f"{source}", error) from error
        if not ids:
            raise ClientDataError(
                f"{source}: it has no clients in '/{_GROUP}', so it is no client data of TFF; give "
                "a file such as fed_emnist_train.h5."
            )
        yield h5py, group, ids


def _read(
    h5py: Any, source: Path, group: Any, ids: list[str], names: list[str] | None
) -> FederatedArrays:
    """The data of some clients; `names` of the features, or all."""
    clients, where, size = {}, f"{source}", source.stat().st_size
    try:
        for client_id in ids:
            where = f"{source}, client {client_id!r}"
            member = group[client_id]
            clients[client_id] = {
                name: _rows(h5py, member[name], f"{where}, feature {name!r}", size)
                for name in (sorted(member) if names is None else names)
            }
    except RefusedError as error:
        raise ClientDataError(str(error)) from None
    except _DAMAGE as error:
        raise _damaged(where, error) from error
    try:
        return _pack(clients)
    except ClientDataError as error:
        raise ClientDataError(f"{source}: {error}") from error


def _damaged(where: str, error: BaseException) -> ClientDataError:
    said = " ".join(str(error).split())
    return ClientDataError(
        f"{where}: h5py cannot read it ({said}); the file is damaged or was not fetched to the "
        "end, fetch it again."
    )
