"""The ways to run the clients of a round: what differs, what must not, and what they cost."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from problems import clients, largest_difference, linear_model
from test_convolutions import slow_convolutions

import fedbridge as fb
from fedbridge.jax_core import make_cohort, make_stream, max_pool
from fedbridge.jax_core._convolutions import canonical_convolutions
from fedbridge.jax_core._spread import longest_first, spread

HERE = Path(__file__).parent
WAYS = {
    "sequential": fb.sequential,
    "vmapped": fb.vmapped(4),
    "sharded": fb.sharded(inner=fb.vmapped(3)),
}


def run(execution, client_fn, cohort):
    return execution.compile(lambda c: fb.over_clients(client_fn, (), c, execution))(cohort)


def local_training_round(model, execution):
    """`(weights, cohort) -> (sums, kept)`: what takes the time of a round, to be looked at."""
    work = fb.local_training(model, fb.optimizers.sgdm(0.1, 0.9))

    def client_fn(weights, client):
        result, output = work.client(work.initialize(weights), weights, client)
        return fb.ClientOutput((result, output.summed))

    return lambda weights, cohort: fb.over_clients(client_fn, weights, cohort, execution)


def on_one_device(cohort, execution):
    """The cohort as the round gets it."""
    if execution is not WAYS["sharded"]:
        return cohort
    return spread(cohort, jax.sharding.Mesh(np.array(jax.devices()[:1]), ("clients",)))


def test_a_chunk_takes_as_many_steps_as_its_longest_client():
    computed = []
    data = fb.from_clients(clients([3, 0, 13, 2, 12, 1, 10, 11]))
    cohort = data.cohort(data.client_ids, fb.Batches(1))

    def count(_, client):
        def step(seen, step):
            jax.debug.callback(lambda: computed.append(1))
            return seen + 1

        return fb.ClientOutput((), fb.over_steps(step, jnp.int32(0), client))

    def steps_computed(execution):
        computed.clear()
        _, kept = run(execution, count, cohort)
        jax.effects_barrier()
        assert kept[:8].tolist() == [3, 0, 13, 2, 12, 1, 10, 11]
        return len(computed)

    assert steps_computed(fb.sequential) == 52
    # Once for all clients of a chunk.
    assert steps_computed(fb.vmapped(4)) == 13 + 3
    assert steps_computed(fb.vmapped(3)) == 13 + 10 + 1
    assert steps_computed(fb.vmapped(100)) == 13


@given(steps=st.lists(st.integers(0, 50), max_size=12), num_devices=st.integers(1, 5))
def test_no_device_has_more_than_its_share_and_one_client(steps, num_devices):
    device_of = longest_first(np.array(steps, np.int32), num_devices)
    loads = np.bincount(device_of, weights=np.array(steps) + 1, minlength=num_devices)
    # Graham, 1969: who got the last client had, before it, no more than the average.
    assert loads.max() <= (sum(steps) + len(steps)) / num_devices + max(steps, default=0) + 1


def test_what_is_drawn_and_who_counts_does_not_depend_on_the_way():
    data = fb.from_clients(clients([3, 5, 0, 7, 2]))
    cohort = data.cohort([*data.client_ids, "c1"], fb.Batches(2), round=3, seed=4)

    def draw(_, client):
        add = lambda total, step: total + jax.random.randint(step.key, (4,), 0, 1 << 20)
        steps = fb.over_steps(add, jnp.zeros(4, jnp.int32), client)
        return fb.ClientOutput((steps, jnp.int32(1)), (steps, jax.random.bits(client.key)))

    expected = jax.device_get(run(WAYS["sequential"], draw, cohort))
    assert int(expected[0][1]) == 6  # who only fills a chunk, or a device, is not counted
    assert len(set(expected[1][1][:6].tolist())) == 6
    for execution in WAYS.values():
        found = jax.device_get(run(execution, draw, cohort))
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))


def convolutional_model():
    """A convolution, max-pooling and dropout on images of 4 × 4 pixels."""

    def forward(weights, batch, mask, key, training):
        kernel, matrix = weights.trainable
        images = batch["x"].reshape(-1, 4, 4, 1)
        x = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = max_pool(x, (2, 2), (2, 2), "VALID").reshape(len(images), -1)
        x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0.0)
        loss = jax.nn.logsumexp(x @ matrix, 1) - jnp.take_along_axis(
            x @ matrix, batch["y"][:, None], 1
        ).squeeze(1)
        count = mask.sum(dtype=jnp.int32)
        mean = jnp.where(mask, loss, 0.0).sum() / count.astype(jnp.float32)
        return fb.Forward(mean, x, mean, count, weights.non_trainable)

    rng = np.random.default_rng(3)
    shapes = [(3, 3, 1, 5), (20, 3)]
    weights = [0.3 * rng.normal(size=shape).astype(np.float32) for shape in shapes]
    return fb.Model(fb.ModelWeights(weights, []), forward, {"loss": fb.metrics.mean_loss()})


def test_convolutions_and_dropout_are_the_same_in_every_way():
    data = fb.from_clients(clients([9, 2, 5, 0, 7], inputs=16))
    cohort = data.cohort(data.client_ids, fb.Batches(3, num_epochs=2))
    rounds = []
    for execution in WAYS.values():
        optimizer = fb.optimizers.sgdm(0.1, momentum=0.9)
        process = fb.algorithms.fed_avg(convolutional_model(), optimizer, execution=execution)
        rounds.append(process.next(process.initialize(), cohort))
    assert largest_difference(rounds[1], rounds[0]) < 2e-6
    assert largest_difference(rounds[2], rounds[0]) < 2e-6


def test_no_convolution_is_in_another_order_than_xla_likes_in_loops():
    data = fb.from_clients(clients([9, 2, 5], inputs=16))
    model = convolutional_model()
    for execution in WAYS.values():
        cohort = on_one_device(data.cohort(data.client_ids, fb.Batches(3)), execution)
        round = local_training_round(model, execution)
        assert slow_convolutions(round, model.initial_weights, cohort) > 0
        round = canonical_convolutions(round)
        assert slow_convolutions(round, model.initial_weights, cohort) == 0


@pytest.mark.parametrize("execution", WAYS.values(), ids=WAYS)
def test_memory_does_not_grow_with_the_cohort(execution):
    rows = jnp.zeros((2_000, 200)), jnp.zeros(2_000, jnp.int32)
    features = dict(zip("xy", rows, strict=True))
    model = fb.models.softmax_regression((200,), 50, x="x", y="y")

    def temporary_bytes(num_clients):
        steps = 2 * num_clients
        stream = make_stream(
            np.arange(steps, dtype=np.int32)[:, None],
            np.ones(steps, np.int32),
            np.arange(0, steps + 1, 2, dtype=np.int32),
        )
        cohort = make_cohort(features, {"train": stream}, [f"c{i}" for i in range(num_clients)])
        round = jax.jit(local_training_round(model, execution))
        lowered = round.lower(model.initial_weights, on_one_device(cohort, execution))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    few = temporary_bytes(10)
    assert few > 200 * 50 * 4  # there are weights among them
    assert temporary_bytes(1_000) < 1.5 * few


def test_other_rounds_of_one_shape_are_not_traced_again():
    for execution in (WAYS["vmapped"], WAYS["sharded"]):
        traces = []

        def forward(*args):
            traces.append(1)
            return linear_model().forward(*args)

        model = linear_model()._replace(forward=forward)
        process = fb.algorithms.fed_avg(model, fb.optimizers.sgdm(0.1), execution=execution)
        data = fb.from_clients(clients([7, 5, 6]))
        state = process.initialize()
        for ids in (["c0", "c1"], ["c1", "c2"]):
            state, _ = process.next(state, data.cohort(ids, fb.Batches(2)))
            first = traces.copy()
        assert len(traces) == len(first)


def test_what_cannot_be_meant_is_refused(monkeypatch):
    for size in (0, -1, True):
        with pytest.raises(fb.ArgumentError, match=r"chunk_size is .*; it must be a whole number"):
            fb.vmapped(size)
    devices = np.array(jax.devices()[:1])
    with pytest.raises(fb.ArgumentError, match=r"axes \('x', 'clients'\).*the one axis 'clients'"):
        fb.sharded(jax.sharding.Mesh(devices[None], ("x", "clients")))
    with pytest.raises(fb.ArgumentError, match="devices is empty; give at least one"):
        fb.sharded([])
    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: 2)
        with pytest.raises(fb.ArgumentError, match=r"processes own \[1, 0\]; give every process"):
            fb.sharded(list(devices))
    for inner in (fb.debug, fb.sharded()):
        with pytest.raises(fb.ArgumentError, match="inner cannot run within the one program"):
            fb.sharded(inner=inner)
    cohort = fb.from_clients(clients([3])).cohort(["c0"], fb.Batches(2))
    with pytest.raises(fb.ArgumentError, match=r"call execution\.compile\(round\)"):
        fb.over_clients(lambda _, client: fb.ClientOutput(()), (), cohort, fb.sharded())


def test_the_default_is_chosen_by_the_platform(monkeypatch):
    data = fb.from_clients(clients([3, 2]))
    cohort = data.cohort(data.client_ids, fb.Batches(2))
    count = lambda _, client: fb.ClientOutput((), client.num_steps())
    trace = lambda cohort, way: str(
        jax.make_jaxpr(lambda c: fb.over_clients(count, (), c, way))(cohort)
    )
    assert trace(cohort, fb.default_execution) == trace(cohort, fb.sequential)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert trace(cohort, fb.default_execution) == trace(cohort, fb.vmapped())
    # Under vmap, every branch of an opaque model would be computed.
    opaque = cohort.with_exact_sizes()
    assert trace(opaque, fb.default_execution) == trace(opaque, fb.sequential)


@pytest.mark.slow
def test_four_devices_agree_with_one():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "on_four_devices.py"],
        cwd=HERE,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
