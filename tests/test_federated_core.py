"""Federated Core where there is no TensorFlow: types, values at placements, processes, refusals."""

import collections
import dataclasses
import functools

import numpy as np
import pytest

import fedbridge as fb
from fedbridge import tff

FLOATS = tff.FederatedType(np.float32, tff.CLIENTS)
INTS = tff.type_at_clients(np.int32)
Pair = collections.namedtuple("Pair", "x y")


class Spec:
    """What `tf.TensorSpec`, `tf.DType` and a data set look like from outside."""

    class Dtype:
        name = "float32"
        as_numpy_dtype = np.float32

    dtype, shape = Dtype(), [None, 3]

    def is_compatible_with(self, other):
        return True


# --------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("described", "printed"),
    [
        (np.int32, "int32"),
        (np.dtype("float64"), "float64"),
        (np.str_, "str"),
        ((np.bool_, [None, 2]), "bool[?,2]"),
        ((np.bool_, None), "'bool'(shape=None)"),
        ((np.int32, np.float32), "<int32,float32>"),
        ([("a", np.int32), ("b", (np.float32, [10]))], "<a=int32,b=float32[10]>"),
        ({"b": np.int32, "a": [np.int32, ()]}, "<b=int32,a=<int32,<>>>"),
        (Pair(np.int32, np.float32), "<x=int32,y=float32>"),
        (Spec.Dtype(), "float32"),
        (Spec(), "float32[?,3]"),
        (tff.SequenceType({"x": Spec()}), "<x=float32[?,3]>*"),
        (FLOATS, "{float32}@CLIENTS"),
        (tff.types.at_server(np.int32), "int32@SERVER"),
        (tff.FederatedType(np.int32, tff.CLIENTS, True), "int32@CLIENTS"),
        (tff.FunctionType(FLOATS, np.int32), "({float32}@CLIENTS -> int32)"),
        (tff.FunctionType(None, np.int32), "( -> int32)"),
    ],
)
def test_types_print_as_in_tff(described, printed):
    assert str(tff.to_type(described)) == printed
    # On several lines it is the same text, an element on each.
    assert "".join(tff.to_type(described).formatted_representation().split()) == "".join(
        printed.split()
    )


def test_types_are_compared_and_assigned():
    named = tff.StructType([("a", np.int32)])
    assert named == tff.NamedTupleType([("a", np.int32)]) != tff.StructType([np.int32])
    assert len({named, tff.StructType([("a", np.int32)])}) == 1
    assert named.is_assignable_from(tff.StructType([np.int32]))
    assert not tff.StructType([("b", np.int32)]).is_assignable_from(named)
    dictionary = tff.StructWithPythonType([("a", np.int32)], dict)
    assert dictionary.is_equivalent_to(named)
    assert not dictionary.is_identical_to(
        tff.StructWithPythonType([("a", np.int32)], collections.OrderedDict)
    )
    some, three = (tff.TensorType(np.int32, [n]) for n in (None, 3))
    assert some.is_assignable_from(three) and not three.is_assignable_from(some)
    equal = tff.FederatedType(np.float32, tff.CLIENTS, True)
    assert FLOATS.is_assignable_from(equal) and not equal.is_assignable_from(FLOATS)
    with pytest.raises(tff.types.TypeNotAssignableError, match=r"float32@SERVER is not assignable"):
        FLOATS.check_assignable_from(tff.type_at_server(np.float32))
    assert named.a == tff.TensorType(np.int32) and named[0] is named.a
    assert tff.SequenceType([np.int32]).element.python_container is tuple


def test_structures():
    struct = tff.structure.Struct([("a", 1), ("b", tff.structure.Struct([(None, 2)]))])
    assert tff.structure.to_odict_or_tuple(struct) == {"a": 1, "b": (2,)}
    assert tff.structure.flatten(struct) == [1, 2]
    doubled = tff.structure.map_structure(lambda leaf: 2 * leaf, struct)
    assert doubled == tff.structure.from_container({"a": 2, "b": [4]}, recursive=True)
    assert tff.utils.update_state(Pair(1, 2), y=3) == Pair(1, 3)
    with pytest.raises(KeyError, match="no element z"):
        tff.structure.update_struct(Pair(1, 2), z=3)


# --------------------------------------------------------------------------- numbers


def folded(values):
    return functools.reduce(lambda held, value: (held + value).astype(np.float32), values)


