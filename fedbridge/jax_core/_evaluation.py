"""Evaluation as a learning process: the weights stay, the metrics of all rounds add up.

TFF's learning/algorithms/fed_eval.py, and its factories of aggregation over rounds
(learning/metrics/sum_aggregation_factory.py, sampling_aggregation_factory.py).
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fedbridge.jax_core._border import check_counts, to_numpy
from fedbridge.jax_core._client_work import Round, nothing_to_check
from fedbridge.jax_core._clients import ClientOutput, Execution, over_clients
from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._default_execution import default_execution
from fedbridge.jax_core._errors import check_argument, check_whole
from fedbridge.jax_core._metrics_aggregators import (
    Metrics,
    PerClient,
    finalize_metrics,
    padded_clients,
    per_client,
    zero_metrics,
)
from fedbridge.jax_core._process import (
    LearningAlgorithmState,
    LearningProcess,
    LearningProcessOutput,
    learning_process,
)
from fedbridge.jax_core._start import Start, check_start, own_array, placing
from fedbridge.jax_core._states import check_state, form_of_states
from fedbridge.jax_core._steps import Client


class EvaluationAggregator(NamedTuple):
    """How the clients' metrics become those of a round, and of all rounds.

    Attributes:
        initialize: `metrics -> state`, of NumPy arrays: counters of all rounds are int64.
        client: `(metrics, accumulators) -> ClientOutput(summed, kept)`, in the program.
        server: `(metrics, sums, round) -> found`, in the program.
        add: `(metrics, state, found) -> (state, current, total)`, outside of it.
    """

    initialize: Callable[[Metrics], PyTree]
    client: Callable[[Metrics, PyTree], ClientOutput]
    server: Callable[[Metrics, ClientOutput, Round], PyTree]
    add: Callable[[Metrics, PyTree, PyTree], tuple[PyTree, PyTree, PyTree]]


def _add_sums(metrics: Metrics, state: PyTree, found: PyTree) -> tuple[PyTree, PyTree, PyTree]:
    (inner, totals), (sums, current) = state, found
    totals = jax.tree.map(np.add, totals, _variables(sums))
    summed = jax.tree.unflatten(jax.tree.structure(sums), jax.tree.leaves(totals))
    total = jax.tree.map(lambda leaf: np.asarray(leaf)[()], finalize_metrics(metrics, summed))
    return (inner, totals), current, total


def _variables(accumulators: OrderedDict) -> OrderedDict:
    """As TFF keeps them in its state: for each metric a list, or for plain tuples a tuple."""
    container = lambda seen: tuple if type(seen) is tuple else list
    return OrderedDict(
        (name, container(seen)(jax.tree.leaves(seen))) for name, seen in accumulators.items()
    )


sum_over_rounds = EvaluationAggregator(
    initialize=lambda metrics: ((), _variables(to_numpy(zero_metrics(metrics)))),
    client=lambda metrics, accumulators: ClientOutput(accumulators),
    server=lambda metrics, sums, round: (sums.summed, finalize_metrics(metrics, sums.summed)),
    add=_add_sums,
)
"""The metrics of all examples together, of this round and of all; TFF's default."""


