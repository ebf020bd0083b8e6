"""The training loop: samples a cohort, runs the round, keeps what it measured, saves the state."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedbridge import checkpoint as files
from fedbridge.jax_core import (
    ClientDataError,
    FederatedArrays,
    LearningAlgorithmState,
    LearningProcess,
    Pipeline,
)
from fedbridge.samplers import Sampler, all_clients

OnRound = Callable[[int, Any], None]
"""Called after every round with its number, from 1, and its metrics."""


class TrainResult(NamedTuple):
    """What a training run ends with.

    Attributes:
        state: After the last round.
        metrics: Of each round that this call ran, in order.
    """

    state: LearningAlgorithmState
    metrics: list[Any]


def train(
    process: LearningProcess,
    data: FederatedArrays,
    batches: Pipeline,
    *,
    rounds: int,
    sampler: Sampler = all_clients,
    state: LearningAlgorithmState | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    on_round: Sequence[OnRound] = (),
) -> TrainResult:
    """Trains for a number of rounds.

    Args:
        process: The algorithm.
        data: The clients.
        batches: How each client's examples become batches.
        rounds: The number of the last round; rounds count from 1.
        sampler: Chooses the cohort of a round.
        state: To start from; default `process.initialize()`.
        seed: Of dropout and the like; belongs to (seed, round, client id).
        checkpoint: A file that holds the state after the last finished round. Where it exists the
            run goes on from there, and the result is that of a run that was never interrupted. Of
            several processes the first one writes it, and all must be able to read it.
        on_round: Called after every round, e.g. to log.

    Raises:
        StateError: The checkpoint is damaged or belongs to another process.
        ClientDataError: There are fewer clients than processes, see `fb.distributed`.

    Example:
        >>> import fedbridge as fb
        >>> data = fb.from_clients({"a": {"x": np.ones((4, 2), "f"), "y": np.zeros(4, "i4")}})
        >>> process = fb.algorithms.fed_avg(
        ...     fb.models.softmax_regression((2,), 3, x="x", y="y"), fb.optimizers.sgdm(0.1))
        >>> result = train(process, data, fb.Batches(batch_size=2), rounds=3)
        >>> [int(m["client_work"]["train"]["num_examples"]) for m in result.metrics]
        [4, 4, 4]
    """
    if data.num_clients < jax.process_count():
        raise ClientDataError(
            f"the data has {data.num_clients} clients, and {jax.process_count()} processes share "
            "them; start no more processes than there are clients."
        )
    current = process.initialize() if state is None else state
    first = 1
    if checkpoint is not None and Path(checkpoint).exists():
        done, saved = files.load(checkpoint, like=(np.int64(0), current))
        current = jax.tree.map(jax.numpy.asarray, saved)
        first = int(done) + 1
    history = []
    for round in range(first, rounds + 1):
        cohort = data.cohort(sampler(round, data.client_ids), batches, round=round, seed=seed)
        current, metrics = process.next(current, cohort)
        history.append(metrics)
        if checkpoint is not None and jax.process_index() == 0:
            files.save(checkpoint, (np.int64(round), current))
        for call in on_round:
            call(round, metrics)
    return TrainResult(current, history)
