"""Mixing of groups by LISI: the effective number of batches, or cell types, around each cell.

With d_ij the distances of cell i to its nearest neighbours and a_jg the membership of cell j in group g:

    w_ij = softmax_j(-beta_i d_ij), with beta_i such that the entropy of the weights is log perplexity
    p_ig = sum_j w_ij a_jg            LISI_i = 1 / sum_g p_ig^2

It is smooth as it is. Which cells are neighbours is a hard choice that the gradient treats as constant; it goes
through the distances, and through beta_i by the implicit function theorem.

References:
    Korsunsky et al., Fast, sensitive and accurate integration of single-cell data with Harmony, Nature Methods 2019;
    Luecken et al., Benchmarking atlas-level data integration in single-cell genomics, Nature Methods 2022 (the scale
    from 0 to 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from diffbio.core.reading import read
from diffbio.losses.singlecell.groups import mean_of_members, members, require_groups
from diffbio.operators.singlecell.neighbor_graph import is_neighbor, neighbor_matmul
from diffbio.operators.singlecell.neighbors import nearest_neighbors

_LOWEST, _HIGHEST, _HALVINGS = -24.0, 40.0, 32  # of log2 beta, where distances have mean 1: to the last digit
_FLAT = 1e-6  # slope of the entropy in log beta: below, no beta has the entropy that is asked for


@partial(jax.jit, static_argnames="n_neighbors")
def lisi(
    embeddings: Float[Array, "cells features"],
    assignments: Float[Array, "cells groups"],
    *,
    n_neighbors: int = 90,
    perplexity: ArrayLike | None = None,
) -> Float[Array, " cells"]:
    """Return the local inverse Simpson index: the effective number of groups around each cell.

    Args:
        embeddings: Coordinates (cells, features), in any unit.
        assignments: Membership of the cells in groups, such as batches (cells, groups), at least 0; rows that sum to
            1, or to 0 for cells that do not count and are nobody's neighbour.
        n_neighbors: Between 1 and cells - 1; the cell itself is not counted.
        perplexity: Effective number of neighbours, above 1; `None` for a third of `n_neighbors`. From `n_neighbors` on
            all weigh the same.

    Returns:
        Values from 1, for one group, to the number of groups, where mixed evenly (cells,); 0 for cells that do not
        count.

    Raises:
        ContractError: There are too few cells for so many neighbours, or not one row of assignments per cell.

    References:
        Korsunsky et al., Harmony, 2019.

    Example:
        >>> cells, batches = jnp.arange(6.0)[:, None] % 3, jnp.eye(2)[jnp.array([0, 1, 0, 1, 0, 1])]
        >>> [round(value, 2) for value in lisi(cells, batches, n_neighbors=5, perplexity=4).tolist()]
        [1.65, 1.6, 1.65, 1.65, 1.6, 1.65]
    """
    require_groups(embeddings, assignments)
    counted = members(assignments)
    neighbors = nearest_neighbors(embeddings, n_neighbors, cell_mask=counted)
    there = is_neighbor(neighbors.indices)
    perplexity = n_neighbors / 3 if perplexity is None else perplexity
    weights = perplexity_weights(neighbors.distances, perplexity, where=there)
    shares = neighbor_matmul(weights, neighbors.indices, assignments)
    total = shares.sum(axis=-1)
    squares = jnp.sum(shares**2, axis=-1)
    met = counted & (squares > 0)
    return jnp.where(met, total**2 / jnp.where(met, squares, 1), counted)


def perplexity_weights(
    distances: Float[Array, "cells neighbors"],
    perplexity: ArrayLike,
    *,
    where: Bool[Array, "cells neighbors"] | None = None,
) -> Float[Array, "cells neighbors"]:
    """Return weights of neighbours that fall exponentially with the distance, with a given entropy.

    Args:
        distances: Of each cell to its neighbours (cells, neighbors), in any unit.
        perplexity: exp(entropy), above 1; a scalar or one per cell (cells, 1).
        where: Which places hold a neighbour; `None` for all.

    Returns:
        Weights that sum to 1 (cells, neighbors). They are equal where the perplexity is at least the number of
        neighbours, and among the nearest where more of them are equally near than the perplexity.

    Example:
        >>> weights = perplexity_weights(jnp.array([[1.0, 2.0, 2.0]]), 2.5)
        >>> round(float(jnp.exp(jax.scipy.special.entr(weights).sum())), 4)
        2.5
    """
    where = jnp.ones(distances.shape, bool) if where is None else where
    fixed = lax.stop_gradient(distances)
    nearest = jnp.min(fixed, axis=-1, keepdims=True, initial=jnp.inf, where=where)
    nearest = jnp.where(jnp.isfinite(nearest), nearest, 0)
    unit = jnp.sum(jnp.where(where, fixed - nearest, 0), axis=-1, keepdims=True)
    unit = unit / jnp.maximum(where.sum(axis=-1, keepdims=True), 1)
    further = jnp.where(where, distances - nearest, 0) / jnp.where(unit > 0, unit, 1)
    log_beta = _log_precision(further, jnp.log(jnp.asarray(perplexity, distances.dtype)), where)
    return _softmax(further, log_beta, where)


def batch_lisi(
    data: Mapping[str, Array], *, n_batches: int, n_neighbors: int = 90, perplexity: float | None = None
) -> Float[Array, ""]:
    """Return a loss that falls as batches mix: (n_batches - mean LISI) / (n_batches - 1).

    Args:
        data: Holds `embeddings` (cells, features) and `batch_labels` (cells,), integers from 0 to `n_batches` - 1; a
            cell of another batch, by convention -1, does not count.
        n_batches: Number of batches, at least 2.
        n_neighbors: Between 1 and cells - 1.
        perplexity: Effective number of neighbours; `None` for a third of `n_neighbors`.

    Returns:
        A scalar from 0, for even mixing of all batches everywhere, to 1.

    Raises:
        MissingKeyError: One of the two keys is missing.
        ContractError: There is one batch only, or there are too few cells for so many neighbours.

    Example:
        >>> data = {"embeddings": jnp.array([[0.0], [1.0], [9.0], [10.0]]), "batch_labels": jnp.array([0, 0, 1, 1])}
        >>> float(batch_lisi(data, n_batches=2, n_neighbors=1))
        1.0
    """
    embeddings, labels = read("batch_lisi", data, "embeddings", "batch_labels")
    batches = jax.nn.one_hot(labels, n_batches)
    require_groups(embeddings, batches, at_least=2)
    found = lisi(embeddings, batches, n_neighbors=n_neighbors, perplexity=perplexity)
    return mean_of_members((n_batches - found) / (n_batches - 1), batches)


def cell_type_lisi(
    data: Mapping[str, Array], *, n_classes: int, n_neighbors: int = 90, perplexity: float | None = None
) -> Float[Array, ""]:
    """Return a loss that falls as cell types come apart: (mean LISI - 1) / (n_classes - 1).

    Args:
        data: Holds `embeddings` (cells, features) and `labels` (cells,), integers from 0 to `n_classes` - 1; a cell
            with another label, by convention -1, does not count.
        n_classes: Number of cell types, at least 2.
        n_neighbors: Between 1 and cells - 1.
        perplexity: Effective number of neighbours; `None` for a third of `n_neighbors`.

    Returns:
        A scalar from 0, where each cell has its own type alone around it, to 1.

    Raises:
        MissingKeyError: One of the two keys is missing.
        ContractError: There is one class only, or there are too few cells for so many neighbours.

    Example:
        >>> data = {"embeddings": jnp.array([[0.0], [1.0], [9.0], [10.0]]), "labels": jnp.array([0, 0, 1, 1])}
        >>> float(cell_type_lisi(data, n_classes=2, n_neighbors=1))
        0.0
    """
    embeddings, labels = read("cell_type_lisi", data, "embeddings", "labels")
    types = jax.nn.one_hot(labels, n_classes)
    require_groups(embeddings, types, at_least=2)
    found = lisi(embeddings, types, n_neighbors=n_neighbors, perplexity=perplexity)
    return mean_of_members((found - 1) / (n_classes - 1), types)


def _softmax(further: Array, log_beta: Array, where: Array) -> Float[Array, "cells neighbors"]:
    """Return softmax(-beta d) over the places that hold a neighbour."""
    return jax.nn.softmax(-jnp.exp(log_beta) * further, axis=-1, where=where)


@jax.custom_jvp
def _log_precision(further: Array, entropy: Array, where: Array) -> Float[Array, "cells 1"]:
    """Return log beta at which softmax(-beta d) has this entropy, by bisection; d has mean 1 and minimum 0."""

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        weights = _softmax(further, middle * jnp.log(2.0), where)
        too_flat = jax.scipy.special.entr(weights).sum(axis=-1, keepdims=True) > entropy
        return jnp.where(too_flat, middle, low), jnp.where(too_flat, high, middle)

    start = jnp.full((*further.shape[:-1], 1), _LOWEST, further.dtype)
    low, high = lax.fori_loop(0, _HALVINGS, halve, (start, start - _LOWEST + _HIGHEST))
    return (low + high) / 2 * jnp.log(2.0)


@_log_precision.defjvp
def _log_precision_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    # the entropy H stays what it is: dH = -beta^2 (Cov(d, dd) + Var(d) dlog beta), under the weights
    (further, entropy, where), (d_further, d_entropy, _) = primals, tangents
    log_beta = _log_precision(further, entropy, where)
    weights = _softmax(further, log_beta, where)
    away = further - jnp.sum(weights * further, axis=-1, keepdims=True)
    covariance = jnp.sum(weights * away * d_further, axis=-1, keepdims=True)
    slope = jnp.exp(2 * log_beta) * jnp.sum(weights * away**2, axis=-1, keepdims=True)
    steep = slope > _FLAT
    change = jnp.exp(2 * log_beta) * covariance + d_entropy
    return log_beta, jnp.where(steep, -change, 0) / jnp.where(steep, slope, 1)
