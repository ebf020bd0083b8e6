"""Computations that train over a data set, on JAX where they give what TensorFlow gives.

Such a computation is a loop with a forward pass, a gradient and an optimizer's step: a local-SGD
client update, or an evaluation. Before JAX's result is used, it is held against TensorFlow's on
batches of the first client that has data. What is not recognised, or differs, stays where it is;
so does a client whose result is not finite, since TensorFlow may stop there with an error.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedbridge.jax_core._compat import in_64_bits
from fedbridge.tff._errors import note
from fedbridge.tff._sequences import element_spec, of_elements, session, tensorflow, written
from fedbridge.tff._types import SequenceType
from fedbridge.tff_io._graph_in_jax import Batches, Graph
from fedbridge.tff_io._graph_rules import NoRuleError

# Of what two batches change, plus the last two bits of the numbers themselves: two builds of one
# formula differ by up to 4e-7 in a step, and a wrong formula by more than 1e-3.
TOLERANCE = 1e-6
_MOST_BATCHES = 1 << 12

InTensorFlow = Callable[[Mapping[str, Any]], list[Any]]


class Placed(NamedTuple):
    """Where a data set enters a graph."""

    name: str
    """That of its placeholder."""
    type_spec: SequenceType


def on_jax(
    graph: Graph, place: Placed, in_tensorflow: InTensorFlow, function: Callable[..., Any]
) -> InTensorFlow:
    """The same computation, on JAX once the first client has shown that it can be.

    Args:
        graph: The graph of a computation that trains.
        place: Its data set.
        in_tensorflow: What its results are, for what is fed by name of a placeholder.
        function: The script's, for the line that says where it runs.
    """
    read: Any = None
    moves: bool | None = None

    def compute(fed: Mapping[str, Any]) -> list[Any]:
        nonlocal read, moves
        if moves is False:
            return in_tensorflow(fed)
        try:
            if graph.convolves() and jax.default_backend() == "cpu":
                raise NoRuleError("convolutions are no faster there on a CPU")
            read = read or _reader(place.type_spec)
            batches = read(fed[place.name])
            if not batches:
                return in_tensorflow(fed)
            if moves is None:
                _check(graph, place, in_tensorflow, fed, batches)
                note(f"{_named(function)} runs on JAX; compared with TensorFlow on two batches")
                moves = True
            made = _computed(graph, place, fed, batches)
        except Exception as error:  # noqa: BLE001 -- whatever it is, TensorFlow itself computes it
            if moves is None:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
                note(f"{_named(function)} runs in TensorFlow, not on JAX: {reason[:200]}")
                moves = False
            return in_tensorflow(fed)
        finite = all(np.all(np.isfinite(leaf)) for leaf in made if leaf.dtype.kind == "f")
        return made if finite else in_tensorflow(fed)

    return compute


def _computed(
    graph: Graph, place: Placed, fed: Mapping[str, Any], batches: Batches
) -> list[np.ndarray]:
    with in_64_bits():
        return [np.asarray(leaf) for leaf in graph.compute({**fed, place.name: list(batches)})]


def _check(
    graph: Graph,
    place: Placed,
    in_tensorflow: InTensorFlow,
    fed: Mapping[str, Any],
    batches: Batches,
) -> None:
    """On the first two batches, also from weights beside these, and on a last one of another size.

    Raises:
        NoRuleError: JAX gives something else than TensorFlow.
    """
    rng = np.random.default_rng(0)
    floats = lambda leaf: isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind == "f"
    # Weights that are all zero would hide half of a gradient.
    beside = {
        name: leaf + (0.1 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
        if floats(leaf)
        else leaf
        for name, leaf in fed.items()
    }

    def theirs(given: Mapping[str, Any], some: Batches) -> list[np.ndarray]:
        dataset = of_elements([list(batch) for batch in some], place.type_spec)
        with_data = {**given, place.name: written(dataset, place.type_spec)}
        return [np.asarray(leaf) for leaf in in_tensorflow(with_data)]

    shapes = [[leaf.shape for leaf in batch] for batch in batches]
    probes = [(fed, batches[:2]), (beside, batches[:2])]
    if shapes[-1] != shapes[0]:
        probes.append((fed, batches[-1:]))
    for given, some in probes:
        ours, expected = _computed(graph, place, given, some), theirs(given, some)
        if not _agree(ours, expected, theirs(given, [])):
            raise NoRuleError("what JAX makes of it differs from TensorFlow")


def _agree(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], start: Sequence[np.ndarray]
) -> bool:
    """Whether results agree, where `start` is the one without data.

    Arrays are held against what all of them move together, single numbers against their own.
    """
    finite = lambda leaf: np.where(np.isfinite(leaf), leaf, 0).astype(float)
    moved = [
        float(np.linalg.norm(finite(leaf) - finite(old))) if leaf.dtype.kind == "f" else 0.0
        for leaf, old in zip(theirs, start, strict=True)
    ]
    together = np.sqrt(sum(size**2 for size, x in zip(moved, theirs, strict=True) if x.ndim))
    for mine, leaf, alone in zip(ours, theirs, moved, strict=True):
        if (mine.dtype, mine.shape) != (leaf.dtype, leaf.shape):
            return False
        if leaf.dtype.kind != "f":
            if not np.array_equal(mine, leaf):
                return False
            continue
        bound = TOLERANCE * (together if leaf.ndim else alone) + 2 * np.spacing(np.abs(leaf))
        close = np.abs(mine.astype(float) - leaf) <= bound
        if not np.all(close | (mine == leaf) | (np.isnan(mine) & np.isnan(leaf))):
            return False
    return True


def _reader(type_spec: SequenceType) -> Callable[[bytes], Batches]:
    """All batches of a data set at once: one after another costs several times as much."""
    tf = tensorflow()
    spec = element_spec(type_spec)
    if any(one.dtype == tf.string or one.shape.rank is None for one in tf.nest.flatten(spec)):
        raise NoRuleError("a data set of texts has no rule")

    def sized(*element: Any) -> Any:
        flat = tf.nest.flatten(element)
        return tuple(flat), tuple(tf.shape(leaf) for leaf in flat)

    with tf.Graph().as_default() as graph:
        given = tf.compat.v1.placeholder(tf.string, ())
        variant = tf.raw_ops.DatasetFromGraph(graph_def=given)
        dataset = tf.data.experimental.from_variant(variant, spec).take(_MOST_BATCHES + 1)
        whole = dataset.map(sized).padded_batch(_MOST_BATCHES + 1).get_single_element()
    opened = session(graph)

    def read(data: bytes) -> Batches:
        try:
            columns, shapes = opened.run(whole, {given: data})
        except tf.errors.InvalidArgumentError:  # it is empty, or its graph raises, as in TensorFlow
            return []
        if len(shapes[0]) > _MOST_BATCHES:
            raise NoRuleError("a data set of many thousand batches has no rule")
        cut = lambda leaf, shape: leaf[tuple(slice(size) for size in shape)]
        return [
            [cut(leaf[i], shape[i]) for leaf, shape in zip(columns, shapes, strict=True)]
            for i in range(len(shapes[0]))
        ]

    return read


def _named(function: Callable[..., Any]) -> str:
    """A function of the script's, with its line."""
    inner = inspect.unwrap(getattr(function, "python_function", function))
    code = getattr(inner, "__code__", None)
    name = getattr(inner, "__name__", type(function).__name__)
    return f"{name} (line {code.co_firstlineno})" if code else name
