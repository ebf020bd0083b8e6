"""States and weights in and out, without TensorFlow; program_states/ was written by TFF 0.87.0.

How it was made: compat_tests/golden_program_state.py, with TensorFlow 2.14.1.
"""

import contextlib
import shutil
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from problems import clients, linear_model

import fedbridge as fb
from fedbridge import tff_io
from fedbridge.jax_core import named_leaves
from fedbridge.tff_io import _crc32c, _proto, _tensor_bundle
from fedbridge.tff_io._saved_model import program_state, variable_key, variable_path

GOLDEN = Path(__file__).parent / "program_states"
BUNDLE = "variables/variables"


def golden_state():
    """The state of version 7, by the formulas of the script that had TFF save it."""
    ramp = lambda *shape: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 8
    weights = [ramp(4, 3), ramp(3) - 1]
    return fb.LearningAlgorithmState(
        fb.ModelWeights(weights, [ramp(2) + 5]),
        (),
        OrderedDict(learning_rate=np.float32(0.1)),
        OrderedDict(value_sum_process=(), weight_sum_process=()),
        OrderedDict(
            learning_rate=np.float32(0.5),
            step=np.int32(7),
            accumulator=[-weight for weight in weights],
        ),
    )


def golden_kinds():
    """Version 3: a leaf of every dtype."""
    names = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 complex64"
    kinds = {name: np.array([[1, 0, 3]], name) for name in (*names.split(), "bool")}
    kinds["bfloat16"] = np.array([[1, 0, 3]], jnp.bfloat16)
    kinds["bytes"] = b"bytes\x00\xff\x00"
    kinds["texts"] = np.array([b"a", b"", b"c" * 300], object)
    kinds["empty"] = np.zeros((0, 3), np.float32)
    return kinds


