"""Two processes with two devices each: the same rounds, and a prompt end when one of them dies."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from on_two_processes import ROUNDS, federation

import fedbridge as fb

HERE = Path(__file__).parent


@contextlib.contextmanager
def two_processes(folder, *, second_dies_in=0):
    """Both at work; their output is in `log0` and `log1` of the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    processes = []
    try:
        for i, dies_in in enumerate([0, second_dies_in]):
            arguments = map(str, [HERE / "on_two_processes.py", coordinator, i, folder, dies_in])
            with (folder / f"log{i}").open("w") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, *arguments], env=environment, stdout=log, stderr=log
                    )
                )
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def assert_same_round(expected, found, start):
    """Within 1e-6 of the update's norm and 2 ulp."""
    trees = (expected.global_model_weights, found.global_model_weights, start.global_model_weights)
    leaves = list(zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in trees), strict=True))
    norm = np.sqrt(sum(np.sum((a - old) ** 2) for a, _, old in leaves))
    assert norm > 0
    for a, b, _ in leaves:
        assert (np.abs(a - b) <= 1e-6 * norm + 2 * np.spacing(np.abs(a))).all()


@pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="promised from jax 0.10 on")
def test_two_processes_agree_with_one_and_end_together(tmp_path):
    with two_processes(tmp_path, second_dies_in=ROUNDS - 1) as (first, second):
        assert second.wait(120) == 1
        assert "RuntimeError: out of luck" in (tmp_path / "log1").read_text()
        died = time.monotonic()
        assert first.wait(60) != 0
        assert time.monotonic() - died < 30
    assert re.search(
        r"unhealthy \(stopped sending heartbeats\):\s+1\s", (tmp_path / "log0").read_text()
    )
    assert not (tmp_path / "result0").exists()

    # What the first one saved is the state after the last round, and goes on from there.
    process, data, batches, sampler = federation(fb.sequential)
    like = (np.int64(0), process.initialize())
    done, before = fb.load(tmp_path / "checkpoint", like=like)
    assert done == ROUNDS - 1
    with two_processes(tmp_path) as both:
        codes = [one.wait(120) for one in both]
        assert codes == [0, 0], [(tmp_path / f"log{i}").read_text() for i in (0, 1)]
    assert (tmp_path / "result0").read_bytes() == (tmp_path / "result1").read_bytes()

    cohort = data.cohort(sampler(ROUNDS, data.client_ids), batches, round=ROUNDS)
    expected = process.next(before, cohort)
    found = fb.load(tmp_path / "result0", like=fb.TrainResult(before, [expected.metrics]))
    assert_same_round(expected.state, found.state, before)
    for a, b in zip(*map(jax.tree.leaves, (expected.metrics, found.metrics[0])), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    alone = lambda rounds: fb.train(process, data, batches, sampler=sampler, rounds=rounds).state
    assert_same_round(alone(ROUNDS - 1), before, alone(ROUNDS - 2))


def test_what_cannot_be_meant_is_refused(monkeypatch):
    initialize = fb.distributed.initialize
    with monkeypatch.context() as patch:
        patch.setattr(jax, "__version_info__", (0, 4, 34))
        with pytest.raises(fb.ArgumentError, match=r"jax 0\.10 or newer, and this is"):
            initialize("localhost:1", 2, 0)
    if jax.__version_info__ < (0, 10):
        return
    with pytest.raises(fb.ArgumentError, match="give all three, or none"):
        initialize("localhost:1", num_processes=2)
    with pytest.raises(fb.ArgumentError, match="process_id is 2; it must be from 0 to 1"):
        initialize("localhost:1", 2, 2)
    with pytest.raises(fb.ArgumentError, match="num_processes is 0; it must be at least 1"):
        initialize("localhost:1", 0, 0)


def test_more_processes_than_clients_are_refused(monkeypatch):
    process, data, batches, sampler = federation(fb.sequential)
    monkeypatch.setattr(jax, "process_count", lambda: 8)
    with pytest.raises(fb.ClientDataError, match="7 clients, and 8 processes share them"):
        fb.train(process, data, batches, sampler=sampler, rounds=1)
