"""The recurrence of an LSTM, with the gradient of its kernel outside the loop.

    each step t:  i, f, c̃, o ← projected_t + h_{t-1} U        the gates in Keras' order
                  c_t ← σ(f) c_{t-1} + σ(i) tanh(c̃)
                  h_t ← σ(o) tanh(c_t)

Differentiated as it stands, a loop adds hᵀ δ to the gradient of U in every step: a product with
only a batch of rows to sum over, and the whole gradient read and written again each time. Here the
loop backwards keeps the δ of its steps, and one product over all of them is the gradient.

References:
    Hochreiter and Schmidhuber, 1997; the formulas of Keras' keras/src/layers/rnn/lstm.py
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Gates = Float[Any, "steps batch gates"]
Kernel = Float[Any, "units gates"]
Outputs = Float[Array, "steps batch units"]


class _Step(NamedTuple):
    """What the way back needs of each step, `[steps, batch, units]`: before it, and its gates."""

    hidden: Any
    cell: Any
    gates: Any


@jax.custom_vjp
def lstm(projected: Gates, recurrent_kernel: Kernel) -> Outputs:
    """The outputs of an LSTM that starts from zeros; gradients in reverse mode only.

    Args:
        projected: The inputs' share of the gates, with the bias: x W + b.
        recurrent_kernel: U, four gates i, f, c, o side by side.

    Example:
        >>> [round(float(h), 3) for h in lstm(jnp.ones((3, 1, 8)), jnp.zeros((2, 8)))[:, 0, 0]]
        [0.37, 0.545, 0.622]
    """
    return _forwards(projected, recurrent_kernel)[0]


def _forwards(projected: Any, recurrent_kernel: Any) -> tuple[Any, Any]:
    def step(carry: tuple[Any, Any], x: Any) -> tuple[tuple[Any, Any], tuple[Any, _Step]]:
        hidden, cell = carry
        gates = x + hidden @ recurrent_kernel
        i, f, c, o = jnp.split(gates, 4, axis=-1)
        i, f, c, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(c), jax.nn.sigmoid(o)
        new_cell = f * cell + i * c
        new = o * jnp.tanh(new_cell)
        return (new, new_cell), (new, _Step(hidden, cell, jnp.concatenate([i, f, c, o], -1)))

    zeros = jnp.zeros((projected.shape[1], recurrent_kernel.shape[0]), projected.dtype)
    _, (outputs, steps) = jax.lax.scan(step, (zeros, zeros), projected)
    return outputs, (steps, recurrent_kernel)


def _backwards(kept: tuple[_Step, Any], d_outputs: Any) -> tuple[Any, Any]:
    steps, recurrent_kernel = kept

    def step(carry: tuple[Any, Any], seen: tuple[_Step, Any]) -> tuple[tuple[Any, Any], Any]:
        (_, cell, gates), d_output = seen
        d_hidden, d_cell = carry
        i, f, c, o = jnp.split(gates, 4, axis=-1)
        tanh_cell = jnp.tanh(f * cell + i * c)
        d_hidden = d_hidden + d_output
        d_cell = d_cell + d_hidden * o * (1 - tanh_cell**2)
        d_gates = jnp.concatenate(
            [
                d_cell * c * i * (1 - i),
                d_cell * cell * f * (1 - f),
                d_cell * i * (1 - c**2),
                d_hidden * tanh_cell * o * (1 - o),
            ],
            -1,
        )
        return (d_gates @ recurrent_kernel.T, d_cell * f), d_gates

    zeros = jnp.zeros_like(d_outputs[0])
    _, d_gates = jax.lax.scan(step, (zeros, zeros), (steps, d_outputs), reverse=True)
    return d_gates, jnp.einsum("sbu,sbg->ug", steps.hidden, d_gates)


lstm.defvjp(_forwards, _backwards)
