"""The aggregators against TFF's own processes: results, states and measurements, leaf by leaf."""

import functools
import math
from collections import OrderedDict
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedbridge.jax_core import aggregators, tree_add, tree_zeros_like
from fedbridge.tff_io._tff_state import as_in_tff

# Norms, means and powers of a few float32 numbers: a few roundings of 6e-8 each, and the estimates
# are products of one such factor a round. Sums and means alone are equal to the last bit.
CLOSE = 1e-6
SHAPES = OrderedDict(a=(3, 2), b=(2,))
ROUNDS = 10


def draw(rng, shapes, size):
    return OrderedDict(
        (name, (size * rng.normal(size=shape)).astype(np.float32)) for name, shape in shapes.items()
    )


@functools.cache
def rounds_of(seed=0):
    """Clients' values, whose norms differ by decades and grow, and weights; one round of none."""
    rng = np.random.default_rng(seed)
    rounds = []
    for number in range(ROUNDS):
        sizes = 10 ** rng.uniform(-2.5, 1 + number / 5, 5)
        weights = [np.float32(w) for w in (*rng.integers(1, 30, 4), 0)]
        rounds.append(([draw(rng, SHAPES, size) for size in sizes], weights))
    return [*rounds, ([], []), *rounds[:2]]


class Theirs:
    """TFF's factories under the names of `fb.aggregators`."""

    def __init__(self, tff):
        both, dp = tff.aggregators, tff.aggregators.DifferentiallyPrivateFactory
        self.sum_, self.weighted_mean = both.SumFactory, both.MeanFactory
        self.unweighted_mean = both.UnweightedMeanFactory
        self.as_weighted_aggregator = both.as_weighted_aggregator
        self.clipping, self.zeroing = both.clipping_factory, both.zeroing_factory
        self.quantile_estimation = both.PrivateQuantileEstimationProcess.no_noise
        self.gaussian_fixed, self.gaussian_adaptive = dp.gaussian_fixed, dp.gaussian_adaptive
        self.quantize_above_threshold = both.EncodedSumFactory.quantize_above_threshold
        for name in (
            "robust_aggregator",
            "dp_aggregator",
            "compression_aggregator",
            "add_debug_measurements",
            "add_debug_measurements_with_mixed_dtype",
        ):
            setattr(self, name, getattr(tff.learning, name))


class Ours:
    """`fb.aggregators` with TFF's habit in rounds without clients."""

    def __getattr__(self, name):
        function = getattr(aggregators, name)
        if name in {
            "quantile_estimation",
            "robust_aggregator",
            "dp_aggregator",
            "compression_aggregator",
        }:
            return functools.partial(function, empty_round=aggregators.nan_as_tff)
        return function


inf = math.inf
# Weighted by its first letter; bitwise where nothing but sums, products and quotients is computed.
CASES = {
    "u bitwise sum": lambda s: s.sum_(),
    "w bitwise mean": lambda s: s.weighted_mean(),
    "w bitwise no_nan_division": lambda s: s.weighted_mean(no_nan_division=True),
    "u bitwise mean": lambda s: s.unweighted_mean(),
    "w clipping": lambda s: s.clipping(1.5, s.weighted_mean()),
    "u clipping": lambda s: s.clipping(0.3, s.sum_()),
    "u adaptive clipping": lambda s: s.clipping(
        s.quantile_estimation(0.5, 0.6, 0.3), s.unweighted_mean()
    ),
    "w bitwise zeroing": lambda s: s.zeroing(3.0, s.weighted_mean()),
    "w zeroing 1": lambda s: s.zeroing(8.0, s.weighted_mean(), 1.0),
    "w zeroing 2": lambda s: s.zeroing(4.0, s.weighted_mean(), 2.0),
    "u adaptive zeroing": lambda s: s.zeroing(
        s.quantile_estimation(0.7, 0.5, 0.9, 1.7, 0.3), s.sum_(), inf
    ),
    "w nested the other way": lambda s: s.clipping(
        1.0, s.zeroing(s.quantile_estimation(0.5, 0.5, 0.2), s.weighted_mean())
    ),
    "w robust": lambda s: s.robust_aggregator(),
    "w robust debug": lambda s: s.robust_aggregator(debug_measurements_fn=s.add_debug_measurements),
    "u robust debug": lambda s: s.robust_aggregator(
        weighted=False, debug_measurements_fn=s.add_debug_measurements_with_mixed_dtype
    ),
    "w robust without clipping": lambda s: s.robust_aggregator(clipping=False),
    "w robust without zeroing": lambda s: s.robust_aggregator(zeroing=False),
    "u debug of a sum": lambda s: s.add_debug_measurements(s.sum_()),
    "w debug of weighted": lambda s: s.add_debug_measurements(
        s.as_weighted_aggregator(s.unweighted_mean())
    ),
    "u gaussian fixed": lambda s: s.gaussian_fixed(0.0, 7, 2.0),
    "u gaussian adaptive": lambda s: s.gaussian_adaptive(0.0, 4.0),
    "u gaussian adaptive arguments": lambda s: s.gaussian_adaptive(0.0, 6, 1.0, 0.7, 0.5, 0.0),
    "u dp": lambda s: s.dp_aggregator(0.0, 5),
    "u quantize": lambda s: s.quantize_above_threshold(8, 3, stochastic=False),
    "u quantize range": lambda s: s.quantize_above_threshold(
        6, 1, stochastic=False, min_max=[-0.5, 2.0]
    ),
    "w compression": lambda s: s.compression_aggregator(stochastic=False),
    "u compression debug": lambda s: s.compression_aggregator(
        weighted=False, debug_measurements_fn=s.add_debug_measurements, stochastic=False
    ),
}


