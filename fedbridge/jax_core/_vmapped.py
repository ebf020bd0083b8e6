"""Several clients at a time: one step of the program is a step of each client of a chunk.

A chunk takes as many steps as its longest client; a client that has fewer goes along without being
changed. So chunks are made of clients of similar length: the longest ones, the next, and so on.
Whoever has only the cohort's order, a sum for example, sees another order of the same numbers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int, PyTree

from fedbridge.jax_core._clients import (
    ClientFn,
    ClientOutput,
    Execution,
    client_key,
    jit_round,
    zeros_of,
    zeros_per_client,
)
from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._errors import check_whole
from fedbridge.jax_core._steps import Client
from fedbridge.jax_core._trees import tree_where

_CHUNK = "chunk"


def vmapped(chunk_size: int = 16) -> Execution:
    """Runs clients in chunks of similar length, each chunk under `jax.vmap`, in one program.

    Memory is that of `chunk_size` clients, however many there are. It pays where a step of one
    client leaves the device idle: on a GPU. A model that knows no mask (`masked=False`) computes
    every batch once for each size of batches that the cohort has.

    Args:
        chunk_size: How many clients run at a time.

    Raises:
        ArgumentError: A size that is not a positive whole number.

    Example:
        >>> import fedbridge as fb
        >>> model = fb.models.softmax_regression((2,), 3)
        >>> process = fb.algorithms.fed_avg(
        ...     model, fb.optimizers.sgdm(0.1), execution=vmapped(chunk_size=8))
    """
    check_whole("chunk_size", chunk_size)

    def over_chunks(
        client_fn: ClientFn, server_values: PyTree, cohort: Cohort
    ) -> tuple[PyTree, PyTree]:
        zeros = zeros_of(client_fn, server_values, cohort)
        order = _longest_first(cohort)
        padded = len(order)
        size = min(chunk_size, padded)

        def one(index: Any, real: Any) -> ClientOutput:
            client = Client(cohort, index, client_key(cohort, index), loop=_masked_loop)
            output = client_fn(server_values, client)
            return output._replace(summed=tree_where(real, output.summed, zeros.summed))

        def run(chunk: Any, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            sums, kept = carry
            places = chunk * size + jnp.arange(size)
            real = places < cohort.num_clients
            # The shortest client fills the last chunk up; what it gives there is dropped.
            clients = order[jnp.minimum(places, padded - 1)]
            outputs = jax.vmap(one, axis_name=_CHUNK)(clients, real)
            sums = jax.tree.map(
                lambda total, each: total + each.sum(0, dtype=total.dtype), sums, outputs.summed
            )
            slots = jnp.where(real, clients, padded)
            kept = jax.tree.map(
                lambda all, each: all.at[slots].set(each, mode="drop"), kept, outputs.kept
            )
            return sums, kept

        num_chunks = -(-jnp.asarray(cohort.num_clients) // size)
        start = zeros.summed, zeros_per_client(zeros.kept, cohort)
        return jax.lax.fori_loop(0, num_chunks, run, start)

    return Execution(over_chunks, jit_round)


def _longest_first(cohort: Cohort) -> Int[Any, " clients"]:
    """The clients by their number of steps in all streams; padded ones last."""
    steps = sum(jnp.diff(jnp.asarray(s.step_offsets)) for s in cohort.streams.values())
    real = jnp.arange(len(cohort.client_hashes)) < cohort.num_clients
    return jnp.argsort(jnp.where(real, -steps, 1))


def _masked_loop(start: Any, stop: Any, run: Callable, carry: PyTree) -> PyTree:
    """Runs to the end of the chunk's longest client; steps after `stop` change nothing."""

    def step(index: Any, carry: PyTree) -> PyTree:
        # The last real step stands in for those after it: its rows exist, its result is dropped.
        new = run(jnp.minimum(index, jnp.maximum(stop - 1, 0)), carry)
        return tree_where(index < stop, new, carry)

    return jax.lax.fori_loop(start, jax.lax.pmax(stop, _CHUNK), step, carry)
