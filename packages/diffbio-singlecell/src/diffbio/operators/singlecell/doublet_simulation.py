"""Simulated doublets: the counts of random pairs of cells, added, and where they lie among the cells.

References:
    Wolock, Lopez and Klein, Scrublet, Cell Systems 2019.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, ScalarLike

from diffbio.core.errors import ContractError

_BLOCK = 256  # simulated doublets that are made at once


class ScoringSpace(NamedTuple):
    """Where cells and doublets are compared: components of normalized counts of the genes that count.

    Attributes:
        mean: Mean of each gene (genes,).
        gene_weights: One over its standard deviation, or 0 for a gene that does not count (genes,).
        components: One direction per column (genes, components).
        target_sum: Total count to which each cell is scaled ().
    """

    mean: Float[Array, " genes"]
    gene_weights: Float[Array, " genes"]
    components: Float[Array, "genes components"]
    target_sum: ScalarLike


def doublet_pairs(n_cells: int, n_doublets: int, *, key: Array) -> Int[Array, "doublets 2"]:
    """Return random pairs of different cells, to be added up.

    Args:
        n_cells: Number of cells, at least 2.
        n_doublets: Number of pairs.
        key: Random key.

    Raises:
        ContractError: There are fewer than two cells.

    Example:
        >>> pairs = doublet_pairs(5, 100, key=jax.random.key(0))
        >>> bool((pairs[:, 0] != pairs[:, 1]).all()), int(pairs.max())
        (True, 4)
    """
    if n_cells < 2:
        raise ContractError(f"a doublet is made of two cells, and there is {n_cells}; give more cells")
    first_key, key = jax.random.split(key)
    first = jax.random.randint(first_key, (n_doublets,), 0, n_cells)
    return jnp.stack([first, (first + jax.random.randint(key, (n_doublets,), 1, n_cells)) % n_cells], axis=1)


@partial(jax.jit, static_argnames="log_transform")
def embed_doublets(
    counts: Float[Array, "cells genes"],
    totals: Float[Array, " cells"],
    pairs: Int[Array, "doublets 2"],
    space: ScoringSpace,
    *,
    log_transform: bool = True,
) -> Float[Array, "doublets components"]:
    """Return the coordinates of pairs of cells whose counts are added, made in blocks.

    Args:
        counts: Raw counts of the genes that count (cells, genes).
        totals: Total count of each cell over all genes (cells,).
        pairs: Rows of the cells (doublets, 2).
        space: Where to.
        log_transform: Whether log(1 + x) follows the scaling to a common total.

    Returns:
        Coordinates (doublets, components). The counts of all doublets are never held at once, nor in the gradient.

    Example:
        >>> space = ScoringSpace(jnp.zeros(2), jnp.ones(2), jnp.eye(2), 8.0)
        >>> counts = jnp.array([[4.0, 0.0], [0.0, 12.0]])
        >>> embed_doublets(counts, counts.sum(1), jnp.array([[0, 1]]), space, log_transform=False).tolist()
        [[2.0, 6.0]]
    """

    @jax.checkpoint
    def of_pair(pair: Array) -> Array:
        return embed_cells(counts[pair].sum(0), totals[pair].sum(), space, log_transform=log_transform)

    return lax.map(of_pair, pairs, batch_size=_BLOCK)


def scaled_to_total(
    counts: Float[Array, "*cells genes"],
    totals: Float[Array, "*cells"],
    target_sum: ScalarLike,
    *,
    log_transform: bool = True,
) -> Float[Array, "*cells genes"]:
    """Return counts as shares of a total that other genes count in too, times the target, and their logarithm.

    Args:
        counts: Raw counts of some genes (*cells, genes).
        totals: Total count of each cell over all genes (*cells,).
        target_sum: To which each cell is scaled, above 0.
        log_transform: Whether log(1 + x) follows.

    Returns:
        At least 0 (*cells, genes); 0 for a cell without counts.

    Example:
        >>> scaled_to_total(jnp.array([[1.0, 2.0]]), jnp.array([5.0]), 10.0, log_transform=False).tolist()
        [[2.0, 4.0]]
    """
    unit = lax.stop_gradient(jnp.where(totals > 0, totals, 1.0))  # no square of a huge or tiny total is formed
    relative = totals / unit
    shares = counts / unit[..., None] / jnp.where(relative > 0, relative, 1.0)[..., None]
    normalized = shares * target_sum
    return jnp.log1p(normalized) if log_transform else normalized


def embed_cells(
    counts: Float[Array, "*cells genes"],
    totals: Float[Array, "*cells"],
    space: ScoringSpace,
    *,
    log_transform: bool = True,
) -> Float[Array, "*cells components"]:
    """Return the coordinates of cells.

    Args:
        counts: Raw counts of the genes that count (*cells, genes).
        totals: Total count of each cell over all genes (*cells,).
        space: Where to.
        log_transform: Whether log(1 + x) follows the scaling to a common total.

    Example:
        >>> space = ScoringSpace(jnp.zeros(2), jnp.ones(2), jnp.eye(2), 8.0)
        >>> embed_cells(jnp.array([4.0, 12.0]), jnp.array(16.0), space, log_transform=False).tolist()
        [2.0, 6.0]
    """
    normalized = scaled_to_total(counts, totals, space.target_sum, log_transform=log_transform)
    scaled = (normalized - space.mean) * space.gene_weights
    return jnp.matmul(scaled, space.components, precision=lax.Precision.HIGHEST)
