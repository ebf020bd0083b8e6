"""The main job: a script runs under the real TFF, its trace on JAX, and the two are compared.

data_for(script)     where the script's data will come from, decided before anything runs
record(script)       TFF's side, in the reference environment
replay(trace)        fedbridge's side, here
"""

import contextlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from fedbridge.bridge import trace
from fedbridge.bridge.record import record
from fedbridge.bridge.replay import replay
from fedbridge.bridge.result import Result
from fedbridge.tff_io import find_data, generate_emnist

_VARIABLE = "FEDBRIDGE_DATA"
_EMNIST = "emnist_all.sqlite"
_ORIGIN = f"https://storage.googleapis.com/tff-datasets-public/{_EMNIST}.lzma"
_STAND_IN_CLIENTS = 100

DEMO_TRACE = Path(__file__).with_name("demo_trace")
"""The small recorded run that comes with the package."""

OnEvent = Callable[[dict[str, Any]], None]


class Data(NamedTuple):
    """Where a script's data comes from."""

    environment: dict[str, str]
    """What the script's process gets to know."""
    notes: tuple[str, ...]
    """What the reader of the result should know."""


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
    data = data_for(script, on_event)
    with _folder(keep_trace) as folder, environment(data.environment):
        recorded = record(
            script, arguments, folder, rounds=rounds, on_event=on_event, reference=reference
        )
        result = replay(trace.read(recorded), on_event=on_event)
    return result._replace(notes=(*data.notes, *result.notes))


def data_for(script: str | Path, on_event: OnEvent = lambda event: None) -> Data:
    """Decides where an EMNIST script finds its data; other scripts are left alone.

    What the user names in FEDBRIDGE_DATA counts, unpacked first where it is packed. Without it
    TFF's own cache and download serve; where there is neither, data generated for the purpose
    stand in, and a note says so.

    Args:
        script: The script that will run.
        on_event: Gets a phase where data are unpacked or generated.
    """
    path = Path(script)
    if not path.is_file() or "datasets.emnist" not in path.read_text("utf-8", errors="replace"):
        return Data({}, ())
    chosen = os.environ.get(_VARIABLE)
    if chosen:
        folder = Path(chosen).expanduser()
        if (folder / _EMNIST).exists() or not (folder / f"{_EMNIST}.lzma").exists():
            return Data({}, ())
        on_event({"event": "phase", "name": f"unpacking {folder / _EMNIST}.lzma"})
        unpacked, _ = find_data("emnist")
        return Data({_VARIABLE: str(unpacked)}, ())
    if (Path.home() / ".tff" / _EMNIST).exists() or _downloadable():
        return Data({}, ())
    return _stand_in(on_event)


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
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


def _stand_in(on_event: OnEvent) -> Data:
    """Generated handwriting, made once and kept in the user's cache."""
    folder = platformdirs.user_cache_path("fedbridge") / f"generated_emnist_{_STAND_IN_CLIENTS}"
    if not (folder / _EMNIST).exists():
        on_event({"event": "phase", "name": "no EMNIST here and no network: generating a stand-in"})
        generate_emnist(_STAND_IN_CLIENTS, folder)
    note = (
        f"the data are generated ({_STAND_IN_CLIENTS} writers, not EMNIST): there is no "
        f"{_VARIABLE}, nothing in TFF's cache, and no network to download from"
    )
    return Data({_VARIABLE: str(folder)}, (note,))


def _downloadable() -> bool:
    """Whether TFF could download; asked the way TFF does, so proxies count."""
    head = urllib.request.Request(_ORIGIN, method="HEAD")
    try:
        with urllib.request.urlopen(head, timeout=10):  # noqa: S310 (a constant https address)
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def _folder(keep: str | Path | None) -> Iterator[Path]:
    """Where the trace goes: the user's folder, or one that vanishes."""
    if keep is not None:
        yield Path(keep)
        return
    with tempfile.TemporaryDirectory(prefix="fedbridge-") as scratch:
        yield Path(scratch) / "trace"
