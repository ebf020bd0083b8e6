"""The parity matrix against the TFF that is here: a random tenth of its rows, recorded anew.

FEDBRIDGE_PARITY_SEED repeats a choice. The rows are recorded in a process of their own, because
the recorder's functions stand before TFF's there.
"""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedbridge.bridge import parity, trace
from fedbridge.bridge.rebuild import what_is_random

ROWS = parity.index()
SEED = os.environ.get("FEDBRIDGE_PARITY_SEED") or str(random.SystemRandom().randrange(10**6))
CHOSEN = random.Random(SEED).sample(list(ROWS), len(ROWS) // 10)
# TFF on another processor rounds otherwise, and a round amplifies that: as much as ten times the
# largest noise floor of the matrix, over the norm of a leaf (1e-5, in rounds with an adaptive
# optimizer or the ReLU CNN). On one machine the files are equal to the bit.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    log = folder / "log"
    with log.open("w") as output:
        code = subprocess.run(
            [sys.executable, Path(__file__).with_name("parity_cells.py"), folder, *CHOSEN],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    assert code == 0, f"seed {SEED}: {log.read_text()[-3000:]}"
    return folder


@pytest.mark.parametrize("name", CHOSEN)
def test_tff_does_again_what_was_recorded(again, name):
    old, new = ROWS[name], parity.index(again)[name]
    assert new == old, f"seed {SEED}"
    if "trace" not in old:
        return
    before, after = (trace.read(place / old["trace"]) for place in (parity.TRACES, again))
    assert after.features == before.features
    assert [_description(process) for process in after.processes] == [
        _description(process) for process in before.processes
    ]
    same = _same_but_for_draws if what_is_random(before) else _same
    for number, (call, its) in enumerate(zip(after.calls, before.calls, strict=True)):
        assert (call.num_clients, call.num_examples) == (its.num_clients, its.num_examples)
        same(after.call(number), before.call(number))
        same(after.state(call.state_after), before.state(its.state_after))


def _description(process):
    """Without times, and without the numbers by which Keras tells apart the layers of a process."""
    timeless = process._replace(seconds_build=None, seconds_initialize=None)
    return re.sub(r"('name': '[a-z][a-z0-9_]*?)_\d+'", r"\1'", repr(timeless))


def _same_but_for_draws(new, old):
    assert {path: (leaf.dtype, leaf.shape) for path, leaf in new.items()} == {
        path: (leaf.dtype, leaf.shape) for path, leaf in old.items()
    }


def _same(new, old):
    _same_but_for_draws(new, old)
    for path, leaf in old.items():
        if leaf.dtype.kind != "f":
            assert np.array_equal(new[path], leaf), path
            continue
        finite = np.isfinite(leaf)
        assert np.array_equal(np.isfinite(new[path]), finite), path
        norm = np.linalg.norm(leaf[finite].astype(float))
        apart = np.abs(new[path].astype(float) - leaf.astype(float))[finite]
        assert apart.max(initial=0.0) <= TOLERANCE * norm, path
