"""A cohort: which rows of the data the clients of one round see, in which order.

An index plan is flat, like the data. Client c owns the steps `step_offsets[c]:step_offsets[c + 1]`
of `rows`, and `sizes` says how many rows of each step are real. The arrays are padded to a few
sizes, so that rounds of different cohorts share a compiled program; what is padded is never
computed, since every loop runs to the real number of steps and clients.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int32, PyTree

from fedbridge.jax_core._arrays import FederatedArrays, identity
from fedbridge.jax_core._columns import (
    Ragged,
    decode_columns,
    filled_up,
    num_rows,
)
from fedbridge.jax_core._errors import ClientDataError, check_argument, is_whole
from fedbridge.jax_core._model import Batch
from fedbridge.jax_core._pipeline import ClientPlan, Pipeline

if TYPE_CHECKING:
    from fedbridge.jax_core._residence import Residence

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
    step_offsets: Int32[Any, " offsets"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["features", "streams", "num_clients", "key", "client_hashes", "state"],
    meta_fields=["decode", "exact_sizes", "residence", "placed", "placed_for"],
)
@dataclasses.dataclass(frozen=True)
class Cohort:
    """The clients of one round.

    The arrays are `Any` to the type checkers: jax rebuilds a cohort around placeholders.

    Attributes:
        features: Columns of rows, encoded; `[rows, ...]` each.
        streams: Named streams of batches; training and evaluation use "train".
        num_clients: The number of real clients, int32.
        key: Belongs to (seed, round).
        client_hashes: Of the client ids, uint32[clients]; with `key` they give each client its own
            key.
        state: What each client carries from round to round, `[clients, ...]`; default nothing.
        decode: From decoded columns to the model's batch; runs inside the program.
        exact_sizes: For models without a mask: all sizes of batches that occur. None otherwise.
        residence: Of the data set whose columns the features are, all of them and on the host;
            None where they are the cohort's own, or on the device.
        placed: Whether it lies where a round takes it.
        placed_for: The process that has checked and placed it, see `LearningProcess.place`.
    """

    features: dict[str, PyTree]
    streams: dict[str, Stream]
    num_clients: Any
    key: Any
    client_hashes: Any
    state: PyTree = ()
    decode: Callable[[Mapping[str, Any]], Batch] = identity
    exact_sizes: tuple[int, ...] | None = None
    residence: "Residence | None" = None
    placed: bool = False
    placed_for: object = None

    def batch(self, rows: Int[Any, " batch"]) -> Batch:
        """The decoded batch of these rows."""
        # `make_cohort` has checked the rows: no bounds are checked in the loop.
        take = lambda leaf: jnp.asarray(leaf).at[rows].get(mode="promise_in_bounds")
        # Ragged columns are on the host: a placed cohort has none.
        taken = {
            name: filled_up(c.take(rows)) if isinstance(c, Ragged) else jax.tree.map(take, c)
            for name, c in self.features.items()
        }
        return self.decode(decode_columns(taken))

    def with_exact_sizes(self) -> "Cohort":
        """The cohort, with the sizes of its batches known to the program."""
        sizes = {int(s) for stream in self.streams.values() for s in np.unique(stream.sizes)}
        return dataclasses.replace(self, exact_sizes=tuple(sorted(sizes - {0})) or (1,))

    def at_round(self, round: int, seed: int = 0) -> "Cohort":
        """The same clients and batches in another round: what is random is drawn anew."""
        _check_key(seed, round)
        return dataclasses.replace(self, key=_key(seed, round))


def _check_key(seed: Any, round: Any) -> None:
    """Refuses a seed or a round's number that has too many bits."""
    fits = is_whole(round, 0) and round < 2**32
    check_argument(fits, "round", round, f"a whole number from 0 to {2**32 - 1}")
    is_seed = is_whole(seed, -(2**63)) and seed < 2**63
    check_argument(is_seed, "seed", seed, "a whole number of 64 bits")


