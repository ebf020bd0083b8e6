"""Run by test_execution.py in a process of its own, which has four devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import clients, linear_model, partly_local

import fedbridge as fb

BATCHES = fb.Batches(batch_size=4, num_epochs=2)
SIZES = [7, 0, 12, 3, 1, 9, 5]
WAYS = {
    "four": fb.sharded(),
    "four-vmapped": fb.sharded(inner=fb.vmapped(2)),
    "three": fb.sharded(jax.devices()[:3]),
}
_sgdm = fb.optimizers.sgdm
_slow, _fast = _sgdm(0.1, momentum=0.9), _sgdm(0.7, momentum=0.5)

ALGORITHMS = {
    "fed_avg": lambda m, e: fb.algorithms.fed_avg(
        m, _slow, _fast, metrics_aggregator=fb.per_client, execution=e
    ),
    "fed_recon": lambda m, e: fb.algorithms.fed_recon(partly_local(m), _slow, _fast, execution=e),
    "mime_lite": lambda m, e: fb.algorithms.mime_lite(m, _slow, _fast, execution=e),
    "private": lambda m, e: fb.algorithms.fed_avg(
        m, _slow, _fast, execution=e, client_weight=fb.uniform,
        aggregator=fb.aggregators.gaussian_fixed(0.1, 3, 0.5),
    ),
}  # fmt: skip


def assert_same_round(one, four, start):
    """Within 1e-6 of the update's norm and 2 ulp, tensor by tensor; counters are equal."""
    states = start, one.state, four.state
    weights = [[*map(np.asarray, jax.tree.leaves(s.global_model_weights))] for s in states]
    update = [new - old for old, new, _ in zip(*weights, strict=True)]
    norm = np.sqrt(sum(float(jnp.sum(u**2)) for u in update))
    assert norm > 0
    for _, expected, found in zip(*weights, strict=True):
        bound = 1e-6 * norm + 2 * np.spacing(np.abs(expected))
        assert (np.abs(np.asarray(found) - np.asarray(expected)) <= bound).all()
    assert jax.tree.structure(one) == jax.tree.structure(four)
    for expected, found in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a, b))


def test_there_are_four_devices():
    assert jax.device_count() == 4


@pytest.mark.parametrize(
    "name, masked, way",
    [
        *((name, True, "four-vmapped") for name in ALGORITHMS),
        ("fed_avg", False, "four"),
        ("fed_avg", True, "three"),
    ],
)
def test_many_devices_agree_with_one_and_with_themselves(name, masked, way):
    data = fb.from_clients(clients(SIZES))
    cohort = data.cohort(data.client_ids, BATCHES)
    one, four = (ALGORITHMS[name](linear_model(masked), e) for e in (fb.sequential, WAYS[way]))
    # From a state whose slots are not zero.
    start = one.next(one.initialize(), cohort).state
    assert_same_round(one.next(start, cohort), four.next(start, cohort), start)
    assert equal(four.next(start, cohort), four.next(start, cohort))
    if name == "fed_avg":
        alone = data.cohort(["c3"], BATCHES)  # three devices, or two, have no client
        assert_same_round(one.next(start, alone), four.next(start, alone), start)
        nobody = four.next(start, data.cohort([], BATCHES))
        assert equal(nobody.state.global_model_weights, start.global_model_weights)
        assert equal(nobody.state.finalizer, start.finalizer)


@pytest.mark.parametrize("way", [fb.sequential, fb.debug], ids=["sequential", "debug"])
def test_one_device_goes_on_where_four_stopped(way):
    data = fb.from_clients(clients(SIZES))
    cohort = data.cohort(data.client_ids, BATCHES)
    model = linear_model()
    one, four = (ALGORITHMS["private"](model, e) for e in (way, WAYS["four"]))
    start = four.next(four.initialize(), cohort).state
    assert_same_round(one.next(start, cohort), four.next(start, cohort), start)
    weights = four.get_model_weights(start)
    on_host = jax.tree.map(np.asarray, weights)
    assert equal(fb.central_eval(model, data)(weights), fb.central_eval(model, data)(on_host))
    process = fb.algorithms.fed_eval(model, execution=way)
    state = process.set_model_weights(process.initialize(), weights)
    assert int(process.next(state, cohort).metrics["client_work"]["eval"][
        "current_round_metrics"]["num_examples"]) == 2 * sum(SIZES)  # fmt: skip