def test_sums_and_means_are_left_folds_in_float32():
    rng = np.random.default_rng(0)
    values = (10.0 ** rng.integers(-4, 5, 50) * rng.random(50)).astype(np.float32)
    weights = rng.random(50).astype(np.float32)
    assert folded(values) != values.sum(dtype=np.float64).astype(np.float32)  # the order shows

    @tff.federated_computation(FLOATS, FLOATS)
    def numbers(x, w):
        return tff.federated_sum(x), tff.federated_mean(x), tff.federated_mean(x, w)

    total, mean, weighted = numbers(list(values), list(weights))
    assert total == folded(values)
    assert mean == folded(values) / np.float32(50)
    assert weighted == folded(values * weights) / folded(weights)
    assert {type(n) for n in (total, mean, weighted)} == {np.float32}
    with np.errstate(all="raise"):
        total, mean, _ = numbers([], [])
    assert total == 0 and np.isnan(mean)


def test_structures_are_summed_leaf_by_leaf():
    member = collections.OrderedDict(w=(np.float32, [2]), n=np.int32)

    @tff.federated_computation(tff.type_at_clients(member))
    def totals(values):
        least, most = tff.federated_min(values), tff.federated_max(values)
        return tff.federated_sum(values), least, most, values.n

    clients = [{"w": [1.0, -2.0], "n": 3}, {"n": 4, "w": np.ones(2)}]
    total, least, most, counts = totals(clients)
    assert isinstance(total, collections.OrderedDict)
    assert total["w"].tolist() == [2, -1] and total["n"] == 7
    assert least["w"].tolist() == [1, -2] and most["n"] == 4 and counts == [3, 4]


@dataclasses.dataclass
class Report:
    """What a computation gives."""

    low: object
    rest: object


def test_values_know_their_types_and_come_back_in_their_containers():
    traced = []

    @tff.federated_computation(INTS, tff.type_at_server(np.float32))
    def together(x, y):
        traced.append((str(x.type_signature), type(x).__name__))
        everywhere = tff.federated_broadcast(y)
        pair = tff.federated_zip(collections.OrderedDict(x=x, y=everywhere))
        seven = tff.federated_value((7, "text"), tff.SERVER)
        return Report(low=tff.federated_min(pair.x), rest=[pair, seven[1], (pair["y"], y)])

    assert traced == [("{int32}@CLIENTS", "Value")]
    assert str(together.type_signature) == (
        "(<x={int32}@CLIENTS,y=float32@SERVER> -> <low=int32@SERVER,rest=<{<x=int32,y=float32>}"
        "@CLIENTS,str@SERVER,<{float32}@CLIENTS,float32@SERVER>>>)"
    )
    for found in (together([3, 2], 0.5), together(y=0.5, x=[3, 2]), together(([3, 2], 0.5))):
        assert isinstance(found, Report) and found.low == 2
        pairs, text, (ys, y) = found.rest
        assert pairs == [{"x": 3, "y": 0.5}, {"x": 2, "y": 0.5}]
        assert type(pairs[0]) is collections.OrderedDict
        assert (text, ys, y) == (b"text", [0.5, 0.5], 0.5)
    assert len(traced) == 1


def test_computations_call_each_other_and_take_their_types_from_arguments():
    @tff.federated_computation
    def swapped(pair):
        return pair[1], pair[0]

    @tff.federated_computation(tff.type_at_clients((np.int32, np.float32)))
    def all_swapped(pairs):
        return tff.federated_map(swapped, pairs)

    assert (
        str(all_swapped.type_signature)
        == "({<int32,float32>}@CLIENTS -> {<float32,int32>}@CLIENTS)"
    )
    assert all_swapped([(1, 2.5), (3, 4.5)]) == [(2.5, 1), (4.5, 3)]
    assert swapped([1, "a"]) == (b"a", 1)
    counted = tff.federated_computation(
        lambda x: tff.federated_sum(tff.federated_value(1, tff.CLIENTS)), INTS
    )
    assert counted([5, 5, 5]) == 3

    @tff.federated_computation(INTS)
    def outer(x):
        added = tff.federated_computation(lambda y: (y, counted(x)), tff.type_at_server(np.int32))
        return added(tff.federated_sum(x))

    assert outer([5, 6]) == (11, 2)


def test_federated_aggregate_folds_from_zero_in_order():
    keep_last = tff.federated_computation(lambda pair: pair[1], (np.int32, np.int32))
    report = tff.federated_computation(lambda last: (last, 1), np.int32)

    @tff.federated_computation(INTS)
    def last(x):
        return tff.federated_aggregate(x, 9, keep_last, keep_last, report)

    assert str(last.type_signature) == "({int32}@CLIENTS -> <int32,int32>@SERVER)"
    assert last([4, 5, 6]) == (6, 1) and last([]) == (9, 1)


# --------------------------------------------------------------------------- processes