def _key(seed: int, round: int) -> Any:
    # As jax.random.key takes it, in 32 bits; but as one program, for start-up's sake.
    return _key_of(np.int64(seed).astype(np.int32), np.uint32(round))


@jax.jit
def _key_of(seed: Int32[Any, ""], round: Any) -> Any:
    return jax.random.fold_in(jax.random.key(seed), round)


def bucket(size: int, least: int = 1, factor: int = 2) -> int:
    """The padded size of an axis: the next power of two, times `least`.

    Args:
        size: What must fit.
        least: The smallest padded size.
        factor: What is between one padded size and the next.

    Example:
        >>> [bucket(n) for n in (0, 1, 5, 64, 65)]
        [1, 1, 8, 64, 128]
        >>> [bucket(n, least=64, factor=4) for n in (0, 64, 65, 1000)]
        [64, 64, 256, 1024]
    """
    while least < size:
        least *= factor
    return least


def steps_bucket(num_steps: int) -> int:
    """The padded number of steps; coarse, since a step is no more than its rows' numbers."""
    return bucket(num_steps, least=64, factor=4)


def clients_bucket(num_clients: int) -> int:
    """The padded number of clients; finer, as what is kept of each may be large."""
    return bucket(num_clients, least=4)


def make_stream(
    rows: Int[np.ndarray, "steps batch"],
    sizes: Int[np.ndarray, " steps"],
    step_offsets: Int[np.ndarray, " offsets"],
    *,
    min_steps: int = 0,
    min_clients: int = 0,
) -> Stream:
    """A stream of these batches, padded to buckets of at least so many steps and clients."""
    num_steps, num_clients = len(sizes), len(step_offsets) - 1
    steps = steps_bucket(max(num_steps, min_steps))
    clients = clients_bucket(max(num_clients, min_clients))
    padded_rows = np.zeros((steps, rows.shape[1]), np.int32)
    padded_rows[:num_steps] = rows
    padded_sizes = np.zeros(steps, np.int32)
    padded_sizes[:num_steps] = sizes
    padded_offsets = np.full(clients + 1, num_steps, np.int32)
    padded_offsets[: num_clients + 1] = step_offsets
    return Stream(padded_rows, padded_sizes, padded_offsets)


def batch_matrix(rows: np.ndarray, sizes: np.ndarray, batch_size: int) -> np.ndarray:
    """Flat rows as `[steps, batch]`; padding repeats the rows of the batch."""
    starts = np.cumsum(sizes) - sizes
    within = np.arange(batch_size)[None, :] % np.maximum(sizes, 1)[:, None]
    index = starts[:, None] + within
    # An empty batch at the end stands behind the last row.
    index = np.minimum(index, max(len(rows) - 1, 0))
    return rows[index] if len(rows) else np.zeros(index.shape, np.int32)


def narrow(column: Any) -> Any:
    """64-bit features as 32-bit ones, since a program on the device has no others."""
    narrow = {"int64": np.int32, "uint64": np.uint32, "float64": np.float32}
    dtype = str(getattr(column, "dtype", ""))
    return column.astype(narrow[dtype]) if dtype in narrow else column


