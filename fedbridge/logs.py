"""The metrics of a run in files, and its curves.

    FOLDER/metrics.csv      a line for every round, a column for every number among the metrics
    FOLDER/metrics.jsonl    the same, an object for every round: for programs
    FOLDER/curves.svg, curves.png

Numbers are written as short as float32 allows; no times are written, so that two runs with the same
numbers leave the same bytes.
"""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedbridge.experiment import OnRound
from fedbridge.jax_core import StateError, check_path, named_leaves
from fedbridge.tff_io._files import write_whole

METRICS_FILES = _CSV, _JSONL = "metrics.csv", "metrics.jsonl"


def metrics_files(folder: str | os.PathLike[str], *, done: int = 0) -> OnRound:
    """Writes the metrics of every round to `metrics.csv` and `metrics.jsonl`.

    A line is there when the call returns. A metric that is new, as an evaluation after some rounds,
    is a new column, for which the table is written anew.

    Args:
        folder: Is made if it is not there.
        done: The rounds that are done, see `saved_round`; what the files hold beyond them was
            logged by a run that was killed before it saved its state, and is dropped. With 0 the
            files start anew.

    Raises:
        StateError: The folder cannot be written to, or its files have no line for a round that is
            done.

    Example:
        >>> tmp = getfixture("tmp_path")
        >>> log = metrics_files(tmp)
        >>> log(1, {"train": {"loss": np.float32(0.3)}})
        >>> log(2, {"train": {"loss": np.float32(0.2)}, "evaluation": {"accuracy": 0.5}})
        >>> print((tmp / "metrics.csv").read_text())
        round,train/loss,evaluation/accuracy
        1,0.3,
        2,0.2,0.5
        <BLANKLINE>
    """
    check_path("folder", folder)
    target = Path(folder)
    table, lines = target / _CSV, target / _JSONL
    kept = _first_lines(lines, done)
    rows = _parsed(lines, kept)
    write_whole(lines, lambda aside: aside.write_text("".join(kept), encoding="utf-8"))
    columns = _write_table(table, rows)

    def on_round(round: int, metrics: Any) -> None:
        nonlocal columns
        row = {"round": round, **_numbers(metrics)}
        _append(lines, json.dumps(row) + "\n")
        if set(row) <= set(columns):
            _append(table, _line([_text(row.get(column)) for column in columns]))
        else:
            columns = _write_table(table, read_metrics(target))

    return on_round


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rounds of a `metrics.jsonl`: "round" and the metrics by their paths.

    Raises:
        StateError: There is none, or it is damaged.
    """
    path = Path(folder) / _JSONL
    try:
        return _parsed(path, _lines(path))
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}; name the folder of a run.") from None


def save_curves(folder: str | os.PathLike[str]) -> list[Path]:
    """Draws the losses and accuracies of a run, from its metrics; needs matplotlib.

    Args:
        folder: Of a run; gets `curves.svg` and `curves.png`.

    Returns:
        The two files; none where there is nothing to draw.

    Raises:
        ImportError: matplotlib is not installed.
        StateError: There are no metrics, or the folder cannot be written to.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = read_metrics(folder)
    names = {name.rpartition("/")[2]: None for row in rows for name in row if name != "round"}
    panels = [name for name in names if name == "loss" or "accuracy" in name or "error" in name]
    panels += [name for name in names if name in ("precision", "recall_at_5")]
    if not panels:
        return []
    figure = Figure(figsize=(5.2 * len(panels), 3.4), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in {name: None for row in rows for name in row}:
            if name.rpartition("/")[2] == panel:
                points = [(row["round"], row[name]) for row in rows if row.get(name) is not None]
                label = "evaluation" if name.startswith("evaluation/") else "training"
                axes.plot(*zip(*points, strict=True), label=label, lw=1.4)
        axes.set_xlabel("round")
        axes.set_title(panel.replace("_", " "))
        axes.grid(lw=0.4)
        axes.legend(frameon=False)
    paths = []
    with rc_context({"svg.hashsalt": "fedbridge"}):
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            path = Path(folder) / f"curves.{kind}"
            write_whole(path, lambda f, m=metadata: figure.savefig(f, metadata=m, dpi=120))
            paths.append(path)
    return paths


def _numbers(metrics: Any) -> dict[str, Any]:
    """The scalars of a tree by their paths, as Python's numbers; those that are none are None."""
    arrays = {name: np.asarray(leaf) for name, leaf in named_leaves(metrics).items()}
    return {name: _number(array) for name, array in arrays.items() if array.size == 1}


def _number(array: np.ndarray) -> float | int | bool | None:
    value = array.reshape(())[()]
    if not isinstance(value, np.floating):
        return value.item()
    return float(str(value)) if math.isfinite(value) else None


def _text(value: Any) -> str:
    return "" if value is None else repr(value)


def _line(cells: Sequence[str]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(cells)
    return written.getvalue()


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Writes the whole table; its columns."""
    columns = list(dict.fromkeys(["round", *(name for row in rows for name in row)]))
    text = [_line(columns), *(_line([_text(row.get(c)) for c in columns]) for row in rows)]
    write_whole(path, lambda aside: aside.write_text("".join(text), encoding="utf-8"))
    return columns


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(line)
    except OSError as error:
        raise StateError(
            f"{path}: it cannot be written ({error.strerror}); make room, and resume the run."
        ) from None


def _lines(path: Path) -> list[str]:
    """What is no text has no good line, which `_parsed` says."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)


def _parsed(path: Path, lines: Sequence[str]) -> list[dict[str, Any]]:
    try:
        return [dict(json.loads(line)) for line in lines]
    except (ValueError, TypeError):
        raise StateError(f"{path}: it is damaged; run the rounds again.") from None


def _first_lines(path: Path, count: int) -> list[str]:
    if not count:
        return []
    found = _lines(path) if path.exists() else []
    if len(found) < count:
        raise StateError(
            f"{path}: it has {len(found)} rounds, and {count} are done; name the folder of the run "
            "whose checkpoint this is, or start anew."
        )
    return found[:count]
