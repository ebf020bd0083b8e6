"""The table from a Keras loss' class to what it computes."""

from collections.abc import Callable

from fedbridge.tff_io import _keras_losses as losses, _keras_values as values
from fedbridge.tff_io._keras_losses import Elements, LossFn, reduced
from fedbridge.tff_io._keras_objects import Spec, construct


def loss_function(spec: Spec) -> LossFn:
    """The loss that a serialised Keras loss describes.

    Raises:
        ModelError: For a loss or an argument that fedbridge does not compute.
    """
    return construct(LOSSES, spec, kind="loss", neutral=("name", "fn", "dtype"))


def _of(elements: Elements) -> Callable[..., LossFn]:
    """A loss without arguments of its own."""

    def build(reduction: str | None = "auto") -> LossFn:
        return reduced(elements, reduction)

    return build


def _sparse_categorical_crossentropy(
    from_logits: bool = False,
    axis: int = -1,
    ignore_class: int | None = None,
    reduction: str | None = "auto",
) -> LossFn:
    elements = losses.sparse_categorical_crossentropy(from_logits, axis, ignore_class)
    return reduced(elements, reduction, ignore_class)


def _categorical_crossentropy(
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
    reduction: str | None = "auto",
) -> LossFn:
    elements = losses.categorical_crossentropy(from_logits, label_smoothing, axis)
    return reduced(elements, reduction)


def _binary_crossentropy(
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
    reduction: str | None = "auto",
) -> LossFn:
    return reduced(losses.binary_crossentropy(from_logits, label_smoothing, axis), reduction)


def _huber(delta: float = 1.0, reduction: str | None = "auto") -> LossFn:
    return reduced(losses.huber(delta), reduction)


def _cosine_similarity(axis: int = -1, reduction: str | None = "auto") -> LossFn:
    """The metric of this name, with its sign turned."""
    cosine = values.cosine_similarity(axis)
    return reduced(lambda y_true, y_pred, mask: -cosine(y_true, y_pred, mask), reduction)


LOSSES: dict[str, Callable[..., LossFn]] = {
    "BinaryCrossentropy": _binary_crossentropy,
    "CategoricalCrossentropy": _categorical_crossentropy,
    "CategoricalHinge": _of(values.categorical_hinge),
    "CosineSimilarity": _cosine_similarity,
    "Hinge": _of(values.hinge),
    "Huber": _huber,
    "KLDivergence": _of(values.kl_divergence),
    "LogCosh": _of(values.log_cosh),
    "MeanAbsoluteError": _of(losses.absolute_error),
    "MeanAbsolutePercentageError": _of(values.percentage_error),
    "MeanSquaredError": _of(losses.squared_error),
    "MeanSquaredLogarithmicError": _of(values.squared_logarithmic_error),
    "Poisson": _of(values.poisson),
    "SparseCategoricalCrossentropy": _sparse_categorical_crossentropy,
    "SquaredHinge": _of(values.squared_hinge),
}
