"""Mixing of groups by kBET: is the composition of neighbourhoods that of all cells?

Hard: of the k cells nearest to cell i, itself among them, O_ig are in group g, and mixing is accepted if

    X_i = sum_g (O_ig - k f_g)^2 / (k f_g)

is at most the critical value c of the chi-squared distribution, with f_g the share of the group in all cells.
Relaxed: neighbours count by their soft membership in the k - 1 nearest (`soft_ops.top_k_mask`, with an edge of a width
that tau = 1 spreads to twice as many), and the acceptance is 1 / (1 + (X_i / c)^(1 / tau)), whose slope falls as a
power: cells far from acceptance are still drawn to it. As tau -> 0 both become the hard ones.

Which cells are the neighbours is a hard choice that the gradient treats as constant; it goes through the distances.

References:
    Buettner et al., A test metric for assessing single-cell RNA-seq batch correction, Nature Methods 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float
from scipy import stats

from diffbio.core import soft_ops
from diffbio.core.reading import read
from diffbio.losses.singlecell.groups import mean_of_members, members, require_groups
from diffbio.operators.singlecell.neighbor_graph import is_neighbor, neighbor_matmul
from diffbio.operators.singlecell.neighbors import nearest_neighbors

_NO_DEVIATION = 1e-6  # of chi-squared: equal to 0 for float32
_REACH = 4  # an edge of mode c1 reaches 3 softnesses from its middle, which is a little beyond the last neighbour


@partial(jax.jit, static_argnames="n_neighbors")
def kbet_statistics(
    embeddings: Float[Array, "cells features"],
    assignments: Float[Array, "cells groups"],
    *,
    n_neighbors: int = 50,
    softness: ArrayLike = 1.0,
) -> Float[Array, " cells"]:
    """Return how far the composition of each neighbourhood is from that of all cells: chi-squared.

    Args:
        embeddings: Coordinates (cells, features), in any unit.
        assignments: Membership of the cells in groups, such as batches (cells, groups); rows that sum to 1, or to 0
            for cells that do not count and are nobody's neighbour.
        n_neighbors: Between 1 and cells - 1. A neighbourhood is the cell and so many others.
        softness: tau > 0 of the membership in a neighbourhood; 1 blurs its edge as far as to the 2 `n_neighbors`-th
            neighbour, the last that is looked at.

    Returns:
        Values of at least 0 (cells,); 0 for cells that do not count.

    Raises:
        ContractError: There are too few cells for so many neighbours, or not one row of assignments per cell.

    References:
        Buettner et al., kBET, 2019.

    Example:
        >>> cells = jnp.array([[0.0], [1.0], [10.0], [11.0]])
        >>> found = kbet_statistics(cells, jnp.eye(2)[jnp.array([0, 1, 1, 1])], n_neighbors=1, softness=0.01)
        >>> [round(value, 2) for value in found.tolist()]
        [0.67, 0.67, 0.67, 0.67]
    """
    require_groups(embeddings, assignments)
    counted = members(assignments)
    neighbors = nearest_neighbors(embeddings, min(2 * n_neighbors, len(embeddings) - 1), cell_mask=counted)
    there = is_neighbor(neighbors.indices)
    weights = _memberships(neighbors.distances, n_neighbors, softness, there)
    observed = assignments + neighbor_matmul(weights, neighbors.indices, assignments)
    shares = assignments.sum(axis=0) / jnp.maximum(assignments.sum(), 1)
    expected = observed.sum(axis=-1, keepdims=True) * shares
    possible = expected > 0
    terms = jnp.where(possible, observed - expected, 0) ** 2 / jnp.where(possible, expected, 1)
    return jnp.where(counted, terms.sum(axis=-1), 0)


@partial(jax.jit, static_argnames=("n_neighbors", "alpha"))
def kbet(
    embeddings: Float[Array, "cells features"],
    assignments: Float[Array, "cells groups"],
    *,
    n_neighbors: int = 50,
    alpha: float = 0.05,
    softness: ArrayLike = 1.0,
) -> Float[Array, ""]:
    """Return the share of cells around which groups are mixed as in all cells, by a chi-squared test.

    Args:
        embeddings: Coordinates (cells, features), in any unit.
        assignments: Membership in at least two groups (cells, groups), as in `kbet_statistics`.
        n_neighbors: Between 1 and cells - 1. A neighbourhood is the cell and so many others.
        alpha: Level of the test, between 0 and 1; static.
        softness: tau > 0 of the membership in a neighbourhood and of the acceptance.

    Returns:
        The acceptance rate, from 0 to 1. It is 1 where all cells are in one group, as there is nothing to mix.

    Raises:
        ContractError: There is one group only, there are too few cells for so many neighbours, or not one row of
            assignments per cell.

    References:
        Buettner et al., kBET, 2019.

    Example:
        >>> cells, batches = jnp.array([[0.0], [0.1], [9.0], [9.1]]), jnp.array([0, 1, 0, 1])
        >>> round(float(kbet(cells, jnp.eye(2)[batches], n_neighbors=1, softness=0.01)), 2)
        1.0
    """
    require_groups(embeddings, assignments, at_least=2)
    found = kbet_statistics(embeddings, assignments, n_neighbors=n_neighbors, softness=softness)
    present = jnp.sum(assignments.sum(axis=0) > 0)
    critical = jnp.asarray(stats.chi2.isf(alpha, np.arange(1, assignments.shape[1])), found.dtype)
    limit = critical[jnp.clip(present - 2, 0)]
    # compared as logarithms, so that cells far from acceptance still have a slope towards it
    excess = jnp.log(jnp.maximum(found, _NO_DEVIATION))
    accepted = soft_ops.greater(jnp.log(limit), excess, softness=softness)
    return jnp.where(present > 1, mean_of_members(accepted, assignments), 1)


def batch_kbet(
    data: Mapping[str, Array], *, n_batches: int, n_neighbors: int = 50, alpha: float = 0.05, softness: ArrayLike = 1.0
) -> Float[Array, ""]:
    """Return a loss that falls as batches mix: the share of cells around which kBET rejects that they do.

    Args:
        data: Holds `embeddings` (cells, features) and `batch_labels` (cells,), as for `batch_lisi`.
        n_batches: Number of batches, at least 2.
        n_neighbors: Between 1 and cells - 1.
        alpha: Level of the test.
        softness: tau > 0.

    Returns:
        A scalar from 0 to 1: 1 - `kbet`.

    Raises:
        MissingKeyError: One of the two keys is missing.
        ContractError: There is one batch only, or there are too few cells for so many neighbours.

    Example:
        >>> data = {"embeddings": jnp.arange(8.0)[:, None], "batch_labels": jnp.arange(8) // 4}
        >>> 0 < float(batch_kbet(data, n_batches=2, n_neighbors=3)) < 1
        True
    """
    embeddings, labels = read("batch_kbet", data, "embeddings", "batch_labels")
    batches = jax.nn.one_hot(labels, n_batches)
    return 1 - kbet(embeddings, batches, n_neighbors=n_neighbors, alpha=alpha, softness=softness)


def _memberships(
    distances: Float[Array, "cells candidates"], k: int, softness: ArrayLike, where: Bool[Array, "cells candidates"]
) -> Float[Array, "cells candidates"]:
    """Return how far the candidates, in order of rising distance, belong to the k nearest."""
    count = where.sum(axis=-1, keepdims=True)

    def distance_to(nth: Array) -> Float[Array, "cells 1"]:
        return jnp.take_along_axis(distances, jnp.maximum(nth - 1, 0), axis=-1)

    furthest = distance_to(count)
    width = (furthest - distance_to(jnp.minimum(k, count))) / _REACH
    smallest = 1e-6 * furthest + jnp.finfo(distances.dtype).tiny
    return soft_ops.top_k_mask(
        -distances, min(k, distances.shape[1]), softness=softness * jnp.maximum(width, smallest), mode="c1", where=where
    )
