"""Metrics of language models: some tokens do not count; and the accuracy among the first k.

References:
    TFF: simulation/baselines/keras_metrics.py
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from fedbridge.jax_core._errors import check_argument, is_whole
from fedbridge.jax_core._model import Batch, Forward, Metric
from fedbridge.jax_core.metrics._confusion import OF_Y, Outcomes, check_outcomes
from fedbridge.jax_core.metrics._sums import ZERO_MEAN, MeanAccumulator, divide_no_nan, sum_of


def num_tokens_counter(
    of: Outcomes = OF_Y, masked_tokens: Sequence[int] = (), zero: Any = 0
) -> Metric:
    """How many labels there are that are none of `masked_tokens`; TFF's `NumTokensCounter`.

    A single round counts up to 2^31 - 1 tokens, 107 million sentences of 20.

    Args:
        of: Where labels and predictions are found.
        masked_tokens: Labels that do not count, such as the padding.
        zero: Of the dtype to count in; an int for an exact count.

    Example:
        >>> metric = num_tokens_counter(masked_tokens=[0])
        >>> batch, mask = {"y": jnp.asarray([[3, 4, 0], [5, 5, 5]])}, jnp.asarray([True, False])
        >>> forward = Forward(jnp.zeros(()), (), jnp.zeros(()), jnp.asarray(1))
        >>> int(metric.finalize(metric.update(metric.zero(), batch, forward, mask)))
        2
    """
    _check_tokens(of, masked_tokens)

    def terms(batch: Batch, forward: Forward, mask: Any) -> Any:
        return _counting(jnp.asarray(of(batch, forward)[0]), mask, masked_tokens).sum()

    return sum_of(terms, zero=zero)


def masked_accuracy(of: Outcomes = OF_Y, masked_tokens: Sequence[int] = ()) -> Metric:
    """How often the highest prediction is the label, over all labels but `masked_tokens`.

    TFF's `MaskedCategoricalAccuracy`: class numbers `[batch, ...]` as labels, predictions
    `[batch, ..., classes]`.
    """
    _check_tokens(of, masked_tokens)

    def terms(batch: Batch, forward: Forward, mask: Any) -> MeanAccumulator:
        labels, predictions = of(batch, forward)
        labels = jnp.asarray(labels).reshape(predictions.shape[:-1])
        counting = _counting(labels, mask, masked_tokens)
        right = labels.astype(jnp.float32) == highest(predictions).astype(jnp.float32)
        return MeanAccumulator((counting & right).sum(), counting.sum())

    return sum_of(terms, lambda seen: divide_no_nan(*seen), ZERO_MEAN)


def _check_tokens(of: Any, masked_tokens: Any) -> None:
    check_outcomes(of)
    listed = isinstance(masked_tokens, Iterable) and all(
        is_whole(t, -(2**31)) for t in masked_tokens
    )
    check_argument(listed, "masked_tokens", masked_tokens, "a list of whole numbers")


def highest(predictions: Float[Array, "... classes"]) -> Int[Array, "..."]:
    """The class of the highest prediction, the first of equal ones; a NaN never is the highest.

    `tf.math.argmax`. That of NumPy and JAX gives the first NaN.

    Example:
        >>> int(highest(jnp.asarray([jnp.nan, 0.5, 0.7, 0.7])))
        2
    """
    return jnp.where(jnp.isnan(predictions), -jnp.inf, predictions).argmax(axis=-1)


def in_top_k(
    labels: Num[Array, "..."], predictions: Float[Array, "... classes"], k: int
) -> Bool[Array, "..."]:
    """Whether fewer than k classes have a higher prediction than the label; `tf.math.in_top_k`.

    Ties count as hits. A label that is no class, or a prediction that is not finite, is a miss.

    Args:
        labels: Class numbers.
        predictions: A row for each label.
        k: How many classes are looked at.

    Example:
        >>> predictions = jnp.asarray([[0.2, 0.2, 0.6], [0.3, 0.1, 0.6]])
        >>> in_top_k(jnp.asarray([0, 1]), predictions, 2).tolist()
        [True, False]
    """
    classes = jnp.arange(predictions.shape[-1]).reshape((1,) * labels.ndim + (-1,))
    is_label = classes == labels.astype(jnp.int32)[..., None]
    chosen = jnp.where(is_label, predictions, -jnp.inf).max(axis=-1, keepdims=True)
    higher = (predictions > chosen).sum(axis=-1)
    known = is_label.any(axis=-1) & jnp.isfinite(predictions).all(axis=-1)
    return known & (higher < k)


def _counting(
    labels: Num[Array, "batch ..."], mask: Bool[Array, " batch"], masked_tokens: Sequence[int]
) -> Bool[Array, "batch ..."]:
    counting = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (labels.ndim - 1)), labels.shape)
    for token in masked_tokens:
        counting = counting & (labels != token)
    return counting
