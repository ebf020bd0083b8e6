"""What every test here gets: strict ranks, keys, and caches of its own."""

import collections
import itertools
import os

import hypothesis
import jax
import pytest

# Before anyone imports Keras: there is no TensorFlow here.
os.environ["KERAS_BACKEND"] = "jax"

# A silent broadcast of [clients] against [clients, batch] is the mistake this library can least
# afford; jax raises instead.
jax.config.update("jax_numpy_rank_promotion", "raise")


# The same examples in every run: what fails once fails again, and on a slow machine no other.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")


def pytest_addoption(parser):
    text = "Keep the first test of each file, and every Nth after it: for a second environment."
    parser.addoption("--every", metavar="N", type=int, default=1, help=text)


def pytest_collection_modifyitems(config, items):
    every = config.getoption("--every")
    seen = collections.Counter()
    kept, left = [], []
    for item in items:
        file = item.nodeid.partition("::")[0]
        (left if seen[file] % every else kept).append(item)
        seen[file] += 1
    items[:] = kept
    if left:
        config.hook.pytest_deselected(items=left)


@pytest.fixture
def getkey():
    """Gives a new random key at each call, the same ones in each run."""
    numbers = itertools.count()
    return lambda: jax.random.key(next(numbers))


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory, monkeypatch):
    """Caches go to a folder of the test run, never to the home of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("FEDBRIDGE_CACHE", "FEDBRIDGE_DATA", "FEDBRIDGE_REFERENCE"):
        monkeypatch.delenv(name, raising=False)
    # Commands run in this very process, where jax has its devices already.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr("fedbridge._cli_run.use_cores", lambda: None)
