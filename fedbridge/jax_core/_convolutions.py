"""Convolutions as XLA computes them fast in a loop on a CPU: in one order, by Eigen.

XLA's CPU backend hands a convolution to Eigen only if it stands in NHWC/HWIO/NHWC order. It brings
others into that order itself, but only in the entry computation of a program: inside a `while` or
`scan` body the two gradients of every convolution stay as they are and fall to naive loops, 20 to
40 times slower (openxla/xla, ConvCanonicalization; jax issue 12868). A round of federated learning
is such a loop.

So the traced round is rewritten, after differentiation: operands are transposed into that order,
the native convolution is called, its result is transposed back. Only the equations of convolutions
are replaced, and the gradient of max-pooling, a slow select-and-scatter, where windows do not
overlap; everything around them stays what it was, equation by equation.

Newer versions of XLA prefer YNNPACK to Eigen for convolutions that are in that order. It computes
them on one core, and takes twice as long for the gradient of a kernel, which is a convolution with
a window of nearly the image's size; so they are left to Eigen.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun
from jaxtyping import Array, Float

from fedbridge.jax_core._compat import cpu_options, with_equations
from fedbridge.jax_core._pooling import is_tiling, max_pool_gradient


def jit_on_cpu(fn: Callable, **options: Any) -> Callable:
    """`jax.jit` for a CPU: the convolutions of `fn` are fast, in loops too.

    What it returns cannot be called within another `jit`.

    Args:
        fn: A function of trees of arrays that returns a tree of arrays; as with
            `canonical_convolutions`, the one that computes the gradients.
        options: Of `jax.jit`.

    Example:
        >>> float(jit_on_cpu(jnp.sin)(0.0))
        0.0
    """
    return jax.jit(canonical_convolutions(fn), **cpu_options(), **options)


def canonical_convolutions(fn: Callable) -> Callable:
    """A function with the values of `fn` whose convolutions XLA computes fast inside loops.

    Convolutions are rewritten wherever they stand: in `jit`, `checkpoint`, `scan`, `while_loop`,
    `cond`, custom derivatives, `shard_map`. Apply it last, to the function that computes the
    gradients: differentiating its result makes gradients in other orders again.

    Args:
        fn: A function of trees of arrays that returns a tree of arrays, to be called under `jit`.

    Example:
        >>> conv = lambda x, w: lax.conv(x, w, (1, 1), "SAME")
        >>> x, w = jnp.ones((1, 2, 5, 5)), jnp.ones((3, 2, 3, 3))
        >>> bool(jnp.allclose(canonical_convolutions(conv)(x, w), conv(x, w)))
        True
    """

    def canonical(*args: Any, **kwargs: Any) -> Any:
        jaxpr, shapes = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        outputs = jaxpr_as_fun(_rewrite(jaxpr, {}))(*jax.tree.leaves((args, kwargs)))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return canonical


def _rewrite(value: Any, done: dict[int, Any]) -> Any:
    """A jaxpr, or a tuple or list that holds some, rewritten; anything else as it is.

    What holds no convolution is returned itself, and a jaxpr that is used twice stays one object:
    jax compiles such a jaxpr once.
    """
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        items = [_rewrite(item, done) for item in value]
        changed = any(new is not old for new, old in zip(items, value, strict=True))
        return type(value)(items) if changed else value
    if not isinstance(value, Jaxpr | ClosedJaxpr):
        return value
    if id(value) not in done:
        equations = [new for old in value.eqns for new in _rewrite_equation(old, done)]
        same = len(equations) == len(value.eqns) and all(
            new is old for new, old in zip(equations, value.eqns, strict=True)
        )
        done[id(value)] = value if same else with_equations(value, equations)
    return done[id(value)]


def _rewrite_equation(equation: JaxprEqn, done: dict[int, Any]) -> list[JaxprEqn]:
    params = equation.params
    if equation.primitive is lax.conv_general_dilated_p:
        native = _is_native(equation)
        return [equation] if native else _by(equation, lambda lhs, rhs: _convolve(lhs, rhs, params))
    if equation.primitive.name == "select_and_scatter_add" and _is_max_pool(equation):
        sizes, pads = params["window_dimensions"], params["padding"]
        return _by(equation, lambda gradient, x: max_pool_gradient(gradient, x, sizes, pads))
    new = {name: _rewrite(value, done) for name, value in params.items()}
    if all(new[name] is value for name, value in params.items()):
        return [equation]
    return [equation.replace(params=new)]


def _is_max_pool(equation: JaxprEqn) -> bool:
    """Whether it is the gradient of max-pooling, of images in rows, in windows side by side."""
    images: Any = equation.invars[1].aval
    floats = jnp.issubdtype(images.dtype, jnp.floating)
    largest = equation.params["select_prim"] is lax.ge_p
    sizes, strides = (equation.params[f"window_{name}"] for name in ("dimensions", "strides"))
    return floats and largest and is_tiling(sizes, strides)


def _is_native(equation: JaxprEqn) -> bool:
    """Whether XLA computes it as it is, or Eigen cannot compute it at all."""
    lhs: Any = equation.invars[0].aval
    rank = len(lhs.shape)
    if not 3 <= rank <= 5 or not jnp.issubdtype(lhs.dtype, jnp.floating):
        return True
    orders = equation.params["dimension_numbers"]
    image = (0, rank - 1, *range(1, rank - 1))  # where N, C and the spatial dimensions are
    kernel = (rank - 1, rank - 2, *range(rank - 2))  # where O, I and the spatial dimensions are
    in_order = (orders.lhs_spec, orders.rhs_spec, orders.out_spec) == (image, kernel, image)
    crops = any(amount < 0 for pair in equation.params["padding"] for amount in pair)
    return in_order and equation.params["batch_group_count"] == 1 and not crops


def _by(equation: JaxprEqn, function: Callable[..., Any]) -> list[JaxprEqn]:
    """The equations by which this function of its operands computes what one equation gives."""
    # The function is a new one each time: no two equations may share variables.
    operands: list[Any] = [operand.aval for operand in equation.invars]
    jaxpr = jax.make_jaxpr(function)(
        *[jax.ShapeDtypeStruct(operand.shape, operand.dtype) for operand in operands]
    ).jaxpr
    assert not jaxpr.constvars
    names = dict(zip(jaxpr.invars, equation.invars, strict=True))
    names |= dict(zip(jaxpr.outvars, equation.outvars, strict=True))
    renamed = lambda var: var if isinstance(var, Literal) else names.get(var, var)
    return [
        part.replace(
            invars=[renamed(var) for var in part.invars],
            outvars=[renamed(var) for var in part.outvars],
            source_info=equation.source_info,
            ctx=equation.ctx,
        )
        for part in jaxpr.eqns
    ]


def _convolve(
    lhs: Float[Array, "..."], rhs: Float[Array, "..."], params: dict[str, Any]
) -> Float[Array, "..."]:
    orders, groups = params["dimension_numbers"], params["feature_group_count"]
    batch, features, *space = orders.lhs_spec
    image = lax.transpose(lhs, (batch, *space, features))
    out_features, in_features, *space = orders.rhs_spec
    kernel = lax.transpose(rhs, (*space, in_features, out_features))

    if params["batch_group_count"] > 1:  # the gradient of a grouped convolution
        # One convolution for each group of images is one grouped convolution of images that have
        # the features of all groups.
        groups = params["batch_group_count"]
        count, *size, channels = image.shape
        image = image.reshape(groups, count // groups, *size, channels)
        image = lax.transpose(image, (*range(1, image.ndim - 1), 0, image.ndim - 1))
        image = image.reshape(count // groups, *size, groups * channels)

    padding, dilation = params["padding"], params["lhs_dilation"]
    if any(amount < 0 for pair in padding for amount in pair):
        # Cropped beforehand: for some, XLA of jax 0.4.34 to 0.10.2 computes garbage.
        crop = [
            (*(min(amount, 0) for amount in p), d - 1)
            for p, d in zip(padding, dilation, strict=True)
        ]
        image = lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), *crop, (0, 0, 0)])
        padding = [tuple(max(amount, 0) for amount in pair) for pair in padding]
        dilation = (1,) * len(space)

    letters = "DHW"[-len(space) :]
    out = lax.conv_general_dilated(
        image,
        kernel,
        params["window_strides"],
        padding,
        dilation,
        params["rhs_dilation"],
        (f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        groups,
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    batch, features, *space = orders.out_spec
    order = (batch, *space, features)
    return lax.transpose(out, [order.index(dimension) for dimension in range(out.ndim)])
