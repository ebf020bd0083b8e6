"""A check at the border: are the labels of a cohort labels that the model knows?

Inside a compiled program a label out of range can only become a NaN, and a client with a NaN is
left out without a word; TensorFlow raises an error on a CPU and says nothing on a GPU.
"""

import dataclasses
import functools
import itertools
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._errors import ClientDataError
from fedbridge.jax_core._model import Batch
from fedbridge.jax_core._residence import own_rows, rows_bucket, used_rows


def check_labels(cohort: Cohort, feature: str, num_classes: Callable[[Batch], int]) -> None:
    """Raises unless all labels of a cohort are in `[0, num_classes)`.

    Args:
        cohort: The clients of a round.
        feature: The feature of the model's batch that holds the labels.
        num_classes: How many classes the model tells apart, from the shapes of a batch.

    Raises:
        ClientDataError: Some label is out of range; or there is no such feature.
    """
    if cohort.residence is not None and _all_known(cohort, feature, num_classes):
        return
    own = cohort
    if cohort.residence is not None:
        used = used_rows(cohort.streams)
        size = rows_bucket(len(used), cohort.streams)
        own = _with_labels(cohort, feature, num_classes, used, size)
    lowest, highest, classes = map(int, _range_of_own(own, feature, num_classes))
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise ClientDataError(
            f"feature {feature!r} of {_whose(cohort, feature, wrong)}: it holds the label {wrong}, "
            f"and the model tells the classes 0 to {classes - 1} apart; give the model more "
            "outputs, or map the labels with `data.map_batches`."
        )


def _all_known(cohort: Cohort, feature: str, num_classes: Callable[[Batch], int]) -> bool:
    """Whether all labels of the cohort's data set are known to be in range; looked at once.

    Of a large data set, which may lie on disk, every round looks at its own rows.
    """
    residence: Any = cohort.residence
    if residence.widths:
        return False
    known = _KNOWN.setdefault(residence, {})
    question = feature, num_classes, cohort.decode
    if question not in known:
        leaves, needed = _leaves(cohort, feature, num_classes)
        known[question] = sum(leaves[i].nbytes for i in needed) <= _LOOKED_AT_ONCE
        if known[question]:
            rows = min(map(len, leaves))
            whole = _with_labels(cohort, feature, num_classes, np.arange(rows), rows)
            lowest, highest, classes = map(int, _range_of_own(whole, feature, num_classes))
            known[question] = lowest >= 0 and highest < classes
    return known[question]


_LOOKED_AT_ONCE = 64_000_000  # bytes
_KNOWN: MutableMapping[Any, dict[Any, bool]] = weakref.WeakKeyDictionary()


def _whose(cohort: Cohort, feature: str, label: int) -> str:
    """The first client of a cohort that has this label; by its number, where ids are not known."""
    own = cohort if cohort.residence is None else own_rows(cohort)
    for stream in own.streams.values():
        for client, (start, stop) in enumerate(itertools.pairwise(stream.step_offsets.tolist())):
            rows = np.unique(stream.rows[start:stop])
            batch: Any = own.batch(jnp.asarray(rows))
            found = (np.asarray(batch[feature]) == label).reshape(len(rows), -1).any(1)
            if not found.any():
                continue
            if cohort.residence is None:
                return f"client {client} of the cohort, counted from 0"
            row = int(used_rows(cohort.streams)[rows[found][0]])
            return f"client {cohort.residence.owner(row)!r}"
    return "the cohort's data"


def _range(
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


_range_of_own = jax.jit(_range, static_argnames=("feature", "num_classes"))


def _with_labels(
    cohort: Cohort,
    feature: str,
    num_classes: Callable,
    used: Int[np.ndarray, " rows"],
    size: int,
) -> Cohort:
    """These rows, padded to `size`, of what the labels follow from; zeros for the others."""
    if cohort.residence is not None and cohort.residence.widths:
        return own_rows(cohort)
    leaves, needed = _leaves(cohort, feature, num_classes)
    none = lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), (size, *leaf.shape[1:]))
    rows = lambda leaf: np.concatenate([leaf[used], none(leaf)[len(used) :]])
    given = [rows(leaf) if i in needed else none(leaf) for i, leaf in enumerate(leaves)]
    features = jax.tree.unflatten(jax.tree.structure(cohort.features), given)
    return dataclasses.replace(cohort, features=features, residence=None)


def _leaves(
    cohort: Cohort, feature: str, num_classes: Callable
) -> tuple[list[Any], frozenset[int]]:
    """The leaves of the features, and which of them the labels follow from."""
    leaves, structure = jax.tree.flatten(cohort.features)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves)
    return leaves, _needed(cohort.decode, feature, num_classes, structure, shapes)


@functools.lru_cache(maxsize=64)
def _needed(
    decode: Callable, feature: str, num_classes: Callable, structure: Any, shapes: tuple[Any, ...]
) -> frozenset[int]:
    """Which leaves of the features the labels follow from."""
    rows = [jax.ShapeDtypeStruct((1, *row.shape), row.dtype) for row in shapes]

    def labels(*leaves: Any) -> Any:
        features = jax.tree.unflatten(structure, leaves)
        return _range(Cohort(features, {}, 0, None, None, decode=decode), feature, num_classes)[:2]

    jaxpr = jax.make_jaxpr(labels)(*rows).jaxpr
    wanted = {id(var) for var in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(var) in wanted for var in equation.outvars):
            wanted |= {id(var) for var in equation.invars}
    return frozenset(i for i, var in enumerate(jaxpr.invars) if id(var) in wanted)
