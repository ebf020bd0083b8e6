"""What the computations of a script return, when the script calls them: Federated Core, checked.

A script's own computations are code, which no trace can hold. So the script runs on both sides, and
what each call returned is compared:

stand_before       gives every call of a computation of the script's own to a function
returned           what a call was given and returned, as arrays
packed, unpacked   calls as the arrays of one .npz, and back
judge, joined      the same computations in the same order, and the same values; in the verdict

A computation is the script's own if one of `eras.DECORATORS` made it; calls in the body of another
one are part of that one, and what is only text, "Hello, World!" above all, is not kept.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedbridge.bridge.eras import DECORATORS
from fedbridge.bridge.judge import FLOORS
from fedbridge.bridge.result import ComputationResult, Result
from fedbridge.bridge.structures import leaves

NOTHING_TO_REPLAY = (
    "the script calls only computations of its own, which `fedbridge check` runs on both sides"
)
RANDOM = "the script draws numbers without a seed, so that TFF's own second run gives others"

# Every call starts from what TFF's was given. Here the script's TensorFlow functions run on JAX, or
# in another build of TensorFlow; float32 sums within one operation differ in their order, what a
# call makes of that is measured (its noise floor), and this is the bound where it is low.
TOLERANCE = 1e-6

Arrays = Mapping[str, np.ndarray]
OnCall = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class Returned(NamedTuple):
    """One call of a computation."""

    name: str
    """That of the computation's function."""
    given: Arrays
    """The numbers among its arguments by path: "0/0/..." in the first one, "0/1/..." in the second,
    "1/name/..." in those with names."""
    leaves: Arrays
    """Its result by path; "" for a result that is one value."""
    floors: Mapping[str, float]
    """How far each leaf moves when the floats among the arguments move by one ulp; fedbridge's."""


