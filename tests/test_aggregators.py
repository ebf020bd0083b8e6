"""The aggregators: formulas in NumPy, laws, noise, what a round without clients does, errors."""

import functools
import math
import warnings
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from problems import clients, linear_model
from scipy import stats

import fedbridge as fb
from fedbridge.jax_core import ArgumentError, aggregators as agg, over_clients, tree_add

# A few roundings of float32 numbers, 6e-8 each, in units of the largest number in a sum.
CLOSE = 1e-6
KEY = jax.random.key(0)
SHAPES = OrderedDict(a=(3,), b=(2,))
ZEROS = OrderedDict((name, np.zeros(shape, np.float32)) for name, shape in SHAPES.items())

CASES = {
    "sum": agg.sum_,
    "weighted_mean": agg.weighted_mean,
    "unweighted_mean": agg.unweighted_mean,
    "clipping": lambda: agg.clipping(1.0, agg.weighted_mean()),
    "zeroing": lambda: agg.zeroing(5.0, agg.weighted_mean(), 2),
    "robust": agg.robust_aggregator,
    "robust_unweighted": lambda: agg.robust_aggregator(
        weighted=False, debug_measurements_fn=agg.add_debug_measurements
    ),
    "gaussian_fixed": lambda: agg.gaussian_fixed(1.0, 4, 0.5),
    "gaussian_adaptive": lambda: agg.gaussian_adaptive(0.1, 4),
    "dp": lambda: agg.dp_aggregator(1.0, 50),
    "compression": lambda: agg.compression_aggregator(
        debug_measurements_fn=agg.add_debug_measurements_with_mixed_dtype
    ),
    "quantize": lambda: agg.quantize_above_threshold(8, 2),
    "quantize_range": lambda: agg.quantize_above_threshold(8, 2, min_max=[-1.0, 1.0]),
}
DETERMINISTIC = ["clipping", "zeroing", "robust", "robust_unweighted", "compression"]
every_aggregator = pytest.mark.parametrize("name", CASES)


@functools.cache
def halves(name):
    """An aggregator and its halves, compiled once for all tests."""
    aggregator = CASES[name]()
    return aggregator, jax.jit(aggregator.client), jax.jit(aggregator.server)


def aggregate(aggregator, state, values, weights=None, key=KEY, halves=None):
    """One round: the clients' contributions, added up in their order, and the server's part."""
    client, server = halves or (aggregator.client, aggregator.server)
    weights = [1.0] * len(values) if weights is None else weights
    told = [
        client(state, value, np.float32(weight), jax.random.fold_in(key, i))
        for i, (value, weight) in enumerate(zip(values, weights, strict=True))
    ]
    if not told:
        template = jax.tree.map(jnp.zeros_like, ZEROS)
        told = [jax.tree.map(jnp.zeros_like, client(state, template, np.float32(0), key))]
    return server(state, functools.reduce(tree_add, told), key)


def run(name, values, weights=None, state=None, key=KEY):
    aggregator, *compiled = halves(name)
    state = aggregator.initialize(ZEROS) if state is None else state
    return aggregate(aggregator, state, values, weights, key, compiled)


def draw(seed, count, size=1.0):
    rng = np.random.default_rng(seed)
    sizes = size * 10 ** rng.uniform(-1, 1, count)
    return [
        OrderedDict((n, (s * rng.normal(size=d)).astype(np.float32)) for n, d in SHAPES.items())
        for s in sizes
    ]


def flat(value):
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(value)]
    return np.concatenate([np.zeros(0), *leaves]).astype(float)


def assert_close(ours, expected, size=1.0):
    np.testing.assert_allclose(flat(ours), flat(expected), rtol=CLOSE, atol=CLOSE * size)


def form(tree):
    return jax.tree.structure(tree), [
        (x.shape, x.dtype) for x in map(jnp.asarray, jax.tree.leaves(tree))
    ]


# --- formulas, written apart ---


