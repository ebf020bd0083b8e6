"""Calls of TFF's builders, optimizers and models, as calls of fedbridge's."""

import ast
from collections.abc import Callable

from fedbridge.bridge import migrate_names as names
from fedbridge.bridge.aliases import Aliases
from fedbridge.bridge.migrate_names import Unknown

Text = Callable[[ast.AST], str]
"""From a node to its new text."""


def built(node: ast.Call, builder: names.Builder, text: Text, aliases: Aliases) -> list[str]:
    """The arguments of the builder in `fb.algorithms`.

    Raises:
        Unknown: An argument that has no counterpart.
    """
    arguments = []
    for name, value in names.given(node, builder.parameters).items():
        becomes = builder.becomes.get(name)
        if name == "model_fn":
            model_fn = text(value)
            arguments.append(
                f"({model_fn})()" if isinstance(value, ast.Lambda) else f"{model_fn}()"
            )
        elif name == "proximal_strength":
            arguments.append(text(value))
        elif name == "client_weighting":
            if "NUM_EXAMPLES" not in ast.unparse(value):
                raise Unknown(value, "client_weighting other than NUM_EXAMPLES")
        elif becomes:
            made = _optimizer(value, text, aliases) if "optimizer" in name else text(value)
            arguments.append(f"{becomes}={made}")
        elif name not in names.IGNORED:
            raise Unknown(value, f"the argument {name} has no counterpart in {builder.name}")
    arguments += [builder.also] if builder.also else []
    aggregated = any(argument.startswith("aggregator=") for argument in arguments)
    if names.UNIFORM in builder.also and not aggregated:
        arguments.append("aggregator=fb.unweighted_mean()")
    return arguments


def model(node: ast.Call, text: Text) -> list[str]:
    """The arguments of `fb.from_keras`.

    Raises:
        Unknown: Several losses, or none.
    """
    given = names.given(node, names.FROM_KERAS, least=1)
    if "loss_weights" in given or "loss" not in given:
        raise Unknown(node, "from_keras_model with loss_weights, or without a loss")
    return [text(given[name]) for name in ("keras_model", "loss", "metrics") if name in given]


def _optimizer(node: ast.expr, text: Text, aliases: Aliases) -> str:
    """An optimizer of TFF's or Keras', or a function that makes one."""
    if isinstance(node, ast.Lambda) and not node.args.args:
        return _optimizer(node.body, text, aliases)
    full = (aliases.full(node.func) or "") if isinstance(node, ast.Call) else ""
    if not isinstance(node, ast.Call) or "keras.optimizers." not in full:
        return text(node)
    last = full.rpartition(".")[2]
    if last not in names.KERAS_OPTIMIZERS or (".legacy." in full and last == "Adagrad"):
        raise Unknown(node, f"tf.keras.optimizers.{last} is none of fb.optimizers")
    formula, parameters, defaults = names.KERAS_OPTIMIZERS[last]
    given = names.given(node, parameters)
    found = {names.RENAMED.get(name, name): text(value) for name, value in given.items()}
    for name, value in defaults.items():
        found.setdefault(name, value)
    found.pop("name", None)
    allowed = {names.RENAMED.get(name, name) for name in parameters}
    if found.keys() - allowed:
        raise Unknown(node, f"tf.keras.optimizers.{last} with {min(found.keys() - allowed)}")
    return f"fb.optimizers.{formula}({', '.join(f'{k}={v}' for k, v in found.items())})"
