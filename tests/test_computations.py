"""What a script's own computations return: how two sides are held against each other."""

import io

import numpy as np
import pytest
from rich.console import Console

from fedbridge import tff
from fedbridge.bridge import computations, report, terminal, words
from fedbridge.bridge.computations import NOTHING_TO_REPLAY, Returned, joined, judge
from fedbridge.bridge.result import Result
from fedbridge.tff import _computations, _results

BEFORE = {"0/0/w": np.float32([100.0, 200.0]), "0/0/step": np.int32(3)}
AFTER = {"0/w": np.float32([100.5, 200.0]), "0/step": np.int32(4), "1": np.float32(8.0)}


def call(leaves=AFTER, given=BEFORE, floors=None):
    arrays = {path: np.asarray(leaf) for path, leaf in leaves.items()}
    return Returned("next_fn", given, arrays, floors or {})


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({}, None),
        # An ulp of the weights, 1.5e-5, is 3e-5 of the update of 0.5, and 7e-8 of the weights.
        ({"0/w": np.nextafter(AFTER["0/w"], np.float32(999))}, "'0/w' .* 3.1e-05"),
        ({"1": np.float32(8.00001)}, "'1' that is off by 1.2e-06"),
        ({"1": np.float32(8.000001)}, None),
        ({"0/step": np.int32(5)}, "'0/step' that is off by inf"),
        ({"0/step": np.int64(4)}, r"'0/step' of int64\[\] instead of int32\[\]"),
        ({"1": np.float32([8.0])}, r"float32\[1\] instead of float32\[\]"),
        ({"1": np.float32("nan")}, "off by inf"),
        ({"2": np.float32(1.0)}, "has '2', unlike TFF's"),
    ],
)
def test_a_new_state_is_judged_by_its_update_and_the_rest_by_itself(change, failure):
    (found,) = judge([call({**AFTER, **change})], [call()])
    assert found.passed == (failure is None)
    if failure:
        with pytest.raises(AssertionError, match=failure):
            raise AssertionError(found.failure)


def test_what_a_call_makes_of_an_ulp_of_its_arguments_is_allowed_ten_times():
    other = {**AFTER, "0/w": np.float32([100.5, 200.00006])}
    floors = lambda floor: {"0/w": floor}
    assert judge([call(other, floors=floors(1e-5))], [call()])[0].failure is None
    assert judge([call(other, floors=floors(1e-6))], [call()])[0].failure


def test_nan_is_nan_and_other_calls_are_other_calls():
    nan = call({"": np.float32("nan")})
    assert judge([nan], [nan])[0].passed
    renamed = call()._replace(name="train")
    assert judge([renamed], [call()])[0].failure == "train was called, and under TFF next_fn"
    assert not judge([call(), call()], [call()])[1].passed


@pytest.mark.parametrize(
    ("verdict", "reason", "change", "varies", "expected"),
    [
        ("match", "3 rounds agree", {}, None, "match"),
        ("not comparable", NOTHING_TO_REPLAY, {}, None, "match"),
        ("not comparable", "the model is by hand", {}, None, "not comparable"),
        ("not comparable", NOTHING_TO_REPLAY, {"1": np.float32(9)}, None, "differs"),
        ("match", "3 rounds agree", {"1": np.float32(9)}, None, "differs"),
        ("match", "3 rounds agree", {"1": np.float32(9)}, "it draws", "not comparable"),
        ("differs", "round 2, ...", {}, "it draws", "differs"),
    ],
)
def test_the_verdict_covers_rounds_and_computations(verdict, reason, change, varies, expected):
    replayed = Result(verdict, reason, (), (), (), (), None, None, {}, {}, "script.py")
    found = joined(replayed, judge([call({**AFTER, **change})], [call()]), varies)
    assert found.verdict == expected
    assert len(found.computations) == 1
    if expected == "not comparable" and varies:
        assert "without a seed" in found.reason and varies in found.reason


def test_the_page_and_the_log_show_every_call():
    replayed = Result(
        "not comparable", NOTHING_TO_REPLAY, (), (), (), (), None, None, {}, {}, "a.py"
    )
    found = joined(
        replayed, judge([call(), call({**AFTER, "1": np.float32(9)})], [call()] * 2), None
    )
    assert words.headline(found) == "differs · 2 calls of a computation"
    assert "1 of 2</b><span>calls of computations agree" in report.page(found)
    assert "rounds agree" not in report.page(found)
    log = io.StringIO()
    terminal.show(Console(file=log), found)
    assert (
        "computation 1, next_fn: error 0\ncomputation 2, next_fn: error 1.2e-01" in log.getvalue()
    )


def test_calls_are_written_down_and_read_again():
    calls = [call(floors={"1": 1e-7}), Returned("mean", {}, {"": np.float32(2)}, {})]
    again = computations.unpacked(computations.packed(calls))
    assert [one.name for one in again] == ["next_fn", "mean"]
    assert list(again[0].leaves) == list(AFTER) and again[0].floors["1"] == 1e-7
    assert again[1].leaves[""] == np.float32(2)
    assert computations.unpacked({}) == []


def test_only_the_calls_of_the_script_are_kept(monkeypatch, tmp_path):
    kinds = _computations.Computation, _computations.PolymorphicComputation
    changed = [(tff, "federated_computation"), (tff, "tf_computation")]
    changed += [(tff.tensorflow, "computation"), *((kind, "__call__") for kind in kinds)]
    for home, name in changed:  # put back after the test
        monkeypatch.setattr(home, name, getattr(home, name))
    monkeypatch.setattr(_results.trace, "read", lambda path: _Nothing)
    monkeypatch.setattr(_results, "run", a_script)
    out = tmp_path / "out.npz"
    assert _results.main("no trace", str(out), "no script") == 0
    (kept,) = computations.unpacked(_results.trace.arrays(out))
    assert kept.name == "both"
    assert {path: float(leaf) for path, leaf in kept.leaves.items()} == {"0": 2.5, "1": 7.5}
    # One ulp of 4.5 or of the others, in the sum.
    assert 0 < kept.floors["1"] <= 2e-6


def a_script(script, arguments):
    assert tff.federated_computation(lambda: "Hello, World!")() == b"Hello, World!"
    floats = tff.type_at_clients(np.float32)
    mean = tff.federated_computation(lambda x: tff.federated_mean(x), floats)

    @tff.federated_computation(floats)
    def both(x):
        return mean(x), tff.federated_sum(x)

    assert len(both([1.0, 2.0, 4.5])) == 2
    return 0


class _Nothing:
    computations = staticmethod(dict)