def test_the_robust_aggregator_on_numbers_of_tff():
    """Four clients s · ([1,2,3], [4,5]); recorded from TFF 0.87.0 (`robust_aggregator()`)."""
    value = lambda s: OrderedDict(a=np.float32([1, 2, 3]) * s, b=np.float32([4, 5]) * s)
    values = [value(np.float32(s)) for s in (0.01, 0.1, 1, 100)]
    first = run("robust", values, [1, 2, 3, 4])
    assert_close(first.result["a"], [0.0614520, 0.1229040, 0.1843560])
    assert_close(first.result["b"], [0.2458080, 0.3072600])
    measured = first.measurements
    assert list(measured) == ["zeroing", "zeroing_norm", "zeroed_count"]
    assert list(measured["zeroing"]) == ["clipping", "clipping_norm", "clipped_count"]
    assert measured["zeroing"]["clipping"] == OrderedDict(mean_value=(), mean_weight=())
    assert (measured["zeroing_norm"], measured["zeroing"]["clipping_norm"]) == (21, 1)
    for count in (measured["zeroed_count"], measured["zeroing"]["clipped_count"]):
        assert count == 1
        assert count.dtype == jnp.int32
    second = run("robust", values, [1, 2, 3, 4], first.state)
    third = run("robust", values, [1, 2, 3, 4], second.state)
    assert_close(second.measurements["zeroing_norm"], 34.964874)
    assert_close(second.measurements["zeroing"]["clipping_norm"], 1.0100502)
    assert_close(third.measurements["zeroing_norm"], 58.680634)
    assert_close(third.measurements["zeroing"]["clipping_norm"], 1.0202013)


NUMPY_NORMS = {1: lambda v: np.abs(v).sum(), 2: np.linalg.norm, math.inf: lambda v: np.abs(v).max()}


@pytest.mark.parametrize("order", NUMPY_NORMS)
@pytest.mark.parametrize("zero_first", [True, False], ids=["zeroing outside", "clipping outside"])
def test_nested_limits_in_numpy(order, zero_first):
    """What stands outside meets the value first; a zeroed client keeps its weight."""
    zero_limit, clip_limit = 3.0, 2.0
    values, weights = draw(1, 9), np.arange(1, 10)

    def zero(v):
        return v * (NUMPY_NORMS[order](v) <= zero_limit)

    def clip(v):
        return v * min(1, clip_limit / np.linalg.norm(v)) if v.any() else v

    steps = (zero, clip) if zero_first else (clip, zero)
    vectors = [steps[1](steps[0](flat(value))) for value in values]
    expected = sum(w * v for w, v in zip(weights, vectors, strict=True)) / weights.sum()
    if zero_first:
        limited = agg.zeroing(zero_limit, agg.clipping(clip_limit, agg.weighted_mean()), order)
    else:
        limited = agg.clipping(clip_limit, agg.zeroing(zero_limit, agg.weighted_mean(), order))
    output = aggregate(limited, limited.initialize(ZEROS), values, weights)
    assert_close(output.result, expected, 3.0)
    zeroed = sum(NUMPY_NORMS[order](flat(v)) > zero_limit for v in values)
    assert 0 < zeroed < 9
    if zero_first:
        assert output.measurements["zeroed_count"] == zeroed
        survivors = [zero(flat(v)) for v in values]
        clipped = sum(np.linalg.norm(v) > clip_limit for v in survivors)
        assert output.measurements["zeroing"]["clipped_count"] == clipped
    else:
        clipped = sum(np.linalg.norm(flat(v)) > clip_limit for v in values)
        assert output.measurements["clipped_count"] == clipped


def test_an_estimate_follows_the_quantile_of_the_norms():
    """Ten rounds of the formula in NumPy; the norm that is reported is the one that was used."""
    quantile, rate, multiplier, increment = 0.7, 0.3, 1.5, 0.25
    process = agg.quantile_estimation(0.5, quantile, rate, multiplier, increment)
    limited = agg.zeroing(process, agg.sum_())
    compiled = jax.jit(limited.client), jax.jit(limited.server)
    state, estimate = limited.initialize(ZEROS), 0.5
    for round in range(10):
        values = draw(round, 6, 1 + round / 3)
        output = aggregate(limited, state, values, halves=compiled)
        limit = multiplier * estimate + increment
        assert output.measurements["zeroing_norm"] == pytest.approx(limit, rel=CLOSE)
        norms = [np.abs(flat(v)).max() for v in values]
        assert output.measurements["zeroed_count"] == sum(n > limit for n in norms)
        estimate *= np.exp(-rate * (np.mean([n <= estimate for n in norms]) - quantile))
        state = output.state
        assert state["zeroing_norm"][0].current_estimate == pytest.approx(estimate, rel=CLOSE)


@pytest.mark.parametrize("limit, hit", [(5.0, 0), (4.999, 1)])
def test_a_norm_of_exactly_the_limit_is_no_hit(limit, hit):
    value = OrderedDict(a=np.float32([3, 0, 0]), b=np.float32([0, -4]))
    zeroed = agg.zeroing(limit, agg.sum_(), 2)
    output = aggregate(zeroed, zeroed.initialize(value), [value])
    assert output.measurements["zeroed_count"] == hit
    np.testing.assert_array_equal(flat(output.result), flat(value) * (1 - hit))
    clipped = agg.clipping(limit, agg.sum_())
    output = aggregate(clipped, clipped.initialize(value), [value])
    assert output.measurements["clipped_count"] == hit
    assert_close(output.result, flat(value) * (limit / 5 if hit else 1), 4.0)