def check_same(a, b):
    """Whether two trees have the same structure, dtypes and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (name, x), y in zip(named_leaves(a).items(), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)


# What TFF wrote.


def test_a_state_of_tff_s_is_read():
    assert tff_io.program_state_versions(GOLDEN) == [3, 7]
    like = jax.tree.map(np.zeros_like, golden_state())
    state, version = tff_io.load_latest_program_state(GOLDEN, like)
    assert version == 7
    check_same(state, golden_state())


def test_every_dtype_is_read():
    check_same(tff_io.load_program_state(GOLDEN, 3, golden_kinds()), golden_kinds())


def test_leaves_become_what_like_has():
    """jax arrays where it has jax arrays, and another dtype of the same kind if nothing is lost."""
    like = jax.tree.map(jnp.asarray, golden_state())
    state = tff_io.load_program_state(GOLDEN, 7, like)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    finalizer = OrderedDict(like.finalizer, step=np.int64(0))
    state = tff_io.load_program_state(GOLDEN, 7, like._replace(finalizer=finalizer))
    assert state.finalizer["step"].dtype == np.int64
    assert state.finalizer["step"] == 7


def test_a_part_of_what_was_saved():
    part = tff_io.load_program_state(GOLDEN, 7, golden_state().finalizer, part="finalizer")
    check_same(part, golden_state().finalizer)
    step = tff_io.load_program_state(GOLDEN, 7, np.int32(0), part="finalizer/step")
    assert step == 7


# What is written here is read here; that TFF reads it is a matter of compat_tests.


class Pair(NamedTuple):
    first: object
    second: object = ()


NAMES = st.text(min_size=1, max_size=4)
DTYPES = [dtype for dtype in _tensor_bundle.DTYPES.values() if dtype.kind != "c"]
LEAVES = st.one_of(
    st.builds(
        lambda dtype, shape, seed: np.random.default_rng(seed).integers(0, 2, shape).astype(dtype),
        st.sampled_from(DTYPES),
        st.lists(st.integers(0, 3), max_size=3),
        st.integers(0, 99),
    ),
    st.binary(max_size=5),
    st.builds(
        lambda texts: np.array([*texts, b""], object)[: len(texts)],
        st.lists(st.binary(max_size=200), max_size=3),
    ),
)
TREES = st.recursive(
    LEAVES | st.just(()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(NAMES, inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=3).map(OrderedDict),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
def test_any_tree_goes_round(tmp_path_factory, tree):
    if len(named_leaves(tree)) < len(jax.tree.leaves(tree)):
        return  # {"a/b": 1, "a": {"b": 2}}: two leaves of one name
    root = tmp_path_factory.mktemp("root")
    tff_io.save_program_state(root, tree, 1)
    check_same(tff_io.load_program_state(root, 1, like=tree), tree)


@given(path=st.lists(st.text("aS./", min_size=1), min_size=1))
def test_names_of_variables_are_unique_and_give_their_path(path):
    assert variable_path(variable_key(*path)) == "/".join(path)
    assert len(variable_key(*path).split("/")) == len(path) + 2


def test_a_run_goes_on_from_what_it_saved(tmp_path):
    process = fb.algorithms.fed_avg(
        linear_model(), fb.optimizers.sgdm(0.1), fb.optimizers.adam(0.1)
    )
    data = fb.from_clients(clients([5, 9]))
    cohort = data.cohort(["c0", "c1"], fb.Batches(batch_size=4))
    state = process.next(process.initialize(), cohort).state
    folder = tff_io.save_program_state(tmp_path, state, 1)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "saved_model.pb",
        "variables.data-00000-of-00001",
        "variables.index",
    ]
    loaded = tff_io.load_program_state(tmp_path, 1, like=process.initialize())
    check_same(loaded, state)
    check_same(process.next(loaded, cohort).state, process.next(state, cohort).state)
    # And in TFF's containers, without a file.
    tuples = jax.tree.map(lambda leaf: np.zeros_like(leaf), state)
    weights = fb.ModelWeights(*(tuple(side) for side in tuples.global_model_weights))
    as_tff = tff_io.to_tff_state(state, like=tuples._replace(global_model_weights=weights))
    assert isinstance(as_tff.global_model_weights.trainable, tuple)
    check_same(tff_io.from_tff_state(as_tff, like=state), state)


def test_attrs_classes_of_tff_s(tmp_path):
    class Attrs:  # what attrs leaves on a class, without the package
        def __init__(self, first, second):
            self.first, self.second = first, second

    Attrs.__attrs_attrs__ = [SimpleNamespace(name=name) for name in Pair._fields]
    theirs = Attrs(np.float32(1), [np.int64(2)])
    ours = tff_io.from_tff_state(theirs, like=Pair(np.float32(0), [np.int32(0)]))
    assert ours == Pair(1.0, [2])
    back = tff_io.to_tff_state(ours, like=theirs)
    assert isinstance(back, Attrs)
    assert back.second[0].dtype == np.int64


def test_optax_states_are_saved_too(tmp_path):
    state = optax.adam(0.1).init({"w": jnp.ones(3), "b": jnp.zeros(())})
    tff_io.save_program_state(tmp_path, state, 1)
    check_same(tff_io.load_program_state(tmp_path, 1, like=state), state)


# Versions.


def test_versions_stay_as_tff_has_it(tmp_path):
    """What TFF's manager keeps is compared in compat_tests; here the default: first and last 4."""
    for version in range(1, 9):
        tff_io.save_program_state(tmp_path, np.float32(version), version)
    assert tff_io.program_state_versions(tmp_path) == [1, 5, 6, 7, 8]
    (tmp_path / "program_state_12_temp1234").mkdir()  # a run of TFF's was killed
    (tmp_path / "program_state_012").mkdir()
    (tmp_path / "another_13").mkdir()
    assert tff_io.load_latest_program_state(tmp_path, np.float32(0)) == (8.0, 8)


