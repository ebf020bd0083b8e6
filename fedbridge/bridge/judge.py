"""The judgement of a replayed round: errors, tolerances and their reasons.

Three numbers decide. The *probe*: after each client's first batch fedbridge's weights are TFF's
up to rounding; this is where a wrong formula shows. The *two-step probe* shows what an optimizer
carries from step to step. The *whole round* is what the user sees. From the second step on the
weights of both sides differ by rounding, and ReLU and max-pool amplify the last bit, TensorFlow's
own included: these two are held against their noise floors, how far fedbridge's own result moves
when its starting weights move by one ulp.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedbridge.bridge.result import TensorError

Weights = Mapping[str, np.ndarray]
"""The model's weights by their paths, e.g. "trainable/0"."""

# One local step in float32: TensorFlow and XLA round each entry of a gradient differently
# by a few ulp of its largest terms, measured 4e-7 of the update on the EMNIST CNN.
PROBE_TOLERANCE = 1e-6
# An adaptive optimizer divides by √v + ε, where v is itself the square of a rounded gradient (on
# the server: of a rounded mean), so that entries near zero move as far as any other.
ADAPTIVE_PROBE_TOLERANCE = 5e-6
# The update is a difference of weights; each of the two was rounded to the weights' own ulp.
PROBE_ULPS = 2
# A second float32 implementation may be as far off as a perturbation by one ulp, times a constant
# for the many roundings of a round where the perturbation makes only one.
FLOORS = 10
# Where the floor is this low the round amplifies nothing, and the bound is that of the probes.
LOW_FLOOR, SMOOTH_TOLERANCE = 1e-7, 1e-6
# The reported loss is a float32 mean; summed in another order it moves by a few ulp (1.2e-7 each).
LOSS_TOLERANCE = 1e-6


def update_norm(start: Weights, end: Weights) -> float:
    """‖end − start‖₂ over all tensors, in float64."""
    squares = [np.sum(np.square(end[k].astype(float) - start[k].astype(float))) for k in start]
    return float(np.sqrt(sum(squares)))


def largest_errors(weights: Weights, reference: Weights, norm: float) -> dict[str, float]:
    """Per tensor, the largest difference of an entry over the norm of the update.

    An update of norm zero must be reproduced exactly: any difference is an infinite error.
    """

    def error(path: str) -> float:
        difference = np.abs(weights[path].astype(float) - reference[path].astype(float))
        largest = float(difference.max(initial=0.0))
        if np.isnan(largest):
            return float("inf")
        if norm == 0.0:
            return 0.0 if largest == 0.0 else float("inf")
        return largest / norm

    return {path: error(path) for path in reference}


def probe_errors(weights: Weights, reference: Weights, start: Weights) -> dict[str, float]:
    """Per tensor, the largest error of a probe beyond 2 ulp of the entry, over ‖update‖₂."""
    norm = update_norm(start, reference)
    beyond = {}
    for path, expected in reference.items():
        allowed = PROBE_ULPS * np.spacing(np.abs(expected)).astype(float) * (norm > 0)
        sign = np.sign(weights[path].astype(float) - expected.astype(float))
        error = np.abs(weights[path].astype(float) - expected.astype(float))
        beyond[path] = expected + sign * np.maximum(error - allowed, 0.0)
    return largest_errors(beyond, reference, norm)


def probe_failure(errors: Mapping[str, float], tolerance: float) -> str | None:
    """Why a probe does not agree: its worst tensor, where that is beyond the bound; or None."""
    path = max(errors, key=lambda path: errors[path])
    if errors[path] <= tolerance:
        return None
    return f"{path} is off by {errors[path]:.1e} of the update (bound {tolerance:.1e})"


def round_tolerance(noise_floor: float) -> float:
    """The bound on the error of a whole round."""
    return FLOORS * noise_floor if noise_floor >= LOW_FLOOR else SMOOTH_TOLERANCE


def loss_failure(loss: float, reference: float, floor: float) -> str | None:
    """Why a loss does not agree, or None; NaN equals NaN."""
    if np.isnan(loss) and np.isnan(reference):
        return None
    bound = max(LOSS_TOLERANCE * abs(reference), FLOORS * floor)
    if abs(loss - reference) <= bound:
        return None
    return f"loss {loss:.8g} instead of {reference:.8g} (bound {bound:.1g})"


def counter_failure(metrics: Any, reference: Any) -> str | None:
    """Why the counters do not agree, or None: other names, or another whole number."""
    ours, theirs = flat(metrics), flat(reference)
    if list(ours) != list(theirs):
        return f"metrics named {list(ours)} instead of {list(theirs)}"
    for name, value in theirs.items():
        if isinstance(value, int) and ours[name] != value:
            return f"{name} is {ours[name]} instead of {value}"
    return None


def values_failure(metrics: Any, reference: Any) -> str | None:
    """Why the values of a probe's metrics do not agree, or None; for a step or two they must."""
    ours = flat(metrics)
    for name, value in flat(reference).items():
        if isinstance(value, float) and (failure := loss_failure(ours[name], value, 0.0)):
            return f"{name}: {failure.removeprefix('loss ')}"
    return None


def flat(metrics: Any, path: str = "") -> dict[str, int | float]:
    """The numbers of a metrics tree by their paths; what is empty leaves no trace."""
    if isinstance(metrics, Mapping):
        parts = [flat(value, f"{path}/{name}" if path else name) for name, value in metrics.items()]
    elif isinstance(metrics, tuple | list):
        parts = [flat(value, f"{path}/{i}" if path else str(i)) for i, value in enumerate(metrics)]
    else:
        return {path: metrics.item() if hasattr(metrics, "item") else metrics}
    return {name: value for part in parts for name, value in part.items()}


def tensor_errors(
    probe: Mapping[str, float], whole: Mapping[str, float], floor: Mapping[str, float]
) -> tuple[TensorError, ...]:
    """The errors tensor by tensor, the worst first (by what they exceed)."""
    tensors = [TensorError(path, probe[path], whole[path], floor[path]) for path in whole]
    excess = lambda t: max(t.probe_error, t.round_error / max(t.noise_floor, LOW_FLOOR))
    return tuple(sorted(tensors, key=excess, reverse=True))
