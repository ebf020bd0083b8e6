"""A check at the border: are the labels of a cohort labels that the model knows?

Inside a compiled program a label out of range can only become a NaN, and a client with a NaN is
left out without a word; TensorFlow raises an error on a CPU and says nothing on a GPU.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._errors import ClientDataError
from fedbridge.jax_core._model import Batch


def check_labels(cohort: Cohort, feature: str, num_classes: Callable[[Batch], int]) -> None:
    """Raises unless all labels of a cohort are in `[0, num_classes)`.

    Args:
        cohort: The clients of a round.
        feature: The feature of the model's batch that holds the labels.
        num_classes: How many classes the model tells apart, from the shapes of a batch.

    Raises:
        ClientDataError: Some label is out of range; or there is no such feature.
    """
    lowest, highest, classes = (int(value) for value in _range(cohort, feature, num_classes))
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise ClientDataError(
            f"feature {feature!r} of the cohort: it holds the label {wrong}, and the model tells "
            f"the classes 0 to {classes - 1} apart; give the model more outputs, or map the "
            "labels with `data.map_batches`."
        )


def _labels(
    cohort: Cohort, feature: str, num_classes: Callable[[Batch], int]
) -> tuple[Int[Array, ""], Int[Array, ""], int]:
    size = len(jax.tree.leaves(cohort.features)[0])
    batch: Any = cohort.batch(jnp.arange(size))
    if feature not in batch:
        raise ClientDataError(
            f"the cohort's batches have the features {sorted(batch)}, and the model wants "
            f"{feature!r}; name them so with `data.map_batches`."
        )
    labels = batch[feature]
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ClientDataError(
            f"feature {feature!r} of the cohort: labels are whole numbers, and these are "
            f"{labels.dtype}; cast them with `data.map_batches`."
        )
    return labels.min(), labels.max(), num_classes(batch)


# What the labels do not need (the pixels, say) is neither decoded nor even moved to the device.
_range = jax.jit(_labels, static_argnames=("feature", "num_classes"))