def types(tff, shapes, dtype=np.float32):
    return tff.to_type(OrderedDict((name, (dtype, shape)) for name, shape in shapes.items()))


def created(tff, factory, weighted, value_type):
    return (
        factory.create(value_type, tff.to_type(np.float32))
        if weighted
        else factory.create(value_type)
    )


def their_next(process, weighted, state, values, weights):
    return process.next(state, values, weights) if weighted else process.next(state, values)


def runner(aggregator):
    """`(state, values, weights) -> output`: the clients' sum is a left fold in their order."""
    client, server = jax.jit(aggregator.client), jax.jit(aggregator.server)
    key = jax.random.key(0)

    def next(state, values, weights):
        told = [client(state, *pair, key) for pair in zip(values, weights, strict=True)]
        if not told:
            zeros = draw(np.random.default_rng(0), SHAPES, 0.0)
            told = [tree_zeros_like(client(state, zeros, np.float32(0), key))]
        return server(state, functools.reduce(tree_add, told), key)

    return next


def form(tree):
    """Names in their order, dtypes and shapes."""
    if hasattr(tree, "_fields"):
        return [(name, form(getattr(tree, name))) for name in tree._fields]
    if isinstance(tree, Mapping):
        return [(name, form(value)) for name, value in tree.items()]
    if isinstance(tree, list | tuple):
        return [(index, form(value)) for index, value in enumerate(tree)]
    leaf = np.asarray(tree)
    return str(leaf.dtype), leaf.shape


def leaves(tree, path=""):
    """The leaves by their paths."""
    if hasattr(tree, "_fields"):
        pairs = zip(tree._fields, tree, strict=True)
    elif isinstance(tree, Mapping):
        pairs = tree.items()
    elif isinstance(tree, list | tuple):
        pairs = enumerate(tree)
    else:
        return {path: tree}
    return {k: v for name, value in pairs for k, v in leaves(value, f"{path}/{name}").items()}


def assert_same(ours, theirs, sizes=None, bitwise=False):
    """Equal in form, and leaf by leaf; a sum's error is one of its largest terms, the `sizes`."""
    ours, sizes = (as_in_tff(jax.device_get(t)) for t in (ours, ours if sizes is None else sizes))
    assert form(ours) == form(theirs)
    mine, yours, sizes = leaves(ours), leaves(theirs), leaves(sizes)
    assert mine.keys() == yours.keys()
    for path, expected in yours.items():
        if bitwise or not np.issubdtype(np.asarray(expected).dtype, np.floating):
            np.testing.assert_array_equal(mine[path], expected, err_msg=path)
        elif "std_dev" in path:
            assert_same_deviation(mine[path], expected, yours[path.replace("std_dev", "average")])
        else:
            size = float(np.max(np.abs(sizes[path]), initial=0))
            atol = CLOSE * size if math.isfinite(size) else 0
            np.testing.assert_allclose(mine[path], expected, rtol=CLOSE, atol=atol, err_msg=path)


def assert_same_deviation(ours, theirs, average):
    """A difference of squares: its error is one of E n², and where it is nothing else, any root.

    The weights here make it at most 5 times the correction 1 / (1 - Σw² / W²) larger.
    """
    if np.isnan(average):
        assert np.isnan(ours)
        assert np.isnan(theirs)
        return
    variances = [0.0 if np.isnan(s) else float(s) ** 2 for s in (ours, theirs)]
    assert abs(variances[0] - variances[1]) <= CLOSE * (5 * average**2 + variances[1])


