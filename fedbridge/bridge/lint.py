"""`fedbridge lint`: what a TFF script uses, and whether it can be checked, from its text alone.

Nothing is run or imported. Names are followed through `import ... as`, `from ... import` and plain
assignments (`learning = tff.learning`); what a script builds at run time stays unseen.
"""

import ast
import functools
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from fedbridge.bridge import eras, script
from fedbridge.bridge.aliases import Aliases, imported, short
from fedbridge.bridge.remarks import remarks

_KERAS_OPTIMIZERS = {
    "SGD": "tff.learning.optimizers.build_sgdm",
    "Adam": "tff.learning.optimizers.build_adam",
    "Adagrad": "tff.learning.optimizers.build_adagrad",
    "RMSprop": "an optimizer of Keras' formula",
}
_OTHER_OPTIMIZERS = ("Adadelta", "Adamax", "AdamW", "Adafactor", "Ftrl", "Nadam", "Lion")
_NOISY = ("dp_aggregator", "gaussian_adaptive", "gaussian_fixed")
_ROUNDING = ("compression_aggregator", "quantize_above_threshold")
_RANDOM_LAYERS = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout",
    "GaussianDropout", "GaussianNoise",
)  # fmt: skip
_KERAS = re.compile(
    r"(?:^(?:tf|tensorflow)\.|(?:^|\.)keras\.(?:\w+\.)*?)"
    r"(layers|losses|metrics)\.(?:[a-z]\w*\.)*([A-Z]\w*)"
)
# What a script may name without putting it into a federated model: base classes, what belongs to
# a pipeline of data, what averages in a loop.
_KERAS_ASIDE = (
    "Layer", "Loss", "Metric", "Reduction", "Input", "InputSpec", "Wrapper", "Mean", "Sum",
    "CategoryEncoding", "CenterCrop", "Discretization", "Hashing", "IntegerLookup",
    "Normalization", "Resizing", "StringLookup", "TextVectorization",
)  # fmt: skip
_KERAS_ALIASES = {
    "AvgPool1D": "AveragePooling1D",
    "AvgPool2D": "AveragePooling2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution2DTranspose": "Conv2DTranspose",
    "GlobalAvgPool1D": "GlobalAveragePooling1D",
    "GlobalAvgPool2D": "GlobalAveragePooling2D",
    "GlobalMaxPool1D": "GlobalMaxPooling1D",
    "GlobalMaxPool2D": "GlobalMaxPooling2D",
    "MaxPool1D": "MaxPooling1D",
    "MaxPool2D": "MaxPooling2D",
    "SeparableConvolution1D": "SeparableConv1D",
    "SeparableConvolution2D": "SeparableConv2D",
}
_PRIVATE = "a private import: TFF 0.87.0 may have it, fedbridge follows public names only"


class Name(NamedTuple):
    """One name of TFF that the script uses.

    Attributes:
        symbol: The name as TFF publishes it, `tff.` first.
        line: Where it is used first ("12", in a notebook "cell 3, line 2").
        era: Its life span in words.
        becomes: Its name in TFF 0.87.0; "" where there is none, or none that is certain.
        status: "checked", "accepted", "ignored", "not yet", "gone", "private" (imported from
            `tensorflow_federated.python`) or "unknown".
    """

    symbol: str
    line: str
    era: str
    becomes: str
    status: str


class Lint(NamedTuple):
    """What a script uses, and what stands in the way of checking it.

    Attributes:
        names: Every name of TFF, in the order of first use.
        obstacles: Sentences, one for each reason why the script cannot be checked.
        notes: Sentences worth knowing that are no obstacle.
        checkable: Whether there is no obstacle.
    """

    names: list[Name]
    obstacles: list[str]
    notes: list[str]
    checkable: bool


def lint(path: str | os.PathLike[str]) -> Lint:
    """Looks through a script or notebook.

    Args:
        path: The script; it is not run.

    Returns:
        Its names, obstacles and notes.

    Raises:
        ScriptError: There is no such script, or it is no Python.
    """
    reader = _Reader()
    for piece in script.pieces(path):
        _, _, cell = piece.name.rpartition(", ")
        tree = script.parsed(piece)
        reader.read(tree, f"{cell}, line " if ".ipynb, cell " in piece.name else "")
    return reader.result()


