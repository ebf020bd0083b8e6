"""The child of `fedbridge record`: runs one script under the real TFF, and watches it.

    python -m fedbridge.bridge.recorder --mode record --script S --out TRACE --events FILE -- ARGS

The script is run unmodified as `__main__`. Its learning processes are real ones whose `next` is
watched: `record` writes down every round (and runs the probes), `time` only looks at the clock.
What happens is told to the parent in a file of JSON lines; stdout belongs to the script and TFF.
"""

import argparse
import atexit
import hashlib
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge._version import __version__
from fedbridge.bridge import builders, era_layer, script as script_module, trace
from fedbridge.jax_core import FedbridgeError, TraceError


class RoundsDone(BaseException):
    """Ends the script when it asks for more than `--rounds`; no `except Exception` holds it."""


class Watch:
    """What both passes do: see every process that is built and every call of its `next`.

    Args:
        events: the file that takes one JSON line per event.
        rounds: how many training rounds the script gets; None for all it asks for.
    """

    def __init__(self, events: Path, rounds: int | None):
        self.events, self.rounds = events, rounds
        self.adapted: list[str] = []
        self.notes: list[str] = []
        self.not_replayable: str | None = None
        self.processes: list[trace.Process] = []
        self.counts: list[int] = []

    def tell(self, event: str, **details: Any) -> None:
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

    def built(self, process: Any, description: trace.Process) -> Any:
        """A process of the script: the same, with `initialize` and `next` watched."""
        number = len(self.processes)
        self.processes.append(description)
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


class Timing(Watch):
    """The second pass: the clock around what the script does, on its own data sets."""

    def __init__(self, events: Path, rounds: int | None):
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
        aside = out.with_name(out.name + ".partial")
        aside.write_text(json.dumps(result), encoding="utf-8")
        os.replace(aside, out)


class Recording(Watch):
    """The first pass: every round is written down.

    The batches come from TFF itself, through an identity computation on each data set: TFF
    restarts a seeded shuffle in every call and redraws an unseeded one, eager iteration does
    neither. The round then runs on these batches, so that what is recorded is what was computed.
    """

    def __init__(self, events: Path, rounds: int | None, out: Path):
        super().__init__(events, rounds)
        self.writer = trace.Writer(out)
        self.identities: dict[str, Callable[[Any], Any]] = {}

    def step(self, number: int, next_fn: Any, state: Any, data: Any) -> tuple[Any, float]:
        kind = self.processes[number].kind
        before = self.writer.state(leaves(state))
        clients, batches = data, None
        if not isinstance(data, list) or not all(map(_is_client, data)):
            self.refuse("the clients are not data sets of dense tensors, nor lists of batches.")
        else:
            clients = [self.drawn(client) for client in data]
            try:
                batches = self.writer.batches([list(map(rows, client)) for client in clients])
            except TraceError as error:
                self.refuse(f"the client data cannot be recorded: {error}.")
            if any(not client for client in clients) and "unweighted" in (
                self.processes[number].builder
            ):
                self.note(builders.EMPTY_CLIENT)
        started = time.perf_counter()
        output = next_fn(state, clients)
        seconds = time.perf_counter() - started
        probes = []
        if kind == "training" and batches and not self.not_replayable:
            probes = [next_fn(state, [client[:steps] for client in clients]) for steps in (1, 2)]
        self.writer.call(
            number,
            batches,
            num_clients=len(clients) if isinstance(clients, list) else 0,
            state_before=before,
            state_after=self.writer.state(leaves(output.state)),
            metrics=plain(output.metrics),
            probes=[leaves(probe.state.global_model_weights) for probe in probes],
            probe_metrics=[plain(probe.metrics) for probe in probes],
        )
        return output, seconds

    def drawn(self, client: Any) -> list[Any]:
        """One client's batches, as TFF draws them in this call; iterated exactly once."""
        import tensorflow as tf
        import tensorflow_federated as tff

        if isinstance(client, list):
            return client
        spec = client.element_spec
        if str(spec) not in self.identities:
            sequence = tff.types.SequenceType(tff.types.tensorflow_to_type(spec))
            self.identities[str(spec)] = tff.tensorflow.computation(lambda data: data, sequence)
        return [
            tf.nest.map_structure(lambda tensor: tensor.numpy(), batch)
            for batch in self.identities[str(spec)](client)
        ]

    def write(self, script: Path, arguments: Sequence[str]) -> None:
        self.writer.processes = self.processes
        self.writer.close(
            versions={
                name.replace("-", "_"): metadata.version(name)
                for name in ("tensorflow-federated", "tensorflow", "keras", "numpy")
            }
            | {"python": platform.python_version(), "fedbridge": __version__},
            script={
                "name": script.name,
                "arguments": list(arguments),
                "sha256": hashlib.sha256(script.read_bytes()).hexdigest(),
            },
            adapted=self.adapted,
            notes=self.notes,
            not_replayable=self.not_replayable,
        )


