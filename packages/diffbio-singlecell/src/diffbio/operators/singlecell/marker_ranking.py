"""Marker genes of clusters: one-vs-rest AUROC and Wilcoxon test, from soft clusters and soft ranks.

Hard: the Mann-Whitney U of a gene between the cells of a cluster and all others, from the ranks R of the n cells.
Relaxed, R are soft ranks and each cell belongs to cluster k with weight s_ik. With F the step that ranks count with,

    AUROC_k = sum_ij s_ik (1 - s_jk) F((x_i - x_j) / tau) / (n_k (n - n_k)),      n_k = sum_i s_ik
            = 1/2 + sum_i s_ik (R_i - (n + 1) / 2) / (n_k (n - n_k))

so ranks are needed once per gene, whatever the number of clusters. When cells are permuted, sum_i s_ik R_i has the
variance sum_i (s_ik - mean)^2 sum_i (R_i - mean)^2 / (n - 1), hence

    z_k = sqrt(n - 1) corr_i(s_ik, R_i)

At one-hot clusters, as tau -> 0, that is the Wilcoxon rank-sum statistic with its correction for ties.

References:
    Mann and Whitney, Annals of Mathematical Statistics 1947; Wilcoxon, Biometrics Bulletin 1945.
    Hajek, Sidak and Sen, Theory of Rank Tests, 1999 (linear rank statistics with weights).
    Soneson and Robinson, Bias, robustness and scalability in single-cell differential expression, Nat. Methods 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Gt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops

_RANKS = 2**21  # held at once
_CONSTANT = 1e-12  # mean square below which weights or relative ranks do not vary, but for rounding
_FOLD_FLOOR = 1e-9  # scanpy's, which keeps the fold change of an absent gene finite


@dataclass(frozen=True, kw_only=True)
class MarkerRankingConfig(OperatorConfig):
    """How soft the ranks are.

    Args:
        temperature: Softness of the ranks, in the unit of the expression. Cells closer than about this tie.
        learnable_temperature: Whether gradient descent changes the temperature.
    """

    temperature: Annotated[float, Gt(0)] = 0.01
    learnable_temperature: bool = False


class Markers(NamedTuple):
    """How each gene tells each cluster from all other cells.

    Attributes:
        marker_auroc: Probability that a cell of the cluster expresses more than another cell, ties counted half, from
            0 to 1 (clusters, genes); 0.5 for an empty cluster, and for one that holds all cells.
        marker_z_scores: Wilcoxon rank-sum statistic, standard normal without difference (clusters, genes).
        marker_log_p_values: Logarithm of its two-sided p-value, in nats (clusters, genes).
        marker_log2_fold_changes: Of mean expression in the cluster over that in the rest (clusters, genes).
    """

    marker_auroc: Float[Array, "clusters genes"]
    marker_z_scores: Float[Array, "clusters genes"]
    marker_log_p_values: Float[Array, "clusters genes"]
    marker_log2_fold_changes: Float[Array, "clusters genes"]


@partial(jax.jit, static_argnames="chunk_size")
def rank_markers(
    normalized: Float[Array, "cells genes"],
    cluster_assignments: Float[Array, "cells clusters"],
    *,
    softness: ArrayLike,
    chunk_size: int | None = None,
) -> Markers:
    """Return AUROC, Wilcoxon test and fold change of each gene for each cluster against the rest.

    Args:
        normalized: Logarithm of 1 + normalized count (cells, genes).
        cluster_assignments: Weight of each cell in each cluster, from 0 to 1 (cells, clusters).
        softness: tau > 0, in the unit of `normalized`.
        chunk_size: Genes whose ranks are held at once; `None` for about two million ranks. It changes time and
            memory, not the result.

    Returns:
        Four arrays (clusters, genes). Time grows as genes x cells x (log cells + clusters); memory as cells x
        (genes + clusters), for the gradient too: ranks are made for a chunk of genes at a time.

    References:
        scanpy `tl.rank_genes_groups(method="wilcoxon", tie_correct=True)`; SciPy `mannwhitneyu`.

    Example:
        >>> expression = jnp.array([[3.0, 1.0], [2.0, 2.0], [0.0, 1.5], [1.0, 0.0]])
        >>> clusters = jnp.repeat(jnp.eye(2), 2, axis=0)
        >>> rank_markers(expression, clusters, softness=1e-3).marker_auroc.tolist()
        [[1.0, 0.75], [0.0, 0.25]]
    """
    n_cells = len(normalized)
    weights = cluster_assignments.T
    sizes = weights.sum(1)
    others = n_cells - sizes
    pairs = sizes * others
    centered = weights - weights.mean(1, keepdims=True)
    spread = jnp.square(centered).mean(1)

    @jax.checkpoint  # else the gradient would keep the ranks of all genes
    def of_gene(expression: Array) -> tuple[Array, Array]:
        ranks = soft_ops.rank(expression, softness=softness) / n_cells
        ranks = ranks - ranks.mean()
        excess = jnp.matmul(centered, ranks, precision=lax.Precision.HIGHEST)  # over cells, divided by their number
        variance = jnp.square(ranks).mean() * spread
        varies = (spread > _CONSTANT) & (jnp.square(ranks).mean() > _CONSTANT)
        z_scores = excess / n_cells * math.sqrt(max(n_cells - 1, 0)) / jnp.sqrt(jnp.where(varies, variance, 1.0))
        divided = pairs > _CONSTANT * n_cells**2
        auroc = 0.5 + jnp.where(divided, excess * n_cells / jnp.where(divided, pairs, 1.0), 0.0)
        return auroc, jnp.where(varies, z_scores, 0.0)

    chunk_size = chunk_size or max(1, min(_RANKS // n_cells, normalized.shape[1]))
    auroc, z_scores = lax.map(of_gene, normalized.T, batch_size=chunk_size)
    means = jnp.matmul(weights, normalized, precision=lax.Precision.HIGHEST) / _not_zero(sizes)[:, None]
    rest = jnp.matmul(1 - weights, normalized, precision=lax.Precision.HIGHEST) / _not_zero(others)[:, None]
    folds = (_log_expm1(means) - _log_expm1(rest)) / math.log(2)
    log_tail: Array = jax.scipy.special.log_ndtr(-jnp.abs(z_scores.T))  # in logarithms no p-value is too small
    log_p = jnp.minimum(log_tail + math.log(2), 0.0)
    return Markers(auroc.T, z_scores.T, log_p, folds)


def adjusted_log_p_values(log_p_values: Float[Array, "*clusters genes"]) -> Float[Array, "*clusters genes"]:
    """Return log p-values adjusted for the number of genes, after Benjamini and Hochberg.

    Args:
        log_p_values: Logarithms, at most 0 (*clusters, genes).

    Returns:
        Log of the least false discovery rate at which the gene is found (*clusters, genes).

    References:
        Benjamini and Hochberg, Controlling the false discovery rate, JRSS B 1995; scanpy's `pvals_adj`.

    Example:
        >>> adjusted = jnp.exp(adjusted_log_p_values(jnp.log(jnp.array([0.01, 0.04, 0.03, 1.0]))))
        >>> [round(p, 4) for p in adjusted.tolist()]
        [0.04, 0.0533, 0.0533, 1.0]
    """
    n_genes = log_p_values.shape[-1]
    order = jnp.argsort(log_p_values, axis=-1)
    factors = jnp.log(n_genes / jnp.arange(1, n_genes + 1, dtype=log_p_values.dtype))
    ascending = jnp.take_along_axis(log_p_values, order, axis=-1) + factors
    least = lax.cummin(ascending, axis=ascending.ndim - 1, reverse=True)
    return jnp.minimum(jnp.take_along_axis(least, jnp.argsort(order, axis=-1), axis=-1), 0.0)


class MarkerRanking(Operator[MarkerRankingConfig]):
    """Ranks genes by how well each tells a cluster from the rest: AUROC, Wilcoxon test, fold change.

    Reads `normalized` (cells, genes) and `cluster_assignments` (cells, clusters); writes `marker_auroc`,
    `marker_z_scores`, `marker_log_p_values` and `marker_log2_fold_changes` (clusters, genes). Gradients reach the
    expression and the clusters, so that a clustering can be trained to have markers.

    Args:
        config: Softness of the ranks.
        rngs: Not used: nothing is drawn.

    Example:
        >>> ranking = MarkerRanking(MarkerRankingConfig())
        >>> data = {
        ...     "normalized": jnp.array([[3.0, 0.0], [2.0, 1.0], [0.0, 2.0], [1.0, 3.0]]),
        ...     "cluster_assignments": jnp.repeat(jnp.eye(2), 2, axis=0),
        ... }
        >>> ranking.apply(data, {}, None)[0]["marker_auroc"].argmax(1).tolist()
        [0, 1]
    """

    def __init__(self, config: MarkerRankingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.softness = Softness(config.temperature, learnable=config.learnable_temperature)

    def compute(
        self, normalized: Float[Array, "cells genes"], cluster_assignments: Float[Array, "cells clusters"]
    ) -> Markers:
        """Return how each gene marks each cluster."""
        return rank_markers(normalized, cluster_assignments, softness=self.softness())


def _not_zero(sizes: Array) -> Array:
    return jnp.where(sizes > 0, sizes, 1.0)


def _log_expm1(means: Array) -> Array:
    """Return log(exp(x) - 1 + floor), for x whose exponential is infinite in float32 too."""
    small = jnp.minimum(means, 20.0)
    return jnp.where(means > 20.0, means, jnp.log(jnp.maximum(jnp.expm1(small), 0.0) + _FOLD_FLOOR))
