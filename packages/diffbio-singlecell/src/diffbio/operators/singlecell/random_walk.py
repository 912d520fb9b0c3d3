"""A random walk on a graph of cells: each step replaces the values of a cell by a mean over its neighbours'.

With affinities K, which has ones on its diagonal and is made symmetric as (K + K^T) / 2, and D the sums of its rows, t
steps take values y to (D^-1 (K + K^T) / 2)^t y. Nothing is relaxed here: the walk is linear in the values and smooth in
the affinities.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffbio.operators.singlecell.sparse_products import rows_matmul, symmetric_rows

_CACHED = 2**20  # float32 entries of a block of genes: 4 MiB, what the last cache holds beside the graph
_FEWEST_GENES = 64  # of a block, else rows are shorter than it takes to find them


def random_walk(
    affinities: Float[Array, "cells neighbors"], indices: Int[Array, "cells neighbors"]
) -> Callable[[Float[Array, "cells genes"]], Float[Array, "cells genes"]]:
    """Return the function that takes one step, values -> D^-1 (K + K^T) / 2 values.

    Args:
        affinities: Non-negative entries of K off the diagonal, which is one (cells, neighbors).
        indices: Their columns (cells, neighbors).

    Example:
        >>> step = random_walk(jnp.ones((2, 1)), jnp.array([[1], [0]]))
        >>> step(jnp.array([[0.0], [4.0]])).ravel().tolist()
        [2.0, 2.0]
    """
    incoming = jnp.zeros_like(affinities[:, 0]).at[indices].add(affinities)
    degrees = (1 + (affinities.sum(axis=1) + incoming) / 2)[:, None]
    rows = symmetric_rows(indices)
    return lambda values: (values + rows_matmul(affinities / 2, rows, values)) / degrees


def diffuse(
    values: Float[Array, "cells genes"],
    affinities: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    *,
    n_steps: int,
) -> Float[Array, "cells genes"]:
    """Return (D^-1 (K + K^T) / 2)^n_steps values, where K has ones on its diagonal and the given affinities.

    Args:
        values: What diffuses (cells, genes).
        affinities: Non-negative entries of K off the diagonal (cells, neighbors).
        indices: Their columns (cells, neighbors).
        n_steps: Steps of the walk.

    Returns:
        Weighted means over cells, which keep a constant constant. Memory is cells x genes, whatever the number of
        steps, in the gradient too, which computes the steps again. Genes diffuse by themselves, so they do it in
        blocks that stay in a cache for all the steps.

    Example:
        >>> values, indices = jnp.array([[0.0], [4.0]]), jnp.array([[1], [0]])
        >>> diffuse(values, jnp.ones((2, 1)), indices, n_steps=1).ravel().tolist()
        [2.0, 2.0]
    """
    n_cells, n_genes = values.shape
    walk = random_walk(affinities, indices)

    @jax.checkpoint
    def diffused(block: Array) -> Array:
        return lax.scan(lambda current, _: (walk(current), None), block, length=n_steps)[0]

    n_blocks = max(min(n_cells * n_genes // _CACHED, n_genes // _FEWEST_GENES), 1)
    padded = jnp.pad(values, ((0, 0), (0, -n_genes % n_blocks)))
    blocks = lax.map(diffused, padded.reshape(n_cells, n_blocks, -1).transpose(1, 0, 2))
    return blocks.transpose(1, 0, 2).reshape(n_cells, -1)[:, :n_genes]
