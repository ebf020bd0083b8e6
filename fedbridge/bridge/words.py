"""How a result is said: the same words and numbers in the terminal and on the page."""

import math
from typing import TypeGuard

from fedbridge.bridge.result import ComputationResult, EvaluationResult, Result, RoundResult


def loss(value: float | None) -> str:
    """A loss, with the digits that losses are compared by.

    >>> loss(4.123456789), loss(float("nan")), loss(None)  # None: there is no loss, as in k-means
    ('4.123457', 'nan', '-')
    """
    if value is None:
        return "-"
    return f"{value:.6f}" if abs(value) < 1e4 or not math.isfinite(value) else f"{value:.6e}"


def error(value: float | None) -> str:
    """A relative error.

    >>> error(3.14e-8), error(0.0), error(float("nan"))
    ('3.1e-08', '0', 'nan')
    """
    if value is None:
        return ""
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else f"{value}"


def seconds(value: float | None) -> str:
    """A time; an empty text where nothing was timed.

    >>> seconds(0.01234), seconds(3.21), seconds(123.4), seconds(None)
    ('0.012', '3.21', '123', '')
    """
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def times(value: float) -> str:
    """A speed-up as a factor.

    >>> times(12.34), times(0.5), times(250.0)
    ('12.3×', '0.50×', '250×')
    """
    return f"{value:.2f}×" if value < 10 else f"{value:.1f}×" if value < 100 else f"{value:.0f}×"


def headline(result: Result) -> str:
    """The verdict and what it covers, in a few words."""
    counts = {
        "round": len(result.rounds),
        "evaluation": len(result.evaluations),
        "call of a computation": len(result.computations),
    }
    named = [_count(count, noun) for noun, count in counts.items() if count]
    of = " and ".join(named) or _count(0, "round")
    tff = result.versions.get("tensorflow_federated")
    return f"{result.verdict} · {of}" + (f" · TFF {tff}" if tff else "")


def first_failure(result: Result) -> str | None:
    """Where a difference starts, unless the result's reason says so already."""
    for one in result.rounds:
        if not one.passed:
            return _unless_said(f"Round {one.round}", one.failure, result.reason)
    for one in result.evaluations:
        if not one.passed:
            return _unless_said(f"Evaluation {one.call}", one.failure, result.reason)
    for one in result.computations:
        if not one.passed:
            return _unless_said(f"Computation {one.call}", one.failure, result.reason)
    return None


def speed(result: Result) -> list[str]:
    """The speed-ups as sentences; empty where a side was not timed."""
    said = []
    if usable(result.speedup):
        said.append(f"A round: {times(result.speedup)} TFF's speed (median, first round apart).")
    if usable(result.speedup_with_compile):
        said.append(
            f"The whole run: {times(result.speedup_with_compile)} TFF's speed "
            "(building and compiling included)."
        )
    return said


def usable(value: float | None) -> TypeGuard[float]:
    """Whether a number was measured at all."""
    return value is not None and math.isfinite(value)


def worst(result: Result, field: str) -> float | None:
    """The largest value of one field over the rounds; NaN beats everything."""
    values = [getattr(one, field) for one in result.rounds]
    if not values:
        return None
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def plain_line(one: RoundResult) -> str:
    """A round in one line of text, for logs."""
    line = (
        f"JAX  round {one.round}: loss {loss(one.loss)} (TFF {loss(one.loss_reference)}), "
        f"probe error {error(one.probe_error)}, "
        f"round error {error(one.round_error)} (floor {error(one.noise_floor)})"
    )
    if one.seconds is not None:
        line += f", {seconds(one.seconds)} s"
    said = {"✓": "ok", "✗": f"DIFFERS: {one.failure}", "–": "not judged"}
    return f"{line}, {said[mark(one)]}"


def mark(one: RoundResult | EvaluationResult | ComputationResult) -> str:
    """A sign for the outcome; what neither passed nor failed was not judged."""
    return "✓" if one.passed else "–" if one.failure is None else "✗"


def _count(number: int, noun: str) -> str:
    first, space, rest = noun.partition(" ")
    return f"{number} {first}" + ("" if number == 1 else "s") + space + rest


def _unless_said(where: str, failure: str | None, reason: str) -> str | None:
    if failure is None or failure in reason:
        return None
    return failure if failure.startswith(where) else f"{where}: {failure}"
