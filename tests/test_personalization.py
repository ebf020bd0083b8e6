"""Personalization: against NumPy client by client, samples of clients, strategies of one's own."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import clients, largest_difference, linear_model, softmax_gradient

import fedbridge as fb
from fedbridge.algorithms import evaluate_on_test, personalization_eval, personalize
from fedbridge.jax_core import make_cohort, make_stream

# Two orders of the same float32 sums; losses are around 1.
CLOSE = 2e-6
SIZES = [9, 0, 6, 1]
STREAMS = {"train": fb.Batches(batch_size=4), "test": fb.Batches(batch_size=5)}
models = pytest.mark.parametrize("masked", [True, False], ids=["masked", "opaque"])
sgdm = fb.optimizers.sgdm


def loss_of(weights, client):
    x, y = client["x"], client["y"]
    if not len(y):
        return 0.0
    logits = x @ weights[0] + weights[1]
    return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])


def tuned_in_numpy(client, epochs, rate=0.2, momentum=0.5):
    """The losses on the client's own examples after each epoch, batches of 4."""
    weights = [w.astype(float) for w in linear_model().initial_weights.trainable]
    velocity, losses = [np.zeros_like(w) for w in weights], []
    for _ in range(epochs):
        for row in range(0, len(client["y"]), 4):
            rows = slice(row, row + 4)
            gradient = softmax_gradient(weights, client["x"][rows], client["y"][rows])
            velocity = [momentum * v + g for v, g in zip(velocity, gradient, strict=True)]
            weights = [w - rate * v for w, v in zip(weights, velocity, strict=True)]
        losses.append(loss_of(weights, client))
    return losses


def evaluated(model=None, ids=None, execution=fb.sequential):
    model = model or linear_model()
    strategies = {
        "tune": personalize(sgdm(0.2, momentum=0.5), num_epochs=5, num_epochs_per_eval=2),
        "none": lambda model, weights, client: {"rows": jnp.zeros(2)},
    }
    evaluate = personalization_eval(model, strategies, execution=execution)
    packed = fb.from_clients(clients(SIZES))
    ids = packed.client_ids if ids is None else ids
    return evaluate(model.initial_weights, packed.cohort(ids, STREAMS))


@models
def test_each_client_equals_numpy_in_the_order_of_the_cohort(masked):
    ids = ["c2", "c0", "c1", "c3"]
    metrics = evaluated(linear_model(masked), ids)
    data = clients(SIZES)
    start = linear_model().initial_weights.trainable
    baseline = metrics["baseline_metrics"]
    np.testing.assert_allclose(baseline["loss"], [loss_of(start, data[i]) for i in ids], rtol=CLOSE)
    assert baseline["num_examples"].tolist() == [6, 9, 0, 1]
    assert baseline["num_examples"].dtype == np.int64
    losses = np.array([tuned_in_numpy(data[i], 5) for i in ids])
    tuned = metrics["tune"]
    assert list(tuned) == ["epoch_2", "epoch_4", "epoch_5", "num_train_examples"]
    for epoch in (2, 4, 5):
        found = tuned[f"epoch_{epoch}"]
        np.testing.assert_allclose(found["loss"], losses[:, epoch - 1], rtol=1e-5, atol=CLOSE)
        assert found["num_examples"].tolist() == [6, 9, 0, 1]
    assert tuned["num_train_examples"].tolist() == [30, 45, 0, 5]
    assert metrics["none"]["rows"].shape == (4, 2)
    assert list(metrics) == ["baseline_metrics", "tune", "none"]


def test_debug_equals_the_compiled_one():
    compiled, plain = evaluated(), evaluated(execution=fb.debug)
    assert largest_difference(compiled, plain) < 1e-5
    assert jax.tree.structure(compiled) == jax.tree.structure(plain)


@models
def test_padding_changes_nothing(masked):
    model = linear_model(masked)
    evaluate = personalization_eval(model, {"tune": personalize(sgdm(0.2))})
    packed = fb.from_clients(clients(SIZES))
    plain = packed.cohort(packed.client_ids, STREAMS)
    longer = {}
    for name, stream in plain.streams.items():
        steps, offsets = int(stream.step_offsets[-1]), stream.step_offsets[: len(SIZES) + 1]
        longer[name] = make_stream(
            stream.rows[:steps], stream.sizes[:steps], offsets, min_steps=40, min_clients=9
        )
    padded = make_cohort(plain.features, longer, packed.client_ids)
    a, b = (evaluate(model.initial_weights, cohort) for cohort in (plain, padded))
    assert len(padded.client_hashes) == 16 > len(plain.client_hashes)
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize("execution", [fb.sequential, fb.debug], ids=["sequential", "debug"])
def test_nobody(execution):
    metrics = evaluated(ids=[], execution=execution)
    assert all(len(leaf) == 0 for leaf in jax.tree.leaves(metrics))


