"""Algorithms against short NumPy transcriptions of their papers, and what each adds to FedAvg."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import clients, largest_difference, linear_model, softmax_gradient

import fedbridge as fb
from fedbridge.algorithms import away_from_server, toward_server

# Two orders of the same float32 sums; the updates here have norms around 0.1 to 1.
CLOSE = 2e-6
BATCHES = fb.Batches(batch_size=4)
SIZES = [7, 0, 9, 1]
sgdm = fb.optimizers.sgdm


def weights_after(process, rounds=2, data=None):
    packed = fb.from_clients(data or clients(SIZES))
    return fb.train(process, packed, BATCHES, rounds=rounds).state.global_model_weights.trainable


def start():
    return [w.astype(float) for w in linear_model().initial_weights.trainable]


def add(a, b, scale=1.0):
    return [x + scale * y for x, y in zip(a, b, strict=True)]


def batches_of(client):
    for first in range(0, len(client["y"]), 4):
        yield client["x"][first : first + 4], client["y"][first : first + 4]


def mean_of(updates, counts):
    total = [np.zeros_like(w) for w in start()]
    for update, count in zip(updates, counts, strict=True):
        total = add(total, update, count / sum(counts))
    return total


def fed_prox_in_numpy(mu, rate, rounds):
    """Li et al., Algorithm 2, with SGD as the inexact solver."""
    weights = start()
    for _ in range(rounds):
        deltas, counts = [], []
        for client in clients(SIZES).values():
            local = weights
            for x, y in batches_of(client):
                gradient = add(softmax_gradient(local, x, y), add(local, weights, -1), mu)
                local = add(local, gradient, -rate)
            deltas.append(add(weights, local, -1))
            counts.append(len(client["y"]))
        weights = add(weights, mean_of(deltas, counts), -1)
    return weights


def fed_sgd_in_numpy(rate, rounds):
    """McMahan et al., FederatedSGD: one step with the mean gradient of all examples."""
    every = [np.concatenate([c[k] for c in clients(SIZES).values()]) for k in ("x", "y")]
    weights = start()
    for _ in range(rounds):
        weights = add(weights, softmax_gradient(weights, *every), -rate)
    return weights


def mime_lite_in_numpy(rate, beta, rounds):
    """Karimireddy et al., Algorithm 1, MimeLite with momentum `a ← βa + g` as TFF has it."""
    weights, momentum = start(), [np.zeros_like(w) for w in start()]
    for _ in range(rounds):
        deltas, gradients, counts = [], [], []
        for client in clients(SIZES).values():
            local = weights
            for x, y in batches_of(client):
                local = add(local, add(softmax_gradient(local, x, y), momentum, beta), -rate)
            deltas.append(add(weights, local, -1))
            counts.append(len(client["y"]))
            if counts[-1]:
                gradients.append(softmax_gradient(weights, client["x"], client["y"]))
            else:
                gradients.append([np.zeros_like(w) for w in weights])
        momentum = add(mean_of(gradients, counts), momentum, beta)
        weights = add(weights, mean_of(deltas, counts), -1)
    return weights


def test_fed_prox_is_the_papers():
    ours = weights_after(fb.algorithms.fed_prox(linear_model(), 0.7, sgdm(0.1)))
    assert largest_difference(ours, fed_prox_in_numpy(0.7, 0.1, 2)) < CLOSE


def test_fed_prox_with_tffs_sign_is_the_paper_with_a_negative_strength():
    process = fb.algorithms.fed_prox(linear_model(), 0.7, sgdm(0.1), pull=away_from_server)
    assert largest_difference(weights_after(process), fed_prox_in_numpy(-0.7, 0.1, 2)) < CLOSE


@pytest.mark.parametrize("pull, expected", [(toward_server, 0.22249), (away_from_server, 0.52723)])
def test_both_signs_of_fed_prox_give_the_numbers_measured_in_tff(pull, expected):
    # TFF 0.87.0 gave 0.52723 for one client, the loss (w - 1)², ten steps of SGD 0.02, μ = 5.
    def forward(weights, batch, mask, key, training):
        loss = jnp.square(weights.trainable - 1.0)
        return fb.Forward(loss, batch["x"], loss, jnp.int32(1))

    model = fb.Model(fb.ModelWeights(jnp.zeros(())), forward, metrics={})
    process = fb.algorithms.fed_prox(model, 5.0, sgdm(0.02), pull=pull)
    data = fb.from_clients({"a": {"x": np.ones(10, np.float32)}})
    state, _ = process.next(process.initialize(), data.cohort(["a"], fb.Batches(1)))
    assert float(state.global_model_weights.trainable) == pytest.approx(expected, abs=5e-6)


def test_fed_prox_of_strength_zero_is_fed_avg_bit_for_bit():
    prox = weights_after(fb.algorithms.fed_prox(linear_model(), 0.0, sgdm(0.1, 0.9)))
    plain = weights_after(fb.algorithms.fed_avg(linear_model(), sgdm(0.1, 0.9)))
    assert largest_difference(prox, plain) == 0


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_a_proximal_strength_out_of_range_is_refused(strength):
    with pytest.raises(fb.ArgumentError, match=r"proximal_strength is .*at least 0"):
        fb.algorithms.fed_prox(linear_model(), strength, sgdm(0.1))


def test_fed_sgd_is_one_step_with_the_gradient_of_all_examples():
    ours = weights_after(fb.algorithms.fed_sgd(linear_model(), sgdm(0.5)))
    assert largest_difference(ours, fed_sgd_in_numpy(0.5, 2)) < CLOSE


def test_mime_lite_is_the_papers():
    ours = weights_after(fb.algorithms.mime_lite(linear_model(), sgdm(0.1, 0.9)), rounds=3)
    assert largest_difference(ours, mime_lite_in_numpy(0.1, 0.9, 3)) < CLOSE


def test_mime_lite_without_momentum_is_fed_avg():
    mime = weights_after(fb.algorithms.mime_lite(linear_model(), sgdm(0.1)))
    assert (
        largest_difference(mime, weights_after(fb.algorithms.fed_avg(linear_model(), sgdm(0.1))))
        == 0
    )


def test_one_nan_spoils_mime_lites_optimizer_in_tffs_way_only():
    data = clients([6, 5])
    data["c1"]["y"][:], data["c0"]["y"][:] = 2, 1
    packed = fb.from_clients(data)
    spoilt = {}
    for rule in (fb.drop_non_finite, fb.keep_non_finite):
        process = fb.algorithms.mime_lite(
            linear_model(nan_label=2), sgdm(0.1, 0.9), non_finite=rule
        )
        state, metrics = process.next(process.initialize(), packed.cohort(["c0", "c1"], BATCHES))
        accumulator = state.client_work[0]["accumulator"]
        spoilt[rule] = [bool(np.isnan(leaf).all()) for leaf in accumulator]
        assert all(np.isfinite(leaf).all() for leaf in state.global_model_weights.trainable)
        assert np.isnan(metrics["client_work"]["train"]["loss"]) == (rule is fb.keep_non_finite)
    assert spoilt == {fb.drop_non_finite: [False] * 2, fb.keep_non_finite: [True] * 2}


def test_a_schedule_of_rounds_is_fed_avg_with_other_rates():
    rate = lambda round: 0.1 / (1.0 + round)
    scheduled = fb.algorithms.fed_avg_with_schedule(linear_model(), rate, sgdm)
    packed = fb.from_clients(clients(SIZES))
    result = fb.train(scheduled, packed, BATCHES, rounds=3)
    plain = fb.algorithms.fed_avg(linear_model(), sgdm(9.0))
    state = plain.initialize()
    for round in range(3):
        state = plain.set_hparams(state, {"client_work": {"learning_rate": rate(round)}})
        state, _ = plain.next(state, packed.cohort(packed.client_ids, BATCHES))
    assert largest_difference(result.state.global_model_weights, state.global_model_weights) < CLOSE
    rates = [m["client_work"]["client_learning_rate"] for m in result.metrics]
    assert rates == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert int(result.state.client_work) == 3


def test_mime_lites_schedule_stands_in_the_state_of_its_optimizer():
    process = fb.algorithms.mime_lite_with_schedule(
        linear_model(), lambda round: 0.1 / (1.0 + round), sgdm(9.0, 0.9)
    )
    state = process.initialize()
    assert float(state.client_work[1][0]["learning_rate"]) == pytest.approx(0.1)
    packed = fb.from_clients(clients(SIZES))
    state, _ = process.next(state, packed.cohort(packed.client_ids, BATCHES))
    assert int(state.client_work[0]) == 1
    assert float(state.client_work[1][0]["learning_rate"]) == pytest.approx(0.05)


@pytest.mark.parametrize("rate, words", [
    (lambda round: float("nan"), r"learning_rate_fn\(0\) is nan"),
    (lambda round: -1.0, r"learning_rate_fn\(0\) is -1.0"),
    (lambda round: 0.1 if round < 3 else 0.01, "takes decisions in Python"),
])  # fmt: skip
def test_a_schedule_that_gives_no_rate_is_refused(rate, words):
    with pytest.raises(fb.ArgumentError, match=words):
        fb.algorithms.fed_avg_with_schedule(linear_model(), rate, sgdm)
    with pytest.raises(fb.ArgumentError, match=words):
        fb.algorithms.mime_lite_with_schedule(linear_model(), rate, sgdm(0.1))


def test_metrics_of_each_client_come_in_the_order_of_the_cohort():
    packed = fb.from_clients(clients(SIZES))
    process = fb.algorithms.fed_avg(linear_model(), sgdm(0.1), metrics_aggregator=fb.per_client)
    _, metrics = process.next(process.initialize(), packed.cohort(["c2", "c0", "c1"], BATCHES))
    train = metrics["client_work"]["train"]
    assert train["num_examples"].tolist() == [9, 7, 0]
    assert train["num_examples"].dtype == np.int64
    assert train["loss"].shape == (3,)


@pytest.mark.parametrize("size, expected", [(2, 2), (100, 4)])
def test_a_sample_of_the_clients_metrics(size, expected):
    packed = fb.from_clients(clients(SIZES))
    process = fb.algorithms.fed_avg(
        linear_model(), sgdm(0.1), metrics_aggregator=fb.finalize_then_sample(size)
    )
    drawn = set()
    for round in range(1, 9):
        cohort = packed.cohort(packed.client_ids, BATCHES, round=round)
        counts = (
            process.next(process.initialize(), cohort)
            .metrics["client_work"]["train"]["num_examples"]
            .tolist()
        )
        assert len(counts) == expected
        assert len(set(counts)) == expected  # without replacement: all sizes differ
        assert set(counts) <= set(SIZES)
        drawn |= {tuple(counts)}
    assert len(drawn) > 1


def test_an_algorithm_of_ones_own_composes():
    """The sign of the gradient is all that a client sends; the server follows the majority."""
    model = linear_model()
    gradient = fb.model_gradient(model)

    def client(state, weights, client):
        add_up = lambda total, step: jax.tree.map(
            jnp.add, total, gradient(weights, weights, step)[0]
        )
        total = fb.over_steps(add_up, jax.tree.map(jnp.zeros_like, weights.trainable), client)
        return fb.ClientResult(jax.tree.map(jnp.sign, total), jnp.float32(1.0)), fb.ClientOutput(())

    work = fb.ClientWork(lambda weights: (), client, lambda state, sums, round: (state, {}))
    process = fb.compose_learning_process(
        model, work, fb.jax_core.sum_(), fb.apply_optimizer(sgdm(0.25))
    )
    packed = fb.from_clients(clients([4, 4, 4]))
    state, _ = process.next(process.initialize(), packed.cohort(packed.client_ids, BATCHES))
    moved = jax.tree.map(jnp.subtract, process.initialize().global_model_weights.trainable,
                         state.global_model_weights.trainable)  # fmt: skip
    for leaf in moved:
        assert set(np.round(np.asarray(leaf).ravel() / 0.25).astype(int)) <= {-3, -1, 1, 3}
