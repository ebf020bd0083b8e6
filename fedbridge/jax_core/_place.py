"""Puts a cohort where the program of one device takes it."""

import dataclasses
from typing import Any

import jax
from jaxtyping import PyTree

from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._parts import in_parts
from fedbridge.jax_core._residence import own_rows, used_rows


def place(cohort: Cohort) -> Cohort:
    """The cohort, ready for a round on one device.

    Its features are all columns of its data set, on the device; or its own rows, in one piece; or,
    where these are more than the buffer holds, in parts.
    """
    if cohort.residence is not None:
        features = cohort.residence.on(default_device())
        if features is not None:
            cohort = dataclasses.replace(cohort, features=features, residence=None)
        elif len(used_rows(cohort.streams)) <= cohort.residence.buffer_rows:
            cohort = own_rows(cohort)
        else:
            cohort = in_parts(cohort, cohort.residence.buffer_rows)
    return dataclasses.replace(cohort, placed=True)


def default_device() -> jax.Device:
    """Where a program of one device runs."""
    config: Any = jax.config  # its attributes are made at run time
    device = config.jax_default_device
    if isinstance(device, jax.Device):
        return device
    return jax.local_devices(backend=device)[0]


def on_one_device(tree: PyTree) -> PyTree:
    """Values that lie on several devices alike, as a sharded round leaves its state; on one.

    What lies on one device stays there.
    """
    return jax.tree.map(_on_one_device, tree)


def _on_one_device(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
        return leaf
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _on_one_device(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jax.device_put(leaf.addressable_data(0), default_device())
