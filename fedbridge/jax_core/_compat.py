"""What differs between the versions of jax that fedbridge supports (0.4.34 to 0.12), all of it.

Each entry says from which version on it can go.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn


def with_equations(jaxpr: Any, equations: Sequence[JaxprEqn]) -> Any:
    """The same jaxpr, open or closed, with other equations."""
    # Before jax 0.12 a ClosedJaxpr is a Jaxpr in a box; from 0.12 on both names mean one class and
    # `jaxpr.replace(eqns=...)` is enough.
    if isinstance(jaxpr, Jaxpr):
        return jaxpr.replace(eqns=list(equations))
    return jaxpr.replace(jaxpr=jaxpr.jaxpr.replace(eqns=list(equations)))


@functools.cache
def eigen_convolutions() -> Mapping[str, Any]:
    """Options of `jax.jit` that leave convolutions on a CPU to Eigen, which uses all cores."""
    # From jax 0.10.2 on XLA hands those of two dimensions to YNNPACK, on one core. Named here is
    # what YNNPACK goes on computing: products and sums. It can go when
    # tests/test_convolutions.py finds the convolutions at Eigen without it.
    if jax.__version_info__ < (0, 10):
        return {}
    libraries = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    options: Any = {"compiler_options": {"xla_cpu_experimental_ynn_fusion_type": libraries}}
    try:
        jax.jit(lambda: 0, **options).lower().compile()
    except RuntimeError:  # an experimental option, which another version may not know
        return {}
    return options