def sample_over_rounds(sample_size: int = 100) -> EvaluationAggregator:
    """The metrics of single clients: a sample of the round's, and one of all rounds' clients.

    As TFF's `FinalizeThenSampleFactory`: every client draws a number, the largest stay. Which
    numbers are drawn is fedbridge's own.

    Args:
        sample_size: The most clients of either sample.

    Raises:
        ArgumentError: A sample size that is not a positive whole number.
    """
    check_whole("sample_size", sample_size)

    def initialize(metrics: Metrics) -> OrderedDict:
        values = jax.eval_shape(lambda: finalize_metrics(metrics, zero_metrics(metrics)))
        empty = lambda leaf: to_numpy(np.zeros((0, *leaf.shape), leaf.dtype))
        # TFF's reservoir; it has no use for the seed after the first client.
        return OrderedDict(
            random_seed=np.full(2, -1, np.int64),
            random_values=np.zeros(0, np.int32),
            samples=jax.tree.map(empty, values),
        )

    def server(metrics: Metrics, sums: ClientOutput, round: Round) -> PerClient:
        padded = padded_clients(sums.kept)
        limits = jnp.iinfo(jnp.int32)
        drawn = jax.random.randint(round.key, (padded,), limits.min, limits.max, jnp.int32)
        return PerClient((drawn, sums.kept), round.num_clients)

    def add(metrics: Metrics, state: OrderedDict, found: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        drawn, values = found
        drawn, values = _largest(sample_size, drawn.astype(np.int32), values)
        both = jax.tree.map(lambda old, new: np.concatenate([old, new]), state["samples"], values)
        stay, total = _largest(sample_size, np.concatenate([state["random_values"], drawn]), both)
        state = OrderedDict(state, random_values=stay, samples=total)
        return state, values, total

    return EvaluationAggregator(initialize, per_client.client, server, add)


def _largest(size: int, drawn: np.ndarray, values: PyTree) -> tuple[np.ndarray, PyTree]:
    """The clients with the largest numbers, in the order in which they came."""
    stay = np.sort(np.argsort(-drawn.astype(np.int64), kind="stable")[:size])
    return drawn[stay], jax.tree.map(lambda leaf: leaf[stay], values)


class EvaluationReport(NamedTuple):
    """What becomes of the clients' accumulators.

    Attributes:
        initialize: `() -> state`.
        client: `accumulators -> ClientOutput(summed, kept)`, in the program.
        server: `(sums, round) -> found`, in the program.
        add: `(state, found) -> (state, measurements)`, outside of it.
    """

    initialize: Callable[[], PyTree]
    client: Callable[[PyTree], ClientOutput]
    server: Callable[[ClientOutput, Round], PyTree]
    add: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


def one_model(metrics: Metrics, aggregator: EvaluationAggregator) -> EvaluationReport:
    """TFF's `{"eval": {"current_round_metrics": ..., "total_rounds_metrics": ...}}`.

    Raises:
        ArgumentError: The aggregator is one of training.
    """
    check_argument(
        isinstance(aggregator, EvaluationAggregator),
        "metrics_aggregator",
        aggregator,
        "fb.sum_over_rounds or fb.sample_over_rounds(...)",
    )

    def add(state: PyTree, found: PyTree) -> tuple[PyTree, OrderedDict]:
        state, current, total = aggregator.add(metrics, state, found)
        both = OrderedDict(current_round_metrics=current, total_rounds_metrics=total)
        return state, OrderedDict(eval=both)

    return EvaluationReport(
        initialize=lambda: aggregator.initialize(metrics),
        client=lambda accumulators: aggregator.client(metrics, accumulators),
        server=lambda sums, round: aggregator.server(metrics, sums, round),
        add=add,
    )


def several_models(reports: Mapping[str, EvaluationReport]) -> EvaluationReport:
    """Name to report, for accumulators that are a mapping of the same names."""

    def client(accumulators: Mapping[str, PyTree]) -> ClientOutput:
        outputs = [(name, report.client(accumulators[name])) for name, report in reports.items()]
        return ClientOutput(
            OrderedDict((name, output.summed) for name, output in outputs),
            OrderedDict((name, output.kept) for name, output in outputs),
        )

    def server(sums: ClientOutput, round: Round) -> OrderedDict:
        part = lambda name: ClientOutput(sums.summed[name], sums.kept[name])
        return OrderedDict((n, report.server(part(n), round)) for n, report in reports.items())

    def add(state: PyTree, found: PyTree) -> tuple[OrderedDict, OrderedDict]:
        added = [(n, report.add(state[n], found[n])) for n, report in reports.items()]
        return OrderedDict((n, a[0]) for n, a in added), OrderedDict((n, a[1]) for n, a in added)

    initialize = lambda: OrderedDict((n, report.initialize()) for n, report in reports.items())
    return EvaluationReport(initialize, client, server, add)


def evaluation_process(
    model: Start,
    evaluate: Callable[[PyTree, Client], PyTree],
    report: EvaluationReport,
    execution: Execution = default_execution,
    *,
    name: str = "",
    check_cohort: Callable[[Cohort], None] = nothing_to_check,
) -> LearningProcess:
    """A learning process that evaluates the weights of its state, and leaves them.

    Args:
        model: Its initial weights, and whether it knows masks.
        evaluate: `(weights, client) -> accumulators`.
        report: What becomes of the accumulators.
        execution: How the clients run.
        name: Of the algorithm.
        check_cohort: Called with the cohort before it is placed.
    """
    check_start(model)
    right = isinstance(execution, Execution)
    check_argument(right, "execution", execution, "of the type Execution")

    def initialize() -> LearningAlgorithmState:
        weights = jax.tree.map(own_array, model.initial_weights)
        aggregator = OrderedDict(value_sum_process=(), weight_sum_process=())
        return LearningAlgorithmState(weights, (), report.initialize(), aggregator, ())

    def round(weights: PyTree, cohort: Cohort) -> PyTree:
        def client_fn(weights: PyTree, client: Client) -> ClientOutput:
            return report.client(evaluate(weights, client))

        sums, kept = over_clients(client_fn, weights, cohort, execution)
        return report.server(ClientOutput(sums, kept), Round(cohort.num_clients, cohort.key))

    compiled = execution.compile(round)
    form = form_of_states(initialize)
    place = placing(model, execution, check_cohort)

    def begin(state: LearningAlgorithmState, cohort: Cohort) -> Callable[[], LearningProcessOutput]:
        check_state(form(), state)
        found = compiled(state.global_model_weights, place(cohort))

        def finish() -> LearningProcessOutput:
            work, measured = report.add(state.client_work, to_numpy(found))
            check_counts(measured)
            metrics = OrderedDict(
                distributor=(),
                client_work=measured,
                aggregator=OrderedDict(mean_value=(), mean_weight=()),
                finalizer=(),
            )
            return LearningProcessOutput(state._replace(client_work=work), metrics)

        return finish

    return learning_process(initialize, begin, place, name=name)
