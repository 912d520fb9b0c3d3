"""Soft selection of highly variable genes.

Hard: score each gene by how much more it varies than genes of like abundance, and keep the k best. Relaxed: each gene
passes through a gate

    gate = sigmoid((logit - b) / temperature),   b such that sum(gate) = k

where the logits start at the scores. As temperature -> 0 the gate is 1 for the k best genes and 0 for the rest: the
genes that scanpy takes. Tied genes share their gates equally, where the hard rule takes all of them (`seurat`) or
those that its sort happens to put first (`seurat_v3`).

References:
    Satija et al., Spatial reconstruction of single-cell gene expression data, Nature Biotechnology 2015 (`seurat`).
    Stuart et al., Comprehensive integration of single-cell data, Cell 2019 (`seurat_v3`).
    Wolf, Angerer and Theis, SCANPY, Genome Biology 2018 (`pp.highly_variable_genes`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops
from diffbio.core.errors import ConfigError, ContractError, MissingExtraError
from diffbio.operators.normalization.scaling import moments

_ABSENT = 1e-12  # stands for the mean of a gene that no cell expresses, as in scanpy
_SMALLEST_SPREAD = 1e-6  # dispersions (natural log) of a bin closer than this are one value in float32
_GENES_PER_FIT = 4  # a local quadratic with fewer leaves no residual
_NORMAL_IQR = 1.349  # interquartile range of a normal distribution of standard deviation 1


@dataclass(frozen=True, kw_only=True)
class GeneSelectionConfig(OperatorConfig):
    """How many genes to keep, and how softly.

    Args:
        n_genes: Number of genes.
        n_top_genes: Number of genes to keep: the gates sum to it; at most `n_genes`.
        flavor: `seurat` ranks by dispersion of log-normalized data within bins of like mean; `seurat_v3` by variance
            of counts over the variance that their mean predicts.
        temperature: Softness of the gate, above 0, in robust standard deviations of the scores: genes whose
            scores differ by much less are hardly told apart.
        learnable: Whether training changes the logits.
    """

    n_genes: Annotated[int, Ge(1)]
    n_top_genes: Annotated[int, Ge(1)]
    flavor: Literal["seurat", "seurat_v3"] = "seurat"
    temperature: Annotated[float, Gt(0)] = 0.1
    learnable: bool = True

    def __post_init__(self) -> None:
        """Check each field, then that there are as many genes as are to be kept."""
        super().__post_init__()
        if self.n_top_genes > self.n_genes:
            raise ConfigError(
                f"GeneSelectionConfig.n_top_genes is {self.n_top_genes}, more than the {self.n_genes} genes of "
                f"n_genes; choose n_top_genes <= {self.n_genes}"
            )


class SelectedGenes(NamedTuple):
    """How far each gene is kept, and the expression that passes.

    Attributes:
        gene_gate: In [0, 1], summing to `n_top_genes`.
        gated: The scaled expression times the gate.
    """

    gene_gate: Float[Array, " genes"]
    gated: Float[Array, "*cells genes"]


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


def standardized_scores(scores: Float[Array, " genes"]) -> Float[Array, " genes"]:
    """Return scores as robust z-scores: (score - median) / (interquartile range / 1.349).

    For normal scores the unit is their standard deviation, and one outlier does not shrink the others. It
    keeps the order of scores.

    Args:
        scores: One per gene; -inf for a gene that can't be scored.

    Returns:
        Finite values; genes that can't be scored are 1 below the lowest.

    Example:
        >>> z = standardized_scores(jnp.array([-1.0, -0.5, 0.0, 0.5, 1e6, -jnp.inf]))
        >>> [round(value, 2) for value in z.tolist()]
        [-1.35, -0.67, 0.0, 0.67, 1349000.0, -2.35]
    """
    scored = jnp.isfinite(scores)
    known = jnp.where(scored, scores, jnp.nan)
    low, median, high = (jnp.nan_to_num(jnp.nanpercentile(known, q)) for q in (25, 50, 75))
    unit = (high - low) / _NORMAL_IQR
    z = (jnp.where(scored, scores, median) - median) / jnp.where(unit > 0, unit, 1.0)
    return jnp.where(scored, z, z.min() - 1.0)


class GeneSelection(Operator[GeneSelectionConfig]):
    """Gates each gene by how highly variable it is; training may move the choice.

    Reads `scaled` (*cells, genes); writes `gene_gate` (genes,) and `gated` (*cells, genes). Before `initialize` all
    gates equal `n_top_genes / n_genes`. With a small temperature it keeps the genes that scanpy's
    `pp.highly_variable_genes` keeps.

    Args:
        config: Numbers of genes, flavor and softness.
        rngs: Not used: nothing is drawn.

    Example:
        >>> selection = GeneSelection(GeneSelectionConfig(n_genes=4, n_top_genes=1))
        >>> scaled = jnp.ones((3, 4))
        >>> selection.apply({"scaled": scaled}, {}, None)[0]["gene_gate"].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    def __init__(self, config: GeneSelectionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.logits = kind(jnp.zeros(config.n_genes))
        self.softness = Softness(config.temperature)

    def compute(self, scaled: Float[Array, "*cells genes"]) -> SelectedGenes:
        """Return the gates and the expression that passes them."""
        gate = soft_ops.top_k_mask(self.logits[...], self.config.n_top_genes, softness=self.softness())
        return SelectedGenes(gate, scaled * gate)

    def initialize(
        self,
        normalized: Float[Array, "cells genes"],
        counts: Float[Array, "cells genes"] | None = None,
    ) -> None:
        """Set the logits to the standardized scores of the genes.

        The variance ratios of `seurat_v3` enter by their logarithm, as the dispersions of `seurat` do.

        Args:
            normalized: log(1 + normalized counts); scored by flavor `seurat`.
            counts: Raw counts; scored by flavor `seurat_v3`, which needs them.

        Raises:
            ContractError: The flavor is `seurat_v3` and `counts` is missing.
        """
        if self.config.flavor == "seurat":
            scores = seurat_dispersion(normalized)
        elif counts is None:
            raise ContractError(
                'GeneSelection with flavor="seurat_v3" is initialized from raw counts: give counts '
                '(cells, genes) too, or use flavor="seurat"'
            )
        else:
            scores = jnp.log(seurat_v3_variance(counts, jnp.asarray(seurat_v3_trend(counts))))
        n_scored = int(jnp.isfinite(scores).sum())
        if n_scored < self.config.n_top_genes:
            warnings.warn(
                f"GeneSelection: only {n_scored} genes vary, fewer than n_top_genes={self.config.n_top_genes}; "
                "genes without variance fill up the rest",
                stacklevel=2,
            )
        self.logits[...] = standardized_scores(scores)
