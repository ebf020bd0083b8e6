"""The rewritten convolutions compute what the native ones do, and none of another order is left."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr

import fedbridge as fb
from fedbridge.jax_core._compat import cpu_options
from fedbridge.jax_core._convolutions import (
    _is_native,
    _rewrite,
    canonical_convolutions,
    jit_on_cpu,
)
from fedbridge.tff_io import from_keras_config

IMAGES = ("NHWC", "HWIO", "NHWC")


def equations(value: Any, in_loop: bool = False) -> Iterator[tuple[Any, bool]]:
    """Every equation of a jaxpr and of those within it, and whether it stands in a loop's body."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from equations(item, in_loop)
    elif isinstance(value, Jaxpr | ClosedJaxpr):
        for equation in value.eqns:
            yield equation, in_loop
            inside = in_loop or equation.primitive.name in ("while", "scan")
            for param in equation.params.values():
                yield from equations(param, inside)


def slow_convolutions(fn, *args, only_in_loops: bool = False) -> int:
    """How many convolutions of `fn` are in an order that is slow in a loop."""
    return sum(
        equation.primitive is lax.conv_general_dilated_p
        and not _is_native(equation)
        and (in_loop or not only_in_loops)
        for equation, in_loop in equations(jax.make_jaxpr(fn)(*args))
    )


def assert_trees_close(actual, expected, rtol):
    """Close, relative to the largest value of each leaf."""
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        scale = np.abs(other).max(initial=1e-30)
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=0, atol=rtol * scale)


@st.composite
def convolutions(draw):
    """Any convolution: the shapes of its operands and its parameters."""
    rank = draw(st.integers(1, 3))
    groups, batch_groups = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (3, 1), (1, 2), (1, 3)]))
    image = {
        "N": draw(st.integers(1, 3)) * batch_groups,
        "C": draw(st.integers(1, 3)) * groups,
        **{axis: draw(st.integers(4, 6)) for axis in "DHW"[:rank]},
    }
    kernel = {
        "I": image["C"] // groups,
        "O": draw(st.integers(1, 2)) * groups * batch_groups,
        **{axis: draw(st.integers(1, 3)) for axis in "DHW"[:rank]},
    }
    image_order, out_order = (draw(st.permutations("NC" + "DHW"[:rank])) for _ in range(2))
    kernel_order = draw(st.permutations("IO" + "DHW"[:rank]))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    params = {
        "window_strides": each(1, 2),
        "padding": tuple(zip(each(-1, 2), each(0, 2), strict=True)),
        "lhs_dilation": each(1, 2),
        "rhs_dilation": each(1, 2),
        "feature_group_count": groups,
        "batch_group_count": batch_groups,
        "dimension_numbers": tuple("".join(o) for o in (image_order, kernel_order, out_order)),
    }
    shapes = [image[axis] for axis in image_order], [kernel[axis] for axis in kernel_order]
    return *shapes, params


def padded_apart(image, kernel, params):
    """The convolution of an image that is dilated, padded and cropped beforehand.

    The truth: for some convolutions with negative padding XLA of jax 0.4.34 to 0.10.2 gives
    garbage.
    """
    order, kernel_order, _ = params["dimension_numbers"]
    # lax numbers the spatial dimensions as they stand in the kernel's order.
    space = [axis for axis in kernel_order if axis not in "IO"]
    amounts = zip(params["padding"], params["lhs_dilation"], strict=True)
    pads = {axis: (*pad, step - 1) for axis, (pad, step) in zip(space, amounts, strict=True)}
    image = lax.pad(image, 0.0, [pads.get(axis, (0, 0, 0)) for axis in order])
    plain = {"padding": [(0, 0)] * len(space), "lhs_dilation": (1,) * len(space)}
    return lax.conv_general_dilated(image, kernel, **{**params, **plain})