def test_where_nothing_is_said_clients_are_spread_if_their_model_knows_masks():
    data = fb.from_clients(clients(SIZES))
    for masked, like in ((True, fb.sharded()), (False, fb.sequential)):
        results = []
        for way in (fb.default_execution, like):
            process = ALGORITHMS["fed_avg"](linear_model(masked), way)
            cohort = process.place(data.cohort(data.client_ids, BATCHES))
            # From a state of the other device or devices, and from one of its own.
            first = process.next(process.initialize(), cohort)
            results.append(process.next(first.state, data.cohort(data.client_ids, BATCHES)))
        assert equal(*results)
        devices = [leaf.sharding.device_set for leaf in jax.tree.leaves(results[0].state)]
        assert {len(d) for d in devices} == ({4} if masked else {1})
    in_parts = fb.from_clients(clients(SIZES)).resident(False, buffer_bytes=400)
    process = ALGORITHMS["fed_avg"](linear_model(False), fb.default_execution)
    assert_same_round(
        process.next(process.initialize(), in_parts.cohort(data.client_ids, BATCHES)),
        process.next(process.initialize(), data.cohort(data.client_ids, BATCHES)),
        process.initialize(),
    )


def test_what_clients_carry_and_keep_has_its_place():
    data = fb.from_clients(clients(SIZES))
    cohort = data.cohort(["c5", "c1", "c3", "c2", "c0", "c3"], BATCHES)
    carried = np.arange(len(cohort.client_hashes), dtype=np.int32)
    cohort = fb.jax_core.Cohort(**{**vars(cohort), "state": carried})

    def look(_, client):
        add = lambda total, step: total + step.batch["x"].sum(where=step.mask[:, None])
        total = fb.over_steps(add, jnp.float32(0), client)
        return fb.ClientOutput(client.state, (client.state, total, jax.random.bits(client.key)))

    run = lambda way: way.compile(lambda c: fb.over_clients(look, (), c, way))(cohort)
    sums, (carried, totals, bits) = run(WAYS["four"])
    assert int(sums) == 0 + 1 + 2 + 3 + 4 + 5
    assert carried.tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    expected = [2 * data.client(i)["x"].sum() for i in ("c5", "c1", "c3", "c2", "c0", "c3")]
    np.testing.assert_allclose(totals[:6], expected, rtol=1e-4, atol=1e-5)
    assert bits.tolist() == run(fb.sequential)[1][2].tolist()


def test_each_device_has_the_rows_of_its_clients_only():
    from fedbridge.jax_core._spread import spread

    data = fb.from_clients(clients([40, 40, 40, 40])).resident(False)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("clients",))
    dealt = spread(data.cohort(data.client_ids, BATCHES), mesh)
    assert dealt.features["x"].shape == (4 * 128, 4)  # as many as 64 steps of two epochs can visit
    for c, piece in enumerate(dealt.features["x"].addressable_shards):
        assert np.array_equal(piece.data[:40], data.client(f"c{c}")["x"])


def test_whole_data_on_each_device_give_the_same_bits_as_the_rows_of_its_clients():
    model, four = linear_model(), WAYS["four"]
    process = ALGORITHMS["fed_avg"](model, four)
    whole, moved = (fb.from_clients(clients(SIZES)).resident(where) for where in (None, False))
    cohorts = [data.cohort(data.client_ids[1:], BATCHES) for data in (whole, moved)]
    placed = [process.place(cohort).features["x"] for cohort in cohorts]
    assert placed[0].shape == (4 * sum(SIZES), 4) != placed[1].shape
    results = [process.next(process.initialize(), cohort) for cohort in cohorts]
    assert equal(*results)


def test_personalization_reports_the_same_clients():
    model = linear_model()
    strategies = {"tune": fb.algorithms.personalize(_sgdm(0.1), num_epochs=2)}
    data = fb.from_clients(clients(SIZES))
    cohort = data.cohort(data.client_ids, {"train": BATCHES, "test": fb.Batches(8)})
    one, four = (
        fb.algorithms.personalization_eval(model, strategies, max_num_clients=5, execution=e)(
            model.initial_weights, cohort
        )
        for e in (fb.sequential, WAYS["four"])
    )
    assert jax.tree.structure(one) == jax.tree.structure(four)
    for expected, found in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_mesh_of_other_axes_is_refused():
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "clients"))
    with pytest.raises(fb.ArgumentError, match=r"axes \('data', 'clients'\)"):
        fb.sharded(mesh)
