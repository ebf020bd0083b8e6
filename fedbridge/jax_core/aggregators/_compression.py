"""A sum of quantized values: what federated compression loses, without what it saves.

TFF: aggregators/encoded.py, with `uniform_quantization` of tensorflow_model_optimization.

    each client k, each leaf x of more than `threshold` entries:
        l, h ← min x, max x;  y ← (x − l) / (h − l) · (2ᵇ − 1)
        y ← ⌊y⌋ + 1[u < y − ⌊y⌋], u uniform in [0, 1)    (not stochastic: y rounded half to even)
        contributes y / (2ᵇ − 1) · (h − l) + l
    the server:  sums up

With `min_max` the x are clipped to [l, h], the y are summed, and the server decodes the sum.

References:
    Suresh et al., 2017. https://arxiv.org/abs/1611.00429
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from fedbridge.jax_core._aggregators import Aggregator, MeasuredProcessOutput
from fedbridge.jax_core._errors import check_argument, is_whole
from fedbridge.jax_core.aggregators._arguments import Number, check_number
from fedbridge.jax_core.metrics import divide_no_nan


class Encoded(NamedTuple):
    """The contributions to a quantizing sum: decoded values, or with `min_max` encoded ones."""

    values: PyTree
    count: Int[Array, ""]


def quantize_above_threshold(
    quantization_bits: int = 8,
    threshold: int = 20000,
    *,
    stochastic: bool = True,
    min_max: Sequence[Number] | None = None,
) -> Aggregator:
    """A sum in which large leaves are quantized; `EncodedSumFactory.quantize_above_threshold`.

    Args:
        quantization_bits: b, from 1 to 16.
        threshold: Leaves of more entries than this are quantized, the others summed as they are.
        stochastic: Whether to round at random, unbiased, with the client's key.
        min_max: l and h for all clients; by default each client's own extremes.

    Raises:
        ArgumentError: Bits, threshold or range outside of that.
    """
    check_argument(
        is_whole(quantization_bits, 1) and quantization_bits <= 16,
        "quantization_bits",
        quantization_bits,
        "an integer from 1 to 16",
    )
    check_argument(is_whole(threshold, 0), "threshold", threshold, "an integer of at least 0")
    check_argument(isinstance(stochastic, bool), "stochastic", stochastic, "True or False")
    if min_max is not None:
        _check_range(min_max)
    levels = 2.0 ** int(quantization_bits) - 1

    def encode(leaf: Any, low: Any, high: Any, key: Key[Array, ""]) -> Float[Array, "..."]:
        # The same bits as TFF's, or a value near the middle would go to the next level: between a
        # product that made the leaf and the subtraction, clipping keeps XLA from rounding them as
        # one; and a divisor that is no known scalar keeps it from multiplying by the reciprocal.
        above = jnp.clip(leaf, low, high) - low
        spread = jax.lax.optimization_barrier(jnp.broadcast_to(high - low, leaf.shape))
        scaled = divide_no_nan(above, spread) * levels
        if not stochastic:
            return jnp.round(scaled)
        floor = jnp.floor(scaled)
        up = jax.random.uniform(key, leaf.shape, leaf.dtype) < scaled - floor
        return floor + up.astype(leaf.dtype)

    def decode(encoded: Any, low: Any, high: Any, count: Any) -> Float[Array, "..."]:
        return encoded / levels * (high - low) + low * count

    def contribution(leaf: Any, key: Key[Array, ""]) -> Any:
        if leaf.size <= threshold:
            return leaf
        if min_max is None:
            low, high = jnp.min(leaf), jnp.max(leaf)
            return decode(encode(leaf, low, high, key), low, high, 1)
        low, high = jnp.asarray(min_max, leaf.dtype)
        return encode(leaf, low, high, key)

    def client(state: PyTree, value: PyTree, weight: Any, key: Key[Array, ""]) -> Encoded:
        leaves, structure = jax.tree.flatten(value)
        keys = jax.random.split(key, max(len(leaves), 1))
        encoded = [contribution(jnp.asarray(x), k) for x, k in zip(leaves, keys, strict=False)]
        return Encoded(jax.tree.unflatten(structure, encoded), jnp.ones((), jnp.int32))

    def server(state: PyTree, summed: Encoded, key: Any) -> MeasuredProcessOutput:
        def decoded(leaf: Any) -> Any:
            if min_max is None or leaf.size <= threshold:
                return leaf
            low, high = jnp.asarray(min_max, leaf.dtype)
            return decode(leaf, low, high, summed.count.astype(leaf.dtype))

        return MeasuredProcessOutput(state, jax.tree.map(decoded, summed.values), ())

    initialize = lambda template: jax.tree.map(lambda leaf: (), template)
    return Aggregator(initialize, client, server, weighted=False)


def _check_range(min_max: Any) -> None:
    pair = isinstance(min_max, list | tuple | np.ndarray) and len(min_max) == 2
    check_argument(pair, "min_max", min_max, "a list of two numbers, the smaller one first")
    for index, bound in enumerate(min_max):
        check_number(f"min_max[{index}]", bound, "a finite number", np.isfinite)
    check_argument(
        min_max[0] < min_max[1], "min_max", min_max, "two numbers, the smaller one first"
    )
