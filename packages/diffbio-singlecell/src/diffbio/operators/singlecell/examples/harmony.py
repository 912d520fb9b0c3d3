"""The conformance example of Harmony."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.singlecell.harmony import Harmony, HarmonyConfig
from diffbio.testing import Example, Limit


def harmony() -> Example:
    """Return two types of cells in two batches and one cell without; the limit clusters hard and regresses by batch."""
    random = np.random.default_rng(0)
    types, batches = np.arange(15) % 2, np.append(np.arange(14) // 7, -1).astype(np.int32)
    embeddings = np.array([[4.0, 0.5, -1.0], [-2.0, 3.0, 1.0]])[types] + 0.5 * random.normal(size=(15, 3))
    embeddings = (embeddings + np.where(batches[:, None] == 1, [0.6, -0.4, 0.8], 0.0)).astype(np.float32)
    config = HarmonyConfig(n_features=3, n_clusters=2, n_batches=2, temperature=0.5, n_rounds=2, learnable=True)
    operator = Harmony(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(embeddings), key=jax.random.key(0))

    def sharpen(harmony: Harmony) -> Harmony:
        harmony.softness.set(1e-3)
        return harmony

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        z, batches = np.asarray(data["embeddings"], np.float64), np.asarray(data["batch_labels"])
        directions = z / np.linalg.norm(z, axis=1, keepdims=True)
        nearest = (directions @ np.asarray(operator.centroids[...]).T).argmax(1)
        corrected = z.copy()
        for cluster in range(2):
            inside = nearest == cluster
            design = np.stack([np.ones(15), batches == 0, batches == 1], axis=1)[inside]
            share = np.array([(batches == b).mean() for b in (0, 1)]) * 15 / 14
            penalty = np.diag([0.0, *(0.2 * share * (inside & (batches >= 0)).sum())])
            effects = np.linalg.solve(design.T @ design + penalty, design.T @ z[inside])
            corrected[inside] -= design[:, 1:] @ effects[1:]
        return {"corrected_embeddings": corrected, "harmony_assignments": np.eye(2)[nearest]}

    return Example(
        operator, {"embeddings": embeddings, "batch_labels": batches}, limit=Limit(sharpen, reference, atol=1e-4)
    )
