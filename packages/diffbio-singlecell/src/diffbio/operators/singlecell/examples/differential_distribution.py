"""The conformance example of differential distribution."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.singlecell.differential_distribution import (
    DifferentialDistribution,
    DifferentialDistributionConfig,
)
from diffbio.testing import Example, Limit


def differential_distribution() -> Example:
    """Return eleven cells shared by two conditions, of unlike weight; the limit is SciPy's Wasserstein distance."""
    random = np.random.default_rng(0)
    data = {
        "normalized": random.gamma(2.0, 0.5, (11, 3)).astype(np.float32),
        "condition": random.uniform(0.1, 0.9, 11).astype(np.float32),
        "cell_weight": random.uniform(0.5, 1.5, 11).astype(np.float32),
    }
    operator = DifferentialDistribution(DifferentialDistributionConfig(temperature=0.2, learnable_temperature=True))

    def sharpen(comparison: DifferentialDistribution) -> DifferentialDistribution:
        comparison.softness.set(1e-4)
        return comparison

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        from scipy.stats import wasserstein_distance

        expression, condition, weight = (np.asarray(array, np.float64) for array in data.values())
        first, second = (1 - condition) * weight, condition * weight
        difference = (second / second.sum() - first / first.sum())[expression.argsort(axis=0)].cumsum(axis=0)
        distances = [wasserstein_distance(gene, gene, first, second) for gene in expression.T]
        return {"ks_statistics": np.abs(difference).max(axis=0), "wasserstein_distances": np.array(distances)}

    return Example(operator, data, limit=Limit(sharpen, reference, atol=1e-5), symmetric=("cells", "genes"))
