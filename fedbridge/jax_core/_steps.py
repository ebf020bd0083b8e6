"""The local steps of a client: one function owns the loop over its batches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from fedbridge.jax_core._cohort import TRAIN, Cohort
from fedbridge.jax_core._errors import check_argument
from fedbridge.jax_core._model import Batch
from fedbridge.jax_core._trees import tree_where


class Step(NamedTuple):
    """One local step.

    Attributes:
        index: Counted from the client's first step.
        batch: The features of the batch.
        mask: Which rows are real; None where all of them are.
        key: The step's own.
    """

    index: Int[Array, ""]
    batch: Batch
    mask: Bool[Array, " batch"] | None
    key: Key[Array, ""]


class Client(NamedTuple):
    """One client of a cohort, inside the program.

    Attributes:
        cohort: The whole cohort, or the device's part of it; the client reads only its own rows.
        index: The client's place in it.
        key: The client's own.
        loop: `jax.lax.fori_loop`, or what stands in for it: a masked loop under `vmap`, plain
            Python while debugging.
    """

    cohort: Cohort
    index: Int[Any, ""]
    key: Key[Array, ""]
    loop: Callable = jax.lax.fori_loop

    @property
    def state(self) -> PyTree:
        """What the client carries from round to round."""
        return jax.tree.map(lambda leaf: leaf[self.index], self.cohort.state)

    def num_steps(self, stream: str = TRAIN) -> Int[Array, ""]:
        """The number of the client's batches in a stream."""
        offsets = jnp.asarray(self.cohort.streams[stream].step_offsets)
        return offsets[self.index + 1] - offsets[self.index]


class Visits(NamedTuple):
    """Which of a client's batches a loop visits, in which order.

    Attributes:
        count: How many steps the loop takes.
        batch: From the number of a step to the number of a batch.
    """

    count: Int[Any, ""]
    batch: Callable[[Int[Any, ""]], Int[Any, ""]]


def every_batch(num_batches: Int[Any, ""]) -> Visits:
    """Every batch once, in order."""
    return Visits(num_batches, lambda step: step)


def over_steps(
    body: Callable[[PyTree, Step], PyTree],
    carry: PyTree,
    client: Client,
    *,
    stream: str = TRAIN,
    visits: Callable[[Int[Any, ""]], Visits] = every_batch,
    limit: int | None = None,
) -> PyTree:
    """Runs `body` over the batches of a client.

    Args:
        body: `(carry, step) -> carry`; with `limit`, `(carry, step) -> (carry, value)`.
        carry: What goes from step to step.
        client: Whose batches.
        stream: Which of the client's streams.
        visits: From the number of the client's batches to those that are visited.
        limit: None runs a dynamic loop: exactly the client's steps, no reverse-mode derivative.
            A number runs a masked scan of so many steps, which differentiates and returns the
            values of the steps, `[limit, ...]` (zeros after the client's last step).

    Returns:
        The carry after the last step; with `limit`, `(carry, values)`.
    """
    streams = client.cohort.streams
    check_argument(
        stream in streams, "stream", stream, f"one of the cohort's: {', '.join(streams)}"
    )
    plan = streams[stream]
    rows, sizes = jnp.asarray(plan.rows), jnp.asarray(plan.sizes)
    first = jnp.asarray(plan.step_offsets)[client.index]
    num_steps, number_of_batch = visits(client.num_steps(stream))
    exact_sizes = client.cohort.exact_sizes

    def run(index: Any, carry: PyTree) -> PyTree:
        # Clipped for a client without batches, of whom a masked loop computes a step in vain.
        at = jnp.minimum(first + number_of_batch(index), len(sizes) - 1)
        step_rows, size = rows[at], sizes[at]
        key = jax.random.fold_in(client.key, index)
        if exact_sizes is None:
            batch = client.cohort.batch(step_rows)
            return body(carry, Step(index, batch, jnp.arange(rows.shape[1]) < size, key))

        def branch(exact: int) -> Callable[[PyTree], PyTree]:
            batch = lambda: client.cohort.batch(step_rows[:exact])
            return lambda carry: body(carry, Step(index, batch(), None, key))

        which = jnp.searchsorted(jnp.asarray(exact_sizes), size)
        return jax.lax.switch(which, [branch(exact) for exact in exact_sizes], carry)

    if limit is None:
        return client.loop(0, num_steps, run, carry)

    def scanned(carry: PyTree, index: Int[Array, ""]) -> tuple[PyTree, PyTree]:
        real = index < num_steps
        # The last real step stands in for those after it: its rows exist, its result is dropped.
        new, value = run(jnp.minimum(index, jnp.maximum(num_steps - 1, 0)), carry)
        zeros = jax.tree.map(jnp.zeros_like, value)
        return tree_where(real, new, carry), tree_where(real, value, zeros)

    return jax.lax.scan(scanned, carry, jnp.arange(limit))
