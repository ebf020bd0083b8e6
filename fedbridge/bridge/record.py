"""`fedbridge record`: a TFF script is run twice in the reference environment, a trace comes out.

The first pass records (`recorder --mode record`), the second only looks at the clock
(`--mode time`), so that the times are TFF's own, on the script's own data sets. Everything is
written aside, in one folder beside the trace, and moved into place at the end.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fedbridge.bridge import (
    reference as reference_environment,
    script as script_module,
    trace,
    trace_writer,
)
from fedbridge.jax_core import FedbridgeError, ScriptError

OnEvent = Callable[[dict[str, Any]], None]


def record(
    script: str | os.PathLike[str],
    arguments: Sequence[str],
    out: str | os.PathLike[str],
    *,
    rounds: int | None = None,
    on_event: OnEvent = lambda event: None,
    reference: str | os.PathLike[str] | None = None,
) -> Path:
    """Runs a script under the real TFF and records what is needed to repeat it.

    Args:
        script: An ordinary TFF script or notebook; it is not changed.
        arguments: Its command line.
        out: Where the trace will lie; nothing must be there yet.
        rounds: Stop the script after so many training rounds; None for all of them.
        on_event: Gets `{"event": "phase", "name"}`, `{"event": "round", "process", "kind",
            "round", "loss", "seconds"}` (in both passes), `{"event": "adapted" | "note", "line"}`
            and `{"event": "not_replayable", "reason"}` as they happen.
        reference: The reference environment's folder; None for the usual one.

    Returns:
        `out`.

    Raises:
        ScriptError: There is no such script, it fails under TFF, or it trains nothing.
        ReferenceEnvironmentError: There is no environment in which TFF runs.
        FedbridgeError: `out` exists, or cannot be written.
    """
    script_module.pieces(script)
    target = Path(out)
    if rounds is not None and rounds < 1:
        raise FedbridgeError(f"{script}: {rounds} rounds cannot be recorded; ask for 1 or more.")
    if target.exists():
        raise FedbridgeError(f"'{target}' exists already; name another folder or remove it first.")
    reference_environment.python(reference)
    with _scratch_beside(target) as scratch:
        aside = scratch / "trace"
        child = _Child(Path(script), arguments, rounds, on_event, reference, scratch)
        on_event({"event": "phase", "name": "recording under TFF"})
        child.run("record", aside)
        on_event({"event": "phase", "name": "timing TFF, without the recorder"})
        try:
            child.run("time", scratch / "times.json")
            times = json.loads((scratch / "times.json").read_text(encoding="utf-8"))
        except ScriptError as error:
            # For example a script that finds its own checkpoints and has nothing left to do.
            times = {"failed": str(error)}
        manifest = _merged(trace.read_manifest(aside), times)
        if (timed := scratch / trace.COMPUTATIONS_TIMED).exists():
            os.rename(timed, aside / timed.name)
            manifest["files"][timed.name] = trace.digest(aside / timed.name)
        trace_writer.write_manifest(aside, manifest)
        os.rename(aside, target)
    return target


class _Child:
    """Runs the recorder in the reference environment and passes its events on."""

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str],
        rounds: int | None,
        on_event: OnEvent,
        reference: str | os.PathLike[str] | None,
        scratch: Path,
    ):
        self.script, self.arguments, self.rounds = script, arguments, rounds
        self.on_event, self.reference, self.scratch = on_event, reference, scratch

    def run(self, mode: str, out: Path) -> None:
        events, log = self.scratch / f"{mode}.jsonl", self.scratch / f"{mode}.log"
        events.touch()
        limit = [] if self.rounds is None else ["--rounds", str(self.rounds)]
        failures: list[dict[str, Any]] = []
        with events.open(encoding="utf-8") as stream:
            lines = _whole_lines(stream)

            def poll() -> None:
                for line in lines():
                    event = json.loads(line)
                    if event["event"] == "failed":
                        failures.append(event)
                    elif mode == "record" or event["event"] in ("phase", "round"):
                        self.on_event(event)

            code = reference_environment.run_child(
                "fedbridge.bridge.recorder",
                ["--mode", mode, "--script", str(self.script), "--out", str(out),
                 "--events", str(events), *limit, "--", *self.arguments],
                path=self.reference,
                log=log,
                poll=poll,
            )  # fmt: skip
        if failures:
            failed = failures[-1]
            where = f", {failed['line']}" if failed["line"] else ""
            if failed.get("refused"):
                raise ScriptError(f"{self.script}{where}: {failed['error']}")
            raise ScriptError(
                f"{self.script}{where}: fails under TFF 0.87.0: {failed['error'].rstrip('.')}; "
                "mend the script and run the same command again."
            )
        if code != 0:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise ScriptError(
                f"{self.script}: the reference process ended with code {code}"
                f"{': ' + last[0][:300] if last else ''}; `fedbridge reference doctor` says "
                "whether the environment is sound."
            )


def _whole_lines(stream: Any) -> Callable[[], Iterator[str]]:
    """Yields each line once it is complete; the writer may be in the middle of one."""
    rest = ""

    def lines() -> Iterator[str]:
        nonlocal rest
        *complete, rest = (rest + stream.read()).split("\n")
        yield from complete

    return lines


def _merged(manifest: dict[str, Any], times: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the second pass's times, where that pass ran the same rounds."""
    calls = times.get("calls", [])
    same = [call["process"] for call in manifest["calls"]] == [call["process"] for call in calls]
    if not same:
        reason = times.get("failed", "it ran other rounds than the first")
        line = f"there are no times: the second pass did not repeat the first ({reason})"
        return {**manifest, "notes": [*manifest["notes"], line]}
    return {
        **manifest,
        "processes": [
            {**process, **timed}
            for process, timed in zip(manifest["processes"], times["processes"], strict=True)
        ],
        "calls": [
            {**call, "seconds": timed["seconds"], "metrics_timed": timed["metrics"]}
            for call, timed in zip(manifest["calls"], calls, strict=True)
        ],
    }


@contextlib.contextmanager
def _scratch_beside(target: Path) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise FedbridgeError(
            f"{target}: cannot be written ({error.strerror}); name another place."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
