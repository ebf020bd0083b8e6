"""The parity matrix: recorded rounds of the real TFF, cell by cell, repeated here and judged.

A cell is an algorithm with an optimizer on one side, an aggregator, a model, and a case (what the
clients of a round are like). The rows of the matrix were recorded by compat_tests/parity_cells.py,
one trace each, which ship with the package; a row has a cell for every case among its rounds.
"""

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedbridge._version import __version__
from fedbridge.bridge import judge, trace
from fedbridge.bridge.distribution import drawn
from fedbridge.bridge.player import Player, split
from fedbridge.bridge.rebuild import what_is_random
from fedbridge.bridge.replay import replay
from fedbridge.bridge.result import EvaluationResult, RoundResult, strict
from fedbridge.jax_core import ArgumentError

TRACES = Path(__file__).with_name("parity_traces")
# Both samples are fixed, the seeds and TFF's recorded draws: this decides once, not in each run.
LEAST_P = 1e-4


class Cell(NamedTuple):
    """One cell of the matrix, judged over all its rounds; errors that it has not are None."""

    about: str
    """Why it is there: optimizers, aggregators, models, cases, pairs."""
    algorithm: str
    """E.g. "weighted FedAvg"."""
    optimizer: str
    """TFF's, on that side; the other side has SGD."""
    side: str
    """`client`, `server`, `both`, or - where the optimizer is not what the cell is about."""
    aggregator: str
    """`default` is the builder's own."""
    model: str
    """E.g. "softmax regression"."""
    case: str
    """What the clients are like: "ragged", "empty client", ..."""
    probe_error: float | None
    """After each client's first batch, over the norm of the update."""
    round_error: float | None
    """After the whole round; of an evaluation, the largest relative error of a metric."""
    noise_floor: float | None
    """How far fedbridge's own round moves when its weights move by one ulp."""
    counters_equal: bool
    """Whether every whole number among the metrics is TFF's."""
    passed: bool
    """Whether all of its rounds agree with TFF."""
    failure: str | None = None
    """One sentence about what does not agree, or None."""
    p_value: float | None = None
    """Where a part is random: of the test that both sides draw from one distribution."""
    server_step_error: float | None = None
    """Of an adaptive server optimizer alone, on the update that TFF's own was given."""


class Parity(NamedTuple):
    """The matrix, and what it cannot hold."""

    cells: tuple[Cell, ...]
    """The cells, in the order of the index."""
    excluded: tuple[dict[str, str], ...]
    """What is no cell: some of a cell's attributes, and `why`, TFF's own error among others."""


def index(folder: str | os.PathLike[str] = TRACES) -> dict[str, dict[str, Any]]:
    """The rows of the matrix by name: attributes, and the trace and cases or why there is none.

    Raises:
        TraceError: There is no index in the folder.
    """
    return _index(Path(folder))["rows"]


