"""The one place that deals with the traps of running TFF inside a test run.

TFF starts `worker_binary`, which is not ended with its parent and holds every pipe open that it
inherited; TFF ends it with SIGINT and waits, for ever where a shell made SIGINT ignored; and its
import takes many seconds.
"""

import atexit
import os
import signal
import sys
from pathlib import Path

import hypothesis
import psutil
import pytest

# Before TensorFlow is imported, by anyone.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
signal.signal(signal.SIGINT, signal.default_int_handler)


# The same examples in every run: what fails once fails again.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")


def _kill_workers():
    """Kills TFF's workers that this process started, and nobody else's."""
    workers = [
        child
        for child in psutil.Process().children(recursive=True)
        if child.name().startswith("worker_bin")
    ]
    for worker in workers:
        worker.kill()
    psutil.wait_procs(workers, timeout=10)


atexit.register(_kill_workers)


@pytest.fixture(scope="session")
def tff():
    """The real TFF, imported once for the whole run.

    It runs graphs as they are written. TensorFlow elsewhere makes (1 + 1e-7) - p of 1 - p + 1e-7,
    also of a TFF model's `forward_pass` outside TFF, and its losses would be other ones.
    """
    import tensorflow as tf
    import tensorflow_federated

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

    return tensorflow_federated


@pytest.fixture(scope="session")
def shared_data():
    """The folder with real data in TFF's formats, `$FEDBRIDGE_DATA`; without it the test skips."""
    folder = os.environ.get("FEDBRIDGE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FEDBRIDGE_DATA names no folder with real data")
    return Path(folder)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory, monkeypatch):
    """Caches go to a folder of the test run, never to the home of whoever runs it."""
    monkeypatch.delenv("FEDBRIDGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _no_global_seed():
    """A global seed of one test would change the order of a seeded shuffle in the next."""
    yield
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(None)
