"""Estimates that the server keeps of the clients' values: a quantile, or a constant in its place.

    each client k:  bₖ ← 1[xₖ ≤ C]
    the server:     C ← C · exp(−η (mean bₖ − q))

References:
    Andrew et al., 2021. https://arxiv.org/abs/1905.03871
    TFF: aggregators/quantile_estimation.py, with its NoPrivacyQuantileEstimatorQuery of
        tensorflow_privacy/privacy/dp_query/quantile_estimator_query.py
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from fedbridge.jax_core._aggregators import Aggregator, sum_or
from fedbridge.jax_core._errors import check_function
from fedbridge.jax_core.aggregators._arguments import (
    Number,
    check_finite_positive,
    check_number,
    check_positive,
    check_quantile,
)


class EstimationProcess(NamedTuple):
    """An estimate that follows the clients' values (core/templates/estimation_process.py).

    Attributes:
        initialize: `() -> state`.
        client: `(state, value, key) -> contribution`, a tree that is summed over clients.
        server: `(state, sum, key) -> state`.
        report: `state -> estimate`.
    """

    initialize: Callable[[], PyTree]
    client: Callable[[PyTree, Float[Array, ""], Key[Array, ""]], PyTree]
    server: Callable[[PyTree, PyTree, Key[Array, ""]], PyTree]
    report: Callable[[PyTree], Float[Array, ""]]


class QuantileState(NamedTuple):
    """The state of tensorflow_privacy's quantile estimators."""

    current_estimate: Float[Array, ""]
    target_quantile: Float[Array, ""]
    learning_rate: Float[Array, ""]
    below_estimate_state: PyTree

    tff_type = "_GlobalState"


class Below(NamedTuple):
    """What a client tells of its value."""

    below: Float[Array, ""]
    count: Float[Array, ""]


EmptyRound = Callable[[Bool[Any, ""], Float[Any, ""], Float[Any, ""]], Float[Any, ""]]
"""`(anybody, new estimate, old estimate) -> estimate` after a round with or without clients."""


def keep_estimate(
    anybody: Bool[Array, ""], new: Float[Array, ""], old: Float[Array, ""]
) -> Float[Array, ""]:
    """A round without clients leaves the estimate as it was."""
    return jnp.where(anybody, new, old)


def nan_as_tff(
    anybody: Bool[Array, ""], new: Float[Array, ""], old: Float[Array, ""]
) -> Float[Array, ""]:
    """A round without clients makes it 0/0, a NaN for ever after, which no norm exceeds: TFF's."""
    return new


def constant(value: Number) -> EstimationProcess:
    """The estimate that is always the same; its state is `()`."""
    check_positive("value", value)
    return EstimationProcess(
        initialize=lambda: (),
        client=lambda state, value, key: (),
        server=lambda state, summed, key: state,
        report=lambda state: jnp.asarray(value, jnp.float32),
    )


def below_estimate(value: Float[Array, ""], estimate: Float[Array, ""]) -> Float[Array, ""]:
    """½ where the value is at most the estimate, else −½."""
    return (value <= estimate).astype(jnp.float32) - 0.5


def next_estimate(state: QuantileState, mean_below: Float[Array, ""]) -> Float[Array, ""]:
    """C after a round, from the mean of what `below_estimate` gave."""
    fraction = jnp.clip(mean_below + 0.5, 0.0, 1.0)
    step = state.learning_rate * (fraction - state.target_quantile)
    return state.current_estimate * jnp.exp(-step)


def quantile_state(
    initial_estimate: Number,
    target_quantile: Number,
    learning_rate: Number,
    below_estimate_state: PyTree = (),
) -> QuantileState:
    """The state before the first round."""
    as_float = lambda number: jnp.asarray(number, jnp.float32)
    return QuantileState(
        as_float(initial_estimate),
        as_float(target_quantile),
        as_float(learning_rate),
        below_estimate_state,
    )


def quantile_estimation(
    initial_estimate: Number,
    target_quantile: Number,
    learning_rate: Number,
    multiplier: Number = 1.0,
    increment: Number = 0.0,
    *,
    empty_round: EmptyRound = keep_estimate,
    record_sum: Aggregator | None = None,
) -> EstimationProcess:
    """Follows a quantile of the clients' values, geometrically and without noise.

    TFF's `PrivateQuantileEstimationProcess.no_noise`. A value that is NaN counts as above.

    Args:
        initial_estimate: C before the first round.
        target_quantile: q.
        learning_rate: η; a round moves C by a factor of at most exp(η).
        multiplier: r; what is reported is rC + i.
        increment: i.
        empty_round: What becomes of C in a round without clients; `nan_as_tff` in replays.
        record_sum: Sums the `Below` of the clients; default `sum_()`.

    Raises:
        ArgumentError: q not between 0 and 1, an increment below 0, another number not above 0, a
            first C or an η that is infinite.

    Example:
        >>> process, key = quantile_estimation(1.0, 0.5, 0.2), None
        >>> state = process.initialize()
        >>> told = process.client(state, jnp.float32(7.0), key)
        >>> float(process.report(process.server(state, told, key)))  # exp(0.2 · 0.5)
        1.10517...
    """
    check_finite_positive("initial_estimate", initial_estimate)
    check_quantile("target_quantile", target_quantile)
    check_finite_positive("learning_rate", learning_rate)
    check_positive("multiplier", multiplier)
    check_number("increment", increment, "a number of at least 0", lambda x: x >= 0)
    check_function("empty_round", empty_round, "(anybody, new estimate, old estimate)")
    sums = sum_or("record_sum", record_sum)

    def initialize() -> tuple[QuantileState, PyTree]:
        zero = jnp.zeros((), jnp.float32)
        state = quantile_state(initial_estimate, target_quantile, learning_rate)
        return state, sums.initialize(Below(zero, zero))

    def client(state: Any, value: Float[Array, ""], key: Any) -> PyTree:
        one = jnp.ones((), jnp.float32)
        told = Below(below_estimate(value, state[0].current_estimate), one)
        return sums.client(state[1], told, one, key)

    def server(state: Any, summed: PyTree, key: Any) -> tuple[QuantileState, PyTree]:
        old, sum_state = state
        told = sums.server(sum_state, summed, key)
        new = next_estimate(old, told.result.below / told.result.count)
        new = empty_round(told.result.count > 0, new, old.current_estimate)
        return old._replace(current_estimate=new), told.state

    def report(state: Any) -> Float[Array, ""]:
        return multiplier * state[0].current_estimate + increment

    return EstimationProcess(initialize, client, server, report)
