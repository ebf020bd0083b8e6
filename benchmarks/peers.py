"""The peers as the runner sees them: where each one's environment is, and a worker in it."""

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import Any, NamedTuple

from fedbridge.bridge import child, reference
from fedbridge.jax_core import ReferenceEnvironmentError

ROOT = Path(__file__).resolve().parents[1]


class AbsentError(Exception):
    """A peer that cannot run, in words."""


class Peer(NamedTuple):
    """A peer.

    Attributes:
        settings: Those among which the better one is chosen, the usual one first.
        interpreter: Finds the Python of its environment; raises `AbsentError`.
    """

    settings: tuple[str, ...]
    interpreter: Callable[[], Path]


def _fedjax() -> Path:
    folder = Path(os.environ.get("FEDBRIDGE_FEDJAX") or ROOT / ".fedjax")
    if not (folder / "bin" / "python").exists():
        raise AbsentError(f"there is no environment with FedJAX in {folder.name}: `make fedjax`")
    return folder / "bin" / "python"


def _reference() -> Path:
    try:
        return reference.python()
    except ReferenceEnvironmentError as error:
        raise AbsentError(str(error)) from None


PEERS = {
    "fedbridge": Peer(("default", "sharded"), lambda: Path(sys.executable)),
    "tff": Peer(("default", "cores"), _reference),
    "fedjax": Peer(("jit", "pmap"), _fedjax),
}


class Worker:
    """A process in a peer's environment, for one task; a context manager.

    It runs in a session of its own, which is killed as a whole when the context ends.

    Raises:
        AbsentError: There is no such environment; or the worker ended, or could not do what it was
            told.
    """

    def __init__(self, name: str):
        self._name = name
        self._interpreter = PEERS[name].interpreter()
        self._stop = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="fedbridge-")
        self._log = Path(self._folder.name, "log")
        self._connection: Connection | None = None

    def __enter__(self) -> "Worker":
        address = str(Path(self._folder.name, "socket"))
        self._listener = Listener(address, "AF_UNIX")
        module = f"benchmarks.workers.{self._name}"
        command = [self._interpreter, "-P", "-m", module, address]
        self._thread = threading.Thread(target=self._run, args=(command,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._connection is not None:
            self._connection.close()
        self._listener.close()
        self._folder.cleanup()

    def tell(self, do: str, **arguments: Any) -> None:
        """Sends a command; `answer` gets what comes of it."""
        if self._connection is None:
            self._connection = self._accept()
        try:
            self._connection.send_bytes(json.dumps({"do": do, **arguments}).encode())
        except ConnectionError:
            raise self._ended() from None

    def answer(self) -> dict[str, Any]:
        """Waits for the answer to the last command."""
        assert self._connection is not None
        try:
            answer = json.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError):
            raise self._ended() from None
        if "error" in answer:
            raise AbsentError(answer["error"])
        return answer

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        self.tell(do, **arguments)
        return self.answer()

    def _run(self, command: list[Any]) -> None:
        def poll() -> None:
            if self._stop.is_set():
                raise _EndError

        path = [str(ROOT)]
        if self._name == "fedbridge" and "PYTHONPATH" in os.environ:
            path.append(os.environ["PYTHONPATH"])
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "TF_CPP_MIN_LOG_LEVEL": "2"}
        try:
            child.run(command, log=self._log, env=env, cwd=ROOT, poll=poll)
        except _EndError:
            pass
        except OSError as error:
            self._log.write_text(f"{error}\n")

    def _accept(self) -> Connection:
        socket = self._listener._listener._socket  # the one thing of it that can be waited for
        while not wait([socket], 0.2):
            if not self._thread.is_alive():
                raise self._ended()
        return self._listener.accept()

    def _ended(self) -> AbsentError:
        self._stop.set()
        self._thread.join()
        said = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        return AbsentError(f"its process ended: {said[-1]}")


class _EndError(Exception):
    """Ends a worker that has nothing more to do."""
