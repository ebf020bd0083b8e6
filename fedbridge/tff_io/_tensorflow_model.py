"""Models whose bodies are TensorFlow code, as opaque models of the core.

A body is traced for any number of rows, and converted by tf2jax, which has a rule for each of
TensorFlow's operations that it knows. What it gives is compared with TensorFlow, gradients too, on
rows made up from the spec. Where it does not convert, or differs, TensorFlow itself is called from
JAX's program, for the values and for the gradient.

A script's metrics are additive: what a batch adds does not depend on those before it. That is
checked as well, since the core adds up what the batches give.
"""

import functools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fedbridge.jax_core import Batch, Forward, Metric, Model, ModelError, ModelWeights
from fedbridge.jax_core._compat import on_host
from fedbridge.tff_io._client_data import _fill, leaves_by_name, name_leaves

_ROWS = 3
# float32 sums of a few rows in another order; a wrong rule is off by more than a percent.
_TOLERANCE = 1e-4


class Computed(NamedTuple):
    """What a body computes on batches, as tensors.

    Attributes:
        loss: Of the last batch.
        num_examples: Of the last batch.
        report: Name of a metric to a structure of what all batches add to it.
        non_trainable: Those weights after it.
        sources: What the loss is differentiated by.
    """

    loss: Any
    num_examples: Any
    report: Mapping[str, Any]
    non_trainable: Sequence[Any]
    sources: Sequence[Any]


class Body(NamedTuple):
    """A model in TensorFlow.

    Attributes:
        name: What errors call it.
        initial_weights: NumPy arrays, in lists or tuples.
        input_spec: The structure of a batch, with `tf.TensorSpec`s.
        compute: `(trainable, non_trainable, batches, training) -> Computed`, of flat lists of
            tensors and batches of the spec's structure.
        finalizers: Name of a metric to `structure -> value`.
    """

    name: str
    initial_weights: ModelWeights
    input_spec: Any
    compute: Callable[[Sequence[Any], Sequence[Any], Sequence[Any], bool], Computed]
    finalizers: Mapping[str, Callable[[Any], Any]]


def from_tensorflow(body: Body, note: Callable[[str], None]) -> Model:
    """Makes a `Model` of a body in TensorFlow.

    Args:
        body: The body.
        note: Is told where the forward pass runs.

    Returns:
        A model that only sees batches of their true size. Its weights are flat lists, or tuples
        where the body's are.

    Raises:
        ModelError: A batch is not made of numbers, the body returns no loss, or a metric is no sum
            over batches.
    """
    weights = ModelWeights(*(jax.tree.map(np.asarray, side) for side in body.initial_weights))
    report = _checked_report(body, weights)
    steps = functools.cache(lambda training: _step(body, weights, report, training, note))

    def forward(
        weights: ModelWeights, batch: Batch, mask: Any, key: Any, training: bool
    ) -> Forward:
        flat = jax.tree.leaves(weights.trainable), jax.tree.leaves(weights.non_trainable)
        loss, rows, added, after = steps(training)(*flat, _as_spec(body.input_spec, batch), key)
        after = jax.tree.unflatten(jax.tree.structure(weights.non_trainable), after)
        rest = iter(added)
        named = {name: [next(rest) for _ in _flat(part)] for name, part in report.items()}
        return Forward(loss, named, loss, rows, after)

    metrics = OrderedDict(
        (name, _metric(name, structure, body.finalizers[name]))
        for name, structure in report.items()
    )
    return Model(weights, forward, metrics, masked=False)


def _metric(name: str, structure: Any, finalize: Callable[[Any], Any]) -> Metric:
    """Adds up what batches report; the script's own function makes the metric of it."""
    import tensorflow as tf

    like = [np.asarray(leaf) for leaf in tf.nest.flatten(structure)]
    values = lambda leaves: [
        tf.constant(np.asarray(leaf, one.dtype)) for leaf, one in zip(leaves, like, strict=True)
    ]

    def call(*leaves: Any) -> Any:
        found = finalize(tf.nest.pack_sequence_as(structure, values(leaves)))
        return jax.tree.map(np.asarray, found)

    made = call(*like)

    def finalize_(leaves: Sequence[Any]) -> Any:
        traced = any(isinstance(leaf, Tracer) for leaf in leaves)
        return on_host_in_32_bits(call, made, *leaves) if traced else call(*leaves)

    return Metric(
        zero=lambda: [np.zeros_like(narrow(leaf)) for leaf in like],
        update=lambda seen, batch, forward, mask: [
            old + new for old, new in zip(seen, forward.predictions[name], strict=True)
        ],
        finalize=finalize_,
    )


def on_host_in_32_bits(function: Callable[..., Any], like: Any, *given: Any) -> Any:
    """Calls a function from a compiled program, for arrays like these in the core's dtypes."""
    call = lambda *given: jax.tree.map(narrow, function(*given))
    return on_host(call, jax.tree.map(_shape, like), *given)


