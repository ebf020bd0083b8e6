"""What a script does to a client's data set, as a `fb.pipeline` and JAX functions of a batch."""

import ast
from typing import NamedTuple

from fedbridge.bridge.aliases import Aliases
from fedbridge.bridge.migrate_names import Unknown, given
from fedbridge.bridge.source import Change, Source

_STEPS = ("repeat", "shuffle", "take", "skip", "batch")
_NOTHING = ("prefetch", "cache", "with_options")
_TO_JAX = {
    "expand_dims": "jnp.expand_dims",
    "reshape": "jnp.reshape",
    "squeeze": "jnp.squeeze",
    "transpose": "jnp.transpose",
    "one_hot": "jax.nn.one_hot",
    "stack": "jnp.stack",
    "concat": "jnp.concatenate",
    "zeros_like": "jnp.zeros_like",
    "ones_like": "jnp.ones_like",
    "abs": "jnp.abs",
    "float32": "jnp.float32",
    "int32": "jnp.int32",
    "newaxis": "None",
}


_SAME_WORDS = ("axis", "shape")  # arguments that JAX calls the same


class Chain(NamedTuple):
    """What is done to a data set, taken apart.

    Attributes:
        steps: Of the pipeline: the calls of repeat, shuffle, take, skip and batch.
        examples: Functions of one example, first to last; they come before the batches.
        batches: Functions of a batch.
    """

    steps: list[ast.Call]
    examples: list[ast.expr]
    batches: list[ast.expr]


class Preprocess(NamedTuple):
    """A function of the script from a data set to one of batches.

    Attributes:
        name: Of the function.
        node: The function, or the assignment of a lambda.
        parameters: Those after the data set.
        chain: What it does.
        inner: The functions defined in it.
    """

    name: str
    node: ast.FunctionDef | ast.Assign
    parameters: list[ast.arg]
    chain: Chain
    inner: list[ast.FunctionDef]

    @property
    def mapped(self) -> ast.expr | None:
        """The function of an example or a batch."""
        functions = [*self.chain.examples, *self.chain.batches]
        if len(functions) > 1:
            raise Unknown(functions[1], "more than one map")
        return functions[0] if functions else None

    @property
    def function_name(self) -> str:
        """Its name in the new script; "" without one."""
        mapped = self.mapped
        named = mapped.id if isinstance(mapped, ast.Name) else f"{self.name}_batch"
        return named if mapped else ""


def preprocess_of(statement: ast.stmt) -> Preprocess | None:
    """The preprocessing that a statement defines; None if it defines something else."""
    name = result = None
    node: ast.FunctionDef | ast.Assign
    body: list[ast.stmt] = []
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda):
        node, function, result = statement, statement.value, statement.value.body
        name = getattr(statement.targets[0], "id", None)
    elif isinstance(statement, ast.FunctionDef) and isinstance(statement.body[-1], ast.Return):
        node = function = statement
        name = statement.name
        *body, last = statement.body
        result = last.value  # type: ignore[attr-defined]
    if name is None or not isinstance(result, ast.expr):
        return None
    parameters = function.args.args
    if not parameters:
        return None
    values: dict[str, ast.expr] = {}
    inner: list[ast.FunctionDef] = []
    for number, part in enumerate(body):
        if isinstance(part, ast.FunctionDef):
            inner.append(part)
        elif isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name):
            values[part.targets[0].id] = _inlined(part.value, values)
        elif not (number == 0 and isinstance(part, ast.Expr)):  # a docstring may come first
            return None
    chain = chain_of(_inlined(result, values), parameters[0].arg)
    return chain and Preprocess(name, node, parameters[1:], chain, inner)


def chain_of(node: ast.expr, root: str | None = None) -> Chain | None:
    """The calls from the data set `root`, or of a client of a `ClientData`, to `node`."""
    calls: list[ast.Call] = []
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "create_tf_dataset_for_client":
            break
        calls.insert(0, node)
        node = node.func.value
    at_root = isinstance(node, ast.Name) and node.id == root
    if not (at_root if root else isinstance(node, ast.Call)):
        return None
    names = [call.func.attr for call in calls]  # type: ignore[attr-defined]
    if "batch" not in names:
        return None
    steps, examples, batches = [], [], []
    for call, name in zip(calls, names, strict=True):
        if name in _STEPS:
            if "batch" in [step.func.attr for step in steps]:  # type: ignore[attr-defined]
                raise Unknown(call, f"{name} after batch; let batch come last")
            steps.append(call)
        elif name == "map" and call.args:
            (batches if steps and _name(steps[-1]) == "batch" else examples).append(call.args[0])
        elif name not in _NOTHING:
            raise Unknown(call, f"tf.data's {name} has no counterpart in fb.pipeline")
    return Chain(steps, examples, batches)


