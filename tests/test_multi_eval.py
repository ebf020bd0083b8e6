"""Evaluation: several models in one pass, and metrics that add up or are sampled over rounds."""

from collections import OrderedDict

import jax
import numpy as np
import pytest
from problems import clients, linear_model

import fedbridge as fb
from fedbridge.jax_core import sample_over_rounds

SIZES = [7, 0, 5, 1]
BATCHES = fb.Batches(batch_size=4)
fed_eval, fed_multi_eval = fb.algorithms.fed_eval, fb.algorithms.fed_multi_eval


def other(model):
    moved = jax.tree.map(lambda w: w * np.float32(1.5), model.initial_weights)
    return model._replace(initial_weights=moved)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def close(a, b):
    """Two programs of the same sums: XLA may fuse them otherwise, and round them once more."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    near = lambda x, y: np.allclose(x, y, rtol=2.4e-7, atol=0.0)
    return jax.tree.all(jax.tree.map(near, a, b))


def rounds(process, count=2, data=None):
    packed = data or fb.from_clients(clients(SIZES))
    state, metrics = process.initialize(), None
    for number in range(count):
        ids = packed.client_ids if number else packed.client_ids[:2]
        state, metrics = process.next(state, packed.cohort(ids, BATCHES, round=number + 1))
    return state, metrics


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "opaque"])
def test_each_model_is_evaluated_as_alone(masked):
    first, second = linear_model(masked), other(linear_model(masked))
    state, metrics = rounds(fed_multi_eval(OrderedDict(a=first, b=second)))
    for name, model in (("a", first), ("b", second)):
        alone, expected = rounds(fed_eval(model))
        assert close(metrics["client_work"][name], expected["client_work"])
        assert close(state.client_work[name], alone.client_work)
    assert list(metrics["client_work"]) == ["a", "b"]
    losses = [m["eval"]["total_rounds_metrics"]["loss"] for m in metrics["client_work"].values()]
    assert losses[0] != losses[1]


def test_one_opaque_model_makes_the_others_see_batches_of_their_true_size():
    sizes = []

    def forward(*args):
        sizes.append(len(args[1]["y"]))
        return linear_model().forward(*args[:2], np.ones(sizes[-1], bool), *args[3:])

    masked = linear_model()._replace(forward=forward)
    _, metrics = rounds(fed_multi_eval({"opaque": linear_model(False), "masked": masked}))
    _, expected = rounds(fed_eval(linear_model()))
    for measured in metrics["client_work"].values():
        found = measured["eval"]["total_rounds_metrics"]
        wanted = expected["client_work"]["eval"]["total_rounds_metrics"]
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-6)
        assert found["num_examples"] == wanted["num_examples"]
    assert set(sizes) == {4, 3, 1}


def test_the_data_are_gone_through_once():
    decoded = []

    def noticing(batch):
        decoded.append(1)
        return batch

    counts = []
    for process in (
        fed_eval(linear_model()),
        fed_multi_eval({name: linear_model() for name in "abc"}),
    ):
        decoded.clear()
        rounds(process, data=fb.from_clients(clients(SIZES)).map_batches(noticing))
        counts.append(len(decoded))
    assert counts[0] == counts[1] > 0


def test_several_weights_of_one_model():
    model = linear_model()
    process = fed_multi_eval({"old": model, "new": model})
    state = process.initialize()
    weights = OrderedDict(state.global_model_weights, new=other(model).initial_weights)
    state = process.set_model_weights(state, weights)
    packed = fb.from_clients(clients(SIZES))
    cohort = packed.cohort(packed.client_ids, BATCHES)
    after, metrics = process.next(state, cohort)
    for name, alone in (("old", fed_eval(model)), ("new", fed_eval(other(model)))):
        expected = alone.next(alone.initialize(), cohort).metrics["client_work"]
        assert close(metrics["client_work"][name], expected)
    assert equal(after.global_model_weights, state.global_model_weights)
    wrong = fb.ModelWeights([np.zeros((2, 2), np.float32)] * 2, [])
    with pytest.raises(fb.StateError, match="new/trainable/0"):
        process.set_model_weights(state, OrderedDict(weights, new=wrong))


def test_every_model_checks_the_cohort():
    def refuse(cohort):
        raise fb.ClientDataError("not for me")

    process = fed_multi_eval({"a": linear_model(), "b": linear_model()._replace(check=refuse)})
    with pytest.raises(fb.ClientDataError, match="not for me"):
        rounds(process)


def test_no_model():
    with pytest.raises(fb.ArgumentError, match="at least one model"):
        fed_multi_eval({})


def test_a_sample_that_holds_everybody_is_everybody():
    state, metrics = rounds(fed_eval(linear_model(), metrics_aggregator=sample_over_rounds()))
    found = metrics["client_work"]["eval"]
    assert found["current_round_metrics"]["num_examples"].tolist() == SIZES
    assert found["total_rounds_metrics"]["num_examples"].tolist() == [7, 0, *SIZES]
    assert found["total_rounds_metrics"]["num_examples"].dtype == np.int64
    assert equal(state.client_work["samples"], found["total_rounds_metrics"])


def test_a_smaller_sample_has_the_largest_of_the_numbers_drawn():
    everybody, _ = rounds(fed_eval(linear_model(), metrics_aggregator=sample_over_rounds(99)), 4)
    process = fed_eval(linear_model(), metrics_aggregator=sample_over_rounds(3))
    few, metrics = rounds(process, 4)
    drawn, samples = (everybody.client_work[k] for k in ("random_values", "samples"))
    best = np.sort(np.argsort(-drawn.astype(np.int64))[:3])
    assert len(drawn) == len(set(drawn.tolist())) == 2 + 4 + 4 + 4
    np.testing.assert_array_equal(few.client_work["random_values"], drawn[best])
    assert equal(few.client_work["samples"], jax.tree.map(lambda leaf: leaf[best], samples))
    assert len(metrics["client_work"]["eval"]["current_round_metrics"]["loss"]) == 3


def test_the_state_of_a_sample_is_tffs():
    process = fed_eval(linear_model(), metrics_aggregator=sample_over_rounds())
    state = process.initialize().client_work
    assert list(state) == ["random_seed", "random_values", "samples"]
    assert state["random_seed"].dtype == np.int64
    assert state["random_seed"].tolist() == [-1, -1]
    assert state["random_values"].dtype == np.int32
    assert {k: (v.dtype.name, v.shape) for k, v in state["samples"].items()} == {
        "loss": ("float32", (0,)),
        "num_examples": ("int64", (0,)),
        "num_batches": ("int64", (0,)),
    }


@pytest.mark.parametrize("size", [0, -1])
def test_a_sample_is_of_at_least_one(size):
    with pytest.raises(fb.ArgumentError, match=f"sample_size is {size}; it must be a whole numb"):
        sample_over_rounds(size)
