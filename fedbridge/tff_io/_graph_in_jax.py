"""A TensorFlow graph with a loop over a data set, computed by JAX.

What stands outside of the loop is computed operation by operation; the body of the loop, which is
one step of training with the gradient that TensorFlow derived, is one compiled program for each
shape of a batch. Variables are values that go from one operation to the next: their order is that
of the graph's control edges.

    for batch in dataset         a ScanDataset in a ReduceDataset
    for batch in iter(dataset)   a While around IteratorGetNextAsOptional
    dataset.reduce(...)          a ReduceDataset
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedbridge.jax_core._compat import eigen_convolutions
from fedbridge.tff_io._graph_rules import NoRuleError, known, rule

Batches = Sequence[Sequence[np.ndarray]]
_LOOPS = {"ReduceDataset", "While", "StatelessWhile"}
_PRODUCTS = {"MatMul", "BatchMatMulV2", "Conv2D"}
# Outside of functions nothing but a script's own control edges orders them.
_OF_VARIABLES = {"ReadVariableOp", "AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"}
_NAMED_OUTPUTS = {
    "BroadcastGradientArgs": ("r0", "r1"),
    "SoftmaxCrossEntropyWithLogits": ("loss", "backprop"),
    "SparseSoftmaxCrossEntropyWithLogits": ("loss", "backprop"),
}


class _Body(NamedTuple):
    """A graph, or a function in it: nodes by name, and which outputs of which it returns."""

    arguments: Sequence[str]
    nodes: Mapping[str, Any]
    results: Sequence[str]
    controls: Sequence[str]


class _Variable(NamedTuple):
    name: str


class _Scanned(NamedTuple):
    """A data set of what a function of a state makes of another one."""

    batches: Any
    function: str
    state: Sequence[Any]
    others: Sequence[Any]


class _Data(NamedTuple):
    batches: Batches


class _Optional(NamedTuple):
    batch: Sequence[Any] | None


class _Iterator:
    """Over the batches that are left."""

    def __init__(self, batches: Iterable[Any]):
        self.rest = list(batches)


class Graph:
    """A graph that JAX computes.

    Args:
        graph_def: The graph.
        results: The names of its tensors that are wanted.
        initial: By name of a variable the tensor that it starts from.

    Example:
        >>> import tensorflow as tf                                         # doctest: +SKIP
        >>> Graph(graph.as_graph_def(), ["sum:0"], {}).compute({"x": np.float32(1)})
    """

    def __init__(self, graph_def: Any, results: Sequence[str], initial: Mapping[str, str]):
        self._functions = {
            function.signature.name: _Body(
                [argument.name for argument in function.signature.input_arg],
                {node.name: node for node in function.node_def},
                [function.ret[output.name] for output in function.signature.output_arg],
                list(function.control_ret.values()),
            )
            for function in graph_def.library.function
        }
        self._top = _Body([], {node.name: node for node in graph_def.node}, results, [])
        self._initial = initial
        self._programs: dict[Any, Callable[..., Any]] = {}

    def trains(self) -> bool:
        """Whether there is a loop over a data set, with a product of matrices or images."""
        bodies = [self._top, *self._functions.values()]
        operations = {node.op for body in bodies for node in body.nodes.values()}
        return bool(operations & _LOOPS) and bool(operations & _PRODUCTS)

    def compute(self, fed: Mapping[str, Any]) -> list[Any]:
        """The wanted tensors.

        Args:
            fed: By name of a placeholder its array; a data set is its batches, lists of arrays.

        Raises:
            NoRuleError: The graph does something else than is known here.
        """
        values = {
            name: [_Data(value) if isinstance(value, list) else np.asarray(value)]
            for name, value in fed.items()
        }
        with np.errstate(all="ignore"):
            return _Call(self, values).evaluate(self._top, values)


class _Call:
    """One computation, or a step of it while that is traced: what the variables hold."""

    def __init__(self, graph: Graph, fed: Mapping[str, Any], state: Any = None, tracing=False):
        self.graph, self.fed, self.tracing = graph, fed, tracing
        self.state: dict[str, Any] = dict(state or {})

    def evaluate(self, body: _Body, values: Mapping[str, list[Any]]) -> list[Any]:
        """What a body returns; `values` are those of its arguments."""
        values = dict(values)
        pending = [_parsed(text)[0] for text in (*reversed(body.results), *body.controls)]
        opened = set()
        while pending:
            name = pending[-1]
            if name in values:
                pending.pop()
                continue
            node = body.nodes[name]
            needed = [_parsed(text)[0] for text in node.input]
            missing = [one for one in needed if one not in values]
            if missing:
                if name in opened:
                    raise NoRuleError("a loop within one graph has no rule")
                opened.add(name)
                pending += missing
                continue
            if body.nodes is self.graph._top.nodes and node.op in _OF_VARIABLES:
                raise NoRuleError("variables outside of a tf.function have no rule")
            data = [text for text in node.input if not text.startswith("^")]
            inputs = [_output(body, values, text) for text in data]
            made = self.apply(node, inputs)
            values[name] = list(made) if type(made) in (tuple, list) else [made]
        return [_output(body, values, text) for text in body.results]

    def apply(self, node: Any, inputs: list[Any]) -> Any:
        """What a node makes of its inputs."""
        special = getattr(self, f"_{node.op}", None)
        if special is not None:
            return special(node, *inputs)
        if not all(known(one) or isinstance(one, jax.Array) for one in inputs):
            raise NoRuleError(f"{node.op} has no rule")
        return rule(node.op)(node.attr, *inputs)

    def call(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        """What a function of the graph returns."""
        body = self.graph._functions[name]
        pairs = zip(body.arguments, arguments, strict=True)
        return self.evaluate(body, {argument: [value] for argument, value in pairs})

    # ------------------------------------------------------------------ values and functions

    def _Const(self, node: Any) -> Any:
        import tensorflow as tf

        return tf.make_ndarray(node.attr["value"].tensor)

    def _NoOp(self, node: Any) -> Any:
        return []

    def _PartitionedCall(self, node: Any, *inputs: Any) -> Any:
        return self.call(node.attr["f"].func.name, inputs)

    _StatefulPartitionedCall = _PartitionedCall

    def _If(self, node: Any, condition: Any, *inputs: Any) -> Any:
        if isinstance(condition, jax.core.Tracer):
            raise NoRuleError("a branch that depends on the data has no rule")
        branch = "then_branch" if np.asarray(condition) else "else_branch"
        return self.call(node.attr[branch].func.name, inputs)

    _StatelessIf = _If

    # ------------------------------------------------------------------ variables

    def _VarHandleOp(self, node: Any) -> Any:
        return _Variable(node.name)

    def read(self, variable: _Variable) -> Any:
        """What a variable holds."""
        if variable.name not in self.state:
            if self.tracing or variable.name not in self.graph._initial:
                raise NoRuleError("a variable without a value has no rule")
            top = self.graph._top._replace(results=[self.graph._initial[variable.name]])
            (self.state[variable.name],) = self.evaluate(top, self.fed)
        return self.state[variable.name]

    def _ReadVariableOp(self, node: Any, variable: _Variable) -> Any:
        return self.read(variable)

    def _AssignVariableOp(self, node: Any, variable: _Variable, value: Any) -> Any:
        self.state[variable.name] = value
        return []

    def _AssignAddVariableOp(self, node: Any, variable: _Variable, value: Any) -> Any:
        return self._AssignVariableOp(node, variable, self.read(variable) + value)

    def _AssignSubVariableOp(self, node: Any, variable: _Variable, value: Any) -> Any:
        return self._AssignVariableOp(node, variable, self.read(variable) - value)

    def _ResourceApplyGradientDescent(self, node: Any, weight: _Variable, rate: Any, g: Any) -> Any:
        return self._AssignVariableOp(node, weight, self.read(weight) - rate * g)

    def _ResourceApplyKerasMomentum(
        self, node: Any, weight: _Variable, trace: _Variable, rate: Any, g: Any, momentum: Any
    ) -> Any:
        moved = self.read(trace) * momentum - rate * g
        step = moved * momentum - rate * g if node.attr["use_nesterov"].b else moved
        self.state[trace.name] = moved
        return self._AssignVariableOp(node, weight, self.read(weight) + step)

    # ------------------------------------------------------------------ data sets and loops

    def _DatasetFromGraph(self, node: Any, data: _Data) -> Any:
        return data

    def _AnonymousIteratorV3(self, node: Any) -> Any:
        return _Iterator([])

    def _MakeIterator(self, node: Any, data: Any, iterator: _Iterator) -> Any:
        iterator.rest = list(_batches(data))
        return []

    def _IteratorGetNextAsOptional(self, node: Any, iterator: _Iterator) -> Any:
        return _Optional(iterator.rest.pop(0) if iterator.rest else None)

    def _OptionalHasValue(self, node: Any, optional: _Optional) -> Any:
        return np.bool_(optional.batch is not None)

    def _OptionalGetValue(self, node: Any, optional: _Optional) -> Any:
        return list(optional.batch or ())

    def _While(self, node: Any, *held: Any) -> Any:
        condition, body = (node.attr[name].func.name for name in ("cond", "body"))
        values = list(held)
        iterators = [one for one in values if isinstance(one, _Iterator)]
        if self.tracing:
            raise NoRuleError("a loop within a step has no rule")
        while bool(np.asarray(self.call(condition, values)[0])):
            if len(iterators) == 1 and iterators[0].rest:
                values = self.step(("While", body), values, iterators[0].rest.pop(0))
            else:
                values = self.call(body, values)
        return values

    _StatelessWhile = _While

    def _ScanDataset(self, node: Any, data: Any, *inputs: Any) -> Any:
        count = len(node.attr["Tstate"].list.type)
        return _Scanned(_batches(data), node.attr["f"].func.name, inputs[:count], inputs[count:])

    def _ReduceDataset(self, node: Any, data: Any, *inputs: Any) -> Any:
        if self.tracing:
            raise NoRuleError("a loop within a step has no rule")
        count = len(node.attr["Tstate"].list.type)
        state, others = list(inputs[:count]), list(inputs[count:])
        inner = data if isinstance(data, _Scanned) else _Scanned(_batches(data), "", (), ())
        kind = ("Reduce", inner.function, node.attr["f"].func.name, count, len(inner.state))
        values = [*state, *inner.state, *others, *inner.others]
        for batch in inner.batches:
            values = self.step(kind, values, batch)
        return values[:count]

    def step(self, kind: tuple[Any, ...], values: list[Any], batch: Sequence[Any]) -> list[Any]:
        """One step of a loop, compiled: what it is given, after it."""
        fixed = tuple(None if _is_array(one) else _fixed(one) for one in values)
        for one in fixed:
            if isinstance(one, _Variable):
                self.read(one)  # so that it is an input of the program
        if (kind, fixed) not in self.graph._programs:
            self.graph._programs[kind, fixed] = self.program(kind, fixed)
        arrays = [one for one in values if _is_array(one)]
        self.state, arrays = self.graph._programs[kind, fixed](self.state, arrays, list(batch))
        left = iter(arrays)
        return [next(left) if one is None else old for one, old in zip(fixed, values, strict=True)]

    def program(self, kind: tuple[Any, ...], fixed: tuple[Any, ...]) -> Callable[..., Any]:
        """A step as a program of what variables hold, of arrays, and of a batch."""

        def step(state: Any, arrays: Any, batch: Any) -> Any:
            inner = _Call(self.graph, {}, state, tracing=True)
            left, iterator = iter(arrays), _Iterator([batch])
            given = [
                next(left) if one is None else iterator if one is _Iterator else one
                for one in fixed
            ]
            made = _bodies(inner, kind, given, batch)
            kept = zip(made, given, fixed, strict=True)
            if any(one is not None and new is not old for new, old, one in kept):
                raise NoRuleError("a loop that changes its iterator has no rule")
            return inner.state, [new for new, one in zip(made, fixed, strict=True) if one is None]

        return jax.jit(step, **eigen_convolutions())


def _bodies(call: _Call, kind: tuple[Any, ...], given: list[Any], batch: Any) -> list[Any]:
    """What a step makes of what it is given."""
    if kind[0] == "While":
        return call.call(kind[1], given)
    _, scanned, reduced, count, inner = kind
    state, scan_state, rest = given[:count], given[count : count + inner], given[count + inner :]
    body = call.graph._functions[reduced].arguments
    element = batch
    if scanned:
        taken = len(call.graph._functions[scanned].arguments) - inner - len(batch)
        made = call.call(scanned, [*scan_state, *batch, *rest[len(rest) - taken :]])
        scan_state, element = made[:inner], made[inner:]
    others = rest[: len(body) - count - len(element)]
    return [*call.call(reduced, [*state, *element, *others]), *scan_state, *rest]


def _batches(data: Any) -> Batches:
    if not isinstance(data, _Data):
        raise NoRuleError("a data set made within the function has no rule")
    return data.batches


def _is_array(value: Any) -> bool:
    return known(value) or isinstance(value, jax.Array)


def _fixed(value: Any) -> Any:
    """What stands for a value that is no array, in the key of a program."""
    if isinstance(value, _Variable):
        return value
    if isinstance(value, _Iterator):
        return _Iterator
    raise NoRuleError(f"a loop over {type(value).__name__.strip('_')} has no rule")


def _parsed(text: str) -> tuple[str, str, int]:
    """Node, name of its output in a function, and place of an input's name."""
    name, _, rest = text.removeprefix("^").partition(":")
    output, _, place = rest.rpartition(":")
    return name, output, int(place or 0)


def _output(body: _Body, values: Mapping[str, list[Any]], text: str) -> Any:
    name, output, place = _parsed(text)
    if output and name in body.nodes:
        named = _NAMED_OUTPUTS.get(body.nodes[name].op, ())
        place += named.index(output) if output in named else 0
    return values[name][place]