def test_an_own_estimation_process():
    """Half the largest norm of the round before, say; TFF takes any process, too."""
    half_mean = agg.EstimationProcess(
        initialize=lambda: jnp.float32(1.0),
        client=lambda state, value, key: (value, jnp.float32(1)),
        server=lambda state, summed, key: 0.5 * summed[0] / summed[1],
        report=lambda state: state,
    )
    limited = agg.clipping(half_mean, agg.sum_())
    values = draw(0, 4)
    output = aggregate(limited, limited.initialize(ZEROS), values)
    mean = np.mean([np.linalg.norm(flat(v)) for v in values])
    assert output.state["clipping_norm"] == pytest.approx(mean / 2, rel=CLOSE)


def test_private_means_without_noise_in_numpy():
    """Divided by the expected number, not by the actual one; the measured clip is the next one."""
    values, expected_clients, quantile, rate = draw(3, 6), 4, 0.6, 0.4
    vectors = [flat(v) for v in values]
    norms = np.array([np.linalg.norm(v) for v in vectors])
    clipped = lambda c: sum(v * min(1, c / n) for v, n in zip(vectors, norms, strict=True))
    fixed = agg.gaussian_fixed(0, expected_clients, 1.5)
    output = aggregate(fixed, fixed.initialize(ZEROS), values)
    assert_close(output.result, clipped(1.5) / expected_clients, 1.5)
    assert output.measurements == OrderedDict(dp_query_metrics=OrderedDict(), dp=())
    adaptive = agg.gaussian_adaptive(0.0, expected_clients, 1.0, quantile, rate)
    state, clip = adaptive.initialize(ZEROS), 1.0
    assert state.is_init_state
    for _ in range(4):
        output = aggregate(adaptive, state, values)
        assert_close(output.result, clipped(clip) / expected_clients, clip)
        below = np.clip(np.sum((norms <= clip) - 0.5) / expected_clients + 0.5, 0, 1)
        clip *= np.exp(-rate * (below - quantile))
        measured = output.measurements["dp_query_metrics"]["clip"]
        assert measured == pytest.approx(clip, rel=CLOSE)
        state = output.state
        assert not state.is_init_state


def test_debug_measurements_in_numpy():
    values, weights = draw(4, 5), np.array([1, 2, 3, 4, 5.0])
    norms = np.array([np.linalg.norm(flat(v)) for v in values])
    for mean, w in ((agg.weighted_mean(), weights), (agg.unweighted_mean(), np.ones(5))):
        debug = agg.add_debug_measurements(mean)
        output = aggregate(debug, debug.initialize(ZEROS), values, weights)
        result, measured = flat(output.result), output.measurements
        average = np.average(norms, weights=w)
        variance = np.average((norms - average) ** 2, weights=w)
        deviation = np.sqrt(variance / (1 - np.sum(w**2) / w.sum() ** 2))
        assert list(measured)[2:] == [
            "average_client_norm",
            "std_dev_client_norm",
            "server_update_max",
            "server_update_norm",
            "server_update_min",
        ]
        expected = [average, deviation, result.max(), np.linalg.norm(result), result.min()]
        # The deviation is a root of a difference of squares.
        np.testing.assert_allclose(list(measured.values())[2:], expected, rtol=1e-5)
    assert deviation == pytest.approx(np.std(norms, ddof=1))


@pytest.mark.parametrize("min_max", [None, [-0.8, 1.5]])
@pytest.mark.parametrize("bits", [1, 8, 16])
def test_quantized_sums_in_numpy(bits, min_max):
    """The levels are equal, also where the values are products that the same program makes."""
    levels = np.float32(2**bits - 1)
    quantize = agg.quantize_above_threshold(bits, 100, stochastic=False, min_max=min_max)
    mean = agg.weighted_mean(quantize)
    rng = np.random.default_rng(bits)
    large = [rng.normal(size=(70, 30)).astype(np.float32) for _ in range(3)]
    small = [rng.normal(size=100).astype(np.float32) for _ in range(3)]
    weights = np.float32([3, 7, 11])
    values = [dict(large=x, small=y) for x, y in zip(large, small, strict=True)]
    compiled = jax.jit(mean.client), jax.jit(mean.server)
    state = mean.initialize(values[0])
    assert state["value_sum_process"] == dict(large=(), small=())
    output = aggregate(mean, state, values, weights, halves=compiled)
    total = np.zeros((70, 30))
    for x, w in zip(large, weights, strict=True):
        x = x * w
        low, high = (x.min(), x.max()) if min_max is None else np.float32(min_max)
        level = np.round((np.clip(x, low, high) - low) / (high - low) * levels)
        total += level.astype(float) / levels * (float(high) - float(low)) + low
    # In units of a term: 11 · 4, over the sum of the weights.
    np.testing.assert_allclose(output.result["large"], total / 21, rtol=0, atol=44 / 21 * CLOSE)
    expected = sum(w * x.astype(float) for w, x in zip(weights, small, strict=True)) / 21
    np.testing.assert_allclose(output.result["small"], expected, rtol=CLOSE, atol=CLOSE)


