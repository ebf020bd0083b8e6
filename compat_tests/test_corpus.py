"""Unmodified scripts under `fedbridge run` print what they print under the real TFF."""

import re

import numpy as np
import pytest

from compat_tests.corpus.__main__ import SCRIPTS, run

_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?|-?\d+(?:e-?\d+)?")


ALL = sorted(SCRIPTS.glob("*.py"))


@pytest.fixture(scope="module")
def printed():
    """What each script printed, and what was said at the end."""
    code, texts, said = run(*ALL)
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
