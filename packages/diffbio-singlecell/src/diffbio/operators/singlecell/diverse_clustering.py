"""Soft spherical k-means with a penalty on clusters that lack batches: the clustering half of Harmony.

With x_i the direction of cell i, c_k the unit centroid of cluster k, and b(i) the batch of cell i,

    r_ik ~ exp(-2 (1 - x_i . c_k) / sigma) (E_kb(i) / (E_kb(i) + O_kb(i)))^theta      c_k ~ sum_i r_ik x_i

O_kb counts the cells of batch b in cluster k, and E_kb is that count if each cluster held all batches in proportion.
This lowers

    sum_ik r_ik 2 (1 - x_i . c_k) + sigma sum_ik r_ik log r_ik + sigma theta sum_kb O_kb log((E_kb + O_kb) / E_kb)

The softness is sigma. As it goes to 0 each cell belongs to the nearest centroid alone, as in spherical k-means; the
penalty vanishes with it.

References:
    Korsunsky et al., Nature Methods 2019 (algorithm 2).
    Patikas et al., Harmony2, 2024 (E / (E + O) in place of (E + 1) / (O + 1)).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import soft_ops
from diffbio.operators.singlecell.batch_design import unit_length
from diffbio.operators.singlecell.clustering import kmeans_plus_plus, soft_kmeans

_NEARLY_HARD = 1e-3  # softness, in squared distance between unit vectors, of the k-means that places centroids
_CELLS_PER_CLUSTER = 100  # enough to place centroids
_TINY = 1e-8  # cells: keeps the penalty of a batch without cells finite


class Batches(NamedTuple):
    """What clusters are expected to hold of each batch.

    Attributes:
        shares: Share of each batch among the cells that have one, of its own variable.
        same_variable: 1 where two batches belong to one variable, else 0.
        diversity: theta of each batch, at least 0.
    """

    shares: Float[Array, " b"]
    same_variable: Float[Array, "b b"]
    diversity: Float[Array, " b"]

    def expected(self, observed: Float[Array, "b clusters"]) -> Float[Array, "b clusters"]:
        """Return E: what O would be if all clusters held the batches in proportion."""
        return self.shares[:, None] * (self.same_variable @ observed)

    def log_penalty(self, observed: Float[Array, "b clusters"]) -> Float[Array, "b clusters"]:
        """Return theta log(E / (E + O)), at most 0."""
        expected = self.expected(observed) + _TINY
        return self.diversity[:, None] * jnp.log(expected / (expected + observed))


class Blocks(NamedTuple):
    """Arrays of cells in blocks, filled up with cells that are not there.

    Attributes:
        design: Indicators of batches.
        present: 1 for a cell, 0 for what fills up a block.
    """

    design: Float[Array, "blocks size b"]
    present: Float[Array, "blocks size 1"]


def batches_of(indicators: Float[Array, "cells b"], sizes: tuple[int, ...], diversity: ArrayLike) -> Batches:
    """Return the shares of the batches.

    Args:
        indicators: 1 where a cell is in a batch, the batches of the first variable first.
        sizes: Number of batches of each variable.
        diversity: theta: one number, or one for each variable.

    Returns:
        Shares, which sum to 1 over the batches of a variable that has cells.

    Example:
        >>> batches_of(jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), (2,), 2.0).shares.tolist()
        [0.75, 0.25]
    """
    variable = jnp.asarray([v for v, size in enumerate(sizes) for _ in range(size)])
    same_variable = (variable[:, None] == variable).astype(indicators.dtype)
    cells = indicators.sum(0)
    theta = jnp.broadcast_to(jnp.asarray(diversity, indicators.dtype), len(sizes))
    return Batches(cells / jnp.maximum(same_variable @ cells, 1), same_variable, theta[variable])


@jax.checkpoint
def cluster_step(
    assignments: Float[Array, "blocks size clusters"],
    directions: Float[Array, "blocks size features"],
    blocks: Blocks,
    batches: Batches,
    softness: ArrayLike,
) -> tuple[Float[Array, "blocks size clusters"], Float[Array, "blocks size clusters"]]:
    """Return assignments after an update of all centroids and then of one block after the other.

    Args:
        assignments: Distributions over clusters; 0 for what fills up a block.
        directions: Cells scaled to unit length.
        blocks: Batches of the cells.
        batches: Shares and diversity of the batches.
        softness: sigma > 0, in units of 2 (1 - cosine).

    Returns:
        The new assignments, and the cosines to the centroids on which they rest. Its gradient keeps nothing of the
        size of the blocks but the arguments.

    Example:
        >>> directions = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> blocks = Blocks(jnp.ones((1, 2, 1)), jnp.ones((1, 2, 1)))
        >>> batches = batches_of(jnp.ones((2, 1)), (1,), 0.0)
        >>> cluster_step(jnp.array([[[0.9, 0.1], [0.1, 0.9]]]), directions, blocks, batches, 0.01)[0].tolist()
        [[[1.0, 0.0], [0.0, 1.0]]]
    """
    flat = in_rows(assignments)
    similarity = matmul(directions, unit_length(matmul(flat.T, in_rows(directions))).T)

    def update(observed: Array, block: tuple[Array, Array, Blocks]) -> tuple[Array, Array]:
        before, similarity, (design, present) = block
        others = jnp.maximum(observed - matmul(design.T, before), 0.0)
        bonus = softness * matmul(design, batches.log_penalty(others))
        after = assigned(similarity, bonus, present, softness)
        return others + matmul(design.T, after), after

    observed = matmul(in_rows(blocks.design).T, flat)
    return lax.scan(update, observed, (assignments, similarity, blocks))[1], similarity


def assigned(similarity: Array, bonus: ArrayLike, present: Array, softness: ArrayLike) -> Array:
    """Return present * softmax((2 similarity + bonus) / softness), the distribution over clusters.

    Args:
        similarity: Cosines (..., cells, clusters).
        bonus: What is added in units of 2 cosine, such as softness times the log penalty.
        present: 1 for a cell, 0 for what fills up a block (..., cells, 1).
        softness: sigma > 0.

    Returns:
        Rows that sum to 1, or to 0 for what fills up a block.

    Example:
        >>> assigned(jnp.array([[1.0, 0.0]]), 0.0, jnp.ones((1, 1)), 0.01).tolist()
        [[1.0, 0.0]]
    """
    return present * soft_ops.argmax(2 * similarity + bonus, axis=-1, softness=softness)


def objective(
    assignments: Float[Array, "cells clusters"],
    similarity: Float[Array, "cells clusters"],
    observed: Float[Array, "b clusters"],
    batches: Batches,
    softness: ArrayLike,
) -> Float[Array, ""]:
    """Return what the clustering lowers.

    Args:
        assignments: r, distributions over clusters.
        similarity: Cosines to the centroids.
        observed: Cells of each batch in each cluster.
        batches: Shares and diversity of the batches.
        softness: sigma > 0.

    Returns:
        Distances, less sigma times the entropy of assignments, plus the diversity penalty.

    Example:
        >>> one = jnp.ones((1, 1))
        >>> float(objective(one, 0.5 * one, one, batches_of(one, (1,), 0.0), 0.1))
        1.0
    """
    distances = jnp.sum(assignments * 2 * (1 - similarity))
    entropy = jax.scipy.special.entr(assignments).sum()
    return distances - softness * (entropy + jnp.sum(observed * batches.log_penalty(observed)))


def spherical_centroids(
    embeddings: Float[Array, "cells features"], n_clusters: int, *, key: Array
) -> Float[Array, "clusters features"]:
    """Return directions to start from, by k-means of the cells scaled to unit length.

    Args:
        embeddings: Coordinates (cells, features); of many cells, some 100 per cluster are taken, in strides.
        n_clusters: Between 1 and the number of cells.
        key: Random key of k-means++.

    Returns:
        Unit vectors (clusters, features).

    Raises:
        ContractError: There are fewer cells than clusters.

    Example:
        >>> cells = jnp.array([[2.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
        >>> sorted(spherical_centroids(cells, 2, key=jax.random.key(0)).tolist())
        [[0.0, 1.0], [1.0, 0.0]]
    """
    stride = max(1, embeddings.shape[0] // (_CELLS_PER_CLUSTER * n_clusters))
    directions = unit_length(embeddings[::stride])
    start = kmeans_plus_plus(directions, n_clusters, key=key)
    return unit_length(soft_kmeans(directions, start, softness=_NEARLY_HARD, n_iterations=25).cluster_centroids)


def in_rows(blocks: Float[Array, "blocks size columns"]) -> Float[Array, "cells columns"]:
    """Return blocks of rows as one array, block after block.

    Args:
        blocks: Rows in blocks.

    Returns:
        The rows.

    Example:
        >>> in_rows(jnp.ones((2, 3, 4))).shape
        (6, 4)
    """
    return blocks.reshape(-1, blocks.shape[-1])


def matmul(left: Array, right: Array) -> Array:
    """Return the matrix product in full precision on every processor.

    Args:
        left: Any shape (..., n, m).
        right: Any shape (..., m, k).

    Returns:
        The product (..., n, k).

    Example:
        >>> matmul(jnp.eye(2), jnp.ones((2, 1))).tolist()
        [[1.0], [1.0]]
    """
    return jnp.matmul(left, right, precision=lax.Precision.HIGHEST)
