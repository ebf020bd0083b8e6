"""What every worker does: takes one command after the other, and answers with what it measured.

Commands and answers are JSON over a socket of their own: the libraries print what they like, and
no process that they start can hold it open. The module that calls `serve` says what a peer is.
"""

import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import data


class Peer(NamedTuple):
    """A peer that holds its data, in its own form, and has built nothing yet.

    Attributes:
        versions: Of what matters to its speed.
        start: `() -> state`, everything that a script does before its first round.
        train: `(state, first, count) -> state`, for the rounds from `first` on; returns when they
            are done.
        evaluate: `state -> loss` over all test examples.
        device_bytes: The peak of the device's own memory; None where it has none.
    """

    versions: dict[str, str]
    start: Callable[[], Any]
    train: Callable[[Any, int, int], Any]
    evaluate: Callable[[Any], float]
    device_bytes: Callable[[], int | None] = lambda: None


Command = Callable[[], dict[str, Any]]


def serve(
    open_peer: Callable[[data.Task, str], Peer], more: dict[str, Command] | None = None
) -> None:
    """Serves the commands that come from the address in `argv[1]`, until their sender is gone.

    Args:
        open_peer: Makes the peer of a task and one of the peer's settings.
        more: Further commands by name.
    """
    connection = Client(sys.argv[1], "AF_UNIX")
    session = _Session(open_peer)
    commands = {name: getattr(session, name) for name in ("open", "first", "turn", "end")}
    commands |= more or {}
    try:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                request = json.loads(connection.recv_bytes())
                answer = _answered(commands[request.pop("do")], request)
                connection.send_bytes(json.dumps(answer).encode())
    finally:
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        os._exit(0)  # TFF hangs when it is left to end by itself


def _answered(command: Callable[..., dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
    try:
        return command(**request)
    except Exception as error:  # noqa: BLE001 - whatever a peer cannot do is reported
        traceback.print_exc()
        words = str(error).strip().splitlines() or ["no words"]
        return {"error": f"{type(error).__name__}: {words[0]}"}


class _Session:
    """The commands, in the order in which they come."""

    def __init__(self, open_peer: Callable[[data.Task, str], Peer]):
        self._open_peer = open_peer
        self._spent = 0.0

    def open(self, task: dict[str, Any], setting: str) -> dict[str, Any]:
        """Imports the peer, makes the data."""
        self._peer = self._open_peer(data.Task(**task), setting)
        gc.collect()
        self._before = _peak_bytes()
        _forget_peaks()
        return {"versions": self._peer.versions}

    def first(self) -> dict[str, Any]:
        """Builds everything, and runs round 1: the wait before the second round."""
        with self._timed() as seconds:
            self._state = self._peer.train(self._peer.start(), 1, 1)
        return {"seconds": seconds()}

    def turn(self, first: int, count: int) -> dict[str, Any]:
        """Runs so many rounds."""
        with self._timed() as seconds:
            self._state = self._peer.train(self._state, first, count)
        return {"seconds": seconds()}

    def end(self) -> dict[str, Any]:
        """Evaluates twice, as the first time compiles; then says how much memory it all took."""
        with self._timed() as first:
            self._peer.evaluate(self._state)
        total = self._spent
        with self._timed() as second:
            loss = self._peer.evaluate(self._state)
        peak, device = _peak_bytes(), self._peer.device_bytes()
        return {
            "first_evaluation_seconds": first(),
            "evaluation_seconds": second(),
            "total_seconds": total,
            "loss": float(loss),
            "peak_memory_mb": max(peak, self._before) / 1e6,
            "rounds_memory_mb": peak / 1e6,
            **({} if device is None else {"device_memory_mb": device / 1e6}),
        }

    @contextlib.contextmanager
    def _timed(self) -> Iterator[Callable[[], float]]:
        start = time.perf_counter()
        taken: list[float] = []
        yield lambda: taken[0]
        taken.append(time.perf_counter() - start)
        self._spent += taken[0]


# ------------------------------------------------------------------------------------- memory


def _children() -> list[int]:
    """What this process has started: TFF's worker."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # "pid (name) state parent ...", and the name may hold anything
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def _peak_bytes() -> int:
    """The most memory that this process and its children have held, as Linux counts it."""
    if sys.platform != "linux":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    peaks = 0
    for pid in (os.getpid(), *_children()):
        status = Path(f"/proc/{pid}/status").read_text()
        peaks += int((status.partition("VmHWM:")[2] or "0").split()[0]) * 1024
    return peaks


def _forget_peaks() -> None:
    """From here on Linux counts the peak anew; where it may not, it stays what it was."""
    for pid in (os.getpid(), *_children()):
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")