def stand_before(
    tff: Any, classes: tuple[type, ...], inside: Callable[[], bool], on_call: OnCall
) -> None:
    """Stands before the decorators of a namespace and before the calls of what they make.

    Args:
        tff: TFF's namespace, or fedbridge's.
        classes: Those of its computations.
        inside: Whether a call made now is in the body of another computation.
        on_call: Gets name, function and arguments of each call, and returns its result.
    """
    own: dict[int, tuple[str, Any]] = {}  # by identity: TFF compares computations by content

    def named(made: Any, function: Any) -> Any:
        if not str(getattr(function, "__module__", "")).startswith("fedbridge."):  # the recorder's
            own[id(made)] = getattr(function, "__name__", type(function).__name__), made
        return made

    def decorating(original: Callable[..., Any]) -> Callable[..., Any]:
        def decorate(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if isinstance(made, classes):
                return named(made, args[0])
            return lambda function: named(made(function), function)

        return functools.update_wrapper(decorate, original, updated=())

    def calling(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            compute = functools.partial(original, self)
            if id(self) not in own or inside():
                return compute(*args, **kwargs)
            return on_call(own[id(self)][0], compute, args, kwargs)

        return call

    for name in DECORATORS:
        *packages, last = name.split(".")
        home = functools.reduce(getattr, packages, tff)
        setattr(home, last, decorating(getattr(home, last)))
    for kind in classes:
        kind.__call__ = calling(kind.__call__)


def returned(name: str, arguments: Any, result: Any) -> Returned | None:
    """A call as arrays; None for a result that is only text.

    Args:
        name: That of the computation.
        arguments: Its positional and its named arguments.
        result: What it returned.
    """
    found = {}
    for path, leaf in leaves(result).items():
        if leaf.dtype.kind == "O":
            texts = all(isinstance(value, bytes | str) for value in leaf.flat)
            leaf = leaf.astype("S") if texts else np.asarray(f"a {type(leaf.item()).__name__}")
        found[path] = leaf
    if found and all(leaf.dtype.kind in "SU" for leaf in found.values()):
        return None
    given = {path: leaf for path, leaf in leaves(arguments).items() if leaf.dtype.kind in "biuf"}
    return Returned(name, given, found, {})


def packed(calls: Sequence[Returned]) -> dict[str, np.ndarray]:
    """Calls as arrays: "names", in JSON, and "<call>/given/<path>", "<call>/result/<path>".

    >>> sorted(packed([Returned("mean", {}, {"": np.zeros(3)}, {})]))
    ['0/result/', 'names']
    """
    arrays = {"names": np.asarray(json.dumps([call.name for call in calls]))}
    for number, call in enumerate(calls):
        for kind, part in zip(("given", "result", "floor"), call[1:], strict=True):
            arrays |= {f"{number}/{kind}/{path}": np.asarray(x) for path, x in part.items()}
    return arrays


def unpacked(arrays: Arrays) -> list[Returned]:
    """What `packed` made arrays of; of none, no calls."""
    if not arrays:
        return []
    names = json.loads(str(arrays["names"]))
    parts: list[dict[str, dict[str, Any]]] = [
        {"given": {}, "result": {}, "floor": {}} for _ in names
    ]
    for key, leaf in arrays.items():
        if key != "names":
            number, kind, path = key.split("/", 2)
            parts[int(number)][kind][path] = leaf
    return [Returned(name, *part.values()) for name, part in zip(names, parts, strict=True)]


def judge(
    calls: Sequence[Returned], reference: Sequence[Returned]
) -> tuple[ComputationResult, ...]:
    """Call by call, whether both sides returned the same.

    Args:
        calls: fedbridge's.
        reference: TFF's.

    Example:
        >>> mean = Returned("mean", {}, {"": np.full((), 2.0, "f")}, {})
        >>> count = Returned("count", {}, {"": np.full((), 3)}, {})
        >>> [one.failure for one in judge([mean, count], [mean, count])]
        [None, None]
        >>> judge([mean._replace(leaves={"": np.full((), 2.1, "f")})], [mean])[0].failure
        'mean returns a value that is off by 5.0e-02 (bound 1.0e-06)'
        >>> judge([mean], [mean, count])[1].failure
        'nothing was called, and under TFF count'
    """
    judged = []
    for number in range(max(len(calls), len(reference))):
        ours, theirs = (side[number] if number < len(side) else None for side in (calls, reference))
        failure, error = _failure(ours, theirs)
        name = theirs.name if theirs else ours.name if ours else ""
        judged.append(ComputationResult(number + 1, name, error, failure is None, failure))
    return tuple(judged)


def joined(result: Result, computations: Sequence[ComputationResult], varies: str | None) -> Result:
    """The result of a replay, and what the script's own computations returned.

    Args:
        result: What `replay` gave.
        computations: What `judge` gave.
        varies: Where TFF itself returns something else when the script runs again, or None.
    """
    if varies:
        unjudged = tuple(one._replace(passed=False, failure=None) for one in computations)
        result = result._replace(computations=unjudged)
        if result.verdict == "differs":
            return result
        return result._replace(verdict="not comparable", reason=f"{RANDOM}: {varies}")
    result = result._replace(computations=tuple(computations))
    failed = next((one for one in computations if not one.passed), None)
    if failed:
        reason = f"computation {failed.call}, {failed.failure}"
        return result._replace(verdict="differs", reason=reason)
    one = len(computations) == 1
    calls, they = ("call", "returns what it does") if one else ("calls", "return what they do")
    agree = f"{len(computations)} {calls} of its own computations {they} under TFF"
    if result.verdict == "match":
        return result._replace(reason=f"{result.reason}; {agree}")
    if result.reason == NOTHING_TO_REPLAY:
        return result._replace(verdict="match", reason=agree)
    return result


def _failure(ours: Returned | None, theirs: Returned | None) -> tuple[str | None, float]:
    """Why a call does not agree, or None, and its largest error over the bound's norm."""
    if ours is None or theirs is None or ours.name != theirs.name:
        called, there = (side.name if side else "nothing" for side in (ours, theirs))
        return f"{called} was called, and under TFF {there}", float("inf")
    odd = sorted(set(ours.leaves) ^ set(theirs.leaves))
    if odd:
        lacks = "lacks" if odd[0] in theirs.leaves else "has"
        return f"the result of {ours.name} {lacks} {odd[0]!r}, unlike TFF's", float("inf")
    norms = _norms(theirs)
    failure, largest = None, 0.0
    for path, leaf in ((path, np.asarray(leaf)) for path, leaf in theirs.leaves.items()):
        mine = np.asarray(ours.leaves[path])
        if (mine.dtype, mine.shape) != (leaf.dtype, leaf.shape):
            forms = (f"{side.dtype}{list(side.shape)}" for side in (mine, leaf))
            failure = f"{ours.name} returns {_where(path)} of {' instead of '.join(forms)}"
            return failure, float("inf")
        error = _error(mine, leaf, norms.get(path, 0.0))
        floor = float(ours.floors.get(path, 0.0))
        bound = max(TOLERANCE, FLOORS * floor / norms[path] if norms.get(path) else 0.0)
        largest = max(largest, error)
        if error > bound and failure is None:
            off = f"off by {error:.1e} (bound {bound:.1e})"
            failure = f"{ours.name} returns {_where(path)} that is {off}"
    return failure, largest


def _norms(call: Returned) -> dict[str, float]:
    """What errors are relative to, by path.

    The norm of the update, where the first argument is a state that the call makes a new one of;
    else that of the part of the result that a leaf is in.
    """
    state = {
        path.removeprefix("0/0").lstrip("/"): leaf
        for path, leaf in call.given.items()
        if path.split("/")[:2] == ["0", "0"]
    }
    parts: dict[str, list[str]] = {}
    whole = set(state) == set(call.leaves)
    for path, leaf in call.leaves.items():
        if leaf.dtype.kind == "f":
            parts.setdefault("" if whole else path.partition("/")[0], []).append(path)
    norms = {}
    for part, paths in parts.items():
        inner = {path: path if whole else path.removeprefix(part).lstrip("/") for path in paths}
        same = all(x in state and state[x].shape == call.leaves[p].shape for p, x in inner.items())
        moved = [call.leaves[p].astype(float) - (state[x] if same else 0) for p, x in inner.items()]
        norm = np.sqrt(sum(np.sum(np.square(m[np.isfinite(m)])) for m in map(np.asarray, moved)))
        norms |= dict.fromkeys(paths, float(norm))
    return norms


def _error(ours: np.ndarray, theirs: np.ndarray, norm: float) -> float:
    """The largest difference over a norm; NaN equals NaN, what holds no floats must be equal."""
    if theirs.dtype.kind != "f":
        return 0.0 if np.array_equal(ours, theirs) else float("inf")
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(ours.astype(float) - theirs))
    largest = float(apart.max(initial=0.0))
    return largest / norm if norm and np.isfinite(largest) else float("inf") if largest else 0.0


def _where(path: str) -> str:
    return f"a {path!r}" if path else "a value"