def parity(
    names: Iterable[str] | None = None,
    *,
    folder: str | os.PathLike[str] = TRACES,
    workers: int | None = None,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Parity:
    """Repeats the recorded rows of the matrix on the JAX core and judges every cell.

    Args:
        names: Which rows; None for all.
        folder: Where index and traces lie.
        workers: How many rows at a time, a thread each; None for one per processor. Most of the
            time is the compiler's.
        on_event: Receives `{"event": "row", "name", "cells"}` when a row is judged.

    Returns:
        The cells in the order of the index, and what is excluded.

    Raises:
        ArgumentError: There is no row of that name.
        TraceError: A trace is damaged or missing.
    """
    place = Path(folder)
    content = _index(place)
    rows = content["rows"]
    wanted = list(rows) if names is None else list(names)
    if odd := [name for name in wanted if name not in rows]:
        raise ArgumentError(f"the parity matrix has no row {odd[0]!r}; its rows are in {place}.")
    recorded = [name for name in wanted if "trace" in rows[name]]
    judged: dict[str, list[Cell]] = {}
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        jobs = {pool.submit(judge_row, rows[name], place): name for name in recorded}
        for job in as_completed(jobs):
            judged[jobs[job]] = job.result()
            on_event({"event": "row", "name": jobs[job], "cells": judged[jobs[job]]})
    excluded = [rows[name] for name in wanted if "trace" not in rows[name]]
    cells = tuple(cell for name in recorded for cell in judged[name])
    return Parity(cells, (*excluded, *content["not_recorded"]))


def judge_row(row: dict[str, Any], folder: Path) -> list[Cell]:
    """The cells of one row of the index, its trace replayed."""
    recorded = trace.read(folder / row["trace"])
    attributes = {key: row[key] for key in Cell._fields[:6]}
    start = start_failure(recorded)
    if what_is_random(recorded):
        return [_random(recorded, {**attributes, "case": row["cases"][0]}, start)]
    result = replay(recorded)
    judged = list(result.evaluations or result.rounds)
    cells = []
    for case in dict.fromkeys(row["cases"]):
        calls = [one for one, its in zip(judged, row["cases"], strict=True) if its == case]
        cells.append(Cell(**attributes, case=case, **_judged(calls, result.reason, start)))
    return cells


def start_failure(recorded: trace.Trace) -> str | None:
    """What of TFF's first state a process here does not start from; the model's weights apart."""
    player = Player(recorded)
    first: dict[int, int] = {}
    for call in recorded.calls:
        first.setdefault(call.process, call.state_before)
    for process, number in first.items():
        ours, theirs = player.initial(process), split(recorded.state(number))[1]
        for name in sorted(ours.keys() | theirs.keys()):
            if name not in ours or name not in theirs:
                return f"the first state: {name!r} is {'not in TFF' if name in ours else 'missing'}"
            # A default may be an exponential or a logarithm: two roundings.
            if not np.allclose(ours[name], theirs[name], rtol=2.4e-7, atol=0.0, equal_nan=True):
                return f"the first state: {name!r} is {ours[name]}, and TFF's is {theirs[name]}"
    return None


def to_json(result: Parity) -> dict[str, Any]:
    """The matrix as a tree that strict JSON can hold."""
    return {
        "cells": [strict(cell) for cell in result.cells],
        "passed": sum(cell.passed for cell in result.cells),
        "total": len(result.cells),
        "excluded": list(result.excluded),
        "versions": {"fedbridge": __version__, "jax": jax.__version__, "reference": "TFF 0.87.0"},
    }


def _random(recorded: trace.Trace, attributes: dict[str, Any], start: str | None) -> Cell:
    found = drawn(recorded)
    p = found.p_value
    unlikely = None if p > LEAST_P else f"p = {p:.1g}, below {LEAST_P:.0e}"
    failure = start or found.structure or found.counters or unlikely
    return Cell(
        **attributes,
        probe_error=None,
        round_error=None,
        noise_floor=None,
        counters_equal=found.counters is None,
        passed=failure is None,
        failure=failure,
        p_value=p,
    )


def _judged(
    calls: list[RoundResult | EvaluationResult], reason: str, start: str | None
) -> dict[str, Any]:
    failures = [start, *(one.failure or (None if one.passed else reason) for one in calls)]
    counters = [judge.counter_failure(one.metrics, one.metrics_reference) for one in calls]
    rounds = [one for one in calls if isinstance(one, RoundResult)]
    every = lambda name: (getattr(one, name) for one in rounds)
    largest = lambda name: max((one for one in every(name) if one is not None), default=None)
    errors = [judge.relative_error(one.metrics, one.metrics_reference) for one in calls]
    return {
        "probe_error": largest("probe_error"),
        "round_error": largest("round_error") if rounds else max(errors),
        "noise_floor": largest("noise_floor"),
        "counters_equal": not any(counters),
        "passed": not any(failures),
        "failure": next(filter(None, failures), None),
        "server_step_error": largest("server_step_error"),
    }


def _index(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise trace.TraceError(
            f"{folder}/index.json cannot be read ({error}); install fedbridge afresh, or record "
            "the matrix with `make traces`."
        ) from None
