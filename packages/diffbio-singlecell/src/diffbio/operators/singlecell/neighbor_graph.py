"""Graphs of cells stored as neighbour lists: sparse products, soft bandwidths, and symmetric graphs from directed ones.

A sparse matrix over the graph is a pair (weights, indices), both (cells, neighbors): row i has `weights[i, a]` in
column `indices[i, a]`. It is applied one neighbour at a time, in the memory of its operand. A place that holds the
cell's own row is no neighbour, and its weight is taken as zero where graphs are made symmetric.

A symmetric matrix S whose entries stand where either cell lists the other is kept as *shares* C with S = C + C^T: a
pair that lists each other has half of its entry in both lists, any other pair all of it in the one list. So graphs of
neighbours stay arrays (cells, neighbors), with gradients, whatever the union does to the number of edges.

The k-th distance, by which adaptive kernels set their bandwidth, is hard sorting. Relaxed, it is the mean of the
distances near it, sum_a softmax_a(-|d_(k) - d_a| / tau) d_a, which is d_(k) as tau -> 0.

References:
    Prillo and Eisenschlos, SoftSort, ICML 2020 (the relaxation of a sorted entry).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import soft_ops
from diffbio.core.errors import ContractError


def is_neighbor(indices: Int[Array, "cells neighbors"]) -> Bool[Array, "cells neighbors"]:
    """Return which places of neighbour lists hold a neighbour, and not the cell's own row.

    Args:
        indices: Rows of the neighbours (cells, neighbors).

    Example:
        >>> is_neighbor(jnp.array([[1, 0], [0, 1]])).tolist()
        [[True, False], [True, False]]
    """
    return indices != jnp.arange(indices.shape[0], dtype=indices.dtype)[:, None]


@partial(jax.jit, static_argnames="k")
def kth_distance(
    distances: Float[Array, "cells neighbors"],
    k: int,
    *,
    softness: ArrayLike,
    where: Bool[Array, "cells neighbors"] | None = None,
) -> Float[Array, " cells"]:
    """Return the soft distance of each cell to its k-th neighbour, a bandwidth that depends on all near it.

    Args:
        distances: Of each cell to its neighbours, in any order (cells, neighbors).
        k: Which neighbour, from 1.
        softness: Above 0, in the unit of the distances; a scalar or one for each cell (cells, 1).
        where: Which places hold a neighbour; `None` for all. At least k of them in each row.

    Returns:
        Bandwidths (cells,), between the least and the largest distance; the exact k-th distance as softness -> 0.

    Raises:
        ContractError: There are fewer than k neighbours in a list.

    Example:
        >>> distances = jnp.array([[1.0, 2.0, 4.0, 8.0]])
        >>> [round(float(kth_distance(distances, k, softness=0.1)[0]), 2) for k in (1, 2, 3)]
        [1.0, 2.0, 4.0]
    """
    n_neighbors = distances.shape[1]
    if not 1 <= k <= n_neighbors:
        raise ContractError(
            f"the distance to neighbour {k} was asked for in lists of {n_neighbors}; ask for 1 to {n_neighbors}, "
            "or search more neighbours"
        )
    nearest = soft_ops.top_k(-distances, k, softness=softness, where=where)[0]
    return -nearest[:, k - 1]


def mutual_weights(
    weights: Float[Array, "cells neighbors"], indices: Int[Array, "cells neighbors"]
) -> tuple[Float[Array, "cells neighbors"], Bool[Array, "cells neighbors"]]:
    """Return for each entry (i, j) of a sparse matrix the entry (j, i), and whether j lists i at all.

    Args:
        weights: Entries (cells, neighbors).
        indices: Their columns, each at most once in a row (cells, neighbors).

    Returns:
        The opposite entries, 0 where there is none, and a mask. Time grows as cells x neighbors^2.

    Example:
        >>> weights, indices = jnp.array([[5.0], [7.0], [9.0]]), jnp.array([[1], [0], [0]])
        >>> [found.ravel().tolist() for found in mutual_weights(weights, indices)]
        [[7.0, 5.0, 0.0], [True, True, False]]
    """
    own = jnp.arange(indices.shape[0], dtype=indices.dtype)[:, None]

    def opposite(column: Int[Array, " cells"]) -> tuple[Array, Array]:
        hits = (indices[column] == own) & (column[:, None] != own)
        return jnp.sum(jnp.where(hits, weights[column], 0.0), axis=1), hits.any(axis=1)

    found, mutual = lax.map(opposite, indices.T)
    return found.T, mutual.T


def symmetric_shares(
    entries: Float[Array, "cells neighbors"],
    mutual: Bool[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
) -> Float[Array, "cells neighbors"]:
    """Return the shares of a symmetric matrix whose entries stand in the lists, once or twice.

    Args:
        entries: S_ij, the same from either side of a mutual pair (cells, neighbors).
        mutual: Whether j lists i too.
        indices: Columns j (cells, neighbors).

    Returns:
        C with C + C^T = S (cells, neighbors); 0 where a list holds the cell itself.

    Example:
        >>> indices = jnp.array([[1], [0], [0]])
        >>> symmetric_shares(jnp.ones((3, 1)), jnp.array([[True], [True], [False]]), indices).ravel().tolist()
        [0.5, 0.5, 1.0]
    """
    return jnp.where(is_neighbor(indices), jnp.where(mutual, entries / 2, entries), 0.0)


def symmetric_matmul(
    shares: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    values: Float[Array, "cells features"],
) -> Float[Array, "cells features"]:
    """Return (C + C^T) y for the shares C of a symmetric matrix and a dense y.

    Args:
        shares: C (cells, neighbors).
        indices: Columns (cells, neighbors).
        values: The operand y (cells, features).

    Example:
        >>> shares, indices = jnp.array([[0.5], [0.5], [1.0]]), jnp.array([[1], [0], [0]])
        >>> symmetric_matmul(shares, indices, jnp.eye(3)).tolist()
        [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """
    return neighbor_matmul(shares, indices, values) + neighbor_matmul_transposed(shares, indices, values)


def symmetric_sums(
    shares: Float[Array, "cells neighbors"], indices: Int[Array, "cells neighbors"]
) -> Float[Array, " cells"]:
    """Return the row sums of C + C^T: the degrees of the cells.

    Args:
        shares: C (cells, neighbors).
        indices: Columns (cells, neighbors).

    Example:
        >>> symmetric_sums(jnp.array([[0.5], [0.5], [1.0]]), jnp.array([[1], [0], [0]])).tolist()
        [2.0, 1.0, 1.0]
    """
    return shares.sum(axis=1) + jnp.zeros_like(shares[:, 0]).at[indices].add(shares)


def neighbor_matmul(
    weights: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    values: Float[Array, "cells genes"],
) -> Float[Array, "cells genes"]:
    """Return K y for the sparse matrix K and a dense y: each cell gathers from its neighbours.

    Args:
        weights: Entries of K (cells, neighbors).
        indices: Their columns (cells, neighbors).
        values: The operand y (cells, genes).

    Returns:
        The product, in memory cells x genes, in its gradient too.

    Example:
        >>> neighbor_matmul(jnp.array([[2.0], [5.0]]), jnp.array([[1], [0]]), jnp.eye(2)).tolist()
        [[0.0, 2.0], [5.0, 0.0]]
    """
    values = jnp.asarray(values)

    def gathered(weight: Float[Array, " cells"], cells: Int[Array, " cells"]) -> Array:
        return weight[:, None] * values[cells]

    return _sum_over_places(gathered, weights, indices, jnp.zeros_like(values))


def neighbor_matmul_transposed(
    weights: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    values: Float[Array, "cells genes"],
) -> Float[Array, "cells genes"]:
    """Return K^T y for the sparse matrix K and a dense y: each cell scatters to its neighbours.

    Args:
        weights: Entries of K (cells, neighbors).
        indices: Their columns (cells, neighbors).
        values: The operand y (cells, genes).

    Returns:
        The product, in memory cells x genes, in its gradient too.

    Example:
        >>> weights, indices = jnp.array([[2.0], [5.0]]), jnp.array([[1], [0]])
        >>> neighbor_matmul_transposed(weights, indices, jnp.eye(2)).tolist()
        [[0.0, 5.0], [2.0, 0.0]]
    """
    values = jnp.asarray(values)

    def scattered(weight: Float[Array, " cells"], cells: Int[Array, " cells"]) -> Array:
        return jnp.zeros_like(values).at[cells].add(weight[:, None] * values)

    return _sum_over_places(scattered, weights, indices, jnp.zeros_like(values))


def reachable_cells(
    edges: Bool[Array, "cells neighbors"], indices: Int[Array, "cells neighbors"], root: int | Array
) -> Bool[Array, " cells"]:
    """Return which cells a path of edges, followed in either direction, connects with `root`.

    Args:
        edges: Whether the neighbour at this place of the list is connected (cells, neighbors).
        indices: Rows of the neighbours (cells, neighbors).
        root: The row to start from.

    Returns:
        A mask of cells, true at the root. It takes as many steps as the graph is long.

    Example:
        >>> indices = jnp.array([[1], [0], [3], [2]])
        >>> reachable_cells(jnp.ones((4, 1), bool), indices, 0).tolist()
        [True, True, False, False]
    """

    def grows(state: tuple[Array, Array]) -> Array:
        reached, before = state
        return jnp.any(reached != before)

    def spread(state: tuple[Array, Array]) -> tuple[Array, Array]:
        reached, _ = state
        incoming = jnp.any(edges & reached[indices], axis=1)
        outgoing = jnp.zeros_like(reached).at[indices].max(edges & reached[:, None])
        return reached | incoming | outgoing, reached

    nowhere = jnp.zeros(edges.shape[0], bool)
    return lax.while_loop(grows, spread, (nowhere.at[root].set(True), nowhere))[0]


def _sum_over_places(
    product: Callable[[Array, Array], Array], weights: Array, indices: Array, nothing: Array
) -> Float[Array, "cells genes"]:
    """Return the sum of a product over the places of the lists; the gradient computes each product again."""
    again = jax.checkpoint(product)

    def add(total: Array, place: tuple[Array, Array]) -> tuple[Array, None]:
        return total + again(*place), None

    return lax.scan(add, nothing, (weights.T, indices.T))[0]
