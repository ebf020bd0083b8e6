"""A TFF HDF5 file in pieces: ranges of its clients, each read by itself."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fedbridge.jax_core import ClientDataError, FederatedArrays
from fedbridge.tff_io._element_spec import FeatureSpec
from fedbridge.tff_io._hdf5 import client_ids, packed, read_clients
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
    ids = client_ids(source)
    if not ids:
        raise ClientDataError(f"{source}: its group '/examples' has no clients; fetch it again.")
    first = packed(source, read_clients(source, ids[:1]))
    each = max(1, PIECE_BYTES * len(ids) // max(source.stat().st_size, 1))
    pieces = [(at, min(at + each, len(ids)) - 1) for at in range(0, len(ids), each)]
    spec = {
        name: FeatureSpec(rows.shape[1:], None if rows.dtype == object else rows.dtype)
        for name, rows in first.client(ids[0]).items()
    }
    return Plan(split, spec, exact=False, pieces=pieces)


@contextlib.contextmanager
def open_clients(
    source: Path, plan: Plan, preprocess: Preprocess
) -> Iterator[Callable[[int], tuple[np.ndarray, FederatedArrays]]]:
    """A function that reads a piece: the positions of its elements' clients, and the elements.

    Raises:
        ClientDataError: As `from_hdf5` and the preprocessing.
    """
    needed, names = needed_features(preprocess, plan.spec, source), sorted(plan.spec)
    ids = client_ids(source)

    def read(number: int) -> tuple[np.ndarray, FederatedArrays]:
        first, last = plan.pieces[number]
        data = packed(source, read_clients(source, ids[first : last + 1], names, needed))
        owner = np.repeat(np.arange(first, last + 1), np.diff(data.offsets))
        return owner, preprocess(data.pooled())

    yield read
