"""Aggregators: what a client contributes to a sum, and what the sum becomes.

TFF's factories (aggregators/) compose by nesting; so do these: an aggregator that clips, say, has
an inner one, and calls both its halves. At the bottom stands a sum.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from fedbridge.jax_core._errors import ArgumentError, check_argument, check_bool
from fedbridge.jax_core._trees import tree_scale
from fedbridge.jax_core.metrics import divide_no_nan


class MeasuredProcessOutput(NamedTuple):
    """TFF's output of a process that measures (core/templates/measured_process.py)."""

    state: PyTree
    result: PyTree
    measurements: PyTree


class Aggregator(NamedTuple):
    """A reduction over clients.

    Attributes:
        initialize: `template -> state`, for values that look like the template.
        client: `(state, value, weight, key) -> contribution`, a tree that is summed over clients;
            the state is the server's, the key the client's own.
        server: `(state, sum, key) -> MeasuredProcessOutput(state, result, measurements)`; the key
            is the round's.
        weighted: Whether the clients' weights count: a `WeightedAggregationFactory` in TFF.
    """

    initialize: Callable[[PyTree], PyTree]
    client: Callable[[PyTree, PyTree, Float[Array, ""], Key[Array, ""]], PyTree]
    server: Callable[[PyTree, PyTree, Key[Array, ""]], MeasuredProcessOutput]
    weighted: bool = True


class HostAggregator(NamedTuple):
    """A reduction over clients that runs on the host, with the values of all clients.

    Attributes:
        initialize: `template -> state`, for values that look like the template.
        next: `(state, template, values, weights) -> MeasuredProcessOutput(state, result,
            measurements)`, with a value and a weight of each client, in the order of the cohort.
        weighted: As of any aggregator.
    """

    initialize: Callable[[PyTree], PyTree]
    next: Callable[[PyTree, PyTree, Sequence[PyTree], Sequence[Any]], MeasuredProcessOutput]
    weighted: bool = True


AnyAggregator = Aggregator | HostAggregator


def sum_() -> Aggregator:
    """`Σ vₖ` over clients; weights are dropped (aggregators/sum_factory.py)."""
    return Aggregator(
        initialize=lambda template: (),
        client=lambda state, value, weight, key: value,
        server=lambda state, summed, key: MeasuredProcessOutput(state, summed, ()),
        weighted=False,
    )


def as_weighted_aggregator(unweighted: Aggregator) -> Aggregator:
    """The same aggregator, told the weights, which it drops (aggregators/factory_utils.py).

    What is wrapped around it then sees them: debug measurements become weighted ones.
    """
    check_aggregator("unweighted", unweighted)
    return unweighted._replace(weighted=True)


def check_aggregator(name: str, aggregator: Any) -> None:
    """Refuses what is no aggregator, e.g. a function that makes one, uncalled."""
    is_one = isinstance(aggregator, Aggregator)
    check_argument(is_one, name, aggregator, "one of fedbridge.aggregators, called")


def sum_or(name: str, aggregator: Aggregator | None) -> Aggregator:
    """The aggregator that was given to sum something up, or `sum_()`.

    Raises:
        ArgumentError: It is a weighted one.
    """
    if aggregator is None:
        return sum_()
    check_aggregator(name, aggregator)
    if aggregator.weighted:
        raise ArgumentError(f"{name} is a weighted aggregator; it must be an unweighted one.")
    return aggregator


def count_sum_or(name: str, aggregator: Aggregator | None) -> Aggregator:
    """The same for what counts: it must sum whole numbers, which TFF's sums of reals refuse.

    Raises:
        ArgumentError: It makes real numbers of them, as a clipped or a noisy sum or a mean does.
    """
    sums = sum_or(name, aggregator)
    if aggregator is None:
        return sums
    one, key = jnp.ones((), jnp.int32), jax.random.key(0)

    def of_two() -> Any:
        state = sums.initialize(one)
        told = sums.client(state, one, jnp.ones(()), key)
        return sums.server(state, jax.tree.map(jnp.add, told, told), key).result

    try:
        found: Any = of_two()
        counts = jnp.issubdtype(found.dtype, jnp.integer) and int(found) == 2
    except (TypeError, ValueError):  # what draws or divides knows no whole numbers
        counts = False
    if not counts:
        raise ArgumentError(
            f"{name} does not sum whole numbers; it must be a sum, e.g. fb.aggregators.sum_()."
        )
    return sums