def test_a_constant_leaf_survives_its_quantization():
    quantize = agg.quantize_above_threshold(8, 3)
    value = np.full(5, 0.7, np.float32)
    output = aggregate(quantize, quantize.initialize(value), [value, value])
    np.testing.assert_array_equal(output.result, value + value)


# --- laws ---


@pytest.mark.parametrize("name", DETERMINISTIC)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 6))
def test_permuting_clients_changes_nothing(name, seed, count):
    rng = np.random.default_rng(seed)
    values, weights = draw(seed, count), rng.integers(1, 9, count)
    order = rng.permutation(count)
    a = run(name, values, weights)
    b = run(name, [values[i] for i in order], weights[order])
    size = max(np.abs(flat(v)).max() for v in values)
    assert_close(a.result, b.result, size)
    assert_close(a.state, b.state)
    counts = [leaf for leaf in jax.tree.leaves(a.measurements) if leaf.dtype == jnp.int32]
    again = [leaf for leaf in jax.tree.leaves(b.measurements) if leaf.dtype == jnp.int32]
    assert counts == again


@pytest.mark.parametrize("name", ["weighted_mean", "clipping", "zeroing", "robust", "compression"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), position=st.integers(0, 3))
def test_a_client_without_weight_changes_no_mean(name, seed, position):
    """It counts among the clients whose norms are looked at, as in TFF."""
    values, weights = draw(seed, 3), [2, 1, 4]
    more, extra = [*values], draw(seed + 1, 1)[0]
    more.insert(position, extra)
    with_it = [*weights]
    with_it.insert(position, 0)
    a, b = run(name, values, weights), run(name, more, with_it)
    size = max(np.abs(flat(v)).max() for v in values)
    assert_close(a.result, b.result, size)


@every_aggregator
def test_the_state_keeps_its_form(name):
    aggregator, *_ = halves(name)
    start = aggregator.initialize(ZEROS)
    output = run(name, draw(0, 3), [1, 2, 3])
    assert form(output.state) == form(start)
    assert form(output.result) == form(ZEROS)
    assert aggregator.weighted == (
        name in {"weighted_mean", "clipping", "zeroing", "robust", "compression"}
    )


@every_aggregator
def test_no_array_grows_with_the_cohort(name):
    """In the program of a round no array has the cohort's axis, but the clients' own keys."""
    aggregator = CASES[name]()
    count = 53
    data = fb.from_clients(clients([1] * count))
    cohort = data.cohort(data.client_ids, fb.Batches(batch_size=1))
    padded = len(cohort.client_hashes)
    assert padded == 64

    def round(state, value, cohort):
        def contribute(state, client):
            scaled = jax.tree.map(lambda leaf: leaf * client.index, value)
            return fb.ClientOutput(aggregator.client(state, scaled, 1.0, client.key))

        sums, _ = over_clients(contribute, state, cohort, fb.sequential)
        return aggregator.server(state, sums, cohort.key)

    value = jax.tree.map(jnp.asarray, ZEROS)
    state = aggregator.initialize(value)
    jaxpr = jax.make_jaxpr(lambda *args: round(*args, cohort))(state, value)
    grown = {
        str(var.aval)
        for equation in equations(jaxpr.jaxpr)
        for var in equation.outvars
        if {count, padded, padded + 1} & set(getattr(var.aval, "shape", ()))
        and not is_random(var.aval)
    }
    assert not grown


def is_random(aval):
    """A key, or the bits that it is made of."""
    return jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key) or aval.dtype == jnp.uint32


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


# --- in algorithms ---


@every_aggregator
def test_federated_averaging_with_it(name, tmp_path):
    traces = []
    model = linear_model()

    def forward(*args):
        traces.append(1)
        return model.forward(*args)

    process = fb.algorithms.fed_avg(
        model._replace(forward=forward), fb.optimizers.sgdm(0.1), aggregator=CASES[name]()
    )
    data = fb.from_clients(clients([5, 3, 6]))
    batches = fb.Batches(batch_size=3)
    start = process.initialize()
    state, metrics = process.next(start, data.cohort(data.client_ids, batches, round=1))
    traced = len(traces)
    fb.save(tmp_path / "state", state)
    resumed = fb.load(tmp_path / "state", like=start)
    a = process.next(state, data.cohort(data.client_ids, batches, round=2))
    b = process.next(resumed, data.cohort(data.client_ids, batches, round=2))
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))
    assert len(traces) == traced
    assert form(a.state) == form(start)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(a))
    # What clients counted is int64 there, what the aggregator counted is TFF's int32.
    integers = [x for x in jax.tree.leaves(metrics["aggregator"]) if x.dtype.kind == "i"]
    assert all(count.dtype == np.int32 for count in integers)


