"""Whole scripts, `scripts/*.py`: each under TFF and on fedbridge, in turns.

Processes of their own, started as a user starts them, on ten clients of a generated EMNIST file.
"""

import functools
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers import PEERS, ROOT, AbsentError
from fedbridge.bridge import child
from fedbridge.tff_io import generate_emnist

_FEDBRIDGE_RUN = ("-m", "fedbridge", "run")
_OURS = "fedbridge"
_FOLDER = ROOT / "benchmarks" / "scripts"
_MARKS = re.compile(r"^(imported|done|loss) (\S+)$", re.MULTILINE)


def _environment(name: str) -> Path:
    folder = Path(os.environ.get(f"FEDBRIDGE_{name.upper()}") or ROOT / f".{name}")
    if not (folder / "bin" / "python").exists():
        raise AbsentError(f"there is no environment in {folder.name}: `make {name}`")
    return folder / "bin" / "python"


class Script(NamedTuple):
    """A script and where fedbridge runs it.

    Attributes:
        file: Its name in `scripts/`.
        interpreter: Finds the Python with fedbridge and what the script needs besides.
        ratio: The figure whose ratio is the task's: "seconds", from the end of the imports to the
            end of round 10, or "process_seconds".
    """

    file: str
    interpreter: Callable[[], Path]
    ratio: str


SCRIPTS = {
    "script": Script("softmax.py", functools.partial(_environment, "tensorflow"), "seconds"),
    "script_numpy": Script(
        "softmax_numpy.py", functools.partial(_environment, "keras"), "process_seconds"
    ),
}
_SECONDS = "seconds", "process_seconds"
_TFF = "softmax.py"
"""What TFF runs beside each of them, once a turn."""


def run(
    names: Sequence[str], peers: Sequence[str], *, turns: int, say: Callable[[str], None]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Times some of `SCRIPTS`: each once cold, then all in turns, with fedbridge's programs kept.

    Returns:
        Name to peer to figures.
    """
    commands: dict[str, list[str]] = {}
    absent = {peer: "it runs no TFF scripts" for peer in peers if peer != "tff"}
    starts = {n: (SCRIPTS[n].interpreter, [*_FEDBRIDGE_RUN, SCRIPTS[n].file]) for n in names}
    starts |= {"tff": (PEERS["tff"].interpreter, [_TFF])} if "tff" in peers and names else {}
    for who, (find, (*options, file)) in starts.items():
        try:
            commands[who] = [str(find()), *options, str(_FOLDER / file)]
        except AbsentError as error:
            absent[who] = str(error)
    runs: dict[str, list[dict[str, float]]] = {who: [] for who in commands}
    with tempfile.TemporaryDirectory(prefix="fedbridge-") as folder:
        if commands:
            generate_emnist(20, Path(folder, "data"))
        for turn in range(-1, turns):
            # TFF keeps no programs: its first run is like the others.
            left = [who for who in commands if who not in absent]
            for who in left if turn >= 0 else [who for who in left if who in names]:
                say(f"{who}: {'first run' if turn < 0 else f'turn {turn + 1} of {turns}'}")
                try:
                    runs[who].append(_once(commands[who], Path(folder)))
                except AbsentError as error:
                    absent[who] = str(error)
    figures = {
        who: {"absent": absent[who]} if who in absent else _medians(runs[who][-turns:])
        for who in [*starts, *absent]
    }
    for name in names:
        if name not in absent:
            figures[name] |= {f"cold_{key}": runs[name][0][key] for key in _SECONDS}
    return {name: _beside(name, peers, figures, runs) for name in names}


def _beside(
    name: str,
    peers: Sequence[str],
    figures: Mapping[str, dict[str, Any]],
    runs: Mapping[str, Sequence[Mapping[str, float]]],
) -> dict[str, dict[str, Any]]:
    """A script's figures under fedbridge, those of the peers, and the ratios of both."""
    found = {_OURS: figures[name], **{peer: dict(figures[peer]) for peer in peers}}
    for peer in peers:
        if "absent" not in found[_OURS] and "absent" not in found[peer]:
            found[peer] |= _ratios(runs[name][1:], runs[peer], SCRIPTS[name].ratio)
    return found


def _once(command: Sequence[str], folder: Path) -> dict[str, float]:
    """Runs it in the folder where the data are, and the programs that fedbridge keeps."""
    log = folder / "log"
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    env |= {"PYTHONPATH": path, "FEDBRIDGE_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    code = child.run(command, log=log, env=env, cwd=folder)
    seconds = time.perf_counter() - start
    said = log.read_text(errors="replace")
    marks = {word: float(value) for word, value in _MARKS.findall(said)}
    if code or "done" not in marks:
        raise AbsentError(f"the script failed: {(said.strip().splitlines() or ['silently'])[-1]}")
    return {
        "seconds": marks["done"] - marks["imported"],
        "process_seconds": seconds,
        "loss": marks["loss"],
    }


def _medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def _ratios(
    ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], which: str
) -> dict[str, float]:
    """TFF's time over fedbridge's, turn by turn."""

    def ratios(key: str) -> list[float]:
        return [their[key] / our[key] for our, their in zip(ours, theirs, strict=True)]

    return {
        "ratio": statistics.median(ratios(which)),
        "ratio_min": min(ratios(which)),
        "ratio_max": max(ratios(which)),
        "process_ratio": statistics.median(ratios("process_seconds")),
    }
