"""Products of a symmetric graph of cells with many columns of values: rows of edges that are sorted once.

A graph is symmetric as C + C^T, with shares C stored as neighbour lists. Read row by row, cell i has the edges that
its own list names and those of the lists that name it: sorted by cell once, they are a matrix in compressed rows, and
a product gathers, instead of scattering to cells that other edges write to as well. As the matrix is symmetric, the
same rows serve the gradient in the values; that of a share C_ij, for cotangents g of the product (C + C^T) y, is

    <g_i, y_j> + <g_j, y_i>

so neither ever needs an array edges x columns.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float, Int


class SymmetricRows(NamedTuple):
    """The edges of a graph, both ways, in order of the cell that they start from.

    Attributes:
        indices: The neighbour lists that the graph was made from (cells, neighbors).
        starts: Where the edges of each cell begin, and where the last ones end (cells + 1).
        columns: The cells at the other ends (edges), with edges = 2 x cells x neighbors.
        places: Which entry of the flattened shares each edge takes its weight from (edges).
    """

    indices: Int[Array, "cells neighbors"]
    starts: Int[Array, " cells_and_one"]
    columns: Int[Array, " edges"]
    places: Int[Array, " edges"]


def symmetric_rows(indices: Int[Array, "cells neighbors"]) -> SymmetricRows:
    """Return the edges that neighbour lists give, each in both directions, sorted by cell.

    Args:
        indices: Rows of the neighbours (cells, neighbors).

    Returns:
        The sorted edges; a pair of cells that list each other has two from either side. Time grows as that of sorting.

    Example:
        >>> rows = symmetric_rows(jnp.array([[1], [0], [0]]))
        >>> rows.starts.tolist(), rows.columns.tolist(), rows.places.tolist()
        ([0, 3, 5, 6], [1, 1, 2, 0, 0, 0], [0, 1, 2, 1, 0, 2])
    """
    n_cells, n_neighbors = indices.shape
    indices = jnp.asarray(indices, jnp.int32)
    listing = jnp.repeat(jnp.arange(n_cells, dtype=jnp.int32), n_neighbors)
    ends = jnp.concatenate([listing, indices.ravel()])
    order = jnp.argsort(ends, stable=True)
    starts = jnp.searchsorted(ends[order], jnp.arange(n_cells + 1, dtype=jnp.int32)).astype(jnp.int32)
    columns = jnp.concatenate([indices.ravel(), listing])[order]
    return SymmetricRows(indices, starts, columns, order % max(listing.size, 1))


@jax.custom_vjp
def rows_matmul(
    shares: Float[Array, "cells neighbors"],
    rows: SymmetricRows,
    values: Float[Array, "cells columns"],
) -> Float[Array, "cells columns"]:
    """Return (C + C^T) y for the shares C of a symmetric graph and a dense y.

    Args:
        shares: C (cells, neighbors).
        rows: `symmetric_rows` of its columns.
        values: The operand y (cells, columns).

    Returns:
        The product, in memory cells x columns, in its gradient too, which is for reverse mode only. Fastest for so many
        columns at a time that the operand stays in a cache.

    Example:
        >>> rows = symmetric_rows(jnp.array([[1], [0], [0]]))
        >>> rows_matmul(jnp.array([[0.5], [0.5], [1.0]]), rows, jnp.eye(3)).tolist()
        [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """
    return _product(shares.ravel()[rows.places], rows.starts, rows.columns, values)


def _forward(shares: Array, rows: SymmetricRows, values: Array) -> tuple[Array, tuple]:
    return rows_matmul(shares, rows, values), (shares, rows, jnp.asarray(values))


def _backward(saved: tuple[Array, SymmetricRows, Array], cotangent: Array) -> tuple[Array, None, Array]:
    shares, rows, values = saved
    cotangent = jnp.asarray(cotangent)

    def of_one_neighbor(cells: Int[Array, " cells"]) -> Float[Array, " cells"]:
        return jnp.sum(cotangent * values[cells] + cotangent[cells] * values, axis=1)

    return lax.map(of_one_neighbor, rows.indices.T).T, None, rows_matmul(shares, rows, cotangent)


rows_matmul.defvjp(_forward, _backward)


@sequential_vmap  # as a batch, it would be gathered and scattered edge by edge
def _product(weights: Array, starts: Array, columns: Array, values: Array) -> Array:
    """Return the product of a matrix in compressed rows with a dense one."""
    from jax.experimental.sparse import BCSR  # here, as it takes half a second to import

    n_cells = values.shape[0]
    return BCSR((weights, columns, starts), shape=(n_cells, n_cells)) @ values
