"""What Keras' layers are made of: the type of a layer, masks, regularizers, and arguments.

A layer computes arrays, and beside them Keras' mask: which steps of a sequence count, [batch,
steps], or None where nobody said so. Keras hands it from layer to layer (`_keras_mask`); TFF loses
it behind the model, so that losses and metrics never see it. It has nothing to do with the mask of
padded rows.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from fedbridge.jax_core import ModelError
from fedbridge.tff_io._keras_activations import absolute, named_activation
from fedbridge.tff_io._keras_objects import Spec, construct

Penalty = Callable[[Float[Array, "..."]], Float[Array, ""]]
StepMask = Bool[Array, "batch ..."] | None


def no_mask(inputs: Sequence[Array], masks: Sequence[StepMask]) -> None:
    """The mask behind a layer that does not support masking: Keras drops it without a word."""


def same_mask(inputs: Sequence[Array], masks: Sequence[StepMask]) -> StepMask:
    """The mask behind a layer that leaves the steps where they are."""
    return masks[0]


class Training(NamedTuple):
    """What a layer knows when it trains.

    Attributes:
        key: For what it draws at random.
        rows: Which rows are real, where some are padding.
    """

    key: Key[Array, ""] | None
    rows: Bool[Array, " batch"] | None


class Layer(NamedTuple):
    """One Keras layer.

    Attributes:
        apply: `(weights, inputs, masks, training) -> output`, or a tuple of outputs; in evaluation
            `training` is None. The fixed weights follow the others.
        weights: The names and shapes of the weights, in Keras' order; None for a dimension, or for
            a whole shape, that depends on the input.
        penalties: For each weight that is not fixed, its regularizer or None.
        random: Whether the output in training depends on the key.
        mask: `(inputs, masks) -> mask` of the output, or a tuple of masks, one for each.
        outputs: How many outputs there are.
        fixed: The names and shapes of weights that are never trained.
    """

    apply: Callable[
        [Sequence[Array], Sequence[Array], Sequence[StepMask], Training | None],
        Array | tuple[Array, ...],
    ]
    weights: tuple[tuple[str, tuple[int | None, ...] | None], ...] = ()
    penalties: tuple[Penalty | None, ...] = ()
    random: bool = False
    mask: Callable[[Sequence[Array], Sequence[StepMask]], Any] = no_mask
    outputs: int = 1
    fixed: tuple[tuple[str, tuple[int | None, ...]], ...] = ()


# Entries of a layer's config that change no number here. TFF's optimizers assign to the variables,
# so that Keras' weight constraints never act; initializers have done their work.
_WEIGHTS = (
    "alpha", "beta", "bias", "depthwise", "embeddings", "gamma", "kernel", "moving_mean",
    "moving_variance", "pointwise", "recurrent",
)  # fmt: skip
NEUTRAL = (
    "batch_input_shape",
    "batch_shape",
    "dtype",
    "name",
    "seed",
    "trainable",
    *(f"{weight}_constraint" for weight in _WEIGHTS),
    *(f"{weight}_initializer" for weight in _WEIGHTS),
)


def key_of(training: Training | None) -> Key[Array, ""] | None:
    """The key to draw with, or None in evaluation."""
    return None if training is None else training.key


def regularizer(spec: Spec | None) -> Penalty | None:
    """The penalty that a layer's config names.

    Raises:
        ModelError: When it is none that fedbridge computes.
    """
    return None if spec is None else construct(REGULARIZERS, spec, kind="regularizer")


def of_function(function: Callable[..., Array], mask: Callable[..., Any] = no_mask) -> Layer:
    """A layer without weights."""
    return Layer(lambda weights, inputs, masks, training: function(*inputs), mask=mask)


def affine(
    linear: Callable[[Array, Array], Array],
    kernel_shape: tuple[int | None, ...],
    activation_spec: Any,
    use_bias: bool,
    regularizers: tuple[Spec | None, Spec | None],
    mask: Callable[..., Any] = no_mask,
) -> Layer:
    """A kernel, perhaps a bias, and an activation: Dense and the convolutions."""
    activation = named_activation(activation_spec)

    def apply(weights: Sequence[Array], inputs: Sequence[Array], masks: Any, _: Any) -> Array:
        (x,) = inputs
        out = linear(x, weights[0])
        if use_bias:
            out = out + along_last(weights[1], out.ndim)
        return activation(out)

    count = 2 if use_bias else 1
    shapes = (("kernel", kernel_shape), ("bias", kernel_shape[-1:]))
    penalties = tuple(regularizer(spec) for spec in regularizers[:count])
    return Layer(apply, shapes[:count], penalties, mask=mask)


def along_last(vector: Float[Array, " channels"], ndim: int) -> Float[Array, "..."]:
    """A vector, ready to be broadcast against an array whose last axis it belongs to."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))


def fits(shape: Sequence[int], expected: Sequence[int | None] | None) -> bool:
    """Whether a shape is the expected one, in which None stands for any number; None fits all.

    Example:
        >>> fits((3, 5), (None, 5)), fits((3, 5), (None,))
        (True, False)
    """
    if expected is None:
        return True
    return len(shape) == len(expected) and all(
        want in (None, got) for got, want in zip(shape, expected, strict=True)
    )


def channels_last(data_format: str | None) -> None:
    """Raises unless images are [batch, ..., channels]."""
    if data_format not in (None, "channels_last"):
        raise ModelError(f"data_format={data_format!r} is not supported; supported: channels_last")


def padding_name(padding: str) -> str:
    """JAX's name of a padding."""
    if padding not in ("valid", "same"):
        raise ModelError(f"padding={padding!r} is not supported; supported: same, valid")
    return padding.upper()


def drop_rate(rate: float, name: str = "rate") -> float:
    """The share of values that a layer drops.

    Raises:
        ModelError: It is none.
    """
    if not 0.0 <= rate < 1.0:
        raise ModelError(f"{name}={rate} is not supported; supported: 0 <= {name} < 1")
    return rate


def sizes(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """One size for each dimension of space, from one for all or one for each.

    Example:
        >>> sizes(3, 2), sizes([3, 1], 2)
        ((3, 3), (3, 1))
    """
    values = (value,) * rank if isinstance(value, int) else tuple(int(size) for size in value)
    if len(values) != rank:
        raise ModelError(f"{list(values)} is no size of {rank} dimensions")
    return values


def _l1(l1: float) -> Penalty:
    return lambda weight: l1 * jnp.sum(absolute(weight))


def _l2(l2: float) -> Penalty:
    # As Keras writes it: its gradient, 2 * l2 * weight, is then exact in the same way.
    return lambda weight: 2.0 * l2 * (jnp.sum(weight * weight) / 2.0)


def _l1_l2(l1: float = 0.0, l2: float = 0.0) -> Penalty:
    parts = ([_l1(l1)] if l1 else []) + ([_l2(l2)] if l2 else [])
    return lambda weight: sum((part(weight) for part in parts), jnp.zeros((), jnp.float32))


REGULARIZERS: dict[str, Callable[..., Penalty]] = {"L1": _l1, "L1L2": _l1_l2, "L2": _l2}
