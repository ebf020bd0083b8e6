"""What a replay found: plain tuples, and the JSON that machines read.

    Result                  the verdict, and everything it rests on
      ├── RoundResult       one round of training: losses, errors, floors, times
      │     └── TensorError one tensor of that round
      ├── EvaluationResult  one call of a federated evaluation
      └── ComputationResult one call of a computation of the script's own

Every error is relative: the largest difference of an entry, over the norm of the round's update.
"""

import math
from typing import Any, Literal, NamedTuple

Verdict = Literal["match", "differs", "not comparable"]


class TensorError(NamedTuple):
    """How far one tensor of the model is from TFF's after a round."""

    name: str
    """Path of the tensor in the model's weights, e.g. "trainable/0"."""
    probe_error: float
    """Error after each client's first batch, beyond 2 ulp of the weight."""
    round_error: float
    """Error after the whole round, started from TFF's weights."""
    noise_floor: float
    """Change of fedbridge's own round when the starting weights move by one ulp."""


class RoundResult(NamedTuple):
    """One round of training, on both sides, started from TFF's own state."""

    round: int
    """The round's number, from 1."""
    loss_reference: float | None
    """TFF's training loss of the round; None for a process that has none, as k-means."""
    loss: float | None
    """fedbridge's."""
    probe_error: float
    """Largest error after each client's first batch, beyond 2 ulp: where a wrong formula shows."""
    round_error: float
    """Largest error of the whole round over all tensors."""
    noise_floor: float
    """Largest noise floor over all tensors."""
    seconds_reference: float | None
    """TFF's time for the round, without the recorder; None where it was not timed."""
    seconds: float | None
    """fedbridge's time for the round; None where it was not timed."""
    passed: bool
    """Whether the probes, the whole round, the counters and the loss all agree."""
    failure: str | None
    """One sentence about what does not agree, or None."""
    tensors: tuple[TensorError, ...]
    """Tensor by tensor, the worst first."""
    metrics_reference: dict[str, Any]
    """TFF's metrics of the round, as a tree."""
    metrics: dict[str, Any]
    """fedbridge's."""
    drift: float
    """Distance of the free run (never reset to TFF's state) from TFF: reported, not judged."""
    two_step_error: float = 0.0
    """As `probe_error`, after each client's first two batches."""
    two_step_floor: float = 0.0
    """The noise floor of these two steps."""
    state_error: float = 0.0
    """Largest error of what the state holds beside the weights, over the norm of each leaf."""
    server_step_error: float | None = None
    """Error of an adaptive server optimizer alone, on an update that TFF's own was given too."""


class EvaluationResult(NamedTuple):
    """One call of a federated evaluation, on both sides."""

    call: int
    """Number of the call among the script's evaluations, from 1."""
    loss_reference: float | None
    """TFF's loss; None where the model reports none."""
    loss: float | None
    """fedbridge's."""
    metrics_reference: dict[str, Any]
    """TFF's metrics, as a tree."""
    metrics: dict[str, Any]
    """fedbridge's."""
    passed: bool
    """Whether counters and losses agree."""
    failure: str | None
    """One sentence about what does not agree, or None."""


class ComputationResult(NamedTuple):
    """One call of a computation of the script's own, which ran on both sides."""

    call: int
    """Number of the call among those of the script's computations, from 1."""
    name: str
    """That of the computation's function."""
    error: float
    """The largest difference of an entry, over the norm of the state's update, or of the part of
    the result that it is in; infinite where the names, shapes or dtypes are others."""
    passed: bool
    """Whether both sides returned the same."""
    failure: str | None
    """One sentence about what does not agree, or None."""


class Result(NamedTuple):
    """The verdict of a replay, and everything it rests on."""

    verdict: Verdict
    """`match`, `differs` (at least one round or evaluation failed) or `not comparable`."""
    reason: str
    """One sentence: why this verdict; where a difference starts."""
    adapted: tuple[str, ...]
    """What the era layer turned into what while recording, as "old -> new"."""
    notes: tuple[str, ...]
    """One line for every known defect of TFF that the script touches, and what else to know."""
    rounds: tuple[RoundResult, ...]
    """The training rounds, in the script's order."""
    evaluations: tuple[EvaluationResult, ...]
    """The federated evaluations, in the script's order."""
    speedup: float | None
    """TFF's median time of a round over fedbridge's, the first round apart."""
    speedup_with_compile: float | None
    """TFF's time for the whole run over fedbridge's, building and compiling included."""
    seconds: dict[str, float | None]
    """Times that belong to no round: "build", "compile", ... on both sides."""
    versions: dict[str, str]
    """Versions of what computed, on both sides."""
    script: str
    """The script's name and arguments."""
    computations: tuple[ComputationResult, ...] = ()
    """The calls of the script's own computations, in the script's order; only `check` has them."""


def to_json(result: Result) -> dict[str, Any]:
    """The result as a tree that strict JSON can hold: a number that is not finite becomes null.

    Args:
        result: What `replay` or `check` returned.

    Returns:
        A dictionary of dictionaries, lists, strings, numbers, booleans and None.
    """
    return {
        "verdict": result.verdict,
        "reason": result.reason,
        "adapted": list(result.adapted),
        "notes": list(result.notes),
        "rounds": [strict(one) for one in result.rounds],
        "evaluations": [strict(one) for one in result.evaluations],
        "computations": [strict(one) for one in result.computations],
        "speedup": strict(result.speedup),
        "speedup_with_compile": strict(result.speedup_with_compile),
        "seconds": strict(result.seconds),
        "versions": strict(result.versions),
        "script": result.script,
    }


def strict(tree: Any) -> Any:
    """A tree as strict JSON holds it: a number that is not finite is None, and so on down.

    >>> strict({"loss": float("nan"), "tensor": TensorError("b", 0.0, 1e-7, float("inf"))})
    {'loss': None,
     'tensor': {'name': 'b', 'probe_error': 0.0, 'round_error': 1e-07, 'noise_floor': None}}
    """
    if hasattr(tree, "_asdict"):
        tree = tree._asdict()
    if hasattr(tree, "tolist"):
        tree = tree.tolist()
    if isinstance(tree, dict):
        return {str(key): strict(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [strict(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    return tree
