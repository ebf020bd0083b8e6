"""Loops around processes: training, with its cohorts made ahead, and evaluation."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from fedbridge import checkpoint as files
from fedbridge.algorithms.fed_eval import fed_eval
from fedbridge.jax_core import (
    Batches,
    ClientDataError,
    Cohort,
    Execution,
    FederatedArrays,
    LearningAlgorithmState,
    LearningProcess,
    Model,
    ModelWeights,
    Pipeline,
    check_argument,
    check_function,
    check_path,
    check_whole,
    default_device,
    default_execution,
)
from fedbridge.samplers import Sampler, all_clients

OnRound = Callable[[int, Any], None]
"""Called after every round with its number, from 1, and its metrics."""

Evaluate = Callable[[ModelWeights], Any]
"""From the weights of the server to metrics, e.g. `central_eval(model, data)`."""


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
    checkpoint_every: int = 1,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 1,
    on_round: Sequence[OnRound] = (),
    rounds_per_call: int = 1,
) -> TrainResult:
    """Trains for a number of rounds.

    Args:
        process: The algorithm.
        data: The clients.
        batches: How each client's examples become batches.
        rounds: The number of the last round; rounds count from 1.
        sampler: Chooses the cohort of a round; asked ahead, while other rounds run, in a
            thread of its own.
        state: To start from; default `process.initialize()`.
        seed: Of dropout and the like; belongs to (seed, round, client id).
        checkpoint: A file that holds the state after a finished round. Where it exists the run goes
            on from there, and the result is that of a run that was never interrupted. Of several
            processes the first one writes it, and all must be able to read it.
        checkpoint_every: It is written after so many rounds, and after the last.
        evaluate: Called with the weights; what it returns is "evaluation" in a round's metrics.
        evaluate_every: In the rounds that are a multiple of it, however long the run is; itself a
            multiple of `rounds_per_call`.
        on_round: Called after every round, e.g. to log; before the state is saved, so that no
            saved round is missing in a log. A run that was killed in between has logged rounds
            that it computes, and logs, again: a log drops what is beyond the checkpoint, see
            `saved_round`.
        rounds_per_call: How many rounds are computed before the host sees their metrics. They are
            one program where the data are on the device and no schedule is checked between
            rounds, and the result is the same.

    Raises:
        ArgumentError: A number of rounds that is not whole, or another argument that is none.
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
    for name, value, kind in (
        ("process", process, LearningProcess),
        ("data", data, FederatedArrays),
        ("batches", batches, Pipeline),
    ):
        check_argument(isinstance(value, kind), name, value, f"of the type {kind.__name__}")
    check_whole("rounds", rounds, 0)
    check_function("sampler", sampler, "(round, client ids)")
    if evaluate is not None:
        check_function("evaluate", evaluate, "(weights)")
    listed = isinstance(on_round, Sequence) and all(map(callable, on_round))
    check_argument(listed, "on_round", on_round, "a list of functions of (round, metrics)")
    if data.num_clients < jax.process_count():
        raise ClientDataError(
            f"the data has {data.num_clients} clients, and {jax.process_count()} processes share "
            "them; start no more processes than there are clients."
        )
    _check_counts(
        rounds_per_call, checkpoint_every, evaluate_every if evaluate else rounds_per_call
    )
    if checkpoint is not None:
        check_path("checkpoint", checkpoint)
    current = process.initialize() if state is None else state
    first = 1
    if checkpoint is not None and Path(checkpoint).exists():
        done, saved = files.load(checkpoint, (np.int64(0), current), algorithm=process.name)
        current = jax.tree.map(jax.numpy.asarray, saved)
        first = int(done) + 1
    history = []

    device = default_device()  # every thread has its own

    def cohorts_of(numbers: range) -> list[Cohort]:
        with jax.default_device(device):
            return [cohort_of(round) for round in numbers]

    def cohort_of(round: int) -> Cohort:
        cohort = data.cohort(sampler(round, data.client_ids), batches, round=round, seed=seed)
        return process.place(cohort)

    with ThreadPoolExecutor(1, "fedbridge-cohorts") as pool:
        calls = list(_calls(first, rounds, rounds_per_call))
        coming = [pool.submit(cohorts_of, numbers) for numbers in calls[:1]]
        for call, numbers in enumerate(calls):
            finish = process.begin(current, coming.pop().result())
            # Now, when the device has its work, and not before: two threads share one Python.
            coming = [pool.submit(cohorts_of, after) for after in calls[call + 1 : call + 2]]
            current, metrics = finish()
            last, size = numbers[-1], len(numbers)
            if evaluate is not None and last % evaluate_every == 0:
                evaluation = evaluate(process.get_model_weights(current))
                metrics = [*metrics[:-1], OrderedDict(metrics[-1], evaluation=evaluation)]
            history += metrics
            for round, measured in zip(numbers, metrics, strict=True):
                for tell in on_round:
                    tell(round, measured)
            due = last // checkpoint_every > (last - size) // checkpoint_every or last == rounds
            if checkpoint is not None and due and jax.process_index() == 0:
                files.save(checkpoint, (np.int64(last), current), algorithm=process.name)
    return TrainResult(current, history)


