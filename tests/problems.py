"""Small problems that several test files share: data of a few clients, and a linear model."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np

import fedbridge as fb
from fedbridge.jax_core import ReconstructionModel

CLASSES, INPUTS = 3, 4


def clients(sizes, seed=0, inputs=INPUTS):
    """Random examples: features "x" float32[inputs] and "y" int32, as many as `sizes` says."""
    rng = np.random.default_rng(seed)
    return {
        f"c{i}": {
            "x": rng.normal(size=(n, inputs)).astype(np.float32),
            "y": rng.integers(0, CLASSES, n).astype(np.int32),
        }
        for i, n in enumerate(sizes)
    }


def linear_model(masked=True, nan_label=None):
    """Softmax regression; the opaque kind knows no mask; examples with `nan_label` give NaN."""

    def losses(weights, batch):
        matrix, bias = weights.trainable
        log_p = jax.nn.log_softmax(batch["x"] @ matrix + bias[None])
        chosen = -jnp.take_along_axis(log_p, batch["y"][:, None] % CLASSES, 1)[:, 0]
        return chosen * jnp.where(batch["y"] == nan_label, jnp.nan, 1.0) if nan_label else chosen

    def masked_forward(weights, batch, mask, key, training):
        each = losses(weights, batch)
        count = jnp.sum(mask, dtype=jnp.int32)
        mean = jnp.where(mask, each, 0.0).sum() / count.astype(jnp.float32)
        return fb.Forward(mean, each, mean, count, weights.non_trainable)

    def opaque_forward(weights, batch, mask, key, training):
        assert mask is None
        each = losses(weights, batch)
        mean = each.mean()
        return fb.Forward(mean, each, mean, jnp.int32(len(each)), weights.non_trainable)

    rng = np.random.default_rng(7)
    matrix = rng.normal(size=(INPUTS, CLASSES)).astype(np.float32)
    weights = fb.ModelWeights([matrix, np.zeros(CLASSES, np.float32)], [])
    metrics = OrderedDict(
        loss=fb.metrics.mean_loss(),
        num_examples=fb.metrics.num_examples_counter(),
        num_batches=fb.metrics.num_batches_counter(),
    )
    return fb.Model(weights, masked_forward if masked else opaque_forward, metrics, masked)


def partly_local(whole):
    """A linear model with its matrix on the server, and a bias that each client reconstructs."""

    def forward(ours, own, *args):
        weights = fb.ModelWeights([*ours.trainable, *own.trainable], [])
        return whole.forward(weights, *args)

    matrix, bias = whole.initial_weights.trainable
    own = fb.ModelWeights([bias + np.float32(0.1)], [])
    return ReconstructionModel(
        fb.ModelWeights([matrix], []), lambda key: own, forward, whole.metrics, whole.masked
    )


def softmax_gradient(weights, x, y):
    """∇ of the mean cross-entropy, in NumPy float64, written apart from the model."""
    matrix, bias = weights
    logits = x @ matrix + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return [x.T @ p / len(y), p.mean(0)]


def largest_difference(a, b):
    """Over all entries of two trees."""
    apart = lambda x, y: np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64))
    parts = jax.tree.map(lambda x, y: float(np.max(apart(x, y))), a, b)
    return max(jax.tree.leaves(parts))
