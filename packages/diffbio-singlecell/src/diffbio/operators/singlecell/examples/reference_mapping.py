"""The conformance example of reference mapping."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.singlecell.reference_mapping import ReferenceMapping, ReferenceMappingConfig
from diffbio.testing import Example, Limit


def reference_mapping() -> Example:
    """Return a query of two types, two batches and a cell without; the limit assigns hard and regresses by batch."""
    random = np.random.default_rng(0)
    profiles = np.array([[4.0, 0.5, -1.0], [-2.0, 3.0, 1.0]])
    reference = profiles[np.arange(20) % 2] + 0.3 * random.normal(size=(20, 3))
    batches = np.append(np.arange(8) % 2, -1).astype(np.int32)
    query = profiles[np.arange(9) // 4 % 2] + 0.3 * random.normal(size=(9, 3)) + 0.5 * (1 + batches[:, None])
    config = ReferenceMappingConfig(
        n_features=3, n_clusters=2, n_batches=2, temperature=0.5, learnable_temperature=True
    )
    operator = ReferenceMapping(config, rngs=nnx.Rngs(0))
    cells = jnp.asarray(reference, jnp.float32)
    operator.initialize(cells, jnp.zeros(20, jnp.int32), key=jax.random.key(0))
    kept = jax.tree.map(np.asarray, operator.reference)

    def sharpen(mapping: ReferenceMapping) -> ReferenceMapping:
        mapping.softness.set(1e-3)
        return mapping

    def hard(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        z, batches = np.asarray(data["embeddings"], np.float64), np.asarray(data["batch_labels"])
        centroids = kept.sums / np.linalg.norm(kept.sums, axis=1, keepdims=True)
        nearest = (z / np.linalg.norm(z, axis=1, keepdims=True) @ centroids.T).argmax(1)
        corrected = z.copy()
        for cluster in range(2):
            inside = nearest == cluster
            design = np.stack([np.ones(9), batches == 0, batches == 1], axis=1)[inside]
            gram, moments = design.T @ design + np.diag([kept.mass[cluster], 1.0, 1.0]), design.T @ z[inside]
            moments[0] += kept.sums[cluster]
            corrected[inside] -= design[:, 1:] @ np.linalg.solve(gram, moments)[1:]
        return {"corrected_embeddings": corrected, "harmony_assignments": np.eye(2)[nearest]}

    return Example(
        operator,
        {"embeddings": query.astype(np.float32), "batch_labels": batches},
        limit=Limit(sharpen, hard, atol=1e-4),
        symmetric=("cells",),
    )