def test_there_may_be_none_yet(tmp_path):
    assert tff_io.load_latest_program_state(tmp_path, np.float32(0)) == (None, 0)
    assert tff_io.load_latest_program_state(tmp_path / "absent", np.float32(0)) == (None, 0)


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(fb.StateError):
        tff_io.save_program_state(tmp_path, {"a": np.ones(2), "b": object()}, 1)
    assert not list(tmp_path.iterdir())


# Errors: where, what, the cure.


def _without(tree, name):
    return OrderedDict((key, leaf) for key, leaf in tree.items() if key != name)


def test_a_state_of_another_algorithm():
    state = golden_state()
    less = state._replace(finalizer=_without(state.finalizer, "accumulator"))
    with pytest.raises(
        fb.StateError, match=r"holds 'finalizer/accumulator/0' and 1 more.*another algorithm.*pass"
    ):
        tff_io.load_program_state(GOLDEN, 7, less)
    more = state._replace(aggregator=OrderedDict(clipping_norm=np.float32(0)))
    with pytest.raises(
        fb.StateError, match="lacks 'aggregator/clipping_norm', unlike .*another al"
    ):
        tff_io.load_program_state(GOLDEN, 7, more)
    with pytest.raises(fb.StateError, match="TFF's state holds 'finalizer/accumulator/0'"):
        tff_io.from_tff_state(state, like=less)
    with pytest.raises(fb.StateError, match="fedbridge's state lacks 'finalizer/accumulator/0'"):
        tff_io.to_tff_state(less, like=state)


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (np.zeros(5, np.float32), r"'weights' has the shape \[3\], and .* `like` has \[5\]; pass"),
        (np.zeros(3, np.int32), "'weights' is float32, and not every value of it is a int32"),
        (np.zeros(3, np.float16), "'weights' is float32, and not every value of it is a float16"),
        (np.zeros(3, bool), "'weights' is float32, and not every value of it is a bool"),
    ],
)
def test_leaves_that_do_not_fit(leaf, words):
    stored = {"weights": np.float32([0.1, 1e30, np.nan])}
    with pytest.raises(fb.StateError, match=words):
        tff_io.from_tff_state(stored, like={"weights": leaf})


@pytest.mark.parametrize(
    ("value", "dtype", "fits"),
    [
        (2**31, np.int32, False),
        (2**31 - 1, np.int32, True),
        (-(2**31), np.int32, True),
        (-1, np.uint64, False),
        (2**53 + 1, np.int64, True),
        (0.5, np.float16, True),
        (float("inf"), np.float32, True),
        (1e300, np.float32, False),
        (0.1, jnp.bfloat16, False),
        (0.125, jnp.bfloat16, True),
    ],
)
def test_a_dtype_is_cast_where_the_value_survives(value, dtype, fits):
    stored = {"n": np.asarray(value)}
    like = {"n": np.zeros((), dtype)}
    if fits:
        cast = tff_io.from_tff_state(stored, like)["n"]
        assert (cast.dtype, float(cast)) == (np.dtype(dtype), float(value))
    else:
        with pytest.raises(fb.StateError, match="not every value"):
            tff_io.from_tff_state(stored, like)


@dataclass
class NotSaved:
    w: object = 0


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            {"a": [NotSaved()]},
            "state's 'a/0' is a NotSaved, which TensorFlow does not save; make it",
        ),
        ({"a": {1: np.ones(2)}}, "state's 'a' is a dictionary with keys that are no texts"),
        (
            {"a": np.zeros(2, "M8[s]")},
            r"state's 'a' is datetime64\[s\], which .* has no such dtype",
        ),
        ({"a": jax.random.key(0)}, "random key .* keep `jax.random.key_data"),
    ],
)
def test_what_tensorflow_does_not_save(tmp_path, state, words):
    with pytest.raises(fb.StateError, match=words):
        tff_io.save_program_state(tmp_path, state, 1)


