"""Federated evaluation: the server's model on the clients' data.

    each client k:  aₖ ← the metrics' accumulators over all batches of client k
    the metrics of the round are those of Σ aₖ; those of all rounds, of the sum since the start

References:
    TFF: learning/algorithms/fed_eval.py, learning/metrics/sum_aggregation_factory.py
"""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np

from fedbridge.jax_core import (
    Client,
    ClientOutput,
    Cohort,
    Execution,
    LearningAlgorithmState,
    LearningProcess,
    LearningProcessOutput,
    Model,
    ModelWeights,
    at_border,
    finalize_metrics,
    learning_process,
    local_evaluation,
    over_clients,
    sequential,
    to_numpy,
    zero_metrics,
)


def fed_eval(model: Model, *, execution: Execution = sequential) -> LearningProcess:
    """Builds federated evaluation; the state's weights are what is evaluated, and stay.

    Args:
        model: The model and its metrics.
        execution: How the clients run.

    Returns:
        A process whose metrics are `client_work/eval/{current_round_metrics,total_rounds_metrics}`,
        and whose state adds up the accumulators of all rounds, counters as int64.
    """

    def initialize() -> LearningAlgorithmState:
        weights = jax.tree.map(jnp.asarray, model.initial_weights)
        totals = _variables(to_numpy(zero_metrics(model.metrics)))
        aggregator = OrderedDict(value_sum_process=(), weight_sum_process=())
        return LearningAlgorithmState(weights, (), ((), totals), aggregator, ())

    def round(weights: ModelWeights, cohort: Cohort) -> tuple[OrderedDict, OrderedDict]:
        evaluate = local_evaluation(model)

        def client_fn(weights: ModelWeights, client: Client) -> ClientOutput:
            return ClientOutput(evaluate(weights, client))

        sums, _ = over_clients(client_fn, weights, cohort, execution)
        return sums, finalize_metrics(model.metrics, sums)

    compiled = execution.compile(round)

    def next(state: LearningAlgorithmState, cohort: Cohort) -> LearningProcessOutput:
        cohort = at_border(model, state, cohort)
        sums, current = to_numpy(compiled(state.global_model_weights, cohort))
        inner, totals = state.client_work
        totals = jax.tree.map(np.add, totals, _variables(sums))
        summed = jax.tree.unflatten(jax.tree.structure(sums), jax.tree.leaves(totals))
        total = jax.tree.map(np.asarray, finalize_metrics(model.metrics, summed))
        metrics = OrderedDict(
            distributor=(),
            client_work=OrderedDict(
                eval=OrderedDict(
                    current_round_metrics=current,
                    total_rounds_metrics=jax.tree.map(lambda leaf: leaf[()], total),
                )
            ),
            aggregator=OrderedDict(mean_value=(), mean_weight=()),
            finalizer=(),
        )
        return LearningProcessOutput(state._replace(client_work=(inner, totals)), metrics)

    return learning_process(initialize, next)


def _variables(accumulators: OrderedDict) -> OrderedDict:
    """Accumulators as TFF keeps them in its state: for each metric the list of its variables."""
    return OrderedDict((name, jax.tree.leaves(seen)) for name, seen in accumulators.items())
