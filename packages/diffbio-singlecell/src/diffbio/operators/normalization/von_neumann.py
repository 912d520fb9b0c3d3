"""The von Neumann entropy of a diffusion operator, and its knee: the time at which noise has diffused away.

The entropy of the singular values of P^t falls fast while noise is averaged out, then slowly. Two straight lines are
fitted to the curve; where they meet best is the diffusion time, an integer without gradient.

References:
    Moon et al., Visualizing structure and transitions in high-dimensional biological data, Nature Biotechnology 2019.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def von_neumann_entropy(operator: Float[Array, "states states"], n_times: int = 100) -> Float[Array, " times"]:
    """Return the entropy of the singular values of an operator to the powers 1 to `n_times`, each divided by their sum.

    Args:
        operator: Square (states, states).
        n_times: Number of powers.

    Returns:
        Entropies in nats (n_times,), falling. Constant to differentiation.

    Example:
        >>> von_neumann_entropy(jnp.eye(4), 2).round(3).tolist() == [1.3860000371932983] * 2
        True
    """
    values = jnp.linalg.svd(lax.stop_gradient(operator), compute_uv=False)
    logarithms = jnp.log(jnp.maximum(values, jnp.finfo(values.dtype).tiny))
    shares = jax.nn.softmax(jnp.arange(1, n_times + 1)[:, None] * logarithms, axis=1)
    return jnp.sum(jax.scipy.special.entr(shares), axis=1)


def knee(curve: Float[Array, " points"]) -> Int[Array, ""]:
    """Return the place at which two straight lines, one on either side, fit a curve best.

    Args:
        curve: Values at 0, 1, ... (points,), at least 3.

    Returns:
        The place from 1 to points - 2 with the least sum of absolute deviations of two least-squares lines.

    Example:
        >>> int(knee(jnp.array([9.0, 6.0, 3.0, 0.0, 0.0, 0.0, 0.0])))
        3
    """
    places = jnp.arange(len(curve), dtype=curve.dtype)

    def deviation(within: Array) -> Array:
        count = within.sum()
        x = jnp.where(within, places - jnp.sum(jnp.where(within, places, 0.0)) / count, 0.0)
        y = jnp.where(within, curve - jnp.sum(jnp.where(within, curve, 0.0)) / count, 0.0)
        return jnp.sum(jnp.abs(y - jnp.sum(x * y) / jnp.sum(x * x) * x))

    breaks = jnp.arange(1, len(curve) - 1)
    errors = jax.vmap(lambda at: deviation(places <= at) + deviation(places >= at))(breaks)
    return breaks[jnp.argmin(errors)]
