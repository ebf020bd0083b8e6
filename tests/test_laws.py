"""The laws of the native API, for models that know masks and for those that do not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from problems import clients, largest_difference, linear_model, softmax_gradient

import fedbridge as fb
from fedbridge.jax_core import make_cohort, make_stream

# Two orders of the same float32 sums; the updates here have norms around 0.1 to 1.
CLOSE = 2e-6
BATCHES = fb.Batches(batch_size=4, num_epochs=2)

models = pytest.mark.parametrize("masked", [True, False], ids=["masked", "opaque"])
sizes_strategy = st.lists(st.integers(0, 13), min_size=1, max_size=5)


def process(masked=True, model=None, **kwargs):
    kwargs.setdefault("client_optimizer", fb.optimizers.sgdm(0.1, momentum=0.9))
    kwargs.setdefault("server_optimizer", fb.optimizers.sgdm(0.7, momentum=0.5))
    return fb.algorithms.fed_avg(model or linear_model(masked), **kwargs)


def run(process, data, ids, rounds=1, batches=BATCHES):
    state = process.initialize()
    for _ in range(rounds):
        state, metrics = process.next(state, data.cohort(ids, batches))
    return state, metrics


def federated_averaging_in_numpy(data, weights, rounds, lr, momentum, server_lr, server_momentum):
    """McMahan et al., Algorithm 1, with momentum on both sides; float64, its own batching."""
    velocity = [np.zeros_like(w, dtype=float) for w in weights]
    weights = [w.astype(float) for w in weights]
    for _ in range(rounds):
        total, weight_sum = [np.zeros_like(w) for w in weights], 0.0
        for client in data.values():
            local, local_velocity = list(weights), [np.zeros_like(w) for w in weights]
            seen = 0
            order = list(range(len(client["y"]))) * 2
            for start in range(0, len(order), 4):
                rows = order[start : start + 4]
                gradient = softmax_gradient(local, client["x"][rows], client["y"][rows])
                local_velocity = [
                    momentum * v + g for v, g in zip(local_velocity, gradient, strict=True)
                ]
                local = [w - lr * v for w, v in zip(local, local_velocity, strict=True)]
                seen += len(rows)
            total = [t + seen * (w - l) for t, w, l in zip(total, weights, local, strict=True)]
            weight_sum += seen
        velocity = [
            server_momentum * v + t / weight_sum for v, t in zip(velocity, total, strict=True)
        ]
        weights = [w - server_lr * v for w, v in zip(weights, velocity, strict=True)]
    return weights


@models
def test_equals_the_paper_in_numpy(masked):
    data = clients([7, 0, 12, 3, 1])
    state, metrics = run(process(masked), fb.from_clients(data), list(data), rounds=3)
    start = linear_model().initial_weights.trainable
    expected = federated_averaging_in_numpy(data, start, 3, 0.1, 0.9, 0.7, 0.5)
    assert largest_difference(state.global_model_weights.trainable, expected) < CLOSE
    assert metrics["client_work"]["train"]["num_examples"] == 2 * (7 + 12 + 3 + 1)
    assert metrics["client_work"]["train"]["num_batches"] == 4 + 6 + 2 + 1


@models
def test_one_client_and_one_full_batch_equal_plain_sgd(masked):
    data = clients([8])
    one = fb.algorithms.fed_avg(linear_model(masked), optax.sgd(0.5))
    state, _ = run(one, fb.from_clients(data), ["c0"], batches=fb.Batches(8))
    start = linear_model().initial_weights.trainable
    gradient = softmax_gradient(start, data["c0"]["x"], data["c0"]["y"])
    expected = [w - 0.5 * g for w, g in zip(start, gradient, strict=True)]
    assert largest_difference(state.global_model_weights.trainable, expected) < CLOSE


@models
@settings(max_examples=4, deadline=None)
@given(sizes=sizes_strategy, extra=st.integers(1, 40))
def test_padding_changes_nothing(masked, sizes, extra):
    data = fb.from_clients(clients(sizes))
    algorithm = process(masked)
    plain = data.cohort(data.client_ids, BATCHES)
    stream = plain.streams["train"]
    junk = np.random.default_rng(0).integers(0, max(sum(sizes), 1), (extra, 4)).astype(np.int32)
    steps = int(stream.step_offsets[-1])
    longer = make_stream(
        np.concatenate([stream.rows[:steps], junk]),
        np.concatenate([stream.sizes[:steps], np.full(extra, 4, np.int32)]),
        stream.step_offsets[: len(sizes) + 1],
        min_clients=2 * len(sizes),
    )
    padded = make_cohort(plain.features, {"train": longer}, data.client_ids)
    state = algorithm.initialize()
    a, b = algorithm.next(state, plain), algorithm.next(state, padded)
    assert jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a, b))


@models
@settings(max_examples=4, deadline=None)
@given(sizes=sizes_strategy, seed=st.integers(0, 99))
def test_permuting_clients_changes_nothing(masked, sizes, seed):
    data = fb.from_clients(clients(sizes))
    ids = list(data.client_ids)
    shuffled = list(np.random.default_rng(seed).permutation(ids))
    algorithm = process(masked)
    a, _ = run(algorithm, data, ids)
    b, _ = run(algorithm, data, [str(i) for i in shuffled])
    assert largest_difference(a.global_model_weights, b.global_model_weights) < CLOSE


@models
def test_a_client_with_nan_equals_an_absent_one(masked):
    data = clients([6, 5, 4])
    data["c1"]["y"][2] = 2
    data["c0"]["y"] %= 2
    data["c2"]["y"] %= 2
    algorithm = process(model=linear_model(masked, nan_label=2))
    packed = fb.from_clients(data)
    with_it, metrics = run(algorithm, packed, ["c0", "c1", "c2"])
    without, _ = run(algorithm, packed, ["c0", "c2"])
    assert largest_difference(with_it.global_model_weights, without.global_model_weights) == 0
    assert metrics["client_work"]["train"]["num_examples"] == 20
    assert np.isfinite(metrics["client_work"]["train"]["loss"])


def test_in_an_unweighted_mean_a_client_with_nan_counts_as_a_zero_update():
    data = clients([6, 5])
    data["c0"]["y"] %= 2
    data["c1"]["y"][:] = 2
    algorithm = fb.algorithms.fed_avg(
        linear_model(nan_label=2), optax.sgd(0.1), aggregator=fb.unweighted_mean()
    )
    packed = fb.from_clients(data)
    both, _ = run(algorithm, packed, ["c0", "c1"])
    alone, _ = run(algorithm, packed, ["c0"])
    start = linear_model().initial_weights
    halved = jax.tree.map(lambda w, e: w + (e - w) / 2, start, alone.global_model_weights)
    assert largest_difference(both.global_model_weights, halved) < CLOSE


@models
@pytest.mark.parametrize("ids", [[], ["c0"], ["c1"]], ids=["nobody", "empty", "nan"])
def test_a_round_without_a_usable_client_leaves_the_state_untouched(masked, ids):
    data = clients([0, 5])
    data["c1"]["y"][:] = 2
    algorithm = process(
        model=linear_model(masked, nan_label=2), server_optimizer=fb.optimizers.adam(0.1)
    )
    state = algorithm.initialize()
    after, metrics = algorithm.next(state, fb.from_clients(data).cohort(ids, BATCHES))
    assert jax.tree.all(jax.tree.map(np.array_equal, state, after))
    assert metrics["finalizer"]["update_non_finite"] == 1
    assert metrics["client_work"]["train"]["loss"] == 0


def test_uniform_weights_count_an_empty_client():
    data = fb.from_clients(clients([6, 0]))
    algorithm = fb.algorithms.fed_avg(linear_model(), optax.sgd(0.1), client_weight=fb.uniform)
    both, _ = run(algorithm, data, ["c0", "c1"])
    alone, _ = run(algorithm, data, ["c0"])
    start = linear_model().initial_weights
    halved = jax.tree.map(lambda w, e: w + (e - w) / 2, start, alone.global_model_weights)
    assert largest_difference(both.global_model_weights, halved) < CLOSE


@models
def test_debug_equals_the_compiled_round(masked):
    data = fb.from_clients(clients([7, 0, 12, 3]))
    compiled, metrics = run(process(masked), data, data.client_ids, rounds=2)
    plain, plain_metrics = run(process(masked, execution=fb.debug), data, data.client_ids, rounds=2)
    assert largest_difference(compiled, plain) < CLOSE
    assert largest_difference(metrics, plain_metrics) < CLOSE
    assert jax.tree.structure(metrics) == jax.tree.structure(plain_metrics)


def test_debug_names_the_client_and_the_step_and_lets_numpy_in():
    def forward(weights, batch, mask, key, training):
        if np.asarray(batch["y"])[0] == 2:
            raise RuntimeError("a label of two")
        return linear_model().forward(weights, batch, mask, key, training)

    data = clients([4, 8])
    data["c0"]["y"][:], data["c1"]["y"][:4], data["c1"]["y"][4:] = 0, 1, 2
    algorithm = process(model=linear_model()._replace(forward=forward), execution=fb.debug)
    cohort = fb.from_clients(data).cohort(["c0", "c1"], fb.Batches(4))
    with pytest.raises(fb.ClientStepError, match=r"client 1 .*step 1: RuntimeError: a label of tw"):
        algorithm.next(algorithm.initialize(), cohort)


def test_rounds_of_one_shape_are_traced_once():
    traces = []

    def forward(*args):
        traces.append(1)
        return linear_model().forward(*args)

    algorithm = process(model=linear_model()._replace(forward=forward))
    data = fb.from_clients(clients([7, 5, 6]))
    state = algorithm.initialize()
    state, _ = algorithm.next(state, data.cohort(["c0", "c1"], BATCHES))
    first = len(traces)
    for ids in (["c1", "c2"], ["c2", "c0"]):
        state, _ = algorithm.next(state, data.cohort(ids, BATCHES))
    assert len(traces) == first


def test_state_and_metrics_trees_are_tffs():
    data = fb.from_clients(clients([7]))
    state, metrics = run(process(), data, ["c0"])
    assert list(fb.jax_core.named_leaves(state)) == [
        "global_model_weights/trainable/0",
        "global_model_weights/trainable/1",
        "client_work/learning_rate",
        "client_work/momentum",
        "finalizer/learning_rate",
        "finalizer/momentum",
        "finalizer/accumulator/0",
        "finalizer/accumulator/1",
    ]
    assert list(metrics) == ["distributor", "client_work", "aggregator", "finalizer"]
    assert metrics["distributor"] == ()
    assert metrics["aggregator"] == {"mean_value": (), "mean_weight": ()}
    train = metrics["client_work"]["train"]
    assert list(train) == ["loss", "num_examples", "num_batches"]
    assert train["num_examples"].dtype == np.int64
    assert train["loss"].dtype == np.float32
    assert metrics["finalizer"]["update_non_finite"].dtype == np.int32


def test_hyperparameters_are_set_between_rounds():
    algorithm = process()
    state = algorithm.initialize()
    hparams = algorithm.get_hparams(state)
    assert {k: float(v) for k, v in hparams["client_work"].items()} == pytest.approx(
        {"learning_rate": 0.1, "momentum": 0.9}
    )
    frozen = algorithm.set_hparams(state, {"client_work": {"learning_rate": 0.0}})
    data = fb.from_clients(clients([7]))
    after, _ = algorithm.next(frozen, data.cohort(["c0"], BATCHES))
    assert largest_difference(after.global_model_weights, state.global_model_weights) == 0


def test_weights_of_another_shape_are_refused():
    algorithm = process()
    state = algorithm.initialize()
    wrong = fb.ModelWeights([np.zeros((2, 2), np.float32), np.zeros(3, np.float32)], [])
    with pytest.raises(fb.StateError, match=r"trainable/0.*\(4, 3\).*\(2, 2\)"):
        algorithm.set_model_weights(state, wrong)


def test_evaluation_adds_up_over_rounds():
    data = fb.from_clients(clients([7, 5]))
    evaluation = fb.algorithms.fed_eval(linear_model())
    state = evaluation.initialize()
    state, first = evaluation.next(state, data.cohort(["c0"], fb.Batches(4)))
    state, second = evaluation.next(state, data.cohort(["c1"], fb.Batches(4)))
    _, both = evaluation.next(evaluation.initialize(), data.cohort(["c0", "c1"], fb.Batches(4)))
    total = second["client_work"]["eval"]["total_rounds_metrics"]
    assert total["num_examples"] == 12
    assert total["num_examples"].dtype == np.int64
    expected = both["client_work"]["eval"]["current_round_metrics"]
    assert total["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert first["client_work"]["eval"]["current_round_metrics"]["num_batches"] == 2
    assert largest_difference(state.global_model_weights, linear_model().initial_weights) == 0


def test_a_limited_loop_equals_the_dynamic_one_and_differentiates():
    data = fb.from_clients(clients([7]))
    cohort = data.cohort(["c0"], fb.Batches(3))
    client = fb.Client(cohort, 0, jax.random.key(0))

    def total(scale, limit=None):
        add = lambda seen, step: (
            seen + scale * jnp.where(step.mask[:, None], step.batch["x"], 0).sum()
        )
        if limit is None:
            return fb.over_steps(add, jnp.float32(0), client)
        with_value = lambda seen, step: (add(seen, step), step.index)
        return fb.over_steps(with_value, jnp.float32(0), client, limit=limit)

    dynamic = total(2.0)
    limited, values = total(2.0, limit=5)
    assert float(dynamic) == pytest.approx(float(limited))
    assert values.tolist() == [0, 1, 2, 0, 0]
    slope = jax.grad(lambda scale: total(scale, limit=5)[0])(2.0)
    assert float(slope) == pytest.approx(float(dynamic) / 2, rel=1e-5)


def test_what_is_kept_comes_back_in_the_order_of_the_cohort():
    data = fb.from_clients(clients([3, 0, 5]))
    cohort = data.cohort(["c2", "c0", "c1"], fb.Batches(2))
    count = lambda _, client: fb.ClientOutput((), client.num_steps())
    for execution in (fb.sequential, fb.debug, fb.vmapped(2), fb.sharded()):
        _, kept = execution.compile(lambda c: fb.over_clients(count, (), c, execution))(cohort)
        assert kept[:3].tolist() == [3, 2, 0]


def test_randomness_belongs_to_round_client_and_occurrence():
    data = fb.from_clients(clients([3, 3]))
    draw = lambda _, client: fb.ClientOutput((), jax.random.uniform(client.key))

    def draws(ids, **kwargs):
        cohort = data.cohort(ids, fb.Batches(2), **kwargs)
        return fb.over_clients(draw, (), cohort, fb.sequential)[1][: len(ids)].tolist()

    a, b = draws(["c0", "c1"])
    assert draws(["c1", "c0"]) == [b, a]
    assert draws(["c0", "c0"])[0] == a
    assert len({a, b, draws(["c0", "c0"])[1], *draws(["c0"], round=2), *draws(["c0"], seed=1)}) == 5


def test_labels_that_the_model_does_not_know_are_refused():
    data = clients([3, 4])
    data["c1"]["y"][1] = 5
    packed = fb.from_clients(data)
    model = fb.models.softmax_regression((4,), 3, x="x", y="y")
    algorithm = fb.algorithms.fed_avg(model, optax.sgd(0.1))
    state = algorithm.initialize()
    algorithm.next(state, packed.cohort(["c0"], BATCHES))
    with pytest.raises(fb.ClientDataError, match=r"'y'.*label 5.*0 to 2.*map_batches"):
        algorithm.next(state, packed.cohort(["c1"], BATCHES))
    floats = packed.map_batches(lambda batch: {**batch, "y": batch["y"] * 1.0})
    with pytest.raises(fb.ClientDataError, match=r"'y'.*whole numbers.*float32"):
        algorithm.next(state, floats.cohort(["c0"], BATCHES))
    shorter = packed.map_batches(lambda batch: {**batch, "x": batch["x"][:, :2]})
    with pytest.raises(fb.ClientDataError, match=r"'x'.*shape \(2,\).*made for \(4,\)"):
        algorithm.next(state, shorter.cohort(["c0"], BATCHES))
    with pytest.raises(fb.ClientDataError, match=r"'c0' is one client id.*\['c0'\]"):
        packed.cohort("c0", BATCHES)
    renamed = packed.map_batches(lambda batch: {"x": batch["x"], "label": batch["y"]})
    with pytest.raises(fb.ClientDataError, match=r"\['label', 'x'\].*wants 'y'"):
        algorithm.next(state, renamed.cohort(["c0"], BATCHES))
