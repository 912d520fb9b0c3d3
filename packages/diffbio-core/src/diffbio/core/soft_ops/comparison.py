"""Soft comparisons: truth values in [0, 1] instead of booleans."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def greater(x: ArrayLike, y: ArrayLike, *, softness: ArrayLike = 0.1) -> Float[Array, "..."]:
    """Return how true `x > y` is: the logistic function of (x - y) / softness.

    Args:
        x: Any shape that broadcasts with `y`.
        y: The threshold, in the units of `x`.
        softness: Width of the transition, in the units of `x`, above 0.

    Returns:
        Values in [0, 1] of the broadcast shape; 0.5 at equality at every softness.

    Example:
        >>> greater(jnp.array([10.0, 30.0]), 20.0, softness=0.1).tolist()
        [0.0, 1.0]
    """
    return jax.nn.sigmoid((jnp.asarray(x) - y) / softness)
