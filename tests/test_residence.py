"""Where the rows of a round lie, and when they move: on the device, in one piece, in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from problems import clients, largest_difference, linear_model
from test_contract import ALGORITHMS, CLOSE, EVALUATIONS

import fedbridge as fb
from fedbridge.jax_core import _residence
from fedbridge.jax_core._cohort import clients_bucket, steps_bucket
from fedbridge.jax_core._parts import CohortInParts, _parts
from fedbridge.jax_core._residence import own_rows, used_rows

SIZES = [5, 0, 9, 1, 7, 3, 8, 2]
ROW = 4 * (4 + 1)  # bytes: four float32 and an int32
BATCHES = fb.Batches(batch_size=3, num_epochs=2, shuffle_buffer=5, seed=1)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.array_equal(a, b, equal_nan=True)


def a_round(process, data):
    state = process.initialize()
    return process.next(state, data.cohort(data.client_ids, BATCHES))


@pytest.mark.parametrize("name", ["fed_avg", "mime_lite", "fed_recon", "fed_kmeans", "fed_eval"])
def test_a_round_is_the_same_wherever_its_rows_lie(name):
    data = fb.from_clients(clients(SIZES))
    process = (ALGORITHMS | EVALUATIONS)[name](linear_model(), fb.sequential)
    on_device = a_round(process, data.resident(True))
    same(a_round(process, data.resident(False)), on_device)

    in_parts = data.resident(False, buffer_bytes=12 * ROW)
    assert isinstance(process.place(in_parts.cohort(data.client_ids, BATCHES)), CohortInParts)
    found = a_round(process, in_parts)
    assert jax.tree.structure(found) == jax.tree.structure(on_device)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(on_device), strict=True):
        # Sums of the parts' sums: the same numbers, added in another order.
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=CLOSE)


def test_an_opaque_model_in_parts():
    data = fb.from_clients(clients(SIZES))
    process = ALGORITHMS["fed_avg"](linear_model(masked=False), fb.vmapped(2))
    found = a_round(process, data.resident(False, buffer_bytes=12 * ROW))
    assert largest_difference(found, a_round(process, data)) <= CLOSE


def test_what_is_kept_of_each_client_comes_back_in_order_from_parts():
    data = fb.from_clients(clients(SIZES)).resident(False, buffer_bytes=10 * ROW)
    look = lambda _, client: fb.ClientOutput(
        client.num_steps(), (client.num_steps(), jax.random.key_data(client.key))
    )
    round = lambda cohort: fb.over_clients(look, (), cohort, fb.sequential)
    found = fb.sequential.compile(round)(data.cohort(data.client_ids, BATCHES))
    whole = fb.sequential.compile(round)(data.resident(True).cohort(data.client_ids, BATCHES))
    same(found, whole)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(1, 40))
def test_parts_hold_all_clients_once_and_no_more_rows_than_the_buffer(sizes, max_rows):
    data = fb.from_clients(clients(sizes)).resident(False, buffer_bytes=max_rows * ROW)
    cohort = data.cohort(data.client_ids, BATCHES)
    placed = fb.sequential.place(cohort)
    if len(used_rows(cohort.streams)) <= max_rows:
        assert not isinstance(placed, CohortInParts)
        return
    parts = list(_parts(placed))
    hashes = [part.client_hashes[: part.num_clients] for part in parts]
    assert np.array_equal(np.concatenate(hashes), cohort.client_hashes[: len(sizes)])
    for part in parts:
        assert len(part.features["y"]) == max(max_rows, *sizes)
    rows = lambda c, step: c.features["x"][c.streams["train"].rows[step]]
    steps = [
        rows(part, step) for part in parts for step in range(part.streams["train"].step_offsets[-1])
    ]
    expected = [rows(cohort, step) for step in range(cohort.streams["train"].step_offsets[-1])]
    same(steps, expected)


def test_the_data_are_on_the_device_once():
    data = fb.from_clients(clients(SIZES))
    mapped = data.map_batches(lambda batch: dict(batch))
    place = lambda data: fb.sequential.place(data.cohort(data.client_ids[:1], BATCHES))
    features = place(data).features
    assert all(isinstance(column, jax.Array) for column in features.values())
    for other in (data, mapped, data.pooled()):
        assert place(other).features is features


def test_mapped_memory_is_read_in_place(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1000, 4), np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    data = fb.FederatedArrays(("a",), np.array([0, 1000]), {"x": np.asarray(x)})
    cpu = jax.devices("cpu")[0]
    assert data.residence.num_bytes(cpu) == 0
    column = data.residence.on(cpu)["x"]
    # jax does not promise it: where it copies, there is one copy.
    if jax.__version_info__ >= (0, 10):
        assert column.unsafe_buffer_pointer() == x.ctypes.data


def test_data_that_do_not_fit_move_or_are_refused(monkeypatch):
    data = fb.FederatedArrays(("a",), np.array([0, 9]), {"x": np.zeros((10, 3), np.float32)[1:]})
    size = 9 * 3 * 4
    monkeypatch.setattr(_residence, "free_bytes", lambda device: 2 * size - 1)
    place = lambda data: fb.sequential.place(data.cohort(["a"], fb.Batches(4)))
    assert isinstance(place(data).features["x"], np.ndarray)
    assert isinstance(place(data.resident()).features["x"], jax.Array)
    monkeypatch.setattr(_residence, "free_bytes", lambda device: size - 1)
    with pytest.raises(fb.ClientDataError, match=r"the data need 0\.0 GB on .*, which has 0\.0 GB"):
        place(data.resident())
    monkeypatch.setattr(_residence, "free_bytes", lambda device: None)
    assert isinstance(place(data).features["x"], np.ndarray)
    with pytest.raises(fb.ArgumentError, match="buffer_bytes is 0; it must be a whole number"):
        data.resident(False, buffer_bytes=0)


def test_own_rows_are_few():
    data = fb.from_clients(clients([1000, 10, 1000]))
    cohort = own_rows(data.cohort(["c1"], fb.Batches(4)))
    assert len(cohort.features["x"]) == 64 * 4  # as many as 64 steps can visit
    same(cohort.features["x"][:10], data.client("c1")["x"])


# ------------------------------------------------------------------------- programs, padding


def poisson(rate):
    """Every client takes part with this probability, independently."""

    def sample(round, client_ids):
        takes_part = np.random.default_rng([5, round]).random(len(client_ids)) < rate
        return [client_id for client_id, yes in zip(client_ids, takes_part, strict=True) if yes]

    return sample


@pytest.mark.slow
@pytest.mark.parametrize(
    ("execution", "where"),
    [
        (fb.sequential, {}),
        (fb.sequential, {"on_device": False}),
        (fb.sequential, {"on_device": False, "buffer_bytes": 10_000}),  # in parts
        (fb.sharded(inner=fb.sequential), {"on_device": False}),
    ],
    ids=["resident", "moved", "in parts", "sharded and moved"],
)
def test_300_rounds_of_varying_cohorts_need_few_programs_and_compute_no_padding(execution, where):
    traced, computed = [], []
    model = linear_model()

    def forward(*args):
        traced.append(1)
        jax.debug.callback(lambda: computed.append(1))
        return model.forward(*args)

    process = fb.algorithms.fed_avg(
        model._replace(forward=forward), fb.optimizers.sgdm(0.1), execution=execution
    )
    # As large as EMNIST's clients: mostly one form, or two, a few that were left early.
    sizes = np.random.default_rng(3).choice(
        [40, 160, 190, 330, 420], 100, p=[0.05, 0.4, 0.3, 0.2, 0.05]
    )
    data = fb.from_clients(clients(sizes)).resident(**where)
    batches = fb.Batches(batch_size=20)
    result = fb.train(process, data, batches, rounds=1, sampler=poisson(0.1))
    once = len(traced)
    result = fb.train(process, data, batches, rounds=300, sampler=poisson(0.1))
    jax.effects_barrier()
    assert len(traced) / once <= 6
    real = sum(int(m["client_work"]["train"]["num_batches"]) for m in result.metrics)
    first = int(result.metrics[0]["client_work"]["train"]["num_batches"])
    assert len(computed) == real + first  # not one padded step


def test_padded_sizes():
    assert [steps_bucket(n) for n in (0, 64, 65, 257)] == [64, 64, 256, 1024]
    assert [clients_bucket(n) for n in (0, 4, 5, 9)] == [4, 4, 8, 16]


# ------------------------------------------------------------------------------ fused rounds


@pytest.mark.parametrize("name", ["fed_avg_adam", "fed_avg_robust", "mime_lite", "fed_recon"])
def test_fused_rounds_are_the_same_to_the_bit(name):
    data = fb.from_clients(clients(SIZES))
    process = ALGORITHMS[name](linear_model(), fb.sequential)
    sampler = lambda round, ids: list(
        np.random.default_rng(round).permutation(ids)[: 2 + round % 5]
    )
    train = lambda **more: fb.train(process, data, BATCHES, rounds=7, sampler=sampler, **more)
    calls = []
    fused = train(rounds_per_call=3, on_round=[lambda round, metrics: calls.append(round)])
    same(fused, train())
    assert calls == [1, 2, 3, 4, 5, 6, 7]


def test_fused_rounds_are_one_call_where_nothing_is_between_them():
    data = fb.from_clients(clients(SIZES))
    compiled = []

    def counted(round):
        run = fb.sequential.compile(round)
        compiled.append(0)
        number = len(compiled) - 1

        def count(*args):
            compiled[number] += 1
            return run(*args)

        return count

    def calls(name, data):
        compiled.clear()
        execution = fb.sequential._replace(compile=counted)
        process = ALGORITHMS[name](linear_model(), execution)
        fb.train(process, data, BATCHES, rounds=8, rounds_per_call=4)
        return compiled

    assert calls("fed_avg", data) == [0, 2]
    assert calls("fed_avg", data.resident(False)) == [8, 0]
    assert calls("fed_avg_with_schedule", data) == [8, 0]  # its rate is checked in every round


def test_rounds_per_call_saves_and_resumes(tmp_path):
    data = fb.from_clients(clients(SIZES))
    process = ALGORITHMS["fed_avg"](linear_model(), fb.sequential)
    run = lambda rounds, **options: fb.train(process, data, BATCHES, rounds=rounds, **options)
    run(5, rounds_per_call=2, checkpoint=tmp_path / "state")
    resumed = run(9, rounds_per_call=3, checkpoint=tmp_path / "state")
    assert len(resumed.metrics) == 4
    same(resumed.state, run(9).state)
    with pytest.raises(fb.ArgumentError, match="rounds_per_call is 0; it must be a whole number"):
        run(1, rounds_per_call=0)


def test_the_next_cohort_is_made_ahead_and_its_error_comes_in_its_own_round():
    data = fb.from_clients(clients(SIZES))
    process = ALGORITHMS["fed_avg"](linear_model(), fb.sequential)
    asked, done = [], []

    def sampler(round, client_ids):
        asked.append(round)
        return ["c0"] if round < 3 else ["nobody"]

    with pytest.raises(fb.ClientDataError, match="client 'nobody'"):
        fb.train(
            process, data, BATCHES, rounds=9, sampler=sampler,
            on_round=[lambda round, metrics: done.append(round)],
        )  # fmt: skip
    assert done == [1, 2]
    assert asked == [1, 2, 3] or asked == [1, 2, 3, 4]


def test_cohorts_are_made_on_the_device_of_the_caller():
    data = fb.from_clients(clients(SIZES))
    seen = []
    process = ALGORITHMS["fed_avg"](linear_model(), fb.sequential)
    place = lambda cohort: seen.append(jax.config.jax_default_device) or process.place(cohort)
    device = jax.devices("cpu")[-1]
    with jax.default_device(device):
        fb.train(process._replace(place=place), data, BATCHES, rounds=1)
    assert seen == [device]


def test_pooled_clients_are_evaluated_as_one():
    data = fb.from_clients(clients(SIZES))
    pooled = data.pooled()
    assert pooled.client_ids == ("all",) and pooled.num_examples("all") == sum(SIZES)
    process = EVALUATIONS["fed_eval"](linear_model(), fb.sequential)
    loss = lambda data, batches: process.next(
        process.initialize(), data.cohort(data.client_ids, batches)
    ).metrics["client_work"]["eval"]["current_round_metrics"]["loss"]
    # Means of other batches, weighted by their examples: rounding apart, the same number.
    assert jnp.allclose(loss(pooled, fb.Batches(16)), loss(data, fb.Batches(3)), rtol=1e-6)
    evaluate = fb.central_eval(linear_model(), data, batch_size=16)
    same(evaluate(linear_model().initial_weights)["loss"], loss(pooled, fb.Batches(16)))