def test_one_client_far_off_is_zeroed_clipped_or_both():
    """The others' update is what comes out, and the counts say so."""
    data = clients([6, 6, 6])
    data["c2"]["x"] *= 1e4
    packed = fb.from_clients(data)
    cohort = packed.cohort(packed.client_ids, fb.Batches(batch_size=3))
    process = fb.algorithms.fed_avg(
        linear_model(), fb.optimizers.sgdm(0.1), aggregator=agg.robust_aggregator()
    )
    state, metrics = process.next(process.initialize(), cohort)
    assert metrics["aggregator"]["zeroed_count"] == 1
    moved = np.abs(
        flat(state.global_model_weights.trainable) - flat(linear_model().initial_weights)
    )
    assert moved.max() < 1


# --- a round without clients ---


def test_a_round_without_clients_leaves_the_norms():
    values = draw(0, 4)
    before = run("robust", values)
    empty = run("robust", [], state=before.state)
    assert form(empty.state) == form(before.state)
    np.testing.assert_array_equal(flat(empty.state), flat(before.state))
    assert np.isnan(flat(empty.result)).all()
    assert empty.measurements["zeroed_count"] == 0


def test_tffs_norms_are_nan_for_ever_after_a_round_without_clients():
    """TFF's habit, by an argument: 0/0 in the query, and nothing exceeds a NaN."""
    for make in (
        lambda: agg.robust_aggregator(empty_round=agg.nan_as_tff),
        lambda: agg.compression_aggregator(empty_round=agg.nan_as_tff, stochastic=False),
        lambda: agg.dp_aggregator(0.0, 4, empty_round=agg.nan_as_tff),
    ):
        spoilt = make()
        state = spoilt.initialize(ZEROS)
        state = aggregate(spoilt, state, []).state
        values = draw(0, 4, 1e6)
        output = aggregate(spoilt, state, values)
        assert np.isnan(output.measurements["zeroing_norm"])
        assert output.measurements["zeroed_count"] == 0
        assert np.isnan(output.state["zeroing_norm"][0].current_estimate)
    # Without a limit, the mean is the plain one.
    robust = agg.robust_aggregator(empty_round=agg.nan_as_tff)
    state = aggregate(robust, robust.initialize(ZEROS), []).state
    limited, plain = aggregate(robust, state, values), run("weighted_mean", values)
    assert_close(limited.result, plain.result, 1e7)


