"""The conformance example of modularity clustering."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.singlecell.modularity import ModularityClustering, ModularityClusteringConfig
from diffbio.testing import Example, Limit


def modularity_clustering() -> Example:
    """Return two groups of cells on a graph; the limit is the modularity of labels by its definition.

    Each cell has parameters of its own, so cells can't be permuted without them.
    """
    random = np.random.default_rng(0)
    groups = np.repeat([[0.0, 0.0, 0.0], [3.0, 0.0, 1.0]], 6, axis=0)
    embeddings = (groups + random.normal(size=groups.shape)).astype(np.float32)
    config = ModularityClusteringConfig(
        n_cells=12, n_clusters=3, n_neighbors=4, resolution=0.8, temperature=0.3, n_starts=2
    )
    operator = ModularityClustering(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(embeddings), key=jax.random.key(0))
    labels = np.asarray(operator.logits[...]).argmax(1)

    def sharpen(clusterer: ModularityClustering) -> ModularityClustering:
        clusterer.softness.set(1e-3)
        return clusterer

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        points = np.asarray(data["embeddings"], np.float64)
        distances = np.linalg.norm(points[:, None] - points, axis=-1)
        rank = distances.argsort(axis=1).argsort(axis=1)  # 0 is the cell itself
        reach = np.where(rank == 4, distances, 0).max(axis=1, keepdims=True)
        graph = np.where((rank > 0) & (rank <= 4), np.exp(-((distances / reach) ** 2)), 0)
        graph = (graph + graph.T) / 2
        degrees = graph.sum(axis=1)
        excess = graph - 0.8 * np.outer(degrees, degrees) / degrees.sum()
        together = labels[:, None] == labels
        return {
            "cluster_assignments": np.eye(3)[labels],
            "modularity": np.asarray((excess * together).sum() / degrees.sum()),
        }

    return Example(operator, {"embeddings": embeddings}, limit=Limit(sharpen, reference, atol=1e-5))