class _Reader:
    """Collects over the pieces of a script; aliases live from cell to cell."""

    def __init__(self) -> None:
        self.aliases = Aliases()
        self.names: dict[str, Name] = {}
        self.obstacles: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.keras: set[str] = set()
        self.hello: set[int] = set()
        self.hints: set[int] = set()

    def read(self, tree: ast.AST, prefix: str) -> None:
        self.aliases.read(tree)
        for node in ast.walk(tree):
            self._import(node, prefix)
        self._hello_world(tree)
        self._type_hints(tree)
        for node in _outermost(tree):
            symbol = self.aliases.symbol(node)
            line = f"{prefix}{node.lineno}"
            if symbol and symbol.startswith("tff."):
                self._use(symbol, line, node)
            elif id(node) not in self.hints:
                self._keras_class(symbol or ast.unparse(node), line)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for node in sorted(calls, key=lambda node: node.lineno):
            self._call(node, f"{prefix}{node.lineno}")
        for number, remark in remarks(tree, self.aliases):
            self.notes.setdefault(f"{_at(f'{prefix}{number}')}: {remark}")

    def result(self) -> Lint:
        built = "tff.learning.algorithms.build_"
        own = [f"tff.{name}" for name in eras.DECORATORS]
        # A name that is unknown, or private, may well be meant for a process.
        if not any(
            name.becomes.startswith(built)
            or (name.becomes in own and name.status == eras.CHECKED)
            or name.status in ("private", "unknown")
            for name in self.names.values()
        ):
            self.obstacles.setdefault(
                "no learning process of tff.learning.algorithms is built here, and no computation "
                "of the script's own: there is nothing to compare."
                if self.names
                else "the script does not import tensorflow_federated."
            )
        obstacles = list(self.obstacles)
        return Lint(list(self.names.values()), obstacles, list(self.notes), not obstacles)

    # ------------------------------------------------------------------ names

    def _import(self, node: ast.AST, prefix: str) -> None:
        for full, _ in imported(node):
            symbol = short(full)
            if symbol.startswith("tff."):
                self._use(symbol, f"{prefix}{node.lineno}", node)  # type: ignore[attr-defined]

    def _use(self, symbol: str, line: str, node: ast.AST) -> None:
        if eras.is_package(symbol):
            return
        if eras.is_private(symbol):
            becomes = eras.counterpart(symbol)
            self.names.setdefault(symbol, Name(symbol, line, "private", becomes, "private"))
            cure = f"; use {becomes}." if becomes else "; use the public name."
            self.obstacles.setdefault(f"{_at(line)}: {symbol} is {_PRIVATE}{cure}")
            return
        found = eras.lookup(symbol)
        if found is None and symbol.rpartition(".")[2].startswith("__"):
            return  # every module has __name__, __doc__
        if found is None:
            near = eras.nearest(symbol)
            cure = f"did you mean {near}?" if near else "no name of TFF is like it."
            self.names.setdefault(symbol, Name(symbol, line, "never", "", "unknown"))
            self.obstacles.setdefault(f"{_at(line)}: TFF has no {symbol}; {cure}")
            return
        hello = found.name == "tff.federated_computation" and id(node) in self.hello
        status = eras.ACCEPTED if hello else found.status
        known = self.names.get(found.name)
        if known is None or known.status == eras.ACCEPTED:
            self.names[found.name] = Name(found.name, line, found.era, found.becomes, status)
        if id(node) in self.hints:  # a type hint computes nothing
            return
        if status == eras.NOT_YET:
            self.obstacles.setdefault(
                f"{_at(line)}: {found.name} is not replayed yet"
                + (f" ({found.note})." if found.note else ".")
            )
        elif status == eras.GONE:
            instead = f"; use {found.becomes}" if found.becomes else ""
            self.obstacles.setdefault(
                f"{_at(line)}: {found.name} is gone from TFF and has no stand-in{instead}"
                + (f" ({found.note})." if found.note else ".")
            )

    def _hello_world(self, tree: ast.AST) -> None:
        """`tff.federated_computation(lambda: 'Hello, World!')()` only says that TFF is there."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and len(node.args) == 1:
                body = node.args[0]
                if isinstance(body, ast.Lambda) and isinstance(body.body, ast.Constant):
                    self.hello.add(id(node.func))
            if isinstance(node, ast.FunctionDef) and not node.args.args and all(
                isinstance(part, ast.Return | ast.Expr) and isinstance(part.value, ast.Constant)
                for part in node.body
            ):  # fmt: skip
                self.hello.update(id(decorator) for decorator in node.decorator_list)

    def _type_hints(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
                if hint is not None:
                    self.hints.update(map(id, ast.walk(hint)))

    def _keras_class(self, symbol: str, line: str) -> None:
        """A Keras layer, loss or metric: an obstacle where a model that has it is not converted."""
        found = _KERAS.search(symbol)
        if found is None or found[0] in self.keras:
            return
        self.keras.add(found[0])
        package, name = found[1], found[2]
        if name in (*_RANDOM_LAYERS, *_KERAS_ASIDE):
            return
        known = _converted()[package]
        if _KERAS_ALIASES.get(name, name) not in known:
            # The list once is enough.
            listed = package in self.keras
            self.keras.add(package)
            cure = "" if listed else f"; fedbridge knows the {package} {', '.join(known)}"
            self.obstacles.setdefault(
                f"{_at(line)}: tf.keras.{package}.{name} is not converted yet{cure}."
            )

    # ------------------------------------------------------------------ calls

    def _call(self, node: ast.Call, line: str) -> None:
        last = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        full = self.aliases.full(node.func) or ""
        if isinstance(node.func, ast.Name):
            last = full.rpartition(".")[2] or node.func.id
        keywords = {word.arg: word.value for word in node.keywords}
        if last in _RANDOM_LAYERS:
            self.obstacles.setdefault(
                f"{_at(line)}: {last.lower()}: random masks can never agree across frameworks."
            )
        if last in ("LSTM", "GRU", "SimpleRNN") and any(
            _number(keywords.get(word)) for word in ("dropout", "recurrent_dropout")
        ):
            self.obstacles.setdefault(
                f"{_at(line)}: dropout in {last}: random masks can never agree across frameworks."
            )
        if (
            last == "shuffle"
            and isinstance(node.func, ast.Attribute)
            and not full.startswith(("random", "numpy"))
            and "seed" not in keywords
            and len(node.args) < 2
            and (node.args or "buffer_size" in keywords)
        ):
            self.notes.setdefault(
                f"{_at(line)}: unseeded shuffle: fine, the batches that TFF draws are recorded."
            )
        self._noise(node, last, keywords, line)
        if "optimizers" in ast.unparse(node.func) or "optimizers" in full:
            self._optimizer(last, keywords, line)

    def _noise(
        self, node: ast.Call, last: str, keywords: dict[str | None, ast.expr], line: str
    ) -> None:
        """What an aggregator draws at random."""
        if last in _NOISY:
            multiplier = keywords.get("noise_multiplier", node.args[0] if node.args else None)
            # Where the number is not written here, the recorder will say.
            if isinstance(multiplier, ast.Constant) and _number(multiplier):
                self.obstacles.setdefault(
                    f"{_at(line)}: {last} adds Gaussian noise, which can never agree across "
                    "frameworks."
                )
        rounding = keywords.get("stochastic")
        exact = isinstance(rounding, ast.Constant) and rounding.value is False
        if last in _ROUNDING and not exact:
            self.notes.setdefault(
                f"{_at(line)}: {last} rounds large tensors stochastically, which cannot agree; "
                "with stochastic=False it can."
            )

    def _optimizer(self, last: str, keywords: dict[str | None, ast.expr], line: str) -> None:
        if last in _KERAS_OPTIMIZERS:
            lr = ", with lr= read as learning_rate=" if "lr" in keywords else ""
            self.notes.setdefault(
                f"{_at(line)}: tf.keras.optimizers.{last} is adapted to "
                f"{_KERAS_OPTIMIZERS[last]}{lr} (TFF 0.87.0 refuses Keras optimizers)."
            )
        elif last in _OTHER_OPTIMIZERS:
            self.obstacles.setdefault(
                f"{_at(line)}: tf.keras.optimizers.{last} has no counterpart in TFF 0.87.0; use "
                "SGD, Adam, Adagrad or RMSprop."
            )


def _outermost(tree: ast.AST) -> Iterator[ast.expr]:
    """The longest dotted names: of `tff.learning.Model` only the whole, in the text's order."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    dotted = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner
    ]
    yield from sorted(dotted, key=lambda node: (node.lineno, node.col_offset))


@functools.cache
def _converted() -> dict[str, tuple[str, ...]]:
    """The Keras classes that fedbridge computes itself; the tables import JAX."""
    from fedbridge.tff_io._keras_activations import ACTIVATION_LAYERS
    from fedbridge.tff_io._keras_layers import LAYERS
    from fedbridge.tff_io._keras_loss_table import LOSSES
    from fedbridge.tff_io._keras_metrics import METRICS

    layers = {*LAYERS, *ACTIVATION_LAYERS} - {*_RANDOM_LAYERS, "InputLayer"}
    return {
        "layers": (*sorted(layers), "InputLayer"),
        "losses": tuple(LOSSES),
        "metrics": tuple(METRICS),
    }


def _at(line: str) -> str:
    return line if line.startswith("cell") else f"line {line}"


def _number(node: ast.expr | None) -> float:
    value = node.value if isinstance(node, ast.Constant) else None
    return float(value) if isinstance(value, int | float) else 0.0
