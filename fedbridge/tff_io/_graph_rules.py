"""What operations of a TensorFlow graph are in JAX: a rule each, gradients' own operations too.

A rule is given an operation's attributes and its inputs. Inputs that are NumPy arrays are known
while a program is traced (constants, shapes, what is computed from shapes), and so is what becomes
of them. Where TensorFlow stops with an error, a label out of range, the result is NaN.

The formulas are those of TensorFlow's kernels (core/kernels/*_op.cc, training_ops.cc).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedbridge.jax_core import ModelError
from fedbridge.jax_core._pooling import avg_pool, max_pool


class NoRuleError(ModelError):
    """An operation that has no rule here, or that is used in a way that has none."""


def rule(operation: str) -> Callable[..., Any]:
    """The rule of an operation: `(attributes, *inputs) -> output`, or a tuple of outputs.

    Raises:
        NoRuleError: There is none.

    Example:
        >>> float(rule("TanhGrad")({}, np.float32(0.5), np.float32(2.0)))
        1.5
    """
    if operation not in _RULES:
        raise NoRuleError(f"{operation} has no rule")
    return _RULES[operation]


def known(value: Any) -> bool:
    """Whether a value is known while a program is traced."""
    return isinstance(value, np.ndarray | np.generic)


def _np(*values: Any) -> Any:
    return np if all(map(known, values)) else jnp


def _static(value: Any) -> Any:
    if not known(value):
        raise NoRuleError("a shape that depends on the data has no rule")
    return value


def _dtype(attribute: Any) -> np.dtype:
    import tensorflow as tf

    return np.dtype(tf.as_dtype(attribute.type).as_numpy_dtype)


def _ints(value: Any) -> tuple[int, ...]:
    return tuple(int(one) for one in np.ravel(_static(value)))


# --------------------------------------------------------------------------- numbers


def _elementwise(name: str) -> Callable[..., Any]:
    return lambda attr, *inputs: getattr(_np(*inputs), name)(*inputs)


def _reduced(name: str) -> Callable[..., Any]:
    def reduce(attr: Any, value: Any, axes: Any) -> Any:
        found = getattr(_np(value), name)
        options = {"axis": _ints(axes), "keepdims": attr["keep_dims"].b}
        if name in ("sum", "prod", "mean"):
            options["dtype"] = value.dtype
        return found(value, **options)

    return reduce


def _cast(attr: Any, value: Any) -> Any:
    return value.astype(_dtype(attr["DstT"]))


def _one_hot(attr: Any, indices: Any, depth: Any, on: Any, off: Any) -> Any:
    if attr["axis"].i not in (-1, np.ndim(indices)):
        raise NoRuleError("OneHot along another axis than the last has no rule")
    places = np.arange(int(_static(depth)), dtype=indices.dtype)
    return jnp.where(indices[..., None] == places, on, off)


def _divided_no_nan(attr: Any, value: Any, by: Any) -> Any:
    safe = jnp.where(by == 0, jnp.ones_like(by), by)
    return jnp.where(by == 0, jnp.zeros_like(by), value / safe)


def _whole_division(name: str) -> Callable[..., Any]:
    return lambda attr, a, b: getattr(np, name)(_static(a), _static(b))


def _arg_max(attr: Any, value: Any, axis: Any) -> Any:
    return jnp.argmax(value, axis=int(_static(axis))).astype(_dtype(attr["output_type"]))


def _softmax(logits: Any) -> tuple[Any, Any, Any]:
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    powers = jnp.exp(shifted)
    total = jnp.sum(powers, axis=-1, keepdims=True)
    return shifted, powers, total


def _log_softmax(attr: Any, logits: Any) -> Any:
    shifted, _, total = _softmax(logits)
    return shifted - jnp.log(total)


def _cross_entropy(attr: Any, logits: Any, labels: Any) -> tuple[Any, Any]:
    shifted, powers, total = _softmax(logits)
    loss = jnp.sum(labels * (jnp.log(total) - shifted), axis=-1)
    return loss, powers / total - labels


def _sparse_cross_entropy(attr: Any, logits: Any, labels: Any) -> tuple[Any, Any]:
    classes = logits.shape[-1]
    one_hot = labels[:, None] == np.arange(classes, dtype=labels.dtype)
    shifted, powers, total = _softmax(logits)
    loss = jnp.log(total[:, 0]) - jnp.sum(jnp.where(one_hot, shifted, 0), axis=-1)
    valid = (labels >= 0) & (labels < classes)
    gradient = powers / total - one_hot.astype(logits.dtype)
    return jnp.where(valid, loss, np.nan), jnp.where(valid[:, None], gradient, np.nan)


# --------------------------------------------------------------------------- shapes


def _broadcast_gradient_args(attr: Any, one: Any, other: Any) -> tuple[Any, Any]:
    """The axes that the gradients of a broadcast operation's inputs are summed over."""
    shapes = [list(_ints(one)), list(_ints(other))]
    rank = max(map(len, shapes))
    padded = [[1] * (rank - len(shape)) + shape for shape in shapes]
    whole = np.broadcast_shapes(*map(tuple, padded))
    axes = lambda shape: [i for i in range(rank) if shape[i] == 1]
    both = [i for i in range(rank) if whole[i] == 1]
    chosen = [[i for i in axes(shape) if whole[i] != 1] + both for shape in padded]
    first, second = (np.array(sorted(found), np.int32) for found in chosen)
    return first, second


