"""A cohort: which rows of the data the clients of one round see, in which order.

An index plan is flat, like the data. Client c owns the steps `step_offsets[c]:step_offsets[c + 1]`
of `rows`, and `sizes` says how many rows of each step are real. The arrays are padded to a few
sizes (`bucket`), so that rounds of different cohorts share a compiled program; what is padded is
never computed, since every loop runs to the real number of steps and clients.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32, Key, PyTree, UInt32

from fedbridge.jax_core._arrays import decode_columns, identity
from fedbridge.jax_core._errors import ClientDataError
from fedbridge.jax_core._model import Batch

TRAIN = "train"


class Stream(NamedTuple):
    """The batches of all clients of a cohort, as indices into the rows of the data.

    Attributes:
        rows: The rows of each batch; padding repeats real rows.
        sizes: The number of real rows of each batch.
        step_offsets: Client c owns the batches `step_offsets[c]:step_offsets[c + 1]`.
    """

    rows: Int32[Any, "steps batch"]
    sizes: Int32[Any, " steps"]
    step_offsets: Int32[Any, " clients+1"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cohort:
    """The clients of one round.

    Attributes:
        features: Columns of rows, encoded; `[rows, ...]` each.
        streams: Named streams of batches; training and evaluation use "train".
        num_clients: The number of real clients.
        key: Belongs to (seed, round).
        client_hashes: Of the client ids; with `key` they give each client its own key.
        state: What each client carries from round to round, `[clients, ...]`; default nothing.
        decode: From decoded columns to the model's batch; runs inside the program.
        exact_sizes: For models without a mask: all sizes of batches that occur. None otherwise.
    """

    features: dict[str, PyTree]
    streams: dict[str, Stream]
    num_clients: Int[Any, ""]
    key: Key[Array, ""]
    client_hashes: UInt32[Any, " clients"]
    state: PyTree = ()
    decode: Callable[[Mapping[str, Any]], Batch] = dataclasses.field(
        default=identity, metadata={"static": True}
    )
    exact_sizes: tuple[int, ...] | None = dataclasses.field(default=None, metadata={"static": True})

    def batch(self, rows: Int[Any, " batch"]) -> Batch:
        """The decoded batch of these rows."""
        taken = jax.tree.map(lambda column: jnp.take(column, rows, axis=0), self.features)
        return self.decode(decode_columns(taken))

    def with_exact_sizes(self) -> "Cohort":
        """The cohort, with the sizes of its batches known to the program."""
        sizes = {int(s) for stream in self.streams.values() for s in np.unique(stream.sizes)}
        return dataclasses.replace(self, exact_sizes=tuple(sorted(sizes - {0})) or (1,))


def bucket(size: int) -> int:
    """The padded size of an axis: the next power of two.

    Example:
        >>> [bucket(n) for n in (0, 1, 5, 64, 65)]
        [1, 1, 8, 64, 128]
    """
    return 1 << max(0, int(size) - 1).bit_length()


def make_stream(plans: Sequence[Any], offsets: Sequence[int], *, min_steps: int = 0) -> Stream:
    """Joins the plans of the clients, each over its own rows, to the plan of a cohort.

    Args:
        plans: Per client `(rows, sizes)`, rows counted from the client's first row.
        offsets: The first row of each client in the features.
        min_steps: Pad to at least this many steps.
    """
    steps = [len(plan.sizes) for plan in plans]
    total = sum(steps)
    padded = bucket(max(total, min_steps))
    batch = max((plan.rows.shape[1] for plan in plans), default=1)
    rows = np.zeros((padded, batch), np.int32)
    sizes = np.zeros(padded, np.int32)
    start = 0
    for plan, offset, count in zip(plans, offsets, steps, strict=True):
        rows[start : start + count] = plan.rows + np.int32(offset)
        sizes[start : start + count] = plan.sizes
        start += count
    clients = bucket(len(plans))
    step_offsets = np.full(clients + 1, total, np.int32)
    step_offsets[0 : len(plans)] = np.cumsum([0, *steps])[:-1]
    return Stream(rows, sizes, step_offsets)


def make_cohort(
    features: dict[str, PyTree],
    streams: dict[str, Stream],
    client_ids: Sequence[str],
    *,
    seed: int = 0,
    round: int = 1,
    decode: Callable[[Mapping[str, Any]], Batch] = identity,
) -> Cohort:
    """A cohort of these clients; randomness belongs to (seed, round, client id, occurrence).

    Raises:
        ClientDataError: A stream refers to a row that the features do not have.
    """
    num_rows = min((len(leaf) for leaf in jax.tree.leaves(features)), default=0)
    for name, stream in streams.items():
        if stream.sizes.any() and stream.rows.max() >= num_rows:
            raise ClientDataError(
                f"stream {name!r} of the cohort: it refers to row {stream.rows.max()}, but the "
                f"features have {num_rows} rows; make its plans from the sizes of the same data."
            )
    key = jax.random.fold_in(jax.random.key(seed), round)
    hashes = np.zeros(bucket(len(client_ids)), np.uint32)
    seen: dict[str, int] = {}
    for i, client_id in enumerate(client_ids):
        occurrence = seen[client_id] = seen.get(client_id, -1) + 1
        hashes[i] = zlib.crc32(f"{client_id}\0{occurrence}".encode())
    num_clients = np.int32(len(client_ids))
    return Cohort(features, streams, num_clients, key, hashes, decode=decode)
