"""How the clients' metrics become those of a round.

TFF's aggregators of metrics (learning/metrics/aggregator.py): sums first and finalizes the sum, or
finalizes each client's and keeps a sample of the clients.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int, Key, PyTree

from fedbridge.jax_core._clients import ClientOutput
from fedbridge.jax_core._errors import check_argument, check_whole
from fedbridge.jax_core._model import Metric

Metrics = Mapping[str, Metric]


class PerClient(NamedTuple):
    """Values of single clients, `[clients, ...]`; at the border the padding is cut off.

    Attributes:
        values: A tree of arrays, padded as the cohort is.
        count: How many clients are real.
    """

    values: PyTree
    count: Int[Any, ""]


class MetricsAggregator(NamedTuple):
    """A reduction of metrics over clients.

    Attributes:
        client: `(metrics, accumulators) -> ClientOutput(summed, kept)`.
        server: `(metrics, sums, num_clients, key) -> values`, from what the clients gave together.
    """

    client: Callable[[Metrics, PyTree], ClientOutput]
    server: Callable[[Metrics, ClientOutput, Int[Any, ""], Key[Any, ""]], PyTree]


def check_metrics_aggregator(aggregator: Any) -> None:
    """Refuses what is none, e.g. a function that makes one, uncalled."""
    is_one = isinstance(aggregator, MetricsAggregator)
    check_argument(is_one, "metrics_aggregator", aggregator, "a MetricsAggregator, called")


def padded_clients(kept: PyTree) -> int:
    """Of how many clients these values are, the padding included; 0 where there are no values."""
    return next((len(leaf) for leaf in jax.tree.leaves(kept)), 0)


def zero_metrics(metrics: Metrics) -> OrderedDict[str, PyTree]:
    """The accumulators of a client that has seen nothing."""
    return OrderedDict(
        (name, jax.tree.map(jnp.asarray, metric.zero())) for name, metric in metrics.items()
    )


def finalize_metrics(metrics: Metrics, accumulators: PyTree) -> OrderedDict[str, Any]:
    """The values of the metrics, in the model's order."""
    return OrderedDict((name, m.finalize(accumulators[name])) for name, m in metrics.items())


sum_then_finalize = MetricsAggregator(
    client=lambda metrics, accumulators: ClientOutput(accumulators),
    server=lambda metrics, sums, count, key: finalize_metrics(metrics, sums.summed),
)
"""The metrics of all examples together; TFF's default."""

per_client = MetricsAggregator(
    client=lambda metrics, accumulators: ClientOutput((), finalize_metrics(metrics, accumulators)),
    server=lambda metrics, sums, count, key: PerClient(sums.kept, count),
)
"""The metrics of each client, `[clients, ...]`, in the order of the cohort."""


def finalize_then_sample(sample_size: int = 100) -> MetricsAggregator:
    """The metrics of each client of a random sample, `[min(clients, sample_size), ...]`.

    As TFF's `finalize_then_sample`; which clients are drawn, and in which order, is fedbridge's.

    Raises:
        ArgumentError: A sample size that is not a positive whole number.
    """
    check_whole("sample_size", sample_size)

    def server(metrics: Metrics, sums: ClientOutput, count: Any, key: Any) -> PerClient:
        padded = padded_clients(sums.kept)
        # Padding comes last, behind every real client.
        rank = jnp.where(jnp.arange(padded) < count, jax.random.uniform(key, (padded,)), 2.0)
        drawn = jnp.argsort(rank)[:sample_size]
        values = jax.tree.map(lambda leaf: leaf[drawn], sums.kept)
        return PerClient(values, jnp.minimum(count, sample_size))

    return MetricsAggregator(per_client.client, server)
