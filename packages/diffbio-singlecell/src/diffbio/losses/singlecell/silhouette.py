"""Silhouettes of soft clusters: how much nearer cells are to their own cluster than to the next.

Hard: s_i = (b_i - a_i) / max(a_i, b_i), with a_i the mean distance of cell i to the other cells of its cluster and b_i
that to the cells of the nearest other cluster. Relaxed: with p_ik the membership of cell i in cluster k,

    r_ik = sum_{j != i} p_jk            d_ik = sum_j p_jk |x_i - x_j| / r_ik
    s_ik = (b_ik - d_ik) / max(d_ik, b_ik)        b_ik = min_{l != k} d_il / min(1, r_il)
    s_i = sum_k p_ik min(1, r_ik) max_{l != k} min(1, r_il) s_ik

One-hot memberships give the silhouette of Rousseeuw. The factors min(1, r) are 1 for each cluster that has at least
one cell beside cell i. They fade out clusters that lose their last cells, so that the rule for a cluster of one cell
(its silhouette is 0) and for an empty one (it does not count) are limits, not jumps.

References:
    Rousseeuw, Silhouettes, Journal of Computational and Applied Mathematics 1987; Vardakas, Papakostas and Likas,
    Deep clustering using the soft silhouette score, arXiv 2402.00608; Luecken et al., Benchmarking atlas-level data
    integration in single-cell genomics, Nature Methods 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffbio.core.reading import read
from diffbio.losses.singlecell.groups import require_groups

_NO_MASS = 1e-12  # of one cell: below, a quotient of two such sums has no meaning in float32
_MORE_THAN_ONE = 1.0 + 1e-5  # cells, as a sum of memberships in float32


@partial(jax.jit, static_argnames="block_size")
def silhouette_samples(
    embeddings: Float[Array, "cells features"],
    assignments: Float[Array, "cells clusters"],
    *,
    block_size: int = 256,
) -> Float[Array, " cells"]:
    """Return the silhouette of each cell under soft or one-hot assignments.

    Args:
        embeddings: Coordinates (cells, features), in any unit.
        assignments: Membership of the cells in at least two clusters (cells, clusters), at least 0; rows that sum to
            1, or to 0 for cells that do not count.
        block_size: Cells per block; it changes time and memory, not the result.

    Returns:
        Values from -1 to 1 (cells,); 0 for a cell alone in its cluster and for one that does not count.

    Raises:
        ContractError: There is one cluster only, or not one row of assignments per cell.

    References:
        Rousseeuw, Silhouettes, 1987; Vardakas, Papakostas and Likas, arXiv 2402.00608.

    Example:
        >>> cells = jnp.array([[0.0], [2.0], [4.0]])
        >>> silhouette_samples(cells, jnp.eye(2)[jnp.array([0, 0, 1])]).tolist()
        [0.5, 0.0, 0.0]
    """
    require_groups(embeddings, assignments, at_least=2)
    sums = _distance_sums(embeddings, assignments, block_size)
    return jnp.sum(assignments * _widths(sums, assignments.sum(axis=0) - assignments), axis=-1)


def silhouette_score(
    embeddings: Float[Array, "cells features"],
    assignments: Float[Array, "cells clusters"],
    *,
    block_size: int = 256,
) -> Float[Array, ""]:
    """Return the mean silhouette of the cells that count.

    Args:
        embeddings: Coordinates (cells, features), in any unit.
        assignments: Membership of the cells in at least two clusters (cells, clusters), as in `silhouette_samples`.
        block_size: Cells per block; it changes time and memory, not the result.

    Returns:
        A scalar from -1 to 1, higher for compact and separate clusters; 0 where no cell counts.

    Raises:
        ContractError: There is one cluster only, or not one row of assignments per cell.

    Example:
        >>> cells = jnp.array([[0.0], [1.0], [99.0], [100.0]])
        >>> round(float(silhouette_score(cells, jnp.eye(2)[jnp.array([0, 0, 1, 1])])), 2)
        0.99
    """
    widths = silhouette_samples(embeddings, assignments, block_size=block_size)
    return widths.sum() / jnp.maximum(assignments.sum(), _NO_MASS)


@partial(jax.jit, static_argnames="block_size")
def silhouette_batch(
    embeddings: Float[Array, "cells features"],
    types: Float[Array, "cells types"],
    batches: Float[Array, "cells batches"],
    *,
    block_size: int = 256,
) -> Float[Array, ""]:
    """Return how well batches mix within cell types: the mean over types of the mean of 1 - |silhouette by batch|.

    Args:
        embeddings: Coordinates (cells, features), in any unit.
        types: Membership of the cells in cell types (cells, types), one-hot or soft; rows of 0 for unlabelled cells.
        batches: Membership in at least two batches (cells, batches), likewise.
        block_size: Cells per block; it changes time and memory, not the result.

    Returns:
        A scalar from 0 to 1, higher for better mixing. A type in fewer than two batches, or with one cell in each,
        does not count; the result is 1 where no type counts, as there is nothing to mix.

    Raises:
        ContractError: There is one batch only, or not one row per cell.

    References:
        Luecken et al., Benchmarking atlas-level data integration, 2022 (average silhouette width by batch).

    Example:
        >>> cells = jnp.array([[0.0], [1.0], [0.0], [1.0]])
        >>> batches = jnp.eye(2)[jnp.array([0, 0, 1, 1])]
        >>> float(silhouette_batch(cells, jnp.ones((4, 1)), batches))
        0.5
    """
    require_groups(embeddings, types)
    require_groups(embeddings, batches, at_least=2)
    within = types[:, :, None] * batches[:, None, :]
    mass = within.sum(axis=0)
    sums = _distance_sums(embeddings, within.reshape(len(within), -1), block_size).reshape(within.shape)
    widths = jnp.abs(jnp.sum(batches[:, None, :] * _widths(sums, mass - within), axis=-1))
    counted = within.sum(axis=-1)
    mixing = 1 - jnp.sum(types * widths, axis=0) / jnp.maximum(counted.sum(axis=0), _NO_MASS)
    counts = (jnp.sum(mass > _NO_MASS, axis=-1) > 1) & (mass.max(axis=-1) > _MORE_THAN_ONE)
    return jnp.where(counts.any(), jnp.sum(mixing, where=counts) / jnp.maximum(counts.sum(), 1), 1.0)


def cluster_silhouette(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return a loss that falls as soft clusters become compact and separate: (1 - silhouette score) / 2.

    Args:
        data: Holds `embeddings` (cells, features) and `cluster_assignments` (cells, clusters), whose rows sum to 1.

    Returns:
        A scalar from 0, for clusters infinitely far apart, to 1.

    Raises:
        MissingKeyError: One of the two keys is missing.
        ContractError: There is one cluster only, or not one row of assignments per cell.

    Example:
        >>> assignments = jnp.eye(2)[jnp.array([0, 0, 1])]
        >>> data = {"embeddings": jnp.array([[0.0], [0.0], [9.0]]), "cluster_assignments": assignments}
        >>> round(float(cluster_silhouette(data)), 4)
        0.1667
    """
    embeddings, assignments = read("cluster_silhouette", data, "embeddings", "cluster_assignments")
    return (1 - silhouette_score(embeddings, assignments)) / 2