def _strided_slice(attr: Any, value: Any, begin: Any, end: Any, strides: Any) -> Any:
    starts, ends, steps = _ints(begin), _ints(end), _ints(strides)
    bit = lambda name, i: bool(attr[name].i >> i & 1)
    index: list[Any] = []
    for i, (start, stop, step) in enumerate(zip(starts, ends, steps, strict=True)):
        if bit("ellipsis_mask", i):
            index.append(Ellipsis)
        elif bit("new_axis_mask", i):
            index.append(None)
        elif bit("shrink_axis_mask", i):
            index.append(start)
        else:
            first = None if bit("begin_mask", i) else start
            index.append(slice(first, None if bit("end_mask", i) else stop, step))
    np.broadcast_to(0, np.shape(value))[tuple(index)]  # raises where a place is out of range
    return value[tuple(index)]


def _slice(attr: Any, value: Any, begin: Any, size: Any) -> Any:
    spans = list(zip(_ints(begin), _ints(size), value.shape, strict=True))
    if any(b + max(s, 0) > n for b, s, n in spans):
        raise NoRuleError("a slice out of range has no rule")
    return value[tuple(slice(b, n if s < 0 else b + s) for b, s, n in spans)]


def _pack(attr: Any, *values: Any) -> Any:
    return _np(*values).stack(values, axis=attr["axis"].i)


def _unpack(attr: Any, value: Any) -> tuple[Any, ...]:
    axis = attr["axis"].i
    return tuple(_np(value).take(value, i, axis=axis) for i in range(attr["num"].i))


def _concat(attr: Any, *values: Any) -> Any:
    *parts, axis = values
    return _np(*parts).concatenate(parts, axis=int(_static(axis)))


def _squeeze(attr: Any, value: Any) -> Any:
    axes = tuple(attr["squeeze_dims"].list.i)
    return _np(value).squeeze(value, axis=axes or None)


def _gather(attr: Any, values: Any, indices: Any, axis: Any) -> Any:
    if attr["batch_dims"].i or not known(indices):  # an index out of range is an error there
        raise NoRuleError("GatherV2 of places that depend on the data has no rule")
    return _np(values).take(values, indices, axis=int(_static(axis)))


def _padded(attr: Any, value: Any, paddings: Any) -> Any:
    return jnp.pad(value, np.asarray(_static(paddings)).tolist())


# --------------------------------------------------------------------------- products, images


def _mat_mul(attr: Any, a: Any, b: Any) -> Any:
    left = a.T if attr["transpose_a"].b else a
    right = b.T if attr["transpose_b"].b else b
    return _np(a, b).matmul(left, right)


