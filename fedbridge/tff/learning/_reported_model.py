"""Models of TFF before 0.20: clients report outputs, and a computation makes metrics of them.

What a client's batches add up to in `local_variables` is its accumulator here.
`report_local_outputs` and `federated_output_computation` are called on the host, once a round, with
all clients' accumulators: what they report need not be sums.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from fedbridge import jax_core as fc
from fedbridge.tff import _arguments as arguments
from fedbridge.tff._computations import function_of
from fedbridge.tff._errors import note
from fedbridge.tff._types import CLIENTS, FederatedType
from fedbridge.tff.learning._variable_model import body_of
from fedbridge.tff.types import infer_type
from fedbridge.tff_io import from_tensorflow, on_host_in_32_bits

_OUTPUTS = "report_local_outputs"
_Outputs = Mapping[str, fc.Metric]

_Measure = Callable[[list[Any]], Any]
"""From what each client reports to the metrics."""


def model_and_training(model_fn: Any) -> tuple[fc.Model, fc.MetricsAggregator | None]:
    """The model that `model_fn` makes, and how its metrics are made where it is of that time."""
    model, measure = _reported(model_fn)
    return model, None if measure is None else _training(measure)


def model_and_evaluation(model_fn: Any) -> tuple[fc.Model, fc.EvaluationAggregator]:
    """The same for an evaluation."""
    model, measure = _reported(model_fn)
    return model, fc.sum_over_rounds if measure is None else _evaluation(measure)


def _reported(model_fn: Any) -> tuple[fc.Model, _Measure | None]:
    made = arguments.made_by(model_fn)
    if hasattr(made, "metric_finalizers") or not hasattr(made, "federated_output_computation"):
        return arguments.core_model_of(made), None

    def outputs(accumulated: list[Any]) -> Any:
        for variable, value in zip(variables, accumulated, strict=True):
            variable.assign(value)
        return made.report_local_outputs()

    def measure(reported: list[Any]) -> Any:
        computation = made.federated_output_computation
        signature = FederatedType(infer_type((reported or [nothing])[0]), CLIENTS)
        found = function_of(computation, signature, "federated_output_computation")(reported)
        return jax.tree.map(np.asarray, found)

    body, variables = body_of(
        made,
        lambda tensors: OrderedDict({_OUTPUTS: tensors}),
        OrderedDict({_OUTPUTS: outputs}),
    )
    model = from_tensorflow(body, note)
    nothing = model.metrics[_OUTPUTS].finalize(model.metrics[_OUTPUTS].zero())
    return model, measure


def _of_clients(metrics: _Outputs, accumulated: Any, count: int, measure: _Measure) -> Any:
    """The metrics of so many clients, `accumulated` being arrays `[clients, ...]`."""
    leaves, metric = [np.asarray(leaf) for leaf in accumulated[_OUTPUTS]], metrics[_OUTPUTS]
    return measure([metric.finalize([leaf[row] for leaf in leaves]) for row in range(count)])


def _training(measure: _Measure) -> fc.MetricsAggregator:
    def server(metrics: _Outputs, sums: fc.ClientOutput, count: Any, key: Any) -> Any:
        def call(accumulated: Any, count: Any) -> Any:
            return _of_clients(metrics, accumulated, int(count), measure)

        one = {_OUTPUTS: [np.asarray(leaf)[None] for leaf in metrics[_OUTPUTS].zero()]}
        return on_host_in_32_bits(call, call(one, 1), sums.kept, count)

    return fc.MetricsAggregator(_kept, server)


def _evaluation(measure: _Measure) -> fc.EvaluationAggregator:
    def server(metrics: _Outputs, sums: fc.ClientOutput, round: fc.Round) -> fc.PerClient:
        return fc.PerClient(sums.kept, round.num_clients)

    def add(metrics: _Outputs, state: Any, accumulated: Any) -> tuple[Any, Any, Any]:
        count = len(jax.tree.leaves(accumulated)[0])
        found = _of_clients(metrics, accumulated, count, measure)
        return state, found, found

    return fc.EvaluationAggregator(lambda metrics: (), _kept, server, add)


def _kept(metrics: _Outputs, accumulated: Any) -> fc.ClientOutput:
    return fc.ClientOutput((), accumulated)