def absolute(values):
    return jax.tree.map(np.abs, values)


@pytest.mark.parametrize("name", CASES)
def test_ten_rounds_one_of_nobody_and_two_more(tff, name):
    weighted, bitwise = name.startswith("w"), "bitwise" in name
    process = created(tff, CASES[name](Theirs(tff)), weighted, types(tff, SHAPES))
    aggregator = CASES[name](Ours())
    assert aggregator.weighted == weighted
    next = runner(aggregator)
    theirs = process.initialize()
    ours = aggregator.initialize(draw(np.random.default_rng(0), SHAPES, 0.0))
    assert_same(ours, theirs)
    for values, weights in rounds_of():
        expected = their_next(process, weighted, theirs, values, weights)
        sizes, output = next(ours, absolute(values), weights), next(ours, values, weights)
        assert_same(output.result, expected.result, sizes.result, bitwise)
        assert_same(output.measurements, expected.measurements)
        assert_same(output.state, expected.state)
        theirs, ours = expected.state, output.state


@pytest.mark.parametrize(
    "name, build",
    [
        ("fixed", lambda s: s.gaussian_fixed(0.7, 3, 1.5)),
        ("adaptive", lambda s: s.gaussian_adaptive(0.2, 3.0)),
        ("own deviation", lambda s: s.gaussian_adaptive(0.9, 20, clipped_count_stddev=0.8)),
        ("dp", lambda s: s.dp_aggregator(1.0, 100)),
    ],
)
def test_a_state_with_noise_and_what_it_costs(tff, name, build):
    theirs = build(Theirs(tff)).create(types(tff, SHAPES)).initialize()
    ours = build(Ours()).initialize(draw(np.random.default_rng(0), SHAPES, 0.0))
    assert_same(ours, theirs)
    assert any("class_name" in path for path in leaves(theirs))


LARGE = OrderedDict(large=(150, 140), small=(100, 200))


@pytest.mark.parametrize("min_max", [None, [-1.0, 1.5]])
def test_large_leaves_are_rounded_to_the_same_levels(tff, min_max):
    """21,000 entries of 4 clients, weighted before: a quantum on the other side would be 1/255."""
    build = lambda s: s.compression_aggregator(stochastic=False, clipping=False, min_max=min_max)
    if min_max is None:
        build = lambda s: s.compression_aggregator(stochastic=False, clipping=False)
    rng = np.random.default_rng(3)
    values = [draw(rng, LARGE, size) for size in (0.1, 0.3, 1.0, 0.7)]
    weights = [np.float32(w) for w in (3, 7, 1, 11)]
    process = created(tff, build(Theirs(tff)), True, types(tff, LARGE))
    expected = their_next(process, True, process.initialize(), values, weights)
    aggregator = build(Ours())
    state = aggregator.initialize(values[0])
    next = runner(aggregator)
    sizes = next(state, absolute(values), weights)
    output = next(state, values, weights)
    assert_same(output.result, expected.result, sizes.result)
    np.testing.assert_array_equal(output.result["small"], expected.result["small"])
    # The same levels also where the whole round is one program, which the compiler may contract.
    key = jax.random.key(0)
    whole = jax.jit(
        lambda state, values, weights: aggregator.server(
            state,
            functools.reduce(
                tree_add,
                [
                    aggregator.client(state, *pair, key)
                    for pair in zip(values, weights, strict=True)
                ],
            ),
            key,
        )
    )
    assert_same(whole(state, values, weights).result, expected.result, sizes.result)


@pytest.mark.parametrize("source", ["theirs", "ours"])
def test_stochastic_rounding_goes_to_the_neighbours_without_bias(tff, source):
    """Both round up as often as the remainders add up to: z below 5 (3e-7 of honest runs fail)."""
    value = draw(np.random.default_rng(5), LARGE, 1.0)
    if source == "theirs":
        process = Theirs(tff).quantize_above_threshold().create(types(tff, LARGE))
        result = process.next(process.initialize(), [value]).result
    else:
        aggregator = aggregators.quantize_above_threshold()
        state = aggregator.initialize(value)
        result = runner(aggregator)(state, [value], [np.float32(1)]).result
    x = value["large"].astype(np.float64)
    low, step = x.min(), (x.max() - x.min()) / 255
    exact = (x - low) / step
    taken = (np.asarray(result["large"], np.float64) - low) / step
    level = np.round(taken)
    # A float32 of size 4 against a quantum of 8/255: 2.4e-7 / 0.03 = 8e-6, times a few roundings.
    assert np.max(np.abs(taken - level)) < 1e-4
    assert np.all(np.abs(level - exact) < 1 + 1e-4)
    remainder = exact - np.floor(exact)
    deviation = np.sqrt(np.sum(remainder * (1 - remainder)))
    assert abs(np.sum(level - exact)) < 5 * deviation
    np.testing.assert_array_equal(result["small"], value["small"])


