"""Where a round reads its rows: in the whole data on the device, or in a copy of its own rows.

A cohort that comes from a data set counts its rows through the whole of it. Before the round runs,
it is *placed*: where all columns fit on the device, they are put there once, and later rounds move
nothing but their plan; otherwise the rows that the cohort refers to are gathered on the host, and
move alone.
"""

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from fedbridge.jax_core._arrays import BUFFER_BYTES
from fedbridge.jax_core._cohort import Cohort, Stream, bucket
from fedbridge.jax_core._columns import (
    Column,
    Fraction255,
    Ragged,
    filled_up,
    take_rows,
)
from fedbridge.jax_core._errors import ClientDataError
from fedbridge.jax_core._prefetch import prefetch

C = TypeVar("C", bound=Cohort)

_SHARE = 0.5  # of the memory that is free: rounds need some, too
_ALIGNED = 64  # where the bytes of an array may start that a CPU's programs read in place


class Residence:
    """The columns of a data set, and their copies on devices, each made once.

    Args:
        features: The columns, on the host.
        on_device: As in `FederatedArrays.resident`.
        buffer_bytes: As there.
        client_ids: Whose the rows are, for errors.
        offsets: Client c has the rows `offsets[c]:offsets[c + 1]`.
    """

    def __init__(
        self,
        features: Mapping[str, Column],
        on_device: bool | None = None,
        buffer_bytes: int = BUFFER_BYTES,
        client_ids: Sequence[str] = (),
        offsets: Int[np.ndarray, " offsets"] | None = None,
    ):
        self._client_ids, self._offsets = client_ids, offsets
        self._features = features
        self._on_device = on_device
        self._buffer_bytes = buffer_bytes
        self._copies: dict[tuple[jax.Device, int], dict[str, Column] | None] = {}
        self._on_meshes: dict[Mesh, dict[str, Column] | None] = {}

    def owner(self, row: int) -> str:
        """The client that has a row."""
        assert self._offsets is not None
        return self._client_ids[int(np.searchsorted(self._offsets, row, "right")) - 1]

    @functools.cached_property
    def columns(self) -> dict[str, Column]:
        """The columns as a compiled program takes them: 64-bit numbers are cast to 32 bits.

        One notice names what was cast. Ragged columns of ids stay ragged: a cohort fills up its own
        rows.

        Raises:
            ClientDataError: A feature of strings, or integers that do not fit into 32 bits.
        """
        columns = {name: _narrow(name, column) for name, column in self._features.items()}
        cast = [
            f"{name!r} {self._features[name].dtype} -> {column.dtype}"
            for name, column in columns.items()
            if column is not self._features[name]
        ]
        if cast:
            warnings.warn(f"features are cast for the batches: {', '.join(cast)}", stacklevel=2)
        return columns

    def on(self, device: jax.Device, copies: int = 1) -> dict[str, Column] | None:
        """The columns on a device; None where rounds are to move their own rows.

        Args:
            device: Where they are to be.
            copies: How many of them its memory has to hold.

        Raises:
            ClientDataError: They are to be there, and are larger than what is free.
        """
        if (device, copies) not in self._copies:
            self._copies[device, copies] = self._put(device, copies)
        return self._copies[device, copies]

    def on_each(self, mesh: Mesh) -> dict[str, Column] | None:
        """The columns on every device of a mesh, one copy's rows after the other's.

        None where rounds are to move the rows of each device's clients: with several processes,
        and where some device has no room. The devices of a CPU share its memory.
        """
        if mesh not in self._on_meshes:
            devices = list(mesh.devices.flat)
            in_one_memory = len(devices) if devices[0].platform == "cpu" else 1
            copies: list[dict[str, Column]] = []
            if len({device.process_index for device in devices}) == 1:
                given = (self.on(device, in_one_memory) for device in devices)
                copies = [copy for copy in given if copy is not None]
            everywhere = len(copies) == len(devices)
            self._on_meshes[mesh] = _joined(copies, mesh) if everywhere else None
        return self._on_meshes[mesh]

    @functools.cached_property
    def buffer_rows(self) -> int:
        """How many rows move at once where the data are not on the device."""
        columns = [c for c in self.columns.values() if not isinstance(c, Ragged)]
        row = sum(c.dtype.itemsize * math.prod(c.shape[1:]) for c in jax.tree.leaves(columns))
        ragged = [self.columns[name].values.dtype.itemsize * w for name, w in self.widths.items()]
        return max(1, self._buffer_bytes // max(row + sum(ragged), 1))

    @functools.cached_property
    def widths(self) -> dict[str, int]:
        """Of the ragged columns: the padded length of the longest row."""
        ragged = {n: c for n, c in self.columns.items() if isinstance(c, Ragged)}
        return {n: bucket(int(np.diff(c.offsets).max(initial=0))) for n, c in ragged.items()}

    def _put(self, device: jax.Device, copies: int) -> dict[str, Column] | None:
        if self._on_device and self.widths:
            raise ClientDataError(
                f"feature {min(self.widths)!r}: its rows differ in length, and only a cohort's own "
                "are filled up; leave out data.resident(True)."
            )
        if self._on_device is False or self.widths:
            return None
        size, free = copies * self.num_bytes(device), free_bytes(device)
        if self._on_device is None and (free is None or size > _SHARE * free):
            return None
        if free is not None and size > free:
            raise ClientDataError(
                f"the data need {_gigabytes(size)} on {device}, which has {_gigabytes(free)} free; "
                "without data.resident(True) every round moves the rows of its own clients."
            )
        return jax.device_put(dict(self.columns), device)

    def num_bytes(self, device: jax.Device) -> int:
        """How much memory a copy takes; a CPU reads what is aligned where it lies."""
        leaves = jax.tree.leaves(self.columns)
        in_place = lambda leaf: (
            device.platform == "cpu" and leaf.flags.c_contiguous and _address(leaf) % _ALIGNED == 0
        )
        return sum(0 if in_place(leaf) else leaf.nbytes for leaf in leaves)


def _narrow(name: str, column: Column) -> Column:
    if isinstance(column, Ragged):
        if column.values.dtype in (np.int16, np.int32):
            return column
        raise ClientDataError(
            f"feature {name!r}: its rows differ in length, and a batch is rectangular; encode it "
            "as numbers of one shape or as int16 or int32 ids, or leave it out."
        )
    if isinstance(column, Fraction255) or column.dtype.itemsize < 8:
        return column
    if column.dtype.kind == "f":
        return column.astype(np.float32)
    if column.dtype.kind not in "iu":
        raise ClientDataError(
            f"feature {name!r}: a compiled program has no {column.dtype}; encode it as numbers."
        )
    limit = np.iinfo(np.int32)
    if column.size and (column.max() > limit.max or column.min() < limit.min):
        raise ClientDataError(
            f"feature {name!r}: its integers do not fit into 32 bits; encode them as smaller ones."
        )
    return column.astype(np.int32)


def free_bytes(device: jax.Device) -> int | None:
    """The free memory of a device; None where nobody tells."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform == "cpu" and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def own_rows(cohort: C, size: int | None = None) -> C:
    """The cohort, with only those rows that its batches refer to, gathered on the host.

    Args:
        cohort: Its features are columns on the host.
        size: To which number of rows they are padded.
    """
    used = used_rows(cohort.streams)
    if size is None:
        most = cohort.residence.buffer_rows if cohort.residence else len(used)
        size = min(rows_bucket(len(used), cohort.streams), max(most, len(used)))
    streams = {name: renumbered(stream, used) for name, stream in cohort.streams.items()}
    features = {
        name: padded_column(take_column(column, used), size)
        for name, column in cohort.features.items()
    }
    return dataclasses.replace(cohort, features=features, streams=streams, residence=None)


def used_rows(streams: Mapping[str, Stream]) -> Int[np.ndarray, " rows"]:
    """The rows that the batches of all streams refer to, in order."""
    plans = [stream.rows[: stream.step_offsets[-1]].ravel() for stream in streams.values()]
    return np.unique(np.concatenate(plans))


def renumbered(stream: Stream, rows: Int[np.ndarray, " rows"]) -> Stream:
    """The stream, which counts its rows among these."""
    new = np.zeros_like(stream.rows)
    steps = int(stream.step_offsets[-1])
    new[:steps] = np.searchsorted(rows, stream.rows[:steps])
    return stream._replace(rows=new)


def rows_bucket(num_rows: int, streams: Mapping[str, Stream]) -> int:
    """The padded number of rows; of cohorts with one pipeline it follows from that of the steps.

    Both being rounded up by themselves, rounds of varying cohorts would need a program for every
    pair of sizes.
    """
    batch = {name: stream.rows.shape[1] for name, stream in streams.items()}
    visits = max(int(s.step_offsets[-1]) * batch[name] for name, s in streams.items())
    size = bucket(max(stream.rows.size for stream in streams.values()))
    # Every epoch, every stream visits the rows once more.
    while visits >= 2 * num_rows and size >= 2 * max(num_rows, 1):
        size, visits = size // 2, visits // 2
    return size


def take_column(column: Column, rows: Int[np.ndarray, " rows"], width: int | None = None) -> Column:
    """The column of these rows, ragged ones filled up; see `filled_up` for the width."""
    prefetch(column, rows)
    taken = take_rows(column, rows)
    return filled_up(taken, width) if isinstance(taken, Ragged) else taken


def padded_column(column: Column, size: int) -> Column:
    """The column, with rows of zeros behind it."""
    return jax.tree.map(lambda leaf: padded(leaf, size), column)


def padded(rows: np.ndarray, size: int) -> np.ndarray:
    """The rows, with zeros behind them."""
    whole = np.zeros((size, *rows.shape[1:]), rows.dtype)
    whole[: len(rows)] = rows
    return whole


def _joined(copies: list[dict[str, Column]], mesh: Mesh) -> dict[str, Column]:
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def join(*leaves: jax.Array) -> jax.Array:
        shape = (len(leaves) * len(leaves[0]), *leaves[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, list(leaves))

    return jax.tree.map(join, *copies)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