def saved_round(process: LearningProcess, checkpoint: str | os.PathLike[str]) -> int:
    """The round after which `train` has saved this checkpoint; 0 where there is none.

    Raises:
        StateError: The checkpoint is damaged or belongs to another process.
    """
    check_path("checkpoint", checkpoint)
    if not Path(checkpoint).exists():
        return 0
    like = np.int64(0), process.initialize()
    return int(files.load(checkpoint, like, algorithm=process.name)[0])


def central_eval(
    model: Model,
    data: FederatedArrays,
    batch_size: int = 100,
    *,
    execution: Execution = default_execution,
) -> Callable[[ModelWeights], OrderedDict[str, PyTree]]:
    """The evaluation of weights on all examples together, as one program.

    `fb.algorithms.fed_eval` evaluates client by client, in TFF's way.

    Args:
        model: The model and its metrics.
        data: The examples, of whichever clients; they are put on the device once, if they fit.
        batch_size: How many of them are looked at together.
        execution: How the program runs.

    Returns:
        `weights -> metrics`, by their names.

    Example:
        >>> import fedbridge as fb
        >>> data = fb.from_clients({"a": {"x": np.ones((4, 2), "f"), "y": np.zeros(4, "i4")}})
        >>> model = fb.models.softmax_regression((2,), 3, x="x", y="y")
        >>> evaluate = central_eval(model, data)
        >>> int(evaluate(model.initial_weights)["num_examples"])
        4
    """
    check_argument(isinstance(data, FederatedArrays), "data", data, "of the type FederatedArrays")
    process = fed_eval(model, execution=execution)
    pooled = data.pooled()
    cohort = process.place(pooled.cohort(pooled.client_ids, Batches(batch_size)))

    def evaluate(weights: ModelWeights) -> OrderedDict[str, PyTree]:
        state = process.set_model_weights(process.initialize(), weights)
        return process.next(state, cohort).metrics["client_work"]["eval"]["current_round_metrics"]

    return evaluate


def _check_counts(rounds_per_call: int, checkpoint_every: int, evaluate_every: int) -> None:
    counts = {
        "rounds_per_call": rounds_per_call,
        "checkpoint_every": checkpoint_every,
        "evaluate_every": evaluate_every,
    }
    for name, count in counts.items():
        check_whole(name, count)
    allowed = f"a multiple of rounds_per_call, which is {rounds_per_call}"
    check_argument(evaluate_every % rounds_per_call == 0, "evaluate_every", evaluate_every, allowed)


def _calls(first: int, last: int, size: int) -> Iterator[range]:
    """The rounds of each call, which end at multiples of the size; a remainder goes one by one.

    Also where a run goes on from another round: a remainder is no reason to compile a program.

    Example:
        >>> [(rounds[0], rounds[-1]) for rounds in _calls(3, 9, 4)]
        [(3, 3), (4, 4), (5, 8), (9, 9)]
    """
    while first <= last:
        whole = first % size == 1 % size and first + size - 1 <= last
        yield range(first, first + (size if whole else 1))
        first += size if whole else 1