def join_plans(plans: Sequence[ClientPlan], first_rows: Int[np.ndarray, " clients"]) -> Stream:
    """Joins the plans of clients, each over its own rows, to the stream of a cohort.

    Args:
        plans: Per client the rows and sizes of its batches, rows counted from the client's first.
        first_rows: The first row of each client in the features.
    """
    if not plans:
        return make_stream(np.zeros((0, 1), np.int32), np.zeros(0, np.int32), np.zeros(1, np.int32))
    rows = [plan.rows + np.int32(first) for plan, first in zip(plans, first_rows, strict=True)]
    sizes = [plan.sizes for plan in plans]
    step_offsets = np.cumsum([0, *map(len, sizes)])
    return make_stream(np.concatenate(rows), np.concatenate(sizes), step_offsets)


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
        ClientDataError: A stream refers to a row that the features do not have, or has more
            examples than the counters of one round can hold.
    """
    rows = min(map(num_rows, features.values()), default=0)
    if rows == 0:  # Nobody has data: one row of zeros stands where programs expect a row.
        one = lambda leaf: np.zeros((1, *leaf.shape[1:]), leaf.dtype)
        filled = {n: filled_up(c) if isinstance(c, Ragged) else c for n, c in features.items()}
        features = jax.tree.map(one, filled)
    for name, stream in streams.items():
        if stream.sizes.any() and stream.rows.max() >= rows:
            raise ClientDataError(
                f"stream {name!r} of the cohort: it refers to row {stream.rows.max()}, but the "
                f"features have {rows} rows; make its plans from the sizes of the same data."
            )
        examples = int(stream.sizes.sum(dtype=np.int64))
        if examples >= 2**31:
            raise ClientDataError(
                f"stream {name!r} of the cohort: it has {examples} examples, more than the "
                f"{2**31 - 1} that are counted in one round; take fewer clients a round."
            )
    key = _key(seed, round)
    clients = max(len(stream.step_offsets) - 1 for stream in streams.values())
    hashes = np.zeros(clients, np.uint32)
    hashes[: len(client_ids)] = _client_hashes(client_ids)
    num_clients = np.int32(len(client_ids))
    return Cohort(features, streams, num_clients, key, hashes, decode=decode)


def cohort_of(
    data: FederatedArrays,
    client_ids: Sequence[str],
    batches: Pipeline | Mapping[str, Pipeline],
    *,
    round: int = 1,
    seed: int = 0,
) -> Cohort:
    """The cohort of these clients of a data set; see `FederatedArrays.cohort`."""
    _check_key(seed, round)
    pipelines = {TRAIN: batches} if isinstance(batches, Pipeline) else batches
    named = isinstance(pipelines, Mapping) and len(pipelines) > 0
    right = named and all(isinstance(one, Pipeline) for one in pipelines.values())
    check_argument(right, "batches", batches, "fb.Batches(...), or such a pipeline for each stream")
    listed = isinstance(client_ids, Sequence | np.ndarray)
    check_argument(listed, "client_ids", client_ids, "a list of client ids")
    slices = [data.client_rows(client_id) for client_id in client_ids]
    first_rows = np.array([s.start for s in slices], np.int64)
    if first_rows.max(initial=0) >= 2**31:
        raise ClientDataError(
            f"the data has more rows than the {2**31} that a plan can count; split it with "
            "`data.select`."
        )
    hashes = _client_hashes(client_ids)

    def plan(name: str, pipeline: Pipeline, client: int) -> ClientPlan:
        rng = None
        if not pipeline.seeded:
            stream = zlib.crc32(name.encode())
            rng = np.random.default_rng([seed % 2**63, round % 2**63, hashes[client], stream])
        client_id = client_ids[client]
        offsets = data.client_element_offsets(client_id)
        return pipeline.plan(data.num_examples(client_id), rng, element_offsets=offsets)

    streams = {
        name: join_plans([plan(name, pipeline, c) for c in range(len(client_ids))], first_rows)
        for name, pipeline in pipelines.items()
    }
    cohort = make_cohort(
        data.residence.columns, streams, client_ids, seed=seed, round=round, decode=data.decode
    )
    has_rows = len(data.offsets) > 1 and data.offsets[-1] > 0
    return dataclasses.replace(cohort, residence=data.residence if has_rows else None)


def _client_hashes(client_ids: Sequence[str]) -> list[int]:
    """A number for each client, by its id and by how often the cohort had it before."""
    seen: dict[str, int] = {}
    hashes = []
    for client_id in client_ids:
        occurrence = seen[client_id] = seen.get(client_id, -1) + 1
        hashes.append(zlib.crc32(f"{client_id}\0{occurrence}".encode()))
    return hashes