def _checked_report(body: Body, weights: ModelWeights) -> OrderedDict[str, Any]:
    """What no batch reports: zeros, in the structures of the metrics."""
    import tensorflow as tf

    one, other = _made_up(body, 0), _made_up(body, 1)
    start, fixed = (_constants(jax.tree.leaves(side)) for side in weights)

    def report(*batches: Any) -> Any:
        whole = lambda batches: OrderedDict(body.compute(start, fixed, batches, True).report)
        rows = [tf.nest.map_structure(_any_rows, body.input_spec) for _ in batches]
        return tf.function(whole).get_concrete_function(rows)(list(batches))

    of = lambda *batches: [np.asarray(leaf) for leaf in _leaves(report(*batches))]
    added = [a + b for a, b in zip(of(one), of(other), strict=True)]
    structure = report()
    names = [name for name, part in structure.items() for _ in tf.nest.flatten(part)]
    for name, zero, both, sum_ in zip(names, of(), of(one, other), added, strict=True):
        if np.any(zero != 0) or not np.allclose(both, sum_, rtol=_TOLERANCE, equal_nan=True):
            raise ModelError(
                f"the metric {name!r} of {body.name} does more than add up over batches, from zero "
                "on: let it report sums, and divide them in its finalizer."
            )
    return tf.nest.map_structure(lambda leaf: leaf.numpy(), structure)


# ------------------------------------------------------------------ one batch, in JAX or TensorFlow


def _step(
    body: Body, weights: ModelWeights, report: Any, training: bool, note: Callable[[str], None]
) -> Callable[..., Any]:
    """`(trainable, non_trainable, batch, key) -> (loss, rows, what is reported, non_trainable)`."""
    theirs = _InTensorFlow(body, weights, report, training)
    doing = "trains" if training else "is evaluated"
    try:
        ours = _converted(body, weights, training)
        with jax.ensure_compile_time_eval():  # now, though a program is being traced
            _compare(body, weights, ours, theirs)
    except Exception as error:  # noqa: BLE001 -- whatever it is, TensorFlow itself computes it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        note(f"{body.name} {doing} in TensorFlow, called from JAX: not converted ({reason[:200]})")
        return theirs.step
    note(
        f"{body.name} {doing} in JAX, converted by tf2jax; compared with TensorFlow, gradients too"
    )
    return ours


def _converted(body: Body, weights: ModelWeights, training: bool) -> Callable[..., Any]:
    """By tf2jax, which follows no assignments into functions: they are traced as one."""
    import tensorflow as tf
    import tf2jax

    @functools.partial(tf.function, autograph=False)
    def whole(trainable: Any, non_trainable: Any, batch: Any) -> Any:
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            return _outputs(body.compute(trainable, non_trainable, [batch], training))
        finally:
            tf.config.run_functions_eagerly(before)

    function, variables = tf2jax.convert(whole, *_specs(body, weights))
    variables = {name: np.asarray(variable) for name, variable in variables.items()}

    def step(trainable: Any, non_trainable: Any, batch: Any, key: Any) -> Any:
        with warnings.catch_warnings():  # 64 bits become 32, as everywhere in the core
            warnings.filterwarnings("ignore", message="Explicitly requested dtype")
            with tf2jax.override_config("strict_dtype_check", False):
                found, _ = function(variables, trainable, non_trainable, batch, rng=key)
        loss, rows, added, after = found
        return loss, jnp.asarray(rows, jnp.int32), list(added), list(after)

    return step


