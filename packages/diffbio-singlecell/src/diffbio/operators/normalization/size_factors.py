"""Size factors by the median of ratios, and the centered log-ratio: depth measured where composition does not reach it.

A few abundant genes that change make the sum of a cell's counts a poor measure of its depth. Both transforms compare
gene by gene with a reference instead:

    size factor     s = exp(median over genes of (log x_g - r_g)),    r_g = mean over cells of log x_g
    log-ratio       log(1 + x / exp(m)),                              m = mean over genes, or cells, of log(1 + x)

The median of log-ratios is hard: one or two genes decide, and only they have a gradient. Relaxed, it is the threshold
that half of the genes pass softly (`soft_ops.median`), and genes within about the softness share the gradient. As
softness -> 0 the size factors are DESeq2's. The centered log-ratio is smooth as it is.

References:
    Anders and Huber, Differential expression analysis for sequence count data, Genome Biology 2010.
    Love, Huber and Anders, Moderated estimation of fold change and dispersion for RNA-seq data with DESeq2, Genome
    Biology 2014.
    Aitchison, The statistical analysis of compositional data, 1986.
    Stoeckius et al., Simultaneous epitope and transcriptome measurement in single cells, Nature Methods 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops
from diffbio.core.errors import ContractError
from diffbio.core.soft_ops.modes import Mode
from diffbio.operators.normalization.library_size import NormalizedCounts

Reference = Literal["ratio", "poscounts"]


@dataclass(frozen=True, kw_only=True)
class MedianOfRatiosNormalizationConfig(OperatorConfig):
    """What cells are compared with, and how softly.

    Args:
        n_genes: Number of genes.
        reference: `ratio` is the geometric mean of the genes that every cell expresses, as is usual for bulk samples.
            `poscounts` is the root of the product of the positive counts, for data in which every gene has zeros.
        temperature: Softness of the median, above 0, in nats of the log-ratios.
    """

    n_genes: Annotated[int, Ge(1)]
    reference: Reference = "ratio"
    temperature: Annotated[float, Gt(0)] = 0.01


@dataclass(frozen=True, kw_only=True)
class CenteredLogRatioConfig(OperatorConfig):
    """Over what the logarithms are centered, and where.

    Args:
        n_genes: Number of genes, or of proteins.
        margin: `features` centers each gene over the cells that the operator was initialized on; `cells` centers each
            cell over its own genes, and needs no `initialize`.
        flavor: `seurat` is log(1 + x / exp(m)), which is at least 0 and keeps zeros; `stoeckius` is log(1 + x) - m.
    """

    n_genes: Annotated[int, Ge(1)]
    margin: Literal["features", "cells"] = "features"
    flavor: Literal["seurat", "stoeckius"] = "seurat"


class CenteredCounts(NamedTuple):
    """Counts as centered log-ratios.

    Attributes:
        normalized: Natural logarithm; 0 where a count is 0 (`seurat`) or at the geometric mean (`stoeckius`).
    """

    normalized: Float[Array, "*cells genes"]


def log_geometric_means(
    counts: Float[Array, "cells genes"], *, reference: Reference = "ratio"
) -> Float[Array, " genes"]:
    """Return the mean over cells of each gene's log count, the reference of the median of ratios.

    Args:
        counts: Counts or abundances, at least 0, in any unit.
        reference: `ratio`: a gene with a zero in any cell is of no use. `poscounts`: zeros add nothing to the mean,
            which all cells still divide; a gene is of use if the mean is above 0.

    Returns:
        Nats (genes,); -inf for a gene that is of no use.

    References:
        Anders and Huber 2010; pydeseq2 `fit_size_factors(fit_type=...)`.

    Example:
        >>> counts = jnp.array([[1.0, 0.0, 4.0], [9.0, 4.0, 4.0]])
        >>> [round(mean, 3) for mean in jnp.exp(log_geometric_means(counts)).tolist()]
        [3.0, 0.0, 4.0]
        >>> [round(mean, 3) for mean in jnp.exp(log_geometric_means(counts, reference="poscounts")).tolist()]
        [3.0, 2.0, 4.0]
    """
    present = counts > 0
    logs = jnp.where(present, jnp.log(jnp.where(present, counts, 1.0)), 0.0)
    mean = logs.mean(0)
    mean = mean + (logs - mean).mean(0)  # the second pass takes back the rounding of a long float32 sum
    return jnp.where(present.all(0) if reference == "ratio" else mean > 0, mean, -jnp.inf)


def median_of_ratios(
    counts: Float[Array, "*cells genes"],
    log_reference: Float[Array, " genes"],
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
) -> Float[Array, "*cells"]:
    """Return exp(median over genes of log(counts) - log_reference) of each cell.

    Args:
        counts: Counts or abundances, at least 0. A zero is left out of the median of its cell.
        log_reference: Log count of each gene in the reference, from `log_geometric_means`; -inf leaves a gene out.
        softness: Above 0, in nats.
        mode: How the median is relaxed (`soft_ops.median`); `hard` is the median itself.

    Returns:
        Size factors (*cells,), above 0; 1 for a cell without a count in the genes of the reference. Every gene with
        a log-ratio within about the softness of the median has a gradient.

    References:
        Anders and Huber 2010, equation 5.

    Example:
        >>> counts = jnp.array([[2.0, 4.0, 900.0], [0.0, 0.0, 0.0]])
        >>> [round(factor, 3) for factor in median_of_ratios(counts, jnp.zeros(3)).tolist()]
        [4.0, 1.0]
    """
    compared = (counts > 0) & jnp.isfinite(log_reference)
    logs = jnp.log(jnp.where(compared, counts, 1.0))
    ratios = logs - jnp.where(jnp.isfinite(log_reference), log_reference, 0.0)
    return jnp.exp(soft_ops.median(ratios, -1, softness=softness, mode=mode, where=compared))


def centered_log_ratio(
    counts: Float[Array, "*cells genes"],
    log_means: Float[Array, " genes"] | None = None,
    *,
    flavor: Literal["seurat", "stoeckius"] = "seurat",
) -> Float[Array, "*cells genes"]:
    """Return log(1 + counts / exp(m)), or log(1 + counts) - m, with m the mean of log(1 + counts).

    Args:
        counts: At least 0.
        log_means: m of each gene (genes,); by default each cell's own mean over its genes.
        flavor: `seurat` for the first form, `stoeckius` for the second.

    Returns:
        The shape of `counts`, in nats; at least 0 for `seurat`.

    References:
        muon `prot.pp.clr(axis=0 or 1, flavor=...)`; Seurat `NormalizeData(normalization.method="CLR")`.

    Example:
        >>> counts = jnp.array([0.0, 3.0])
        >>> [round(ratio, 3) for ratio in centered_log_ratio(counts).tolist()]
        [0.0, 0.916]
        >>> [round(ratio, 3) for ratio in centered_log_ratio(counts, flavor="stoeckius").tolist()]
        [-0.693, 0.693]
    """
    logs = jnp.log1p(counts)
    center = logs.mean(-1, keepdims=True) if log_means is None else log_means
    return jnp.log1p(counts * jnp.exp(-center)) if flavor == "seurat" else logs - center


class MedianOfRatiosNormalization(Operator[MedianOfRatiosNormalizationConfig]):
    """Divides counts by size factors that compare each cell, gene by gene, with the cells of `initialize`.

    Reads `counts` (*cells, genes); writes `normalized` (*cells, genes) = log(1 + counts / size factor) and
    `size_factors` (*cells,). Acts on each cell alone, so new samples are treated as the old. In the limit of a small
    temperature the size factors are those of DESeq2. Before `initialize` the reference is 1 for every gene.

    Args:
        config: Number of genes, reference and softness.
        rngs: Not used: nothing is drawn.

    Example:
        >>> counts = jnp.array([[1.0, 2.0, 4.0], [4.0, 18.0, 900.0]])
        >>> operator = MedianOfRatiosNormalization(MedianOfRatiosNormalizationConfig(n_genes=3))
        >>> operator.initialize(counts)
        >>> [round(factor, 3) for factor in operator.apply({"counts": counts}, {}, None)[0]["size_factors"].tolist()]
        [0.333, 3.0]
    """

    def __init__(self, config: MedianOfRatiosNormalizationConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.log_reference = nnx.Variable(jnp.zeros(config.n_genes))
        self.softness = Softness(config.temperature)

    def compute(self, counts: Float[Array, "*cells genes"]) -> NormalizedCounts:
        """Return log-normalized expression and size factors."""
        size_factors = median_of_ratios(counts, self.log_reference[...], softness=self.softness())
        inverse = jnp.exp(-jnp.log(size_factors))  # the derivative of a quotient would square a tiny divisor
        return NormalizedCounts(jnp.log1p(counts * inverse[..., None]), size_factors)

    def initialize(self, counts: Float[Array, "cells genes"]) -> None:
        """Set the reference to the geometric means of these cells.

        For `poscounts` it is scaled so that the size factors of these cells have the geometric mean 1.

        Raises:
            ContractError: No gene can be compared.
        """
        reference = log_geometric_means(counts, reference=self.config.reference)
        if not jnp.isfinite(reference).any():
            remedy = {
                "ratio": 'each has a zero in some cell; use reference="poscounts", or sum the cells of each sample',
                "poscounts": "none has a count above 1; give raw counts",
            }[self.config.reference]
            raise ContractError(
                f"MedianOfRatiosNormalization finds no gene to compare {counts.shape[0]} cells by: {remedy}"
            )
        if self.config.reference == "poscounts":
            compared = ((counts > 0) & jnp.isfinite(reference)).any(-1)
            logs = jnp.log(median_of_ratios(counts, reference, mode="hard"))
            reference = reference + logs.mean(where=compared)
        self.log_reference[...] = reference


class CenteredLogRatio(Operator[CenteredLogRatioConfig]):
    """Centered log-ratios of counts, for surface proteins and other small panels.

    Reads `counts` (*cells, genes); writes `normalized` (*cells, genes). With the margin `features`, `initialize` sets
    the mean log count of each gene, and new cells are centered by it; before, the counts are only logged.

    Args:
        config: Number of genes, margin and flavor.
        rngs: Not used: nothing is drawn.

    Example:
        >>> operator = CenteredLogRatio(CenteredLogRatioConfig(n_genes=2, margin="cells", flavor="stoeckius"))
        >>> ratios = operator.apply({"counts": jnp.array([0.0, 3.0])}, {}, None)[0]["normalized"]
        >>> [round(ratio, 3) for ratio in ratios.tolist()]
        [-0.693, 0.693]
    """

    def __init__(self, config: CenteredLogRatioConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.log_means = nnx.Variable(jnp.zeros(config.n_genes))

    def compute(self, counts: Float[Array, "*cells genes"]) -> CenteredCounts:
        """Return the centered log-ratios."""
        log_means = self.log_means[...] if self.config.margin == "features" else None
        return CenteredCounts(centered_log_ratio(counts, log_means, flavor=self.config.flavor))

    def initialize(self, counts: Float[Array, "cells genes"]) -> None:
        """Set the mean of log(1 + counts) of each gene; used by the margin `features` only."""
        logs = jnp.log1p(counts)
        mean = logs.mean(0)
        self.log_means[...] = mean + (logs - mean).mean(0)