@settings(deadline=None, max_examples=20)
@given(convolutions(), st.integers(0, 99))
def test_any_convolution_and_its_gradients_keep_their_values(convolution, seed):
    image_shape, kernel_shape, params = convolution
    rng = np.random.default_rng(seed)
    image, kernel = (rng.normal(size=s).astype(np.float32) for s in (image_shape, kernel_shape))

    def value_and_gradients(convolve, image, kernel):
        out, gradients = jax.vjp(convolve, image, kernel)
        return out, gradients(jnp.cos(out))

    convolve = functools.partial(lax.conv_general_dilated, **params)
    canonical = canonical_convolutions(functools.partial(value_and_gradients, convolve))
    assert slow_convolutions(canonical, image, kernel) == 0
    apart = functools.partial(padded_apart, params=params)
    expected = canonical_convolutions(functools.partial(value_and_gradients, apart))
    # Sums of at most a few hundred float32 products, perhaps in another order.
    assert_trees_close(
        jax.jit(canonical)(image, kernel), jax.jit(expected)(image, kernel), rtol=1e-6
    )


def conv(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=IMAGES)


@jax.custom_jvp
def conv_with_jvp(x, w):
    return conv(x, w)


conv_with_jvp.defjvp(lambda primals, tangents: jax.jvp(conv, primals, tangents))


@jax.custom_vjp
def conv_with_vjp(x, w):
    return conv(x, w)


conv_with_vjp.defvjp(
    lambda x, w: (conv(x, w), (x, w)), lambda saved, g: jax.vjp(conv, *saved)[1](g)
)


def in_scan(x, w):
    return lax.scan(lambda x, _: (jnp.tanh(conv(x, w)), None), x, None, length=3)[0]


def in_cond(x, w):
    return lax.cond(x.sum() > 0, lambda: conv(x, w), lambda: conv(conv(x, w), w))


def in_vmap(x, w):
    kernels = jnp.stack([w, 2 * w])
    return jax.vmap(conv, in_axes=(None, 0))(x, kernels).sum(0)


def in_shard_map(x, w):
    # Before jax 0.8 under another name; the oldest jax has no `jax.shard_map`.
    shard_map = getattr(jax, "shard_map", None)
    if shard_map is None:
        from jax.experimental.shard_map import shard_map
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("clients",))
    rows, all_of_it = jax.sharding.PartitionSpec("clients"), jax.sharding.PartitionSpec()
    return shard_map(in_scan, mesh=mesh, in_specs=(rows, all_of_it), out_specs=rows)(x, w)


def twice(x, w):
    return conv(conv(x, w), w)


FORWARDS = {
    "plain": conv,
    "twice": twice,
    "jit": jax.jit(conv),
    "checkpoint": jax.checkpoint(twice),
    "scan": in_scan,
    "checkpoint_in_scan": lambda x, w: lax.scan(
        jax.checkpoint(lambda x, _: (jnp.tanh(conv(x, w)), None)), x, None, length=3
    )[0],
    "cond": in_cond,
    "vmap": in_vmap,
    "custom_jvp": conv_with_jvp,
    "custom_vjp": conv_with_vjp,
    "shard_map": in_shard_map,
}


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS.keys())
@pytest.mark.parametrize("loop", ["while", "scan"])
def test_gradient_steps_in_a_loop_keep_their_values_and_lose_their_slow_convolutions(forward, loop):
    def train(weights, x, steps):
        def step(weights):
            gradients = jax.grad(lambda w: jnp.mean(jnp.sin(forward(x, w["kernel"]))))(weights)
            return jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradients)

        if loop == "scan":
            return lax.scan(lambda w, _: (step(w), None), weights, None, length=3)[0]
        return lax.fori_loop(0, steps, lambda _, w: step(w), weights)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 6, 5, 2)).astype(np.float32)
    arguments = {"kernel": rng.normal(size=(3, 3, 2, 2)).astype(np.float32)}, x, 3
    canonical = canonical_convolutions(train)
    assert slow_convolutions(train, *arguments, only_in_loops=True) > 0
    assert slow_convolutions(canonical, *arguments) == 0
    # Three steps; each convolution's last bits pass through the next ones.
    assert_trees_close(jax.jit(canonical)(*arguments), jax.jit(train)(*arguments), rtol=2e-6)


