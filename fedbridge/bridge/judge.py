"""The judgement of a replayed round: errors, tolerances and their reasons.

Three numbers decide. The *probe*: after each client's first batch fedbridge's weights are TFF's
up to rounding; this is where a wrong formula shows. The *two-step probe* shows what an optimizer
carries from step to step. The *whole round* is what the user sees. From the second step on the
weights of both sides differ by rounding, and ReLU and max-pool amplify the last bit, TensorFlow's
own included: these two are held against their noise floors, how far fedbridge's own result moves
when its starting weights move by one ulp.

An adaptive server divides the mean update by what it has seen of it, so that where an update is
near zero even its rounding counts in full. So the first probe has a noise floor there too, and a
fourth number decides: the *server step*, the server optimizer alone, on an update that TFF's own
optimizer was given as well.

With the weights goes all else that TFF gives: the rest of the state (norm estimates, optimizer
slots, accumulators), what the aggregator measured, and the names and dtypes of both trees. Whether
lists or tuples hold the parts of a state, a trace does not tell: TFF itself compares that where it
loads a state (compat_tests/test_program_state.py).
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
# One step of an optimizer on the same numbers: a few float32 operations an entry.
SERVER_STEP_TOLERANCE = 1e-6
# The reported loss is a float32 mean; summed in another order it moves by a few ulp (1.2e-7 each).
LOSS_TOLERANCE = 1e-6
# A norm that is measured is a float32 sum as well, and so is a mean of norms. A standard deviation
# is the root of a difference of two of them, times W² / (W² − Σw²), which is 5 at most where no
# client has nine tenths of the weight: its square is right to 2 · 5 · 1e-6 of the mean square.
VARIANCE_TOLERANCE = 10 * LOSS_TOLERANCE


def update_norm(start: Weights, end: Weights) -> float:
    """‖end − start‖₂ over all tensors, in float64; entries that are not finite do not count."""
    with np.errstate(invalid="ignore"):
        moved = [end[path].astype(float) - start[path].astype(float) for path in start]
    return float(np.sqrt(sum(np.sum(np.square(d[np.isfinite(d)])) for d in moved)))


def largest_errors(weights: Weights, reference: Weights, norm: float) -> dict[str, float]:
    """Per tensor, the largest difference of an entry over the norm of the update.

    An update of norm zero must be reproduced exactly: any difference is an infinite error. NaN
    equals NaN, an infinity itself.
    """

    def error(path: str) -> float:
        ours, theirs = weights[path].astype(float), reference[path].astype(float)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        difference = np.abs(np.where(same, 0.0, ours) - np.where(same, 0.0, theirs))
        largest = float(difference.max(initial=0.0))
        if not np.isfinite(largest):
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
        with np.errstate(invalid="ignore"):
            difference = weights[path].astype(float) - expected.astype(float)
        sign, error = np.sign(difference), np.abs(difference)
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


def loss_failure(loss: float | None, reference: float | None, floor: float) -> str | None:
    """Why a loss does not agree, or None; NaN equals NaN, and so do two that are missing."""
    if loss is None or reference is None:
        return None if loss is reference else f"loss {loss} instead of {reference}"
    if np.isnan(loss) and np.isnan(reference):
        return None
    bound = max(LOSS_TOLERANCE * abs(reference), FLOORS * floor)
    if abs(loss - reference) <= bound:
        return None
    return f"loss {loss:.8g} instead of {reference:.8g} (bound {bound:.1g})"


def structure_failure(
    metrics: Any, reference: Any, dtypes: Mapping[str, str] | None = None
) -> str | None:
    """Why the trees of the metrics do not agree, or None: other names, another order or dtype."""
    ours, theirs = _skeleton(metrics), _skeleton(reference)
    if ours != theirs:
        names = list(flat(metrics)), list(flat(reference))
        if names[0] != names[1]:
            return f"metrics named {names[0]} instead of {names[1]}"
        return f"what is empty among the metrics is in the tree {ours} instead of {theirs}"
    for name, leaf in flat(metrics, convert=False).items():
        wanted = (dtypes or {}).get(name)
        if wanted is not None and str(np.asarray(leaf).dtype) != wanted:
            return f"{name} is a {np.asarray(leaf).dtype} instead of a {wanted}"
    return None


def counter_failure(metrics: Any, reference: Any) -> str | None:
    """Why the counters do not agree, or None: other names, or another whole number."""
    ours, theirs = flat(metrics), flat(reference)
    if list(ours) != list(theirs):
        return f"metrics named {list(ours)} instead of {list(theirs)}"
    for name, value in theirs.items():
        if isinstance(value, int) and ours[name] != value:
            return f"{name} is {ours[name]} instead of {value}"
    return None


def values_failure(
    metrics: Any,
    reference: Any,
    floors: Mapping[str, float] | None = None,
    measured: bool = False,
) -> str | None:
    """Why the values of the metrics do not agree, or None.

    Args:
        metrics: fedbridge's, a tree.
        reference: TFF's.
        floors: How far fedbridge's own move by one ulp of the weights, by name.
        measured: Whether only what server and aggregator measure is looked at. After a whole round
            an accuracy may differ by an example, for a reason that the weights' errors show.
    """
    ours, theirs = flat(metrics), flat(reference)
    for name, value in theirs.items():
        if not isinstance(value, float) or (measured and name.startswith("client_work/train/")):
            continue
        floor = (floors or {}).get(name, 0.0)
        mean = theirs.get(name.replace("std_dev_client_norm", "average_client_norm"))
        if name.endswith("std_dev_client_norm") and mean is not None:
            failure = _deviation_failure(ours[name], value, mean, floor)
        else:
            failure = loss_failure(ours[name], value, floor)
        if failure:
            return f"{name}: {failure.removeprefix('loss ')}"
    return None


def _deviation_failure(ours: float, theirs: float, mean: float, floor: float) -> str | None:
    """As `loss_failure`, for the root of a difference; where rounding makes that negative, NaN."""
    if np.isnan(mean):
        return loss_failure(ours, theirs, floor)
    if abs(ours - theirs) <= FLOORS * floor:
        return None
    a, b = (0.0 if np.isnan(value) else value**2 for value in (ours, theirs))
    if abs(a - b) <= VARIANCE_TOLERANCE * (mean**2 + b):
        return None
    return f"{ours:.8g} instead of {theirs:.8g}"


def metric_changes(metrics: Any, other: Any) -> dict[str, float]:
    """How far each value of one tree of metrics is from another's; NaN and infinities count not."""
    ours, theirs = flat(metrics), flat(other)
    changes = {name: abs(float(ours[name]) - float(value)) for name, value in theirs.items()}
    return {name: change for name, change in changes.items() if np.isfinite(change)}


