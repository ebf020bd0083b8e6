"""Unmodified scripts under `fedbridge run` print what they print under the real TFF.

In the reference environment, and in one as `fedbridge[tensorflow]` makes it (`make tensorflow`),
where TensorFlow is the newest and Keras is tf-keras.
And `fedbridge check` says of them what `verdicts.json` holds: a check runs TFF twice, so each run
of the tests checks two scripts, drawn anew. FEDBRIDGE_CORPUS_SEED repeats a choice.
"""

import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest

from compat_tests.corpus.__main__ import SCRIPTS, VERDICTS, checked, run, scripts_in, table

_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?|-?\d+(?:e-?\d+)?")


ALL = scripts_in(SCRIPTS)
KNOWN = json.loads(VERDICTS.read_text())
SEED = os.environ.get("FEDBRIDGE_CORPUS_SEED") or str(random.SystemRandom().randrange(10**6))
# One whose rounds are replayed, and one whose own computations run on both sides.
CHOSEN = [
    random.Random(SEED).choice([path for path in ALL if path.name.startswith("core_") == core])
    for core in (False, True)
]


def tensorflow_python():
    """The interpreter of the environment with the newest TensorFlow."""
    folder = os.environ.get("FEDBRIDGE_TENSORFLOW") or Path(__file__).parents[1] / ".tensorflow"
    python = Path(folder, "bin", "python").absolute()
    if not python.exists():
        pytest.skip("there is no .tensorflow: make tensorflow")
    return python


@pytest.fixture(scope="module", params=["reference", "tensorflow"])
def printed(request):
    """What each script printed, and what was said at the end."""
    python = None if request.param == "reference" else tensorflow_python()
    code, texts, said = run(*ALL, python=python)
    return dict(zip(ALL, texts, strict=True)), f"exit code {code}: {said}"


@pytest.mark.parametrize("script", ALL, ids=lambda path: path.stem)
def test_a_script_prints_what_it_prints_under_tff(script, printed):
    texts, said = printed
    expected = script.with_suffix(".tff.txt").read_text()
    assert_same_output(texts[script], expected, said)


def assert_same_output(text, expected, said):
    """The same words, and the same numbers but for the last digits."""
    assert _NUMBER.sub("#", text) == _NUMBER.sub("#", expected), said
    numbers = [np.array(_NUMBER.findall(t), float) for t in (text, expected)]
    # Two to four rounds of their own, and printed with four decimals.
    np.testing.assert_allclose(*numbers, rtol=1e-4, atol=1.1e-4)


@pytest.mark.parametrize("script", CHOSEN, ids=lambda path: path.stem)
def test_a_check_says_what_is_written_down(script):
    verdict, reason = checked(script)
    assert {"verdict": verdict, "reason": reason} == KNOWN[script.name], f"seed {SEED}"


def test_every_script_has_its_verdict():
    assert list(KNOWN) == [path.name for path in ALL]
    verdicts = [row["verdict"] for row in KNOWN.values()]
    assert len(verdicts) >= 40
    assert verdicts.count("match") >= 30
    assert "differs" not in verdicts
    assert all(row["reason"] for row in KNOWN.values())
    guide = Path(__file__).parents[1] / "docs" / "migration.md"
    assert table(KNOWN) in guide.read_text()
