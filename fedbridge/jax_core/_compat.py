"""What differs between the versions of jax that fedbridge supports (0.4.34 to 0.12), all of it.

Each entry says from which version on it can go.
"""

import functools
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn
from jax.sharding import Mesh


def with_equations(jaxpr: Any, equations: Sequence[JaxprEqn]) -> Any:
    """The same jaxpr, open or closed, with other equations."""
    # Before jax 0.12 a ClosedJaxpr is a Jaxpr in a box; from 0.12 on both names mean one class and
    # `jaxpr.replace(eqns=...)` is enough.
    if isinstance(jaxpr, Jaxpr):
        return jaxpr.replace(eqns=list(equations))
    return jaxpr.replace(jaxpr=jaxpr.jaxpr.replace(eqns=list(equations)))


@functools.cache
def cpu_options() -> Mapping[str, Any]:
    """Options of `jax.jit` with which XLA computes rounds fast on a CPU."""
    if jax.__version_info__ < (0, 10):
        return {}
    known = {name: value for name, value in _FAST.items() if _known(name, value)}
    return {"compiler_options": known}


# Experimental ones, which another version may not know. YNNPACK goes on computing what is named
# here, products and sums, and leaves convolutions of two dimensions to Eigen, which uses all cores
# (from jax 0.10.2 on XLA hands them to YNNPACK, on one core; it can go when
# tests/test_convolutions.py finds them at Eigen without it). And operations run one after the other
# as they come: handed out to threads, the small ones of a local step wait for each other longer
# than they take, all the more where every core is a device.
_FAST = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    ),
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


@functools.cache
def _known(name: str, value: str) -> bool:
    options: Any = {"compiler_options": {name: value}}
    try:
        jax.jit(lambda: 0, **options).lower().compile()
    except RuntimeError:
        return False
    return True


def cpu_devices(count: int) -> None:
    """Makes so many devices of the CPU, before jax has asked for one."""
    # The option is there from jax 0.5 on.
    if jax.__version_info__ < (0, 5):
        flag = f"--xla_force_host_platform_device_count={count}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    else:
        jax.config.update("jax_num_cpu_devices", count)


def shard_map(fn: Callable, mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable:
    """`jax.shard_map` without its checks of what differs between devices."""
    # With them a gradient with respect to replicated weights is summed over all devices, without a
    # word, and a loop may not start from a plain zero. They are called `check_rep` before jax 0.7,
    # where the function is in `jax.experimental`.
    if jax.__version_info__ < (0, 7):
        from jax.experimental.shard_map import shard_map as old

        return old(fn, mesh, in_specs=in_specs, out_specs=out_specs, check_rep=False)
    return jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def on_host(function: Callable, shapes: Any, *given: Any) -> Any:
    """Calls a function of NumPy arrays from a compiled program; side by side, one after the other.

    Args:
        function: It gives arrays of these shapes.
        shapes: A tree of `jax.ShapeDtypeStruct`.
        given: What it is called with.

    Example:
        >>> import numpy as np
        >>> shape = jax.ShapeDtypeStruct((), np.float32)
        >>> print(jax.jit(lambda x: on_host(lambda x: np.float32(x + 1), shape, x))(2.0))
        3.0
    """
    # jax 0.4.34 has one way only, and no argument for it.
    if jax.__version_info__ < (0, 4, 35):
        return jax.pure_callback(function, shapes, *given)
    return jax.pure_callback(function, shapes, *given, vmap_method="sequential")


def in_64_bits() -> Any:
    """A context in which int64 and float64 are what they are, for code that is TensorFlow's."""
    # `jax.enable_x64` is there from jax 0.8 on; the old name is gone in 0.10.
    if jax.__version_info__ < (0, 8):
        return importlib.import_module("jax.experimental").enable_x64()
    return jax.enable_x64(True)
