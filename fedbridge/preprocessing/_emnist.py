"""EMNIST: characters with their labels, or images that are their own target.

Reference: TFF's simulation/baselines/emnist/emnist_preprocessing.py.
"""

from fedbridge.jax_core import Batch, ClientDataError, FederatedArrays
from fedbridge.jax_core._columns import decode_column, take_rows
from fedbridge.preprocessing._features import require


def emnist_character_recognition(data: FederatedArrays) -> FederatedArrays:
    """Batches of `x` float32[batch, 28, 28, 1], where 1.0 is paper, and `y` int32[batch].

    Args:
        data: With the features "pixels" and "label".

    Raises:
        ClientDataError: One of them is missing, or images or labels have another shape.
    """
    require(data, "emnist_character_recognition", pixels="numbers", label="numbers")
    _require_shapes(data, "emnist_character_recognition", pixels=(28, 28), label=())
    return data.map_batches(_characters)


def emnist_autoencoder(data: FederatedArrays) -> FederatedArrays:
    """Batches of `x` and `y`, both one minus the pixels: float32[batch, 784], 1.0 is ink.

    Args:
        data: With the feature "pixels".

    Raises:
        ClientDataError: It is missing, or the images have another shape.
    """
    require(data, "emnist_autoencoder", pixels="numbers")
    _require_shapes(data, "emnist_autoencoder", pixels=(28, 28))
    return data.map_batches(_ink)


def _characters(batch: Batch) -> Batch:
    return {"x": batch["pixels"][..., None], "y": batch["label"]}


def _ink(batch: Batch) -> Batch:
    pixels = batch["pixels"]
    ink = 1 - pixels.reshape(len(pixels), -1)
    return {"x": ink, "y": ink}


def _require_shapes(data: FederatedArrays, where: str, **shapes: tuple[int, ...]) -> None:
    for name, shape in shapes.items():
        rows = decode_column(take_rows(data.features[name], slice(0, 1)))
        found = rows.shape[1:]
        if found != shape:
            raise ClientDataError(
                f"{where}: feature {name!r} has the shape {list(found)} and not {list(shape)}; "
                "give it TFF's EMNIST, or write a preprocessing of your own with data.map_batches."
            )
