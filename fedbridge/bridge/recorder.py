"""The child of `fedbridge record`: runs one script under the real TFF, and watches it.

    python -m fedbridge.bridge.recorder --mode record --script S --out TRACE --events FILE -- ARGS

The script is run unmodified as `__main__`. Its learning processes are real ones whose `next` is
watched: `record` writes down every round (and runs the probes), `time` only looks at the clock.
What happens is told to the parent in a file of JSON lines; stdout belongs to the script and TFF.
"""

import argparse
import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedbridge.bridge import builders, computations, era_layer, script as script_module
from fedbridge.bridge.recording import Recording, of_file
from fedbridge.bridge.watch import Current, RoundsDone, Timing, Watch, executes
from fedbridge.jax_core import FedbridgeError


def install() -> Current:
    """Puts fedbridge's functions before the imported TFF's, once in a process."""
    import tensorflow_federated as tff
    from tensorflow_federated.python.core.impl.computation import polymorphic_computation

    current = Current()
    builders.install(current)
    era_layer.install(current)

    def on_call(name: str, compute: Any, args: Any, kwargs: Any) -> Any:
        result = compute(*args, **kwargs)
        kept = computations.returned(name, (args, kwargs), result)
        if kept and current.watch:
            current.watch.computations.append(kept)
        return result

    computations.stand_before(
        tff,
        (tff.framework.ConcreteComputation, polymorphic_computation.PolymorphicComputation),
        lambda: not executes(),
        on_call,
    )
    return current


def record_function(
    current: Current,
    function: Callable[[], Any],
    out: str | os.PathLike[str],
    *,
    script: dict[str, Any],
    rounds: int | None = None,
    events: Path | None = None,
) -> Path:
    """Records what a Python function does with TFF. Many can be recorded in one process.

    Args:
        current: what `install` returned.
        function: builds learning processes and calls their `next`, as a script does.
        out: where the trace will lie; must not exist yet.
        script: how the manifest names it: `{"name": ..., "arguments": [...], "sha256": ...}`.
        rounds: how many training rounds it gets; None for all it asks for.
        events: a file that takes one JSON line per event.

    Returns:
        `out`.

    Raises:
        FedbridgeError: none of its rounds could be watched.
        Exception: whatever the function raises; then no trace is left.
    """
    recording = Recording(events, rounds, Path(out))
    try:
        _watching(current, recording, function)
        recording.write(script)
    except BaseException:
        recording.writer.discard()
        raise
    return Path(out)


def _watching(current: Current, watch: Watch, function: Callable[[], Any]) -> None:
    """Runs the function while `watch` watches; afterwards nobody does."""
    current.watch = watch
    try:
        function()
    except RoundsDone:
        pass
    except SystemExit as exit_:
        if exit_.code not in (None, 0):
            raise
    finally:
        current.watch = None
    if not any(watch.counts) and not watch.computations:
        raise FedbridgeError(
            f"none of its rounds could be watched: {watch.not_replayable}"
            if watch.not_replayable
            else "it ran no round of a tff.learning process and called no computation of its own; "
            "fedbridge watches `next` of what the builders of tff.learning make, and computations: "
            "check a script that calls one."
        )


def _end_workers() -> None:
    # TFF leaves its worker behind, holding every inherited pipe open.
    import psutil

    for child in psutil.Process().children(recursive=True):
        if child.name().startswith("worker_bin"):
            child.kill()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one pass; 0 when its result was written."""
    parser = argparse.ArgumentParser(prog="fedbridge.bridge.recorder")
    parser.add_argument("--mode", choices=["record", "time"], required=True)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args(argv)

    # A child of a background shell inherits SIGINT as ignored, and TFF then waits for ever for a
    # worker that it "interrupted".
    signal.signal(signal.SIGINT, signal.default_int_handler)
    atexit.register(_end_workers)
    os.environ.setdefault("MPLBACKEND", "Agg")
    watch = (
        Recording(options.events, options.rounds, options.out)
        if options.mode == "record"
        else Timing(options.events, options.rounds)
    )
    try:
        watch.tell("phase", name="importing TFF")
        current = install()
        watch.tell("phase", name="running the script")
        run = lambda: script_module.run(options.script, options.arguments)
        _watching(current, watch, run)
        watch.tell("phase", name="writing")
        if isinstance(watch, Recording):
            watch.write(of_file(options.script, options.arguments))
        elif isinstance(watch, Timing):
            watch.write(options.out)
    except BaseException as error:
        if isinstance(watch, Recording):
            watch.writer.discard()
        watch.tell("failed", **_failure(options.script, error))
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _failure(script: Path, error: BaseException) -> dict[str, Any]:
    if isinstance(error, SystemExit):
        text = f"it exited with {error.code!r}"
    elif isinstance(error, FedbridgeError):
        text = str(error)
    else:
        first = (str(error).strip().splitlines() or [""])[0]
        text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    traceback.print_exception(error, file=sys.stderr)
    where = script_module.place(script, error)
    # What fedbridge refuses on its own is no failure of TFF.
    refused = isinstance(error, FedbridgeError)
    return {"error": text[:500], "line": where.text if where else None, "refused": refused}


if __name__ == "__main__":
    sys.exit(main())
