"""Several rounds in one call: where nothing on the host has to happen between them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from fedbridge.jax_core._cohort import Cohort, Stream


def fused(round: Callable) -> Callable:
    """One round after another, as a function of the state and what `stack` made.

    Args:
        round: `(state, cohort) -> (state, ...)`; what follows the state gets a first axis, rounds.
    """

    def rounds(state: PyTree, cohorts: Cohort) -> tuple[PyTree, ...]:
        def next(state: PyTree, own: Cohort) -> tuple[PyTree, ...]:
            new_state, *found = round(state, dataclasses.replace(own, features=cohorts.features))
            return new_state, tuple(found)

        new_state, found = jax.lax.scan(next, state, dataclasses.replace(cohorts, features={}))
        return new_state, *found

    return rounds


def stack(cohorts: Sequence[Cohort]) -> Cohort | None:
    """Cohorts of the same features as one, `[rounds, ...]`; None where they cannot be stacked."""
    first = cohorts[0]
    alike = all(
        type(cohort) is Cohort
        and cohort.placed
        and cohort.features is first.features
        and cohort.exact_sizes == first.exact_sizes
        and cohort.decode is first.decode
        and cohort.streams.keys() == first.streams.keys()
        and not jax.tree.leaves(cohort.state)
        for cohort in cohorts
    )
    if not alike:
        return None
    streams = {name: _stacked([c.streams[name] for c in cohorts]) for name in first.streams}
    return dataclasses.replace(
        first,
        streams=streams,
        num_clients=np.stack([cohort.num_clients for cohort in cohorts]),
        key=jax.numpy.stack([cohort.key for cohort in cohorts]),
        client_hashes=_of_one_size([cohort.client_hashes for cohort in cohorts]),
    )


def _stacked(streams: Sequence[Stream]) -> Stream:
    return Stream(*map(_of_one_size, zip(*streams, strict=True)))


def _of_one_size(arrays: Sequence[Any]) -> np.ndarray:
    """`[rounds, ...]`; behind a shorter one its last entry is repeated, which no round reads."""
    longest = max(map(len, arrays))
    pad = lambda array: np.concatenate([array, np.repeat(array[-1:], longest - len(array), axis=0)])
    return np.stack([pad(np.asarray(array)) for array in arrays])
