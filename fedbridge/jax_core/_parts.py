"""A round whose rows are too many to move at once: its clients in parts, one part after the other.

A round is a function that calls `over_clients` once. So it can be run in two halves without
knowing it: up to that call for every part, where it is left with the part's sums; and once from
there on, with the sums of all parts. The rows of a part are gathered while the part before it is
computed, and no more than two parts are on the device at a time.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from fedbridge.jax_core._cohort import Cohort, Stream, clients_bucket, make_stream
from fedbridge.jax_core._residence import own_rows, used_rows
from fedbridge.jax_core._trees import tree_add

_FIELDS = ["features", "streams", "num_clients", "key", "client_hashes", "state"]
_STATIC = ["decode", "exact_sizes", "residence", "placed", "placed_for"]


@dataclasses.dataclass(frozen=True)
class CohortInParts(Cohort):
    """A cohort that stays on the host; its round runs in parts.

    Attributes:
        max_rows: The most rows of a part, unless one client alone has more.
    """

    max_rows: int = 0


def in_parts(cohort: Cohort, max_rows: int) -> CohortInParts:
    """The cohort, to be run in parts of at most so many rows."""
    fields: dict[str, Any] = {name: getattr(cohort, name) for name in [*_FIELDS, *_STATIC]}
    return CohortInParts(**fields | {"residence": None, "max_rows": max_rows})


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=[*_FIELDS, "outputs"], meta_fields=_STATIC
)
@dataclasses.dataclass(frozen=True)
class _Part(Cohort):
    """Some clients of a cohort; with `outputs` of all clients, what is left of the cohort."""

    outputs: Any = None

    def over_clients(self, run: Callable[[], tuple[PyTree, PyTree]]) -> tuple[PyTree, PyTree]:
        """Leaves the round with the part's outputs, or goes on with those of all parts."""
        if self.outputs is None:
            raise _Left(run())
        return self.outputs


class _Left(Exception):  # noqa: N818 - no error: how the first half of a round ends
    pass


def leave_or_go_on(
    cohort: Cohort, run: Callable[[], tuple[PyTree, PyTree]]
) -> tuple[PyTree, PyTree]:
    """What `over_clients` returns: what `run` does, but for a round that runs in parts."""
    return cohort.over_clients(run) if isinstance(cohort, _Part) else run()


def first_half(round: Callable) -> Callable:
    """The round up to `over_clients`, whose outputs it returns."""

    def run(*args: Any) -> tuple[PyTree, PyTree]:
        try:
            round(*args)
        except _Left as left:
            return left.args[0]
        raise AssertionError("a round that does not call over_clients")

    return run


def run_in_parts(first: Callable, second: Callable, cohort: CohortInParts) -> Any:
    """Runs a round.

    Args:
        first: The compiled first half, from a cohort to outputs.
        second: The compiled round, from a cohort to what it returns.
        cohort: Whose clients run.
    """
    sums: PyTree = None
    kept: list[PyTree] = []
    for part in _parts(cohort):
        before = sums
        part_sums, part_kept = first(part)
        sums = part_sums if sums is None else tree_add(sums, part_sums)
        count = int(part.num_clients)
        # Left on the device: to fetch it here would be to wait for this part.
        kept.append(jax.tree.map(lambda leaf, count=count: leaf[:count], part_kept))
        jax.block_until_ready(before)  # the rows of the part before that one are free now
    padding = len(cohort.client_hashes) - int(cohort.num_clients)
    together = lambda *leaves: _padded(np.concatenate(leaves), padding)
    outputs = sums, jax.tree.map(together, *kept)
    fields: dict[str, Any] = {name: getattr(cohort, name) for name in [*_FIELDS, *_STATIC]}
    return second(_Part(**fields | {"features": {}, "streams": {}, "outputs": outputs}))


def _parts(cohort: CohortInParts) -> Iterator[_Part]:
    """The parts, each with its own rows, all of one size."""
    count = int(cohort.num_clients)
    rows_of = [len(used_rows(_streams(cohort, client, client + 1))) for client in range(count)]
    size = max(cohort.max_rows, *rows_of)
    edges = [0]
    while edges[-1] < count:
        last, total = edges[-1] + 1, rows_of[edges[-1]]
        while last < count and total + rows_of[last] <= size:
            total += rows_of[last]
            last += 1
        edges.append(last)
    clients = int(max(np.diff(edges)))
    steps = {n: int(max(np.diff(s.step_offsets[edges]))) for n, s in cohort.streams.items()}
    for first, last in itertools.pairwise(edges):
        yield own_rows(_part(cohort, first, last, steps, clients), size)


def _part(cohort: Cohort, first: int, last: int, steps: Mapping[str, int], clients: int) -> _Part:
    """The clients from `first` to `last`, without it, padded as one of so many steps and clients.

    All parts of a cohort are: so they share a program.
    """
    streams = {
        name: make_stream(*stream, min_steps=steps[name], min_clients=clients)
        for name, stream in _streams(cohort, first, last).items()
    }
    padding = clients_bucket(clients) - (last - first)
    own = lambda leaf: _padded(np.asarray(leaf)[first:last], padding)
    return _Part(
        features=cohort.features,
        streams=streams,
        num_clients=np.int32(last - first),
        key=cohort.key,
        client_hashes=own(cohort.client_hashes),
        state=jax.tree.map(own, cohort.state),
        decode=cohort.decode,
        exact_sizes=cohort.exact_sizes,
        placed=True,
    )


def _streams(cohort: Cohort, first: int, last: int) -> dict[str, Stream]:
    """The batches of these clients, unpadded."""

    def own(stream: Stream) -> Stream:
        edges = np.asarray(stream.step_offsets[first : last + 1])
        steps = slice(edges[0], edges[-1])
        return Stream(stream.rows[steps], stream.sizes[steps], edges - edges[0])

    return {name: own(stream) for name, stream in cohort.streams.items()}


def _padded(rows: np.ndarray, padding: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((padding, *rows.shape[1:]), rows.dtype)])
