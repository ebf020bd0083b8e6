"""Which batches a loop visits: several epochs, and the two halves of federated reconstruction."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Int

from fedbridge.jax_core._errors import check_bool, check_whole
from fedbridge.jax_core._steps import Visits, every_batch

DatasetSplitFn = Callable[[Int[Any, ""]], tuple[Visits, Visits]]
"""`number of batches -> (visits of the reconstruction, visits after it)`."""


def repeated(num_epochs: int, max_steps: int | None = None) -> Callable[[Int[Any, ""]], Visits]:
    """All batches `num_epochs` times, at most `max_steps` of them: `repeat(...).take(...)`.

    Example:
        >>> visits = repeated(2, max_steps=5)(jnp.asarray(3))
        >>> [int(visits.batch(step)) for step in range(visits.count)]
        [0, 1, 2, 0, 1]
    """
    return lambda num_batches: _every(1, 0, num_batches, num_epochs, max_steps)


def simple_dataset_split_fn(num_batches: Int[Any, ""]) -> tuple[Visits, Visits]:
    """Every batch once for the reconstruction, and every batch once after it."""
    return every_batch(num_batches), every_batch(num_batches)


def build_dataset_split_fn(
    recon_epochs: int = 1,
    recon_steps_max: int | None = None,
    post_recon_epochs: int = 1,
    post_recon_steps_max: int | None = None,
    split_dataset: bool = False,
) -> DatasetSplitFn:
    """How a client divides its batches (TFF's function, learning/models/reconstruction_model.py).

    Args:
        recon_epochs: How often the reconstruction goes through its batches; 0 leaves it out.
        recon_steps_max: The most steps it takes in all epochs together; None for no limit.
        post_recon_epochs: The same for what comes after it.
        post_recon_steps_max: The same for what comes after it.
        split_dataset: Whether the reconstruction has the batches 0, 2, ... and what comes after it
            the batches 1, 3, ...; otherwise both have all of them.

    Raises:
        ArgumentError: A number of epochs or steps that is negative or not whole.

    Example:
        >>> split = build_dataset_split_fn(recon_epochs=2, recon_steps_max=5, split_dataset=True)
        >>> halves = split(jnp.asarray(7))
        >>> [[int(half.batch(step)) for step in range(half.count)] for half in halves]
        [[0, 2, 4, 6, 0], [1, 3, 5]]
    """
    for name, value in (
        ("recon_epochs", recon_epochs),
        ("recon_steps_max", recon_steps_max),
        ("post_recon_epochs", post_recon_epochs),
        ("post_recon_steps_max", post_recon_steps_max),
    ):
        if not (value is None and name.endswith("max")):
            check_whole(name, value, 0)
    check_bool("split_dataset", split_dataset)
    stride = 2 if split_dataset else 1

    def split(num_batches: Int[Any, ""]) -> tuple[Visits, Visits]:
        return (
            _every(stride, 0, num_batches, recon_epochs, recon_steps_max),
            _every(stride, stride - 1, num_batches, post_recon_epochs, post_recon_steps_max),
        )

    return split


def _every(
    stride: int, first: int, num_batches: Any, num_epochs: int, max_steps: int | None
) -> Visits:
    """The batches `first, first + stride, ...`, repeated."""
    own = (num_batches - first + stride - 1) // stride
    count = own * num_epochs
    if max_steps is not None:
        count = jnp.minimum(count, max_steps)
    # Without batches there is no step; the division is traced all the same.
    return Visits(count, lambda step: first + stride * (step % jnp.maximum(own, 1)))
