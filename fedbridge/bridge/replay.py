"""Repeats a trace on the JAX core, anywhere, without TensorFlow, and judges the differences."""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedbridge import jax_core as fc
from fedbridge._version import __version__
from fedbridge.bridge import computations, judge
from fedbridge.bridge.player import Player, Replayed, model_weights, one_ulp_off, split
from fedbridge.bridge.rebuild import (
    clients_adapt,
    evaluates,
    obstacle,
    server_adapts,
    what_is_random,
)
from fedbridge.bridge.result import EvaluationResult, Result, RoundResult, Verdict
from fedbridge.bridge.trace import Call, Trace

Report = Callable[[dict[str, Any]], None]

_LOSS = "client_work/train/loss"


def replay(
    trace: Trace,
    *,
    rounds: int | None = None,
    seeds: int = 3,
    on_event: Report = lambda event: None,
) -> Result:
    """Repeats a trace on the JAX core and judges the differences.

    Args:
        trace: A trace, read.
        rounds: Only the first so many training rounds.
        seeds: How many perturbations the noise floor is the largest of.
        on_event: Receives `{"event": "phase", "name": ...}` when a part begins, and
            `{"event": "replayed", "round": RoundResult}` when a round is judged.

    Returns:
        The verdict, and everything it rests on.

    Raises:
        TraceError: The trace contradicts itself.
    """
    reason = trace.not_replayable or obstacle(trace)
    training = [
        n for n, call in enumerate(trace.calls) if trace.processes[call.process].kind == "training"
    ][:rounds]
    if reason is None and not training:
        alone = trace.computations() and not trace.calls
        reason = computations.NOTHING_TO_REPLAY if alone else "the script trained no round"
    if reason is not None:
        told = tuple(_untold(trace.calls[number]) for number in training)
        return _result(trace, "not comparable", reason, told, (), None)
    on_event({"event": "phase", "name": "compiling and running freely"})
    player = Player(trace)
    random = what_is_random(trace)
    free = _run_freely(player, training, on_event)
    on_event({"event": "phase", "name": "repeating each round from TFF's state"})
    judged = []
    for number, run in zip(training, free, strict=True):
        judged.append(_judge_round(player, number, run, seeds, random is None))
        on_event({"event": "replayed", "round": judged[-1]})
    evaluations = _judge_evaluations(player, random is None)
    verdict, reason = _verdict(judged, evaluations, random)
    return _result(trace, verdict, reason, tuple(judged), tuple(evaluations), player)


def _run_freely(player: Player, training: list[int], on_event: Report) -> list[Replayed]:
    """The rounds as a user would run them: from TFF's first state on, never reset; timed."""
    states: dict[int, fc.LearningAlgorithmState] = {}
    runs = []
    for number in training:
        call = player.trace.calls[number]
        if call.process not in states:
            states[call.process] = player.state(call.process, call.state_before)
        run = player.play(call.process, states[call.process], lambda n=number: player.cohort(n))
        states[call.process] = run.state
        runs.append(run)
        loss = _loss(run.metrics)
        on_event({"event": "ran", "round": call.round, "loss": loss, "seconds": run.seconds})
    return runs


def _judge_round(
    player: Player, number: int, free: Replayed, seeds: int, judged: bool
) -> RoundResult:
    trace, call = player.trace, player.trace.calls[number]
    process = trace.processes[call.process]
    start, _ = split(trace.state(call.state_before))
    reference, others = split(trace.state(call.state_after))
    state = player.state(call.process, call.state_before)
    norm = judge.update_norm(start, reference)
    whole_cohort = player.cohort(number)
    whole = player.play(call.process, state, lambda: whole_cohort)
    errors = judge.largest_errors(whole.weights, reference, norm)
    floors = _floors(player, call, state, whole, lambda: whole_cohort, norm, seeds)
    probes = [
        _judge_probe(player, number, state, limit, seeds)
        for limit in range(1, len(call.probe_metrics) + 1)
    ]
    step_error, step_failure = _judge_server_step(player, number)
    error, floor = max(errors.values()), max(floors.weights.values())
    failures = [probe.failure for probe in probes]
    failures.append(step_failure)
    if error > judge.round_tolerance(floor):
        worst = max(errors, key=lambda path: errors[path])
        bound = judge.round_tolerance(floor)
        failures.append(f"after the whole round: {worst} is off by {error:.1e} (bound {bound:.1e})")
    failures.append(judge.structure_failure(whole.metrics, call.metrics, process.metrics_dtypes))
    failures.append(judge.counter_failure(whole.metrics, call.metrics))
    loss, loss_floor = _loss(whole.metrics), floors.metrics.get(_LOSS, 0.0)
    failures.append(judge.loss_failure(loss, _loss(call.metrics), loss_floor))
    failures.append(judge.values_failure(whole.metrics, call.metrics, floors.metrics, True))
    failures.append(
        judge.state_failure(whole.others, others, floors.others, judge.SMOOTH_TOLERANCE)
    )
    failure = next(filter(None, failures), None) if judged else None
    first = trace.state(next(c for c in trace.calls if c.process == call.process).state_before)
    travelled = judge.update_norm(model_weights(first), reference)
    none = _Probe(dict.fromkeys(errors, 0.0), 0.0, None)
    return RoundResult(
        round=call.round,
        loss_reference=_loss(call.metrics),
        loss=loss,
        probe_error=max((probes or [none])[0].errors.values()),
        round_error=error,
        noise_floor=floor,
        seconds_reference=call.seconds,
        seconds=free.seconds,
        passed=judged and failure is None,
        failure=failure,
        tensors=judge.tensor_errors((probes or [none])[0].errors, errors, floors.weights),
        metrics_reference=call.metrics,
        metrics=whole.metrics,
        drift=max(judge.largest_errors(free.weights, reference, travelled).values()),
        two_step_error=max(probes[1].errors.values()) if len(probes) > 1 else 0.0,
        two_step_floor=probes[1].floor if len(probes) > 1 else 0.0,
        state_error=_largest(whole.others, others),
        server_step_error=step_error,
    )


