"""Exact nearest neighbours of cells, and sparse matrices stored as neighbour lists.

Which cells are neighbours is a hard decision, taken once and held constant by the gradient; how far they are is
smooth, and its gradient is exact. Blocks of cells are compared with blocks of cells, so that no array is ever
cells x cells. A sparse matrix over the graph is a pair (weights, indices), both (cells, neighbors): row i has
`weights[i, a]` in column `indices[i, a]`. It is applied one neighbour at a time, in the memory of its operand.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from diffbio.core.errors import ContractError


class Neighbors(NamedTuple):
    """The nearest neighbours of each cell, itself excluded, in order of rising distance.

    Attributes:
        indices: Rows of the neighbours (cells, neighbors); an integer, so it carries no gradient.
        distances: Euclidean distances (cells, neighbors), in the unit of the embeddings.
    """

    indices: Int[Array, "cells neighbors"]
    distances: Float[Array, "cells neighbors"]


@partial(jax.jit, static_argnames=("n_neighbors", "block_size"))
def nearest_neighbors(
    embeddings: Float[Array, "cells features"], n_neighbors: int, *, block_size: int = 1024
) -> Neighbors:
    """Return the `n_neighbors` nearest other cells of every cell by exhaustive search.

    Twice as many candidates are found from block-wise matrix products of the centred coordinates, then ranked by
    differences of the coordinates themselves, which are free of cancellation. In float32 the products tell cells
    apart as long as the data reach less than about a thousand times as far as a neighbour. Time grows as
    cells^2 x features, memory as `block_size`^2 + cells x (features + neighbors).

    Args:
        embeddings: Coordinates (cells, features).
        n_neighbors: Between 1 and cells - 1; the cell itself is not counted.
        block_size: Cells per block; it changes time and memory, not the result.

    Returns:
        Indices and distances. Equally distant cells come in no particular order. The gradient of a
        distance of exactly zero (a duplicate) is zero.

    Raises:
        ContractError: There are too few cells for so many neighbours.

    Example:
        >>> neighbors = nearest_neighbors(jnp.array([[0.0], [1.0], [3.0]]), 1)
        >>> neighbors.indices.ravel().tolist(), neighbors.distances.ravel().tolist()
        ([1, 0, 1], [1.0, 1.0, 2.0])
    """
    n_cells = embeddings.shape[0]
    if not 1 <= n_neighbors < n_cells:
        raise ContractError(
            f"{n_neighbors} neighbours were asked for among {n_cells} cells; a cell is not its own neighbour, "
            f"so ask for 1 to {n_cells - 1}, or give more cells"
        )
    coordinates = lax.stop_gradient(embeddings)
    candidates = _candidates(coordinates, min(2 * n_neighbors, n_cells - 1), min(block_size, n_cells))
    order = lax.top_k(-neighbor_distances(coordinates, candidates), n_neighbors)[1]
    indices = jnp.take_along_axis(candidates, order, axis=1)
    return Neighbors(indices, neighbor_distances(embeddings, indices))


def neighbor_distances(
    embeddings: Float[Array, "cells features"], indices: Int[Array, "cells neighbors"]
) -> Float[Array, "cells neighbors"]:
    """Return the Euclidean distances from each cell to the cells in its list.

    Args:
        embeddings: Coordinates (cells, features).
        indices: Rows of the other cells (cells, neighbors).

    Returns:
        Distances, whose gradient is exact, and zero where the distance is zero.

    Example:
        >>> neighbor_distances(jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([[1], [0]])).tolist()
        [[5.0], [5.0]]
    """
    embeddings = jnp.asarray(embeddings)
    unit = _power_of_two(embeddings)

    @jax.checkpoint  # else the gradient would keep an array cells x neighbors x features
    def to_one_neighbor(cells: Int[Array, " cells"]) -> Float[Array, " cells"]:
        squared = jnp.sum(((embeddings - embeddings[cells]) / unit) ** 2, axis=-1)
        apart = squared > 0
        return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0) * unit

    return lax.map(to_one_neighbor, indices.T).T


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

    @jax.checkpoint
    def gathered(weight: Float[Array, " cells"], cells: Int[Array, " cells"]) -> Array:
        return weight[:, None] * values[cells]

    def add(total: Array, column: tuple[Array, Array]) -> tuple[Array, None]:
        return total + gathered(*column), None

    return lax.scan(add, jnp.zeros_like(values), (weights.T, indices.T))[0]


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

    @jax.checkpoint
    def scattered(weight: Float[Array, " cells"], cells: Int[Array, " cells"]) -> Array:
        return jnp.zeros_like(values).at[cells].add(weight[:, None] * values)

    def add(total: Array, column: tuple[Array, Array]) -> tuple[Array, None]:
        return total + scattered(*column), None

    return lax.scan(add, jnp.zeros_like(values), (weights.T, indices.T))[0]


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


def _candidates(
    embeddings: Float[Array, "cells features"], n_candidates: int, block_size: int
) -> Int[Array, "cells candidates"]:
    """Return for each cell the rows of its nearest others, up to the rounding of matrix products."""
    n_cells, n_features = embeddings.shape
    n_blocks = -(-n_cells // block_size)
    centred = embeddings - embeddings.mean(axis=0)
    centred = centred / _power_of_two(centred)
    padding = ((0, n_blocks * block_size - n_cells), (0, 0))
    points = jnp.pad(centred, padding).reshape(n_blocks, block_size, n_features)
    cells = jnp.arange(n_blocks * block_size).reshape(n_blocks, block_size)
    blocks = (points, jnp.sum(points**2, axis=-1), cells)

    def of_block(rows: tuple[Array, Array, Array]) -> Array:
        row_points, _, row_cells = rows

        def visit(best: tuple[Array, Array], columns: tuple[Array, Array, Array]) -> tuple:
            column_points, column_norms, column_cells = columns
            products = jnp.matmul(row_points, column_points.T, precision=lax.Precision.HIGHEST)
            # the squared distance less the row's own norm, which ranks the same
            score = column_norms - 2 * products
            excluded = (row_cells[:, None] == column_cells) | (column_cells >= n_cells)
            scores = jnp.concatenate([best[0], jnp.where(excluded, jnp.inf, score)], axis=1)
            found = jnp.concatenate([best[1], jnp.broadcast_to(column_cells, score.shape)], axis=1)
            negative, order = lax.top_k(-scores, n_candidates)
            return (-negative, jnp.take_along_axis(found, order, axis=1)), None

        none_yet = jnp.full((block_size, n_candidates), jnp.inf, embeddings.dtype)
        start = (none_yet, jnp.zeros((block_size, n_candidates), cells.dtype))
        return lax.scan(visit, start, blocks)[0][1]

    return lax.map(of_block, blocks).reshape(-1, n_candidates)[:n_cells]


def _power_of_two(values: Array) -> Float[Array, ""]:
    """Return a power of two near the largest magnitude: dividing by it rounds nothing and squares fit in float32."""
    exponent = jnp.frexp(jnp.max(jnp.abs(lax.stop_gradient(values))))[1]
    return jnp.ldexp(jnp.ones((), values.dtype), jnp.clip(exponent, -125, 126))
