"""Doublet scores: how likely a droplet held two cells, by comparison with simulated doublets (Scrublet).

Doublets are made by adding the counts of random pairs of cells. Observed cells and doublets are projected on the
principal components of the observed ones, and a cell of whose k nearest neighbours n_d are simulated gets the score

    q = (n_d + 1) / (k + 2)        score = (q rho / r) / (1 - rho - q (1 - rho - rho / r))

the posterior probability of a doublet, with rho the expected rate and r simulated doublets per cell. The hard parts
are the k nearest and the threshold. Relaxed, n_d = sum_j w_j over the simulated, where the weights w of the cells near
the k-th neighbour's distance fall smoothly from 1 to 0 and always sum to k, and the call is
sigmoid((score - threshold) / tau). As both softnesses -> 0 this is Scrublet.

References:
    Wolock, Lopez and Klein, Scrublet, Cell Systems 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Lt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs, soft_ops
from diffbio.core.errors import ConfigError, DataError
from diffbio.operators.normalization.gene_scores import seurat_dispersion
from diffbio.operators.normalization.library_size import normalize_library_size
from diffbio.operators.normalization.randomized_pca import randomized_principal_components
from diffbio.operators.singlecell.bimodal_threshold import bimodal_threshold
from diffbio.operators.singlecell.doublet_simulation import (
    ScoringSpace,
    doublet_pairs,
    embed_cells,
    embed_doublets,
    scaled_to_total,
)
from diffbio.operators.singlecell.neighbors import nearest_neighbors


@dataclass(frozen=True, kw_only=True)
class DoubletScorerConfig(OperatorConfig):
    """Sizes, simulation, neighbourhood and expected rate.

    Args:
        n_genes: Number of genes.
        n_top_genes: Most variable genes that count; all where there are fewer.
        min_counts: Count that a gene must have ...
        min_cells: ... in at least so many cells, to count at all.
        n_components: Principal components, at most the genes that count.
        target_sum: Total count to which each cell is scaled.
        log_transform: Whether log(1 + x) follows; Scrublet does without.
        doublet_ratio: Simulated doublets per cell.
        n_neighbors: Observed neighbours of a cell that count, as long as there are no doublets among them; `None` for
            half the square root of the number of cells.
        expected_doublet_rate: Share of doublets among the droplets, below 1; about 0.008 per thousand cells on 10x.
        temperature: Softness of the neighbourhood, as a share of the distance to its last neighbour.
        threshold_temperature: Softness of the call, in units of the score.

    Raises:
        ConfigError: A value is out of range.
    """

    n_genes: Annotated[int, Ge(1)]
    n_top_genes: Annotated[int, Ge(1)] = 2000
    min_counts: Annotated[float, Ge(0)] = 3.0
    min_cells: Annotated[int, Ge(0)] = 3
    n_components: Annotated[int, Ge(1)] = 20
    target_sum: Annotated[float, Gt(0)] = 1e4
    log_transform: bool = True
    doublet_ratio: Annotated[float, Gt(0)] = 2.0
    n_neighbors: Annotated[int, Ge(1)] | None = None
    expected_doublet_rate: Annotated[float, Gt(0), Lt(1)] = 0.06
    temperature: Annotated[float, Gt(0)] = 0.02
    threshold_temperature: Annotated[float, Gt(0)] = 0.02

    def __post_init__(self) -> None:
        """Check each field, then that there are no more components than genes that count."""
        super().__post_init__()
        if self.n_components > min(self.n_top_genes, self.n_genes):
            raise ConfigError(
                f"DoubletScorerConfig.n_components is {self.n_components}, but "
                f"{min(self.n_top_genes, self.n_genes)} genes count; choose fewer components or more genes"
            )


class DoubletScores(NamedTuple):
    """How likely each droplet is a doublet.

    Attributes:
        doublet_scores: Posterior probability of a doublet of unlike cells, from 0 to 1 (cells,).
        predicted_doublets: How far the score is above the threshold, from 0 to 1 (cells,).
        simulated_doublet_scores: Scores of the simulated doublets (doublets,), whose histogram shows the threshold.
    """

    doublet_scores: Float[Array, " cells"]
    predicted_doublets: Float[Array, " cells"]
    simulated_doublet_scores: Float[Array, " doublets"]


@partial(jax.jit, static_argnames="n_neighbors")
def doublet_scores(
    observed: Float[Array, "cells features"],
    simulated: Float[Array, "doublets features"],
    n_neighbors: int,
    *,
    expected_doublet_rate: ArrayLike,
    softness: ArrayLike,
) -> Float[Array, " all"]:
    """Return the scores of observed cells, then those of simulated doublets, from their neighbours.

    Args:
        observed: Coordinates of the cells (cells, features).
        simulated: Coordinates of the doublets, in the same space (doublets, features).
        n_neighbors: How many nearest of all count, below cells + doublets.
        expected_doublet_rate: rho, between 0 and 1.
        softness: Above 0, as a share of the distance to the last neighbour.

    Returns:
        Scores (cells + doublets,) between 0 and 1. Time grows as (cells + doublets)^2 x features; memory as (cells +
        doublets) x neighbors.

    Raises:
        ContractError: There are too few cells for so many neighbours.

    References:
        Wolock, Lopez and Klein, Scrublet, Cell Systems 2019.

    Example:
        >>> observed, simulated = jnp.array([[0.0], [0.1], [0.2], [5.0]]), jnp.array([[5.1], [5.2], [0.3], [4.9]])
        >>> scores = doublet_scores(observed, simulated, 2, expected_doublet_rate=0.1, softness=1e-3)
        >>> [round(score, 2) for score in scores[:4].tolist()]
        [0.04, 0.04, 0.1, 0.25]
    """
    points = jnp.concatenate([observed, simulated])
    found = nearest_neighbors(points, min(2 * n_neighbors, len(points) - 1))
    last = found.distances[:, n_neighbors - 1 : n_neighbors]
    width = softness * jnp.where(last > 0, last, 1.0)
    weights = soft_ops.top_k_mask(-found.distances, n_neighbors, softness=width)
    doublets = jnp.sum(weights * (found.indices >= len(observed)), axis=1)
    share = (doublets + 1) / (n_neighbors + 2)
    rate = expected_doublet_rate
    prior = rate * len(observed) / len(simulated)
    return share * prior / (1 - rate - share * (1 - rate - prior))


class DoubletScorer(Operator[DoubletScorerConfig]):
    """Scores droplets by how many simulated doublets are near them, and calls those above a threshold.

    Reads `counts` (cells, genes), raw; writes `doublet_scores` (cells,), `predicted_doublets` (cells,) and
    `simulated_doublet_scores` (doublets,). Each call simulates doublets by its `key`. `initialize` chooses the genes,
    fits the components and sets the threshold, a parameter, to the valley between the two modes of the simulated
    scores, or 0.5 where there is none. Score each sample by itself: doublets hold cells of one sample.

    Args:
        config: Sizes, simulation, neighbourhood and expected rate.
        rngs: Source of the first components.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> config = DoubletScorerConfig(n_genes=3, min_cells=1, n_components=2, n_neighbors=2)
        >>> scorer = DoubletScorer(config, rngs=nnx.Rngs(0))
        >>> counts = jnp.array([[9.0, 1.0, 0.0]] * 6 + [[0.0, 3.0, 9.0]] * 5 + [[9.0, 2.0, 9.0]])
        >>> scorer.initialize(counts, key=jax.random.key(0))
        >>> data, _, _ = scorer.apply({"counts": counts}, {}, None, jax.random.key(1))
        >>> int(data["doublet_scores"].argmax())
        11
    """

    def __init__(self, config: DoubletScorerConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        n_top = min(config.n_top_genes, config.n_genes)
        drawn = jax.random.normal(require_rngs(self, rngs).params(), (n_top, config.n_components))
        self.genes = nnx.Variable(jnp.arange(n_top))
        self.mean = nnx.Variable(jnp.zeros(n_top))
        self.gene_weights = nnx.Variable(jnp.ones(n_top))
        self.components = nnx.Variable(jnp.linalg.qr(drawn)[0])
        self.threshold = nnx.Param(jnp.float32(0.5))
        self.softness = Softness(config.temperature)
        self.threshold_softness = Softness(config.threshold_temperature)

    def initialize(self, counts: Float[Array, "cells genes"], *, key: Array) -> None:
        """Choose genes, fit components and set the threshold from these cells.

        Args:
            counts: Raw counts (cells, genes).
            key: Random key of the search for components and of the simulated doublets.

        Raises:
            ContractError: There are fewer cells than components, or than neighbours.
            DataError: Fewer genes than components are expressed in enough cells.
        """
        config = self.config
        pca_key, key = jax.random.split(key)
        expressed = (counts >= config.min_counts).sum(0) >= config.min_cells
        passing = jnp.flatnonzero(expressed)
        if len(passing) < config.n_components:
            raise DataError(
                f"{len(passing)} genes have {config.min_counts} counts in {config.min_cells} cells, fewer than the "
                f"{config.n_components} components; give raw counts, or lower min_counts, min_cells or n_components"
            )
        log_normalized = normalize_library_size(counts, target_sum=config.target_sum).normalized
        dispersion = seurat_dispersion(log_normalized[:, passing])
        dispersion = jnp.where(jnp.isfinite(dispersion), dispersion, jnp.finfo(dispersion.dtype).min)
        dispersion = jnp.full(counts.shape[1], -jnp.inf, dispersion.dtype).at[passing].set(dispersion)
        self.genes[...] = jnp.argsort(dispersion, descending=True)[: self.genes[...].size]
        normalized = scaled_to_total(
            counts[:, self.genes[...]], counts.sum(1), config.target_sum, log_transform=config.log_transform
        )
        spread = normalized.std(0)
        counted = (spread > 0) & expressed[self.genes[...]]
        self.mean[...] = normalized.mean(0)
        self.gene_weights[...] = jnp.where(counted, 1 / jnp.where(counted, spread, 1.0), 0.0)
        scaled = (normalized - self.mean[...]) * self.gene_weights[...]
        found = randomized_principal_components(scaled, config.n_components, key=pca_key)
        self.components[...] = found.components
        simulated = self._scores(counts, key)[1]
        self.threshold[...] = bimodal_threshold(simulated, 0.5)

    def compute(self, counts: Float[Array, "cells genes"], *, key: Array) -> DoubletScores:
        """Return scores and soft calls."""
        observed, simulated = self._scores(counts, key)
        called = soft_ops.greater(observed, self.threshold[...], softness=self.threshold_softness())
        return DoubletScores(observed, called, simulated)

    def _scores(self, counts: Array, key: Array) -> tuple[Array, Array]:
        """Return the scores of the cells and of the doublets that are made of them."""
        config, n_cells = self.config, len(counts)
        pairs = doublet_pairs(n_cells, max(1, round(config.doublet_ratio * n_cells)), key=key)
        totals, chosen = counts.sum(1), counts[:, self.genes[...]]
        space = ScoringSpace(self.mean[...], self.gene_weights[...], self.components[...], config.target_sum)
        own = config.n_neighbors or max(1, round(0.5 * math.sqrt(n_cells)))
        scores = doublet_scores(
            embed_cells(chosen, totals, space, log_transform=config.log_transform),
            embed_doublets(chosen, totals, pairs, space, log_transform=config.log_transform),
            round(own * (1 + len(pairs) / n_cells)),
            expected_doublet_rate=config.expected_doublet_rate,
            softness=self.softness(),
        )
        return scores[:n_cells], scores[n_cells:]
