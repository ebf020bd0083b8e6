"""Federated reconstruction: against NumPy, its laws, its split functions."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from problems import clients, largest_difference, linear_model, partly_local, softmax_gradient

import fedbridge as fb
from fedbridge.jax_core import (
    ReconstructionModel,
    build_dataset_split_fn,
    sample_over_rounds,
    simple_dataset_split_fn,
)

# Two orders of the same float32 sums; the updates here have norms around 0.1 to 1.
CLOSE = 2e-6
BATCHES = fb.Batches(batch_size=3)
SIZES = [10, 0, 7, 2]
sgdm = fb.optimizers.sgdm
fed_recon, fed_recon_eval = fb.algorithms.fed_recon, fb.algorithms.fed_recon_eval
SPLITS = {
    "default": dict(split_dataset=True),
    "all of them": dict(),
    "epochs and steps": dict(recon_epochs=3, recon_steps_max=4, post_recon_epochs=2),
    "halves of several epochs": dict(
        recon_epochs=2, post_recon_epochs=3, post_recon_steps_max=2, split_dataset=True
    ),
}

splits = pytest.mark.parametrize("split", SPLITS)
models = pytest.mark.parametrize("masked", [True, False], ids=["masked", "opaque"])


def halves(
    items,
    recon_epochs=1,
    recon_steps_max=None,
    post_recon_epochs=1,
    post_recon_steps_max=None,
    split_dataset=False,
):
    """TFF's documentation of `build_dataset_split_fn`, on lists."""
    first, second = (items[0::2], items[1::2]) if split_dataset else (items, items)
    first, second = first * recon_epochs, second * post_recon_epochs
    return first[:recon_steps_max], second[:post_recon_steps_max]


def batches_of(client):
    rows = range(0, len(client["y"]), 3)
    return [(client["x"][row : row + 3], client["y"][row : row + 3]) for row in rows]


def loss_of(weights, x, y):
    logits = x @ weights[0] + weights[1]
    return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])


def reconstruction_in_numpy(matrix, support, rate=0.2):
    bias = np.full(3, 0.1)
    for x, y in support:
        bias = bias - rate * softmax_gradient([matrix, bias], x, y)[1]
    return bias


def fed_recon_in_numpy(data, rounds, server_rate=0.7, **split):
    """Singhal et al., Algorithm 1, with SGD everywhere; also the losses before each query step."""
    matrix = linear_model().initial_weights.trainable[0].astype(float)
    for _ in range(rounds):
        total, count, losses = np.zeros_like(matrix), 0, []
        for client in data.values():
            support, query = halves(batches_of(client), **split)
            bias, local = reconstruction_in_numpy(matrix, support), matrix
            for x, y in query:
                losses.append((loss_of([local, bias], x, y), len(y)))
                local = local - 0.3 * softmax_gradient([local, bias], x, y)[0]
            examples = sum(len(y) for _, y in query)
            total, count = total + examples * (matrix - local), count + examples
        matrix = matrix - server_rate * total / count
    return matrix, losses


def build(masked=True, split="default", nan_label=None, **kwargs):
    return fed_recon(
        partly_local(linear_model(masked, nan_label)),
        sgdm(0.3),
        sgdm(0.7),
        sgdm(0.2),
        dataset_split_fn=build_dataset_split_fn(**SPLITS[split]),
        **kwargs,
    )


def usable(sizes=SIZES):
    data = clients(sizes)
    for client in data.values():
        client["y"] %= 2
    return data


@splits
@models
def test_equals_the_paper_in_numpy(masked, split):
    data = clients(SIZES)
    packed, process = fb.from_clients(data), build(masked, split)
    state = process.initialize()
    for _ in range(2):
        state, metrics = process.next(state, packed.cohort(list(data), BATCHES))
    expected, losses = fed_recon_in_numpy(data, 2, **SPLITS[split])
    assert largest_difference(state.global_model_weights.trainable, [expected]) < CLOSE
    train = metrics["client_work"]["train"]
    examples = sum(count for _, count in losses)
    assert train["num_examples"] == examples
    assert train["num_batches"] == len(losses)
    mean = sum(loss * count for loss, count in losses) / examples
    np.testing.assert_allclose(train["loss"], mean, rtol=CLOSE)


