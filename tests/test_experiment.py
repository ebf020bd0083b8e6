"""The training loop, samplers, and states in files."""

import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from problems import clients, linear_model

import fedbridge as fb

BATCHES = fb.Batches(batch_size=4, shuffle_buffer=5, seed=3)
UNSEEDED = fb.Batches(batch_size=3, num_epochs=2, shuffle_buffer=10)


def process():
    return fb.algorithms.fed_avg(linear_model(), optax.sgd(0.1), fb.optimizers.adam(0.01))


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize("batches", [BATCHES, UNSEEDED], ids=["seeded", "unseeded"])
def test_a_resumed_run_equals_one_that_was_never_interrupted(tmp_path, batches):
    data = fb.from_clients(clients([7, 5, 6, 9]))
    sampler = fb.samplers.uniform(2, seed=1)
    straight = fb.train(process(), data, batches, rounds=4, sampler=sampler)
    file = tmp_path / "run.state"
    fb.train(process(), data, batches, rounds=2, sampler=sampler, checkpoint=file)
    rest = fb.train(process(), data, batches, rounds=4, sampler=sampler, checkpoint=file)
    assert same(straight.state, rest.state)
    assert same(straight.metrics[2:], rest.metrics)
    assert [f.name for f in tmp_path.iterdir()] == ["run.state"]


@pytest.mark.slow
def test_an_evaluation_is_in_the_metrics_of_its_rounds_however_long_the_run_is(tmp_path):
    data = fb.from_clients(clients([7, 5]))
    central = fb.central_eval(linear_model(), data, 4)

    def run(rounds, **more):
        return fb.train(process(), data, BATCHES, rounds=rounds, evaluate=central, **more)

    straight = run(6, evaluate_every=2)
    assert ["evaluation" in m for m in straight.metrics] == [False, True] * 3
    weights = process().get_model_weights(straight.state)
    assert same(straight.metrics[-1]["evaluation"], central(weights))
    file = tmp_path / "run.state"
    parts = [run(rounds, evaluate_every=2, checkpoint=file).metrics for rounds in (3, 6)]
    assert same(straight.metrics, parts[0] + parts[1])
    fused = run(6, evaluate_every=2, rounds_per_call=2)
    assert same(straight.metrics, fused.metrics)
    with pytest.raises(fb.ArgumentError, match="evaluate_every is 3.*multiple of rounds_per_call"):
        run(1, evaluate_every=3, rounds_per_call=2)


def test_no_saved_round_is_missing_in_a_log(tmp_path):
    """Wherever a run stops, its log has every round up to the checkpoint, and may have more."""
    data, file, logged = fb.from_clients(clients([7])), tmp_path / "run.state", []

    def log(round, metrics):
        assert fb.saved_round(process(), file) == (round - 1) // 2 * 2
        logged.append(round)
        if round == 5:
            raise KeyboardInterrupt

    run = {"checkpoint": file, "checkpoint_every": 2, "on_round": [log]}
    with pytest.raises(KeyboardInterrupt):
        fb.train(process(), data, BATCHES, rounds=9, **run)
    assert logged == [1, 2, 3, 4, 5]
    assert fb.saved_round(process(), file) == 4


def test_every_round_is_told():
    data = fb.from_clients(clients([7]))
    seen = []
    fb.train(process(), data, BATCHES, rounds=3, on_round=[lambda r, m: seen.append(r)])
    assert seen == [1, 2, 3]


# Recorded from tff.simulation.build_uniform_sampling_fn(range(100), random_seed=1), TFF 0.87.0.
@pytest.mark.parametrize(
    ("round", "expected"),
    [(0, [19, 78, 96, 16, 57]), (1, [34, 4, 96, 50, 13]), (2, [17, 22, 15, 7, 87])],
)
def test_the_uniform_sampler_draws_what_tff_draws(round, expected):
    ids = [f"c{i}" for i in range(100)]
    assert fb.samplers.uniform(5, seed=1)(round, ids) == [f"c{i}" for i in expected]


def test_more_clients_than_there_are_are_refused():
    with pytest.raises(fb.ClientDataError, match="3 clients a round of 2"):
        fb.samplers.uniform(3, seed=1)(1, ["a", "b"])
    assert len(fb.samplers.uniform(3, seed=1, replace=True)(1, ["a", "b"])) == 3


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_of_a_saved_state_is_refused(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("states") / "a.state"
    state = process().initialize()
    fb.save(file, state)
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    with pytest.raises(fb.StateError):
        fb.load(file, like=state)


def test_a_truncated_missing_or_foreign_state_is_refused(tmp_path):
    file = tmp_path / "a.state"
    state = process().initialize()
    with pytest.raises(fb.StateError, match=r"a\.state.*fb\.save"):
        fb.load(file, like=state)
    fb.save(file, state)
    whole = file.read_bytes()
    with pytest.raises(fb.StateError, match="cannot be written there"):
        fb.save(file / "below_a_file", state)
    file.write_bytes(whole[:-10])
    with pytest.raises(fb.StateError, match="damaged"):
        fb.load(file, like=state)
    file.write_bytes(whole.replace(b"fedbridge-state 1", b"fedbridge-state 2", 1))
    with pytest.raises(fb.StateError, match="upgrade"):
        fb.load(file, like=state)
    file.write_bytes(whole)
    other = fb.algorithms.fed_avg(linear_model(), optax.sgd(0.1)).initialize()
    with pytest.raises(fb.StateError, match="is absent in this process|in this process"):
        fb.load(file, like=other)


def test_a_state_comes_back_as_it_was(tmp_path):
    algorithm = process()
    data = fb.from_clients(clients([7]))
    state, _ = algorithm.next(algorithm.initialize(), data.cohort(["c0"], BATCHES))
    fb.save(tmp_path / "s", state)
    back = fb.load(tmp_path / "s", like=algorithm.initialize())
    assert same(state, back)
    assert jax.tree.structure(state) == jax.tree.structure(back)
