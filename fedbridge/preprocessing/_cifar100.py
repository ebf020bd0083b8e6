"""CIFAR-100: images cut to the middle, or at random where a model trains, and standardized.

Reference: TFF's simulation/baselines/cifar100/image_classification_preprocessing.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key, Shaped

from fedbridge.jax_core import (
    Batch,
    ClientDataError,
    Cohort,
    FederatedArrays,
    Forward,
    Model,
    ModelWeights,
)
from fedbridge.jax_core._columns import decode_column
from fedbridge.jax_core._errors import check_argument
from fedbridge.preprocessing._division import divide_rows
from fedbridge.preprocessing._features import require

_SHAPE = (32, 32, 3)
_BLOCK = 1024


def cifar100_image_classification(
    data: FederatedArrays, crop_shape: tuple[int, int, int] = _SHAPE
) -> FederatedArrays:
    """Batches of `x` float32[batch, *crop_shape], and `y`, the label.

    The middle of each image, minus its mean, over its standard deviation (at least one over the
    root of its number of values): TensorFlow's numbers to the last bit.

    Args:
        data: With the features "image" and "label"; the other features are left out.
        crop_shape: (height, width, 3), at most (32, 32, 3).

    Raises:
        ClientDataError: A feature is missing, or the images have another shape.
        ArgumentError: A crop that does not fit.
    """
    height, width = _checked(crop_shape)
    images, label = _features(data, "cifar100_image_classification")
    images = _middle(images, height, width)
    mean, deviation = _statistics(images)
    features = {"image": images, "mean": mean, "deviation": deviation, "label": label}
    return dataclasses.replace(data, features=features, structure=None).map_batches(_standardized)


def cifar100_whole_images(data: FederatedArrays) -> FederatedArrays:
    """Batches of `x` float32[batch, 32, 32, 3] from 0 to 255, and `y`: for `random_crops`.

    Args:
        data: With the features "image" and "label"; the other features are left out.

    Raises:
        ClientDataError: A feature is missing, or the images have another shape.
    """
    images, label = _features(data, "cifar100_whole_images")
    features = {"image": images, "label": label}
    return dataclasses.replace(data, features=features, structure=None).map_batches(_whole)


def random_crops(model: Model, crop_shape: tuple[int, int, int], *, x: str = "x") -> Model:
    """The model, trained on random crops that are mirrored by chance; evaluated on the middle.

    TFF's `distort_image=True`: every image is cut at a place that is uniform among all that fit,
    mirrored half of the time, and standardized. Each visit of an image draws anew, from the key of
    the client's step. (TFF draws from a generator that is not seeded.)

    Args:
        model: For standardized images of `crop_shape`.
        crop_shape: (height, width, 3), at most (32, 32, 3).
        x: The feature that holds the images, as `cifar100_whole_images` gives them.

    Raises:
        ArgumentError: A crop that does not fit.
    """
    height, width = _checked(crop_shape)

    def forward(
        weights: ModelWeights, batch: Batch, mask: Any, key: Key[Array, ""], training: bool
    ) -> Forward:
        if training:
            key, crop_key = jax.random.split(key)
            cut = random_crop_and_flip(batch[x], crop_key, height, width)
        else:
            cut = _middle(batch[x], height, width)
        return model.forward(weights, {**batch, x: standardize(cut)}, mask, key, training)

    @functools.cache  # one function for all cohorts of the data: one program
    def cut(decode: Callable[[Mapping[str, Any]], Batch]) -> Callable[[Mapping[str, Any]], Batch]:
        def cut_batch(rows: Mapping[str, Any]) -> Batch:
            batch = decode(rows)
            return {**batch, x: _middle(batch[x], height, width)}

        return cut_batch

    def check(cohort: Cohort) -> None:
        assert model.check is not None
        model.check(dataclasses.replace(cohort, decode=cut(cohort.decode)))

    return model._replace(forward=forward, check=check if model.check else None)


def random_crop_and_flip(
    images: Shaped[Any, "batch height width channels"],
    key: Key[Array, ""],
    height: int,
    width: int,
) -> Shaped[Any, "batch crop_height crop_width channels"]:
    """A random crop of every image, mirrored half of the time."""
    tops, lefts, mirrors = jax.random.split(key, 3)
    shape = (len(images),)

    def one(image: Any, top: Any, left: Any, mirrored: Any) -> Any:
        cut = jax.lax.dynamic_slice(image, (top, left, 0), (height, width, image.shape[2]))
        return jnp.where(mirrored, cut[:, ::-1], cut)

    return jax.vmap(one)(
        jnp.asarray(images),
        jax.random.randint(tops, shape, 0, images.shape[1] - height + 1),
        jax.random.randint(lefts, shape, 0, images.shape[2] - width + 1),
        jax.random.bernoulli(mirrors, shape=shape),
    )


def standardize(images: Shaped[Any, "batch ..."]) -> Float[Array, "batch ..."]:
    """`tf.image.per_image_standardization`, image by image, but for the last bits.

    A compiled program sums in an order of its own, and divides the sum by a constant, which it
    turns into a product with the rounded inverse.
    """
    images = jnp.asarray(images).astype(jnp.float32)
    axes = tuple(range(1, images.ndim))
    count = np.float32(np.prod(images.shape[1:]))
    centered = images - images.mean(axes, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centered).mean(axes, keepdims=True))
    return centered / jnp.maximum(deviation, 1 / np.sqrt(count))


def _standardized(batch: Batch) -> Batch:
    images = jnp.asarray(batch["image"]).astype(jnp.float32)
    centered = images - jnp.asarray(batch["mean"])[:, None, None, None]
    return {"x": divide_rows(centered, batch["deviation"]), "y": batch["label"]}


def _whole(batch: Batch) -> Batch:
    return {"x": jnp.asarray(batch["image"]).astype(jnp.float32), "y": batch["label"]}


def _statistics(
    images: Shaped[np.ndarray, "rows height width channels"],
) -> tuple[Float32[np.ndarray, " rows"], Float32[np.ndarray, " rows"]]:
    """What is subtracted from each image, and what it is divided by."""
    mean, deviation = (np.zeros(len(images), np.float32) for _ in range(2))
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        values = images[block].astype(np.float32).reshape(len(images[block]), -1)
        count = np.float32(values.shape[1])
        mean[block] = _sum_as_eigen(values) / count
        variance = _sum_as_eigen(np.square(values - mean[block, None])) / count
        deviation[block] = np.maximum(np.sqrt(variance), 1 / np.sqrt(count))
    return mean, deviation


def _sum_as_eigen(values: Float32[np.ndarray, "rows count"]) -> Float32[np.ndarray, " rows"]:
    """Row sums in TensorFlow's order on a CPU, where the rounding depends on it.

    Four vectors of 8 take turns and are added one after another, then comes what no longer fills
    four of them; the vector is folded in halves, and what no longer fills one is added last
    (Eigen's InnerMostDimReducer, unsupported/Eigen/CXX11/src/Tensor/TensorReduction.h, for at most
    8192 values; TensorFlow's wheels are built for vectors of 8).
    """
    rows, count = values.shape
    vectors = values[:, : count // 8 * 8].reshape(rows, -1, 8)
    full = vectors.shape[1] // 4 * 4
    turns = np.zeros((rows, 4, 8), np.float32)
    for i in range(0, full, 4):
        turns += vectors[:, i : i + 4]
    total = turns[:, 0] + turns[:, 1] + turns[:, 2] + turns[:, 3]
    for i in range(full, vectors.shape[1]):
        total += vectors[:, i]
    for half in (4, 2, 1):
        total = total[:, :half] + total[:, half:]
    rest = np.zeros(rows, np.float32)
    for i in range(count // 8 * 8, count):
        rest += values[:, i]
    return rest + total[:, 0]


def _middle(images: Any, height: int, width: int) -> Any:
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def _features(data: FederatedArrays, where: str) -> tuple[Any, Any]:
    require(data, where, image="numbers", label="numbers")
    images = decode_column(data.features["image"])
    if images.shape[1:] != _SHAPE:
        raise ClientDataError(
            f"{where}: feature 'image' has the shape {list(images.shape[1:])}, not {list(_SHAPE)}; "
            "give it the data set that it is made for."
        )
    return images, data.features["label"]


def _checked(crop_shape: Any) -> tuple[int, int]:
    sizes = tuple(crop_shape) if isinstance(crop_shape, Sequence) else ()
    good = (
        len(sizes) == 3
        and all(isinstance(n, int) and n >= 1 for n in sizes)
        and all(n <= most for n, most in zip(sizes, _SHAPE, strict=True))
        and sizes[2] == _SHAPE[2]
    )
    check_argument(good, "crop_shape", crop_shape, "(height, width, 3), at most (32, 32, 3)")
    return sizes[:2]  # pyright: ignore[reportReturnType]