def _batch_mat_mul(attr: Any, a: Any, b: Any) -> Any:
    xp = _np(a, b)
    left = xp.swapaxes(a, -1, -2) if attr["adj_x"].b else a
    right = xp.swapaxes(b, -1, -2) if attr["adj_y"].b else b
    return xp.matmul(left, right)


def _channels_last(attr: Any) -> None:
    if attr["data_format"].s not in (b"", b"NHWC"):
        raise NoRuleError("images with their channels first have no rule")


def _bias_add(attr: Any, value: Any, bias: Any) -> Any:
    _channels_last(attr)
    return value + bias


def _bias_add_grad(attr: Any, gradient: Any) -> Any:
    _channels_last(attr)
    return gradient.sum(axis=tuple(range(gradient.ndim - 1)), dtype=gradient.dtype)


def _convolution(attr: Any) -> Callable[..., Any]:
    _channels_last(attr)
    padding = attr["padding"].s.decode()
    if padding not in ("SAME", "VALID"):
        raise NoRuleError("convolutions with a padding of their own have no rule")
    return lambda images, filters: jax.lax.conv_general_dilated(
        images,
        filters,
        window_strides=attr["strides"].list.i[1:3],
        padding=padding,
        rhs_dilation=attr["dilations"].list.i[1:3] or None,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _convolution_by_images(attr: Any, sizes: Any, filters: Any, gradient: Any) -> Any:
    images = jax.ShapeDtypeStruct(_ints(sizes), gradient.dtype)
    function = _convolution(attr)
    return jax.linear_transpose(lambda images: function(images, filters), images)(gradient)[0]


def _convolution_by_filters(attr: Any, images: Any, sizes: Any, gradient: Any) -> Any:
    filters = jax.ShapeDtypeStruct(_ints(sizes), gradient.dtype)
    function = _convolution(attr)
    return jax.linear_transpose(lambda filters: function(images, filters), filters)(gradient)[0]


def _pool(pool: Callable[..., Any]) -> Callable[..., Any]:
    def pooled(attr: Any, images: Any) -> Any:
        _channels_last(attr)
        window, strides = (tuple(attr[name].list.i)[1:3] for name in ("ksize", "strides"))
        return pool(jnp.asarray(images), window, strides, attr["padding"].s.decode())

    return pooled


def _max_pool_grad(attr: Any, images: Any, pooled: Any, gradient: Any) -> Any:
    pooling = lambda images: _pool(max_pool)(attr, images)
    return jax.vjp(pooling, jnp.asarray(images))[1](jnp.asarray(gradient))[0]


def _avg_pool_grad(attr: Any, sizes: Any, gradient: Any) -> Any:
    images = jnp.zeros(_ints(sizes), gradient.dtype)
    return jax.vjp(lambda images: _pool(avg_pool)(attr, images), images)[1](gradient)[0]


# --------------------------------------------------------------------------- the table

_SAME = ["Identity", "StopGradient", "PreventGradient", "Snapshot"]
_ELEMENTWISE = dict(
    Abs="abs", Neg="negative", Exp="exp", Log="log", Log1p="log1p", Expm1="expm1", Sqrt="sqrt",
    Square="square", Tanh="tanh", Sign="sign", Floor="floor", Ceil="ceil", LogicalNot="logical_not",
    ZerosLike="zeros_like", OnesLike="ones_like", IsFinite="isfinite", IsNan="isnan",
    AddV2="add", Add="add", Sub="subtract", Mul="multiply", RealDiv="true_divide",
    Maximum="maximum", Minimum="minimum", Pow="power", Greater="greater",
    GreaterEqual="greater_equal", Less="less", LessEqual="less_equal", Equal="equal",
    NotEqual="not_equal", LogicalAnd="logical_and", LogicalOr="logical_or", SelectV2="where",
)  # fmt: skip
_REDUCED = dict(Sum="sum", Mean="mean", Prod="prod", Max="max", Min="min", All="all", Any="any")

_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_SAME, lambda attr, value: value),
    **{name: _elementwise(function) for name, function in _ELEMENTWISE.items()},
    **{name: _reduced(function) for name, function in _REDUCED.items()},
    "AddN": lambda attr, first, *rest: sum(rest, first),
    "ArgMax": _arg_max,
    "AvgPool": _pool(avg_pool),
    "AvgPoolGrad": _avg_pool_grad,
    "BatchMatMulV2": _batch_mat_mul,
    "BiasAdd": _bias_add,
    "BiasAddGrad": _bias_add_grad,
    "BroadcastGradientArgs": _broadcast_gradient_args,
    "BroadcastTo": lambda attr, x, shape: _np(x).broadcast_to(x, _ints(shape)),
    "Cast": _cast,
    "ConcatV2": _concat,
    "Conv2D": lambda attr, images, filters: _convolution(attr)(images, filters),
    "Conv2DBackpropFilter": _convolution_by_filters,
    "Conv2DBackpropInput": _convolution_by_images,
    "DivNoNan": _divided_no_nan,
    "EluGrad": lambda attr, g, y: jnp.where(y < 0, g * (y + 1), g),
    "Elu": lambda attr, x: jnp.where(x < 0, jnp.expm1(x), x),
    "ExpandDims": lambda attr, x, axis: _np(x).expand_dims(x, int(_static(axis))),
    "Fill": lambda attr, shape, x: _np(x).broadcast_to(x, _ints(shape)),
    "FloorDiv": _whole_division("floor_divide"),
    "FloorMod": _whole_division("mod"),
    "GatherV2": _gather,
    "IdentityN": lambda attr, *values: values,
    "InvGrad": lambda attr, y, g: -g * y * y,
    "L2Loss": lambda attr, x: jnp.sum(jnp.square(x)) / 2,
    "LogSoftmax": _log_softmax,
    "MatMul": _mat_mul,
    "MaxPool": _pool(max_pool),
    "MaxPoolGrad": _max_pool_grad,
    "OneHot": _one_hot,
    "Pack": _pack,
    "Pad": _padded,
    "Range": lambda attr, *span: np.arange(*map(_static, span), dtype=span[0].dtype),
    "Rank": lambda attr, x: np.int32(np.ndim(x)),
    "Reciprocal": lambda attr, x: 1 / x,
    "ReciprocalGrad": lambda attr, y, g: -g * y * y,
    "Relu": lambda attr, x: jnp.maximum(x, 0),
    "ReluGrad": lambda attr, g, x: jnp.where(x > 0, g, 0),
    "Reshape": lambda attr, x, shape: _np(x).reshape(x, _ints(shape)),
    "Rsqrt": lambda attr, x: jax.lax.rsqrt(x),
    "RsqrtGrad": lambda attr, y, g: g * y * y * y / -2,
    "Shape": lambda attr, x: np.array(np.shape(x), _dtype(attr["out_type"])),
    "ShapeN": lambda attr, *xs: [np.array(np.shape(x), _dtype(attr["out_type"])) for x in xs],
    "Sigmoid": lambda attr, x: jax.nn.sigmoid(x),
    "SigmoidGrad": lambda attr, y, g: g * y * (1 - y),
    "Size": lambda attr, x: np.array(np.size(x), _dtype(attr["out_type"])),
    "Slice": _slice,
    "Softmax": lambda attr, x: _softmax(x)[1] / _softmax(x)[2],
    "SoftmaxCrossEntropyWithLogits": _cross_entropy,
    "Softplus": lambda attr, x: jax.nn.softplus(x),
    "SoftplusGrad": lambda attr, g, x: g / (jnp.exp(-x) + 1),
    "SparseSoftmaxCrossEntropyWithLogits": _sparse_cross_entropy,
    "SqrtGrad": lambda attr, y, g: g / y / 2,
    "SquaredDifference": lambda attr, a, b: (a - b) * (a - b),
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "TanhGrad": lambda attr, y, g: g * (1 - y * y),
    "Tile": lambda attr, x, times: _np(x).tile(x, _ints(times)),
    "Transpose": lambda attr, x, axes: _np(x).transpose(x, _ints(axes)),
    "Unpack": _unpack,
}
