"""Measurements beside what an aggregator measures itself: of the clients' values, of the result.

TFF: aggregators/measurements.py, learning/debug_measurements.py. TFF's function of the clients sees
all of them; here it is two halves around a sum, like an aggregator, so that no client is kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fedbridge.jax_core._aggregators import Aggregator, MeasuredProcessOutput, check_aggregator
from fedbridge.jax_core._errors import ArgumentError, check_argument, check_function
from fedbridge.jax_core._trees import check_numbers, tree_norm
from fedbridge.jax_core.aggregators._norms import Norm, global_l2_norm
from fedbridge.jax_core.metrics import divide_no_nan


class ClientMeasurement(NamedTuple):
    """A measurement of the clients' values.

    Attributes:
        client: `(value, weight) -> contribution`, a tree that is summed over clients; `(value)`
            where the aggregator is unweighted.
        server: `sum -> {name: value}`.
    """

    client: Callable[..., PyTree]
    server: Callable[[PyTree], Mapping[str, PyTree]]


class Measured(NamedTuple):
    """The contributions to an aggregator with more measurements."""

    inner: PyTree
    measured: PyTree


def add_measurements(
    inner: Aggregator,
    *,
    client_measurement_fn: ClientMeasurement | None = None,
    server_measurement_fn: Callable[[PyTree], Mapping[str, PyTree]] | None = None,
) -> Aggregator:
    """Adds measurements to those of an aggregator; one of the functions must be given.

    Args:
        inner: What aggregates.
        client_measurement_fn: Of the values (and weights) that the clients contribute.
        server_measurement_fn: `result -> {name: value}`, of what the aggregation gave.

    Raises:
        ArgumentError: No function, or one that takes another number of arguments.

    Example:
        >>> from fedbridge.jax_core import sum_
        >>> largest = lambda result: {"largest": jnp.max(result)}
        >>> aggregator, key = add_measurements(sum_(), server_measurement_fn=largest), None
        >>> told = aggregator.client((), jnp.asarray([1.0, 3.0]), 1.0, key)
        >>> float(aggregator.server((), told, key).measurements["largest"])
        3.0
    """
    check_aggregator("inner", inner)
    if client_measurement_fn is None and server_measurement_fn is None:
        raise ArgumentError(
            "client_measurement_fn and server_measurement_fn are None; at least one must be given."
        )
    if client_measurement_fn is not None:
        right = isinstance(client_measurement_fn, ClientMeasurement)
        check_argument(
            right, "client_measurement_fn", client_measurement_fn,
            "a ClientMeasurement: what a client tells, and what becomes of all of them",
        )  # fmt: skip
        takes = "(value, weight)" if inner.weighted else "(value)"
        check_function("client_measurement_fn.client", client_measurement_fn.client, takes)
        check_function("client_measurement_fn.server", client_measurement_fn.server, "(sum)")
    if server_measurement_fn is not None:
        check_function("server_measurement_fn", server_measurement_fn, "(result)")

    def client(state: PyTree, value: PyTree, weight: Any, key: Any) -> Measured:
        told: PyTree = ()
        if client_measurement_fn is not None:
            told = client_measurement_fn.client(*((value, weight) if inner.weighted else (value,)))
            check_numbers("client_measurement_fn.client(...)", told)
        return Measured(inner.client(state, value, weight, key), told)

    def server(state: PyTree, summed: Measured, key: Any) -> MeasuredProcessOutput:
        output = inner.server(state, summed.inner, key)
        measured = output.measurements
        if client_measurement_fn is not None:
            measured = _with(
                "client_measurement_fn.server(sum)",
                measured,
                client_measurement_fn.server(summed.measured),
            )
        if server_measurement_fn is not None:
            measured = _with(
                "server_measurement_fn(result)", measured, server_measurement_fn(output.result)
            )
        return output._replace(measurements=measured)

    return Aggregator(inner.initialize, client, server, inner.weighted)


def _with(name: str, measured: Any, more: Any) -> OrderedDict[str, PyTree]:
    check_argument(isinstance(more, Mapping), name, more, "a mapping of names to values")
    check_numbers(name, more)
    return OrderedDict(measured or {}, **more)


class _NormSums(NamedTuple):
    """Σ w, Σ w², Σ w n and Σ w n² over clients."""

    weight: Float[Array, ""]
    weight_squared: Float[Array, ""]
    norm: Float[Array, ""]
    norm_squared: Float[Array, ""]


def add_debug_measurements(inner: Aggregator) -> Aggregator:
    """Adds the mean and the deviation of the clients' norms, and the extremes of the aggregate.

        average_client_norm = E n = Σ wₖ nₖ / Σ wₖ
        std_dev_client_norm = sqrt(W² / (W² − Σ wₖ²) · (E n² − (E n)²)),  W = Σ wₖ
        server_update_max, server_update_norm, server_update_min

    L2 norms of what the clients give to `inner`; all weights are 1 where it is unweighted.
    """
    return _add_norms(inner, tree_norm)


def add_debug_measurements_with_mixed_dtype(inner: Aggregator) -> Aggregator:
    """The same for leaves of several dtypes, each leaf's norm taken in its own."""
    return _add_norms(inner, global_l2_norm)


def _add_norms(inner: Aggregator, norm_of: Norm) -> Aggregator:
    def weighted(value: PyTree, weight: Any) -> _NormSums:
        weight, norm = jnp.asarray(weight, jnp.float32), norm_of(value)
        return _NormSums(weight, weight**2, weight * norm, weight * norm**2)

    def unweighted(value: PyTree) -> _NormSums:
        return weighted(value, 1.0)

    def clients(sums: _NormSums) -> OrderedDict[str, PyTree]:
        mean, mean_square = sums.norm / sums.weight, sums.norm_squared / sums.weight
        correction = divide_no_nan(sums.weight**2, sums.weight**2 - sums.weight_squared)
        deviation = jnp.sqrt(correction * (mean_square - mean**2))
        return OrderedDict(average_client_norm=mean, std_dev_client_norm=deviation)

    def server(result: PyTree) -> OrderedDict[str, PyTree]:
        extreme = lambda of: of(
            jnp.stack([of(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(result)])
        )
        return OrderedDict(
            server_update_max=extreme(jnp.max),
            server_update_norm=norm_of(result),
            server_update_min=extreme(jnp.min),
        )

    check_aggregator("inner", inner)
    halves = ClientMeasurement(weighted if inner.weighted else unweighted, clients)
    return add_measurements(inner, client_measurement_fn=halves, server_measurement_fn=server)
