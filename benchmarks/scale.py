"""Stack Overflow at full size: a generated file is converted, and cohorts are read from it.

    python -m benchmarks.scale --folder DIR --json FILE

The steps are the commands that a user types, each in processes of its own, timed from start to end.
Memory is that of a command and all its processes together, looked at twenty times a second.
"""

import contextlib
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import psutil
import typer

import fedbridge as fb
from fedbridge.bridge.files import json_text, replace_text
from fedbridge.tff_io._example_proto import parse_example

_FULL = 135_818_730  # sentences of TFF's split train
_VOCABULARY, _ROUNDS, _COHORT, _CHECKED = 10_000, 30, 50, 200


def run(
    folder: Path, clients: int, sentences: int, processes: list[int], say: Any = print
) -> dict[str, Any]:
    """All figures.

    Args:
        folder: Where the data go; a file that is there from an earlier run is used again.
        clients: Of the split train.
        sentences: Of the split train.
        processes: With how many it is converted, one after another.
        say: Is told what is done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"clients": clients, "sentences": sentences}
    file = folder / "stackoverflow.sqlite"
    if not file.exists():
        made = _command(
            "generate", "stackoverflow", "--clients", clients, "--sentences", sentences,
            "--out", folder,
        )  # fmt: skip
        figures["generate"] = made
        say(f"generated: {made}")
    figures["file_mb"] = file.stat().st_size / 1e6
    out = folder / "train"
    words = list(fb.read_word_counts(folder / "stackoverflow.word_count"))[:_VOCABULARY]
    for number in processes:
        shutil.rmtree(out, ignore_errors=True)
        made = _command(
            "convert", file, "--split", "train", "--out", out, "--processes", number,
            "--preprocess", "stackoverflow_word_prediction", "--vocab-size", len(words),
        )  # fmt: skip
        rate = sentences / made["seconds"]
        made |= {"sentences_per_second": rate, "full_set_hours": _FULL / rate / 3600}
        figures[f"convert_{number}"] = made
        say(f"converted by {number}: {made}")
    figures["converted_mb"] = sum(f.stat().st_size for f in out.iterdir()) / 1e6
    figures["full_set_converted_mb"] = figures["converted_mb"] * _FULL / sentences
    figures["clients_compared"] = _compare(file, out, words)
    figures |= _cohorts(out)
    say(str(figures))
    return figures


def _command(*arguments: Any) -> dict[str, Any]:
    """Runs `fedbridge data ...`: seconds, peak memory of its processes, load before and after."""
    loads, start, peak = [os.getloadavg()[0]], time.perf_counter(), 0
    command = [sys.executable, "-c", "from fedbridge.cli import app; app()", "data"]
    with subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.DEVNULL) as child:
        watched = psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, _memory(watched))
            time.sleep(0.05)
    if child.returncode:
        raise SystemExit(f"fedbridge data {arguments[0]} ended with {child.returncode}")
    loads.append(os.getloadavg()[0])
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_memory_mb": peak / 1e6, "load": loads}


def _memory(watched: psutil.Process) -> int:
    total = 0
    try:
        for process in (watched, *watched.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def _compare(file: Path, out: Path, words: list[str]) -> int:
    """Some clients, read from the file record by record and by the book: their ids are the same."""
    converted = fb.from_converted(out)
    some = fb.samplers.uniform(min(_CHECKED, converted.num_clients), seed=0)(
        0, converted.client_ids
    )
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for client_id in some:
            rows = connection.execute(
                "SELECT serialized_example_proto FROM examples WHERE client_id = ? AND "
                "split_name = 'train' ORDER BY rowid",
                (client_id,),
            ).fetchall()
            texts = [parse_example(row[0])["tokens"][1][0] for row in rows]
            raw = fb.from_clients({client_id: {"tokens": texts}})
            expected = fb.preprocessing.stackoverflow_word_prediction(raw, words)
            for name, values in expected.client(client_id).items():
                np.testing.assert_array_equal(converted.client(client_id)[name], values)
    return len(some)


def _cohorts(out: Path) -> dict[str, Any]:
    """Milliseconds to open the set, and to plan and to place a cohort."""
    jax.block_until_ready(jax.numpy.zeros(1) + 1)
    start = time.perf_counter()
    data = fb.from_converted(out)
    figures = {"open_ms": 1e3 * (time.perf_counter() - start)}
    pipeline = fb.ClientSpec(1, 16, max_elements=512).pipeline("stackoverflow")
    sampler = fb.samplers.uniform(min(_COHORT, data.num_clients), seed=1)
    for name, cold in (("cohort", False), ("cold_cohort", True)):
        times = []
        moving = data.resident(False)  # every cohort reads the rows of its own clients
        for round in range(_ROUNDS):
            ids = sampler(round, data.client_ids)
            if cold:
                data = moving = None  # what is mapped is not forgotten
                _forget(out)
                data = fb.from_converted(out)
                moving = data.resident(False)
                moving.num_examples(ids[0])
            start = time.perf_counter()
            planned = moving.cohort(ids, pipeline, round=round)
            middle = time.perf_counter()
            placed = fb.sequential.place(planned)
            jax.block_until_ready((placed.features, placed.streams))
            end = time.perf_counter()
            times.append((1e3 * (middle - start), 1e3 * (end - middle), 1e3 * (end - start)))
        plan, place, both = zip(*times[1:], strict=True)
        figures |= {
            f"{name}_plan_ms": statistics.median(plan),
            f"{name}_place_ms": statistics.median(place),
            f"{name}_ms": statistics.median(both),
            f"{name}_most_ms": max(both),
        }
    return figures


def _forget(out: Path) -> None:
    """Has the operating system drop what it remembers of the files."""
    for file in out.glob("*.npy"):
        handle = os.open(file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main(
    folder: Annotated[Path, typer.Option(help="Where the data go, about 2.2 GB.")],
    clients: Annotated[int, typer.Option()] = 50_000,
    sentences: Annotated[int, typer.Option()] = 5_000_000,
    processes: Annotated[str, typer.Option(help="With how many to convert, e.g. 1,2.")] = "1,2",
    json: Annotated[Path | None, typer.Option(help="Save the figures.")] = None,
) -> None:
    """Generates, converts and reads; prints the figures."""
    figures = run(folder, clients, sentences, [int(n) for n in processes.split(",")])
    if json is not None:
        replace_text(json, json_text(figures))


if __name__ == "__main__":
    typer.run(main)
