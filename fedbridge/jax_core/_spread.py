"""A cohort laid out for a mesh: each device gets its clients, and nothing of the others.

On the host, in NumPy: the clients are dealt out, the longest first, each to the device that has
the fewest steps so far; every device's part becomes a small cohort of its own, padded to the size
of the largest. Devices without a client get one that has no steps and does not count.

All processes make the same plan, and each gathers the rows of its own devices only.
"""

import dataclasses
import functools
import heapq
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, PyTree

from fedbridge.jax_core._cohort import Cohort, Stream, clients_bucket, make_stream
from fedbridge.jax_core._residence import renumbered, rows_bucket, take_column, used_rows

CLIENTS = "clients"


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "features", "streams", "num_clients", "key", "client_hashes", "state", "counts", "places",
    ],
    meta_fields=["decode", "exact_sizes", "residence", "placed", "placed_for"],
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class SpreadCohort(Cohort):
    """A cohort in parts, one for each device of a mesh.

    `streams`, `client_hashes` and `state` have a leading axis, `[devices, ...]`; in `features` the
    rows of one device stand after those of the other.

    Attributes:
        counts: How many real clients each part has, int32[devices].
        places: Where each client of the cohort is among those of all parts, padding included,
            int32[clients]; what is beyond them for the cohort's own padding.
    """

    counts: Any = None
    places: Any = None

    @property
    def parts(self) -> PyTree:
        """What is spread over the devices."""
        return self.features, self.streams, self.client_hashes, self.state, self.counts

    def part(self, key: Any, parts: PyTree) -> Cohort:
        """One device's cohort, of the round's key and its share of the `parts`."""
        features, *stacked = parts
        streams, hashes, state, count = jax.tree.map(lambda leaf: leaf[0], stacked)
        return Cohort(features, streams, count, key, hashes, state, self.decode, self.exact_sizes)


def spread(cohort: Cohort, mesh: Mesh) -> SpreadCohort:
    """Deals a cohort out to the devices of a mesh."""
    num_devices = mesh.devices.size
    steps: Any = sum(np.diff(stream.step_offsets) for stream in cohort.streams.values())
    device_of = longest_first(steps[: int(cohort.num_clients)], num_devices)
    clients_of = [np.flatnonzero(device_of == device) for device in range(num_devices)]
    clients = clients_bucket(max(map(len, clients_of)))
    dealt = {name: _deal(stream, clients_of, clients) for name, stream in cohort.streams.items()}
    mine = [d for d, device in enumerate(mesh.devices.flat) if device in mesh.local_devices]
    features = cohort.residence.on_each(mesh) if cohort.residence else None
    if features is None:
        features, dealt = _own_rows(cohort, dealt, mine, mesh)

    def part(device: int) -> PyTree:
        streams = {name: stream[device] for name, stream in dealt.items()}
        own = _padded(clients_of[device], clients)
        hashes, state = jax.tree.map(lambda leaf: leaf[own], (cohort.client_hashes, cohort.state))
        return streams, hashes, state, np.int32(len(clients_of[device]))

    places = np.full(len(cohort.client_hashes), num_devices * clients, np.int32)
    for device, own in enumerate(clients_of):
        places[own] = device * clients + np.arange(len(own))
    parts = {d: jax.tree.map(lambda leaf: leaf[None], part(d)) for d in mine}
    streams, hashes, state, counts = _joined(parts, mesh)
    num_clients, key, places = replicate((cohort.num_clients, cohort.key, places), mesh)
    return SpreadCohort(
        features=features,
        streams=streams,
        num_clients=num_clients,
        key=key,
        client_hashes=hashes,
        state=state,
        decode=cohort.decode,
        exact_sizes=cohort.exact_sizes,
        placed=True,
        counts=counts,
        places=places,
    )


def longest_first(
    steps: Int[np.ndarray, " clients"], num_devices: int
) -> Int[np.ndarray, " clients"]:
    """The device of each client: the longest client first, to the one with the least to do.

    Example:
        >>> longest_first(np.array([1, 7, 2, 4]), 2).tolist()
        [0, 0, 1, 1]
    """
    loads = [(0, device) for device in range(num_devices)]
    device_of = np.zeros(len(steps), np.int32)
    for client in np.argsort(-steps, kind="stable"):
        load, device = loads[0]
        device_of[client] = device
        # A client without steps is some work, too.
        heapq.heapreplace(loads, (load + int(steps[client]) + 1, device))
    return device_of


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """The same tree on every device of a mesh; what is there already stays."""
    sharding = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array):
            if leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
                return leaf
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                impl = jax.random.key_impl(leaf)
                return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=impl)
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

    return jax.tree.map(put, tree)


def _own_rows(
    cohort: Cohort, dealt: dict[str, list[Stream]], mine: list[int], mesh: Mesh
) -> tuple[PyTree, dict[str, list[Stream]]]:
    """The rows that each device's streams refer to, and the streams, which count among them."""
    streams_of = [{name: s[d] for name, s in dealt.items()} for d in range(mesh.size)]
    rows_of = list(map(used_rows, streams_of))
    rows = max(map(rows_bucket, map(len, rows_of), streams_of))
    # As wide on all devices, of which a process sees only its own.
    widths = cohort.residence.widths if cohort.residence else {}
    take = lambda device: {
        name: take_column(column, _padded(rows_of[device], rows), widths.get(name))
        for name, column in cohort.features.items()
    }
    counted = {name: list(map(renumbered, s, rows_of)) for name, s in dealt.items()}
    return _joined({device: take(device) for device in mine}, mesh), counted


def _joined(parts: dict[int, PyTree], mesh: Mesh) -> PyTree:
    """Parts, of the devices of this process, as arrays over all devices."""
    sharding = NamedSharding(mesh, PartitionSpec(CLIENTS))
    devices, trees = list(parts), list(parts.values())

    def join(*leaves: Any) -> jax.Array:
        size, *shape = leaves[0].shape
        own = dict(zip(devices, leaves, strict=True))
        piece = lambda index: own[(index[0].start or 0) // size]
        return jax.make_array_from_callback((mesh.size * size, *shape), sharding, piece)

    return jax.tree.map(join, *trees)


def _deal(stream: Stream, clients_of: list[Any], clients: int) -> list[Stream]:
    """The stream of each device's clients, all of one padded size."""
    sizes = np.diff(stream.step_offsets)
    steps_of = [_steps(stream, own) for own in clients_of]
    most = max(map(len, steps_of))
    return [
        make_stream(
            stream.rows[steps],
            stream.sizes[steps],
            np.cumsum([0, *sizes[own]]),
            min_steps=most,
            min_clients=clients,
        )
        for own, steps in zip(clients_of, steps_of, strict=True)
    ]


def _steps(stream: Stream, clients: Int[np.ndarray, " own"]) -> Int[np.ndarray, " steps"]:
    """The steps of these clients."""
    edges = stream.step_offsets
    return np.concatenate([np.arange(0), *(np.arange(edges[c], edges[c + 1]) for c in clients)])


def _padded(indices: Int[np.ndarray, " some"], size: int) -> Int[np.ndarray, " size"]:
    """So many indices: these, and then the first row, which is never asked for."""
    padded = np.zeros(size, np.int64)
    padded[: len(indices)] = indices
    return padded