def cell_type_silhouette(data: Mapping[str, Array], *, n_classes: int) -> Float[Array, ""]:
    """Return a loss that falls as known cell types become compact and separate: (1 - silhouette score) / 2.

    Args:
        data: Holds `embeddings` (cells, features) and `labels` (cells,), integers from 0 to `n_classes` - 1. A cell
            with another label, by convention -1, is unlabelled and does not count.
        n_classes: Number of cell types, at least 2.

    Returns:
        A scalar from 0 to 1; 1/2 where no cell is labelled.

    Raises:
        MissingKeyError: One of the two keys is missing.
        ContractError: There is one class only, or not one label per cell.

    Example:
        >>> data = {"embeddings": jnp.array([[0.0], [0.0], [9.0], [9.0]]), "labels": jnp.array([0, 0, 1, 1])}
        >>> float(cell_type_silhouette(data, n_classes=2))
        0.0
    """
    embeddings, labels = read("cell_type_silhouette", data, "embeddings", "labels")
    return (1 - silhouette_score(embeddings, jax.nn.one_hot(labels, n_classes))) / 2


def batch_silhouette(data: Mapping[str, Array], *, n_classes: int, n_batches: int) -> Float[Array, ""]:
    """Return a loss that falls as batches mix within cell types: 1 - `silhouette_batch`.

    Args:
        data: Holds `embeddings` (cells, features), `labels` and `batch_labels` (cells,), integers from 0; cells with
            another label or batch, by convention -1, do not count.
        n_classes: Number of cell types.
        n_batches: Number of batches, at least 2.

    Returns:
        A scalar from 0 to 1; 0 where no type is in two batches.

    Raises:
        MissingKeyError: One of the three keys is missing.
        ContractError: There is one batch only, or not one label and batch per cell.

    Example:
        >>> data = {"embeddings": jnp.array([[0.0], [0.0], [9.0], [9.0]]), "labels": jnp.zeros(4, int)}
        >>> float(batch_silhouette({**data, "batch_labels": jnp.array([0, 0, 1, 1])}, n_classes=1, n_batches=2))
        1.0
    """
    embeddings, labels, batches = read("batch_silhouette", data, "embeddings", "labels", "batch_labels")
    return 1 - silhouette_batch(embeddings, jax.nn.one_hot(labels, n_classes), jax.nn.one_hot(batches, n_batches))


