"""Approximate nearest neighbours, for more cells than an exhaustive search has time for.

Nearest neighbour descent starts from a forest of random projections and looks among the neighbours of neighbours; its
time grows a little faster than the number of cells. pynndescent does that on the host. As in the exact search, the
choice is held constant by the gradient and the distances are differentiable.

References:
    Dong, Moses and Li, Efficient k-nearest neighbor graph construction for generic similarity measures, WWW 2011.
    McInnes, PyNNDescent, Journal of Open Source Software (the implementation).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from diffbio.core.errors import ContractError, MissingExtraError
from diffbio.operators.singlecell.neighbors import Neighbors, neighbor_distances


def approximate_neighbors(embeddings: Float[Array, "cells features"], n_neighbors: int, *, key: Array) -> Neighbors:
    """Return about the `n_neighbors` nearest other cells of every cell.

    Args:
        embeddings: Coordinates (cells, features).
        n_neighbors: Between 1 and cells - 1; the cell itself is not counted.
        key: Random key of the search; the same key finds the same neighbours.

    Returns:
        Indices, and distances whose gradient is exact. A few true neighbours are missed; where the search finds too
        few, the cell's own row stands at distance 0, last (see `is_neighbor`).

    Raises:
        ContractError: There are too few cells for so many neighbours.
        MissingExtraError: pynndescent is not installed.

    Example:
        >>> cells = jax.random.normal(jax.random.key(0), (200, 3))  # any key will do
        >>> approximate_neighbors(cells, 5, key=jax.random.key(1)).indices.shape  # any key will do  # doctest: +SKIP
        (200, 5)
    """
    n_cells = embeddings.shape[0]
    if not 1 <= n_neighbors < n_cells:
        raise ContractError(
            f"{n_neighbors} neighbours were asked for among {n_cells} cells; a cell is not its own neighbour, "
            f"so ask for 1 to {n_cells - 1}, or give more cells"
        )
    _pynndescent()  # say that it is missing here, and not from within a callback
    seed = jax.random.randint(key, (), 0, np.iinfo(np.int32).max)
    shape = jax.ShapeDtypeStruct((n_cells, n_neighbors), jnp.int32)

    def search(points: Array, seed: Array) -> np.ndarray:
        return _descend(np.asarray(points), n_neighbors, int(seed))

    rows = jax.pure_callback(search, shape, lax.stop_gradient(embeddings), seed, vmap_method="sequential")
    return Neighbors(rows, neighbor_distances(embeddings, rows))


def _pynndescent() -> Any:
    try:
        import pynndescent
    except ImportError as error:
        raise MissingExtraError(
            "approximate neighbours are searched by pynndescent, which is not installed: "
            'pip install "diffbio-singlecell[neighbors]", or use nearest_neighbors, which is exact'
        ) from error
    return pynndescent


def _descend(points: np.ndarray, n_neighbors: int, seed: int) -> np.ndarray:
    """Return rows of neighbours without the cell itself, which stands last where too few are found."""
    index = _pynndescent().NNDescent(points, n_neighbors=n_neighbors + 1, random_state=seed)
    found = np.asarray(index.neighbor_graph[0])  # -1 where nothing was found
    own = np.arange(len(points))[:, None]
    absent = (found < 0) | (found == own)
    order = np.argsort(absent, axis=1, kind="stable")[:, :n_neighbors]
    return np.take_along_axis(np.where(absent, own, found), order, axis=1).astype(np.int32)