def test_a_private_mean_of_nobody_is_its_noise():
    """Divided by a constant: no NaN, and the finalizer makes its step, as in TFF."""
    quiet = agg.gaussian_adaptive(0.0, 4)
    output = aggregate(quiet, quiet.initialize(ZEROS), [])
    np.testing.assert_array_equal(flat(output.result), 0)
    assert output.measurements["dp_query_metrics"]["clip"] == np.float32(0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_a_value_that_is_not_finite(bad):
    """Infinite, it is zeroed; a NaN exceeds nothing and reaches the sum. Both as in TFF."""
    values = draw(0, 3)
    values[1]["a"][0] = bad
    output = run("robust", values)
    assert output.measurements["zeroed_count"] == np.isinf(bad)
    assert np.isnan(flat(output.result)).any() == np.isnan(bad)
    assert np.isfinite(flat(output.state)).all()


# --- noise ---

DRAWS = 2000
ENTRIES = [np.zeros((4, 10), np.float32), np.zeros(10, np.float32)]


def noise_of(aggregator, zeros, seed=0):
    """`[draws, entries]`: the results of rounds in which clients gave zeros; and the states."""
    state = aggregator.initialize(zeros)
    told = aggregator.client(state, zeros, jnp.float32(1), KEY)
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    outputs = jax.jit(jax.vmap(lambda key: aggregator.server(state, told, key)))(keys)
    leaves = [np.reshape(x, (DRAWS, -1)) for x in jax.tree.leaves(outputs.result)]
    return np.concatenate(leaves, axis=1).astype(float), outputs.state


def assert_normal(sample, deviation):
    """Kolmogorov-Smirnov against N(0, deviation²), and a χ² test of the variance.

    Each rejects an honest generator once in 10,000 seeds; the seed is fixed. With 2,000 draws of 50
    entries one sigma of the χ² test is a deviation wrong by 0.22 %: it sees 1.5 %.
    """
    flat = sample.ravel() / deviation
    assert stats.kstest(flat, "norm").pvalue > 1e-4
    tail = stats.chi2(len(flat)).cdf(np.sum(flat**2))
    assert 5e-5 < tail < 1 - 5e-5


def test_the_noise_of_a_fixed_clip():
    sample, _ = noise_of(agg.gaussian_fixed(0.7, 5, 3.0), ENTRIES)
    assert_normal(sample, 0.7 * 3.0 / 5)
    # Independent between coordinates, of one leaf and of two: |r| √n is normal.
    correlation = np.corrcoef(sample.T)
    assert np.abs(correlation[np.triu_indices(50, 1)]).max() * math.sqrt(DRAWS) < 5


def test_the_noise_of_an_adaptive_clip_and_of_its_count():
    """z' = (z⁻² − (2s)⁻²)^−½ on the values; s on the count, seen in the next clip."""
    z, expected_clients, clip, quantile, rate = 0.8, 40, 0.5, 0.5, 0.2
    s = 0.05 * expected_clients
    aggregator = agg.gaussian_adaptive(z, expected_clients, clip, quantile, rate)
    sample, states = noise_of(aggregator, ENTRIES)
    own = (z**-2 - (2 * s) ** -2) ** -0.5
    assert_normal(sample, own * clip / expected_clients)
    # One client of norm 0 is below: (½ + noise) / expected + ½, far from where it is cut off.
    sum_state = states.query_state.numerator_state.sum_state
    clips = np.asarray(sum_state.l2_norm_clip, float)
    np.testing.assert_allclose(sum_state.stddev, own * clips, rtol=CLOSE)
    below = quantile - np.log(clips / clip) / rate
    noise = (below - 0.5) * expected_clients - 0.5
    assert_normal(noise, s)
    assert abs(np.corrcoef(noise, sample[:, 0])[0, 1]) * math.sqrt(DRAWS) < 4.5


def test_noise_belongs_to_seed_and_round():
    """The same seed and round, the same noise; another of either, another noise."""
    aggregator = agg.gaussian_fixed(1.0, 3, 0.5)
    process = fb.algorithms.fed_avg(linear_model(), fb.optimizers.sgdm(0.1), aggregator=aggregator)
    data = fb.from_clients(clients([4, 4]))
    start = process.initialize()

    def weights(ids=("c0", "c1"), **kwargs):
        cohort = data.cohort(list(ids), fb.Batches(batch_size=4), **kwargs)
        return flat(process.next(start, cohort).state.global_model_weights.trainable)

    first = weights(round=1, seed=3)
    np.testing.assert_array_equal(first, weights(round=1, seed=3))
    assert np.abs(first - weights(round=2, seed=3)).min() > 1e-6
    assert np.abs(first - weights(round=1, seed=4)).min() > 1e-6
    # Nor to a position: the order of the clients is none of its business.
    np.testing.assert_allclose(first, weights(("c1", "c0"), round=1, seed=3), rtol=0, atol=1e-6)


def test_stochastic_rounding_is_unbiased_and_the_clients_own():
    """2,000 draws of 40 entries: each mean within 5 of its deviations; all draws at neighbours."""
    quantize = agg.quantize_above_threshold(4, 3)
    value = np.random.default_rng(0).normal(size=40).astype(np.float32)
    keys = jax.random.split(KEY, DRAWS)
    client = jax.jit(jax.vmap(lambda key: quantize.client((), value, jnp.float32(1), key)))
    drawn = np.asarray(client(keys).values, float)
    step = (value.max() - value.min()) / 15
    exact = (value.astype(float) - value.min()) / step
    levels = (drawn - value.min()) / step
    assert np.abs(levels - np.round(levels)).max() < 1e-4
    assert np.abs(levels - exact).max() < 1 + 1e-4
    up = exact - np.floor(exact)
    deviation = np.sqrt(up * (1 - up) / DRAWS)
    # The two extremes are levels themselves and never move, but for a rounding.
    assert np.all(np.abs(levels.mean(0) - exact) < 5 * deviation + 1e-4)
    again = quantize.client((), value, jnp.float32(1), keys[0]).values
    np.testing.assert_allclose(again, drawn[0], rtol=0, atol=CLOSE)
    assert len({draw.tobytes() for draw in drawn}) == DRAWS


# --- what is refused ---


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: agg.clipping(0.0, agg.weighted_mean()), "clipping_norm is 0.0; .* number above 0"),
        (lambda: agg.clipping(-1, agg.weighted_mean()), "clipping_norm is -1; .* number above 0"),
        (lambda: agg.clipping(math.nan, agg.weighted_mean()), "clipping_norm is nan"),
        (lambda: agg.clipping("1", agg.weighted_mean()), "clipping_norm is '1'; .* number above 0"),
        (lambda: agg.clipping(True, agg.weighted_mean()), "clipping_norm is True"),
        (lambda: agg.zeroing(0.0, agg.weighted_mean()), "zeroing_norm is 0.0; .* number above 0"),
        (
            lambda: agg.zeroing(1.0, agg.weighted_mean(), 3.0),
            "norm_order is 3.0; .* 1, 2 or infinity",
        ),
        (lambda: agg.zeroing(1.0, agg.weighted_mean(), "inf"), "norm_order is 'inf'"),
        (lambda: agg.quantile_estimation(0.0, 0.5, 0.1), "initial_estimate is 0.0; .* above 0"),
        (lambda: agg.quantile_estimation(1.0, 1.5, 0.1), "target_quantile is 1.5; .* 0 and 1"),
        (lambda: agg.quantile_estimation(1.0, -0.1, 0.1), "target_quantile is -0.1"),
        (lambda: agg.quantile_estimation(1.0, 0.0, 0.1), "target_quantile is 0.0; .* excluded"),
        (lambda: agg.quantile_estimation(1.0, 0.5, 0.0), "learning_rate is 0.0; .* above 0"),
        (lambda: agg.quantile_estimation(1.0, 0.5, 0.1, 0.0), "multiplier is 0.0"),
        (
            lambda: agg.quantile_estimation(1.0, 0.5, 0.1, 1.0, -1.0),
            "increment is -1.0; .* least 0",
        ),
        (lambda: agg.gaussian_fixed(-1.0, 4, 1.0), "noise_multiplier is -1.0; .* at least 0"),
        (lambda: agg.gaussian_fixed(math.inf, 4, 1.0), "noise_multiplier is inf; .* finite"),
        (lambda: agg.gaussian_fixed(1.0, 0, 1.0), "clients_per_round is 0; .* above 0"),
        (lambda: agg.gaussian_fixed(1.0, 4, 0.0), "clip is 0.0; .* finite number above 0"),
        (lambda: agg.gaussian_fixed(1.0, 4, math.inf), "clip is inf; .* finite number above 0"),
        (lambda: agg.gaussian_fixed(1.0, 4, None), "clip is None; .* finite number above 0"),
        (lambda: agg.gaussian_adaptive(0.1, -3), "clients_per_round is -3"),
        (lambda: agg.gaussian_adaptive(0.1, 9, 0.0), "initial_l2_norm_clip is 0.0"),
        (lambda: agg.gaussian_adaptive(0.1, 9, 0.1, 2.0), "target_unclipped_quantile is 2.0"),
        (
            lambda: agg.gaussian_adaptive(0.1, 9, 0.1, 0.5, -0.1),
            "learning_rate is -0.1; .* least 0",
        ),
        (
            lambda: agg.gaussian_adaptive(0.1, 9, clipped_count_stddev=-1.0),
            "clipped_count_stddev is -1.0; .* at least 0",
        ),
        (
            lambda: agg.gaussian_adaptive(1.0, 5),
            r"clipped_count_stddev is 0.25, by default .* above 0.5",
        ),
        (lambda: agg.dp_aggregator(1.0, 5), r"clipped_count_stddev is 0.25"),
        (lambda: agg.dp_aggregator("1", 5), "noise_multiplier is '1'"),
        (lambda: agg.quantize_above_threshold(0), "quantization_bits is 0; .* from 1 to 16"),
        (lambda: agg.quantize_above_threshold(17), "quantization_bits is 17"),
        (lambda: agg.quantize_above_threshold(8, -1), "threshold is -1; .* at least 0"),
        (
            lambda: agg.quantize_above_threshold(min_max=[2.0, 1.0]),
            r"min_max is \[2.0, 1.0\]; .* smaller one first",
        ),
        (
            lambda: agg.quantize_above_threshold(min_max=[1.0]),
            r"min_max is \[1.0\]; .* two numbers",
        ),
        (lambda: agg.quantize_above_threshold(min_max=[0.0, math.inf]), r"min_max\[1\] is inf"),
        (lambda: agg.weighted_mean(agg.weighted_mean()), "value_sum is a weighted aggregator"),
        (lambda: agg.weighted_mean(None, agg.weighted_mean()), "weight_sum is a weighted"),
        (lambda: agg.unweighted_mean(None, agg.weighted_mean()), "count_sum is a weighted"),
        (lambda: agg.clipping(1.0, agg.sum_(), agg.weighted_mean()), "clipped_count_sum is a wei"),
        (
            lambda: agg.robust_aggregator(debug_measurements_fn=lambda _: agg.sum_()),
            "debug_measurements_fn .* unweighted; it must be weighted",
        ),
        (lambda: agg.add_measurements(agg.sum_()), "are None; at least one"),
        (
            lambda: agg.add_measurements(
                agg.sum_(),
                client_measurement_fn=agg.ClientMeasurement(lambda value, weight: 0, dict),
            ),
            r"client_measurement_fn.client is .*; it must be a function of \(value\)",
        ),
        (
            lambda: agg.add_measurements(
                agg.weighted_mean(),
                client_measurement_fn=agg.ClientMeasurement(lambda value: 0, lambda sums: {}),
            ),
            r"client_measurement_fn.client is .*; it must be a function of \(value, weight\)",
        ),
        (
            lambda: agg.add_measurements(agg.sum_(), server_measurement_fn=lambda a, b: {}),
            r"server_measurement_fn is .*; it must be a function of \(result\)",
        ),
    ],
)
def test_what_is_refused(build, words):
    with pytest.raises(ArgumentError, match=words):
        build()


