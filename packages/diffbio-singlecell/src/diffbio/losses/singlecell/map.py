"""The losses of maps: how well points in two dimensions keep the neighbourhoods of the cells.

A graph comes in shares C, as the operators write it: its symmetric matrix is S = C + C^T. Attraction acts along the
edges; repulsion acts between all pairs, summed exactly in blocks, or between each cell and a few that are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffbio.core.errors import ContractError
from diffbio.core.reading import read
from diffbio.operators.normalization.umap_curve import umap_attraction, umap_curve, umap_repulsion
from diffbio.operators.singlecell.neighbor_graph import mutual_weights, symmetric_sums

_BLOCK = 256  # cells that meet all others at once


def umap_cross_entropy(
    data: Mapping[str, Array],
    *,
    key: Array | None = None,
    min_dist: float = 0.1,
    spread: float = 1.0,
    negative_sample_rate: int = 5,
    repulsion_strength: float | Array = 1.0,
) -> Float[Array, ""]:
    """Return the loss that UMAP descends, per cell: attraction along edges, repulsion from cells at random.

    With q = 1 / (1 + a d^(2 b)), degree s_i = sum_j S_ij and R negative samples for each edge it is

        sum_ij S_ij (-log q_ij) + (R / 2) sum_i s_i mean_j (-log(1 - q_ij)),

    the second halved since umap-learn moves the one cell of a negative pair alone. With a key, the mean over j is that
    of R cells drawn for each cell; without, over all other cells, in time cells^2 and memory linear in the cells.

    Args:
        data: Holds `umap` (cells, components), `fuzzy_indices` and `fuzzy_memberships` (cells, others).
        key: Random key of the negative samples.
        min_dist: See `umap_curve`.
        spread: Likewise.
        negative_sample_rate: R, at least 1.
        repulsion_strength: Factor of the second sum.

    Returns:
        A scalar, at least 0, in nats.

    Raises:
        MissingKeyError: One of the three keys is missing.
        ContractError: There is no pair of cells.

    References:
        McInnes et al. 2018; Damrich and Hamprecht, On UMAP's true loss function, NeurIPS 2021.

    Example:
        >>> data = {"fuzzy_indices": jnp.array([[1], [0]]), "fuzzy_memberships": jnp.full((2, 1), 0.5)}
        >>> near, far = (umap_cross_entropy({**data, "umap": jnp.array([[0.0], [x]])}) for x in (0.5, 9.0))
        >>> bool(near < far)
        True
    """
    coordinates, indices, shares = read("umap_cross_entropy", data, "umap", "fuzzy_indices", "fuzzy_memberships")
    coordinates = _checked("umap_cross_entropy", coordinates)
    n_cells = len(coordinates)
    a, b = umap_curve(min_dist, spread)
    attraction = 2 * jnp.sum(shares * umap_attraction(_along_edges(coordinates, indices), a, b))
    if key is None:
        pushes = _over_others(coordinates, lambda squared: umap_repulsion(squared, a, b)) / (n_cells - 1)
    else:
        steps = jax.random.randint(key, (n_cells, negative_sample_rate), 1, n_cells)
        drawn = (jnp.arange(n_cells)[:, None] + steps) % n_cells  # never the cell itself
        pushes = umap_repulsion(_along_edges(coordinates, drawn), a, b).mean(axis=1)
    repulsion = negative_sample_rate / 2 * jnp.sum(symmetric_sums(shares, indices) * pushes)
    return (attraction + repulsion_strength * repulsion) / n_cells


def tsne_divergence(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the Kullback-Leibler divergence of the map from the cells that t-SNE descends.

    It is sum_ij p_ij log(p_ij / q_ij) with q_ij = (1 + d_ij^2)^-1 over the sum of all of these, which is taken exactly,
    in time cells^2 and memory linear in the cells.

    Args:
        data: Holds `tsne` (cells, components), `tsne_indices` and `tsne_affinities` (cells, others): p in shares.

    Returns:
        A scalar, at least 0, in nats.

    Raises:
        MissingKeyError: One of the three keys is missing.
        ContractError: There is no pair of cells.

    References:
        van der Maaten and Hinton, Visualizing data using t-SNE, JMLR 2008.

    Example:
        >>> data = {"tsne_indices": jnp.array([[1], [0]]), "tsne_affinities": jnp.full((2, 1), 0.25)}
        >>> float(tsne_divergence({**data, "tsne": jnp.array([[0.0], [3.0]])}).round(6))
        0.0
    """
    coordinates, indices, shares = read("tsne_divergence", data, "tsne", "tsne_indices", "tsne_affinities")
    coordinates = _checked("tsne_divergence", coordinates)
    joint = jnp.where(mutual_weights(lax.stop_gradient(shares), indices)[1], 2 * shares, shares)
    logarithms = jnp.log(jnp.where(joint > 0, joint, 1.0))
    total = jnp.sum(_over_others(coordinates, lambda squared: 1 / (1 + squared)))
    # the logarithm of the total has the weight sum_ij p_ij, which is 1
    return 2 * jnp.sum(shares * (logarithms + jnp.log1p(_along_edges(coordinates, indices)))) + jnp.log(total)


def _checked(loss: str, coordinates: Array) -> Float[Array, "cells components"]:
    if len(coordinates) < 2:
        raise ContractError(f"{loss}: a map of {len(coordinates)} cells has no pair; give at least 2")
    return jnp.asarray(coordinates)


def _along_edges(coordinates: Array, indices: Array) -> Float[Array, "cells others"]:
    return jnp.sum((coordinates[:, None] - coordinates[indices]) ** 2, axis=-1)


def _over_others(coordinates: Array, potential: Callable[[Array], Array]) -> Float[Array, " cells"]:
    """Return for each cell the sum of a function of its squared distances to all others, block by block."""
    cells = jnp.arange(len(coordinates))

    @jax.checkpoint  # else the gradient would keep an array cells x cells
    def of_one(cell: Array) -> Array:
        squared = jnp.sum((coordinates[cell] - coordinates) ** 2, axis=-1)
        return jnp.sum(jnp.where(cells == cell, 0.0, potential(squared)))

    return lax.map(of_one, cells, batch_size=_BLOCK)
