"""What every algorithm promises, for models that know masks and for those that do not.

A new algorithm adds one line to `ALGORITHMS`, or to `EVALUATIONS` if it leaves the weights alone.
(`personalization_eval`, a function without a state, keeps its part in `test_personalization.py`.)
"""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from problems import INPUTS, clients, largest_difference, linear_model, partly_local

import fedbridge as fb
from fedbridge.jax_core import make_cohort, make_stream, simple_dataset_split_fn

# One round from one state; the updates here have norms around 0.1 to 1.
CLOSE = 2e-6
BATCHES = fb.Batches(batch_size=4, num_epochs=2)
# Of the clients; all data sets here have 13 rows and batches of 4 and of 2, so that the tests of a
# process share its compiled round.
SIZES = [7, 0, 5, 1]

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
    "fed_avg_unweighted": lambda m, e: fb.algorithms.fed_avg(
        m, _client, _server, aggregator=fb.unweighted_mean(), client_weight=fb.uniform, execution=e
    ),
    "fed_kmeans": lambda m, e: fb.algorithms.fed_kmeans(2, (INPUTS,), (1, 2), execution=e),
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
EVALUATIONS = {
    "fed_eval": lambda m, e: fb.algorithms.fed_eval(m, execution=e),
    "fed_multi_eval": lambda m, e: fb.algorithms.fed_multi_eval(
        {"one": m, "other": m._replace(initial_weights=_doubled(m.initial_weights))}, execution=e
    ),
    "fed_recon_eval": lambda m, e: fb.algorithms.fed_recon_eval(
        partly_local(m), _client, dataset_split_fn=simple_dataset_split_fn, execution=e
    ),
}
_doubled = lambda weights: jax.tree.map(lambda leaf: 2 * leaf, weights)

# Where a client that has nothing to say counts like any other, with an update of zero, as in TFF.
UNWEIGHTED = {"fed_avg_unweighted"}

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

WEIGHTED = [case for case in CASES if case.values[0] not in UNWEIGHTED]

algorithms = pytest.mark.parametrize("name", ALGORITHMS)
evaluations = pytest.mark.parametrize("name", EVALUATIONS)
everything = pytest.mark.parametrize("name", [*ALGORITHMS, *EVALUATIONS])
with_evaluations = pytest.mark.parametrize(
    "name, masked, execution",
    [*CASES, *((name, masked, fb.sequential) for name in EVALUATIONS for masked in (True, False))],
)
models = pytest.mark.parametrize("masked", [True, False], ids=["masked", "opaque"])
TRACES = collections.Counter()  # of the forward pass, by process


@functools.cache
def build(name, masked=True, execution=fb.sequential):
    """One process for all tests: what is compiled is compiled once."""
    model = linear_model(masked)

    def forward(*args):
        TRACES[name, masked] += 1
        return model.forward(*args)

    return {**ALGORITHMS, **EVALUATIONS}[name](model._replace(forward=forward), execution)


def measured(metrics):
    """What the clients measured; k-means has no loss, and no "train" around its count."""
    return metrics["client_work"].get("train", metrics["client_work"])


def form(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)


def equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a, b))


def close(a, b):
    return not jax.tree.leaves(a) or largest_difference(a, b) < CLOSE


@everything
@models
def test_the_state_keeps_its_form_and_rounds_are_traced_once(name, masked):
    process = build(name, masked)
    data = fb.from_clients(clients(SIZES))
    start = process.initialize()
    # Batches of 4: both cohorts have full batches and remainders of the same sizes.
    state, first = process.next(start, data.cohort(["c0", "c2"], BATCHES))
    traced = TRACES[name, masked]
    state, metrics = process.next(state, data.cohort(["c2", "c0"], BATCHES))
    assert TRACES[name, masked] == traced
    assert form(state) == form(start)
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert form(metrics) == form(first)
    assert list(metrics) == ["distributor", "client_work", "aggregator", "finalizer"]


@everything
def test_debug_equals_the_compiled_round(name):
    data = fb.from_clients(clients(SIZES))
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
    data = fb.from_clients(clients(SIZES))
    cohort = data.cohort(data.client_ids, BATCHES)
    one_by_one, other = build(name, masked), build(name, masked, EXECUTIONS["sharded"])
    # From a state whose slots are not zero.
    state, _ = one_by_one.next(one_by_one.initialize(), cohort)
    a, b = one_by_one.next(state, cohort), other.next(state, cohort)
    assert largest_difference(a, b) < CLOSE
    assert jax.tree.structure(a) == jax.tree.structure(b)


@with_evaluations
def test_padding_changes_nothing(name, masked, execution):
    extra = 9
    data = fb.from_clients(clients(SIZES))
    plain = data.cohort(data.client_ids, BATCHES)
    stream = plain.streams["train"]
    junk = np.random.default_rng(0).integers(0, sum(SIZES), (extra, 4)).astype(np.int32)
    steps = int(stream.step_offsets[-1])
    longer = make_stream(
        np.concatenate([stream.rows[:steps], junk]),
        np.concatenate([stream.sizes[:steps], np.full(extra, 4, np.int32)]),
        stream.step_offsets[: len(SIZES) + 1],
    )
    padded = make_cohort(plain.features, {"train": longer}, data.client_ids)
    process = build(name, masked, execution)
    state = process.initialize()
    assert equal(process.next(state, plain), process.next(state, padded))


