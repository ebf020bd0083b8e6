"""A TensorFlow graph with a loop over a data set, computed by JAX.

What stands outside of the loop is computed operation by operation; the body of the loop, which is
one step of training with the gradient that TensorFlow derived, is compiled for each shape of a
batch, in programs of up to 16 steps. Variables are values that go from one operation to the next:
their order is that of the graph's control edges.

    for batch in dataset         a ScanDataset in a ReduceDataset
    for batch in iter(dataset)   a While around IteratorGetNextAsOptional
    dataset.reduce(...)          a ReduceDataset
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fedbridge.jax_core._convolutions import jit_on_cpu
from fedbridge.tff_io._graph_rules import NoRuleError, known, rule

Batches = Sequence[Sequence[np.ndarray]]
_MOST_STEPS = 16
"""As many steps are one call of a program; a data set's last ones are fewer."""
_LOOPS = {"ReduceDataset", "While", "StatelessWhile"}
_PRODUCTS = {"MatMul", "BatchMatMulV2", "Conv2D"}
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
        >>> from types import SimpleNamespace as Made
        >>> node = Made(name="minus", op="Neg", input=["x"], attr={})
        >>> graph = Graph(Made(node=[node], library=Made(function=[])), ["minus:0"], {})
        >>> float(graph.compute({"x": np.float32(2)})[0])
        -2.0
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
        bodies = [self._top, *self._functions.values()]
        self._operations = {node.op for body in bodies for node in body.nodes.values()}
        self._constants: dict[int, np.ndarray] = {}

    def trains(self) -> bool:
        """Whether there is a loop over a data set, with a product of matrices or images."""
        return bool(self._operations & _LOOPS) and bool(self._operations & _PRODUCTS)

    def convolves(self) -> bool:
        """Whether there are convolutions."""
        return "Conv2D" in self._operations

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
        self.passes = 0

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
            if body.nodes is self.graph._top.nodes and _of_variables(node.op):
                raise NoRuleError("variables outside of a tf.function have no rule")
            data = [text for text in node.input if not text.startswith("^")]
            inputs = [_output(body, values, text) for text in data]
            made = self.apply(node, inputs)
            values[name] = list(made) if type(made) in (tuple, list) else [made]
        return [_output(body, values, text) for text in body.results]

    def apply(self, node: Any, inputs: list[Any]) -> Any:
        """What a node makes of its inputs."""
        if node.op in _STATEFUL:
            return _STATEFUL[node.op](self, node, *inputs)
        if not all(known(one) or isinstance(one, jax.Array) for one in inputs):
            raise NoRuleError(f"{node.op} has no rule")
        return rule(node.op)(node.attr, *inputs)

    def call(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        """What a function of the graph returns."""
        body = self.graph._functions[name]
        pairs = zip(body.arguments, arguments, strict=True)
        return self.evaluate(body, {argument: [value] for argument, value in pairs})

    # ------------------------------------------------------------------ values and functions

    def constant(self, node: Any) -> Any:
        import tensorflow as tf

        made = self.graph._constants
        if id(node) not in made:
            made[id(node)] = tf.make_ndarray(node.attr["value"].tensor)
        return made[id(node)]

    def nothing(self, node: Any) -> Any:
        return []

    def function(self, node: Any, *inputs: Any) -> Any:
        return self.call(node.attr["f"].func.name, inputs)

    def branch(self, node: Any, condition: Any, *inputs: Any) -> Any:
        if isinstance(condition, Tracer):
            raise NoRuleError("a branch that depends on the data has no rule")
        branch = "then_branch" if np.asarray(condition) else "else_branch"
        return self.call(node.attr[branch].func.name, inputs)

    # ------------------------------------------------------------------ variables

    def variable(self, node: Any) -> Any:
        return _Variable(node.name)

    def read(self, variable: _Variable) -> Any:
        """What a variable holds."""
        if variable.name not in self.state:
            if self.tracing or variable.name not in self.graph._initial:
                raise NoRuleError("a variable without a value has no rule")
            top = self.graph._top._replace(results=[self.graph._initial[variable.name]])
            (self.state[variable.name],) = self.evaluate(top, self.fed)
        return self.state[variable.name]

    def value(self, node: Any, variable: _Variable) -> Any:
        return self.read(variable)

    def assign(self, node: Any, variable: _Variable, value: Any) -> Any:
        self.state[variable.name] = value
        return []

    def assign_add(self, node: Any, variable: _Variable, value: Any) -> Any:
        return self.assign(node, variable, self.read(variable) + value)

    def assign_sub(self, node: Any, variable: _Variable, value: Any) -> Any:
        return self.assign(node, variable, self.read(variable) - value)

    def gradient_descent(self, node: Any, weight: _Variable, rate: Any, g: Any) -> Any:
        return self.assign(node, weight, self.read(weight) - rate * g)

    def keras_momentum(
        self, node: Any, weight: _Variable, trace: _Variable, rate: Any, g: Any, momentum: Any
    ) -> Any:
        moved = self.read(trace) * momentum - rate * g
        step = moved * momentum - rate * g if node.attr["use_nesterov"].b else moved
        self.state[trace.name] = moved
        return self.assign(node, weight, self.read(weight) + step)

    def adam(self, node: Any, weight: _Variable, m: _Variable, v: _Variable, *numbers: Any) -> Any:
        power_1, power_2, rate, beta_1, beta_2, epsilon, g = numbers
        if node.attr["use_nesterov"].b:
            raise NoRuleError("Nadam has no rule")
        first = self.read(m) + (g - self.read(m)) * (1 - beta_1)
        second = self.read(v) + (g * g - self.read(v)) * (1 - beta_2)
        self.state |= {m.name: first, v.name: second}
        scaled = rate * jnp.sqrt(1 - power_2) / (1 - power_1)
        step = scaled * first / (jnp.sqrt(second) + epsilon)
        return self.assign(node, weight, self.read(weight) - step)

    # ------------------------------------------------------------------ data sets and loops

    def dataset(self, node: Any, data: _Data) -> Any:
        return data

    def iterator(self, node: Any) -> Any:
        return _Iterator([])

    def iterate(self, node: Any, data: Any, iterator: _Iterator) -> Any:
        iterator.rest = list(self.batches(data))
        return []

    def next_batch(self, node: Any, iterator: _Iterator) -> Any:
        return _Optional(iterator.rest.pop(0) if iterator.rest else None)

    def has_value(self, node: Any, optional: _Optional) -> Any:
        return np.bool_(optional.batch is not None)

    def batch(self, node: Any, optional: _Optional) -> Any:
        return list(optional.batch or ())

    def batches(self, data: Any) -> Batches:
        """Those of a data set that was fed, once: TensorFlow shuffles anew for a second pass."""
        if not isinstance(data, _Data):
            raise NoRuleError("a data set made within the function has no rule")
        self.passes += 1
        if self.passes > 1:
            raise NoRuleError("a second pass over the data set has no rule")
        return data.batches

    def loop(self, node: Any, *held: Any) -> Any:
        condition, body = (node.attr[name].func.name for name in ("cond", "body"))
        values = list(held)
        iterators = [one for one in values if isinstance(one, _Iterator)]
        while bool(np.asarray(self.call(condition, values)[0])):
            if self.tracing:
                raise NoRuleError("a loop within a step has no rule")
            if len(iterators) == 1 and iterators[0].rest:
                values, left = self.steps(_Kind(body, condition), values, iterators[0].rest)
                iterators[0].rest = list(left)
            else:
                values = self.call(body, values)
        return values

    def scan(self, node: Any, data: Any, *inputs: Any) -> Any:
        count = len(node.attr["Tstate"].list.type)
        return _Scanned(
            self.batches(data), node.attr["f"].func.name, inputs[:count], inputs[count:]
        )

    def reduce(self, node: Any, data: Any, *inputs: Any) -> Any:
        if self.tracing:
            raise NoRuleError("a loop within a step has no rule")
        count = len(node.attr["Tstate"].list.type)
        state, others = list(inputs[:count]), list(inputs[count:])
        inner = data if isinstance(data, _Scanned) else _Scanned(self.batches(data), "", (), ())
        kind = _Kind(node.attr["f"].func.name, "", inner.function, count, len(inner.state))
        values, left = [*state, *inner.state, *others, *inner.others], inner.batches
        while left:
            values, left = self.steps(kind, values, left)
        return values[:count]

    def steps(
        self, kind: "_Kind", values: list[Any], batches: Batches
    ) -> tuple[list[Any], Batches]:
        """Some steps of a loop, compiled: what it holds after them, and the batches that are left.

        All see batches of one shape; there is a program for each.
        """
        fixed = tuple(None if _is_array(one) else _fixed(one) for one in values)
        for one in fixed:
            if isinstance(one, _Variable):
                self.read(one)  # so that it is an input of the program
        if (kind, fixed) not in self.graph._programs:
            self.graph._programs[kind, fixed] = self.program(kind, fixed)
        shapes = [leaf.shape for leaf in batches[0]]
        alike = lambda batch: [leaf.shape for leaf in batch] == shapes
        some = list(itertools.takewhile(alike, batches[:_MOST_STEPS]))
        stacked = [np.zeros((_MOST_STEPS, *x.shape), x.dtype) for x in batches[0]]
        for leaf, column in zip(stacked, zip(*some, strict=True), strict=True):
            np.stack(column, out=leaf[: len(some)])
        arrays = [one for one in values if _is_array(one)]
        program = self.graph._programs[kind, fixed]
        done, self.state, arrays = program(self.state, arrays, stacked, len(some))
        left = iter(arrays)
        held = [next(left) if one is None else x for one, x in zip(fixed, values, strict=True)]
        return held, batches[int(done) if kind.condition else len(some) :]

    def program(self, kind: "_Kind", fixed: tuple[Any, ...]) -> Callable[..., Any]:
        """Steps as a program of what variables hold, of arrays, and of batches."""

        def inside(state: Any, arrays: Any, batch: Any) -> tuple["_Call", list[Any]]:
            left, iterator = iter(arrays), _Iterator([batch])
            given = [
                next(left) if one is None else iterator if one is _Iterator else one
                for one in fixed
            ]
            return _Call(self.graph, {}, state, tracing=True), given

        def step(state: Any, arrays: Any, batch: Any) -> Any:
            call, given = inside(state, arrays, batch)
            made = _bodies(call, kind, given, batch)
            kept = zip(made, given, fixed, strict=True)
            if any(one is not None and new is not old for new, old, one in kept):
                raise NoRuleError("a loop that changes its iterator has no rule")
            return call.state, [new for new, one in zip(made, fixed, strict=True) if one is None]

        def goes_on(state: Any, arrays: Any) -> Any:
            if not kind.condition:
                return True
            call, given = inside(state, arrays, None)
            return call.call(kind.condition, given)[0]

        def steps(state: Any, arrays: Any, stacked: Any, count: Any) -> Any:
            return jax.lax.while_loop(
                lambda carry: (carry[0] < count) & goes_on(*carry[1:]),
                lambda carry: (
                    carry[0] + 1,
                    *step(*carry[1:], [leaf[carry[0]] for leaf in stacked]),
                ),
                (jnp.zeros((), int), state, arrays),
            )

        return jit_on_cpu(steps) if jax.default_backend() == "cpu" else jax.jit(steps)


class _Kind(NamedTuple):
    """The functions of a loop: one on an iterator, or a reduction, perhaps of what a scan gives."""

    body: str
    condition: str = ""
    scanned: str = ""
    state: int = 0
    scan_state: int = 0


_STATEFUL: Mapping[str, Callable[..., Any]] = {
    "AnonymousIteratorV3": _Call.iterator,
    "AssignAddVariableOp": _Call.assign_add,
    "AssignSubVariableOp": _Call.assign_sub,
    "AssignVariableOp": _Call.assign,
    "Const": _Call.constant,
    "DatasetFromGraph": _Call.dataset,
    "If": _Call.branch,
    "IteratorGetNextAsOptional": _Call.next_batch,
    "MakeIterator": _Call.iterate,
    "NoOp": _Call.nothing,
    "OptionalGetValue": _Call.batch,
    "OptionalHasValue": _Call.has_value,
    "PartitionedCall": _Call.function,
    "ReadVariableOp": _Call.value,
    "ReduceDataset": _Call.reduce,
    "ResourceApplyAdam": _Call.adam,
    "ResourceApplyGradientDescent": _Call.gradient_descent,
    "ResourceApplyKerasMomentum": _Call.keras_momentum,
    "ScanDataset": _Call.scan,
    "StatefulPartitionedCall": _Call.function,
    "StatelessIf": _Call.branch,
    "StatelessWhile": _Call.loop,
    "VarHandleOp": _Call.variable,
    "While": _Call.loop,
}
"""Operations on variables, functions and data sets."""


def _of_variables(operation: str) -> bool:
    """Outside of functions nothing but a script's own control edges orders these."""
    return operation.startswith("ResourceApply") or operation.endswith("VariableOp")


def _bodies(call: _Call, kind: _Kind, given: list[Any], batch: Any) -> list[Any]:
    """What a step makes of what it is given."""
    if kind.condition:
        return call.call(kind.body, given)
    at = kind.state + kind.scan_state
    state, scan_state, rest = given[: kind.state], given[kind.state : at], given[at:]
    functions = call.graph._functions
    element = batch
    if kind.scanned:
        own = len(functions[kind.scanned].arguments) - len(scan_state) - len(batch)
        made = call.call(kind.scanned, [*scan_state, *batch, *rest[len(rest) - own :]])
        scan_state, element = made[: kind.scan_state], made[kind.scan_state :]
    own = len(functions[kind.body].arguments) - len(state) - len(element)
    return [*call.call(kind.body, [*state, *element, *rest[:own]]), *scan_state, *rest]


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
