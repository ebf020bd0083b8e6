"""A model's weights in Keras models, in npz and in safetensors.

In files every array has its path in `ModelWeights` as its name: "trainable/0", "non_trainable/1".
"""

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import PyTree

from fedbridge.jax_core import (
    ModelError,
    ModelWeights,
    StateError,
    check_path,
    named_leaves,
    numpy_leaves,
)
from fedbridge.tff_io._files import write_whole
from fedbridge.tff_io._tff_state import fit_leaves

_Tree = TypeVar("_Tree")
_NOT_NPZ = (EOFError, KeyError, NotImplementedError, RuntimeError, ValueError)


def weights_from_keras(keras_model: Any) -> ModelWeights:
    """The weights of a Keras model, in the order of `from_keras` and of TFF.

    Args:
        keras_model: A model of Keras 2 or Keras 3 that has its weights.

    Returns:
        Lists of NumPy arrays, copies.

    Raises:
        ModelError: It is no Keras model.
    """
    return ModelWeights(
        *([np.asarray(variable).copy() for variable in side] for side in _sides(keras_model))
    )


def weights_to_keras(weights: ModelWeights, keras_model: Any) -> None:
    """Puts weights into a Keras model; all of them, or on an error none.

    Args:
        weights: In the order of `weights_from_keras`.
        keras_model: A model of Keras 2 or Keras 3 that has its weights.

    Raises:
        ModelError: The model has other weights, or weights of other shapes.
    """
    pairs = []
    for kind, arrays, variables in zip(
        ModelWeights._fields, weights, _sides(keras_model), strict=True
    ):
        arrays = list(named_leaves(arrays).values())
        if len(arrays) != len(variables):
            raise ModelError(
                f"the Keras model has {len(variables)} {kind} weights, but {len(arrays)} were"
                " given: pass the weights of a model of the same layers"
            )
        for number, (array, variable) in enumerate(zip(arrays, variables, strict=True)):
            if np.shape(array) != tuple(variable.shape):
                raise ModelError(
                    f"the weight '{kind}/{number}' has the shape {np.shape(array)}, but the Keras"
                    f" model's {variable.name} has {tuple(variable.shape)}: pass the weights of a"
                    " model of the same layers"
                )
            pairs.append((variable, np.asarray(array)))
    for variable, array in pairs:
        variable.assign(array)


def weights_to_npz(weights: PyTree, path: str | os.PathLike[str]) -> None:
    """Writes weights, or any tree of arrays, to an npz file.

    Raises:
        StateError: It cannot be written there.
        ArgumentError: A leaf is no array of numbers, or the path is none.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "weights.npz")
        >>> weights_to_npz(ModelWeights([np.ones(2)]), file)
        >>> np.load(file).files
        ['trainable/0']
        >>> weights_from_npz(file, like=ModelWeights([np.zeros(2)])).trainable
        [array([1., 1.])]
    """

    def write(file: Path) -> None:
        with file.open("wb") as handle:  # NumPy would append .npz to another name
            np.savez(handle, **_arrays(weights))  # type: ignore[arg-type]

    write_whole(path, write)


def weights_from_npz(path: str | os.PathLike[str], like: _Tree) -> _Tree:
    """Reads weights from an npz file.

    Args:
        path: A file whose arrays have the names that `weights_to_npz` gives.
        like: Weights of the same model, e.g. `model.initial_weights`.

    Raises:
        StateError: There is no such file, it is no npz, or it is of another model.
    """
    check_path("path", path)
    wanted = _arrays(like)
    try:
        # The whole file first: NumPy leaves one open that is no zip.
        stored = np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False)
        single = isinstance(stored, np.ndarray)
        leaves = {} if single else {name: stored[name] for name in stored.files}
        if not all(isinstance(leaf, np.ndarray) for leaf in leaves.values()):
            raise ValueError("a zip file of something else")
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    except (*_NOT_NPZ, zipfile.BadZipFile, zlib.error):
        raise _unreadable(path, "it is no npz file of numbers") from None
    if single:
        raise _unreadable(path, "it holds a single array")
    for name, array in leaves.items():
        # npz knows no bfloat16: its bytes come back without their dtype.
        if array.dtype.kind == "V" and name in wanted and wanted[name].dtype.itemsize == 2:
            leaves[name] = array.view(wanted[name].dtype)
    return fit_leaves(leaves, like, str(path))


def weights_to_safetensors(weights: PyTree, path: str | os.PathLike[str]) -> None:
    """Writes weights, or any tree of arrays, to a safetensors file; needs `fedbridge[safetensors]`.

    Raises:
        StateError: It cannot be written there.
        ArgumentError: A leaf is no array of numbers, or the path is none.
    """
    from safetensors.numpy import save

    content = save({name: np.array(array, order="C") for name, array in _arrays(weights).items()})
    write_whole(path, lambda file: file.write_bytes(content))


def weights_from_safetensors(path: str | os.PathLike[str], like: _Tree) -> _Tree:
    """Reads weights from a safetensors file; needs `fedbridge[safetensors]`.

    Args:
        path: A file whose arrays have the names that `weights_to_safetensors` gives.
        like: Weights of the same model, e.g. `model.initial_weights`.

    Raises:
        StateError: There is no such file, it is no safetensors file, or it is of another model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_path("path", path)
    try:
        leaves = load_file(path)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise _unreadable(path, str(error)) from None
    return fit_leaves(leaves, like, str(path))


def _arrays(weights: PyTree) -> dict[str, np.ndarray]:
    return numpy_leaves("weights", weights, refused="OSUMm")


def _sides(keras_model: Any) -> tuple[list[Any], list[Any]]:
    try:
        return list(keras_model.trainable_weights), list(keras_model.non_trainable_weights)
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{type(keras_model).__name__} is no Keras model with weights ({error}): build it"
            " first, for example with `model.build(input_shape)`"
        ) from None


def _unreadable(path: str | os.PathLike[str], why: str) -> StateError:
    return StateError(f"{path}: it cannot be read ({why}); give a file of weights.")
