"""Genes ranked by how highly variable they are, over the cells of one batch or of several.

Over several batches, genes are scored in each and the orders are merged, so that a difference between batches does not
count as variation. A gene is among the best of a batch if it is one of its k best:

    seurat, cell_ranger   by the number of batches in which the gene is among the best, then by its mean score
    pearson_residuals     by that number, then by the median rank in these batches
    seurat_v3             by that median rank, then by the number

These are the rules of scanpy. They run on the host, on scores that `gene_scores` computes.

References:
    Wolf, Angerer and Theis, SCANPY, Genome Biology 2018 (`pp.highly_variable_genes(batch_key=...)`).
    Stuart et al., Comprehensive integration of single-cell data, Cell 2019 (merging by ranks).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Int

from diffbio.core.errors import ContractError, DataError
from diffbio.operators.normalization.gene_scores import (
    cell_ranger_dispersion,
    pearson_residual_variance,
    seurat_dispersion,
    seurat_v3_trend,
    seurat_v3_variance,
)

Flavor = Literal["seurat", "cell_ranger", "seurat_v3", "pearson_residuals"]
ON_LOGARITHMS = ("seurat", "cell_ranger")
"""The flavors that score log-normalized expression; the others score raw counts."""


def _log_seurat_v3(counts: Float[Array, "cells genes"]) -> Float[Array, " genes"]:
    return jnp.log(seurat_v3_variance(counts, jnp.asarray(seurat_v3_trend(counts))))


_SCORES: dict[str, Callable[[Float[Array, "cells genes"]], Float[Array, " genes"]]] = {
    "seurat": seurat_dispersion,
    "cell_ranger": cell_ranger_dispersion,
    "seurat_v3": _log_seurat_v3,
    "pearson_residuals": lambda counts: jnp.log(pearson_residual_variance(counts)),
}


def score_genes(expression: Float[Array, "cells genes"], *, flavor: Flavor) -> Float[Array, " genes"]:
    """Return the score of each gene over all cells.

    Args:
        expression: Log-normalized expression for `seurat` and `cell_ranger`, raw counts for the others.
        flavor: Which score. The variances of `seurat_v3` and `pearson_residuals` enter by their logarithm, as the
            dispersions of `seurat` do.

    Returns:
        Scores (genes,); -inf for a gene that can't be scored, such as one without variance.

    Raises:
        MissingExtraError: The flavor is `seurat_v3` and scikit-misc is not installed.

    References:
        `gene_scores`.

    Example:
        >>> counts = jnp.array([[4.0, 0.0, 1.0], [0.0, 4.0, 1.0]])
        >>> int(score_genes(counts, flavor="pearson_residuals").argmin())
        2
    """
    return _SCORES[flavor](expression)


def score_genes_by_batch(
    expression: Float[Array, "cells genes"], batch_labels: Int[Array, " cells"], *, flavor: Flavor
) -> Float[np.ndarray, "batches genes"]:
    """Return the score of each gene over the cells of each batch.

    Args:
        expression: As in `score_genes`.
        batch_labels: Batch of each cell, an integer from 0; a cell with another label, by convention -1, is left out,
            and so is a batch of one cell, with a warning.
        flavor: Which score.

    Returns:
        Scores, batches in the order of their labels; -inf for a gene that can't be scored, and NaN for one that no cell
        of the batch expresses: such genes shift no bin of the others.

    Raises:
        ContractError: There is not one label per cell.
        DataError: No batch has two cells.

    Example:
        >>> counts = jnp.array([[4.0, 0.0], [0.0, 4.0], [3.0, 0.0], [9.0, 0.0]])
        >>> score_genes_by_batch(counts, jnp.array([0, 0, 1, 1]), flavor="pearson_residuals").shape
        (2, 2)
    """
    labels = np.asarray(batch_labels)
    if labels.shape != expression.shape[:1]:
        raise ContractError(
            f"batch_labels have shape {labels.shape}; wanted one label for each of the {expression.shape[0]} cells"
        )
    batches, sizes = np.unique(labels[labels >= 0], return_counts=True)
    if not (sizes > 1).any():
        raise DataError(
            f"batch_labels name {len(batches)} batches, and none has the two cells that a variance within it needs; "
            "correct them, or give no batch_labels"
        )
    if (sizes < 2).any():
        alone = ", ".join(map(str, batches[sizes < 2]))
        warnings.warn(f"genes can't be scored in a batch of one cell: {alone} left out", stacklevel=2)
    batches = batches[sizes > 1]
    scores = np.full((len(batches), expression.shape[1]), np.nan)
    for row, batch in zip(scores, batches, strict=True):
        cells = expression[np.flatnonzero(labels == batch)]
        expressed = np.flatnonzero(np.asarray((cells > 0).any(0)))
        row[expressed] = score_genes(cells[:, expressed], flavor=flavor)
    return scores


def ranked_over_batches(
    scores: Float[np.ndarray, "batches genes"], n_top_genes: int, *, flavor: Flavor
) -> Int[np.ndarray, " genes"]:
    """Return the genes, best first, by the scores that they have in each batch.

    Runs on the host. The rules are those of the module; genes that are in no batch among the best come last, by their
    mean rank.

    Args:
        scores: Any real numbers; -inf where a gene can't be scored, NaN where no cell of the batch expresses it.
        n_top_genes: How many genes of a batch are its best, from 1.
        flavor: Which rule.

    Returns:
        Indices of the genes (genes,).

    References:
        scanpy `pp.highly_variable_genes(batch_key=...)`.

    Example:
        >>> scores = np.array([[9.0, 8.0, 1.0, 0.0], [0.0, 7.0, 9.0, 1.0]])
        >>> ranked_over_batches(scores, 2, flavor="seurat").tolist()
        [1, 2, 0, 3]
        >>> ranked_over_batches(scores, 2, flavor="seurat_v3").tolist()
        [0, 2, 1, 3]
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    ranks = np.argsort(np.argsort(-known, axis=1, kind="stable"), axis=1)
    mean_rank = ranks.mean(0)
    if flavor in ON_LOGARITHMS:
        cut = -np.sort(-known, axis=1)[:, [n_top_genes - 1]]  # genes that tie with the last are among the best too
        n_best = ((known >= cut) & np.isfinite(known)).sum(0)
        counted = ~np.isneginf(scores)  # a gene that is not expressed counts as 0 in the mean, as in scanpy
        total = np.where(np.isfinite(scores), scores, 0).sum(0)
        worst_first = np.where(counted.any(0), -total / np.maximum(counted.sum(0), 1), np.inf)
        return np.lexsort((mean_rank, worst_first, -n_best))
    best = ranks < n_top_genes
    n_best = best.sum(0)
    among_best = np.ma.median(np.ma.masked_array(ranks, ~best), axis=0).filled(np.inf)
    others = np.where(n_best > 0, 0, mean_rank)
    by_number, by_rank = (others, among_best, -n_best), (others, -n_best, among_best)  # the last key counts most
    return np.lexsort(by_rank if flavor == "seurat_v3" else by_number)


def normal_scores(ranked: Int[np.ndarray, " genes"]) -> Float[Array, " genes"]:
    """Return for each gene the normal quantile of its place, so that an order has standard deviations as its unit.

    Args:
        ranked: The genes, best first (genes,).

    Returns:
        Scores (genes,) of mean 0 and standard deviation about 1, the largest for the best gene.

    References:
        van der Waerden, Order tests for the two-sample problem, 1952.

    Example:
        >>> [round(score, 2) for score in normal_scores(np.array([2, 0, 1])).tolist()]
        [0.0, -0.97, 0.97]
    """
    n_genes = len(ranked)
    worse = np.empty(n_genes, np.float32)
    worse[ranked] = np.arange(n_genes)[::-1]
    return ndtri(jnp.asarray((worse + 0.5) / n_genes))
