"""What in a script will not come out twice the same, or not as it looks: `lint`'s remarks."""

import ast
import re
from collections.abc import Iterator, Sequence

from fedbridge.bridge.aliases import Aliases

_WITH_WEIGHTS = {
    "Dense": "kernel_initializer",
    "Conv1D": "kernel_initializer",
    "Conv2D": "kernel_initializer",
    "LSTM": "kernel_initializer",
    "GRU": "kernel_initializer",
    "Embedding": "embeddings_initializer",
}
_SEEDS = ("set_random_seed", "set_seed")

_MOVING = (
    "BatchNormalization: its moving statistics never move in federated training, in TFF as here; "
    "GroupNormalization has none."
)
_MIXED = (
    "repeat before shuffle: epochs mix in the buffer and batches span them; this order is kept, a "
    "loop over epochs would have another."
)
_UNSEEDED = (
    "initial weights without a seed ({}): every run starts from others; a check starts JAX from "
    "TFF's."
)
_LOST = (
    "{} in a model_fn: TFF makes the weights anew, so that it has no effect; put them into the "
    "state with process.set_model_weights."
)
_OWN_METRIC = (
    "{}, a metric of the script's own, beside {}: `fedbridge run` does not take it, as a model "
    "with recurrent layers is not run as TensorFlow code; use one of Keras' metrics."
)
_RECURRENT = ("LSTM", "GRU", "SimpleRNN")


def remarks(tree: ast.AST, aliases: Aliases) -> Iterator[tuple[int, str]]:
    """The line of each remark, and the remark.

    Example:
        >>> tree = ast.parse("layer = tf.keras.layers.BatchNormalization()")
        >>> [(line, text.partition(":")[0]) for line, text in remarks(tree, Aliases())]
        [(1, 'BatchNormalization')]
    """
    calls = sorted(
        (node for node in ast.walk(tree) if isinstance(node, ast.Call)),
        key=lambda node: (node.lineno, node.col_offset),
    )
    yield from _set_in_model_fn(tree, aliases)
    for call in calls:
        if _last(call) == "BatchNormalization":
            yield call.lineno, _MOVING
        if _last(call) == "shuffle" and _repeats(call):
            yield call.lineno, _MIXED
    recurrent = [name for name in map(_last, calls) if name in _RECURRENT]
    yield from _own_metric(tree, aliases, recurrent)
    unseeded = [call for call in calls if _is_unseeded(call)]
    if unseeded and not any(_last(call) in _SEEDS for call in calls):
        yield unseeded[0].lineno, _UNSEEDED.format(_last(unseeded[0]))


def _set_in_model_fn(tree: ast.AST, aliases: Aliases) -> Iterator[tuple[int, str]]:
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        symbols = [aliases.symbol(call.func) or "" for call in calls]
        if any(symbol.endswith("from_keras_model") for symbol in symbols):
            for call in calls:
                if _last(call) in ("set_weights", "load_weights"):
                    yield call.lineno, _LOST.format(_last(call))


def _own_metric(
    tree: ast.AST, aliases: Aliases, recurrent: Sequence[str]
) -> Iterator[tuple[int, str]]:
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and recurrent]
    for node in classes:
        bases = [aliases.symbol(base) or ast.unparse(base) for base in node.bases]
        if any(re.search(r"\bmetrics\.[A-Z]\w*$", base) for base in bases):
            yield node.lineno, _OWN_METRIC.format(node.name, recurrent[0])


def _is_unseeded(call: ast.Call) -> bool:
    initializer = _WITH_WEIGHTS.get(_last(call))
    return initializer is not None and initializer not in {word.arg for word in call.keywords}


def _repeats(call: ast.Call) -> bool:
    """Whether a `repeat` stands before it in its chain."""
    node = call.func
    while isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
        if _last(node.value) == "repeat":
            return True
        node = node.value.func
    return False


def _last(call: ast.Call) -> str:
    func = call.func
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
