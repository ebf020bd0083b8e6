"""`fedbridge migrate`: a TFF script in its common shapes, written anew against fedbridge's own API.

The text is changed where it must be and nowhere else. What a script does to a client's data set in
`tf.data` becomes a `fb.pipeline` and a JAX function of a batch; a list of data sets becomes the
cohort of a round; models, optimizers and builders become fedbridge's. A script that needs anything
else is not migrated, and the error names every line that stands in the way.
"""

import ast
import os
from typing import Any, NamedTuple

from fedbridge.bridge import eras, migrate_names as names, script
from fedbridge.bridge.aliases import TFF, imported
from fedbridge.bridge.migrate_calls import built, model
from fedbridge.bridge.migrate_data import chain_of, pipeline_text, preprocess_text
from fedbridge.bridge.migrate_found import Found, called_name, is_list, is_method, preprocess_fn
from fedbridge.bridge.migrate_names import Unknown
from fedbridge.bridge.source import Source
from fedbridge.jax_core import ScriptError

_WIDTH = 96
_IMPORT = "import fedbridge as fb"
_JAX = {"jax": "jax.", "jax.numpy as jnp": "jnp."}  # an import, and how its use looks
_CLIENT_DATA = (
    "create_tf_dataset_from_all_clients", "dataset_computation", "datasets",
    "element_type_structure", "serializable_dataset_fn",
)  # fmt: skip


class Migrated(NamedTuple):
    """A script in fedbridge's own API.

    Attributes:
        text: The new script.
        notes: What to know about it.
    """

    text: str
    notes: list[str]


def migrate(path: str | os.PathLike[str]) -> Migrated:
    """Writes a TFF script anew against fedbridge's own API; nothing is run.

    Args:
        path: The script or notebook.

    Returns:
        The new script, which computes what `fedbridge run` computes for the old one.

    Raises:
        ScriptError: There is no such script, it is no Python, or it needs what has no counterpart
            here; every such line is named.
    """
    pieces = script.pieces(path)
    for piece in pieces:
        script.parsed(piece)
    source = Source("\n\n# %%\n".join(piece.source for piece in pieces))
    try:
        migration = _Migration(source)
        new, unknown = migration.run(), migration.unknown
    except Unknown as error:  # met before there was a migration
        new, unknown = "", [(getattr(error.node, "lineno", 0), error.why)]
    if unknown:
        lines = sorted(set(unknown))
        raise ScriptError(
            f"{path} cannot be migrated: "
            + "; ".join(f"line {line}: {why}" for line, why in lines)
            + ". `fedbridge run` takes more scripts as they are."
        )
    return Migrated(new, list(dict.fromkeys(migration.notes)))


