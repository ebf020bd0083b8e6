"""Replays of recorded traces match; replays broken on purpose differ, each of them.

The traces were recorded under TFF 0.87.0 from compat_tests/golden_script.py; each manifest holds
the versions, the arguments and the script's checksum.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from fedbridge.bridge import judge, trace
from fedbridge.bridge.rebuild import what_is_random
from fedbridge.bridge.replay import replay
from fedbridge.bridge.result import to_json
from fedbridge.jax_core import TraceError, _client_work

TRACES = Path(__file__).parent / "traces"
ALL = sorted(path.name for path in TRACES.iterdir())


def read(name="momentum", kind=trace.Trace):
    return kind(*trace.read(TRACES / name))


@pytest.mark.parametrize("name", ALL)
def test_every_golden_trace_matches(name):
    told = []
    result = replay(read(name), on_event=told.append)
    assert (result.verdict, len(result.rounds), len(result.evaluations)) == ("match", 3, 1), (
        result.reason
    )
    assert [event["round"] for event in told if event["event"] == "replayed"] == [*result.rounds]
    for one in result.rounds:
        assert one.round_error <= judge.round_tolerance(one.noise_floor)
        assert one.loss == pytest.approx(one.loss_reference, rel=1e-6)
        # One program on one machine: the free run's first round is the judged one.
        assert one.drift < 1e-5
    assert to_json(result)["verdict"] == "match"


class RateOff(trace.Trace):
    """The client learning rate is off by one part in ten thousand."""

    def state(self, number):
        state = super().state(number)
        rate = "client_work/learning_rate"
        return {**state, rate: state[rate] * np.float32(1.0001)} if rate in state else state


class BatchSwapped(trace.Trace):
    """The second client's last two full batches come in the other order."""

    def call(self, number):
        arrays = super().call(number)
        first = int(arrays["step_offsets"][1])
        start = int(arrays["batch_sizes"][:first].sum()) + 4 * 4
        rows = arrays["rows"].copy()
        rows[start : start + 8] = np.roll(rows[start : start + 8], 4)
        arrays["rows"] = rows
        return arrays


def test_a_learning_rate_off_by_a_ten_thousandth_differs():
    result = replay(read(kind=RateOff))
    assert result.verdict == "differs"
    assert result.reason.startswith("round 1, after 1 local step: trainable/")


def test_a_swapped_batch_differs():
    assert replay(read()).verdict == "match"
    result = replay(read(kind=BatchSwapped))
    assert result.verdict == "differs"
    assert result.reason.startswith("round 1, after the whole round: trainable/")


def test_weights_by_clients_instead_of_examples_differ():
    recorded = read()
    training = recorded.processes[0]._replace(client_weighting="UNIFORM")
    result = replay(recorded._replace(processes=[training, *recorded.processes[1:]]))
    assert result.verdict == "differs"


def test_momentum_on_a_padded_step_differs(monkeypatch):
    honest = _client_work.over_steps

    def one_padded_step_more(body, carry, client, **kwargs):
        ends = []

        def remember(carry, step):
            ends.append(step)
            return body(carry, step)

        carry = honest(remember, carry, client, **kwargs)
        cohort = client.cohort
        batch = cohort.batch(jnp.zeros(cohort.streams["train"].rows.shape[1], jnp.int32))
        nobody = jnp.zeros(cohort.streams["train"].rows.shape[1], bool)
        return body(carry, _client_work.Step(jnp.int32(0), batch, nobody, client.key))

    monkeypatch.setattr(_client_work, "over_steps", one_padded_step_more)
    result = replay(read())
    assert result.verdict == "differs"
    assert np.isfinite(result.rounds[0].loss)


def test_a_wrong_count_differs():
    recorded = read()
    call = recorded.calls[0]
    metrics = {**call.metrics, "client_work": {"train": {**call.metrics["client_work"]["train"]}}}
    metrics["client_work"]["train"]["num_batches"] += 1
    result = replay(recorded._replace(calls=[call._replace(metrics=metrics), *recorded.calls[1:]]))
    assert result.verdict == "differs"
    assert "client_work/train/num_batches is" in result.reason


def test_only_so_many_rounds():
    assert len(replay(read(), rounds=1).rounds) == 1


def test_what_cannot_be_replayed_is_not_comparable():
    result = replay(read()._replace(not_replayable="the callback `f` is custom code"))
    assert (result.verdict, result.reason) == (
        "not comparable",
        "the callback `f` is custom code",
    )
    assert len(result.rounds) == 3
    assert np.isfinite(result.rounds[0].loss_reference)


def test_an_unknown_aggregator_or_builder_is_not_comparable():
    recorded = read()
    training = recorded.processes[0]
    odd = training._replace(model_aggregator={"name": "tree_sum", "arguments": {}})
    result = replay(recorded._replace(processes=[odd, *recorded.processes[1:]]))
    assert result.verdict == "not comparable"
    assert "tree_sum" in result.reason


def test_a_model_with_dropout_is_run_but_not_judged():
    recorded = read()
    training = recorded.processes[0]
    layers = training.model["config"]["layers"]
    dropout = {"class_name": "Dropout", "config": {"name": "forget", "rate": 0.5}}
    config = {**training.model["config"], "layers": [*layers[:-1], dropout, layers[-1]]}
    training = training._replace(model={**training.model, "config": config})
    result = replay(recorded._replace(processes=[training, *recorded.processes[1:]]))
    assert result.verdict == "not comparable"
    assert result.reason.startswith("dropout in forget")
    assert all(np.isfinite(one.loss) for one in result.rounds)
    assert what_is_random(recorded) is None


def test_a_trace_that_contradicts_itself_is_refused():
    class Lacking(trace.Trace):
        def state(self, number):
            state = super().state(number)
            state.pop("finalizer/learning_rate", None)
            return state

    with pytest.raises(TraceError, match="finalizer/learning_rate"):
        replay(read(kind=Lacking))
