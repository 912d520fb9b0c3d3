"""Exact nearest neighbours of cells.

Which cells are neighbours is a hard decision, taken once and held constant by the gradient; how far they are is
smooth, and its gradient is exact. Blocks of cells are compared with chunks of cells, so that no array is ever
cells x cells.

A list that is longer than the cell has neighbours, as where `cell_mask` hides most cells, is filled up with the
cell's own row; `is_neighbor` tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import Operator, OperatorConfig
from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.neighbor_graph import is_neighbor
from diffbio.operators.singlecell.neighbor_search import candidates, power_of_two


@dataclass(frozen=True, kw_only=True)
class NearestNeighborsConfig(OperatorConfig):
    """How many neighbours are sought.

    Args:
        n_neighbors: Length of a list; the cell itself is not counted.
    """

    n_neighbors: Annotated[int, Ge(1)] = 15


class Neighbors(NamedTuple):
    """The nearest neighbours of each cell, itself excluded, in order of rising distance.

    Attributes:
        indices: Rows of the neighbours (cells, neighbors); an integer, so it carries no gradient.
        distances: Euclidean distances (cells, neighbors), in the unit of the embeddings.
    """

    indices: Int[Array, "cells neighbors"]
    distances: Float[Array, "cells neighbors"]


class NeighborLists(NamedTuple):
    """Nearest neighbours as data keys.

    Attributes:
        neighbor_indices: Rows of the neighbours, nearest first; the cell's own row where there is none. No gradient.
        neighbor_distances: Euclidean distances, in the unit of the embeddings; 0 where there is no neighbour.
    """

    neighbor_indices: Int[Array, "cells neighbors"]
    neighbor_distances: Float[Array, "cells neighbors"]


@partial(jax.jit, static_argnames=("n_neighbors", "block_size"))
def nearest_neighbors(
    embeddings: Float[Array, "cells features"],
    n_neighbors: int,
    *,
    cell_mask: Bool[Array, " cells"] | None = None,
    block_size: int = 128,
) -> Neighbors:
    """Return the `n_neighbors` nearest other cells of every cell by exhaustive search.

    Twice as many candidates are found from matrix products of the centred coordinates, then ranked by differences of
    the coordinates themselves, which are free of cancellation. In float32 the products tell cells apart as long as
    the data reach less than about a thousand times as far as a neighbour. Time grows as cells^2 x features, memory
    as cells x (features + neighbors), beside `block_size` x 32,768 scores.

    Args:
        embeddings: Coordinates (cells, features).
        n_neighbors: Between 1 and cells - 1; the cell itself is not counted.
        cell_mask: Which cells are there (cells,); the others are nobody's neighbour and have none. `None` for all.
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
    if cell_mask is not None:
        embeddings = jnp.where(cell_mask[:, None], embeddings, 0.0)
    own = jnp.arange(n_cells, dtype=jnp.int32)[:, None]
    n_candidates = min(2 * n_neighbors + 1, n_cells)  # the cell itself is among them
    rows, found = candidates(embeddings, embeddings, n_candidates, present=cell_mask, block_size=block_size)
    found = found & (rows != own)
    if cell_mask is not None:
        found = found & cell_mask[:, None]
    rows = _nearest(neighbor_distances(lax.stop_gradient(embeddings), rows), jnp.where(found, rows, own), n_neighbors)
    return Neighbors(rows, neighbor_distances(embeddings, rows))


