"""The scripts in examples/ reach `match` on real data."""

import os
from pathlib import Path

import pytest

from fedbridge.bridge.check import check

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = ["--rounds", "2", "--num_clients", "3", "--vocab_size", "300", "--max_elements", "24"]


@pytest.mark.skipif("FEDBRIDGE_DATA" not in os.environ, reason="needs TFF's data files")
@pytest.mark.parametrize("task", ["words", "tags"])
def test_stackoverflow_matches(task):
    result = check(EXAMPLES / "stackoverflow_fedavg.py", ["--task", task, *SMALL])
    assert result.verdict == "match", result.reason
    assert len(result.rounds) == 2