def test_whole_numbers_and_numbers_of_numpy_will_do():
    agg.clipping(1, agg.sum_())
    agg.clipping(math.inf, agg.sum_())
    agg.zeroing(np.float32(2), agg.sum_(), 1)
    agg.quantile_estimation(np.float64(1), 0.5, 1)
    agg.gaussian_fixed(1, np.int64(5), 1)
    agg.gaussian_adaptive(0, 5, learning_rate=0)
    agg.quantize_above_threshold(8, 0, min_max=(-1, 1))


def test_a_warning_where_the_count_takes_much_of_the_privacy():
    with pytest.warns(UserWarning, match=r"2\.2.* times the noise"):
        agg.gaussian_adaptive(0.9, 10, clipped_count_stddev=0.503)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agg.gaussian_adaptive(0.9, 20)


def test_measurements_beside_those_of_the_aggregator():
    """A name that is there already keeps its place; an empty tuple becomes a dictionary."""
    smallest = lambda result: OrderedDict(mean_weight=jnp.min(result["a"]), size=jnp.int32(5))
    measured = agg.add_measurements(agg.weighted_mean(), server_measurement_fn=smallest)
    output = aggregate(measured, measured.initialize(ZEROS), draw(0, 2))
    assert list(output.measurements) == ["mean_value", "mean_weight", "size"]
    assert output.measurements["mean_weight"] == output.result["a"].min()
    count = agg.ClientMeasurement(lambda value: jnp.int32(1), lambda sums: {"clients": sums})
    measured = agg.add_measurements(agg.sum_(), client_measurement_fn=count)
    assert aggregate(measured, (), draw(0, 4)).measurements == {"clients": 4}
    weighted = agg.as_weighted_aggregator(agg.unweighted_mean())
    heavy = agg.ClientMeasurement(lambda value, weight: weight, lambda sums: {"weights": sums})
    measured = agg.add_measurements(weighted, client_measurement_fn=heavy)
    output = aggregate(measured, measured.initialize(ZEROS), draw(0, 2), [3, 4])
    assert output.measurements["weights"] == 7