def test_versions_that_are_there_or_not(tmp_path):
    tff_io.save_program_state(tmp_path, np.float32(0), 2)
    with pytest.raises(fb.StateError, match="there is a version 2 already; save a later one"):
        tff_io.save_program_state(tmp_path, np.float32(0), 2)
    with pytest.raises(fb.StateError, match="there is no version 3; its versions are 2"):
        tff_io.load_program_state(tmp_path, 3, np.float32(0))
    with pytest.raises(fb.StateError, match="there is no version 3; it holds none"):
        tff_io.load_program_state(tmp_path / "absent", 3, np.float32(0))
    (tmp_path / "program_state_4").mkdir()
    with pytest.raises(fb.StateError, match=r"variables.index: No such file .*give a folder"):
        tff_io.load_program_state(tmp_path, 4, np.float32(0))
    with pytest.raises(fb.StateError, match=r"cannot be written \(.*name another folder"):
        tff_io.save_program_state(tmp_path / "program_state_2" / "saved_model.pb", np.float32(0), 1)
    with pytest.raises(fb.StateError, match=r"keep_total=1 with keep_first=True.*allowed"):
        tff_io.save_program_state(tmp_path, np.float32(0), 5, keep_total=1)
    with pytest.raises(fb.StateError, match="keep_every_k is 0; allowed are 1"):
        tff_io.save_program_state(tmp_path, np.float32(0), 5, keep_every_k=0)


# Damage.


def damaged(folder, end, content):
    """The folder of version 3 with another content of one of its files."""
    shutil.copytree(GOLDEN / "program_state_3", folder / "program_state_3", dirs_exist_ok=True)
    (folder / "program_state_3" / f"{BUNDLE}.{end}").write_bytes(content)
    return folder


ENDS = ("index", "data-00000-of-00001")


@settings(max_examples=300, deadline=None)
@given(end=st.sampled_from(ENDS), at=st.integers(0), bit=st.integers(0, 7), cut=st.booleans())
def test_damaged_bytes_are_refused_or_change_nothing(tmp_path_factory, end, at, bit, cut):
    whole = (GOLDEN / "program_state_3" / f"{BUNDLE}.{end}").read_bytes()
    at %= len(whole)
    flipped = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    root = damaged(tmp_path_factory.mktemp("root"), end, whole[:at] if cut else flipped)
    # Only the footer of the index has no checksum; nothing can be cut off.
    if cut or end != "index" or at < len(whole) - 48:
        with pytest.raises(fb.StateError, match="program_state_3"):
            tff_io.load_program_state(root, 3, golden_kinds())
    else:
        with contextlib.suppress(fb.StateError):
            check_same(tff_io.load_program_state(root, 3, golden_kinds()), golden_kinds())


@settings(max_examples=300, deadline=None)
@given(header=st.binary(max_size=20), entry=st.binary(max_size=40))
def test_crafted_entries_raise_nothing_else(tmp_path_factory, header, entry):
    """With checksums that are right."""
    table = _tensor_bundle._table({b"": header, b"w": entry})
    root = damaged(tmp_path_factory.mktemp("root"), "index", table)
    with contextlib.suppress(fb.StateError):
        _tensor_bundle.read_bundle(root / "program_state_3" / BUNDLE)


@settings(max_examples=200, deadline=None)
@given(block=st.binary(max_size=60))
def test_crafted_blocks_raise_nothing_else(block):
    meta = _tensor_bundle._with_trailer(_tensor_bundle._block({}))
    content = meta + _tensor_bundle._with_trailer(block)
    handles = (0, len(meta) - 5, len(meta), len(block))
    footer = b"".join(map(_proto.varint, handles)).ljust(40, b"\0")
    magic = struct.pack("<Q", _tensor_bundle._MAGIC)
    with contextlib.suppress(_proto.DamagedBytesError):
        dict(_tensor_bundle._entries(content + footer + magic))


HEADER = _proto.message((1, 1), (3, _proto.message((1, 1))))
SHAPE = _tensor_bundle.shape_proto((0,))


