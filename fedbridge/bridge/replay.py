"""Repeats a trace on the JAX core, anywhere, without TensorFlow, and judges the differences."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from fedbridge import jax_core as fc
from fedbridge._version import __version__
from fedbridge.bridge import judge
from fedbridge.bridge.rebuild import evaluates, is_adaptive, obstacle, rebuild, what_is_random
from fedbridge.bridge.result import EvaluationResult, Result, RoundResult, Verdict
from fedbridge.bridge.trace import Call, Trace
from fedbridge.jax_core._cohort import TRAIN

Report = Callable[[dict[str, Any]], None]


class Replayed(NamedTuple):
    """What one call of `next` gave: weights by path, metrics, seconds."""

    state: fc.LearningAlgorithmState
    weights: dict[str, np.ndarray]
    metrics: PyTree
    seconds: float


class Player:
    """The trace's processes on the JAX core, with its rows on the device.

    All cohorts of a trace (whole rounds, probes, perturbed rounds) have one shape, so that every
    process compiles one program.
    """

    def __init__(self, trace: Trace):
        self.trace = trace
        stored = trace.rows()
        encoded = {
            name: fc.Fraction255(stored[name])
            if feature.encoding == "fraction255"
            else feature.decode(stored[name])
            for name, feature in trace.features.items()
        }
        self.features = jax.device_put({k: _narrow(v) for k, v in encoded.items()})
        arrays = [trace.call(number) for number in range(len(trace.calls))]
        self.batches = [(a["rows"], a["batch_sizes"], a["step_offsets"]) for a in arrays]
        self.min_steps = max((len(sizes) for _, sizes, _ in self.batches), default=1)
        self.min_clients = max((len(offsets) - 1 for _, _, offsets in self.batches), default=1)
        self.batch_size = max((int(s.max(initial=1)) for _, s, _ in self.batches), default=1)
        started = time.perf_counter()
        self.processes = [rebuild(trace, number) for number in range(len(trace.processes))]
        self.seconds_build = time.perf_counter() - started

    def cohort(self, number: int, limit: int | None = None) -> fc.Cohort:
        """The cohort of a call; with a limit, only each client's first batches."""
        rows, sizes, offsets = self.batches[number]
        matrix = _batch_matrix(rows, sizes, self.batch_size)
        if limit is not None:
            counts = np.minimum(np.diff(offsets), limit)
            kept = [np.arange(s, s + c) for s, c in zip(offsets[:-1], counts, strict=True)]
            chosen = np.concatenate([np.arange(0), *kept]).astype(int)
            matrix, sizes = matrix[chosen], sizes[chosen]
            offsets = np.cumsum([0, *counts])
        stream = fc.make_stream(
            matrix, sizes, offsets, min_steps=self.min_steps, min_clients=self.min_clients
        )
        ids = [f"client {i}" for i in range(len(offsets) - 1)]
        return fc.make_cohort(self.features, {TRAIN: stream}, ids, round=number + 1)

    def state(self, process: int, number: int) -> fc.LearningAlgorithmState:
        """TFF's recorded state, as a state of the JAX core."""
        template = self.processes[process].initialize()
        recorded = self.trace.state(number)
        if evaluates(self.trace.processes[process]):
            weights = fc.from_named_leaves(template.global_model_weights, _weights(recorded))
            return self.processes[process].set_model_weights(template, weights)
        missing = sorted(set(fc.named_leaves(template)) ^ set(recorded))
        if missing:
            raise fc.TraceError(
                f"{self.trace.path}: state {number} and the process that the trace describes "
                f"disagree about {missing[0]!r}; record the script again."
            )
        state = fc.from_named_leaves(template, recorded)
        return jax.tree.map(lambda leaf, like: jax.numpy.asarray(leaf, like.dtype), state, template)

    def play(
        self, process: int, state: fc.LearningAlgorithmState, make_cohort: Callable[[], fc.Cohort]
    ) -> Replayed:
        """One call of `next`, timed with the making of its cohort."""
        started = time.perf_counter()
        output = jax.block_until_ready(self.processes[process].next(state, make_cohort()))
        seconds = time.perf_counter() - started
        weights = output.state.global_model_weights
        arrays = {path: np.asarray(leaf) for path, leaf in fc.named_leaves(weights).items()}
        return Replayed(output.state, arrays, output.metrics, seconds)


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
    start, reference = _weights(before), _weights(after)
    state = player.state(call.process, call.state_before)
    norm = judge.update_norm(start, reference)
    whole_cohort = player.cohort(number)
    whole = player.play(call.process, state, lambda: whole_cohort)
    errors = judge.largest_errors(whole.weights, reference, norm)

    floors = dict.fromkeys(errors, 0.0)
    loss, loss_floor = _loss(whole.metrics), 0.0
    for seed in range(seeds):
        moved = player.play(call.process, _one_ulp_off(state, seed), lambda: whole_cohort)
        change = judge.largest_errors(moved.weights, whole.weights, norm)
        floors = {path: max(floors[path], change[path]) for path in floors}
        loss_floor = max(loss_floor, abs(_loss(moved.metrics) - loss))

    adaptive = is_adaptive(trace.processes[call.process])
    tolerance = judge.ADAPTIVE_PROBE_TOLERANCE if adaptive else judge.PROBE_TOLERANCE
    arrays = trace.call(number)
    failures, probe_errors = [], dict.fromkeys(errors, 0.0)
    for limit, metrics in enumerate(call.probe_metrics, start=1):
        expected = _weights(arrays, f"probe_{limit}/")
        probe = player.play(call.process, state, lambda limit=limit: player.cohort(number, limit))
        these = judge.largest_errors(probe.weights, expected, judge.update_norm(start, expected))
        probe_errors = {path: max(probe_errors[path], these[path]) for path in these}
        failure = (
            judge.probe_failure(probe.weights, expected, start, tolerance)
            or judge.counter_failure(probe.metrics, metrics)
            or judge.values_failure(probe.metrics, metrics)
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
    travelled = judge.update_norm(_weights(first), reference)
    return RoundResult(
        round=call.round,
        loss_reference=_loss(call.metrics),
        loss=loss,
        probe_error=max(probe_errors.values()),
        round_error=error,
        noise_floor=floor,
        seconds_reference=call.seconds,
        seconds=free.seconds,
        passed=judged and failure is None,
        failure=failure,
        tensors=judge.tensor_errors(probe_errors, errors, floors),
        metrics_reference=call.metrics,
        metrics=whole.metrics,
        drift=max(judge.largest_errors(free.weights, reference, travelled).values()),
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
    parts = f"{len(rounds)} rounds" + f" and {len(evaluations)} evaluations" * bool(evaluations)
    return "match", f"{parts} agree with TFF: probes, whole rounds, counters and losses"


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


def _one_ulp_off(state: fc.LearningAlgorithmState, seed: int) -> fc.LearningAlgorithmState:
    rng = np.random.default_rng(seed)

    def move(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        towards = np.where(rng.integers(0, 2, leaf.shape), np.inf, -np.inf).astype(leaf.dtype)
        return np.nextafter(leaf, towards)

    weights = state.global_model_weights
    moved = weights._replace(trainable=jax.tree.map(move, weights.trainable))
    return state._replace(global_model_weights=moved)


def _batch_matrix(rows: np.ndarray, sizes: np.ndarray, batch_size: int) -> np.ndarray:
    """Flat rows as `[steps, batch]`; padding repeats the rows of the batch."""
    starts = np.cumsum(sizes) - sizes
    within = np.arange(batch_size)[None, :] % np.maximum(sizes, 1)[:, None]
    index = starts[:, None] + within
    return rows[index] if len(rows) else np.zeros(index.shape, np.int32)


def _narrow(column: Any) -> Any:
    """64-bit features as 32-bit ones, since a program on the device has no others."""
    narrow = {"int64": np.int32, "uint64": np.uint32, "float64": np.float32}
    dtype = str(getattr(column, "dtype", ""))
    return column.astype(narrow[dtype]) if dtype in narrow else column


def _weights(
    leaves: Mapping[str, np.ndarray], prefix: str = "global_model_weights/"
) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in leaves.items() if k.startswith(prefix)}


def _loss(metrics: Any) -> float:
    return float(metrics["client_work"]["train"]["loss"])


def _current(metrics: Any) -> Any:
    return metrics["client_work"]["eval"]["current_round_metrics"]
