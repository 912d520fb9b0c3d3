"""Soft selection of highly variable genes.

Hard: score each gene by how much more it varies than genes of like abundance, and keep the k best. Relaxed: each gene
passes through a gate

    gate = sigmoid((logit - b) / temperature),   b such that sum(gate) = k

where the logits start at the scores (`gene_scores`). As temperature -> 0 the gate is 1 for the k best genes and 0 for
the rest: the genes that scanpy takes. Tied genes share their gates equally, where the hard rule takes all of them
(`seurat`, `cell_ranger`) or those that its sort happens to put first (`seurat_v3`, `pearson_residuals`).

Over several batches, genes are scored in each and the orders are merged (`gene_ranking`).

References:
    Wolf, Angerer and Theis, SCANPY, Genome Biology 2018 (`pp.highly_variable_genes`).
    `gene_scores` and `gene_ranking` name those of the scores and of the merging.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops
from diffbio.core.errors import ConfigError, ContractError
from diffbio.operators.normalization.gene_ranking import (
    ON_LOGARITHMS,
    Flavor,
    normal_scores,
    ranked_over_batches,
    score_genes,
    score_genes_by_batch,
)

_NORMAL_IQR = 1.349  # interquartile range of a normal distribution of standard deviation 1


@dataclass(frozen=True, kw_only=True)
class GeneSelectionConfig(OperatorConfig):
    """How many genes to keep, and how softly.

    Args:
        n_genes: Number of genes.
        n_top_genes: Number of genes to keep: the gates sum to it; at most `n_genes`.
        flavor: The score. `seurat` and `cell_ranger` rank by dispersion of log-normalized data among genes of like
            mean; `seurat_v3` by variance of counts over the variance that their mean predicts; `pearson_residuals` by
            the variance of the residuals of counts.
        temperature: Softness of the gate, above 0, in robust standard deviations of the scores: genes whose
            scores differ by much less are hardly told apart.
        learnable: Whether training changes the logits.
    """

    n_genes: Annotated[int, Ge(1)]
    n_top_genes: Annotated[int, Ge(1)]
    flavor: Flavor = "seurat"
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
        normalized: Float[Array, "cells genes"] | None = None,
        counts: Float[Array, "cells genes"] | None = None,
        batch_labels: Int[Array, " cells"] | None = None,
    ) -> None:
        """Set the logits to the standardized scores of the genes, or to the normal scores of their merged order.

        Args:
            normalized: log(1 + normalized counts); scored by `seurat` and `cell_ranger`, which need them.
            counts: Raw counts; scored by `seurat_v3` and `pearson_residuals`, which need them.
            batch_labels: Batch of each cell, an integer from 0; a cell with another label, by convention -1, is left
                out. Where there are none, all cells are of one batch.

        Raises:
            ContractError: What the flavor scores is missing, or there is not one label per cell.
            DataError: No batch has two cells.
        """
        on_logarithms = self.config.flavor in ON_LOGARITHMS
        expression = normalized if on_logarithms else counts
        if expression is None:
            wanted = "log-normalized expression: give normalized" if on_logarithms else "raw counts: give counts"
            raise ContractError(
                f'GeneSelection with flavor="{self.config.flavor}" is initialized from {wanted} (cells, genes) too, or '
                "use another flavor"
            )
        if batch_labels is None or not (batch_labels >= 0).any():
            scores = score_genes(expression, flavor=self.config.flavor)
            logits, scored = standardized_scores(scores), jnp.isfinite(scores)
        else:
            by_batch = score_genes_by_batch(expression, batch_labels, flavor=self.config.flavor)
            ranked = ranked_over_batches(by_batch, self.config.n_top_genes, flavor=self.config.flavor)
            logits, scored = normal_scores(ranked), np.isfinite(by_batch).any(0)
        n_scored = int(scored.sum())
        if n_scored < self.config.n_top_genes:
            warnings.warn(
                f"GeneSelection: only {n_scored} genes vary, fewer than n_top_genes={self.config.n_top_genes}; "
                "genes without variance fill up the rest",
                stacklevel=2,
            )
        self.logits[...] = logits
