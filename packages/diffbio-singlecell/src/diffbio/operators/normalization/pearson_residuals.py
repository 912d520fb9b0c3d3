"""Analytic Pearson residuals: counts in standard deviations of the noise that sequencing alone would give.

If genes had the same share of every cell, a count would be negative binomial with the mean

    mu = library of the cell * share of the gene,    variance = mu + mu^2 / theta

and what is left is biology: residual = (count - mu) / sqrt(mu + mu^2 / theta), clipped at +-sqrt(number of cells).
Nothing is relaxed but nothing needs to be: the residuals are smooth in counts and in the inverse overdispersion theta,
which may be learned. The clip is hard on purpose, as an outlier should have no gradient.

References:
    Lause, Berens and Kobak, Analytic Pearson residuals for normalization of single-cell RNA-seq UMI data, Genome
    Biology 2021.
    Hafemeister and Satija, Normalization and variance stabilization of single-cell RNA-seq data using regularized
    negative binomial regression, Genome Biology 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Float, ScalarLike

from diffbio.core import Operator, OperatorConfig
from diffbio.core.errors import DataError

# An expected count below this is none: its residual is at most 1e-10 where the count is 0 as well, and where it is not,
# powers of the expectation in the gradient would leave float32.
_NOTHING_EXPECTED = 1e-20


@dataclass(frozen=True, kw_only=True)
class PearsonResidualsConfig(OperatorConfig):
    """The noise that is expected, and where residuals are clipped.

    Args:
        n_genes: Number of genes.
        theta: Inverse overdispersion that all genes share, above 0; starting value if learnable. Large values tend
            to Poisson noise.
        max_residual: Largest absolute residual, above 0; `None` is the square root of the number of cells that the
            operator was initialized on.
        learnable: Whether training changes theta.
    """

    n_genes: Annotated[int, Ge(1)]
    theta: Annotated[float, Gt(0)] = 100.0
    max_residual: Annotated[float, Gt(0)] | None = None
    learnable: bool = False


class Residuals(NamedTuple):
    """Counts as residuals of the model without biology.

    Attributes:
        pearson_residuals: In standard deviations of the expected noise, clipped; 0 where nothing is expected.
    """

    pearson_residuals: Float[Array, "*cells genes"]


def gene_shares(counts: Float[Array, "cells genes"]) -> Float[Array, " genes"]:
    """Return each gene's share of all counts.

    Args:
        counts: At least 0.

    Returns:
        Shares that sum to 1 (genes,); all 0 where there are no counts.

    Example:
        >>> gene_shares(jnp.array([[1.0, 3.0], [0.0, 4.0]])).tolist()
        [0.125, 0.875]
    """
    totals = counts.sum(0)
    everything = totals.sum()
    return totals / jnp.where(everything > 0, everything, 1.0)


def pearson_residuals(
    counts: Float[Array, "*cells genes"],
    shares: Float[Array, " genes"],
    *,
    theta: ScalarLike = 100.0,
    max_residual: float | Float[Array, ""] = math.inf,
) -> Float[Array, "*cells genes"]:
    """Return (counts - mu) / sqrt(mu + mu^2 / theta) with mu = library of the cell * share of the gene, clipped.

    Args:
        counts: Raw counts, at least 0.
        shares: Share of each gene in all counts, from `gene_shares`.
        theta: Inverse overdispersion, above 0.
        max_residual: Largest absolute result, above 0; infinite clips nothing. A clipped value has no gradient.

    Returns:
        The shape of `counts`, in standard deviations; 0 for a gene without share and for a cell without counts.

    References:
        Lause et al. 2021; scanpy `experimental.pp.normalize_pearson_residuals`.

    Example:
        >>> counts = jnp.array([[4.0, 0.0], [0.0, 4.0]])
        >>> residuals = pearson_residuals(counts, gene_shares(counts), theta=2.0)
        >>> [round(residual, 3) for residual in residuals[0].tolist()]
        [1.0, -1.0]
    """
    library = counts.sum(-1, keepdims=True)
    mean = library * shares
    expected = mean > _NOTHING_EXPECTED
    mean = jnp.where(expected, mean, 1.0)
    # as two roots, so that no square of a large mean is formed
    residuals = (counts - mean) / jnp.sqrt(mean) / jnp.sqrt(1.0 + mean / theta)
    return jnp.where(expected, jnp.clip(residuals, -max_residual, max_residual), 0.0)


class PearsonResiduals(Operator[PearsonResidualsConfig]):
    """Turns counts into analytic Pearson residuals, in the place of normalization, logarithm and scaling.

    Reads `counts` (*cells, genes); writes `pearson_residuals` (*cells, genes). After `initialize` on the same cells it
    equals scanpy's `experimental.pp.normalize_pearson_residuals`; new cells are compared with the gene shares of
    those. Before `initialize` every gene has the same share, and nothing is clipped unless the configuration says so.
    A learned theta is stored as its logarithm and stays positive.

    Args:
        config: Number of genes, overdispersion and clip.
        rngs: Not used: nothing is drawn.

    Example:
        >>> counts = jnp.array([[4.0, 0.0], [0.0, 4.0]])
        >>> operator = PearsonResiduals(PearsonResidualsConfig(n_genes=2, theta=2.0))
        >>> operator.initialize(counts)
        >>> data, _, _ = operator.apply({"counts": counts}, {}, None)
        >>> [round(residual, 3) for residual in data["pearson_residuals"][0].tolist()]
        [1.0, -1.0]
    """

    def __init__(self, config: PearsonResidualsConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.log_theta = kind(jnp.log(jnp.float32(config.theta)))
        self.shares = nnx.Variable(jnp.full(config.n_genes, 1.0 / config.n_genes))
        self.max_residual = nnx.Variable(jnp.float32(math.inf if config.max_residual is None else config.max_residual))

    def compute(self, counts: Float[Array, "*cells genes"]) -> Residuals:
        """Return the residuals of the cells."""
        return Residuals(
            pearson_residuals(
                counts, self.shares[...], theta=jnp.exp(self.log_theta[...]), max_residual=self.max_residual[...]
            )
        )

    def initialize(self, counts: Float[Array, "cells genes"]) -> None:
        """Set the share of each gene, and the clip to sqrt(cells) unless the configuration gives one.

        Raises:
            DataError: There are no counts at all.
        """
        shares = gene_shares(counts)
        if not float(shares.sum()) > 0:
            raise DataError(
                f"PearsonResiduals is initialized from {counts.shape[0]} cells without any count; give raw counts"
            )
        self.shares[...] = shares
        if self.config.max_residual is None:
            self.max_residual[...] = jnp.sqrt(jnp.float32(counts.shape[0]))