@tff.federated_computation
def start():
    return tff.federated_value(0, tff.SERVER)


@tff.federated_computation(tff.type_at_server(np.int32), INTS)
def step(state, values):
    return tff.templates.MeasuredProcessOutput(
        tff.federated_sum(values), state, tff.federated_zip({"before": state})
    )


def test_processes_pair_computations_that_fit():
    process = tff.templates.AggregationProcess(start, step)
    assert process.state_type == tff.type_at_server(np.int32)
    output = process.next(process.next(process.initialize(), [1, 2]).state, [3])
    assert output == tff.templates.MeasuredProcessOutput(3, 3, {"before": 3})
    both = tff.templates.concatenate_measured_processes({"a": process, "b": process})
    after = both.next(both.initialize(), {"a": [1], "b": [2]})
    assert after.state == {"a": 1, "b": 2} and after.measurements["b"] == {"before": 0}
    estimation = tff.templates.EstimationProcess(
        start,
        tff.federated_computation(lambda state: state, tff.type_at_server(np.int32)),
        tff.federated_computation(lambda state: (state, 1), tff.type_at_server(np.int32)),
    )
    assert estimation.report(5) == (5, 1)
    first = tff.federated_computation(lambda pair: pair[0], estimation.report.type_signature.result)
    assert estimation.map(first).report(5) == 5
    with pytest.raises(fb.FedbridgeError, match="must be a computation of <int32@SERVER,int32"):
        estimation.map(tff.federated_computation(lambda x: x, np.int32))
    with pytest.raises(fb.FedbridgeError, match="starts from a state of type int32@SERVER cannot"):
        tff.utils.IterativeProcess(start, tff.federated_computation(lambda x: x, FLOATS))
    with pytest.raises(fb.FedbridgeError, match="next_fn must give a tff.templates.Measured"):
        tff.templates.MeasuredProcess(
            start, tff.federated_computation(lambda x: x, tff.type_at_server(np.int32))
        )


# --------------------------------------------------------------------------- refusals

mean = tff.federated_computation(lambda x: tff.federated_mean(x), FLOATS)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tff.to_type(3.5), "3.5 describes no type of TFF; write a dtype"),
        (lambda: mean(3.0), "is a list with one entry a client, not 3.0"),
        (lambda: mean(["a"]), "'a' is not of type float32"),
        (lambda: mean([np.ones(2)]), r"an array float64\[2\] is not of type float32"),
        (lambda: mean([1.0], 2), "takes {float32}@CLIENTS, not these arguments"),
        (lambda: start(1), "start takes no arguments"),
        (lambda: step(1.5, [1]), "1.5 is not of type int32"),
        (
            lambda: tff.federated_computation(lambda x, y: (x, y), INTS, INTS)([1], [1, 2]),
            "different numbers of clients: 1, 2",
        ),
        (
            lambda: tff.federated_computation(lambda: tff.federated_value(1, tff.CLIENTS))(),
            "no argument says how many",
        ),
        (
            lambda: tff.federated_computation(lambda x: tff.federated_mean(x), INTS),
            "needs floating",
        ),
        (
            lambda: tff.federated_computation(lambda x: tff.federated_broadcast(x), INTS),
            "federated_broadcast needs a value at SERVER",
        ),
        (
            lambda: tff.federated_computation(lambda x: tff.federated_map(mean, x), FLOATS),
            "federated_map: <lambda> takes {float32}@CLIENTS, but is given float32",
        ),
        (lambda: tff.federated_computation(lambda x: 1 if x else 2, np.bool_), "neither true nor"),
        (lambda: tff.federated_computation(lambda x: x.mean, FLOATS), "has no element 'mean'"),
        (lambda: tff.federated_computation(lambda: None), "returned None"),
        (lambda: tff.federated_computation(lambda: object()), "object cannot stand in the body"),
        (lambda: tff.federated_computation(lambda x, y: x, INTS), "2 parameters, but 1 types"),
        (
            lambda: tff.federated_computation(
                lambda x, y: tff.federated_zip((x, y)), INTS, np.int32
            ),
            "a value of type int32 is at no placement",
        ),
        (lambda: tff.tf_computation(lambda: 1), "run in TensorFlow, which is not installed"),
        (lambda: tff.jax.computation, "tff.jax.computation is not in fedbridge.tff yet"),
        (
            lambda: tff.federated_computation(
                lambda x: tff.federated_select(x, *[tff.federated_value(1, tff.SERVER)] * 2, x),
                INTS,
            ),
            "federated_select",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, words):
    with pytest.raises(fb.FedbridgeError, match=words) as refused:
        call()
    assert "\n" not in str(refused.value)
