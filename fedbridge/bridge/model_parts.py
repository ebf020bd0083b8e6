"""The models of a process, from their descriptions: Keras configs and what TFF made of them."""

from collections.abc import Mapping
from typing import Any

from fedbridge import jax_core as fc, tff_io
from fedbridge.bridge.trace import Process, Trace


def model(trace: Trace, number: int) -> fc.Model:
    """The model of a process, with the first recorded weights.

    Raises:
        NotReplayableError: It was not written down.
        ModelError: Something in it is not computed by fedbridge.
    """
    described = _described(trace.processes[number])
    named = lambda part: weights(trace, number, f"global_model_weights/{part}")
    found = tff_io.from_keras_config(
        described["class_name"],
        described["config"],
        loss=described["loss"],
        metrics=described["metrics"],
        weights=fc.ModelWeights(named("trainable"), named("non_trainable")),
    )
    if described["kind"] != "functional":
        return found
    return tff_io.as_functional(found, described["metric_names"])


def reconstruction_model(trace: Trace, number: int) -> fc.ReconstructionModel:
    """The model of a reconstruction: one Keras model, whose variables are the server's or local.

    Raises:
        NotReplayableError: It was not written down.
        ModelError: Something in it is not computed by fedbridge.
    """
    described = _described(trace.processes[number])
    if described.get("local_weights") is None:
        raise fc.NotReplayableError("what the local weights start from was not written down.")
    state = trace.state(described["local_weights"])
    local = lambda part: [leaf for path, leaf in state.items() if path.startswith(f"{part}/")]
    named = lambda part: weights(trace, number, f"global_model_weights/{part}")
    return tff_io.from_keras_reconstruction_config(
        described["class_name"],
        described["config"],
        loss=described["loss"],
        metrics=described["metrics"],
        partition=tff_io.Partition(**described["variables"]),
        global_weights=fc.ModelWeights(named("trainable"), named("non_trainable")),
        local_weights=fc.ModelWeights(local(0), local(1)),
    )


def weights(trace: Trace, number: int, prefix: str) -> list[Any]:
    """Those weights in the first recorded state of a process that lie under a path."""
    call = next((call for call in trace.calls if call.process == number), None)
    state = {} if call is None else trace.state(call.state_before)
    return [leaf for path, leaf in state.items() if path.startswith(prefix + "/")]


def _described(process: Process) -> Mapping[str, Any]:
    if process.model is None:
        raise fc.NotReplayableError("the model was not written down.")
    return process.model