def test_own_measurements(tff):
    """The clients' part as two halves around a sum, which in TFF is a federated computation."""
    import tensorflow as tf

    @tff.tensorflow.computation
    def first(value):
        return tf.reduce_sum(value["a"])

    def their_clients(value, weight):
        totals = tff.federated_map(first, value)
        return tff.federated_zip(
            OrderedDict(total=tff.federated_sum(totals), weights=tff.federated_sum(weight))
        )

    @tff.tensorflow.computation
    def their_largest(result):
        # A name that is there already keeps its place and gets another value.
        return OrderedDict(
            largest=tf.reduce_max(result["b"]), mean_weight=tf.reduce_min(result["b"])
        )

    factory = tff.aggregators.add_measurements(
        tff.aggregators.MeanFactory(),
        client_measurement_fn=their_clients,
        server_measurement_fn=lambda result: tff.federated_map(their_largest, result),
    )
    ours = aggregators.add_measurements(
        aggregators.weighted_mean(),
        client_measurement_fn=aggregators.ClientMeasurement(
            lambda value, weight: (jnp.sum(value["a"]), weight),
            lambda sums: OrderedDict(total=sums[0], weights=sums[1]),
        ),
        server_measurement_fn=lambda result: OrderedDict(
            largest=jnp.max(result["b"]), mean_weight=jnp.min(result["b"])
        ),
    )
    values, weights = rounds_of()[0]
    process = created(tff, factory, True, types(tff, SHAPES))
    expected = process.next(process.initialize(), values, weights)
    output = runner(ours)(ours.initialize(values[0]), values, weights)
    assert list(output.measurements) == ["mean_value", "mean_weight", "total", "weights", "largest"]
    assert_same(output.measurements, expected.measurements)


def test_mixed_dtypes(tff):
    """Norms of float16 leaves are rounded in float16; hence 2 ulp of that, 2e-3, on all of it."""
    build = lambda s: s.clipping(2.0, s.add_debug_measurements_with_mixed_dtype(s.weighted_mean()))
    value_type = tff.to_type(OrderedDict(a=(np.float16, (3, 2)), b=(np.float32, (2,))))
    values, weights = rounds_of()[4]
    values = [OrderedDict(a=v["a"].astype(np.float16), b=v["b"]) for v in values]
    process = created(tff, build(Theirs(tff)), True, value_type)
    expected = process.next(process.initialize(), values, weights)
    aggregator = build(Ours())
    output = runner(aggregator)(aggregator.initialize(values[0]), values, weights)
    for ours, theirs in (
        (output.result, expected.result),
        (output.measurements, expected.measurements),
    ):
        assert form(ours) == form(theirs)
        theirs = leaves(theirs)
        for path, leaf in leaves(jax.device_get(ours)).items():
            np.testing.assert_allclose(leaf, theirs[path], rtol=2e-3, atol=2e-3, err_msg=path)


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
def test_a_client_with_a_value_that_is_not_finite(tff, bad, weighted):
    build = lambda s: s.robust_aggregator(weighted=weighted)
    values, weights = rounds_of()[2]
    spoilt = jax.tree.map(np.copy, values)
    spoilt[1]["a"][1, 1] = bad
    process = created(tff, build(Theirs(tff)), weighted, types(tff, SHAPES))
    expected = their_next(process, weighted, process.initialize(), spoilt, weights)
    aggregator = build(Ours())
    output = runner(aggregator)(aggregator.initialize(values[0]), spoilt, weights)
    sizes = runner(aggregator)(aggregator.initialize(values[0]), absolute(values), weights).result
    assert_same(output.result, expected.result, sizes)
    assert_same(output.measurements, expected.measurements)
    assert_same(output.state, expected.state)


@pytest.mark.parametrize("name", ["w bitwise mean", "w bitwise no_nan_division", "w robust debug"])
def test_a_round_without_weight(tff, name):
    values, weights = rounds_of()[0]
    weights = [np.float32(0)] * len(weights)
    process = created(tff, CASES[name](Theirs(tff)), True, types(tff, SHAPES))
    expected = process.next(process.initialize(), values, weights)
    aggregator = CASES[name](Ours())
    output = runner(aggregator)(aggregator.initialize(values[0]), values, weights)
    assert_same(output.result, expected.result)
    assert_same(output.measurements, expected.measurements)
    assert_same(output.state, expected.state)
