"""The conformance example of optimal transport between time points."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.singlecell.optimal_transport import (
    OptimalTransportTrajectory,
    OptimalTransportTrajectoryConfig,
)
from diffbio.testing import Example, Limit


def optimal_transport_trajectory() -> Example:
    """Return six cells that move a little; the limit is SciPy's assignment of least cost."""
    random = np.random.default_rng(0)
    source = random.normal(size=(6, 3)).astype(np.float32)
    target = (source[random.permutation(6)] + 0.3 * random.normal(size=(6, 3)) + 1).astype(np.float32)

    def sharpen(operator: OptimalTransportTrajectory) -> OptimalTransportTrajectory:
        operator.softness.set(5e-3)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
        from scipy.optimize import linear_sum_assignment

        source, target = np.asarray(data["source_embeddings"]), np.asarray(data["target_embeddings"])
        costs = np.sum((source[:, None] - target) ** 2, axis=-1)
        _, columns = linear_sum_assignment(costs)
        return {"transport_plan": np.eye(6)[columns] / 6, "growth": np.ones(6), "descendants": target[columns]}

    return Example(
        OptimalTransportTrajectory(OptimalTransportTrajectoryConfig(temperature=0.2)),
        {"source_embeddings": source, "target_embeddings": target},
        limit=Limit(sharpen, reference, atol=1e-3),
        symmetric=("source", "target"),
    )