class _InTensorFlow:
    """The same, computed by TensorFlow: called from JAX's program, which waits for it."""

    def __init__(self, body: Body, weights: ModelWeights, report: Any, training: bool):
        import tensorflow as tf

        self._specs = _specs(body, weights)

        @functools.partial(tf.function, input_signature=self._specs)
        def values(trainable: Any, non_trainable: Any, batch: Any) -> Any:
            return _outputs(body.compute(trainable, non_trainable, [batch], training))

        @functools.partial(tf.function, input_signature=self._specs)
        def with_gradient(trainable: Any, non_trainable: Any, batch: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(trainable)
                computed = body.compute(trainable, non_trainable, [batch], training)
            zero = tf.UnconnectedGradients.ZERO
            found = tape.gradient(computed.loss, list(computed.sources), None, zero)
            return _outputs(computed), [tf.convert_to_tensor(gradient) for gradient in found]

        sides = [[_shape(leaf) for leaf in jax.tree.leaves(side)] for side in weights]
        added = [_shape(np.asarray(leaf)) for leaf in _leaves(report)]
        scalar = lambda dtype: jax.ShapeDtypeStruct((), dtype)
        outputs = scalar(np.float32), scalar(np.int32), added, sides[1]
        self.values = self._calling(values, outputs)
        self.with_gradient = self._calling(with_gradient, (outputs, sides[0]))
        self.step = self._step()

    def _calling(self, function: Any, shapes: Any) -> Callable[..., Any]:
        import tensorflow as tf

        traced = functools.cache(function.get_concrete_function)

        def call(*given: Any) -> Any:
            cast = lambda spec, value: tf.constant(np.asarray(value, spec.dtype.as_numpy_dtype))
            found = traced()(*tf.nest.map_structure(cast, self._specs, given))
            plain = jax.tree.leaves(tf.nest.map_structure(lambda leaf: leaf.numpy(), found))
            flat, structure = jax.tree.flatten(shapes)
            arrays = [np.asarray(leaf, one.dtype) for leaf, one in zip(plain, flat, strict=True)]
            return jax.tree.unflatten(structure, arrays)

        return lambda *given: on_host(call, shapes, *given)

    def _step(self) -> Callable[..., Any]:
        @jax.custom_vjp
        def step(trainable: Any, non_trainable: Any, batch: Any) -> Any:
            return self.values(trainable, non_trainable, batch)

        def backward(gradient: Any, cotangents: Any) -> Any:
            return [cotangents[0] * leaf for leaf in gradient], None, None

        step.defvjp(self.with_gradient, backward)
        return lambda trainable, non_trainable, batch, key: step(trainable, non_trainable, batch)


def _compare(body: Body, weights: ModelWeights, ours: Any, theirs: _InTensorFlow) -> None:
    """Raises where values or gradients differ, on made-up rows, at weights beside these."""
    rng = np.random.default_rng(0)
    near = lambda leaf: leaf + (0.1 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
    move = lambda leaf: near(leaf) if leaf.dtype.kind == "f" else leaf
    trainable, non_trainable = ([move(leaf) for leaf in jax.tree.leaves(w)] for w in weights)
    batch = _as_spec(body.input_spec, _named(body.input_spec, _made_up(body, 0)))

    def loss(trainable: Any) -> Any:
        found = ours(trainable, non_trainable, batch, jax.random.key(0))
        return found[0], found

    gradient, found = jax.jit(jax.grad(loss, has_aux=True))(trainable)
    expected = theirs.with_gradient(trainable, non_trainable, batch)
    for one, other in zip(
        jax.tree.leaves((found, gradient)), jax.tree.leaves(expected), strict=True
    ):
        scale = np.nanmax(np.abs(other), initial=1e-30)
        if not np.allclose(one / scale, other / scale, rtol=0, atol=_TOLERANCE, equal_nan=True):
            raise ModelError("what tf2jax makes of it differs from TensorFlow")


# ------------------------------------------------------------------ structures


def _outputs(computed: Computed) -> Any:
    import tensorflow as tf

    if computed.loss is None:
        raise ModelError("its forward pass gives no loss")
    return (
        tf.cast(tf.reshape(computed.loss, []), tf.float32),
        tf.cast(computed.num_examples, tf.int32),
        _leaves(computed.report),
        list(computed.non_trainable),
    )


def _specs(body: Body, weights: ModelWeights) -> tuple[Any, Any, Any]:
    import tensorflow as tf

    flat = lambda side: [tf.TensorSpec(x.shape, x.dtype) for x in jax.tree.leaves(side)]
    rows = tf.nest.map_structure(_any_rows, body.input_spec)
    return flat(weights.trainable), flat(weights.non_trainable), rows


def _any_rows(spec: Any) -> Any:
    import tensorflow as tf

    if spec.dtype == tf.string:
        raise ModelError("a batch holds texts: turn them into numbers in the data's pipeline.")
    return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)


def _made_up(body: Body, seed: int) -> Any:
    """A batch of a few rows: numbers between 0 and 1, integers 0 or 1."""
    import tensorflow as tf

    rng = np.random.default_rng(seed)

    def one(spec: Any) -> Any:
        shape = [_ROWS, *(size or 2 for size in spec.shape[1:])]
        drawn = rng.random(shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
        return tf.constant(drawn.astype(spec.dtype.as_numpy_dtype))

    return tf.nest.map_structure(lambda spec: one(_any_rows(spec)), body.input_spec)


def _named(spec: Any, batch: Any) -> dict[str, Any]:
    return {name: np.asarray(value) for name, value in leaves_by_name(name_leaves(spec), batch)}


def _as_spec(spec: Any, batch: Batch) -> Any:
    """A batch of the core in the structure of the spec."""
    try:
        return _fill(name_leaves(spec), {name: jnp.asarray(batch[name]) for name in batch})
    except KeyError as missing:
        raise ModelError(
            f"the batches have the features {sorted(batch)}, and the model's input_spec names "
            f"{missing}: take `input_spec` from the data set's `element_spec`."
        ) from None


def _leaves(report: Mapping[str, Any]) -> list[Any]:
    """All that is reported, metric by metric."""
    return [leaf for part in report.values() for leaf in _flat(part)]


def _flat(structure: Any) -> list[Any]:
    import tensorflow as tf

    return tf.nest.flatten(structure)


def _constants(leaves: Sequence[Any]) -> list[Any]:
    import tensorflow as tf

    return [tf.constant(leaf) for leaf in leaves]


def narrow(array: np.ndarray) -> np.ndarray:
    """In 32 bits, as the core counts."""
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))


def _shape(array: np.ndarray) -> Any:
    return jax.ShapeDtypeStruct(array.shape, jax.dtypes.canonicalize_dtype(array.dtype))