def pipeline_text(chain: Chain, source: Source, change: Change) -> str:
    """`fb.pipeline.repeat(5).shuffle(100).batch(20)`."""
    text = "fb.pipeline"
    for call in chain.steps:
        arguments = [source.text(argument, change) for argument in call.args]
        for word in call.keywords:
            if word.arg not in ("num_parallel_calls", "deterministic", "name"):
                known = {"batch_size": "size"}.get(word.arg or "", word.arg)
                arguments.append(f"{known}={source.text(word.value, change)}")
        text += f".{_name(call)}({', '.join(arguments)})"
    return text


def preprocess_text(found: Preprocess, source: Source, aliases: Aliases, change: Change) -> str:
    """The function of a batch, and a function that gives the pipeline."""
    node, indent = found.node, " " * found.node.col_offset
    pipeline = pipeline_text(found.chain, source, change)
    mapped = _BatchFunction(found, source, aliases).text() if found.mapped else ""
    if isinstance(node, ast.Assign):
        return f"{mapped}{found.name} = {pipeline}"
    parameters = ast.unparse(node.args).partition(",")[2].strip()
    return f"{mapped}def {found.name}({parameters}):\n{indent}    return {pipeline}"


class _BatchFunction:
    """What a preprocessing maps, written in JAX."""

    def __init__(self, found: Preprocess, source: Source, aliases: Aliases):
        self.found, self.source, self.aliases = found, source, aliases

    def text(self) -> str:
        """The function with what has to stand before it and after it."""
        found, mapped = self.found, self.found.mapped
        indent = " " * found.node.col_offset
        vmap = f"@jax.vmap\n{indent}" if found.chain.examples else ""
        gap = "\n" if indent else "\n\n\n"
        if isinstance(mapped, ast.Lambda):
            if len(mapped.args.args) != 1:
                raise Unknown(mapped, "a map of several arguments")
            head = f"{vmap}def {found.function_name}({mapped.args.args[0].arg}):"
            text = f"{head}\n{indent}    return {self._batch(mapped.body)}"
        else:
            text = vmap + self._definition()
        return f"{text}{gap}{indent}"

    def _definition(self) -> str:
        name = self.found.function_name
        node = next((inner for inner in self.found.inner if inner.name == name), None)
        if node is None or len(node.args.args) != 1:
            raise Unknown(
                self.found.mapped or self.found.node,
                f"{self.found.name} maps {name}, which is no function of one argument that is "
                f"written inside {self.found.name}; write it there",
            )
        read = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        if read & {parameter.arg for parameter in self.found.parameters}:
            raise Unknown(node, f"a map that depends on the arguments of {self.found.name}")
        last = node.body[-1]
        if not isinstance(last, ast.Return) or last.value is None:
            raise Unknown(node, "a map that does not end in return")
        text = self.source.text(
            node, lambda part: self._batch(part) if part is last.value else self._in_jax(part)
        )
        deeper = " " * (node.col_offset - self.found.node.col_offset)
        return text.replace(f"\n{deeper}", "\n")

    def _batch(self, node: ast.AST) -> str:
        """What the function returns: features by name."""
        if isinstance(node, ast.Tuple):
            if len(node.elts) != 2:
                raise Unknown(node, "batches of more than x and y")
            x, y = map(self._text, node.elts)
            return f'{{"x": {x}, "y": {y}}}'
        return self._text(node)

    def _text(self, node: ast.AST) -> str:
        return self._in_jax(node) or self.source.text(node, self._in_jax)

    def _in_jax(self, node: ast.AST) -> str | None:
        """TensorFlow's functions become JAX's."""
        if isinstance(node, ast.Call) and self.aliases.full(node.func) == "tensorflow.cast":
            values = given(node, ("x", "dtype"), least=2)
            return f"jnp.asarray({self._text(values['x'])}, {self._text(values['dtype'])})"
        if isinstance(node, ast.Call) and (self.aliases.full(node.func) or "").startswith(
            "tensorf"
        ):
            for word in node.keywords:
                if word.arg not in _SAME_WORDS:
                    raise Unknown(node, f"{ast.unparse(node.func)}({word.arg}=...)")
        top, _, rest = (self.aliases.full(node) or "").partition(".")
        if top != "tensorflow" or not isinstance(node, ast.Attribute):
            return None
        if rest not in _TO_JAX:
            raise Unknown(node, f"tf.{rest} in a function of a batch has no JAX name here")
        return _TO_JAX[rest]


def _inlined(node: ast.expr, values: dict[str, ast.expr]) -> ast.expr:
    """`shuffled.batch(20)` with what `shuffled` was assigned, along the chain of calls.

    A function that is mapped is there as the lambda that it was assigned.
    """
    if isinstance(node, ast.Name):
        return values.get(node.id, node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        func = ast.copy_location(
            ast.Attribute(_inlined(node.func.value, values), node.func.attr, ast.Load()), node.func
        )
        lambdas = {name: value for name, value in values.items() if isinstance(value, ast.Lambda)}
        args = [lambdas.get(getattr(arg, "id", ""), arg) for arg in node.args]
        return ast.copy_location(ast.Call(func, args, node.keywords), node)
    return node


def _name(call: ast.Call) -> str:
    return call.func.attr  # type: ignore[attr-defined]
