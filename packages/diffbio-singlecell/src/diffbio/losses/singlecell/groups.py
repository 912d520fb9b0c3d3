"""Memberships of cells in groups (clusters, cell types, batches), as the losses that compare groups read them."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffbio.core.errors import ContractError


def require_groups(embeddings: Array, assignments: Array, *, at_least: int = 1) -> None:
    """Check that there is one row of memberships per cell, in enough groups.

    Args:
        embeddings: Coordinates (cells, features).
        assignments: What should be memberships (cells, groups).
        at_least: How many groups the comparison needs.

    Raises:
        ContractError: It is not so.

    Example:
        >>> require_groups(jnp.zeros((3, 5)), jnp.ones((3, 1)))
    """
    if assignments.ndim != 2 or len(assignments) != len(embeddings):
        raise ContractError(
            f"memberships have shape {assignments.shape} for {len(embeddings)} cells; one row of them per cell is "
            "needed, (cells, groups): make labels so by jax.nn.one_hot"
        )
    if assignments.shape[1] < at_least:
        raise ContractError(f"memberships have shape {assignments.shape}; give at least {at_least} groups to compare")


def members(assignments: Float[Array, "cells groups"]) -> Bool[Array, " cells"]:
    """Return which cells are a member of any group, and so count.

    Args:
        assignments: Memberships, at least 0 (cells, groups).

    Example:
        >>> members(jnp.array([[0.0, 1.0], [0.0, 0.0]])).tolist()
        [True, False]
    """
    return assignments.sum(axis=-1) > 0


def mean_of_members(values: Float[Array, " cells"], assignments: Float[Array, "cells groups"]) -> Float[Array, ""]:
    """Return the mean over the cells that are a member of any group; 0 where none is.

    Args:
        values: One per cell (cells,).
        assignments: Memberships, at least 0 (cells, groups).

    Example:
        >>> float(mean_of_members(jnp.array([4.0, 9.0]), jnp.array([[1.0], [0.0]])))
        4.0
    """
    counted = members(assignments)
    return jnp.sum(values, where=counted) / jnp.maximum(counted.sum(), 1)
