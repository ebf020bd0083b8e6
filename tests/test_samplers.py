"""Samplers: pure in (seed, round), and what each promises."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fedbridge import samplers
from fedbridge.jax_core import ArgumentError, ClientDataError, FederatedArrays

IDS = [f"c{i}" for i in range(20)]
SIZES = {client_id: i + 1 for i, client_id in enumerate(IDS)}
ALWAYS = {client_id: [(0, 10**6)] for client_id in IDS}
MAKE = {
    "uniform": lambda: samplers.uniform(4, seed=3),
    "seeded_by_round": lambda: samplers.seeded_by_round(4),
    "poisson": lambda: samplers.poisson(0.3, seed=3),
    "weighted_by_size": lambda: samplers.weighted_by_size(4, SIZES, seed=3),
    "fixed": lambda: samplers.fixed(IDS[3:7]),
    "round_robin": lambda: samplers.round_robin(4),
    "available": lambda: samplers.available(ALWAYS, samplers.uniform(4, seed=3)),
}


@pytest.mark.parametrize("name", MAKE)
def test_rounds_may_be_asked_in_any_order(name):
    rounds = list(range(1, 30))
    one, two = MAKE[name](), MAKE[name]()
    forward = {r: one(r, IDS) for r in rounds}
    backward = {r: two(r, IDS) for r in reversed(rounds)}
    assert forward == backward
    assert all(one(r, tuple(IDS)) == forward[r] for r in rounds)
    for cohort in forward.values():
        assert len(set(cohort)) == len(cohort)
        assert set(cohort) <= set(IDS)
    if name != "fixed":
        assert len({tuple(cohort) for cohort in forward.values()}) > 4


@pytest.mark.parametrize("make", [samplers.poisson, samplers.uniform])
def test_without_a_seed_every_sampler_has_its_own_and_keeps_it(make):
    def draw():
        sample = make(0.5 if make is samplers.poisson else 10)
        first = [sample(r, IDS) for r in range(9)]
        assert first == [sample(r, IDS) for r in range(9)]
        return first

    assert draw() != draw()


@given(round=st.integers(0, 2**32 - 1), size=st.integers(0, 20))
def test_seeded_by_round_is_numpys_choice(round, size):
    expected = np.random.RandomState(round).choice(IDS, size, replace=False).tolist()
    assert samplers.seeded_by_round(size)(round, IDS) == expected


def test_poisson_joins_each_client_on_its_own():
    sample = samplers.poisson(0.3, seed=1)
    rounds = 2000
    joined = np.array([[i in set(c) for i in IDS] for c in (sample(r, IDS) for r in range(rounds))])
    # Five standard deviations of a binomial of 2000 draws: of the mean, and of products.
    assert abs(joined.mean(0) - 0.3).max() < 5 * np.sqrt(0.21 / rounds)
    both = (joined[:, 0] & joined[:, 1]).mean()
    assert abs(both - 0.09) < 5 * np.sqrt(0.09 * 0.91 / rounds)
    # sizes vary as a binomial's do: variance 20 * 0.3 * 0.7
    assert abs(joined.sum(1).var() - 4.2) < 5 * 4.2 * np.sqrt(2 / rounds)
    assert samplers.poisson(0.0, seed=1)(1, IDS) == []


def test_weighted_by_size_draws_in_proportion():
    sample = samplers.weighted_by_size(1, SIZES, seed=1)
    draws = [sample(r, IDS)[0] for r in range(4000)]
    for client_id, weight in SIZES.items():
        p = weight / 210
        assert abs(draws.count(client_id) / 4000 - p) < 5 * np.sqrt(p * (1 - p) / 4000)


def test_sizes_may_be_those_of_the_data():
    data = FederatedArrays(("a", "b", "c"), np.array([0, 3, 3, 7]), {"y": np.arange(7)})
    by_data = samplers.weighted_by_size(2, data, seed=5)
    by_hand = samplers.weighted_by_size(2, {"a": 3, "b": 0, "c": 4}, seed=5)
    for r in range(20):
        assert by_data(r, data.client_ids) == by_hand(r, data.client_ids)
        assert "b" not in by_data(r, data.client_ids)


@given(size=st.integers(1, 20), rounds=st.integers(1, 40))
def test_round_robin_is_fair_at_every_moment(size, rounds):
    sample = samplers.round_robin(size)
    count = dict.fromkeys(IDS, 0)
    for r in range(1, rounds + 1):
        for client_id in sample(r, IDS):
            count[client_id] += 1
    assert max(count.values()) - min(count.values()) <= 1
    assert sum(count.values()) == size * rounds


def test_an_availability_trace_bounds_the_choice():
    trace = {"c0": [(1, 3), (5, 6)], "c1": [(2, 4)]}
    sample = samplers.available(trace, samplers.all_clients)
    assert [sample(r, IDS) for r in range(1, 7)] == [
        ["c0"], ["c0", "c1"], ["c1"], [], ["c0"], []
    ]  # fmt: skip
    again = samplers.available(trace, samplers.all_clients, period=10)
    assert all(again(r + 30, IDS) == sample(r, IDS) for r in range(10))


@pytest.mark.parametrize(
    "build, error, words",
    [
        (lambda: samplers.poisson(1.5), ArgumentError, "rate 1.5.*from 0 to 1"),
        (lambda: samplers.poisson(float("nan")), ArgumentError, "rate nan"),
        (
            lambda: samplers.poisson(0.5, seed=-1),
            ArgumentError,
            "seed is -1; it must be",
        ),
        (lambda: samplers.fixed(["zz"])(1, IDS), ClientDataError, "client 'zz'.*fixed list"),
        (lambda: samplers.fixed("c1"), ClientDataError, r"pass \['c1'\]"),
        (lambda: samplers.round_robin(21)(1, IDS), ClientDataError, "21 clients.*20"),
        (lambda: samplers.seeded_by_round(21)(1, IDS), ClientDataError, "21 clients.*20"),
        (
            lambda: samplers.weighted_by_size(1, {"a": 1})(1, IDS),
            ClientDataError,
            "client 'c0'.*no size",
        ),
        (
            lambda: samplers.weighted_by_size(1, {"a": -1}),
            ClientDataError,
            "client 'a'.*size is -1",
        ),
        (
            lambda: samplers.weighted_by_size(2, {"a": 1, "b": 0})(1, ["a", "b"]),
            ClientDataError,
            "2 clients a round of 1",
        ),
        (
            lambda: samplers.available({"a": [(3, 1)]}, samplers.all_clients),
            ClientDataError,
            r"client 'a'.*\(3, 1\)",
        ),
        (
            lambda: samplers.available({}, samplers.uniform(1, seed=0))(1, IDS),
            ClientDataError,
            "1 clients a round of 0",
        ),
        (
            lambda: samplers.available({}, samplers.all_clients, period=0),
            ArgumentError,
            "period is 0; it must be a whole number",
        ),
        (lambda: samplers.uniform(1, seed=2**40), ArgumentError, r"seed is \d+; .* below 2\*\*32"),
        (lambda: samplers.uniform(2, replace=True)(1, []), ClientDataError, "2 clients.* of 0"),
        (lambda: samplers.poisson(0.5)(-1, IDS), ArgumentError, "round is -1; .* at least 0"),
        (lambda: samplers.seeded_by_round(1)(-1, IDS), ArgumentError, "round is -1; .* at least 0"),
        (
            lambda: samplers.seeded_by_round(1)(2**32, IDS),
            ArgumentError,
            r"round is 4294967296; it must be below 2\*\*32",
        ),
    ],
)
def test_what_is_wrong_is_said(build, error, words):
    with pytest.raises(error, match=words):
        build()
