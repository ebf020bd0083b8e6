"""What differs between the versions of jax that fedbridge supports (0.4.34 to 0.12), all of it.

Each entry says from which version on it can go.
"""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn


def with_equations(jaxpr: Any, equations: Sequence[JaxprEqn]) -> Any:
    """The same jaxpr, open or closed, with other equations."""
    # Before jax 0.12 a ClosedJaxpr is a Jaxpr in a box; from 0.12 on both names mean one class and
    # `jaxpr.replace(eqns=...)` is enough.
    if isinstance(jaxpr, Jaxpr):
        return jaxpr.replace(eqns=list(equations))
    return jaxpr.replace(jaxpr=jaxpr.jaxpr.replace(eqns=list(equations)))