def relative_error(metrics: Any, reference: Any) -> float:
    """The largest difference of a value from TFF's, over TFF's where that is not zero.

    NaN equals NaN, an infinity itself; what one side lacks is an infinite error.
    """
    ours, theirs = flat(metrics), flat(reference)
    if list(ours) != list(theirs):
        return float("inf")

    def error(name: str) -> float:
        a, b = float(ours[name]), float(theirs[name])
        if a == b or (np.isnan(a) and np.isnan(b)):
            return 0.0
        apart = abs(a - b) / (abs(b) or 1.0)
        return apart if np.isfinite(apart) else float("inf")

    return max(map(error, theirs), default=0.0)


def state_errors(leaves: Weights, reference: Weights) -> dict[str, float]:
    """Per leaf of a state, the largest difference of an entry over the norm of the whole leaf.

    NaN equals NaN, an infinity itself. Whole numbers, and what is zero, must be equal.
    """

    def error(ours: np.ndarray, theirs: np.ndarray) -> float:
        ours, theirs = ours.astype(float), theirs.astype(float)
        if ours.shape != theirs.shape:
            return float("inf")
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        if same.all():
            return 0.0
        with np.errstate(invalid="ignore"):
            largest = float(np.abs(ours - theirs)[~same].max())
        norm = float(np.linalg.norm(theirs[np.isfinite(theirs)]))
        return largest / norm if np.isfinite(largest) and norm else float("inf")

    return {
        path: error(np.asarray(leaves[path]), np.asarray(theirs))
        if np.asarray(theirs).dtype.kind == "f"
        else (0.0 if np.array_equal(leaves[path], theirs) else float("inf"))
        for path, theirs in reference.items()
    }


def state_failure(
    leaves: Weights, reference: Weights, floors: Mapping[str, float], least: float
) -> str | None:
    """Why the rest of a state does not agree, or None: names, dtypes, then values.

    Args:
        leaves: fedbridge's, by path.
        reference: TFF's.
        floors: The noise floor of each.
        least: The bound where the floor is low.
    """
    odd = sorted(set(leaves) ^ set(reference))
    if odd:
        return f"the state {'lacks' if odd[0] in reference else 'has'} {odd[0]}, unlike TFF's"
    for path, theirs in reference.items():
        ours = np.asarray(leaves[path])
        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            return (
                f"{path} of the state is {ours.dtype}{list(ours.shape)} instead of "
                f"{theirs.dtype}{list(theirs.shape)}"
            )
    for path, error in state_errors(leaves, reference).items():
        bound = max(least, round_tolerance(floors.get(path, 0.0)))
        if error > bound:
            return f"{path} of the state is off by {error:.1e} (bound {bound:.1e})"
    return None


def _skeleton(tree: Any) -> Any:
    """A tree of metrics without its values: names in order, and what is empty."""
    if isinstance(tree, Mapping):
        return tuple((name, _skeleton(value)) for name, value in tree.items())
    if isinstance(tree, tuple | list):
        return [_skeleton(value) for value in tree]
    return [None] * len(tree) if np.ndim(tree) else None


def flat(metrics: Any, path: str = "", convert: bool = True) -> dict[str, Any]:
    """The numbers of a metrics tree by their paths; what is empty leaves no trace."""
    if hasattr(metrics, "tolist") and np.ndim(metrics):
        metrics = list(metrics)
    if isinstance(metrics, Mapping):
        children = list(metrics.items())
    elif isinstance(metrics, tuple | list):
        children = [(str(number), child) for number, child in enumerate(metrics)]
    else:
        return {path: metrics.item() if convert and hasattr(metrics, "item") else metrics}
    parts = [flat(child, f"{path}/{k}" if path else k, convert) for k, child in children]
    return {name: value for part in parts for name, value in part.items()}


def tensor_errors(
    probe: Mapping[str, float], whole: Mapping[str, float], floor: Mapping[str, float]
) -> tuple[TensorError, ...]:
    """The errors tensor by tensor, the worst first (by what they exceed)."""
    tensors = [TensorError(path, probe[path], whole[path], floor[path]) for path in whole]
    excess = lambda t: max(t.probe_error, t.round_error / max(t.noise_floor, LOW_FLOOR))
    return tuple(sorted(tensors, key=excess, reverse=True))
