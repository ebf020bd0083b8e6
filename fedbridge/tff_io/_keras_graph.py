"""The wiring of a Keras model: which layer is applied to what, and whose weights those are.

Keras writes a Sequential model as a list of layers and a functional model as layers with "inbound
nodes", in two dialects (Keras 2 and Keras 3). Both are read into one flat list of calls; a model
inside a model is written out in place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fedbridge.jax_core import ModelError, ModelWeights
from fedbridge.tff_io._keras_layers import build_layer
from fedbridge.tff_io._keras_objects import Spec, is_from_keras
from fedbridge.tff_io._keras_parts import Layer, StepMask, Training

# Keras 3 writes the masks that it makes by itself into a functional model, as operations.
_MASK_OPERATIONS = ("Any", "LogicalOr", "NotEqual")

MODELS = ("Sequential", "Functional", "Model")
"""The classes whose config says what they compute; "Model" is an old name of Functional."""


class GraphLayer(NamedTuple):
    """A layer of the graph.

    Attributes:
        name: As in Keras; layers of inner models are "inner/layer".
        layer: What it computes.
        trainable: Where its weights are: in the trainable or in the non-trainable list.
        first: The place of its first weight in that list.
        first_fixed: The place of its first fixed weight in the non-trainable list.
    """

    name: str
    layer: Layer
    trainable: bool
    first: int
    first_fixed: int

    def weights(self, weights: ModelWeights) -> Sequence[Array]:
        """The layer's own weights."""
        side = weights.trainable if self.trainable else weights.non_trainable
        own = side[self.first : self.first + len(self.layer.weights)]
        last_fixed = self.first_fixed + len(self.layer.fixed)
        fixed = weights.non_trainable[self.first_fixed : last_fixed]
        return [jnp.asarray(weight) for weight in (*own, *fixed)]

    def shapes(self, *, trainable: bool) -> list[tuple[str, Sequence[int | None] | None]]:
        """Names and shapes of the layer's weights in one of the lists."""
        own = self.layer.weights if self.trainable is trainable else ()
        return [*own, *(() if trainable else self.layer.fixed)]


class Call(NamedTuple):
    """One application of a layer: from slots to new slots.

    Attributes:
        layer: What is applied.
        inputs: The slots of its inputs.
        output: The slot of its first output; the others follow.
        masked: Whether the layer is given Keras' mask, where the config says so (in Keras 3's
            functional models); it must be the mask computed here.
    """

    layer: GraphLayer
    inputs: tuple[int, ...]
    output: int
    masked: bool | None

    def results(self, values: Any) -> dict[int, Any]:
        """What the layer gave, in its slots: one value for the first, or a tuple for all."""
        return dict(enumerate(values if isinstance(values, tuple) else (values,), self.output))


class Graph(NamedTuple):
    """A Keras model without its weights.

    Attributes:
        layers: In Keras' order of weights.
        calls: In an order in which they can be computed.
        input_names: Keras' names of the inputs; slots 0, 1, ...
        outputs: The slots of the outputs.
    """

    layers: tuple[GraphLayer, ...]
    calls: tuple[Call, ...]
    input_names: tuple[str, ...]
    outputs: tuple[int, ...]

    def apply(
        self, weights: ModelWeights, inputs: Sequence[Array], training: Training | None
    ) -> list[Array]:
        """The outputs for a batch, in training or (None) in evaluation."""
        slots: dict[int, Array] = dict(enumerate(inputs))
        masks: dict[int, StepMask] = {}
        for number, call in enumerate(self.calls):
            own = training
            if own is not None and own.key is not None and call.layer.layer.random:
                own = own._replace(key=jax.random.fold_in(own.key, number))
            arguments = [slots[slot] for slot in call.inputs]
            given = [masks.get(slot) for slot in call.inputs]
            if call.masked and all(mask is None for mask in given):
                raise ModelError(
                    f'layer "{call.layer.name}" is called with a mask of the script\'s own, which'
                    " is not supported; supported: `Embedding(..., mask_zero=True)` and `Masking()`"
                )
            seen = [None] * len(given) if call.masked is False else given
            computes, mine = call.layer.layer, call.layer.weights(weights)
            slots |= call.results(computes.apply(mine, arguments, seen, own))
            masks |= call.results(computes.mask(arguments, given))
        return [slots[slot] for slot in self.outputs]


