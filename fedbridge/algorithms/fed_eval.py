"""Federated evaluation: the server's model on the clients' data.

    each client k:  aₖ ← the metrics' accumulators over all batches of client k
    the metrics of the round are those of Σ aₖ; those of all rounds, of the sum since the start

References:
    TFF: learning/algorithms/fed_eval.py; HEAD (2026): learning/algorithms/fed_multi_model_eval.py
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import PyTree

from fedbridge.jax_core import (
    Client,
    EvaluationAggregator,
    Execution,
    LearningProcess,
    Model,
    ModelWeights,
    Step,
    check_argument,
    check_model,
    default_execution,
    evaluation_process,
    local_evaluation,
    one_model,
    over_steps,
    run_forward,
    several_models,
    sum_over_rounds,
    update_metrics,
    zero_metrics,
)


def fed_eval(
    model: Model,
    *,
    metrics_aggregator: EvaluationAggregator = sum_over_rounds,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds federated evaluation; the state's weights are what is evaluated, and stay.

    Args:
        model: The model and its metrics.
        metrics_aggregator: How the clients' metrics become those of the round and of all rounds;
            `sample_over_rounds()` reports those of single clients.
        execution: How the clients run.

    Returns:
        A process whose metrics are `client_work/eval/{current_round_metrics,total_rounds_metrics}`,
        and whose state adds up the accumulators of all rounds, counters as int64.
    """
    check_model(model)
    report = one_model(model.metrics, metrics_aggregator)
    return evaluation_process(model, local_evaluation(model), report, execution, name="fed_eval")


class _Models(NamedTuple):
    """What a process must know of several models: a `Start`."""

    initial_weights: Mapping[str, ModelWeights]
    masked: bool
    check: Callable[[Any], None]


def fed_multi_eval(
    models: Mapping[str, Model],
    *,
    metrics_aggregator: EvaluationAggregator = sum_over_rounds,
    execution: Execution = default_execution,
) -> LearningProcess:
    """Builds the evaluation of several models in one pass over the clients' data.

    Args:
        models: Name to model, all for the same batches. TFF's `build_fed_multi_model_eval` names
            them "a", "b", ... Several weights of one model are several models:
            `{"old": model._replace(initial_weights=old), "new": ...}`.
        metrics_aggregator: As in `fed_eval`, for each model.
        execution: How the clients run.

    Returns:
        A process as of `fed_eval`, with a mapping of the models' names around the weights, around
        the state of the client work and around its metrics.

    Raises:
        ArgumentError: No model.

    Example:
        >>> import fedbridge as fb
        >>> model = fb.models.softmax_regression((2,), 3)
        >>> process = fed_multi_eval({"old": model, "new": model})
        >>> list(process.initialize().global_model_weights)
        ['old', 'new']
    """
    named = isinstance(models, Mapping)
    kinds = {name: type(model).__name__ for name, model in models.items()} if named else None
    good = bool(kinds) and all(
        isinstance(name, str) and isinstance(model, Model) for name, model in models.items()
    )
    shown = kinds if named else f"a {type(models).__name__}"
    check_argument(good, "models", shown, "at least one model, by its name")

    def evaluate(weights: Mapping[str, ModelWeights], client: Client) -> PyTree:
        def step(seen: OrderedDict, step: Step) -> OrderedDict:
            def one(name: str, model: Model) -> PyTree:
                forward = run_forward(model, weights[name], step, False)
                return update_metrics(model.metrics, seen[name], step, forward)

            return OrderedDict((name, one(name, model)) for name, model in models.items())

        zeros = OrderedDict((name, zero_metrics(model.metrics)) for name, model in models.items())
        return over_steps(step, zeros, client)

    def check(cohort: Any) -> None:
        for model in models.values():
            model.check(cohort)

    start = _Models(
        OrderedDict((name, model.initial_weights) for name, model in models.items()),
        all(model.masked for model in models.values()),
        check,
    )
    reports = {name: one_model(m.metrics, metrics_aggregator) for name, m in models.items()}
    report = several_models(reports)
    return evaluation_process(start, evaluate, report, execution, name="fed_multi_eval")