@pytest.mark.parametrize(
    ("header", "entry", "words"),
    [
        (_proto.message((1, 4)), b"", "written in 4 shards, and one can be read"),
        (_proto.message((1, 1), (2, 1)), b"", "big-endian"),
        (_proto.message((1, 1), (3, _proto.message((2, 2)))), b"", "readers of version 2"),
        (HEADER, _proto.message((1, 1), (7, b"\x0a\0")), "'w' is cut into slices"),
        (HEADER, _proto.message((1, 21), (2, SHAPE)), "TensorFlow's dtype 21, which is not read"),
        (HEADER, _proto.message((1, 1), (2, SHAPE), (3, 1)), "'w' lies in shard 1"),
        (HEADER, _proto.message((1, 1), (2, SHAPE), (5, 4)), r"'w' has 4 bytes.*shape \(0,\)"),
        (HEADER, _proto.message((1, 1), (5, 4)), "'w' is damaged .its checksum differs"),
        (HEADER, _proto.message((1, 1), (4, 1 << 20)), "its data are cut off: 'w' ends at"),
        (HEADER, _proto.message((1, 1), (2, _proto.message((3, 1)))), "'w' has no shape"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, header, entry, words):
    table = _tensor_bundle._table({b"": header, b"w": entry})
    root = damaged(tmp_path, "index", table)
    with pytest.raises(fb.StateError, match=words):
        _tensor_bundle.read_bundle(root / "program_state_3" / BUNDLE)


def test_compressed_tables_are_named(tmp_path):
    whole = (GOLDEN / "program_state_3" / f"{BUNDLE}.index").read_bytes()
    _, second = _tensor_bundle._handle(whole[-48:], 0)
    (start, size), _ = _tensor_bundle._handle(whole[-48:], second)
    block = whole[start : start + size] + b"\1"
    checksum = _crc32c.masked_crc32c(block).to_bytes(4, "little")
    whole = whole[:start] + block + checksum + whole[start + len(block) + 4 :]
    root = damaged(tmp_path, "index", whole)
    with pytest.raises(fb.StateError, match="index is compressed"):
        tff_io.load_program_state(root, 3, golden_kinds())


# The parts.


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_crc32c_is_the_same_in_lanes(data):
    content = np.frombuffer(data * 300, np.uint8)[: 65536 + len(data)]
    if len(content) >= 4:
        assert _crc32c._long(content) == _crc32c._short(content.tobytes())


def test_crc32c_of_the_rfc():
    """RFC 3720, appendix B.4."""
    examples = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E}
    for data, expected in examples.items():
        assert _crc32c.crc32c(data) == expected
        assert _crc32c._long(np.frombuffer(data, np.uint8)) == expected


@given(value=st.integers(0, 2**64 - 1))
def test_numbers_go_round(value):
    assert _proto.read_varint(b"x" + _proto.varint(value), 1) == (
        value,
        1 + len(_proto.varint(value)),
    )
    assert _proto.read_fields(_proto.message((3, value), (4, b"ab"))) == [(3, value), (4, b"ab")]


def test_the_function_returns_dictionaries_in_tensorflow_s_order():
    """tf.nest sorts their keys, and the values come in that order."""
    a, b = np.float32(1), np.int32(2)
    assert (
        program_state({"b": b, "a": a}).saved_model != program_state({"b": a, "a": b}).saved_model
    )
    tensors = program_state({"b": b, "a": a}).tensors
    assert tensors[variable_key("_value", "a")] == a


# Weights.

WEIGHTS = fb.ModelWeights([np.float32([[1, 2]]), np.zeros(3, np.float32)], [np.int64(5)])


def _safetensors():
    pytest.importorskip("safetensors")
    return tff_io.weights_to_safetensors, tff_io.weights_from_safetensors


FORMATS = {
    "npz": lambda: (tff_io.weights_to_npz, tff_io.weights_from_npz),
    "safetensors": _safetensors,
}
formats = pytest.mark.parametrize("name", FORMATS)


@formats
def test_weights_in_files(tmp_path, name):
    write, read = FORMATS[name]()
    file = tmp_path / "folder" / "weights"
    write(WEIGHTS, file)
    check_same(read(file, like=jax.tree.map(np.zeros_like, WEIGHTS)), WEIGHTS)
    halves = {"w": jnp.asarray([0.5, 1.5], jnp.bfloat16), "t": np.arange(6.0).reshape(2, 3).T}
    write(halves, file)
    check_same(read(file, like=halves), halves)
    assert [path.name for path in file.parent.iterdir()] == ["weights"]
    with pytest.raises(fb.StateError, match=r"weights lacks 'trainable/0'.*another model"):
        read(file, like=WEIGHTS)
    with pytest.raises(fb.StateError, match="cannot be read .No such file.*give a file of weights"):
        read(tmp_path / "absent", like=WEIGHTS)
    with pytest.raises(fb.StateError, match="cannot be written there"):
        write(WEIGHTS, file / "weights")


def test_the_names_in_the_files(tmp_path):
    tff_io.weights_to_npz(WEIGHTS, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as stored:
        assert stored.files == ["trainable/0", "trainable/1", "non_trainable/0"]


@formats
def test_files_that_are_no_weights(tmp_path, name):
    write, read = FORMATS[name]()
    file = tmp_path / "weights"
    for content in (b"", b"junk" * 20, b"PK\3\4", bytes(8)):
        file.write_bytes(content)
        with pytest.raises(fb.StateError, match="cannot be read"):
            read(file, like=WEIGHTS)
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("readme.txt", "hello")
    with pytest.raises(fb.StateError, match="cannot be read"):
        read(file, like=WEIGHTS)
    np.save(tmp_path / "array.npy", np.ones(2))
    words = "a single array" if name == "npz" else "cannot be read"
    with pytest.raises(fb.StateError, match=words):
        read(tmp_path / "array.npy", like=WEIGHTS)


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_npz_is_refused_or_changes_nothing(tmp_path_factory, at, bit, cut):
    file = tmp_path_factory.mktemp("weights") / "weights.npz"
    tff_io.weights_to_npz(WEIGHTS, file)
    whole = file.read_bytes()
    at %= len(whole)
    flipped = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    file.write_bytes(whole[:at] if cut else flipped)
    with contextlib.suppress(fb.StateError):
        check_same(tff_io.weights_from_npz(file, like=WEIGHTS), WEIGHTS)


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def _keras_net(keras, units=3):
    layers = keras.layers
    return keras.Sequential(
        [layers.Input((4,)), layers.Dense(units), layers.BatchNormalization(), layers.Dense(2)]
    )


def test_keras_models_give_and_take_weights(keras):
    model, other = _keras_net(keras), _keras_net(keras)
    weights = tff_io.weights_from_keras(model)
    np.testing.assert_array_equal(weights.trainable[1], np.asarray(model.layers[0].bias))
    assert (len(weights.trainable), len(weights.non_trainable)) == (6, 2)
    moved = jax.tree.map(lambda leaf: jnp.asarray(leaf) + 1, weights)
    tff_io.weights_to_keras(moved, other)
    check_same(tff_io.weights_from_keras(other), moved)


def test_keras_models_of_other_layers(keras):
    model, other = _keras_net(keras), _keras_net(keras, units=5)
    before = tff_io.weights_from_keras(other)
    weights = tff_io.weights_from_keras(model)
    with pytest.raises(
        fb.ModelError, match=r"'trainable/0' has the shape \(4, 3\).*has \(4, 5\): pass the weights"
    ):
        tff_io.weights_to_keras(weights, other)
    with pytest.raises(fb.ModelError, match="has 2 non_trainable weights, but 0 were given"):
        tff_io.weights_to_keras(weights._replace(non_trainable=[]), model)
    check_same(tff_io.weights_from_keras(other), before)
    with pytest.raises(fb.ModelError, match="object is no Keras model with weights"):
        tff_io.weights_from_keras(object())