class _Floors(NamedTuple):
    weights: dict[str, float]
    others: dict[str, float]
    metrics: dict[str, float]


def _floors(
    player: Player,
    call: Call,
    state: fc.LearningAlgorithmState,
    whole: Replayed,
    cohort: Callable[[], fc.Cohort],
    norm: float,
    seeds: int,
) -> _Floors:
    """How far fedbridge's own results move when the starting weights move by one ulp."""
    weights, others, metrics = dict.fromkeys(whole.weights, 0.0), {}, {}
    # Where nothing moves, the result must be exact, and there is no noise to measure.
    for seed in range(seeds if norm else 0):
        moved = player.play(call.process, one_ulp_off(state, seed), cohort)
        _raise_to(weights, judge.largest_errors(moved.weights, whole.weights, norm))
        _raise_to(others, judge.state_errors(moved.others, whole.others))
        _raise_to(metrics, judge.metric_changes(moved.metrics, whole.metrics))
    return _Floors(weights, others, metrics)


def _raise_to(floors: dict[str, float], changes: dict[str, float]) -> None:
    for path, change in changes.items():
        if np.isfinite(change):
            floors[path] = max(floors.get(path, 0.0), change)


class _Probe(NamedTuple):
    errors: dict[str, float]
    floor: float
    failure: str | None


def _judge_probe(
    player: Player, number: int, state: fc.LearningAlgorithmState, limit: int, seeds: int
) -> _Probe:
    """The round on each client's first `limit` batches."""
    trace, call = player.trace, player.trace.calls[number]
    process, metrics = trace.processes[call.process], call.probe_metrics[limit - 1]
    start = model_weights(trace.state(call.state_before))
    expected = model_weights(trace.call(number), f"probe_{limit}/")
    cohort = player.cohort(number, limit)
    probe = player.play(call.process, state, lambda: cohort)
    errors = judge.probe_errors(probe.weights, expected, start)
    adaptive = clients_adapt(process) or server_adapts(process)
    bound = judge.ADAPTIVE_PROBE_TOLERANCE if adaptive else judge.PROBE_TOLERANCE
    floor, changes = 0.0, {}
    if (limit > 1 or server_adapts(process)) and judge.update_norm(start, expected):
        for seed in range(seeds):
            moved = player.play(call.process, one_ulp_off(state, seed), lambda: cohort)
            change = judge.probe_errors(moved.weights, probe.weights, start)
            floor = max(floor, *filter(np.isfinite, change.values()), 0.0)
            _raise_to(changes, judge.metric_changes(moved.metrics, probe.metrics))
        bound = max(bound, judge.round_tolerance(floor))
    loss_floor = changes.get(_LOSS, 0.0) if limit > 1 else 0.0
    failure = (
        judge.probe_failure(errors, bound)
        or judge.counter_failure(probe.metrics, metrics)
        or judge.loss_failure(_loss(probe.metrics), _loss(metrics), loss_floor)
        or (judge.values_failure(probe.metrics, metrics) if limit == 1 else None)
    )
    where = f"after {limit} local step{'s' * (limit > 1)}"
    return _Probe(errors, floor, f"{where}: {failure}" if failure else None)