def test_a_rewritten_function_can_be_mapped_and_differentiated():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 2, 6, 5, 2)).astype(np.float32)
    w = rng.normal(size=(2, 2, 3, 3)).astype(np.float32)
    other_order = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NWHC", "OIHW", "CNHW"),
    )

    def gradients(convolve):
        gradient = jax.grad(lambda w, x: convolve(x, w).sum())
        return jax.jit(jax.vmap(gradient, in_axes=(None, 0)))(w, x)

    rewritten = canonical_convolutions(other_order)
    assert_trees_close(gradients(rewritten), gradients(other_order), rtol=1e-6)


def test_trees_keys_and_keywords_pass_through():
    def fn(state, *, key, count):
        noise = jax.random.normal(key, (2,))
        return {"state": (state["w"] + noise, None), "key": key, "next": count + 1}

    state, key = {"w": np.zeros(2, np.float32), "nothing": None}, jax.random.key(1)
    expected = jax.jit(fn)(state, key=key, count=3)
    actual = jax.jit(canonical_convolutions(fn))(state, key=key, count=3)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    assert actual["key"].dtype == key.dtype
    assert actual["next"] == 4
    assert actual["next"].weak_type == expected["next"].weak_type
    np.testing.assert_array_equal(actual["state"][0], expected["state"][0])


def test_a_function_is_traced_once_for_each_shape():
    traces = []

    @jax.jit
    @canonical_convolutions
    def fn(x, w):
        traces.append(x.shape)
        return jax.grad(lambda w: conv(x, w).sum())(w)

    w = np.ones((3, 3, 1, 1), np.float32)
    for count in (2, 2, 3, 3, 2):
        fn(np.ones((count, 4, 4, 1), np.float32), w)
    assert traces == [(2, 4, 4, 1), (3, 4, 4, 1)]


def test_what_holds_no_slow_convolution_stays_the_same_object():
    def fn(x, w):
        return lax.fori_loop(0, 3, lambda _, x: jnp.tanh(jax.jit(conv)(x, w)), x)

    jaxpr = jax.make_jaxpr(fn)(np.ones((2, 4, 4, 1)), np.ones((3, 3, 1, 1)))
    assert _rewrite(jaxpr, {}) is jaxpr


def test_a_function_that_is_called_twice_is_compiled_once():
    gradient = jax.jit(jax.grad(lambda w, x: conv(x, w).sum()))
    jaxpr = jax.make_jaxpr(lambda w, x: gradient(w, x) + gradient(2 * w, x))(
        np.ones((3, 3, 1, 1)), np.ones((2, 4, 4, 1))
    )
    first, second = (
        equation.params["jaxpr"]
        for equation in _rewrite(jaxpr, {}).eqns
        if "jaxpr" in equation.params
    )
    assert first is second
    assert not any(
        equation.primitive is lax.conv_general_dilated_p and not _is_native(equation)
        for equation, _ in equations(first)
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, jnp.complex64])
def test_other_types_keep_their_values(dtype):
    x = (jnp.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4) % 7).astype(dtype)
    w = (jnp.arange(3 * 3 * 2 * 2).reshape(3, 3, 2, 2) % 2).astype(dtype)

    def fn(x, w):
        return lax.conv(x, w, (1, 1), "SAME")

    # Small integers: exact in every type and order.
    actual, expected = jax.jit(canonical_convolutions(fn))(x, w), jax.jit(fn)(x, w)
    assert actual.dtype == expected.dtype
    assert (actual == expected).all()


