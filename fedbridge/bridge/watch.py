"""What watches a script under TFF: every process that is built and every call of its `next`.

TFF is patched once; the functions that stand before it speak to a `Current`, behind which the
watch of one recording follows that of another.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedbridge.bridge import trace, trace_writer
from fedbridge.bridge.computations import Returned, packed
from fedbridge.bridge.structures import plain


class RoundsDone(BaseException):
    """Ends the script when it asks for more than `--rounds`; no `except Exception` holds it."""


class Watch:
    """What both passes do.

    Args:
        events: the file that takes one JSON line per event; None for nobody who reads them.
        rounds: how many training rounds the script gets; None for all it asks for.
    """

    def __init__(self, events: Path | None, rounds: int | None):
        self.events, self.rounds = events, rounds
        self.adapted: list[str] = []
        self.notes: list[str] = []
        self.not_replayable: str | None = None
        self.processes: list[trace.Process] = []
        self.server_optimizers: list[Any] = []
        self.counts: list[int] = []
        self.computations: list[Returned] = []

    def tell(self, event: str, **details: Any) -> None:
        if self.events is not None:
            with self.events.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"event": event, **details}) + "\n")

    def adapt(self, line: str) -> None:
        if line not in self.adapted:
            self.adapted.append(line)
            self.tell("adapted", line=line)

    def note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
            self.tell("note", line=line)

    def refuse(self, reason: str) -> None:
        """The trace cannot be replayed; the first reason stays."""
        if self.not_replayable is None:
            self.not_replayable = reason
            self.tell("not_replayable", reason=reason)

    def keep(self, leaves: dict[str, Any]) -> int | None:
        """Arrays that belong to a process, for the trace; their number there."""
        return None

    def built(self, process: Any, description: trace.Process, server_optimizer: Any = None) -> Any:
        """A process of the script: the same, with `initialize` and `next` watched.

        Args:
            process: what TFF's builder returned.
            description: what it was made of.
            server_optimizer: the object behind the description's, where there is one.
        """
        number = len(self.processes)
        self.processes.append(description)
        self.server_optimizers.append(server_optimizer)
        self.counts.append(0)
        return _watched(process, self, number)

    def initialized(self, number: int, initialize: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        state = initialize()
        process = self.processes[number]
        if process.seconds_initialize is None:
            self.processes[number] = process._replace(
                seconds_initialize=time.perf_counter() - started
            )
        return state

    def called(self, number: int, next_fn: Callable[..., Any], state: Any, data: Any) -> Any:
        """One call of `next`."""
        kind = self.processes[number].kind
        if kind == "training":
            trained = sum(
                count
                for count, process in zip(self.counts, self.processes, strict=True)
                if process.kind == kind
            )
            if self.rounds is not None and trained >= self.rounds:
                raise RoundsDone
        output, seconds = self.step(number, next_fn, state, data)
        self.counts[number] += 1
        self.tell(
            "round",
            process=number,
            kind=kind,
            round=self.counts[number],
            loss=_loss(plain(output.metrics)),
            seconds=seconds,
        )
        return output

    def step(self, number: int, next_fn: Any, state: Any, data: Any) -> tuple[Any, float]:
        raise NotImplementedError


class Current:
    """The watch of the recording that runs now, for the functions that stand before TFF."""

    def __init__(self, watch: Watch | None = None):
        self.watch = watch

    def __getattr__(self, name: str) -> Any:
        if self.watch is None:
            raise RuntimeError("no recording runs: TFF's builders are watched in one only")
        return getattr(self.watch, name)


class Timing(Watch):
    """The second pass: the clock around what the script does, on its own data sets."""

    def __init__(self, events: Path | None, rounds: int | None):
        super().__init__(events, rounds)
        self.calls: list[dict[str, Any]] = []

    def step(self, number: int, next_fn: Any, state: Any, data: Any) -> tuple[Any, float]:
        started = time.perf_counter()
        output = next_fn(state, data)
        seconds = time.perf_counter() - started
        self.calls.append({"process": number, "seconds": seconds, "metrics": plain(output.metrics)})
        return output, seconds

    def write(self, out: Path) -> None:
        result = {
            "processes": [
                {
                    "seconds_build": process.seconds_build,
                    "seconds_initialize": process.seconds_initialize,
                }
                for process in self.processes
            ],
            "calls": self.calls,
        }
        if self.computations:
            trace_writer.save(out.with_name(trace.COMPUTATIONS_TIMED), packed(self.computations))
        aside = out.with_name(out.name + ".partial")
        aside.write_text(json.dumps(result), encoding="utf-8")
        os.replace(aside, out)


def executes() -> bool:
    """Whether TFF executes what is called now: it is in no computation's body, and not awaited."""
    import tensorflow_federated as tff

    framework = tff.framework
    executing = framework.SyncExecutionContext, framework.MergeableCompExecutionContext
    return isinstance(framework.get_context_stack().current, executing)


def _watched(process: Any, watch: Watch, number: int) -> Any:
    """`process` as a `LearningProcess` whose `initialize` and `next` go through `watch`.

    Both stay real TFF computations: inside another computation they are traced as ever.
    """
    import tensorflow_federated as tff

    class Watched(tff.framework.ConcreteComputation):
        def __init__(self, original: Any, call: Callable[..., Any]):
            self.__dict__.update(original.__dict__)
            self._original, self._call = original, call

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            given = [*args, *kwargs.values()]
            if not executes():
                watch.refuse(
                    "the process is called inside another computation or an asynchronous "
                    "context, where its rounds cannot be watched."
                )
                return self._original(*args, **kwargs)
            return self._call(self._original, *given)

        __hash__ = tff.framework.ConcreteComputation.__hash__

    class WatchedProcess(type(process)):
        initialize = property(lambda self: first)
        next = property(lambda self: following)

    first = Watched(process.initialize, lambda original: watch.initialized(number, original))
    following = Watched(process.next, lambda original, *args: watch.called(number, original, *args))
    process.__class__ = WatchedProcess
    return process


def _loss(metrics: dict[str, Any]) -> float | None:
    work = metrics.get("client_work", {}) if isinstance(metrics, dict) else {}
    if not isinstance(work, dict):
        return None
    found = work.get("train") or work.get("eval", {}).get("current_round_metrics", {})
    loss = found.get("loss") if isinstance(found, dict) else None
    return loss if isinstance(loss, float) else None
