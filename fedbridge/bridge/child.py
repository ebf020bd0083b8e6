"""Runs a command to its end, and leaves no process of it behind.

TFF starts a process of its own, `worker_binary`, that outlives its parent, keeps every pipe open
that it inherited, and answers to no signal that a terminal sends. So: output goes to a file, never
to a pipe; the command gets a session of its own; and when it has ended, or we are told to end, the
whole session is killed, the worker included.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_POLL_SECONDS = 0.1


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    poll: Callable[[], None] | None = None,
    timeout: float | None = None,
) -> int | None:
    """Runs a command in a session of its own; POSIX only.

    Args:
        command: The program and its arguments.
        log: Gets standard output and standard error; overwritten.
        env: The command's whole environment; None for ours.
        cwd: Where it runs; None for here.
        poll: Called about ten times a second while it runs, and once at the end. What it raises
            ends the command.
        timeout: Seconds after which it is killed; None for never.

    Returns:
        The exit code, negative for the signal that ended it; None if it was killed at `timeout`.

    Example:
        >>> import sys, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Path(folder) / "log"
        ...     print(run([sys.executable, "-c", "print('hello'); exit(3)"], log=log))
        ...     print(log.read_text().strip())
        3
        hello
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with log.open("wb") as output, _signals_as_exceptions(), orphans_adopted():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        expired = False
        try:
            while not _has_ended(process.pid):
                if poll is not None:
                    poll()
                if deadline is not None and time.monotonic() > deadline:
                    expired = True
                    break
                time.sleep(_POLL_SECONDS)
        finally:
            # The leader is not reaped yet, so its number still names this session and no other.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-process.pid, 0)
        if poll is not None:
            poll()
    return None if expired else code


def _has_ended(pid: int) -> bool:
    """Whether a child has ended, without reaping it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@contextlib.contextmanager
def orphans_adopted() -> Iterator[None]:
    """On Linux, what our children leave behind becomes ours, so that we can reap it.

    Otherwise it goes to process 1, which in many containers reaps nothing. `run` does this by
    itself; who calls it in several threads at once does it around them all, since the process
    has only one such setting.
    """
    if sys.platform != "linux":
        yield
        return
    set_child_subreaper, get_child_subreaper, prctl = 36, 37, ctypes.CDLL(None).prctl
    before = ctypes.c_int()
    prctl(get_child_subreaper, ctypes.byref(before), 0, 0, 0)
    prctl(set_child_subreaper, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(set_child_subreaper, before.value, 0, 0, 0)


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """SIGTERM and SIGHUP end us through `finally`, as Ctrl-C does: `timeout` and CI send them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread set handlers.
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
