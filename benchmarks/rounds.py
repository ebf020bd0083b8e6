"""Times a round of fedbridge beside the same round of its peers, in turns.

    python -m benchmarks.rounds --tasks emnist_cnn,cohort --peers tff,fedjax --json FILE

All peers of a task run in one go: the same cohorts, one turn of this peer, one turn of that, while
the others wait. A ratio is taken turn by turn, so that both sides of it saw the same machine.
"""

import contextlib
import json as json_module
import os
import platform
import re
import signal
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import data, script
from benchmarks.peers import PEERS, AbsentError, Worker
from benchmarks.tables import tables
from fedbridge.bridge import child

Say = Callable[[str], None]
_OURS = "fedbridge"


def run(
    tasks: Mapping[str, data.Task],
    peers: Sequence[str],
    *,
    scripts: Sequence[str] = (),
    turns: int = 5,
    choose: bool,
    say: Say,
) -> dict:
    """Runs the tasks, one after the other.

    Args:
        tasks: Name to task.
        peers: Whom to time fedbridge against.
        scripts: Names of `script.SCRIPTS`.
        turns: How often these run; a task of rounds says so itself.
        choose: Whether to look first which setting of a peer is its better one; otherwise its
            usual setting is taken.
        say: Gets a line on what is happening.

    Returns:
        `{"tasks": {name: {peer: figures}}, "machine": {...}}`; a peer that cannot run has
        `{"absent": reason}` for its figures.
    """
    machine: dict[str, Any] = _machine()
    with child.orphans_adopted():
        figures = {n: _task(n, task, peers, machine, choose, say) for n, task in tasks.items()}
        figures |= script.run(scripts, peers, turns=turns, say=say)
    return {"tasks": figures, "machine": machine}


def _task(
    name: str,
    task: data.Task,
    peers: Sequence[str],
    machine: dict[str, Any],
    choose: bool,
    say: Say,
) -> dict[str, dict[str, Any]]:
    absent: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    settings: dict[str, str] = {}
    firsts: dict[str, float] = {}
    turns: dict[str, list[float]] = {}
    ends: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:

        def for_each(do: Callable[[str, Worker], None]) -> None:
            """One peer after the other; who cannot go on leaves."""
            for peer, worker in list(workers.items()):
                try:
                    do(peer, worker)
                except AbsentError as error:
                    absent[peer] = str(error)
                    del workers[peer]

        def tell_open(peer: str, worker: Worker) -> None:
            worker.tell("open", task=task._asdict(), setting=settings[peer])

        def opened(peer: str, worker: Worker) -> None:
            machine["versions"][peer] = worker.answer()["versions"]

        def product(peer: str, worker: Worker) -> None:
            if peer == _OURS:
                rate = worker.ask("matrix_product")["gflops"]
                machine["matrix_product_gflops"] = max(rate, machine["matrix_product_gflops"])

        def first(peer: str, worker: Worker) -> None:
            say(f"{name}: first round of {peer}")
            firsts[peer] = worker.ask("first")["seconds"]
            turns[peer] = []

        def turn(number: int) -> Callable[[str, Worker], None]:
            def run(peer: str, worker: Worker) -> None:
                say(f"{name}: turn {number + 1} of {task.turns}, {peer}")
                start = 2 + number * task.rounds
                turns[peer].append(worker.ask("turn", first=start, count=task.rounds)["seconds"])

            return run

        def end(peer: str, worker: Worker) -> None:
            say(f"{name}: evaluation by {peer}")
            ends[peer] = worker.ask("end")

        for peer in (_OURS, *peers):
            try:
                settings[peer] = PEERS[peer].settings[0]
                if choose:
                    settings[peer] = _better(peer, name, task, say)
                workers[peer] = stack.enter_context(Worker(peer))
            except AbsentError as error:
                absent[peer] = str(error)
        say(f"{name}: {', '.join(workers)} start")
        for_each(tell_open)  # all at once: nothing is timed yet
        for_each(opened)
        for_each(product)
        for_each(first)
        for number in range(task.turns):
            for_each(turn(number))
        for_each(end)
    found: dict[str, dict[str, Any]] = {}
    for peer in (_OURS, *peers):
        if peer in absent:
            found[peer] = {"absent": absent[peer]}
            continue
        rate = machine["matrix_product_gflops"]
        found[peer] = _figures(task, firsts[peer], turns[peer], ends[peer], rate)
        found[peer]["setting"] = settings[peer]
        if peer != _OURS and _OURS not in absent:
            found[peer] |= _ratios(turns[_OURS], turns[peer])
    return found


