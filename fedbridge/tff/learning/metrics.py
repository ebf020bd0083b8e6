"""`tff.learning.metrics`: how the clients' metrics become a round's, and TFF's own metrics."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fedbridge.jax_core import (
    MetricsAggregator,
    check_argument,
    finalize_then_sample as finalize_then_sample,
    sample_over_rounds,
    sum_over_rounds,
    sum_then_finalize as _sum_then_finalize,
)
from fedbridge.tff import tensorflow
from fedbridge.tff._arguments import EvaluationProcess
from fedbridge.tff._computations import PolymorphicComputation, federated_computation
from fedbridge.tff._errors import missing
from fedbridge.tff._intrinsics import federated_map, federated_sum
from fedbridge.tff.learning._functional_model import (
    create_functional_metric_fns as create_functional_metric_fns,
)
from fedbridge.tff.learning._keras_finalizer import (
    create_keras_metric_finalizer as create_keras_metric_finalizer,
)
from fedbridge.tff.learning._keras_metrics import counters

_COUNTERS = ("NumExamplesCounter", "NumBatchesCounter")
_SECURE = (
    "nothing is encrypted in one process, and quantizing for it would change the metrics; write "
)
_missing = missing(
    "tff.learning.metrics",
    {
        "SecureSumFactory": f"{_SECURE}SumThenFinalizeFactory",
        "secure_sum_then_finalize": f"{_SECURE}sum_then_finalize",
        "create_default_secure_sum_quantization_ranges": f"{_SECURE}sum_then_finalize",
    },
)

MetricFinalizersType = OrderedDict[str, Callable[[Any], Any]]
FunctionalMetricFinalizersType = Callable[[OrderedDict[str, Any]], OrderedDict[str, Any]]
MetricsAggregatorType = Callable[..., Any]


class _SumThenFinalize(MetricsAggregator):
    """What builders take as `metrics_aggregator`; called, a computation for a script's own."""

    __slots__ = ()

    def __call__(
        self, metric_finalizers: Any, local_unfinalized_metrics_type: Any = None
    ) -> PolymorphicComputation:
        """Sums the clients' unfinalized metrics, and finalizes them at the server.

        Args:
            metric_finalizers: Name to a function of its unfinalized values; or one function of all.
            local_unfinalized_metrics_type: Not used, as in TFF 0.87.0.
        """

        def finalize(unfinalized: Any) -> Any:
            if callable(metric_finalizers):
                return metric_finalizers(unfinalized)
            each = metric_finalizers.items()
            return OrderedDict((name, function(unfinalized[name])) for name, function in each)

        @federated_computation
        def aggregate(client_local_unfinalized_metrics: Any) -> Any:
            sums: Any = federated_sum(client_local_unfinalized_metrics)
            member = sums.type_signature.member
            return federated_map(tensorflow.computation(finalize, member), sums)

        return aggregate


sum_then_finalize = _SumThenFinalize(*_sum_then_finalize)


class SumThenFinalizeFactory:
    """Sums the metrics of all examples, of a round and of all rounds, for `build_fed_eval`.

    Args:
        metric_finalizers: The model's own.
        initial_unfinalized_metrics: None: metrics start at zero.
        inner_summation_factory: None: sums are exact.

    Raises:
        ArgumentError: Another start, or another sum.
    """

    def __init__(
        self,
        metric_finalizers: Any,
        initial_unfinalized_metrics: Any = None,
        inner_summation_factory: Any = None,
    ):
        for name, given, why in (
            ("initial_unfinalized_metrics", initial_unfinalized_metrics, "metrics start at zero"),
            ("inner_summation_factory", inner_summation_factory, "sums are exact here"),
        ):
            check_argument(given is None, name, given, f"left out: {why}")
        self._finalizers = metric_finalizers

    def create(self, local_unfinalized_metrics_type: Any) -> EvaluationProcess:
        """What `build_fed_eval(metrics_aggregation_process=...)` takes."""
        return EvaluationProcess(sum_over_rounds, self._finalizers)


class FinalizeThenSampleFactory:
    """The metrics of a sample of clients, of a round and of all rounds, for `build_fed_eval`.

    TFF 0.87.0 has it, and its own `build_fed_eval` refuses what it creates.

    Args:
        sample_size: The most clients of either sample.

    Raises:
        ArgumentError: A sample size that is not a positive whole number.
    """

    def __init__(self, sample_size: int = 100):
        self._aggregator = sample_over_rounds(sample_size)

    def create(
        self, metric_finalizers: Any, local_unfinalized_metrics_type: Any
    ) -> EvaluationProcess:
        """What `build_fed_eval(metrics_aggregation_process=...)` takes."""
        return EvaluationProcess(self._aggregator, metric_finalizers)


def __getattr__(name: str) -> Any:  # Keras' classes are made on first use
    return counters()[name] if name in _COUNTERS else _missing(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_COUNTERS})