def weighted_mean_on_host():
    """The weighted mean, by a function that sees every client's update; it counts its rounds."""

    def next(state, template, values, weights):
        assert jax.tree.structure(template) == jax.tree.structure(values[0])
        total = sum(weights)
        mean = jax.tree.map(
            lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)) / total,
            *values,
        )
        return fb.jax_core.MeasuredProcessOutput(state + 1, mean, {"total": np.float32(total)})

    return fb.jax_core.HostAggregator(lambda template: np.int32(0), next)


@pytest.mark.parametrize(
    "execution", [fb.sequential, fb.vmapped(2), fb.debug], ids=["sequential", "vmapped", "debug"]
)
def test_an_aggregator_on_the_host_gives_what_a_compiled_one_gives(execution):
    data = fb.from_clients(clients([3, 0, 5, 2]))
    build = lambda aggregator: fb.algorithms.fed_avg(
        linear_model(), fb.optimizers.sgdm(0.1), aggregator=aggregator, execution=execution
    )
    processes = [build(weighted_mean_on_host()), build(fb.aggregators.weighted_mean())]
    states = [process.initialize() for process in processes]
    for number in (1, 2):
        cohort = data.cohort(data.client_ids, fb.Batches(2), round=number)
        found = [
            process.next(state, cohort) for process, state in zip(processes, states, strict=True)
        ]
        states = [output.state for output in found]
        on_host, compiled = (output.metrics for output in found)
        assert on_host["client_work"] == compiled["client_work"]
        assert on_host["aggregator"] == {"total": 10}
    assert states[0].aggregator == 2
    for ours, theirs in zip(
        *(jax.tree.leaves(s.global_model_weights) for s in states), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=CLOSE, atol=CLOSE)
