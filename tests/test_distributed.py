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
from typer.testing import CliRunner

import fedbridge as fb
from fedbridge.cli import app
from fedbridge.logs import read_metrics
from fedbridge.tff_io import write_sql

HERE = Path(__file__).parent
LIMIT = 300  # seconds after which a process hangs, on however busy a machine


@contextlib.contextmanager
def two_processes(folder, command):
    """Both at work; their output is in `log0` and `log1` of the folder.

    Args:
        folder: Of the logs.
        command: `(the coordinator's address, the process) -> what Python is called with`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    processes = []
    try:
        for i in range(2):
            arguments = map(str, command(coordinator, i))
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


def rounds_of(folder, *, second_dies_in=0):
    """What each of two processes is called with, to train in `on_two_processes.py`."""
    script, dies_in = HERE / "on_two_processes.py", [0, second_dies_in]
    return lambda coordinator, i: [script, coordinator, i, folder, dies_in[i]]


def assert_same_round(expected, found, start):
    """Within 1e-6 of the update's norm and 2 ulp."""
    trees = (expected.global_model_weights, found.global_model_weights, start.global_model_weights)
    leaves = list(zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in trees), strict=True))
    norm = np.sqrt(sum(np.sum((a - old) ** 2) for a, _, old in leaves))
    assert norm > 0
    for a, b, _ in leaves:
        assert (np.abs(a - b) <= 1e-6 * norm + 2 * np.spacing(np.abs(a))).all()


since_0_10 = pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="promised from jax 0.10 on")


@since_0_10
def test_two_processes_agree_with_one_and_end_together(tmp_path):
    with two_processes(tmp_path, rounds_of(tmp_path, second_dies_in=ROUNDS - 1)) as (first, second):
        assert second.wait(LIMIT) == 1
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
    with two_processes(tmp_path, rounds_of(tmp_path)) as both:
        codes = [one.wait(LIMIT) for one in both]
        assert codes == [0, 0], [(tmp_path / f"log{i}").read_text() for i in (0, 1)]
    for i in (0, 1):  # connected before a slow round could keep one from it
        words = (tmp_path / f"log{i}").read_text()
        assert words.rindex("[Gloo]") < words.index("all are there")
    assert (tmp_path / "result0").read_bytes() == (tmp_path / "result1").read_bytes()

    cohort = data.cohort(sampler(ROUNDS, data.client_ids), batches, round=ROUNDS)
    expected = process.next(before, cohort)
    found = fb.load(tmp_path / "result0", like=fb.TrainResult(before, [expected.metrics]))
    assert_same_round(expected.state, found.state, before)
    for a, b in zip(*map(jax.tree.leaves, (expected.metrics, found.metrics[0])), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    alone = lambda rounds: fb.train(process, data, batches, sampler=sampler, rounds=rounds).state
    assert_same_round(alone(ROUNDS - 1), before, alone(ROUNDS - 2))


@pytest.mark.slow
@since_0_10
def test_the_command_trains_in_two_processes_as_in_one(tmp_path):
    """Process 0 writes and speaks; one that cannot go on ends both, without waiting."""
    rng = np.random.default_rng(0)
    writer = lambda examples: {
        "label": rng.integers(0, 62, examples).astype(np.int32),
        "pixels": rng.random((examples, 28, 28), np.float32),
    }
    writers = {f"w{i}": writer(examples) for i, examples in enumerate([9, 30, 21])}
    write_sql(tmp_path / "emnist_all.sqlite", {"all_train": writers, "all_test": writers})
    train = ["train", "emnist_character_recognition", "--data", tmp_path, "--model", "2nn"]
    train += ["--rounds", 2, "--clients", 2, "--evaluate-every", 2, "--output-dir"]
    together = lambda coordinator, i: [
        *("-m", "fedbridge", *train, tmp_path / "two", "--coordinator", coordinator),
        *("--num-processes", 2, "--process-id", i),
    ]
    with two_processes(tmp_path, together) as both:
        codes = [one.wait(LIMIT) for one in both]
        assert codes == [0, 0], [(tmp_path / f"log{i}").read_text() for i in (0, 1)]
    assert "training: " in (tmp_path / "log0").read_text()
    assert "training: " not in (tmp_path / "log1").read_text()
    alone = CliRunner().invoke(app, [str(word) for word in [*train, tmp_path / "one"]])
    assert alone.exit_code == 0, alone.output
    one, two = read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two")
    assert [list(row) for row in one] == [list(row) for row in two]
    for a, b in zip(one, two, strict=True):  # sums of two clients in another order
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5)

    with two_processes(tmp_path, together) as (first, second):
        assert first.wait(LIMIT) == 2
        assert second.wait(LIMIT) != 0
    assert "a run is there already" in (tmp_path / "log0").read_text()


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
    with pytest.raises(
        fb.ArgumentError, match="num_processes is 0; it must be a whole number from"
    ):
        initialize("localhost:1", 0, 0)


@since_0_10
@pytest.mark.parametrize("address", ["localhost", "localhost:port", "", ":1"])
def test_an_address_without_a_port_is_refused(address):
    words = f"coordinator is '{address}'; it must be an address and a port"
    with pytest.raises(fb.ArgumentError, match=words):
        fb.distributed.initialize(address, 2, 0)


def test_more_processes_than_clients_are_refused(monkeypatch):
    process, data, batches, sampler = federation(fb.sequential)
    monkeypatch.setattr(jax, "process_count", lambda: 8)
    with pytest.raises(fb.ClientDataError, match="7 clients, and 8 processes share them"):
        fb.train(process, data, batches, sampler=sampler, rounds=1)