class Parts(NamedTuple):
    """The contributions to the two sums of a mean."""

    value: PyTree
    weight: PyTree


def weighted_mean(
    value_sum: Aggregator | None = None,
    weight_sum: Aggregator | None = None,
    *,
    no_nan_division: bool = False,
) -> Aggregator:
    """`Σ wₖ vₖ / Σ wₖ` over clients (aggregators/mean.py).

    Args:
        value_sum: Sums the weighted values; default `sum_()`.
        weight_sum: Sums the weights; default `sum_()`.
        no_nan_division: Whether the mean is 0 where all weights are zero; otherwise NaN, as in TFF.

    Example:
        >>> mean, key = weighted_mean(), jax.random.key(0)
        >>> parts = [mean.client(mean.initialize(0.0), jnp.float32(v), w, key)
        ...          for v, w in ((1, 1.0), (4, 2.0))]
        >>> total = jax.tree.map(lambda a, b: a + b, *parts)
        >>> float(mean.server(mean.initialize(0.0), total, key).result)
        3.0
    """
    check_bool("no_nan_division", no_nan_division)
    return _mean(
        sum_or("value_sum", value_sum),
        sum_or("weight_sum", weight_sum),
        lambda value, weight: (tree_scale(weight, value), jnp.asarray(weight, jnp.float32)),
        lambda value, weight: OrderedDict(value_sum_process=value, weight_sum_process=weight),
        lambda value, weight: OrderedDict(mean_value=value, mean_weight=weight),
        divide_no_nan if no_nan_division else jnp.divide,
    )


def unweighted_mean(
    value_sum: Aggregator | None = None, count_sum: Aggregator | None = None
) -> Aggregator:
    """`Σ vₖ / number of clients`; weights are dropped.

    Args:
        value_sum: Sums the values; default `sum_()`.
        count_sum: Sums a one for each client; default `sum_()`.
    """
    mean = _mean(
        sum_or("value_sum", value_sum),
        count_sum_or("count_sum", count_sum),
        lambda value, weight: (value, jnp.ones((), jnp.int32)),
        lambda value, count: (value, count),
        lambda value, count: OrderedDict(mean_value=value, mean_count=count),
        jnp.divide,
    )
    return mean._replace(weighted=False)


def _mean(
    values: Aggregator,
    weights: Aggregator,
    weigh: Callable[[PyTree, Any], tuple[PyTree, Any]],
    state_of: Callable[[PyTree, PyTree], Any],
    measured_of: Callable[[PyTree, PyTree], PyTree],
    divide: Callable[[Any, Any], Any],
) -> Aggregator:
    def initialize(template: PyTree) -> PyTree:
        _, one = weigh((), 1.0)
        return state_of(values.initialize(template), weights.initialize(one))

    def client(state: PyTree, value: PyTree, weight: Any, key: Any) -> Parts:
        value_state, weight_state = _both(state)
        value_key, weight_key = jax.random.split(key)
        value, weight = weigh(value, weight)
        return Parts(
            values.client(value_state, value, weight, value_key),
            weights.client(weight_state, weight, weight, weight_key),
        )

    def server(state: PyTree, summed: Parts, key: Any) -> MeasuredProcessOutput:
        value_state, weight_state = _both(state)
        value_key, weight_key = jax.random.split(key)
        value = values.server(value_state, summed.value, value_key)
        weight = weights.server(weight_state, summed.weight, weight_key)
        mean = jax.tree.map(
            lambda leaf: divide(leaf, weight.result.astype(leaf.dtype)), value.result
        )
        return MeasuredProcessOutput(
            state_of(value.state, weight.state),
            mean,
            measured_of(value.measurements, weight.measurements),
        )

    return Aggregator(initialize, client, server)


def _both(state: Any) -> tuple[PyTree, PyTree]:
    value, weight = state.values() if isinstance(state, Mapping) else state
    return value, weight
