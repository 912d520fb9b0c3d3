"""The conformance example of marker ranking."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.singlecell.marker_ranking import MarkerRanking, MarkerRankingConfig
from diffbio.testing import Example, Limit


def marker_ranking() -> Example:
    """Return nine cells in three soft clusters; the limit has the ranks of SciPy."""
    random = np.random.default_rng(0)
    data = {
        "normalized": random.gamma(2.0, 0.5, (9, 4)).astype(np.float32),
        "cluster_assignments": random.dirichlet(np.ones(3), 9).astype(np.float32),
    }
    operator = MarkerRanking(MarkerRankingConfig(temperature=0.3, learnable_temperature=True))

    def sharpen(ranking: MarkerRanking) -> MarkerRanking:
        ranking.softness.set(1e-4)
        return ranking

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        from scipy.stats import norm, rankdata

        expression, weights = (np.asarray(data[key], np.float64) for key in ("normalized", "cluster_assignments"))
        ranks = rankdata(expression, axis=0)
        sizes = weights.sum(axis=0)[:, None]
        z_scores = np.sqrt(8) * np.corrcoef(weights.T, ranks.T)[:3, 3:]
        means = weights.T @ expression / sizes, (1 - weights).T @ expression / (9 - sizes)
        return {
            "marker_auroc": 0.5 + weights.T @ (ranks - 5) / (sizes * (9 - sizes)),
            "marker_z_scores": z_scores,
            "marker_log_p_values": np.log(2 * norm.sf(np.abs(z_scores))),
            "marker_log2_fold_changes": np.log2(np.expm1(means[0]) / np.expm1(means[1])),
        }

    return Example(operator, data, limit=Limit(sharpen, reference, atol=1e-4), symmetric=("cells", "genes", "clusters"))
