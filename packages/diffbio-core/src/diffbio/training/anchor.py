"""The anchor: a penalty that pulls the weights of a stage back to where they started.

`strength * ||theta - theta_0||^2 / ||theta_0||^2`, so that one strength means the same for a small and
for a large stage. Strength 0 is plain training; a frozen stage is the limit of infinite strength.
A stage that starts from a good classical answer (a PCA basis, k-means centroids) can only lose what
that answer knows where there are few cells; the anchor keeps it, and
`diffbio.training.select_anchor` picks how strongly.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def anchor_penalty(
    weights: Mapping[str, PyTree],
    start: Mapping[str, PyTree],
    strengths: Mapping[str, float | Float[Array, ""]],
) -> Float[Array, ""]:
    """Return the summed penalty of all stages, relative to the weights that they started from.

    Args:
        weights: The parameters of each stage, by its name.
        start: The parameters that each stage started from.
        strengths: The strength of the anchor of each stage, at least 0; no unit. Stages that are
            not named are free.

    Returns:
        A scalar, 0 at the start. For a stage that starts from zero everywhere the squared distance
        itself is taken, since there is no length to compare it with.

    Example:
        >>> start = {"projection": jnp.array([3.0, 4.0])}
        >>> moved = {"projection": jnp.array([3.0, 5.0])}
        >>> round(float(anchor_penalty(moved, start, {"projection": 10.0})), 6)
        0.4
    """
    total = jnp.zeros(())
    for stage, strength in strengths.items():
        moved = _squared_norm(jax.tree.map(jnp.subtract, weights[stage], start[stage]))
        length = _squared_norm(start[stage])
        total += strength * moved / jnp.where(length > 0, length, 1.0)
    return total


def _squared_norm(tree: PyTree) -> Float[Array, ""]:
    """Return the sum of squares of all numbers of a tree."""
    return sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))
