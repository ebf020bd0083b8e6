"""The main job: a script runs under the real TFF, its trace on JAX, and the two are compared.

find its data       before anything runs, so that a run never fails late for want of them
record(script)      TFF's side, in the reference environment
replay(trace)       fedbridge's side, here
                    and what computations of the script's own return, on fedbridge.tff
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedbridge.bridge import (
    computations,
    record as recording,
    reference as reference_environment,
    script as script_module,
    trace,
)
from fedbridge.bridge.replay import replay
from fedbridge.bridge.result import Result
from fedbridge.tff_io import find_data

DEMO_TRACE = Path(__file__).with_name("demo_trace")
"""The small recorded run that comes with the package."""

_VARIABLE = "FEDBRIDGE_DATA"

OnEvent = Callable[[dict[str, Any]], None]


class Recorded(NamedTuple):
    """A trace on disk."""

    trace: Path
    """Its folder."""
    notes: tuple[str, ...]
    """What to know of its data."""
    variables: Mapping[str, str]
    """With which the script finds its data."""


def check(
    script: str | Path,
    arguments: Sequence[str] = (),
    *,
    rounds: int | None = None,
    keep_trace: str | Path | None = None,
    on_event: OnEvent = lambda event: None,
    reference: str | Path | None = None,
) -> Result:
    """Runs a TFF script under the real TFF and on the JAX core, and compares round by round.

    Args:
        script: An ordinary TFF script or notebook.
        arguments: Its command line.
        rounds: Stop after so many rounds; None for all of the script's.
        keep_trace: A folder, not there yet, that the trace is kept in; None to throw it away.
        on_event: Gets the events of `record`, then of `replay`.
        reference: The reference environment's folder; None for the usual one.

    Returns:
        The verdict and everything it rests on.

    Raises:
        FedbridgeError: No reference environment, a script that fails under TFF, a broken data file.
    """
    with _folder(keep_trace) as folder:
        recorded = record(
            script, arguments, folder, rounds=rounds, on_event=on_event, reference=reference
        )
        read = trace.read(recorded.trace)
        result = replay(read, on_event=on_event)
        if theirs := computations.unpacked(read.computations()):
            on_event({"event": "phase", "name": "calling the script's computations here"})
            with _environment(recorded.variables):
                result = _with_computations(
                    result, read, theirs, script, arguments, rounds, reference
                )
    return result._replace(notes=(*recorded.notes, *result.notes))


def record(
    script: str | Path,
    arguments: Sequence[str],
    out: str | Path,
    *,
    rounds: int | None = None,
    on_event: OnEvent = lambda event: None,
    reference: str | Path | None = None,
) -> Recorded:
    """`bridge.record.record`, with the script's data found, unpacked or generated before.

    Args:
        script: An ordinary TFF script or notebook.
        arguments: Its command line.
        out: Where the trace will lie; nothing must be there yet.
        rounds: Stop after so many rounds; None for all of the script's.
        on_event: Gets the events of `bridge.record.record`.
        reference: The reference environment's folder; None for the usual one.

    Raises:
        FedbridgeError: As `bridge.record.record`; or FEDBRIDGE_DATA does not hold the data.
    """
    source = "\n".join(piece.source for piece in script_module.pieces(script))
    reference_environment.python(reference)
    variables, notes = _data(source, on_event)
    with _environment(variables):
        path = recording.record(
            script, arguments, out, rounds=rounds, on_event=on_event, reference=reference
        )
    return Recorded(path, notes, variables)


def _with_computations(
    result: Result,
    recorded: trace.Trace,
    theirs: list[computations.Returned],
    script: str | Path,
    arguments: Sequence[str],
    rounds: int | None,
    reference: str | Path | None,
) -> Result:
    """The result, and what the script's own computations return on fedbridge.tff.

    They are TensorFlow's code, so the script runs where TensorFlow is: in the reference
    environment, which has the same fedbridge.
    """
    with tempfile.TemporaryDirectory(prefix="fedbridge-") as scratch:
        out, log = Path(scratch, "computations.npz"), Path(scratch, "log")
        code = reference_environment.run_child(
            "fedbridge.tff._results",
            [str(recorded.path), str(out), str(script), *arguments],
            path=reference,
            log=log,
            env={"MPLBACKEND": os.environ.get("MPLBACKEND", "Agg")},
        )
        if code != 0:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            last = f": {said[-1][:300]}" if said else ""
            reason = f"`fedbridge run` of the script ends with code {code}{last}"
            return result._replace(verdict="not comparable", reason=reason)
        ours = computations.unpacked(trace.arrays(out))
    again = computations.unpacked(recorded.computations(trace.COMPUTATIONS_TIMED))
    varying = computations.judge(again, theirs) if again else ()
    varies = next((one.failure for one in varying if one.failure), None)
    # TFF's side was stopped after so many rounds.
    judged = computations.judge(ours[: len(theirs)] if rounds else ours, theirs)
    return computations.joined(result, judged, varies)


def _data(source: str, on_event: OnEvent) -> tuple[dict[str, str], tuple[str, ...]]:
    """Where an EMNIST script finds its data, as variables for its process, and what to say of it.

    TFF's own cache and download are left to TFF. Other scripts are left alone.
    """
    if "datasets.emnist" not in source:
        return {}, ()
    on_event({"event": "phase", "name": "looking for the data"})
    named = bool(os.environ.get(_VARIABLE))
    found = find_data("emnist")
    if found.folder is None:
        return {}, ()
    generated = found.source.startswith("generated")
    if not named and not generated:
        return {}, ()
    why = f": there is no {_VARIABLE}, nothing in TFF's cache, and no network to download from"
    return {_VARIABLE: str(found.folder)}, (found.source + why,) if generated else ()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes that start meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _folder(keep: str | Path | None) -> Iterator[Path]:
    """Where the trace goes: the user's folder, or one that vanishes."""
    if keep is not None:
        yield Path(keep)
        return
    with tempfile.TemporaryDirectory(prefix="fedbridge-") as scratch:
        yield Path(scratch) / "trace"
