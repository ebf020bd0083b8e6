"""Pieces of work shared by several processes, each started anew: no fork beside jax's threads.

A worker is told the number of a piece on its standard input and answers with a line when that is
done. It ends when its input does, so also when the process that started it was killed.
"""

import concurrent.futures
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fedbridge.jax_core import ClientDataError

_START = "import sys; from fedbridge.tff_io import _convert; _convert.serve(sys.argv[1])"


def in_processes(folder: Path, pieces: Sequence[int], processes: int) -> Iterator[int]:
    """Has the pieces of a conversion done, and yields each number when it is.

    Raises:
        ClientDataError: What a worker says is wrong with the data.
        ChildProcessError: A worker ended before its piece was done.
    """
    idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()

    def ask(number: int) -> int:
        worker = idle.get()
        try:
            answer = _ask(worker, number)
        finally:
            idle.put(worker)
        if "error" in answer:
            raise ClientDataError(answer["error"])
        if "errno" in answer:
            raise OSError(answer["errno"], answer["strerror"])
        return number

    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            idle.put(stack.enter_context(_started(folder)))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(processes))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for done in concurrent.futures.as_completed([pool.submit(ask, i) for i in pieces]):
            yield done.result()


def answer_pieces(convert: Callable[[int], None]) -> None:
    """What a worker does: the pieces it is told, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it decides
    for line in sys.stdin:
        try:
            convert(int(line))
            answer = {}
        except ClientDataError as error:
            answer = {"error": str(error)}
        except OSError as error:
            answer = {"errno": error.errno, "strerror": error.strerror}
        print(json.dumps(answer), flush=True)  # noqa: T201 -- the answer


@contextlib.contextmanager
def _started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    with subprocess.Popen(
        [sys.executable, "-c", _START, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"},
    ) as worker:
        try:
            yield worker
        finally:
            worker.kill()
            with contextlib.suppress(BrokenPipeError):  # what it was told and did not read
                worker.communicate()


def _ask(worker: subprocess.Popen[str], number: int) -> dict:
    assert worker.stdin is not None
    assert worker.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write(f"{number}\n")
        worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise ChildProcessError(
            f"a process of the conversion ended by itself (exit code {worker.wait()})"
        )
    return json.loads(line)


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C came, also while Python ran what cannot raise: a callback of its collector."""
    usual, came = signal.getsignal(signal.SIGINT), []
    if (
        usual is not signal.default_int_handler
        or threading.current_thread() is not threading.main_thread()
    ):
        yield lambda: False
        return

    def heard(number: int, frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, heard)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, usual)
