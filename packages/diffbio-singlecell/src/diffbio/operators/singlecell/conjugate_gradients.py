"""Conjugate gradients for several positive systems at once, as implicit derivatives of maps and eigenvectors need them.

Each column has its own right-hand side, steps and end, so that one hard system holds up no other. Where a direction
has no curvature, or a negative one, its column stops: what is returned then is finite, if not a solution.

References:
    Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems, 1952.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_MAX_STEPS = 300


def conjugate_gradients(
    matvec: Callable[[Float[Array, "rows systems"]], Float[Array, "rows systems"]],
    right: Float[Array, "rows systems"],
) -> Float[Array, "rows systems"]:
    """Return x with A x = right, column by column, for symmetric positive matrices A.

    Args:
        matvec: Multiplies each column by its matrix.
        right: Right-hand sides (rows, systems); in the range of the matrix where that is singular.

    Returns:
        Solutions (rows, systems), to about the machine precision relative to `right` or as 300 steps get. It has
        the signature of `solve` in `jax.lax.custom_linear_solve`, which gives it derivatives.

    Example:
        >>> scales = jnp.array([[1.0], [2.0], [4.0]])
        >>> conjugate_gradients(lambda x: scales * x, jnp.ones((3, 1))).round(4).ravel().tolist()
        [1.0, 0.5, 0.25]
    """
    tiny = jnp.finfo(right.dtype).tiny
    wanted = jnp.finfo(right.dtype).eps ** 2 * jnp.sum(right**2, axis=0)

    def unfinished(state: tuple[Array, ...]) -> Array:
        return (state[0] < _MAX_STEPS) & jnp.any(state[4] > wanted)

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        count, solution, residual, direction, squared = state
        product = matvec(direction)
        curvature = jnp.sum(direction * product, axis=0)
        going = (squared > wanted) & (curvature > tiny)
        length = jnp.where(going, squared / jnp.where(going, curvature, 1.0), 0.0)
        solution, residual = solution + length * direction, residual - length * product
        after = jnp.where(going, jnp.sum(residual**2, axis=0), 0.0)
        direction = residual + jnp.where(going, after / jnp.where(going, squared, 1.0), 0.0) * direction
        return count + 1, solution, residual, direction, after

    start = (jnp.int32(0), jnp.zeros_like(right), right, right, jnp.sum(right**2, axis=0))
    return lax.while_loop(unfinished, step, start)[1]