def read_graph(class_name: str, config: Mapping[str, Any]) -> Graph:
    """Reads the config of a Sequential or functional Keras model.

    Raises:
        ModelError: For a model, layer or call that fedbridge does not compute.
    """
    if class_name not in MODELS or "layers" not in config:
        raise ModelError(
            f"the model is a {class_name}, whose config does not say what it computes; supported:"
            " keras.Sequential and functional models (a subclassed model can be rebuilt as one)"
        )
    layers: dict[str, GraphLayer] = {}
    counts = {True: 0, False: 0}
    for name, spec, trainable in _leaves(config):
        built = build_layer({**spec, "config": {**spec["config"], "trainable": trainable}})
        first = counts[trainable]
        counts[trainable] += len(built.weights)
        layers[name] = GraphLayer(name, built, trainable, first, counts[False])
        counts[False] += len(built.fixed)
    wiring = _wiring(class_name, config)
    calls: list[Call] = []
    slots = list(range(len(wiring.inputs)))
    outputs = _write_out(wiring, slots, layers, calls, "")
    return Graph(tuple(layers.values()), tuple(calls), tuple(wiring.inputs), tuple(outputs))


def random_layers(config: Mapping[str, Any]) -> list[str]:
    """The names of the layers that draw random numbers in training: dropout with a rate above 0.

    TensorFlow's draws cannot be repeated elsewhere, so that such a model trains alike but not
    equally.

    Args:
        config: The config of a Sequential or functional model.

    Example:
        >>> random_layers({"layers": [
        ...     {"class_name": "Dropout", "config": {"name": "drop", "rate": 0.5}},
        ...     {"class_name": "Dropout", "config": {"name": "nothing", "rate": 0.0}},
        ... ]})
        ['drop']
    """
    return [name for name, spec, _ in _leaves(config) if _is_random(spec)]


def _is_random(spec: Spec) -> bool:
    """Whether a layer, or the one in it, draws in training."""
    config = spec["config"]
    inner = [config[name] for name in ("layer", "backward_layer") if config.get(name)]
    rates = ("dropout", "recurrent_dropout", "rate", "stddev")
    own = any((config.get(rate) or 0.0) > 0.0 for rate in rates)
    return own or any(map(_is_random, inner))


class _Wiring(NamedTuple):
    """A model's config in one form: tensors are (layer, node, number of the output)."""

    specs: dict[str, Spec]
    nodes: Sequence[tuple[str, int, list[tuple[str, int, int]], bool | None]]
    inputs: dict[str, str]  # the input's name (a key, where Keras was given a dict) to its layer
    outputs: list[tuple[str, int, int]]


def _leaves(
    config: Mapping[str, Any], prefix: str = "", trainable: bool = True
) -> Iterator[tuple[str, Spec, bool]]:
    """The layers of a model and of the models in it, in Keras' order of weights."""
    for spec in config.get("layers", ()):
        name = prefix + _name(spec)
        train = trainable and _is_trainable(spec)
        if _is_mask_operation(spec):
            continue
        if _is_model(spec):
            yield from _leaves(spec["config"], f"{name}/", train)
        else:
            yield name, spec, train


def _write_out(
    wiring: _Wiring,
    arguments: Sequence[int],
    layers: Mapping[str, GraphLayer],
    calls: list[Call],
    prefix: str,
) -> list[int]:
    """Appends a model's calls and returns the slots of its outputs."""
    slots: dict[tuple[str, int, int], int] = {}
    given = dict(zip(wiring.inputs.values(), arguments, strict=True))
    waiting = wiring.nodes
    while waiting:
        later = []
        for node in waiting:
            name, number, sources, masked = node
            if not all(source in slots for source in sources):
                later.append(node)
                continue
            inputs = [given[name]] if name in given else [slots[source] for source in sources]
            spec = wiring.specs[name]
            if _is_model(spec):
                inner = _wiring(spec["class_name"], spec["config"])
                outputs = _write_out(inner, inputs, layers, calls, f"{prefix}{name}/")
            else:
                first = _new_slot(arguments, calls)
                call = Call(layers[prefix + name], tuple(inputs), first, masked)
                outputs = [call.output + k for k in range(call.layer.layer.outputs)]
                calls.append(call)
            slots.update({(name, number, k): slot for k, slot in enumerate(outputs)})
        if len(later) == len(waiting):
            raise ModelError(f'the inputs of layer "{prefix}{later[0][0]}" are not in the config')
        waiting = later
    return [slots[output] for output in wiring.outputs]