class _Migration:
    """The change of each node of one script."""

    def __init__(self, source: Source):
        self.source, self.found = source, Found(source)
        self.unknown: list[tuple[int, str]] = []
        self.notes: list[str] = []

    def run(self) -> str:
        text = self.source.text(self.source.tree, self.change)
        jax = [f"import {module}\n" for module, used in _JAX.items() if used in text]
        return text.replace(_IMPORT, "".join([*jax, "\n" if jax else "", _IMPORT]), 1)

    def change(self, node: ast.AST) -> str | None:
        """The new text of a node of the script, None where it stays."""
        try:
            if id(node) in self.found.dead:
                return ""
            if isinstance(node, ast.stmt):
                return self._statement(node)
            if isinstance(node, ast.Call):
                return self._call(node)
            if isinstance(node, ast.ListComp) and is_list(node):
                return self._cohort(node, self._round(node))
            if isinstance(node, ast.Name):
                return self._named(node) or self._clients(node)
            if isinstance(node, ast.Attribute):
                return self._named(node) or self._part(node, node.attr)
            if isinstance(node, ast.Subscript):
                return self._part(node, getattr(node.slice, "value", None))
        except Unknown as error:
            self.unknown.append((getattr(error.node, "lineno", 0), error.why))
            return ast.unparse(node)
        return None

    # -------------------------------------------------------------- statements

    def _statement(self, node: ast.stmt) -> str | None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            return self._import(node)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found = eras.lookup(self.found.symbol(node.value.func))
            ignored = found is not None and found.status in (eras.ACCEPTED, eras.IGNORED)
            hello = "federated_computation(lambda: 'Hello" in ast.unparse(node)
            return "" if ignored or hello else None
        if isinstance(node, ast.Assign) and eras.is_package(self.found.symbol(node.value)):
            return ""  # learning = tff.learning
        name = getattr(node, "name", None)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        preprocess = self.found.preprocess.get(name or "")
        if preprocess is not None and preprocess.node is node:
            return preprocess_text(preprocess, self.source, self.found.aliases, self.change)
        if isinstance(node, ast.FunctionDef) and self.found.helpers.get(node.name) is node:
            return self._helper(node)
        if isinstance(node, ast.Assign) and name and self.found.lists.get(name) is node:
            return self._list_assigned(name, node)
        return None

    def _import(self, node: ast.Import | ast.ImportFrom) -> str | None:
        is_tff = [full == TFF or full.startswith(f"{TFF}.") for full, _ in imported(node)]
        if not any(is_tff):
            return None
        pairs = zip(node.names, is_tff, strict=True)
        others = ", ".join(ast.unparse(alias) for alias, tff in pairs if not tff)
        gap = "; " if node.col_offset else "\n"
        return f"import {others}{gap}{_IMPORT}" if others else _IMPORT

    # -------------------------------------------------------------- names

    def _named(self, node: ast.expr) -> str | None:
        symbol = self.found.symbol(node)
        if symbol and symbol not in names.NAMES:
            raise Unknown(node, f"{symbol} has no counterpart that migrate knows")
        return names.NAMES.get(symbol)

    def _clients(self, node: ast.Name) -> str | None:
        """The name of a list of clients, which is a function of the round now."""
        assigned = self.found.lists.get(node.id)
        if assigned is None or not isinstance(node.ctx, ast.Load) or self._looped(assigned):
            return None
        parent = self.source.parents[id(node)]
        called = isinstance(parent, ast.Call) and node in parent.args
        if not called and not isinstance(parent, ast.keyword):
            raise Unknown(node, f"{node.id} is used otherwise than as the clients of a round")
        return f"{node.id}({self._round(node)})"

    def _part(self, node: ast.Subscript | ast.Attribute, key: Any) -> str | None:
        """`metrics["train"]` of an old process, `state.model`."""
        if key in _CLIENT_DATA:
            raise Unknown(node, f"{key} of client data")
        base = node.value.id if isinstance(node.value, ast.Name) else ""
        if base in self.found.states and key == "model":
            return f"{base}.global_model_weights"
        old = self.found.old_metrics.get(base)
        if old == "train":
            train = f'{base}["client_work"]["train"]'
            return train if key == "train" else f'{train}["{key}"]'
        if old == "eval":
            return base if key == "eval" else f'{base}["{key}"]'
        return None

    # -------------------------------------------------------------- calls

    def _call(self, node: ast.Call) -> str | None:
        builder, last = self.found.builder(node), self.found.symbol(node.func).rpartition(".")[2]
        if builder is not None:
            if builder.note:
                self.notes.append(f"line {node.lineno}: {builder.note}.")
            arguments = built(node, builder, self._text, self.found.aliases)
            return self._called(node, f"fb.algorithms.{builder.name}", arguments)
        if last == "from_keras_model":
            return self._called(node, "fb.from_keras", self._keras_model(node))
        if last in names.FROM_CLIENTS:
            ids, function = self._given(node, *names.FROM_CLIENTS[last])
            return f"fb.from_datasets({{i: {function}(i) for i in {ids}}})"
        if last == "build_uniform_sampling_fn":
            given = names.given(node, ("sample_range", "replace", "random_seed"), least=1)
            if ast.unparse(given.get("replace", node)) not in ("False", ast.unparse(node)):
                raise Unknown(node, "a sampler that may draw a client twice")
            seed = self._text(given["random_seed"]) if "random_seed" in given else "None"
            sampler = f"fb.samplers.uniform(size, seed={seed})"
            return f"lambda round, size: {sampler}(round, {self._text(given['sample_range'])})"
        if last == "assign_weights_to_keras_model":
            keras_model, weights = self._given(node, "keras_model", "tff_weights")
            return f"fb.weights_to_keras({weights}, {keras_model})"
        if last:
            return None
        if self.found.is_evaluation(called_name(node)):
            name = called_name(node)
            weights, data = self._given(node, "server_model_weights", "federated_dataset")
            state = f"{name}.set_model_weights({name}.initialize(), {weights})"
            called = self._called(node, f"{name}.next", [state, data])
            return called + '.metrics["client_work"]["eval"]["current_round_metrics"]'
        if called_name(node) in self.found.helpers:
            return f"{called_name(node)}({self._arguments(node)}, round={self._round(node)})"
        return self._method(node) if isinstance(node.func, ast.Attribute) else None

    def _keras_model(self, node: ast.Call) -> list[str]:
        arguments = model(node, self._text)
        constraint = self.found.constraint()
        if constraint is None:
            return arguments
        self.notes.append(
            f"line {constraint.value.lineno}: TFF never applies constraints, so they are ignored:"
            f" leave {constraint.arg} and constraints=... out."
        )
        return [*arguments, "constraints=fb.ignore_constraints"]

    def _method(self, node: ast.Call) -> str | None:
        object_, name = node.func.value, node.func.attr  # type: ignore[attr-defined]
        if name == "assign_weights_to":
            (keras_model,) = self._given(node, "keras_model")
            return f"fb.weights_to_keras({self._text(object_)}, {keras_model})"
        if name == "preprocess":
            _, function = self.found.preprocessing(preprocess_fn(node), [])
            mapped = f".map_batches({function})" if function else ""
            return f"{self._text(object_)}{mapped}"
        if name == "create_tf_dataset_for_client":
            raise Unknown(node, "the data set of one client is used outside a list of clients")
        if name == "next" and len(node.args) + len(node.keywords) == 2:
            clients = names.given(node, ("state", "client_data"), least=2)["client_data"]
            listed = isinstance(clients, ast.Name) and clients.id in self.found.lists
            if not listed and not self.found.makes_list(clients):
                raise Unknown(clients, "clients that create_tf_dataset_for_client does not make")
            if node.keywords:  # which have other names there
                arguments = self._given(node, "state", "client_data")
                return f"{self._text(object_)}.next({', '.join(arguments)})"
        return None

    # -------------------------------------------------------------- clients of a round

    def _cohort(self, node: ast.ListComp, round: str) -> str:
        """`data.cohort(ids, pipeline, round=...)` for a list of data sets."""
        (loop,) = node.generators
        ids, element, arguments = self._text(loop.iter), node.elt, []
        chain = chain_of(element)
        while not is_method(element, "create_tf_dataset_for_client"):
            if loop.ifs or not isinstance(element, ast.Call):
                raise Unknown(node, "a list of clients that is not taken apart")
            if chain is None:  # preprocess(data.create_tf_dataset_for_client(c), ...)
                function, (element, *arguments) = element.func, element.args or [element.func]
            else:
                element = element.func.value  # type: ignore[attr-defined]
        data = self._text(element.func.value)  # type: ignore[attr-defined]
        mapped = ""
        if chain is not None:
            if chain.examples or chain.batches:
                raise Unknown(element, "a map in a list of clients; put it into a function")
            pipeline = pipeline_text(chain, self.source, self.change)
        elif element is not node.elt:
            given = [self._text(argument) for argument in arguments]
            pipeline, mapped = self.found.preprocessing(function, given)
        elif data in self.found.pipelines:
            pipeline = self.found.pipelines[data]
        else:
            raise Unknown(element, f"it is not seen how the batches of {data} are made")
        mapped = f".map_batches({mapped})" if mapped else ""
        return f"{data}{mapped}.cohort({ids}, {pipeline}, round={round})"

    def _helper(self, node: ast.FunctionDef) -> str:
        """A function that returns the clients of a round gets the round as an argument."""
        clients: Any = node.body[-1].value  # type: ignore[attr-defined]
        cohort = self._cohort(clients, "round")
        text = self.source.text(node, lambda part: cohort if part is clients else self.change(part))
        _, _, body = text.partition(":\n")
        return f"def {node.name}({ast.unparse(node.args)}, round):\n{body}"

    def _list_assigned(self, name: str, node: ast.Assign) -> str:
        looped = self._looped(node)
        round = self._round(node) if looped else "round"
        if isinstance(node.value, ast.ListComp):
            text = self._cohort(node.value, round)
        else:
            text = f"{called_name(node.value)}({self._arguments(node.value)}, round={round})"  # type: ignore[arg-type]
        if looped:
            return f"{name} = {text}"
        return f"def {name}(round):\n{' ' * node.col_offset}    return {text}"

    def _looped(self, node: ast.AST) -> bool:
        return any(isinstance(around, ast.For) for around in self.source.ancestors(node))

    def _round(self, node: ast.AST) -> str:
        """Which round a node belongs to: the number that its loop counts, or 1."""
        for loop in self.source.ancestors(node):
            if (
                isinstance(loop, ast.For)
                and isinstance(loop.target, ast.Name)
                and ast.unparse(loop.iter).startswith("range(")
            ):
                return loop.target.id
            if isinstance(loop, ast.For | ast.While):
                raise Unknown(node, "a loop of rounds that is not `for number in range(...)`")
        return "1"

    # -------------------------------------------------------------- text

    def _text(self, node: ast.AST) -> str:
        return self.change(node) or self.source.text(node, self.change)

    def _given(self, node: ast.Call, *parameters: str) -> list[str]:
        """The new texts of the arguments of a call that needs all of them."""
        found = names.given(node, parameters, least=len(parameters))
        return [self._text(found[name]) for name in parameters]

    def _arguments(self, node: ast.Call) -> str:
        words = [f"{word.arg}={self._text(word.value)}" for word in node.keywords]
        return ", ".join([*map(self._text, node.args), *words])

    def _called(self, node: ast.Call, name: str, arguments: list[str]) -> str:
        """A call, an argument a line where one line is too short."""
        text = f"{name}({', '.join(arguments)})"
        if node.col_offset + len(text) <= _WIDTH and "\n" not in text:
            return text
        statement = next(n for n in self.source.ancestors(node) if isinstance(n, ast.stmt))
        indent = "\n" + " " * statement.col_offset
        return f"{name}({''.join(f'{indent}    {one},' for one in arguments)}{indent})"
