"""TFF's builders, optimizers and the like by what they are in fedbridge, for `migrate`."""

import ast
from typing import NamedTuple


class Builder(NamedTuple):
    """A builder of TFF's and its counterpart.

    Attributes:
        name: In `fb.algorithms`.
        parameters: Of TFF's builder, in order.
        becomes: What they are called in fedbridge; "" where the meaning is the default's, so that
            a script may give nothing else than that.
        also: Arguments that make fedbridge's builder compute what TFF's does.
        old: Whether its metrics are those of TFF before 0.20.
        note: What a reader of the new script should know.
    """

    name: str
    parameters: tuple[str, ...]
    becomes: dict[str, str]
    also: str = ""
    old: bool = False
    note: str = ""


_OPTIMIZERS = {
    "client_optimizer_fn": "client_optimizer",
    "server_optimizer_fn": "server_optimizer",
    "model_aggregator": "aggregator",
    "model_update_aggregation_factory": "aggregator",
}
_MIME = {
    "base_optimizer": "base_optimizer",
    "server_optimizer": "server_optimizer",
    "model_aggregator": "aggregator",
}
_AVG = ("model_fn", "client_optimizer_fn", "server_optimizer_fn")
_PROX = ("model_fn", "proximal_strength", *_AVG[1:])
UNIFORM = "client_weight=fb.uniform"
"""The argument that gives all clients the same weight."""
_SIGN = (
    "TFF's proximal term has the wrong sign; `pull=fb.algorithms.away_from_server` repeats it, and "
    "without it the pull is the paper's"
)
_ALGORITHMS = "tff.learning.algorithms."

BUILDERS = {
    f"{_ALGORITHMS}build_weighted_fed_avg": Builder("fed_avg", _AVG, _OPTIMIZERS),
    f"{_ALGORITHMS}build_unweighted_fed_avg": Builder("fed_avg", _AVG, _OPTIMIZERS, UNIFORM),
    f"{_ALGORITHMS}build_weighted_fed_prox": Builder(
        "fed_prox", _PROX, _OPTIMIZERS, "pull=fb.algorithms.away_from_server", note=_SIGN
    ),
    f"{_ALGORITHMS}build_unweighted_fed_prox": Builder(
        "fed_prox", _PROX, _OPTIMIZERS, f"pull=fb.algorithms.away_from_server, {UNIFORM}",
        note=_SIGN,
    ),
    f"{_ALGORITHMS}build_fed_sgd": Builder(
        "fed_sgd", ("model_fn", "server_optimizer_fn"), _OPTIMIZERS
    ),
    f"{_ALGORITHMS}build_weighted_mime_lite": Builder(
        "mime_lite", ("model_fn", "base_optimizer", "server_optimizer"), _MIME
    ),
    f"{_ALGORITHMS}build_unweighted_mime_lite": Builder(
        "mime_lite", ("model_fn", "base_optimizer", "server_optimizer"), _MIME, UNIFORM
    ),
    f"{_ALGORITHMS}build_fed_eval": Builder("fed_eval", ("model_fn",), {}),
    "tff.learning.build_federated_averaging_process": Builder(
        "fed_avg", _AVG, _OPTIMIZERS, old=True
    ),
    "tff.learning.build_federated_sgd_process": Builder(
        "fed_sgd", ("model_fn", "server_optimizer_fn"), _OPTIMIZERS, old=True
    ),
    "tff.learning.build_federated_evaluation": Builder("fed_eval", ("model_fn",), {}, old=True),
}  # fmt: skip

FROM_CLIENTS = {
    "from_clients_and_fn": ("client_ids", "create_tf_dataset_for_client_fn"),
    "from_clients_and_tf_fn": ("client_ids", "serializable_dataset_fn"),
}
"""The parameters of these."""

FROM_KERAS = ("keras_model", "loss", "input_spec", "loss_weights", "metrics")
"""The parameters of `from_keras_model`."""

IGNORED = ("loop_implementation", "use_experimental_simulation_loop", "model_distributor",
           "broadcast_process")  # fmt: skip
"""Arguments that change no number."""

KERAS_OPTIMIZERS = {
    "SGD": ("sgdm", ("learning_rate", "momentum"), {"learning_rate": "0.01"}),
    "Adam": (
        "adam", ("learning_rate", "beta_1", "beta_2", "epsilon"), {"learning_rate": "0.001"}
    ),
    "Adagrad": (
        "adagrad",
        ("learning_rate", "initial_accumulator_value", "epsilon"),
        {"learning_rate": "0.001", "initial_preconditioner_value": "0.1"},
    ),
}  # fmt: skip
"""Of Keras: the formula's name, the arguments in order, the defaults that TFF does not have."""

RENAMED = {"lr": "learning_rate", "initial_accumulator_value": "initial_preconditioner_value"}

NAMES = {
    "tff.simulation.datasets.TestClientData": "fb.from_clients",
    "tff.simulation.FromTensorSlicesClientData": "fb.from_clients",
    **{
        f"tff.simulation.datasets.{name}.load_data": f"fb.datasets.{name}.load_data"
        for name in ("emnist", "cifar100", "shakespeare", "stackoverflow", "celeba")
    },
    **{
        f"tff.learning.optimizers.build_{name}": f"fb.optimizers.{name}"
        for name in ("sgdm", "adam", "adamw", "adagrad", "rmsprop", "yogi")
    },
    **{
        f"tff.learning.{name}": f"fb.aggregators.{name}"
        for name in ("robust_aggregator", "dp_aggregator", "compression_aggregator")
    },
}
"""What is called in the same way, by its name in fedbridge."""


class Unknown(Exception):  # noqa: N818 - the migration's own, never seen outside it
    """What cannot be migrated: the node, and why."""

    def __init__(self, node: ast.AST, why: str):
        super().__init__(why)
        self.node, self.why = node, why


def given(call: ast.Call, parameters: tuple[str, ...], least: int = 0) -> dict[str, ast.expr]:
    """The arguments of a call by the names of its parameters, in their order.

    Raises:
        Unknown: More arguments than that, or fewer than the first `least`; `*` or `**`.
    """
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    if starred or len(call.args) > len(parameters) or not all(w.arg for w in call.keywords):
        raise Unknown(call, f"the arguments of {ast.unparse(call.func)}; name them one by one")
    found: dict[str, ast.expr] = dict(zip(parameters, call.args, strict=False))
    found |= {word.arg: word.value for word in call.keywords if word.arg}
    missing = [name for name in parameters[:least] if name not in found]
    if missing:
        raise Unknown(call, f"{ast.unparse(call.func)} without {missing[0]}")
    return {name: found[name] for name in (*parameters, *found) if name in found}