def _is_client(client: Any) -> bool:
    import tensorflow as tf

    if isinstance(client, tf.data.Dataset):
        return all(isinstance(spec, tf.TensorSpec) for spec in tf.nest.flatten(client.element_spec))
    return isinstance(client, list)


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
            if any(isinstance(value, tff.Value) for value in given) or not isinstance(
                tff.framework.get_context_stack().current, tff.framework.SyncContext
            ):
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


def leaves(tree: Any, path: str = "") -> dict[str, np.ndarray]:
    """A TFF structure as a flat dictionary from path to array; empty structures leave no trace."""
    children = _children(tree)
    if children is None:
        return {path: np.asarray(tree)}
    return {
        name: leaf
        for key, child in children
        for name, leaf in leaves(child, f"{path}/{key}" if path else str(key)).items()
    }


def plain(tree: Any) -> Any:
    """A TFF structure as JSON: dictionaries, lists and numbers; float32 keeps its value exactly."""
    children = _children(tree)
    if children is None:
        array = np.asarray(tree)
        return array.tolist() if array.dtype.kind in "biuf" else str(array)
    if isinstance(tree, list) or (isinstance(tree, tuple) and not hasattr(tree, "_fields")):
        return [plain(child) for _, child in children]
    return {str(key): plain(child) for key, child in children}


def _children(tree: Any) -> list[tuple[Any, Any]] | None:
    if hasattr(tree, "_fields"):
        return list(zip(tree._fields, tree, strict=True))
    if isinstance(tree, dict):
        return list(tree.items())
    if isinstance(tree, list | tuple):
        return list(enumerate(tree))
    if hasattr(type(tree), "__attrs_attrs__"):
        return [(field.name, getattr(tree, field.name)) for field in type(tree).__attrs_attrs__]
    return None


def rows(batch: Any) -> dict[str, np.ndarray]:
    """A batch by feature: (x, y) and {"x": …, "y": …} alike, nested features as "x/name"."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        batch = {"x": batch[0], "y": batch[1]}
    return leaves(batch)


def _loss(metrics: dict[str, Any]) -> float | None:
    work = metrics.get("client_work", {}) if isinstance(metrics, dict) else {}
    if not isinstance(work, dict):
        return None
    found = work.get("train") or work.get("eval", {}).get("current_round_metrics", {})
    loss = found.get("loss") if isinstance(found, dict) else None
    return loss if isinstance(loss, float) else None


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
    error: BaseException | None = None
    try:
        watch.tell("phase", name="importing TFF")
        builders.install(watch)
        era_layer.install(watch)
        watch.tell("phase", name="running the script")
        script_module.run(options.script, options.arguments)
    except RoundsDone:
        pass
    except SystemExit as exit_:
        error = exit_ if exit_.code not in (None, 0) else None
    except BaseException as raised:
        error = raised
    if error is None and not any(watch.counts):
        error = FedbridgeError(
            f"none of its rounds could be watched: {watch.not_replayable}"
            if watch.not_replayable
            else "it ran no round of a tff.learning process; fedbridge watches `next` of what "
            "the builders of tff.learning make (Federated Core not yet): check a script that "
            "calls it."
        )
    if error is not None:
        if isinstance(watch, Recording):
            watch.writer.discard()
        watch.tell("failed", **_failure(options.script, error))
        if isinstance(error, KeyboardInterrupt):
            return 130
        return 1
    watch.tell("phase", name="writing")
    if isinstance(watch, Recording):
        watch.write(options.script, options.arguments)
    elif isinstance(watch, Timing):
        watch.write(options.out)
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
