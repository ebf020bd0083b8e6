"""What every algorithm promises, for models that know masks and for those that do not.

A new algorithm adds one line to `ALGORITHMS`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from problems import clients, largest_difference, linear_model, partly_local

import fedbridge as fb
from fedbridge.jax_core import make_cohort, make_stream, simple_dataset_split_fn

# One round from one state; the updates here have norms around 0.1 to 1.
CLOSE = 2e-6
BATCHES = fb.Batches(batch_size=4, num_epochs=2)
NAN_LABEL = 2

_sgdm = fb.optimizers.sgdm
_client, _server = _sgdm(0.1, momentum=0.9), _sgdm(0.7, momentum=0.5)
_rate = lambda round: 0.1 / (1.0 + round)

# model, execution -> process; the server optimizers have a state that could be spoilt.
ALGORITHMS = {
    "fed_avg": lambda m, e: fb.algorithms.fed_avg(m, _client, _server, execution=e),
    "fed_avg_adam": lambda m, e: fb.algorithms.fed_avg(
        m, fb.optimizers.adam(0.1), fb.optimizers.adam(0.1), execution=e
    ),
    "fed_avg_with_schedule": lambda m, e: fb.algorithms.fed_avg_with_schedule(
        m, _rate, lambda rate: _sgdm(rate, 0.9), _server, execution=e
    ),
    "fed_avg_robust": lambda m, e: fb.algorithms.fed_avg(
        m, _client, _server, aggregator=fb.aggregators.robust_aggregator(), execution=e
    ),
    "fed_prox": lambda m, e: fb.algorithms.fed_prox(m, 0.5, _client, _server, execution=e),
    "fed_recon": lambda m, e: fb.algorithms.fed_recon(
        partly_local(m), _client, _server, dataset_split_fn=simple_dataset_split_fn, execution=e
    ),
    "fed_sgd": lambda m, e: fb.algorithms.fed_sgd(m, _server, execution=e),
    "mime_lite": lambda m, e: fb.algorithms.mime_lite(m, _client, _server, execution=e),
    "mime_lite_with_schedule": lambda m, e: fb.algorithms.mime_lite_with_schedule(
        m, _rate, _client, _server, execution=e
    ),
}

# Other ways to run the same rounds: all algorithms are compared, one obeys the laws in each way.
EXECUTIONS = {"vmapped": fb.vmapped(3), "sharded": fb.sharded(inner=fb.vmapped(2))}
CASES = [
    pytest.param(name, masked, execution, id="-".join([name, kind, *way]))
    for kind, masked in {"masked": True, "opaque": False}.items()
    for name, execution, way in [
        *((name, fb.sequential, []) for name in ALGORITHMS),
        *(("fed_avg", execution, [way]) for way, execution in EXECUTIONS.items()),
    ]
]

algorithms = pytest.mark.parametrize("name", ALGORITHMS)
cases = pytest.mark.parametrize("name, masked, execution", CASES)
models = pytest.mark.parametrize("masked", [True, False], ids=["masked", "opaque"])
sizes_strategy = st.lists(st.integers(1, 8), min_size=4, max_size=4)


@functools.cache
def build(name, masked=True, execution=fb.sequential):
    """One process for all tests: what is compiled is compiled once."""
    return ALGORITHMS[name](linear_model(masked, NAN_LABEL), execution)


def usable(sizes, **kwargs):
    """Clients without the label that gives a NaN; 4 clients of at most 32 rows and 16 steps."""
    data = clients(sizes, **kwargs)
    for client in data.values():
        client["y"] %= NAN_LABEL
    return data


def equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a, b))


def close(a, b):
    return not jax.tree.leaves(a) or largest_difference(a, b) < CLOSE


@algorithms
@models
def test_the_state_keeps_its_form_and_rounds_are_traced_once(name, masked):
    traces = []
    model = linear_model(masked)

    def forward(*args):
        traces.append(1)
        return model.forward(*args)

    process = ALGORITHMS[name](model._replace(forward=forward), fb.sequential)
    data = fb.from_clients(clients([7, 5, 6]))
    form = lambda tree: jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)
    start = process.initialize()
    # Batches of 4: both cohorts have full batches and remainders of the same sizes.
    state, first = process.next(start, data.cohort(["c0", "c2"], BATCHES))
    traced = len(traces)
    state, metrics = process.next(state, data.cohort(["c2", "c0"], BATCHES))
    assert len(traces) == traced
    assert form(state) == form(start)
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert form(metrics) == form(first)
    assert list(metrics) == ["distributor", "client_work", "aggregator", "finalizer"]


@algorithms
def test_debug_equals_the_compiled_round(name):
    data = fb.from_clients(usable([5, 0, 3, 1]))
    cohort = data.cohort(data.client_ids, BATCHES)
    compiled, plain = build(name), build(name, execution=fb.debug)
    state = compiled.initialize()
    a, b = compiled.next(state, cohort), plain.next(state, cohort)
    assert largest_difference(a, b) < CLOSE
    assert jax.tree.structure(a) == jax.tree.structure(b)


@pytest.mark.parametrize(
    "name, masked", [*((name, True) for name in ALGORITHMS), ("fed_avg", False)]
)
def test_vmapped_and_sharded_the_round_is_the_same(name, masked):
    data = fb.from_clients(usable([5, 0, 3, 1, 8, 2]))
    cohort = data.cohort(data.client_ids, BATCHES)
    one_by_one, other = build(name, masked), build(name, masked, EXECUTIONS["sharded"])
    # From a state whose slots are not zero.
    state, _ = one_by_one.next(one_by_one.initialize(), cohort)
    a, b = one_by_one.next(state, cohort), other.next(state, cohort)
    assert largest_difference(a, b) < CLOSE
    assert jax.tree.structure(a) == jax.tree.structure(b)


@cases
def test_padding_changes_nothing(name, masked, execution):
    sizes, extra = [7, 0, 5, 1], 9
    data = fb.from_clients(usable(sizes))
    plain = data.cohort(data.client_ids, BATCHES)
    stream = plain.streams["train"]
    junk = np.random.default_rng(0).integers(0, sum(sizes), (extra, 4)).astype(np.int32)
    steps = int(stream.step_offsets[-1])
    longer = make_stream(
        np.concatenate([stream.rows[:steps], junk]),
        np.concatenate([stream.sizes[:steps], np.full(extra, 4, np.int32)]),
        stream.step_offsets[: len(sizes) + 1],
    )
    padded = make_cohort(plain.features, {"train": longer}, data.client_ids)
    process = build(name, masked, execution)
    state = process.initialize()
    assert equal(process.next(state, plain), process.next(state, padded))


@algorithms
@settings(max_examples=5, deadline=None)
@given(sizes=sizes_strategy, seed=st.integers(0, 99))
def test_permuting_clients_changes_nothing(name, sizes, seed):
    data = fb.from_clients(usable(sizes))
    shuffled = [str(i) for i in np.random.default_rng(seed).permutation(data.client_ids)]
    process = build(name)
    state = process.initialize()
    a, _ = process.next(state, data.cohort(data.client_ids, BATCHES))
    b, _ = process.next(state, data.cohort(shuffled, BATCHES))
    assert largest_difference(a.global_model_weights, b.global_model_weights) < CLOSE


@cases
def test_a_client_with_nan_equals_an_absent_one(name, masked, execution):
    data = usable([6, 5, 4, 3])
    data["c1"]["y"][2] = NAN_LABEL
    process = build(name, masked, execution)
    packed = fb.from_clients(data)
    state = process.initialize()
    with_it, metrics = process.next(state, packed.cohort(["c0", "c1", "c2", "c3"], BATCHES))
    without, _ = process.next(state, packed.cohort(["c0", "c2", "c3"], BATCHES))
    # Without it, others stand side by side in the chunks, and are added up in another order.
    same = equal if execution is fb.sequential else close
    assert same(with_it.global_model_weights, without.global_model_weights)
    assert same(with_it.finalizer, without.finalizer)
    assert same(with_it.client_work, without.client_work)
    assert metrics["client_work"]["train"]["num_examples"] == 2 * (6 + 4 + 3)
    assert np.isfinite(metrics["client_work"]["train"]["loss"])


@cases
@pytest.mark.parametrize("ids", [[], ["c0"], ["c1"]], ids=["nobody", "empty", "nan"])
def test_a_round_without_a_usable_client_leaves_weights_and_optimizers_untouched(
    name, masked, execution, ids
):
    data = usable([0, 5, 5])
    data["c1"]["y"][:] = NAN_LABEL
    process = build(name, masked, execution)
    packed = fb.from_clients(data)
    # From a state whose slots are not zero.
    state, _ = process.next(process.initialize(), packed.cohort(["c2"], BATCHES))
    after, metrics = process.next(state, packed.cohort(ids, BATCHES))
    assert equal(after.global_model_weights, state.global_model_weights)
    assert equal(after.finalizer, state.finalizer)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.client_work))
    assert metrics["finalizer"]["update_non_finite"] == 1
    assert metrics["client_work"]["train"]["loss"] == 0


@algorithms
def test_resuming_from_a_file_equals_a_run_that_went_on(name, tmp_path):
    data = fb.from_clients(usable([7, 5, 2, 1]))
    process = build(name)
    straight = fb.train(process, data, BATCHES, rounds=3)
    file = tmp_path / "state"
    fb.train(process, data, BATCHES, rounds=2, checkpoint=file)
    resumed = fb.train(process, data, BATCHES, rounds=3, checkpoint=file)
    assert equal(straight.state, resumed.state)


@algorithms
def test_the_next_state_is_new_and_the_old_one_stays_usable(name):
    data = fb.from_clients(usable([7, 5, 2, 1]))
    process = build(name)
    cohort = data.cohort(data.client_ids, BATCHES)
    state = process.initialize()
    first, second = process.next(state, cohort), process.next(state, cohort)
    assert equal(first, second)
    assert not equal(first.state.global_model_weights, state.global_model_weights)


@algorithms
def test_weights_can_be_set(name):
    process = build(name)
    state = process.initialize()
    doubled = jax.tree.map(lambda leaf: 2 * leaf, process.get_model_weights(state))
    assert equal(process.get_model_weights(process.set_model_weights(state, doubled)), doubled)
    with pytest.raises(fb.StateError, match="trainable/0"):
        process.set_model_weights(state, fb.ModelWeights([np.zeros((2, 2))] * 2, []))