@algorithms
@settings(max_examples=5, deadline=None)
@given(sizes=st.permutations([1, 2, 3, 7]), order=st.permutations(range(4)))
def test_permuting_clients_changes_nothing(name, sizes, order):
    data = fb.from_clients(clients(sizes))
    shuffled = [data.client_ids[i] for i in order]
    process = build(name)
    state = process.initialize()
    a, _ = process.next(state, data.cohort(data.client_ids, BATCHES))
    b, _ = process.next(state, data.cohort(shuffled, BATCHES))
    assert largest_difference(a.global_model_weights, b.global_model_weights) < CLOSE


@pytest.mark.parametrize("name, masked, execution", WEIGHTED)
def test_a_client_with_nan_equals_an_absent_one(name, masked, execution):
    data = clients([7, 4, 1, 1])  # batches of the sizes that those of SIZES have
    data["c1"]["x"][0] = np.nan
    process = build(name, masked, execution)
    packed = fb.from_clients(data)
    state = process.initialize()
    with_it, metrics = process.next(state, packed.cohort(["c1", "c0", "c2", "c3"], BATCHES))
    without, _ = process.next(state, packed.cohort(["c0", "c2", "c3"], BATCHES))
    # Without it, others stand side by side in the chunks, and are added up in another order.
    same = equal if execution is fb.sequential else close
    assert same(with_it.global_model_weights, without.global_model_weights)
    assert same(with_it.finalizer, without.finalizer)
    assert same(with_it.client_work, without.client_work)
    assert measured(metrics)["num_examples"] == 2 * (7 + 1 + 1)
    assert np.isfinite(measured(metrics).get("loss", 0))


@pytest.mark.parametrize(
    "name, masked, execution, ids",
    [
        pytest.param(*case.values, ids, id=f"{what}-{case.id}")
        for what, ids in {"nobody": [], "empty": ["c0"], "nan": ["c1"]}.items()
        for case in (WEIGHTED if ids else CASES)
    ],
)
def test_a_round_without_a_usable_client_leaves_weights_and_optimizers_untouched(
    name, masked, execution, ids
):
    data = clients([0, 4, 8, 1])  # batches of one size, so that opaque models share a program
    data["c1"]["x"][:] = np.nan
    process = build(name, masked, execution)
    packed = fb.from_clients(data)
    # From a state whose slots are not zero.
    state, _ = process.next(process.initialize(), packed.cohort(["c2"], BATCHES))
    after, metrics = process.next(state, packed.cohort(ids, BATCHES))
    assert equal(after.global_model_weights, state.global_model_weights)
    assert equal(after.finalizer, state.finalizer)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.client_work))
    assert measured(metrics)["num_examples"] == measured(metrics).get("loss", 0) == 0
    if metrics["finalizer"]:  # k-means measures nothing there
        assert metrics["finalizer"]["update_non_finite"] == 1


@everything
def test_resuming_from_a_file_equals_a_run_that_went_on(name, tmp_path):
    data = fb.from_clients(clients([7, 3, 2, 1]))
    process = build(name)
    straight = fb.train(process, data, BATCHES, rounds=3)
    file = tmp_path / "state"
    fb.train(process, data, BATCHES, rounds=2, checkpoint=file)
    resumed = fb.train(process, data, BATCHES, rounds=3, checkpoint=file)
    assert equal(straight.state, resumed.state)


@everything
def test_the_next_state_is_new_and_the_old_one_stays_usable(name):
    data = fb.from_clients(clients([7, 3, 2, 1]))
    process = build(name)
    cohort = data.cohort(data.client_ids, BATCHES)
    state = process.initialize()
    first, second = process.next(state, cohort), process.next(state, cohort)
    assert equal(first, second)
    assert not equal(first.state, state)
    stay = equal(first.state.global_model_weights, state.global_model_weights)
    assert stay == (name in EVALUATIONS)


@everything
def test_weights_can_be_set(name):
    process = build(name)
    state = process.initialize()
    doubled = _doubled(process.get_model_weights(state))
    assert equal(process.get_model_weights(process.set_model_weights(state, doubled)), doubled)
    longer = jax.tree.map(lambda leaf: np.zeros((*leaf.shape, 2), np.float32), doubled)
    with pytest.raises(fb.StateError, match="the model has shape"):
        process.set_model_weights(state, longer)


@evaluations
@models
def test_the_rounds_of_an_evaluation_add_up_in_any_order(name, masked):
    data = fb.from_clients(clients(SIZES))
    process = build(name, masked)

    def totals(*rounds):
        state = process.initialize()
        for ids in rounds:
            state, metrics = process.next(state, data.cohort(ids, BATCHES))
        return [found["total_rounds_metrics"] for found in evaluated(metrics["client_work"])]

    whole = totals(["c0", "c1", "c2", "c3"])
    for found in (totals(["c3", "c1", "c0", "c2"]), totals(["c2", "c1"], [], ["c0", "c3"])):
        assert largest_difference(found, whole) < CLOSE
        assert form(found) == form(whole)


@evaluations
@pytest.mark.parametrize("ids", [[], ["c1"]], ids=["nobody", "empty"])
def test_an_evaluation_without_examples_adds_nothing(name, ids):
    data = fb.from_clients(clients([13, 0]))
    process = build(name)
    state, _ = process.next(process.initialize(), data.cohort(["c0"], BATCHES))
    after, metrics = process.next(state, data.cohort(ids, BATCHES))
    assert equal(after, state)
    for found in evaluated(metrics["client_work"]):
        assert all(value == 0 for value in found["current_round_metrics"].values())


def evaluated(measured):
    """What each model of an evaluation measured."""
    return (
        [measured["eval"]] if "eval" in measured else [part["eval"] for part in measured.values()]
    )
