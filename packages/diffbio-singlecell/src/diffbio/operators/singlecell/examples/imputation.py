"""The conformance example of diffusion imputation."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.singlecell.imputation import (
    DiffusionImputation,
    DiffusionImputationConfig,
    square_root_proportions,
)
from diffbio.testing import Example, Limit


def diffusion_imputation() -> Example:
    """Return a dozen cells; the limit is the walk on the hard graph of nearest neighbours."""
    counts = np.random.default_rng(0).gamma(2.0, 2.0, size=(12, 5)).astype(np.float32)
    operator = DiffusionImputation(DiffusionImputationConfig(n_neighbors=3, max_neighbors=6, diffusion_time=2))

    def sharpen(imputer: DiffusionImputation) -> DiffusionImputation:
        imputer.softness.set(1e-5)
        return imputer

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        counts = np.asarray(data["counts"])
        points = np.asarray(square_root_proportions(jnp.asarray(counts)))
        distances = np.linalg.norm(points[:, None] - points, axis=-1)
        rank = distances.argsort(axis=1).argsort(axis=1)  # 0 is the cell itself
        graph = np.select([rank < 3, rank == 3], [1.0, np.exp(-1.0)], 0.0)
        graph = graph + graph.T
        walk = graph / graph.sum(axis=1, keepdims=True)
        return {"imputed_counts": walk @ walk @ counts}

    return Example(
        operator, {"counts": counts}, limit=Limit(sharpen, reference, atol=1e-4), symmetric=("cells", "genes")
    )