def _judge_server_step(player: Player, number: int) -> tuple[float | None, str | None]:
    """An adaptive server's optimizer alone: its error, and why it does not agree."""
    arrays = player.trace.call(number)
    if not any(path.startswith("server_step/") for path in arrays):
        return None, None
    call = player.trace.calls[number]
    before = player.trace.state(call.state_before)
    start = model_weights(before, "global_model_weights/trainable/")
    weights, state = player.server_step(number)
    expected = model_weights(arrays, "server_step/weights/")
    expected_state = model_weights(arrays, "server_step/finalizer/")
    errors = judge.probe_errors(weights, expected, start)
    failure = judge.probe_failure(errors, judge.SERVER_STEP_TOLERANCE) or judge.state_failure(
        state, expected_state, {}, judge.SERVER_STEP_TOLERANCE
    )
    error = max(*errors.values(), _largest(state, expected_state))
    return error, f"the server's step alone: {failure}" if failure else None


def _judge_evaluations(player: Player, judged: bool) -> list[EvaluationResult]:
    results = []
    for number, call in enumerate(player.trace.calls):
        process = player.trace.processes[call.process]
        if not evaluates(process):
            continue
        state = player.state(call.process, call.state_before)
        run = player.play(call.process, state, lambda n=number: player.cohort(n))
        _, others = split(player.trace.state(call.state_after))
        failure = (
            judge.structure_failure(run.metrics, call.metrics, process.metrics_dtypes)
            or judge.counter_failure(run.metrics, call.metrics)
            or judge.values_failure(run.metrics, call.metrics)
            or judge.state_failure(run.others, others, {}, judge.SMOOTH_TOLERANCE)
        )
        results.append(
            EvaluationResult(
                call=len(results) + 1,
                loss_reference=_loss(call.metrics),
                loss=_loss(run.metrics),
                metrics_reference=call.metrics,
                metrics=run.metrics,
                passed=judged and failure is None,
                failure=failure if judged else None,
            )
        )
    return results


def _largest(leaves: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    if set(leaves) != set(reference):
        return float("inf")
    return max(judge.state_errors(leaves, reference).values(), default=0.0)


def _verdict(
    rounds: list[RoundResult], evaluations: list[EvaluationResult], random: str | None
) -> tuple[Verdict, str]:
    if random is not None:
        return "not comparable", random
    for one in rounds:
        if one.failure:
            return "differs", f"round {one.round}, {one.failure}"
    for one in evaluations:
        if one.failure:
            return "differs", f"evaluation {one.call}: {one.failure}"
    counts = (len(rounds), "round"), (len(evaluations), "evaluation")
    parts = " and ".join(f"{n} {noun}{'s' * (n > 1)}" for n, noun in counts if n)
    agree = "agrees" if len(rounds) + len(evaluations) == 1 else "agree"
    return "match", f"{parts} {agree} with TFF: probes, whole rounds, counters and losses"


def _result(
    trace: Trace,
    verdict: Verdict,
    reason: str,
    rounds: tuple[RoundResult, ...],
    evaluations: tuple[EvaluationResult, ...],
    player: Player | None,
) -> Result:
    training = [process for process in trace.processes if process.kind == "training"]
    setup = [p.seconds_build for p in training] + [p.seconds_initialize for p in training]
    setup_reference = sum(s for s in setup if s is not None) if any(setup) else None
    theirs = [one.seconds_reference for one in rounds if one.seconds_reference is not None]
    ours = [one.seconds for one in rounds if one.seconds is not None]
    speedup = whole = None
    if len(theirs) == len(ours) == len(rounds) > 1:
        speedup = statistics.median(theirs[1:]) / statistics.median(ours[1:])
    if player and ours and len(theirs) == len(rounds) and setup_reference is not None:
        whole = (setup_reference + sum(theirs)) / (player.seconds_build + sum(ours))
    steady = statistics.median(ours[1:]) if len(ours) > 1 else None
    seconds = {
        "reference_build_and_initialize": setup_reference,
        "build": player.seconds_build if player else None,
        "compile": ours[0] - steady if steady is not None else None,
    }
    versions = {
        **trace.versions,
        "replayed_with_fedbridge": __version__,
        "replayed_with_jax": jax.__version__,
        "device": jax.devices()[0].platform,
    }
    script = " ".join([trace.script["name"], *trace.script["arguments"]])
    return Result(
        verdict,
        reason,
        tuple(trace.adapted),
        tuple(trace.notes),
        rounds,
        evaluations,
        speedup,
        whole,
        seconds,
        versions,
        script,
    )


def _untold(call: Call) -> RoundResult:
    """A round of which only TFF's side is known."""
    nan = float("nan")
    return RoundResult(
        call.round,
        _loss(call.metrics),
        nan,
        nan,
        nan,
        nan,
        call.seconds,
        None,
        False,
        None,
        (),
        call.metrics,
        {},
        nan,
    )


def _loss(metrics: Any) -> float | None:
    """The loss of a round or an evaluation; None where the process has none."""
    found = judge.flat(metrics)
    loss = found.get(_LOSS, found.get("client_work/eval/current_round_metrics/loss"))
    return None if loss is None else float(loss)
