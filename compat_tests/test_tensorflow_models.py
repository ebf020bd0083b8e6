"""Models written in TensorFlow: in JAX by tf2jax, or in TensorFlow where it has no rule."""

import collections

import jax
import numpy as np
import pytest

import fedbridge as fb
from fedbridge.tff_io import Body, Computed, from_tensorflow

RNG = np.random.default_rng(0)
BATCH = {"x": RNG.random((5, 3), np.float32), "y": RNG.integers(0, 2, (5, 1)).astype(np.int32)}


def body(bend, report=lambda loss, rows: [loss * rows, rows], spec=None):
    """A regression whose predictions are bent by a function of TensorFlow's."""
    import tensorflow as tf

    def compute(trainable, non_trainable, batches, training):
        totals = [tf.zeros(()), tf.zeros(())]
        loss, rows = tf.zeros(()), tf.constant(0.0)
        for batch in batches:
            found = bend(tf.matmul(batch["x"], trainable[0]) + non_trainable[0])
            loss = tf.reduce_mean((found - tf.cast(batch["y"], tf.float32)) ** 2)
            rows = tf.cast(tf.shape(batch["x"])[0], tf.float32)
            totals = [old + new for old, new in zip(totals, report(loss, rows), strict=True)]
        named = collections.OrderedDict(second=[totals[1]], loss=totals)
        return Computed(loss, rows, named, [non_trainable[0] * 2], trainable)

    spec = spec or {
        "x": tf.TensorSpec([None, 3], tf.float32), "y": tf.TensorSpec([None, 1], tf.int32)
    }  # fmt: skip
    finalizers = {"loss": lambda sums: sums[0] / sums[1], "second": lambda sums: sums[0]}
    weights = fb.ModelWeights([RNG.random((3, 1), np.float32)], [np.float32(0.5)])
    return Body("the regression", weights, spec, compute, finalizers)


def values(model):
    """What a compiled gradient computes, inside of a loop as in a client's steps."""

    def objective(trainable):
        weights = model.initial_weights._replace(trainable=trainable)
        forward = model.forward(weights, BATCH, None, jax.random.key(0), True)
        return forward.objective, forward

    gradient = jax.grad(objective, has_aux=True)
    loop = lambda w: jax.lax.fori_loop(0, 1, lambda i, _: gradient(w), gradient(w))
    return jax.jit(loop)(model.initial_weights.trainable)


def test_what_has_rules_runs_in_jax_and_what_has_none_in_tensorflow_with_its_gradient():
    import tensorflow as tf

    @tf.custom_gradient
    def wrong_in_jax(x):  # as a function that tf2jax cannot follow, and whose gradient is its own
        bent = tf.numpy_function(np.tanh, [x], tf.float32)
        return bent, lambda upstream: upstream * (1 - bent**2)

    notes = []
    in_jax = from_tensorflow(body(tf.tanh), notes.append)
    in_tensorflow = from_tensorflow(body(wrong_in_jax), notes.append)._replace(
        initial_weights=in_jax.initial_weights
    )
    (gradient, forward), (their_gradient, theirs) = values(in_jax), values(in_tensorflow)
    assert "in JAX, converted by tf2jax" in notes[0]
    assert "in TensorFlow, called from JAX" in notes[1]
    assert len(notes) == 2
    for one, other in zip(
        jax.tree.leaves((gradient, forward)), jax.tree.leaves((their_gradient, theirs)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)  # sums of five rows
    assert np.abs(gradient[0]).max() > 0.01
    assert forward.num_examples == 5
    assert forward.non_trainable[0] == 1.0
    seen = {name: metric.zero() for name, metric in in_jax.metrics.items()}
    for _ in range(2):
        for name, metric in in_jax.metrics.items():
            seen[name] = metric.update(seen[name], BATCH, forward, None)
    finalize = in_jax.metrics["loss"].finalize
    np.testing.assert_allclose(finalize(seen["loss"]), forward.objective, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(finalize)(seen["loss"]), forward.objective, rtol=1e-6)
    assert in_jax.metrics["second"].finalize(seen["second"]) == 10


def test_a_metric_that_is_no_sum_is_refused():
    import tensorflow as tf

    constant = lambda loss, rows: [tf.constant(1.0), rows * loss**0]
    from_tensorflow(body(tf.tanh, constant), print)  # also a number of batches is a sum
    grows = iter(range(1, 99))
    with pytest.raises(fb.ModelError, match="'loss' of the regression does more than add up"):
        from_tensorflow(body(tf.tanh, lambda loss, rows: [float(next(grows)), rows]), print)


def test_batches_that_do_not_fit_the_spec():
    import tensorflow as tf

    texts = {"x": tf.TensorSpec([None, 3], tf.string), "y": tf.TensorSpec([None, 1], tf.int32)}
    with pytest.raises(fb.ModelError, match="holds texts"):
        from_tensorflow(body(tf.tanh, spec=texts), print)
    model = from_tensorflow(body(tf.tanh), print)
    with pytest.raises(fb.ModelError, match=r"\['pixels'\], and the model's input_spec names 'x'"):
        model.forward(model.initial_weights, {"pixels": BATCH["x"]}, None, None, True)