def _better(peer: str, name: str, task: data.Task, say: Say) -> str:
    """The setting with the shorter turn, each in a process of its own."""
    settings = PEERS[peer].settings
    if len(settings) == 1:
        return settings[0]
    seconds: dict[str, float] = {}
    for setting in settings:
        say(f"{name}: {peer} with {setting}")
        try:
            with Worker(peer) as worker:
                worker.ask("open", task=task._asdict(), setting=setting)
                worker.ask("first")
                turns = [worker.ask("turn", first=first, count=task.rounds) for first in (2, 2)]
                seconds[setting] = min(turn["seconds"] for turn in turns)
        except AbsentError:
            continue  # if none of them works, the usual one says why
    return min(seconds, key=lambda setting: seconds[setting], default=settings[0])


def _figures(
    task: data.Task, first: float, turns: list[float], end: dict[str, Any], gflops: float
) -> dict[str, Any]:
    """What is reported of a peer that went through all turns."""
    rounds = [seconds / task.rounds for seconds in turns]
    examples = [
        sum(data.num_examples(task, 2 + turn * task.rounds + i) for i in range(task.rounds))
        for turn in range(task.turns)
    ]
    rate = statistics.median(n / seconds for n, seconds in zip(examples, turns, strict=True))
    figures = {
        "round_seconds": statistics.median(rounds),
        "round_seconds_min": min(rounds),
        "round_seconds_max": max(rounds),
        "examples_per_second": rate,
        "first_round_seconds": first,
        "compile_seconds": max(0.0, first - statistics.median(rounds)),
        **end,
    }
    if gflops:
        figures["fraction_of_matrix_product"] = rate * task.flops / (gflops * 1e9)
    return figures


def _ratios(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """The peer's time over fedbridge's, turn by turn: both had the same examples in it."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def _machine() -> dict[str, Any]:
    processor = platform.processor()
    with contextlib.suppress(OSError):
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        processor = names[0] if names else processor
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": processor or platform.machine(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {},
        "matrix_product_gflops": 0.0,
    }


# ------------------------------------------------------------------------------- command line


def _names(text: str, known: Sequence[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(
            f"there is no {unknown[0]!r}; choose among {', '.join(known)}.", param_hint=option
        )
    return names


def _progress(line: str) -> None:
    """One line that changes on a terminal; in a file, a line each."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
    else:
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(
    tasks: Annotated[str, typer.Option(help="Names with commas between them.")] = (
        "emnist_cnn,emnist_mlp,emnist_lr,stackoverflow_lstm,cohort,script,script_numpy"
    ),
    peers: Annotated[str, typer.Option(help="tff, fedjax, both, or '' for none.")] = "tff,fedjax",
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Save the figures as JSON.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small tasks, the peers' usual settings.")
    ] = False,
) -> None:
    """Time rounds of fedbridge beside the same rounds of TFF and FedJAX, in turns."""
    names = _names(tasks, [*data.TASKS, "cohort", *script.SCRIPTS], "--tasks")
    cohorts = data.COHORTS[:-1] if quick else data.COHORTS
    names = [n for name in names for n in (cohorts if name == "cohort" else (name,))]
    if not names:
        raise typer.BadParameter("name at least one task.", param_hint="--tasks")
    rivals = _names(peers, [peer for peer in PEERS if peer != _OURS], "--peers")
    if json is not None and not json.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {json.parent}.", param_hint="--json")
    whole = [n for n in names if n in script.SCRIPTS]
    in_turns = [n for n in names if n not in whole]
    chosen = {n: data.quick(data.TASKS[n]) if quick else data.TASKS[n] for n in in_turns}
    turns = 1 if quick else 5
    result: dict[str, Any] = run(
        chosen, rivals, scripts=whole, turns=turns, choose=not quick, say=_progress
    )
    if sys.stderr.isatty():
        _progress("")
    result["machine"]["quick"] = quick
    if json is not None:
        json.write_text(json_module.dumps(result, indent=2) + "\n")
    print(tables(result))


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    # So that the workers are ended too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    typer.run(main)
