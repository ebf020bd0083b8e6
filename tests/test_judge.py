"""The arithmetic of the verdict, on numbers made by hand."""

import numpy as np
import pytest

from fedbridge.bridge import judge

START = {"trainable/0": np.zeros(4, np.float32), "trainable/1": np.full(2, 8.0, np.float32)}
END = {"trainable/0": np.full(4, 0.5, np.float32), "trainable/1": np.full(2, 8.5, np.float32)}


def moved(path, by):
    weights = {name: array.copy() for name, array in END.items()}
    weights[path][0] += np.float32(by)
    return weights


def test_errors_are_relative_to_the_norm_of_the_update():
    norm = judge.update_norm(START, END)
    assert norm == pytest.approx(np.sqrt(6 * 0.25))
    errors = judge.largest_errors(moved("trainable/0", 0.1), END, norm)
    assert errors["trainable/0"] == pytest.approx(0.1 / norm, rel=1e-6)
    assert errors["trainable/1"] == 0


def test_an_update_of_norm_zero_must_be_exact():
    assert judge.largest_errors(START, START, 0.0) == {"trainable/0": 0, "trainable/1": 0}
    assert judge.largest_errors(END, START, 0.0)["trainable/0"] == np.inf


def test_a_probe_may_be_off_by_rounding_and_no_more():
    def failure(weights, start=START):
        return judge.probe_failure(judge.probe_errors(weights, END, start), 1e-6)

    ulp = np.spacing(np.float32(8.5))
    assert failure(END) is None
    assert judge.probe_errors(moved("trainable/1", 2 * ulp), END, START)["trainable/1"] == 0
    assert failure(moved("trainable/1", 2 * ulp)) is None
    assert failure(moved("trainable/1", 6 * ulp))
    assert failure(moved("trainable/0", 1e-5))
    assert failure(moved("trainable/0", np.nan))
    # Where nothing moved, nothing may.
    assert failure(END, start=END) is None
    assert failure(moved("trainable/1", ulp), start=END)


def test_a_whole_round_is_held_against_the_floor():
    assert judge.round_tolerance(3e-8) == 1e-6
    assert judge.round_tolerance(6e-3) == pytest.approx(6e-2)


def test_losses_and_counters():
    assert judge.loss_failure(1.0000005, 1.0, 0.0) is None
    assert judge.loss_failure(1.00001, 1.0, 0.0)
    assert judge.loss_failure(1.00001, 1.0, 2e-6) is None
    assert judge.loss_failure(float("nan"), float("nan"), 0.0) is None
    assert judge.loss_failure(float("nan"), 1.0, 0.0)
    ours = {"a": {"n": np.int64(3), "loss": np.float32(1)}, "empty": ()}
    assert judge.counter_failure(ours, {"a": {"n": 3, "loss": 2.0}, "empty": []}) is None
    assert "a/n is 3 instead of 4" in judge.counter_failure(ours, {"a": {"n": 4, "loss": 2.0}})
    assert "metrics named" in judge.counter_failure(ours, {"a": {"n": 3}})