def _new_slot(arguments: Sequence[int], calls: Sequence[Call]) -> int:
    return calls[-1].output + calls[-1].layer.layer.outputs if calls else len(arguments)


def _wiring(class_name: str, config: Mapping[str, Any]) -> _Wiring:
    specs = {_name(spec): spec for spec in config["layers"] if not _is_mask_operation(spec)}
    if class_name == "Sequential":
        names = list(specs)
        if not names:
            raise ModelError(f'the model "{config.get("name")}" has no layers')
        sources: list[list[tuple[str, int, int]]] = [[], *([(name, 0, 0)] for name in names)]
        nodes = [(name, 0, source, None) for name, source in zip(names, sources, strict=False)]
        return _Wiring(specs, nodes, {names[0]: names[0]}, [(names[-1], 0, 0)])

    nodes = [
        (name, number, *_sources(name, node))
        for name, spec in specs.items()
        for number, node in enumerate(spec["inbound_nodes"] or [[]])
    ]
    calls = {name: sum(node[0] == name for node in nodes) for name in specs}

    def tensor(reference: Sequence[Any]) -> tuple[str, int, int]:
        name, number, output = reference[:3]
        if calls.get(name) == 1:
            return name, 0, output  # Keras counts an inner model's calls from 0 or from 1
        if name in specs and _is_model(specs[name]):
            raise ModelError(
                f'the inner model "{name}" is called {calls[name]} times, which is not supported;'
                " call its layers instead, in one functional model"
            )
        return name, number, output

    nodes = [
        (name, number, [tensor(source) for source in sources], masked)
        for name, number, sources, masked in nodes
    ]
    inputs, outputs = config["input_layers"], config["output_layers"]
    if isinstance(outputs, Mapping):
        raise ModelError("a dictionary of outputs is not supported; supported: one or a list")
    if isinstance(inputs, Mapping):
        names = {key: reference[0] for key, reference in inputs.items()}
    else:
        names = {reference[0]: reference[0] for reference in _references(inputs)}
    return _Wiring(specs, nodes, names, [tensor(output) for output in _references(outputs)])


def _references(references: Sequence[Any]) -> list[Sequence[Any]]:
    """Keras 3 writes a single tensor without the list around it."""
    return [references] if isinstance(references[0], str) else list(references)


def _sources(name: str, node: Any) -> tuple[list[Sequence[Any]], bool | None]:
    """The tensors that a call takes and, where Keras 3 wrote it, whether it has a mask."""
    if isinstance(node, Mapping):
        tensors = node["args"]
        if len(tensors) == 1 and isinstance(tensors[0], list):
            tensors = tensors[0]
        keywords = dict(node["kwargs"])
        states = keywords.pop("initial_state", None) or []
        tensors = [*tensors, *(states if isinstance(states, list) else [states])]
        if not all(map(_is_tensor, tensors)):
            raise ModelError(f'layer "{name}" is called with something that is no tensor')
        sources = [tensor["config"]["keras_history"] for tensor in tensors]
        masked = _is_tensor(keywords.get("mask"))
        if masked:
            del keywords["mask"]
        # Keras 3 writes a training=False that it overrides when the model trains.
        if keywords.get("training") is False:
            del keywords["training"]
    else:
        references = [node] if node and isinstance(node[0], str) else node
        sources = [reference[:3] for reference in references]
        keywords = {k: v for reference in references for k, v in (reference[3:] or [{}])[0].items()}
        masked = None
    for keyword, value in keywords.items():
        if value is not None:
            raise ModelError(
                f'layer "{name}" is called with {keyword}={value!r}, which is not supported;'
                " supported: calls with tensors alone"
            )
    return sources, masked


def _is_tensor(argument: Any) -> bool:
    return isinstance(argument, Mapping) and "keras_history" in argument.get("config", ())


def _is_trainable(spec: Spec) -> bool:
    """Whether a layer trains, and the layer that it wraps."""
    config = spec["config"]
    inner = config.get("layer")
    return config.get("trainable", True) and (not inner or _is_trainable(inner))


def _is_mask_operation(spec: Spec) -> bool:
    module = spec.get("module") or ""
    return spec["class_name"] in _MASK_OPERATIONS and module.startswith("keras.src.ops")


def _name(spec: Spec) -> str:
    return spec.get("name") or spec["config"]["name"]


def _is_model(spec: Spec) -> bool:
    return is_from_keras(spec) and spec["class_name"] in MODELS and "layers" in spec["config"]
