"""The parts of a composed process: what they take, and what they give.

Looked at when a process is built, and once more when its round is traced; nothing of it is left in
the program.
"""

from typing import Any

from fedbridge.jax_core._aggregators import (
    Aggregator,
    HostAggregator,
    MeasuredProcessOutput,
    check_aggregator,
)
from fedbridge.jax_core._client_work import ClientResult, ClientWork, check_weight
from fedbridge.jax_core._clients import ClientOutput
from fedbridge.jax_core._errors import check_argument, check_function
from fedbridge.jax_core._finalizer import Finalizer

_TAKE = {
    "client_work": {
        "initialize": "(weights)",
        "client": "(state, weights, client)",
        "server": "(state, sums, round)",
    },
    "aggregator": {
        "initialize": "(template)",
        "client": "(state, value, weight, key)",
        "server": "(state, summed, key)",
    },
    "finalizer": {"initialize": "(weights)", "next": "(state, weights, update)"},
}


_TAKE_ON_HOST = {"initialize": "(template)", "next": "(state, template, values, weights)"}


def check_parts(client_work: Any, aggregator: Any, finalizer: Any) -> None:
    """Refuses parts that are none, and those whose functions take something else.

    Raises:
        ArgumentError: One does.
    """
    on_host = isinstance(aggregator, HostAggregator)
    if not on_host:
        check_aggregator("aggregator", aggregator)
    for name, value, kind in (
        ("client_work", client_work, ClientWork),
        ("finalizer", finalizer, Finalizer),
    ):
        check_argument(isinstance(value, kind), name, value, f"of the type {kind.__name__}")
    parts: dict[str, ClientWork | Aggregator | HostAggregator | Finalizer] = {
        "client_work": client_work, "aggregator": aggregator, "finalizer": finalizer
    }  # fmt: skip
    for name, functions in _TAKE.items():
        if name == "aggregator" and on_host:
            functions = _TAKE_ON_HOST
        for function, takes in functions.items():
            check_function(f"{name}.{function}", getattr(parts[name], function), takes)


def of_client(found: Any) -> tuple[ClientResult, ClientOutput]:
    """What `client_work.client` gave.

    Raises:
        ArgumentError: Something else than a result and an output.
    """
    kinds = ClientResult, ClientOutput
    pair = isinstance(found, tuple) and len(found) == 2 and all(map(isinstance, found, kinds))
    allowed = "two things, (ClientResult, ClientOutput)"
    check_argument(pair, "client_work.client(state, weights, client)", found, allowed)
    check_weight("the update_weight of client_work.client(...)", found[0].update_weight)
    return found


def of_server(found: Any) -> tuple[Any, Any]:
    """What `client_work.server` gave.

    Raises:
        ArgumentError: Something else than a state and measurements.
    """
    pair = isinstance(found, tuple) and len(found) == 2
    name = "client_work.server(state, sums, round)"
    check_argument(pair, name, found, "two things, (state, measurements)")
    return found


def measured(name: str, found: Any) -> MeasuredProcessOutput:
    """What a function of that name gave.

    Raises:
        ArgumentError: Something else than a `MeasuredProcessOutput`.
    """
    allowed = "a MeasuredProcessOutput: state, result and measurements"
    check_argument(isinstance(found, MeasuredProcessOutput), name, found, allowed)
    return found
