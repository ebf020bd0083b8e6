"""Keras' recurrent layers: LSTM, GRU, SimpleRNN and Bidirectional.

    for all steps at once:   projected <- x W + b
    each step t:             state_t <- cell(projected_t, state_{t-1} U)
                             where Keras' mask hides the step: state_t <- state_{t-1}
                             output_t <- h_t, the first part of the state

The gates lie side by side in the kernels, in Keras' order: LSTM i, f, c, o; GRU z, r, h. A hidden
step repeats the output before it (zeros before the first), or gives zeros where
`zero_output_for_mask` says so, as Bidirectional does with whole sequences.

Keras 2.14: keras/src/backend.py `rnn`, layers/rnn/lstm.py, gru.py, simple_rnn.py, bidirectional.py.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from fedbridge.jax_core import ModelError
from fedbridge.tff_io._keras_activations import ACTIVATIONS, Activation, named_activation
from fedbridge.tff_io._keras_objects import Spec, construct
from fedbridge.tff_io._keras_parts import (
    NEUTRAL,
    Layer,
    StepMask,
    Training,
    along_last,
    drop_rate,
    key_of,
    regularizer,
)

Rows = Float[Array, "batch _"]
State = tuple[Rows, ...]
Product = Callable[..., Rows]


class Cell(NamedTuple):
    """What happens in one step.

    Attributes:
        gates: How many gates lie side by side in the kernels.
        states: How many arrays [batch, units] a state is; the first is the output.
        bias: The shape of the bias; [2, width] where the recurrent product has one of its own.
        step: `(projected, state, product, bias) -> state`: `product(h, first, last)` is the product
            of h and the recurrent kernel's gates from `first` to `last`, the bias is its own.
    """

    gates: int
    states: int
    bias: tuple[int, ...]
    step: Callable[[Rows, State, Product, Array | None], State]


class Loop(NamedTuple):
    """How a cell runs over a sequence; the names are Keras'.

    Attributes:
        draws: How often dropout draws: once, or for each gate.
        dropout_each_step: Whether it draws anew in each step.
    """

    units: int
    use_bias: bool
    dropout: float
    recurrent_dropout: float
    draws: int
    dropout_each_step: bool
    return_sequences: bool
    return_state: bool
    go_backwards: bool
    unroll: bool
    zero_output_for_mask: bool


def _lstm_cell(units: int, activation: Activation, gate: Activation, reset_after: bool) -> Cell:
    def step(x: Rows, state: State, product: Product, bias: Any) -> State:
        h, c = state
        i, f, new, o = jnp.split(x + product(h), 4, axis=-1)
        c = gate(f) * c + gate(i) * activation(new)
        return gate(o) * activation(c), c

    return Cell(4, 2, (4 * units,), step)


def _gru_cell(units: int, activation: Activation, gate: Activation, reset_after: bool) -> Cell:
    def after(x: Rows, state: State, product: Product, bias: Array | None) -> State:
        (h,) = state
        recurrent = product(h) if bias is None else product(h) + along_last(bias, 2)
        (xz, xr, xh), (hz, hr, hh) = jnp.split(x, 3, axis=-1), jnp.split(recurrent, 3, axis=-1)
        z, r = gate(xz + hz), gate(xr + hr)
        return (z * h + (1.0 - z) * activation(xh + r * hh),)

    def before(x: Rows, state: State, product: Product, bias: Any) -> State:
        (h,) = state
        xz, xr, xh = jnp.split(x, 3, axis=-1)
        hz, hr = jnp.split(product(h, 0, 2), 2, axis=-1)
        z, r = gate(xz + hz), gate(xr + hr)
        return (z * h + (1.0 - z) * activation(xh + product(r * h, 2, 3)),)

    bias = (2, 3 * units) if reset_after else (3 * units,)
    return Cell(3, 1, bias, after if reset_after else before)


def _simple_cell(units: int, activation: Activation, gate: Any, reset_after: bool) -> Cell:
    def step(x: Rows, state: State, product: Product, bias: Any) -> State:
        return (activation(x + product(state[0])),)

    return Cell(1, 1, (units,), step)


def _recurrent(cell_of: Callable[..., Cell]) -> Callable[..., Layer]:
    def build(
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        reset_after: bool = True,
        unit_forget_bias: bool = True,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        implementation: int = 2,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        time_major: bool = False,
        zero_output_for_mask: bool = False,
        enable_caching_device: bool = True,
        kernel_regularizer: Spec | None = None,
        recurrent_regularizer: Spec | None = None,
        bias_regularizer: Spec | None = None,
    ) -> Layer:
        if stateful or time_major:
            raise ModelError("stateful and time_major are not supported; supported: False")
        activate, gate = named_activation(activation), named_activation(recurrent_activation)
        cell = cell_of(units, activate, gate, reset_after)
        # What Keras' fused implementation computes, which TensorFlow chooses by itself; not for a
        # layer made inside of a graph, as in TFF's model_fn, whose variables are not cached either.
        fused = (
            (cell.gates == 4 or (cell.gates == 3 and reset_after))
            and (activate, gate) == (ACTIVATIONS["tanh"], ACTIVATIONS["sigmoid"])
            and use_bias
            and enable_caching_device
            and not (unroll or recurrent_dropout)
        )
        loop = Loop(
            units,
            use_bias,
            drop_rate(dropout, "dropout"),
            drop_rate(recurrent_dropout, "recurrent_dropout"),
            1 if fused or (implementation != 1 and not recurrent_dropout) else cell.gates,
            fused,
            return_sequences,
            return_state,
            go_backwards,
            unroll,
            zero_output_for_mask,
        )
        regularizers = (kernel_regularizer, recurrent_regularizer, bias_regularizer)
        return _layer(cell, loop, regularizers[: 3 if use_bias else 2])

    return build


def _layer(cell: Cell, loop: Loop, regularizers: Sequence[Spec | None]) -> Layer:
    def apply(
        weights: Sequence[Array],
        inputs: Sequence[Array],
        masks: Sequence[StepMask],
        training: Training | None,
    ) -> Array | tuple[Array, ...]:
        if len(inputs) not in (1, 1 + cell.states):
            raise ModelError(
                f"the initial state has {len(inputs) - 1} parts; this layer's has {cell.states}"
            )
        x = jnp.swapaxes(inputs[0], 0, 1)
        mask = None if masks[0] is None else jnp.swapaxes(masks[0], 0, 1)
        if loop.go_backwards:
            x, mask = jax.tree.map(lambda steps: jnp.flip(steps, 0), (x, mask))
        projected, step = _bound(cell, loop, weights, x, key_of(training))
        zeros = jnp.zeros((x.shape[1], loop.units), x.dtype)
        initial = tuple(inputs[1:]) or (zeros,) * cell.states
        state, outputs = _over_time(step, projected, mask, initial, loop.return_sequences)
        output = _shown(loop, state[0] if outputs is None else outputs, mask, len(inputs) > 1)
        output = output if outputs is None else jnp.swapaxes(output, 0, 1)
        return (output, *state) if loop.return_state else output

    width = cell.gates * loop.units
    shapes = (
        ("kernel", (None, width)),
        ("recurrent_kernel", (loop.units, width)),
        ("bias", cell.bias),
    )
    return Layer(
        apply,
        shapes[: len(regularizers)],
        tuple(regularizer(spec) for spec in regularizers),
        random=loop.dropout > 0.0 or loop.recurrent_dropout > 0.0,
        mask=lambda inputs, masks: masks[0] if loop.return_sequences else None,
        outputs=1 + cell.states if loop.return_state else 1,
    )


def _bound(
    cell: Cell,
    loop: Loop,
    weights: Sequence[Array],
    x: Float[Array, "steps batch _"],
    key: Key[Array, ""] | None,
) -> tuple[Float[Array, "steps batch _"], Callable[[Rows, State], State]]:
    """The projected inputs, and a step with its weights and its dropout."""
    input_key, recurrent_key = (None, None) if key is None else jax.random.split(key)
    same = x.shape if loop.dropout_each_step else (1, *x.shape[1:])
    projected = _product(x, weights[0], _kept(input_key, loop.dropout, loop.draws, same))
    own = None
    if loop.use_bias:
        bias, own = (weights[2][0], weights[2][1]) if weights[2].ndim == 2 else (weights[2], None)
        projected = projected + along_last(bias, 3)
    rate, units = loop.recurrent_dropout, loop.units
    kept = _kept(recurrent_key, rate, loop.draws, (x.shape[1], units))

    def product(h: Rows, first: int = 0, last: int = cell.gates) -> Rows:
        columns = weights[1][:, first * units : last * units]
        return _product(h, columns, kept if len(kept) < 2 else kept[first:last])

    return projected, lambda x, state: cell.step(x, state, product, own)


def _over_time(
    step: Callable[[Rows, State], State],
    projected: Float[Array, "steps batch _"],
    mask: Bool[Array, "steps batch"] | None,
    initial: State,
    keep_outputs: bool,
) -> tuple[State, Float[Array, "steps batch _"] | None]:
    """The last state and, if they are kept, the first part of each state."""

    def body(state: State, now: tuple[Rows, Any]) -> tuple[State, Rows | None]:
        x, shown = now
        new = step(x, state)
        if shown is not None:
            new = jax.tree.map(lambda new, old: jnp.where(shown[:, None], new, old), new, state)
        return new, new[0] if keep_outputs else None

    return jax.lax.scan(body, initial, (projected, mask))


def _shown(
    loop: Loop, output: Array, mask: Bool[Array, "steps batch"] | None, has_initial_state: bool
) -> Array:
    """The output, or the outputs of all steps, with zeros where a hidden step gives zeros."""
    if mask is None or not (loop.zero_output_for_mask or has_initial_state):
        return output  # hidden steps before the first shown one repeat the state, which is 0
    shown = mask if loop.zero_output_for_mask else jnp.cumsum(mask, axis=0) > 0
    if output.ndim == 2:
        shown = shown[-1]
    elif loop.zero_output_for_mask and loop.unroll and loop.go_backwards:
        shown = jnp.flip(shown, 0)  # an oversight of Keras 2.14
    return jnp.where(shown[..., None], output, 0.0)


def _kept(
    key: Key[Array, ""] | None, rate: float, draws: int, shape: tuple[int, ...]
) -> list[Array]:
    """What dropout multiplies with: nothing, one array for all gates, or one for each."""
    if key is None or rate == 0.0:
        return []
    drawn = jax.random.bernoulli(key, 1.0 - rate, (draws, *shape))
    return list(jnp.where(drawn, 1.0 / (1.0 - rate), 0.0))


def _product(x: Array, kernel: Array, kept: Sequence[Array]) -> Array:
    if len(kept) < 2:
        return (x * kept[0] if kept else x) @ kernel
    parts = jnp.split(kernel, len(kept), axis=-1)
    products = [(x * mask) @ part for mask, part in zip(kept, parts, strict=True)]
    return jnp.concatenate(products, axis=-1)


def _bidirectional(
    layer: Spec, merge_mode: str | None = "concat", backward_layer: Spec | None = None
) -> Layer:
    if merge_mode is not None and merge_mode not in MERGES:
        raise ModelError(f"merge_mode={merge_mode!r} is none of {', '.join(MERGES)}")
    sequences = layer["config"].get("return_sequences", False)
    backwards = layer["config"].get("go_backwards", False)
    given = backward_layer or {**layer, "config": layer["config"] | {"go_backwards": not backwards}}
    sides = []
    for side in (layer, given):
        config = {**side["config"], "zero_output_for_mask": sequences}
        spec = {**side, "config": config}
        sides.append(construct(RECURRENT, spec, kind="layer", neutral=NEUTRAL))
    ahead, back = sides
    states = ahead.outputs - 1
    outputs = 1 if merge_mode else 2

    def apply(
        weights: Sequence[Array],
        inputs: Sequence[Array],
        masks: Sequence[StepMask],
        training: Training | None,
    ) -> Array | tuple[Array, ...]:
        x, *initial = inputs
        half, key = len(initial) // 2, key_of(training)
        keys = (None, None) if key is None else jax.random.split(key)
        own = len(ahead.weights)
        first = ahead.apply(weights[:own], [x, *initial[:half]], masks, Training(keys[0], None))
        second = back.apply(weights[own:], [x, *initial[half:]], masks, Training(keys[1], None))
        y, *y_state = first if isinstance(first, tuple) else (first,)
        z, *z_state = second if isinstance(second, tuple) else (second,)
        if sequences:
            z = jnp.flip(z, 1)
        merged = [MERGES[merge_mode](y, z)] if merge_mode else [y, z]
        together = [*merged, *y_state, *z_state]
        return tuple(together) if len(together) > 1 else together[0]

    def mask(inputs: Sequence[Array], masks: Sequence[StepMask]) -> Any:
        one = masks[0] if sequences else None
        return (one,) * outputs

    return Layer(
        apply,
        tuple(
            (f"{name}_{weight}", shape)
            for name, side in zip(("forward", "backward"), sides, strict=True)
            for weight, shape in side.weights
        ),
        ahead.penalties + back.penalties,
        random=ahead.random or back.random,
        mask=mask,
        outputs=outputs + 2 * states,
    )


MERGES: dict[str, Callable[[Array, Array], Array]] = {
    "ave": lambda y, z: (y + z) / 2,
    "concat": lambda y, z: jnp.concatenate([y, z], axis=-1),
    "mul": lambda y, z: y * z,
    "sum": lambda y, z: y + z,
}

RECURRENT: dict[str, Callable[..., Layer]] = {
    "GRU": _recurrent(_gru_cell),
    "LSTM": _recurrent(_lstm_cell),
    "SimpleRNN": _recurrent(_simple_cell),
}
RECURRENT_LAYERS = {**RECURRENT, "Bidirectional": _bidirectional}
