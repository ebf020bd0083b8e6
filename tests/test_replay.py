"""Replays of recorded traces match; replays broken on purpose differ, each of them.

The traces were recorded under TFF 0.87.0, the folders from compat_tests/golden_script.py, the
packed ones from compat_tests/algorithm_cells.py; each manifest holds the versions, the arguments
and the script's checksum.
"""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from fedbridge import algorithms, jax_core as fc
from fedbridge.bridge import judge, parts, trace, words
from fedbridge.bridge.rebuild import what_is_random
from fedbridge.bridge.replay import replay
from fedbridge.bridge.report import page
from fedbridge.bridge.result import to_json
from fedbridge.jax_core import TraceError, _client_work

TRACES = Path(__file__).parent / "traces"
ALL = sorted(path.name for path in TRACES.iterdir())
NO_LOSS = {"kmeans.zip", "functional.zip"}  # a functional model reports the metrics it is given


def read(name="momentum", kind=trace.Trace):
    return kind(*trace.read(TRACES / name))


@pytest.mark.parametrize("name", ALL)
def test_every_golden_trace_matches(name):
    told = []
    result = replay(read(name), on_event=told.append)
    assert result.verdict == "match", result.reason
    evaluations = 0 if name.endswith(".zip") else 1
    assert (len(result.rounds), len(result.evaluations)) == (3, evaluations)
    assert [event["round"] for event in told if event["event"] == "replayed"] == [*result.rounds]
    for one in result.rounds:
        assert one.round_error <= judge.round_tolerance(one.noise_floor)
        assert (one.loss is None) == (one.loss_reference is None) == (name in NO_LOSS)
        assert one.loss is None or one.loss == pytest.approx(one.loss_reference, rel=1e-6)
        # One program on one machine: the free run's first round is the judged one.
        assert one.drift < 1e-5
    assert to_json(result)["verdict"] == "match"


def test_a_process_without_a_loss_shows_none():
    """K-means: no `nan`, which would be a loss that went wrong."""
    told = []
    result = replay(read("kmeans.zip"), on_event=told.append)
    assert [event["loss"] for event in told if event["event"] == "ran"] == [None] * 3
    assert "loss - (TFF -)" in words.plain_line(result.rounds[0])
    text = re.sub(r"<script.*?</script>|<style.*?</style>", "", page(result), flags=re.DOTALL)
    assert '<td class="n">1</td><td class="n">-</td><td class="n">-</td>' in text
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).lower()
    assert to_json(result)["rounds"][0]["loss"] is None


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


class StateOff(trace.Trace):
    """One leaf of what TFF had after the first round is off by one part in ten thousand."""

    leaf = ""

    def state(self, number):
        state = super().state(number)
        if number != self.calls[0].state_after:
            return state
        return {**state, self.leaf: state[self.leaf] * np.float32(1.0001)}


def with_leaf(path):
    return type("LeafOff", (StateOff,), {"leaf": path})


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("robust.zip", "aggregator/zeroing_norm/0/current_estimate"),
        ("server_yogi.zip", "finalizer/preconditioner/0"),
        ("momentum", "finalizer/accumulator/2"),
        ("mime_schedule.zip", "client_work/1/0/preconditioner/0"),
    ],
)
def test_another_state_beside_the_weights_differs(name, path):
    result = replay(read(name, with_leaf(path)), rounds=1, seeds=1)
    assert result.verdict == "differs"
    assert result.reason.startswith(f"round 1, {path} of the state is off by")
    assert result.rounds[0].state_error > 1e-5


def test_a_wrong_threshold_among_the_measurements_differs():
    recorded = read("robust.zip")
    call = recorded.calls[0]
    metrics = json.loads(json.dumps(call.metrics))
    metrics["aggregator"]["zeroing"]["clipping_norm"] *= 1.0001
    result = replay(recorded._replace(calls=[call._replace(metrics=metrics)]), seeds=1)
    assert result.verdict == "differs"
    assert "aggregator/zeroing/clipping_norm: 1 instead of 1.0001" in result.reason


def test_metrics_of_another_dtype_differ():
    recorded = read("robust.zip")
    (process,) = recorded.processes
    dtypes = {**process.metrics_dtypes, "aggregator/zeroed_count": "int64"}
    recorded = recorded._replace(processes=[process._replace(metrics_dtypes=dtypes)])
    result = replay(recorded, rounds=1, seeds=1)
    assert "zeroed_count is a int32 instead of a int64" in result.reason


class ServerStepOff(trace.Trace):
    """TFF's server step with another epsilon: what another placement of it would look like."""

    def call(self, number):
        arrays = super().call(number)
        start = self.state(self.calls[number].state_before)["global_model_weights/trainable/0"]
        step = arrays["server_step/weights/0"] - start
        return {**arrays, "server_step/weights/0": start + step * np.float32(1.0001)}


def test_another_server_step_alone_differs():
    right = replay(read("server_yogi.zip"), rounds=1, seeds=1)
    assert right.verdict == "match" and 0 < right.rounds[0].server_step_error < 1e-6
    result = replay(read("server_yogi.zip", ServerStepOff), rounds=1, seeds=1)
    assert result.verdict == "differs"
    assert result.reason.startswith("round 1, the server's step alone: 0 is off by")


def test_fed_prox_with_the_papers_sign_differs(monkeypatch):
    monkeypatch.setattr(algorithms, "away_from_server", algorithms.toward_server)
    result = replay(read("prox.zip"))
    assert result.verdict == "differs"
    # The first local step starts where the term is zero.
    assert result.reason.startswith("round 1, after 2 local steps: trainable/")


def test_a_norm_that_lives_on_after_an_empty_round_differs(monkeypatch):
    monkeypatch.setattr(
        parts, "_FACTORIES",
        {**parts._FACTORIES, "robust_aggregator": fc.aggregators.robust_aggregator},
    )  # fmt: skip
    result = replay(read("robust_empty.zip"))
    assert result.verdict == "differs"
    assert "current_estimate of the state is off by inf" in result.reason


def test_where_nothing_moves_there_is_no_noise():
    """A round of no client: TFF keeps the weights, and so must we, to the bit."""

    class Moved(trace.Trace):
        def state(self, number):
            state = super().state(number)
            path = "global_model_weights/trainable/1"
            bias = state[path] + np.float32(1e-4) * (number == self.calls[0].state_after)
            return {**state, path: bias}

    recorded = read("robust_empty.zip")
    assert recorded.calls[0].num_clients == 0
    right = replay(recorded, rounds=1)
    assert (right.verdict, right.rounds[0].noise_floor) == ("match", 0.0)
    assert replay(read("robust_empty.zip", Moved), rounds=1).verdict == "differs"


@pytest.mark.parametrize(
    ("factory", "arguments", "reason"),
    [
        ("dp_aggregator", {"noise_multiplier": 0.5, "clients_per_round": 4.0}, "Gaussian noise"),
        (
            "EncodedSumFactory.quantize_above_threshold",
            {"quantization_bits": 8, "threshold": 10},
            "rounds stochastically",
        ),
        ("EncodedSumFactory.quantize_above_threshold", {"threshold": 20000}, None),
        ("dp_aggregator", {"noise_multiplier": 0.0, "clients_per_round": 4.0}, None),
    ],
)
def test_what_is_random_in_aggregators(factory, arguments, reason):
    recorded = read()
    described = {"name": factory, "arguments": arguments}
    training = recorded.processes[0]._replace(model_aggregator=described)
    found = what_is_random(recorded._replace(processes=[training, *recorded.processes[1:]]))
    assert found is None if reason is None else reason in found


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
