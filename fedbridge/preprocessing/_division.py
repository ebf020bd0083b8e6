"""Division of rows by a number each, with quotients that are correctly rounded."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def divide_rows(
    values: Float[Any, "rows ..."], divisors: Float[Any, " rows"]
) -> Float[Array, "rows ..."]:
    """Each row over its divisor, bitwise as NumPy and TensorFlow divide.

    XLA (seen with jaxlib 0.10.2) makes a product with the rounded inverse of a division by numbers
    that are broadcast. It does not see them here: a divisor hangs on its value, in appearance.

    Example:
        >>> divide_rows(jnp.asarray([[5.0, 7.0]]), jnp.asarray([3.0])).tolist()
        [[1.6666666269302368, 2.3333332538604736]]
    """
    values = jnp.asarray(values)
    broadcast = jnp.asarray(divisors).reshape((-1,) + (1,) * (values.ndim - 1))
    return values / jnp.where(jnp.isnan(values), values, broadcast)