def by_ynnpack(compiled: Any) -> tuple[int, int]:
    """How many convolutions and how many other things a program leaves to YNNPACK."""
    text = compiled.as_text()
    called = re.findall(r"fusion\(.*calls=(%[\w.-]+).*__ynn_fusion", text)
    bodies = dict(re.findall(r"^(%[\w.-]+) [^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    convolutions = sum(" convolution(" in bodies[name] for name in called)
    return convolutions, len(called) - convolutions


def test_convolutions_are_left_to_eigen_and_nothing_else_changes_hands():
    def fn(x, w, steps):
        def step(_, w):
            gradient = jax.grad(lambda w: jnp.sin(conv(x, w)).mean())(w["kernel"])
            matrix = jnp.tanh(x.reshape(-1, 20) @ w["matrix"]).sum(0)
            return {"kernel": w["kernel"] - gradient, "matrix": w["matrix"] + matrix[None]}

        return lax.fori_loop(0, steps, step, w)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 9, 9, 20)).astype(np.float32)
    w = {"kernel": (3, 3, 20, 20), "matrix": (20, 30)}
    w = {name: 0.1 * rng.normal(size=shape).astype(np.float32) for name, shape in w.items()}
    plain = jax.jit(canonical_convolutions(fn))
    convolutions, others = by_ynnpack(jit_on_cpu(fn).lower(x, w, 1).compile())
    convolutions_of_plain, others_of_plain = by_ynnpack(plain.lower(x, w, 1).compile())
    assert convolutions == 0
    assert others == others_of_plain
    # Where the next line fails, XLA leaves them to Eigen by itself: the option has done its work.
    options = cpu_options().get("compiler_options", {})
    named = "xla_cpu_experimental_ynn_fusion_type" in options
    assert (convolutions_of_plain > 0) == named
    assert_trees_close(jit_on_cpu(fn)(x, w, 1), plain(x, w, 1), rtol=1e-6)


def spec(kind, **config):
    return {"class_name": kind, "config": {"name": kind, **config}}


def cnn():
    """The layers of the EMNIST CNN, in small, as Keras writes them."""
    rng = np.random.default_rng(0)
    shapes = (3, 3, 1, 20), (20,), (3, 3, 20, 24), (24,), (24 * 4, 5), (5,)
    layers = [
        spec("InputLayer", batch_shape=[None, 8, 8, 1]),
        spec("Conv2D", filters=20, kernel_size=[3, 3], activation="relu"),
        spec("Conv2D", filters=24, kernel_size=[3, 3], activation="relu"),
        spec("MaxPooling2D", pool_size=[2, 2]),
        spec("Flatten"),
        spec("Dense", units=5, activation="softmax"),
    ]
    for number, layer in enumerate(layers):
        layer["config"]["name"] = f"layer_{number}"
    return from_keras_config(
        "Sequential",
        {"name": "cnn", "layers": layers},
        loss=spec("SparseCategoricalCrossentropy"),
        metrics=[spec("SparseCategoricalAccuracy")],
        weights=fb.ModelWeights([0.2 * rng.normal(size=s).astype(np.float32) for s in shapes]),
    )


def test_a_round_of_a_cnn_has_no_slow_convolution_and_keeps_its_values():
    rng = np.random.default_rng(1)
    clients = {
        f"c{i}": {
            "x": rng.integers(0, 256, (n, 8, 8, 1)).astype(np.float32) / np.float32(255),
            "y": rng.integers(0, 5, n).astype(np.int32),
        }
        for i, n in enumerate((7, 3))
    }
    data = fb.from_clients(clients)
    cohort = fb.sequential.place(data.cohort(data.client_ids, fb.Batches(batch_size=4)))
    rounds = []
    execution = fb.sequential._replace(compile=rounds.append)
    process = fb.algorithms.fed_avg(
        cnn(), client_optimizer=fb.optimizers.sgdm(0.1), execution=execution
    )
    (round, _), state = rounds, process.initialize()

    jaxpr = jax.make_jaxpr(canonical_convolutions(round))(state, cohort)
    found = [e for e, _ in equations(jaxpr) if e.primitive is lax.conv_general_dilated_p]
    # Forward and the kernel's gradient of both, the image's gradient of the second alone.
    assert len(found) == 5
    assert all(map(_is_native, found))
    assert slow_convolutions(round, state, cohort, only_in_loops=True) == 3

    program = fb.sequential.compile(round).lower(state, cohort).compile()
    assert by_ynnpack(program)[0] == 0
    # Up to two steps on each client, each off by the rounding of sums of some hundred products.
    assert_trees_close(program(state, cohort), jax.jit(round)(state, cohort), rtol=2e-6)