@given(
    num_batches=st.integers(0, 9),
    recon_epochs=st.integers(0, 3),
    recon_steps_max=st.none() | st.integers(0, 9),
    post_recon_epochs=st.integers(0, 3),
    post_recon_steps_max=st.none() | st.integers(0, 9),
    split_dataset=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_split_functions_divide_lists_as_tff_says(num_batches, **kwargs):
    found = build_dataset_split_fn(**kwargs)(jnp.asarray(num_batches))
    visited = [[int(half.batch(step)) for step in range(int(half.count))] for half in found]
    assert visited == list(map(list, halves(list(range(num_batches)), **kwargs)))


def test_the_simple_split_gives_every_batch_to_both():
    for half in simple_dataset_split_fn(jnp.asarray(3)):
        assert [int(half.batch(step)) for step in range(int(half.count))] == [0, 1, 2]


@pytest.mark.parametrize("name", ["recon_epochs", "post_recon_steps_max"])
@pytest.mark.parametrize("value", [-1, True])
def test_epochs_and_steps_are_whole_numbers(name, value):
    with pytest.raises(fb.ArgumentError, match=f"{name} is {value}; it must be a whole number"):
        build_dataset_split_fn(**{name: value})


def test_the_state_and_the_metrics_are_tffs_trees():
    process = build()
    state = process.initialize()
    assert state.client_work == ()
    assert state.aggregator == OrderedDict(value_sum_process=(), weight_sum_process=())
    assert list(process.get_hparams(state)["client_work"]) == []
    data = fb.from_clients(clients(SIZES))
    _, metrics = process.next(state, data.cohort(data.client_ids, BATCHES))
    assert list(metrics) == ["distributor", "client_work", "aggregator", "finalizer"]
    assert list(metrics["client_work"]["train"]) == ["loss", "num_examples", "num_batches"]


def test_without_local_weights_it_is_fed_avg():
    whole = linear_model()
    all_global = ReconstructionModel(
        whole.initial_weights,
        lambda key: fb.ModelWeights([], []),
        lambda ours, own, *args: whole.forward(ours, *args),
        whole.metrics,
    )
    recon = fed_recon(all_global, sgdm(0.1), dataset_split_fn=simple_dataset_split_fn)
    plain = fb.algorithms.fed_avg(whole, sgdm(0.1))
    data = fb.from_clients(clients(SIZES))
    cohort = data.cohort(data.client_ids, BATCHES)
    a, b = (process.next(process.initialize(), cohort) for process in (recon, plain))
    assert largest_difference(a.state.global_model_weights, b.state.global_model_weights) == 0
    assert a.metrics == b.metrics


def test_a_client_with_one_batch_trains_nothing_by_default():
    data = fb.from_clients(clients([3]))
    process = build()
    state = process.initialize()
    after, metrics = process.next(state, data.cohort(["c0"], BATCHES))
    assert largest_difference(after.global_model_weights, state.global_model_weights) == 0
    assert metrics["finalizer"]["update_non_finite"] == 1  # no client has a weight
    assert metrics["client_work"]["train"]["num_examples"] == 0


@models
@pytest.mark.parametrize("row", [0, 4], ids=["among the support", "among the query"])
def test_a_client_with_nan_equals_an_absent_one(masked, row):
    data = usable()
    data["c2"]["y"][row] = 2
    packed, process = fb.from_clients(data), build(masked, nan_label=2)
    state = process.initialize()
    with_it, metrics = process.next(state, packed.cohort(list(data), BATCHES))
    without, _ = process.next(state, packed.cohort(["c0", "c1", "c3"], BATCHES))
    assert largest_difference(with_it.global_model_weights, without.global_model_weights) == 0
    assert np.isfinite(metrics["client_work"]["train"]["loss"])
    assert metrics["client_work"]["train"]["num_examples"] == 4


def test_its_metrics_count_where_one_wants_tffs_way():
    data = usable()
    data["c2"]["y"][4] = 2
    process = build(nan_label=2, non_finite=fb.keep_non_finite)
    cohort = fb.from_clients(data).cohort(list(data), BATCHES)
    _, metrics = process.next(process.initialize(), cohort)
    assert np.isnan(metrics["client_work"]["train"]["loss"])
    assert metrics["client_work"]["train"]["num_examples"] == 4 + 3


@pytest.mark.parametrize("ids", [[], ["c1"]], ids=["nobody", "empty"])
def test_a_round_without_a_usable_client_changes_nothing(ids):
    packed, process = fb.from_clients(clients(SIZES)), build()
    state = process.initialize()
    after, metrics = process.next(state, packed.cohort(ids, BATCHES))
    assert largest_difference(after.global_model_weights, state.global_model_weights) == 0
    assert metrics["finalizer"]["update_non_finite"] == 1
    assert metrics["client_work"]["train"]["loss"] == 0


def test_local_weights_start_from_the_clients_own_key():
    model = partly_local(linear_model())

    def random_start(key):
        return fb.ModelWeights([jax.random.normal(key, (3,))], [])

    def forward(ours, own, batch, mask, key, training):
        found = model.forward(ours, own, batch, mask, key, training)
        return found._replace(predictions=own.trainable[0])

    # No reconstruction: what is seen is where the local weights start.
    bias = fb.Metric(
        zero=lambda: jnp.zeros(3),
        update=lambda seen, batch, forward, mask: seen + forward.predictions,
        finalize=lambda seen: seen,
    )
    process = fed_recon(
        model._replace(initial_local_weights=random_start, forward=forward, metrics={"bias": bias}),
        dataset_split_fn=build_dataset_split_fn(recon_epochs=0),
        metrics_aggregator=fb.per_client,
    )
    packed = fb.from_clients(clients([3, 3]))

    def starts(ids, round):
        cohort = packed.cohort(ids, BATCHES, round=round)
        return process.next(process.initialize(), cohort).metrics["client_work"]["train"]["bias"]

    first, second = starts(["c0", "c1"], 1), starts(["c1", "c0"], 1)
    np.testing.assert_array_equal(first, second[::-1])
    assert np.abs(first[0] - first[1]).min() > 1e-3
    assert np.abs(first - starts(["c0", "c1"], 2)).min() > 1e-3


@pytest.mark.parametrize(
    "kwargs, weights",
    [
        (dict(client_weight=fb.uniform), [1, 1, 1, 1]),
        (dict(metrics_weight=lambda seen: seen["num_batches"].astype(jnp.float32)), [2, 0, 1, 0]),
    ],
    ids=["uniform", "of the metrics"],
)
def test_weights_of_clients(kwargs, weights):
    packed, process = fb.from_clients(clients(SIZES)), build(**kwargs)
    start = process.initialize()
    (matrix,) = start.global_model_weights.trainable
    together, _ = process.next(start, packed.cohort(packed.client_ids, BATCHES))
    total = np.zeros_like(matrix)
    for client, weight in zip(packed.client_ids, weights, strict=True):
        alone, _ = process.next(start, packed.cohort([client], BATCHES))
        total += weight * (alone.global_model_weights.trainable[0] - matrix)
    expected = [matrix + total / sum(weights)]
    assert largest_difference(together.global_model_weights.trainable, expected) < CLOSE


@models
def test_evaluation_reconstructs_on_one_half_and_measures_on_the_other(masked):
    data = clients(SIZES)
    packed = fb.from_clients(data)
    process = fed_recon_eval(partly_local(linear_model(masked)), sgdm(0.2))
    matrix = linear_model().initial_weights.trainable[0].astype(float)
    losses = []
    state = process.initialize()
    for ids in (["c0", "c1", "c3"], ["c2"]):
        state, metrics = process.next(state, packed.cohort(ids, BATCHES))
        losses.append([])
        for client in ids:
            support, query = halves(batches_of(data[client]), split_dataset=True)
            bias = reconstruction_in_numpy(matrix, support)
            losses[-1] += [(loss_of([matrix, bias], x, y), len(y)) for x, y in query]
    found = metrics["client_work"]["eval"]
    for name, seen in (
        ("current_round_metrics", losses[1]),
        ("total_rounds_metrics", losses[0] + losses[1]),
    ):
        count = sum(rows for _, rows in seen)
        assert found[name]["num_examples"] == count
        mean = sum(loss * rows for loss, rows in seen) / count
        np.testing.assert_allclose(found[name]["loss"], mean, rtol=CLOSE)
    assert largest_difference(state.global_model_weights.trainable, [matrix]) < 1e-7


def test_evaluation_can_sample_clients():
    packed = fb.from_clients(clients(SIZES))
    model = partly_local(linear_model())
    process = fed_recon_eval(model, metrics_aggregator=sample_over_rounds(3))
    _, metrics = process.next(process.initialize(), packed.cohort(packed.client_ids, BATCHES))
    assert metrics["client_work"]["eval"]["total_rounds_metrics"]["loss"].shape == (3,)


def test_debug_evaluates_as_the_compiled_round_does():
    packed = fb.from_clients(clients(SIZES))
    cohort = packed.cohort(packed.client_ids, BATCHES)
    compiled, plain = (
        process.next(process.initialize(), cohort).metrics
        for process in (
            fed_recon_eval(partly_local(linear_model()), execution=execution)
            for execution in (fb.sequential, fb.debug)
        )
    )
    assert largest_difference(compiled, plain) < CLOSE
