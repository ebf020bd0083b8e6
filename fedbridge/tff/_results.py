"""The child of `fedbridge check`: runs a script here, and keeps what its computations return.

    python -m fedbridge.tff._results TRACE OUT SCRIPT ARGUMENTS

Every call gets the numbers that TFF's got, so that errors of one do not hide in those of the next;
and it is made again with its floats moved by one ulp, which is how its noise is measured.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge import tff
from fedbridge.bridge import computations, trace, trace_writer
from fedbridge.bridge.computations import Returned
from fedbridge.bridge.structures import mapped
from fedbridge.jax_core import FedbridgeError
from fedbridge.tff._computations import Computation, PolymorphicComputation, in_a_body
from fedbridge.tff._run import run

_SEEDS = 3


def main(recorded: str, out: str, script: str, *arguments: str) -> int:
    """Runs it and writes the results; the exit code is the script's."""
    reference = computations.unpacked(trace.read(recorded).computations())
    kept: list[Returned] = []

    def on_call(name: str, compute: Any, args: Any, kwargs: Any) -> Any:
        theirs = reference[len(kept)] if len(kept) < len(reference) else None
        if theirs is not None and theirs.name == name:
            args, kwargs = mapped((args, kwargs), lambda path, x: _instead(theirs.given, path, x))
        result = compute(*args, **kwargs)
        call = computations.returned(name, (args, kwargs), result)
        if call is not None:
            kept.append(call._replace(floors=_floors(call, compute, args, kwargs)))
        return result

    classes = Computation, PolymorphicComputation
    computations.stand_before(tff, classes, in_a_body, on_call)
    try:
        code = run(script, arguments)
    except FedbridgeError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    trace_writer.save(Path(out), computations.packed(kept))
    return code


def _instead(given: computations.Arrays, path: str, leaf: Any) -> Any:
    """The number that TFF's call was given in a leaf's place, where there is one."""
    found = given.get(path)
    return leaf if found is None or found.shape != np.shape(leaf) else found[()]


def _floors(call: Returned, compute: Any, args: Any, kwargs: Any) -> dict[str, float]:
    """How far each leaf of a result moves when the floats among the arguments move by one ulp."""
    floats = {path for path, leaf in call.given.items() if leaf.dtype.kind == "f"}
    floors: dict[str, float] = {}
    for seed in range(_SEEDS if floats else 0):
        rng = np.random.default_rng(seed)

        def move(path: str, leaf: Any, rng: np.random.Generator = rng) -> Any:
            if path not in floats:
                return leaf
            array = np.asarray(leaf, np.float32)
            towards = np.where(rng.integers(0, 2, array.shape), np.inf, -np.inf)
            moved = np.nextafter(array, towards.astype(np.float32))
            return moved.astype(call.given[path].dtype)[()]

        moved_args, moved_kwargs = mapped((args, kwargs), move)
        other = computations.returned("", (), compute(*moved_args, **moved_kwargs))
        for path, leaf in (other.leaves if other else {}).items():
            if leaf.dtype.kind == "f" and leaf.shape == call.leaves[path].shape:
                apart = np.abs(leaf.astype(float) - call.leaves[path])
                change = float(apart[np.isfinite(apart)].max(initial=0.0))
                floors[path] = max(floors.get(path, 0.0), change)
    return floors


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
