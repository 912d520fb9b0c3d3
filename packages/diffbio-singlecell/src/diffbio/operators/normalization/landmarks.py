"""Landmarks: a random walk among many cells, summed over groups of them.

Cells are grouped by k-means from centres that are far apart (each next one is the cell farthest from those before), so
that groups cover all the data and nothing is drawn at random. With K the affinities between cells and M the membership
of cells in groups, a walker goes from group to cell with the probabilities of the rows of (K M)^T, and from cell to
group with those of K M; the product is the walk among groups. Groups are constant to the gradient, affinities are not.

References:
    Gonzalez, Clustering to minimize the maximum intercluster distance, 1985.
    Moon et al., Nature Biotechnology 2019 (landmark diffusion).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.neighbor_search import candidates

_ROUNDS = 10  # of k-means


@partial(jax.jit, static_argnames="n_landmarks")
def landmarks(embeddings: Float[Array, "cells features"], n_landmarks: int) -> Int[Array, " cells"]:
    """Return the group of each cell.

    Args:
        embeddings: Coordinates (cells, features).
        n_landmarks: Number of groups, from 1 to the number of cells.

    Returns:
        Numbers from 0 to n_landmarks - 1 (cells,). A group is empty only where cells are duplicates.

    Raises:
        ContractError: There are fewer cells than groups.

    Example:
        >>> groups = landmarks(jnp.array([[0.0], [0.1], [5.0], [9.0], [9.1]]), 3)
        >>> bool(groups[0] == groups[1]), bool(groups[3] == groups[4]), len(set(groups.tolist()))
        (True, True, 3)
    """
    n_cells = len(embeddings)
    if not 1 <= n_landmarks <= n_cells:
        raise ContractError(
            f"{n_landmarks} landmarks were asked for among {n_cells} cells; ask for 1 to {n_cells}, or give more cells"
        )
    cells = lax.stop_gradient(embeddings)

    def squared_distances(point: Array) -> Array:
        return jnp.sum((cells - point) ** 2, axis=1)

    def choose(nearest: Array, _: None) -> tuple[Array, Array]:
        farthest = cells[jnp.argmax(nearest)]
        return jnp.minimum(nearest, squared_distances(farthest)), farthest

    first = cells[jnp.argmin(squared_distances(cells.mean(axis=0)))]
    _, others = lax.scan(choose, squared_distances(first), length=n_landmarks - 1)

    def assigned(centres: Array) -> Array:
        return candidates(cells, centres, 1)[0][:, 0]

    def update(_: int, centres: Array) -> Array:
        groups = assigned(centres)
        sizes = jnp.zeros_like(centres[:, :1]).at[groups].add(1.0)
        sums = jnp.zeros_like(centres).at[groups].add(cells)
        return jnp.where(sizes > 0, sums / jnp.maximum(sizes, 1.0), centres)

    return assigned(lax.fori_loop(0, _ROUNDS, update, jnp.concatenate([first[None], others])))


def landmark_transitions(
    affinities: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    groups: Int[Array, " cells"],
    n_landmarks: int,
) -> tuple[Float[Array, "landmarks landmarks"], Float[Array, "cells landmarks"]]:
    """Return the walk among groups, and that from each cell to them.

    Args:
        affinities: Entries of a matrix A, at least 0; K = (A + A^T) / 2 with ones on the diagonal (cells, neighbors).
        indices: Their columns (cells, neighbors).
        groups: The group of each cell (cells,).
        n_landmarks: Number of groups.

    Returns:
        Two row-stochastic matrices: group to group, and cell to group; the latter interpolates what is known of groups
        to cells. The row of an empty group is 0. Memory is cells x landmarks.

    Example:
        >>> walk, membership = landmark_transitions(jnp.ones((2, 1)), jnp.array([[1], [0]]), jnp.array([0, 1]), 2)
        >>> walk.tolist(), membership.tolist()
        ([[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]])
    """
    own = jnp.arange(len(indices))
    summed = jnp.zeros((len(indices), n_landmarks), affinities.dtype).at[own, groups].add(1.0)
    summed = summed.at[own[:, None], groups[indices]].add(affinities / 2)
    summed = summed.at[indices, groups[:, None]].add(affinities / 2)
    sizes = summed.sum(axis=0)
    membership = summed / summed.sum(axis=1, keepdims=True)
    from_groups = summed / jnp.where(sizes > 0, sizes, 1.0)
    return from_groups.T @ membership, membership
