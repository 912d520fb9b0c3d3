"""The conformance example of the doublet scorer."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.singlecell.doublet_simulation import doublet_pairs
from diffbio.operators.singlecell.doublets import DoubletScorer, DoubletScorerConfig
from diffbio.testing import Example, Limit


def doublet_scorer() -> Example:
    """Return two types of cells, one of them added to the other; the limit counts the hard neighbours.

    Which cells are paired depends on their rows, so cells can't be permuted.
    """
    random = np.random.default_rng(0)
    rates = np.repeat(random.gamma(1.0, 20.0, (2, 8)), 7, axis=0)
    counts = random.poisson(rates).astype(np.float32)
    counts[6] += counts[7]
    config = DoubletScorerConfig(
        n_genes=8,
        n_top_genes=6,
        min_counts=2.0,
        min_cells=2,
        n_components=3,
        n_neighbors=2,
        expected_doublet_rate=0.1,
        temperature=0.3,
        threshold_temperature=0.1,
    )
    operator = DoubletScorer(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(counts), key=jax.random.key(0))
    operator.threshold[...] = jnp.float32(0.15)
    genes, mean, weights, components = (
        np.asarray(buffer[...])
        for buffer in (operator.genes, operator.mean, operator.gene_weights, operator.components)
    )

    def sharpen(scorer: DoubletScorer) -> DoubletScorer:
        scorer.softness.set(1e-6)
        scorer.threshold_softness.set(1e-6)
        return scorer

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        counts = np.asarray(data["counts"], np.float64)
        pairs = np.asarray(doublet_pairs(14, 28, key=jax.random.key(0)))  # the key of the laws
        droplets = np.concatenate([counts, counts[pairs].sum(axis=1)])
        normalized = np.log1p(1e4 * droplets / droplets.sum(axis=1, keepdims=True))[:, genes]
        points = (normalized - mean) * weights @ components
        squared = ((points[:, None] - points) ** 2).sum(axis=-1)
        nearest = squared.argsort(axis=1)[:, 1:7]  # 2 x (1 + 2) neighbours; the first is the cell itself
        share = ((nearest >= 14).sum(axis=1) + 1) / (6 + 2)
        scores = share * 0.05 / (0.9 - share * (0.9 - 0.05))
        return {
            "doublet_scores": scores[:14],
            "predicted_doublets": scores[:14] > 0.15,
            "simulated_doublet_scores": scores[14:],
        }

    return Example(operator, {"counts": counts}, limit=Limit(sharpen, reference, atol=1e-4))
