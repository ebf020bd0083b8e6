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


def test_trees_of_metrics_agree_in_names_order_emptiness_and_dtype():
    theirs = {"distributor": [], "client_work": {"train": {"loss": 1.0, "n": 3}}, "finalizer": {}}
    ours = {
        "distributor": (),
        "client_work": {"train": {"loss": np.float32(1), "n": np.int64(3)}},
        "finalizer": {},
    }
    dtypes = {"client_work/train/loss": "float32", "client_work/train/n": "int64"}
    assert judge.structure_failure(ours, theirs, dtypes) is None
    swapped = {**ours, "client_work": {"train": {"n": np.int64(3), "loss": np.float32(1)}}}
    assert "named" in judge.structure_failure(swapped, theirs)
    assert "tree" in judge.structure_failure({**ours, "finalizer": ()}, theirs)
    ours["client_work"]["train"]["n"] = np.int32(3)
    assert judge.structure_failure(ours, theirs, dtypes) == (
        "client_work/train/n is a int32 instead of a int64"
    )


def test_what_is_kept_of_single_clients_is_compared_by_client():
    ours = {"n": np.asarray([1, 2])}
    assert judge.structure_failure(ours, {"n": [1, 2]}) is None
    assert judge.counter_failure(ours, {"n": [1, 3]}) == "n/1 is 2 instead of 3"


def test_measurements_after_a_whole_round():
    theirs = {"client_work": {"train": {"accuracy": 0.5}}, "aggregator": {"norm": 21.0}}
    ours = {"client_work": {"train": {"accuracy": 0.6}}, "aggregator": {"norm": 21.0001}}
    assert "accuracy" in judge.values_failure(ours, theirs)
    assert "aggregator/norm" in judge.values_failure(ours, theirs, measured=True)
    assert judge.values_failure(ours, theirs, {"aggregator/norm": 1e-4}, measured=True) is None


def test_a_standard_deviation_is_as_good_as_the_difference_under_its_root():
    def failure(ours, theirs, mean=1.0):
        tree = lambda value: {"average_client_norm": mean, "std_dev_client_norm": value}
        return judge.values_failure(tree(ours), tree(theirs))

    nan = float("nan")
    assert failure(0.5, 0.5000001) is None
    assert failure(0.5, 0.5001)
    assert failure(1e-3, nan) is None  # of one client: 0, up to rounding of either sign
    assert failure(1e-2, nan)
    assert failure(nan, nan, mean=nan) is None
    assert failure(0.1, nan, mean=nan)


STATE = {
    "aggregator/norm": np.asarray(21, np.float32),
    "finalizer/step": np.asarray(3, np.int32),
    "finalizer/slot/0": np.full(4, 0.5, np.float32),
}


def state_with(path, value):
    return {**STATE, path: np.asarray(value, STATE[path].dtype)}


def test_the_rest_of_a_state():
    def failure(ours, theirs=STATE, floors=None):
        return judge.state_failure(ours, theirs, floors or {}, 1e-6)

    assert failure(STATE) is None
    assert failure(state_with("aggregator/norm", 21.00001)) is None
    assert "aggregator/norm" in failure(state_with("aggregator/norm", 21.0001))
    assert failure(state_with("aggregator/norm", 21.0001), floors={"aggregator/norm": 1e-5}) is None
    assert "finalizer/step" in failure(state_with("finalizer/step", 4))
    slot = [0.5, 0.5, 0.5, 0.50001]
    assert "finalizer/slot/0" in failure(state_with("finalizer/slot/0", slot))
    lost = state_with("aggregator/norm", np.nan)
    assert failure(lost, lost) is None
    assert failure(lost) and failure(STATE, lost)
    zero = state_with("finalizer/slot/0", np.zeros(4))
    assert failure(zero, zero) is None and failure(STATE, zero)


def test_the_rest_of_a_state_has_tffs_names_and_dtypes():
    less = {path: leaf for path, leaf in STATE.items() if path != "finalizer/step"}
    assert "lacks finalizer/step" in judge.state_failure(less, STATE, {}, 1e-6)
    assert "has finalizer/step" in judge.state_failure(STATE, less, {}, 1e-6)
    wide = {**STATE, "finalizer/step": np.asarray(3, np.int64)}
    assert "int64[] instead of int32[]" in judge.state_failure(wide, STATE, {}, 1e-6)
