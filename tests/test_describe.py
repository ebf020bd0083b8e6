"""Objects as names and arguments: what a trace says of optimizers and aggregators."""

import json

import numpy as np
import pytest

from fedbridge.bridge import describe, model_sources
from fedbridge.bridge.describe import Schedule, UndescribedError, described


class Factory:
    def __init__(self, inner=None, *, norm=np.inf):
        self.inner = inner

    @classmethod
    def clipped(cls, norm, **kwargs):
        return cls(norm=norm)


@pytest.fixture(scope="module", autouse=True)
def remembered():
    describe.remember_instances(Factory, "Factory")


def test_instances_are_written_with_their_defaults_and_nest():
    assert described(Factory(Factory(norm=2))) == {
        "name": "Factory",
        "arguments": {
            "inner": {"name": "Factory", "arguments": {"inner": None, "norm": 2}},
            "norm": np.inf,
        },
    }


def test_a_class_method_is_written_as_it_was_called():
    made = described(Factory.clipped(np.float32(0.5), bits=8, stochastic=False))
    assert made == {
        "name": "Factory.clipped",
        "arguments": {"norm": 0.5, "bits": 8, "stochastic": False},
    }
    assert json.loads(json.dumps(made)) == made


def test_a_subclass_of_the_script_is_not_taken_for_its_base():
    class Own(Factory):
        pass

    with pytest.raises(UndescribedError, match="Own"):
        described([Own()])


def test_functions_of_the_script_are_named():
    def measure(value):
        return value

    with pytest.raises(UndescribedError, match="measure"):
        described({"fn": measure})


def test_marked_functions_remember_and_are_arguments_themselves():
    def build(rate, momentum=None):
        return Factory()

    build = describe.remembering("build", build)
    numbers = described(build(1), number=float)
    assert numbers == {"name": "build", "arguments": {"rate": 1.0, "momentum": None}}
    assert isinstance(numbers["arguments"]["rate"], float)
    assert described(build) == {"function": "build"}


def test_schedules_wait_for_their_values():
    def build(optimizer, schedule_fn):
        return Factory()

    build = describe.remembering("build", build, schedules=("schedule_fn",))
    description = described(build(Factory(), lambda k: 0.5**k))
    assert isinstance(description["arguments"]["schedule_fn"], Schedule)
    values = lambda schedule: [schedule.function(k) for k in range(3)]
    done = describe.with_values(description, values)
    assert done["arguments"]["schedule_fn"] == {"values": [1.0, 0.5, 0.25]}


@pytest.mark.parametrize(
    ("name", "inner", "adaptive"),
    [
        ("build_sgdm", None, False),
        ("keras_sgd_nesterov", None, False),
        ("build_yogi", None, True),
        ("schedule_learning_rate", "build_sgdm", False),
        ("schedule_learning_rate", "build_adam", True),
    ],
)
def test_which_optimizers_adapt(name, inner, adaptive):
    arguments = {"optimizer": {"name": inner, "arguments": {}}} if inner else {}
    assert describe.is_adaptive({"name": name, "arguments": arguments}) == adaptive
    assert not describe.is_adaptive(None)


class Tensor:
    """As TensorFlow's: an array only when asked."""

    def numpy(self):
        return np.array([0.5, 2.0], np.float32)


class WithArrays:
    def get_config(self):
        return {"label_weights": np.array([1, 0, 2]), "thresholds": Tensor(), "of": np.float32(0.5),
                "dtype": np.dtype("float32"), "nested": [Tensor(), None]}  # fmt: skip


def test_arrays_in_the_config_of_a_metric_are_lists():
    """Not their texts, `"[1 0 2]"`, of which no metric can be made again."""
    assert model_sources._config(WithArrays()) == {
        "class_name": "WithArrays",
        "config": {
            "label_weights": [1, 0, 2],
            "thresholds": [0.5, 2.0],
            "of": 0.5,
            "dtype": "float32",
            "nested": [[0.5, 2.0], None],
        },
    }
