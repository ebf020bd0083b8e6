"""How clients run where nobody has said it."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from fedbridge.jax_core._by_platform import by_platform
from fedbridge.jax_core._clients import ClientFn, Execution
from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._sharded import sharded
from fedbridge.jax_core._spread import SpreadCohort

_MOST_DEVICES = 8  # each has a copy of the weights, and cohorts are often of ten clients


def use_cores() -> None:
    """Makes every core a device, at most 8 of them, over which `default_execution` spreads clients.

    For a program that has not asked jax for a device yet. What the user has said of the CPU's
    devices, in `JAX_NUM_CPU_DEVICES` or `XLA_FLAGS`, stays.
    """
    from fedbridge.jax_core._compat import cpu_devices  # not needed by `import fedbridge`

    said = "JAX_NUM_CPU_DEVICES" in os.environ or "device_count" in os.environ.get("XLA_FLAGS", "")
    if not said:
        cpu_devices(min(num_cores(), _MOST_DEVICES))


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _over_clients(
    client_fn: ClientFn, server_values: PyTree, cohort: Cohort
) -> tuple[PyTree, PyTree]:
    return _way(cohort).over_clients(client_fn, server_values, cohort)


def _compile(round: Callable) -> Callable:
    if not _several_devices():
        return by_platform.compile(round)

    @functools.cache
    def compiled(way: Execution) -> Callable:
        return way.compile(round)

    def run(*args: Any) -> Any:
        cohorts = [arg for arg in args if isinstance(arg, Cohort)]  # none: the server, by itself
        return compiled(_way(*cohorts) if cohorts else by_platform)(*args)

    return run


def _place(cohort: Cohort) -> Cohort:
    return _way(cohort).place(cohort)


def _way(cohort: Cohort) -> Execution:
    if cohort.placed:
        return _everywhere() if isinstance(cohort, SpreadCohort) else by_platform
    # Models without a mask may be another library's, called back, which uses the cores itself.
    return _everywhere() if cohort.exact_sizes is None and _several_devices() else by_platform


def _several_devices() -> bool:
    config: Any = jax.config  # its attributes are made at run time
    one = jax.default_backend() != "cpu" or jax.process_count() > 1
    return not one and config.jax_default_device is None and jax.device_count() > 1


@functools.cache
def _everywhere() -> Execution:
    return sharded()


default_execution = Execution(_over_clients, _compile, _place)
"""On a CPU of several devices the clients are spread over them, `sequential` on each.

On a CPU of one device, as jax makes it, and for models that know no mask: `sequential`. On a GPU:
`vmapped()`.
"""