@partial(jax.jit, static_argnames=("n_neighbors", "block_size"))
def nearest_neighbors_of(
    query: Float[Array, "cells features"],
    reference: Float[Array, "references features"],
    n_neighbors: int,
    *,
    block_size: int = 128,
) -> Neighbors:
    """Return the `n_neighbors` reference cells nearest to each query cell, as new cells are mapped to an atlas.

    Args:
        query: Coordinates of the new cells (cells, features).
        reference: Coordinates of the cells among which neighbours are sought (references, features).
        n_neighbors: Between 1 and the number of references.
        block_size: Query cells per block; it changes time and memory, not the result.

    Returns:
        Rows in `reference` and distances, with exact gradients to both. A query that is itself in the reference
        finds itself, at distance zero.

    Raises:
        ContractError: There are too few references, or they have other features.

    Example:
        >>> found = nearest_neighbors_of(jnp.array([[2.2]]), jnp.array([[0.0], [2.0], [3.0]]), 2)
        >>> found.indices.tolist(), [round(distance, 3) for distance in found.distances[0].tolist()]
        ([[1, 2]], [0.2, 0.8])
    """
    if not 1 <= n_neighbors <= len(reference):
        raise ContractError(
            f"{n_neighbors} neighbours were asked for among {len(reference)} reference cells; "
            f"ask for 1 to {len(reference)}, or give more references"
        )
    if query.shape[1] != reference.shape[1]:
        raise ContractError(
            f"query cells have {query.shape[1]} features and reference cells {reference.shape[1]}; "
            "give both in the same coordinates"
        )
    n_candidates = min(2 * n_neighbors, len(reference))
    rows, _ = candidates(query, reference, n_candidates, block_size=block_size)
    distances = neighbor_distances(lax.stop_gradient(query), rows, lax.stop_gradient(reference))
    order = lax.top_k(-distances, n_neighbors)[1]
    rows = jnp.take_along_axis(rows, order, axis=1)
    return Neighbors(rows, neighbor_distances(query, rows, reference))


def neighbor_distances(
    embeddings: Float[Array, "cells features"],
    indices: Int[Array, "cells neighbors"],
    reference: Float[Array, "references features"] | None = None,
) -> Float[Array, "cells neighbors"]:
    """Return the Euclidean distances from each cell to the cells in its list.

    Args:
        embeddings: Coordinates (cells, features).
        indices: Rows of the other cells (cells, neighbors).
        reference: Coordinates of the other cells (references, features); `None` where they are the cells themselves.

    Returns:
        Distances, whose gradient is exact, and zero where the distance is zero.

    Example:
        >>> neighbor_distances(jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([[1], [0]])).tolist()
        [[5.0], [5.0]]
    """
    embeddings = jnp.asarray(embeddings)
    others = embeddings if reference is None else jnp.asarray(reference)
    unit = jnp.maximum(power_of_two(embeddings), power_of_two(others))

    @jax.checkpoint  # else the gradient would keep an array cells x neighbors x features
    def to_one_neighbor(cells: Int[Array, " cells"]) -> Float[Array, " cells"]:
        squared = jnp.sum(((embeddings - others[cells]) / unit) ** 2, axis=-1)
        apart = squared > 0
        return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0) * unit

    return lax.map(to_one_neighbor, indices.T).T


def _nearest(distances: Array, rows: Array, n_neighbors: int) -> Int[Array, "cells neighbors"]:
    """Return the rows of the nearest candidates, in order; a cell's own row comes last."""
    order = lax.top_k(jnp.where(is_neighbor(rows), -distances, -jnp.inf), n_neighbors)[1]
    return jnp.take_along_axis(rows, order, axis=1)


class NearestNeighbors(Operator[NearestNeighborsConfig]):
    """Lists the nearest other cells of each cell.

    Reads `embeddings` (cells, features) and optionally `cell_mask` (cells,), which hides padding; writes
    `neighbor_indices` and `neighbor_distances` (cells, neighbors). The choice is hard, the distances are
    differentiable. It has no parameters.

    Args:
        config: Length of the lists.
        rngs: Not used.

    Example:
        >>> search = NearestNeighbors(NearestNeighborsConfig(n_neighbors=1))
        >>> data, _, _ = search.apply({"embeddings": jnp.array([[0.0], [1.0], [3.0]])}, {}, None)
        >>> data["neighbor_indices"].ravel().tolist()
        [1, 0, 1]
    """

    def compute(
        self, embeddings: Float[Array, "cells features"], cell_mask: Bool[Array, " cells"] | None = None
    ) -> NeighborLists:
        """Return the neighbours of each cell."""
        found = nearest_neighbors(embeddings, self.config.n_neighbors, cell_mask=cell_mask)
        return NeighborLists(found.indices, found.distances)
