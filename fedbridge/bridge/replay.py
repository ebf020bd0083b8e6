"""Repeats a trace on the JAX core, anywhere, without TensorFlow, and judges the differences."""

import statistics
from collections.abc import Callable
from typing import Any

import jax

from fedbridge import jax_core as fc
from fedbridge._version import __version__
from fedbridge.bridge import judge
from fedbridge.bridge.player import Player, Replayed, model_weights, one_ulp_off
from fedbridge.bridge.rebuild import evaluates, is_adaptive, obstacle, what_is_random
from fedbridge.bridge.result import EvaluationResult, Result, RoundResult, Verdict
from fedbridge.bridge.trace import Call, Trace

Report = Callable[[dict[str, Any]], None]


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
        reason = "the script trained no round"
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
        loss = float(judge.flat(run.metrics)["client_work/train/loss"])
        on_event({"event": "ran", "round": call.round, "loss": loss, "seconds": run.seconds})
    return runs


def _judge_round(
    player: Player, number: int, free: Replayed, seeds: int, judged: bool
) -> RoundResult:
    trace, call = player.trace, player.trace.calls[number]
    before, after = trace.state(call.state_before), trace.state(call.state_after)
    start, reference = model_weights(before), model_weights(after)
    state = player.state(call.process, call.state_before)
    norm = judge.update_norm(start, reference)
    whole_cohort = player.cohort(number)
    whole = player.play(call.process, state, lambda: whole_cohort)
    errors = judge.largest_errors(whole.weights, reference, norm)

    floors = dict.fromkeys(errors, 0.0)
    loss, loss_floor = _loss(whole.metrics), 0.0
    for seed in range(seeds):
        moved = player.play(call.process, one_ulp_off(state, seed), lambda: whole_cohort)
        change = judge.largest_errors(moved.weights, whole.weights, norm)
        floors = {path: max(floors[path], change[path]) for path in floors}
        loss_floor = max(loss_floor, abs(_loss(moved.metrics) - loss))

    adaptive = is_adaptive(trace.processes[call.process])
    tolerance = judge.ADAPTIVE_PROBE_TOLERANCE if adaptive else judge.PROBE_TOLERANCE
    arrays = trace.call(number)
    failures, probes, two_step_floor = [], [dict.fromkeys(errors, 0.0)], 0.0
    for limit, metrics in enumerate(call.probe_metrics, start=1):
        expected = model_weights(arrays, f"probe_{limit}/")
        cohort = player.cohort(number, limit)
        probe = player.play(call.process, state, lambda cohort=cohort: cohort)
        these = judge.probe_errors(probe.weights, expected, start)
        probes = [these] if limit == 1 else [*probes, these]
        bound, loss_bound = tolerance, 0.0
        if limit > 1:
            for seed in range(seeds):
                off = one_ulp_off(state, seed)
                moved = player.play(call.process, off, lambda cohort=cohort: cohort)
                change = judge.probe_errors(moved.weights, probe.weights, start)
                two_step_floor = max(two_step_floor, *change.values())
                loss_bound = max(loss_bound, abs(_loss(moved.metrics) - _loss(probe.metrics)))
            bound = max(tolerance, judge.round_tolerance(two_step_floor))
        failure = (
            judge.probe_failure(these, bound)
            or judge.counter_failure(probe.metrics, metrics)
            or judge.loss_failure(_loss(probe.metrics), _loss(metrics), loss_bound)
            or (judge.values_failure(probe.metrics, metrics) if limit == 1 else None)
        )
        if failure:
            failures.append(f"after {limit} local step{'s' * (limit > 1)}: {failure}")

    error, floor = max(errors.values()), max(floors.values())
    if error > judge.round_tolerance(floor):
        worst = max(errors, key=lambda path: errors[path])
        bound = judge.round_tolerance(floor)
        failures.append(f"after the whole round: {worst} is off by {error:.1e} (bound {bound:.1e})")
    failures.append(judge.counter_failure(whole.metrics, call.metrics))
    failures.append(judge.loss_failure(loss, _loss(call.metrics), loss_floor))
    failure = next(filter(None, failures), None) if judged else None
    first = trace.state(next(c for c in trace.calls if c.process == call.process).state_before)
    travelled = judge.update_norm(model_weights(first), reference)
    return RoundResult(
        round=call.round,
        loss_reference=_loss(call.metrics),
        loss=loss,
        probe_error=max(probes[0].values()),
        round_error=error,
        noise_floor=floor,
        seconds_reference=call.seconds,
        seconds=free.seconds,
        passed=judged and failure is None,
        failure=failure,
        tensors=judge.tensor_errors(probes[0], errors, floors),
        metrics_reference=call.metrics,
        metrics=whole.metrics,
        drift=max(judge.largest_errors(free.weights, reference, travelled).values()),
        two_step_error=max(probes[-1].values()),
        two_step_floor=two_step_floor,
    )


def _judge_evaluations(player: Player, judged: bool) -> list[EvaluationResult]:
    results = []
    for number, call in enumerate(player.trace.calls):
        if not evaluates(player.trace.processes[call.process]):
            continue
        state = player.state(call.process, call.state_before)
        run = player.play(call.process, state, lambda n=number: player.cohort(n))
        ours, theirs = (_current(metrics) for metrics in (run.metrics, call.metrics))
        failure = judge.counter_failure(ours, theirs) or judge.values_failure(ours, theirs)
        results.append(
            EvaluationResult(
                call=len(results) + 1,
                loss_reference=float(theirs["loss"]),
                loss=float(ours["loss"]),
                metrics_reference=call.metrics,
                metrics=run.metrics,
                passed=judged and failure is None,
                failure=failure if judged else None,
            )
        )
    return results


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
    loss = judge.flat(call.metrics).get("client_work/train/loss", nan)
    return RoundResult(
        call.round,
        float(loss),
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


def _loss(metrics: Any) -> float:
    return float(metrics["client_work"]["train"]["loss"])


def _current(metrics: Any) -> Any:
    return metrics["client_work"]["eval"]["current_round_metrics"]