def _widths(sums: Float[Array, "*cells clusters"], others: Float[Array, "*cells clusters"]) -> Array:
    """Return s_ik times its factors.

    Args:
        sums: Distances from each cell, summed over the members of each cluster.
        others: How many members that cluster has beside the cell.
    """
    present = others > _NO_MASS
    factor = jnp.clip(others, 0, 1)
    own = jnp.where(present, sums / jnp.where(present, others, 1), 0)
    faded = jnp.where(present, own / jnp.where(present, factor, 1), jnp.inf)
    nearest = -_largest_other(-faded)
    nearest = jnp.where(jnp.isfinite(nearest), nearest, 0)
    longer = jnp.maximum(own, nearest)
    apart = longer > 0
    widths = jnp.where(apart, nearest - own, 0) / jnp.where(apart, longer, 1)
    return factor * _largest_other(factor) * widths


def _largest_other(values: Float[Array, "*cells clusters"]) -> Float[Array, "*cells clusters"]:
    """Return for each entry the largest of the others in its row."""
    largest, where = lax.top_k(values, 2)
    is_largest = jnp.arange(values.shape[-1]) == where[..., :1]
    return jnp.where(is_largest, largest[..., 1:], largest[..., :1])


def _distance_sums(
    embeddings: Float[Array, "cells features"], weights: Float[Array, "cells clusters"], block_size: int
) -> Float[Array, "cells clusters"]:
    """Return sum_j |x_i - x_j| w_jk, up to a factor: silhouettes have no unit, so neither has the gradient of it."""
    n_cells, n_columns = weights.shape
    block_size = min(block_size, n_cells)
    n_blocks = -(-n_cells // block_size)
    centred = embeddings - embeddings.mean(axis=0)
    largest = jnp.max(jnp.abs(lax.stop_gradient(centred)))
    centred = centred / jnp.where(largest > 0, largest, 1)

    def blocks(values: Array) -> Array:
        return jnp.pad(values, ((0, n_blocks * block_size - n_cells), (0, 0))).reshape(n_blocks, block_size, -1)

    points, members = blocks(centred), blocks(weights)

    def of_block(rows: Array) -> Array:
        @jax.checkpoint  # else the gradient would keep all distances
        def add(total: Array, columns: tuple[Array, Array]) -> tuple[Array, None]:
            cells, weight = columns
            return total + jnp.matmul(_distances(rows, cells), weight, precision=lax.Precision.HIGHEST), None

        return lax.scan(add, jnp.zeros((block_size, n_columns), weights.dtype), (points, members))[0]

    return lax.map(of_block, points).reshape(-1, n_columns)[:n_cells]


@jax.custom_jvp
def _distances(rows: Float[Array, "rows features"], columns: Float[Array, "columns features"]) -> Array:
    """Return Euclidean distances, by differences of coordinates: exact for near cells far from the origin."""
    squared = jnp.sum((rows[:, None] - columns) ** 2, axis=-1)
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)


@_distances.defjvp
def _distances_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # (x_i - x_j) (dx_i - dx_j) / |x_i - x_j|, as products of matrices: so no array rows x columns x features is formed
    (rows, columns), (d_rows, d_columns) = primals, tangents
    distances = _distances(rows, columns)
    product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    moved = jnp.sum(rows * d_rows, axis=-1)[:, None] + jnp.sum(columns * d_columns, axis=-1)
    moved = moved - product(rows, d_columns.T) - product(d_rows, columns.T)
    apart = distances > 0
    return distances, jnp.where(apart, moved, 0) / jnp.where(apart, distances, 1)