def test_of_too_many_clients_some_are_drawn():
    sizes = [3, 4, 5, 6, 7]
    strategies = {"tune": personalize(sgdm(0.1))}
    evaluate = personalization_eval(linear_model(), strategies, max_num_clients=2)
    packed = fb.from_clients(clients(sizes))
    drawn = set()
    for round in range(1, 17):
        cohort = packed.cohort(packed.client_ids, STREAMS, round=round)
        metrics = evaluate(linear_model().initial_weights, cohort)
        found = metrics["baseline_metrics"]["num_examples"].tolist()
        assert found == metrics["tune"]["num_train_examples"].tolist()  # the same client
        assert found == sorted(found)  # in the order of the cohort
        assert len(set(found)) == 2
        drawn |= set(found)
    assert drawn == set(sizes)


def test_strategies_start_from_the_servers_weights_and_read_any_stream():
    def moved(model, weights, client):
        """The gradient on "extra", and the metrics once more."""
        gradient = fb.model_gradient(model)
        add = lambda total, step: jax.tree.map(jnp.add, total, gradient(weights, weights, step)[0])
        zeros = jax.tree.map(jnp.zeros_like, weights.trainable)
        total = fb.over_steps(add, zeros, client, stream="extra")
        return OrderedDict(bias=total[1], before=evaluate_on_test(model, weights, client)["loss"])

    strategies = {"tune": personalize(sgdm(0.5), train="extra"), "moved": moved}
    evaluate = personalization_eval(linear_model(), strategies)
    data = clients([4])
    cohort = fb.from_clients(data).cohort(["c0"], {**STREAMS, "extra": fb.Batches(4)})
    start = linear_model().initial_weights
    metrics = evaluate(start, cohort)
    assert metrics["moved"]["before"] == metrics["baseline_metrics"]["loss"]
    expected = softmax_gradient(start.trainable, data["c0"]["x"], data["c0"]["y"])[1]
    np.testing.assert_allclose(metrics["moved"]["bias"][0], expected, atol=CLOSE)


def test_the_baseline_can_be_ones_own():
    baseline = lambda model, weights, client: {"half": weights.trainable[1] / 2}
    evaluate = personalization_eval(linear_model(), {}, baseline)
    cohort = fb.from_clients(clients([4])).cohort(["c0"], STREAMS)
    start = fb.ModelWeights([np.zeros((4, 3), np.float32), np.ones(3, np.float32)], [])
    assert evaluate(start, cohort)["baseline_metrics"]["half"].tolist() == [[0.5, 0.5, 0.5]]


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: personalization_eval(linear_model(), {"baseline_metrics": evaluate_on_test}),
            "it must be names other than 'baseline_metrics'",
        ),
        (
            lambda: personalization_eval(linear_model(), {}, max_num_clients=0),
            "max_num_clients is 0; it must be a whole number of at least 1",
        ),
        (lambda: personalize(sgdm(0.1), num_epochs=0), "num_epochs is 0"),
        (lambda: personalize(sgdm(0.1), 2, 0), "num_epochs_per_eval is 0"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(fb.ArgumentError, match=words):
        call()


@pytest.mark.parametrize("baseline", [None, lambda model, weights, client: {}])
def test_nothing_to_report(baseline):
    model = linear_model()._replace(metrics={})
    cohort = fb.from_clients(clients([4, 3])).cohort(["c0", "c1"], STREAMS)
    metrics = personalization_eval(model, {}, baseline)(model.initial_weights, cohort)
    assert metrics == {"baseline_metrics": {}}


def test_a_cohort_without_a_stream_and_weights_of_another_shape():
    evaluate = personalization_eval(linear_model(), {})
    packed = fb.from_clients(clients([4]))
    with pytest.raises(fb.ClientDataError, match="no stream 'test'"):
        evaluate(linear_model().initial_weights, packed.cohort(["c0"], STREAMS["train"]))
    wrong = fb.ModelWeights([np.zeros((2, 3), np.float32), np.ones(3, np.float32)], [])
    with pytest.raises(fb.StateError, match="trainable/0"):
        evaluate(wrong, packed.cohort(["c0"], STREAMS))
