"""Scores of how much more genes vary than genes of like abundance: four definitions of "highly variable".

    seurat             log of variance over mean, as a z-score among the genes whose mean is in the same bin
    cell_ranger        variance over mean, by median and median deviation among the genes of the same quantiles of means
    seurat_v3          clipped variance over the variance that a loess on the mean predicts
    pearson_residuals  variance of the residuals of a model in which genes only differ in abundance

The first two score log-normalized data, the others raw counts. All but the loess are JAX functions with gradients, and
all equal the columns that scanpy's `pp.highly_variable_genes` ranks by.

References:
    Satija et al., Spatial reconstruction of single-cell gene expression data, Nature Biotechnology 2015 (`seurat`).
    Zheng et al., Massively parallel digital transcriptional profiling of single cells, Nature Communications 2017
    (`cell_ranger`).
    Stuart et al., Comprehensive integration of single-cell data, Cell 2019 (`seurat_v3`).
    Lause, Berens and Kobak, Analytic Pearson residuals for normalization of single-cell RNA-seq UMI data, Genome
    Biology 2021 (`pearson_residuals`).
    Wolf, Angerer and Theis, SCANPY, Genome Biology 2018.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, ScalarLike

from diffbio.core import soft_ops
from diffbio.core.errors import ContractError, MissingExtraError
from diffbio.operators.normalization.pearson_residuals import gene_shares, pearson_residuals
from diffbio.operators.normalization.scaling import moments

_ABSENT = 1e-12  # stands for the mean of a gene that no cell expresses, as in scanpy
_SMALLEST_SPREAD = 1e-6  # dispersions (natural log, or relative) of a bin closer than this are one value in float32
_GENES_PER_FIT = 4  # a local quadratic with fewer leaves no residual
_NORMAL_MAD = 0.6744898  # median deviation of a normal distribution of standard deviation 1
_CELL_RANGER_PERCENTILES = tuple(range(10, 105, 5))


def seurat_dispersion(log_normalized: Float[Array, "cells genes"], *, n_bins: int = 20) -> Float[Array, " genes"]:
    """Return the normalized dispersion of each gene, the score of scanpy's flavor `seurat`.

    The log of variance over mean (of the data with the log undone) becomes a z-score among the genes whose mean falls
    in the same of `n_bins` bins of equal width. A gene alone in its bin scores 1.

    Args:
        log_normalized: log(1 + normalized counts), at least 2 cells.
        n_bins: Number of bins of the log mean.

    Returns:
        Scores, comparable between abundances; -inf, which no ranking selects, for a gene without variance and
        for genes that all have the one dispersion of their bin. The gradient treats the bins as fixed.

    References:
        Satija et al. 2015; scanpy `pp.highly_variable_genes(flavor="seurat")`, column `dispersions_norm`.

    Example:
        >>> x = jnp.log1p(jnp.array([[0.0, 1.0, 2.0, 5.0], [4.0, 1.0, 3.0, 9.0]]))
        >>> [round(score, 1) for score in seurat_dispersion(x, n_bins=1).tolist()]
        [0.9, -inf, -1.0, 0.1]
    """
    seen = moments(jnp.expm1(log_normalized))
    mean = jnp.where(seen.mean > 0, seen.mean, _ABSENT)
    varies = seen.variance > 0
    dispersion = jnp.log(jnp.where(varies, seen.variance, 1.0) / jnp.where(varies, mean, 1.0))

    bins = _equal_width_bins(jnp.log1p(mean), n_bins)

    def per_bin(values: Float[Array, " genes"]) -> Float[Array, " bins"]:
        return jax.ops.segment_sum(jnp.where(varies, values, 0.0), bins, num_segments=n_bins)

    n_varying = per_bin(jnp.ones_like(dispersion))[bins]
    centered = dispersion - per_bin(dispersion)[bins] / jnp.maximum(n_varying, 1)
    variance = per_bin(jnp.square(centered))[bins] / jnp.maximum(n_varying - 1, 1)
    spreads = variance > _SMALLEST_SPREAD**2
    score = centered / jnp.sqrt(jnp.where(spreads, variance, 1.0))
    return jnp.select([varies & (n_varying == 1), varies & spreads], [1.0, score], -jnp.inf)


def _equal_width_bins(x: Float[Array, " genes"], n_bins: int) -> Int[Array, " genes"]:
    """Return which of `n_bins` intervals (low, high] between the extremes holds each value."""
    edges = jnp.linspace(x.min(), x.max(), n_bins + 1)
    return jnp.clip(jnp.searchsorted(edges, x, side="left") - 1, 0, n_bins - 1)


def cell_ranger_dispersion(log_normalized: Float[Array, "cells genes"]) -> Float[Array, " genes"]:
    """Return the normalized dispersion of each gene, the score of scanpy's flavor `cell_ranger`.

    Variance over mean, less the median of the genes whose mean falls between the same percentiles (10, 15, ..., 100 of
    the means), over their median deviation. Logarithms are not undone.

    Args:
        log_normalized: log(1 + normalized counts), at least 2 cells.

    Returns:
        Scores, comparable between abundances; -inf, which no ranking selects, for a gene without variance and for
        genes of a bin whose dispersions have no median deviation. The gradient treats the bins as fixed.

    References:
        Zheng et al. 2017; scanpy `pp.highly_variable_genes(flavor="cell_ranger")`, column `dispersions_norm`.

    Example:
        >>> steady = jnp.linspace(1.0, 2.0, 40)
        >>> x = jnp.stack([steady, steady**1.5]).at[0, 7].set(0.0)
        >>> int(cell_ranger_dispersion(x).argmax())
        7
    """
    seen = moments(log_normalized)
    mean = jnp.where(seen.mean > 0, seen.mean, _ABSENT)
    dispersion = seen.variance / mean

    edges = jnp.percentile(jax.lax.stop_gradient(mean), jnp.asarray(_CELL_RANGER_PERCENTILES, mean.dtype))
    bins = jnp.searchsorted(edges, mean, side="left")
    in_bin = bins == jnp.arange(len(_CELL_RANGER_PERCENTILES))[:, None]

    def median_of_bin(values: Float[Array, " genes"]) -> Float[Array, " genes"]:
        return soft_ops.median(jnp.broadcast_to(values, in_bin.shape), -1, mode="hard", where=in_bin)[bins]

    median = median_of_bin(dispersion)
    deviation = median_of_bin(jnp.abs(dispersion - median)) / _NORMAL_MAD
    spreads = deviation > _SMALLEST_SPREAD * median
    score = (dispersion - median) / jnp.where(spreads, deviation, 1.0)
    return jnp.where(spreads & (seen.variance > 0), score, -jnp.inf)


def seurat_v3_trend(counts: ArrayLike, *, span: float = 0.3) -> np.ndarray:
    """Return the standard deviation that each gene's mean predicts: a loess fit of log variance on log mean.

    Runs on the host in float64; needs scikit-misc, the loess library that scanpy uses.

    Args:
        counts: Raw counts (cells, genes), dense.
        span: Share of the genes that each local quadratic fit uses, in (0, 1].

    Returns:
        Expected standard deviation of each gene (genes,), float32, in counts; 1 for a gene without variance.

    Raises:
        MissingExtraError: scikit-misc is not installed.
        ContractError: The local fits failed, as they do with few genes or many equal means.

    References:
        Stuart et al. 2019; scanpy `pp.highly_variable_genes(flavor="seurat_v3")`.

    Example:
        >>> counts = np.random.default_rng(0).poisson(np.linspace(0.1, 5, 50), (200, 50))
        >>> bool(np.allclose(seurat_v3_trend(counts) ** 2, counts.mean(0), rtol=0.5))
        True
    """
    try:
        from skmisc.loess import loess
    except ImportError as error:
        raise MissingExtraError(
            'The trend of flavor "seurat_v3" needs scikit-misc: pip install "diffbio-singlecell[scanpy]", '
            'or use flavor="seurat"'
        ) from error
    dense = np.asarray(counts, np.float64)
    mean, variance = dense.mean(0), dense.var(0, ddof=1)
    varies = variance > 0
    log_variance = np.zeros_like(mean)
    if varies.any():
        local = span * varies.sum()
        model = loess(np.log10(mean[varies]), np.log10(variance[varies]), span=span, degree=2)
        try:
            if local < _GENES_PER_FIT:  # loess itself ends the process where it has no gene to fit
                raise ValueError(f"span={span} of them is {local:.1f}")
            model.fit()
        except ValueError as error:
            raise ContractError(
                f"The loess of variance on mean failed with {varies.sum()} varying genes ({error}); give more "
                'genes, raise span, or use flavor="seurat"'
            ) from error
        log_variance[varies] = model.outputs.fitted_values
    return np.sqrt(10.0**log_variance).astype(np.float32)


def seurat_v3_variance(
    counts: Float[Array, "cells genes"], expected_std: Float[Array, " genes"]
) -> Float[Array, " genes"]:
    """Return the variance of each gene over its expected variance, the score of scanpy's flavor `seurat_v3`.

    Counts above mean + sqrt(cells) * expected_std are clipped to it first, so that one cell can't carry a gene.

    Args:
        counts: Raw counts, at least 2 cells.
        expected_std: Standard deviation that the mean predicts, above 0, from `seurat_v3_trend`.

    Returns:
        Variance ratios, at least 0, around 1 for a gene that varies as expected; 0 for a constant gene.

    References:
        Stuart et al. 2019; scanpy `pp.highly_variable_genes(flavor="seurat_v3")`, column `variances_norm`.

    Example:
        >>> seurat_v3_variance(jnp.array([[0.0, 2.0], [4.0, 2.0]]), jnp.array([2.0, 1.0])).tolist()
        [2.0, 0.0]
    """
    n_cells = counts.shape[0]
    mean = moments(counts).mean
    clipped = jnp.minimum(counts, mean + expected_std * jnp.sqrt(jnp.float32(n_cells)))
    return jnp.square((clipped - mean) / expected_std).sum(0) / max(n_cells - 1, 1)


def pearson_residual_variance(
    counts: Float[Array, "cells genes"], *, theta: ScalarLike = 100.0
) -> Float[Array, " genes"]:
    """Return the variance of each gene's Pearson residuals, the score of scanpy's flavor `pearson_residuals`.

    Residuals are clipped at +-sqrt(cells) first, so that one cell can't carry a gene.

    Args:
        counts: Raw counts.
        theta: Inverse overdispersion, above 0.

    Returns:
        Variances (divisor n), at least 0, around 1 for a gene that varies as sequencing alone would have it; 0 for a
        gene without counts.

    References:
        Lause et al. 2021; scanpy `experimental.pp.highly_variable_genes`, column `residual_variances`.

    Example:
        >>> scores = pearson_residual_variance(jnp.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]]), theta=2.0)
        >>> [round(score, 3) for score in scores.tolist()]
        [1.0, 1.0, 0.0]
    """
    clip = math.sqrt(counts.shape[0])
    return pearson_residuals(counts, gene_shares(counts), theta=theta, max_residual=clip).var(0)
