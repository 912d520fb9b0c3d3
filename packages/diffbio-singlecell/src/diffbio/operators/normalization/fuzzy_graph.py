"""The fuzzy graph of UMAP: how surely two cells are neighbours, on a scale that each cell sets for itself.

With rho_i the distance of cell i to its nearest neighbour apart from duplicates, cell j belongs to its neighbourhood
to the degree

    w_ij = exp(-max(d_ij - rho_i, 0) / sigma_i),    sigma_i such that sum_j w_ij = log2 k,

k being the size of the neighbourhood with the cell itself. Both directions are joined by the probabilistic sum
w_ij + w_ji - w_ij w_ji. The bandwidth sigma is the root of an equation in the distances; its gradient is that of
the implicit function. The hard graph that this relaxes has w_ij = 1 for the k nearest and 0 for the others.

References:
    McInnes, Healy and Melville, UMAP: uniform manifold approximation and projection, 2018 (section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from annotated_types import Ge
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import Operator, OperatorConfig
from diffbio.operators.singlecell.neighbor_graph import is_neighbor, mutual_weights, symmetric_shares
from diffbio.operators.singlecell.neighbor_search import power_of_two
from diffbio.operators.singlecell.neighbors import Neighbors, nearest_neighbors

_LEAST = 1e-3  # of the mean distance: the least bandwidth, as umap-learn has it
_MOST = 4.0  # times the farthest distance: no root lies higher
_HALVINGS = 40


@dataclass(frozen=True, kw_only=True)
class FuzzyGraphConfig(OperatorConfig):
    """Size of a neighbourhood.

    Args:
        n_neighbors: Cells of a neighbourhood, the cell itself counted as in umap-learn and `sc.pp.neighbors`.
    """

    n_neighbors: Annotated[int, Ge(3)] = 15


class FuzzyEdges(NamedTuple):
    """A symmetric graph S of cells in shares C: S = C + C^T.

    Attributes:
        fuzzy_indices: Rows of the neighbours, nearest first; the cell's own row where there is none. No gradient.
        fuzzy_memberships: C, in [0, 1]: half of S_ij where i and j list each other, else all of it.
    """

    fuzzy_indices: Int[Array, "cells others"]
    fuzzy_memberships: Float[Array, "cells others"]


class Bandwidths(NamedTuple):
    """The scale of each cell's neighbourhood, in the unit of the distances.

    Attributes:
        rho: Distance to the nearest neighbour that is no duplicate; 0 if all are (cells,).
        sigma: Decay of membership beyond it, above 0 (cells,).
    """

    rho: Float[Array, " cells"]
    sigma: Float[Array, " cells"]


def fuzzy_bandwidths(
    distances: Float[Array, "cells neighbors"], *, where: Bool[Array, "cells neighbors"] | None = None
) -> Bandwidths:
    """Return rho and sigma of each cell, such that the memberships of its k - 1 neighbours sum to log2 k.

    Args:
        distances: To the neighbours, the cell itself excluded, in any order (cells, neighbors).
        where: Which places hold a neighbour; `None` for all.

    Returns:
        Bandwidths (cells,). Where no sigma gives that sum (too many neighbours at rho), and as a least value
        elsewhere, sigma is a thousandth of the mean distance in the list, the cell itself counted as 0; without any
        distance, of the mean over all cells.

    References:
        umap-learn `smooth_knn_dist` with local_connectivity=1 and bandwidth=1.

    Example:
        >>> found = fuzzy_bandwidths(jnp.array([[1.0, 2.0, 3.0]]))
        >>> float(jnp.exp(-(jnp.array([0.0, 1.0, 2.0])) / found.sigma).sum().round(4))
        2.0
    """
    where = jnp.ones(distances.shape, bool) if where is None else where
    count = where.sum(axis=1) + 1  # with the cell itself
    distances = jnp.where(where, distances, 0.0)
    mean = distances.sum(axis=1) / count
    least = _LEAST * jnp.where(mean > 0, mean, mean.mean())
    least = jnp.where(least > 0, least, 1.0)  # all cells are one point: every scale is as good
    apart = distances > 0
    rho = jnp.min(jnp.where(apart, distances, jnp.inf), axis=1, initial=jnp.inf)
    rho = jnp.where(jnp.isfinite(rho), rho, 0.0)
    beyond = jnp.maximum(distances - rho[:, None], 0.0)
    return Bandwidths(rho, jnp.maximum(_root(beyond, where, jnp.log2(count.astype(distances.dtype)), least), least))


def fuzzy_memberships(neighbors: Neighbors) -> Float[Array, "cells neighbors"]:
    """Return the degree to which each neighbour belongs to the neighbourhood of the cell, in one direction.

    Args:
        neighbors: Neighbours of each cell (cells, neighbors).

    Returns:
        w in [0, 1] (cells, neighbors): 1 for the nearest; 0 where a list holds the cell itself.

    Example:
        >>> neighbors = nearest_neighbors(jnp.array([[0.0], [1.0], [3.0], [6.0]]), 3)
        >>> fuzzy_memberships(neighbors).sum(axis=1).round(3).tolist()
        [2.0, 2.0, 2.0, 2.0]
    """
    where = is_neighbor(neighbors.indices)
    distances = neighbors.distances / power_of_two(neighbors.distances)  # squares of bandwidths fit in float32
    rho, sigma = fuzzy_bandwidths(distances, where=where)
    beyond = jnp.maximum(distances - rho[:, None], 0.0)
    return jnp.where(where, jnp.exp(-beyond / sigma[:, None]), 0.0)


def fuzzy_graph(
    embeddings: Float[Array, "cells features"],
    n_neighbors: int = 15,
    *,
    cell_mask: Bool[Array, " cells"] | None = None,
) -> FuzzyEdges:
    """Return the fuzzy graph of UMAP on exact nearest neighbours.

    Args:
        embeddings: Coordinates (cells, features).
        n_neighbors: Cells of a neighbourhood, the cell itself counted; at most the number of cells.
        cell_mask: Which cells are there (cells,); the others have no edge. `None` for all.

    Returns:
        Indices and memberships (cells, n_neighbors - 1). Time grows as cells^2 x features.

    Raises:
        ContractError: There are fewer cells than a neighbourhood has.

    References:
        umap-learn `fuzzy_simplicial_set`.

    Example:
        >>> graph = fuzzy_graph(jnp.array([[0.0], [1.0], [3.0], [6.0]]), 3)
        >>> graph.fuzzy_memberships.shape
        (4, 2)
    """
    return join(nearest_neighbors(embeddings, n_neighbors - 1, cell_mask=cell_mask))


def join(neighbors: Neighbors) -> FuzzyEdges:
    """Return the fuzzy graph of given neighbours, as of an approximate search.

    Args:
        neighbors: Neighbours of each cell (cells, neighbors).

    Example:
        >>> pair = Neighbors(jnp.array([[1], [0]]), jnp.array([[2.0], [2.0]]))
        >>> join(pair).fuzzy_memberships.tolist()
        [[0.5], [0.5]]
    """
    weights = fuzzy_memberships(neighbors)
    opposite, mutual = mutual_weights(weights, neighbors.indices)
    union = weights + opposite - weights * opposite
    return FuzzyEdges(neighbors.indices, symmetric_shares(union, mutual, neighbors.indices))


def _root(beyond: Array, where: Array, target: Array, least: Array) -> Float[Array, " cells"]:
    """Return sigma with sum exp(-beyond / sigma) = target, or 0 where every sigma above `least` sums to more."""
    fixed, least = lax.stop_gradient((beyond, least))
    unit = jnp.maximum(jnp.max(fixed, axis=1, initial=0.0), least)
    least = least / unit

    def terms(beyond: Array, sigma: Array) -> Array:
        return jnp.where(where, jnp.exp(-beyond / unit[:, None] / sigma[:, None]), 0.0)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = jnp.sqrt(low * high)
        short = terms(fixed, middle).sum(axis=1) < target
        return jnp.where(short, middle, low), jnp.where(short, high, middle)

    _, sigma = lax.fori_loop(0, _HALVINGS, halve, (least, jnp.full_like(least, _MOST)))
    # the total as a function of the distances alone, at the root: one step of Newton's has the implicit gradient
    total = terms(beyond, sigma).sum(axis=1)
    slope = jnp.sum(terms(fixed, sigma) * fixed / unit[:, None], axis=1) / sigma**2
    solvable = (terms(fixed, least).sum(axis=1) < target) & (slope > 0)
    moved = sigma - (total - lax.stop_gradient(total)) / jnp.where(solvable, slope, 1.0)
    return jnp.where(solvable, moved * unit, 0.0)


class FuzzyGraph(Operator[FuzzyGraphConfig]):
    """Joins cells to their neighbours by the memberships of UMAP, the connectivities of `sc.pp.neighbors`.

    Reads `embeddings` (cells, features) and optionally `cell_mask` (cells,), which hides padding; writes
    `fuzzy_indices` and `fuzzy_memberships` (cells, others), with others = n_neighbors - 1. It has no parameters.

    Args:
        config: Size of a neighbourhood.
        rngs: Not used.

    Example:
        >>> graph = FuzzyGraph(FuzzyGraphConfig(n_neighbors=3))
        >>> data, _, _ = graph.apply({"embeddings": jnp.array([[0.0], [1.0], [3.0], [6.0]])}, {}, None)
        >>> data["fuzzy_memberships"].shape
        (4, 2)
    """

    def compute(
        self, embeddings: Float[Array, "cells features"], cell_mask: Bool[Array, " cells"] | None = None
    ) -> FuzzyEdges:
        """Return the fuzzy graph of the cells."""
        return fuzzy_graph(embeddings, self.config.n_neighbors, cell_mask=cell_mask)
