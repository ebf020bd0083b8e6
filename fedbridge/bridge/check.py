"""The main job: a script runs under the real TFF, its trace on JAX, and the two are compared.

find its data       before anything runs, so that a run never fails late for want of them
record(script)      TFF's side, in the reference environment
replay(trace)       fedbridge's side, here
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedbridge.bridge import (
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
        result = replay(trace.read(recorded.trace), on_event=on_event)
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
    return Recorded(path, notes)


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
