"""The conformance example of soft k-means."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.singlecell.clustering import SoftClusteringConfig, SoftKMeansClustering
from diffbio.testing import Example, Limit


def soft_kmeans_clustering() -> Example:
    """Return three overlapping groups of cells; the limit is scikit-learn's KMeans from the same centroids."""
    random = np.random.default_rng(0)
    groups = np.repeat([[0.0, 0.0, 0.0], [3.0, 0.0, 1.0], [0.0, 3.0, -1.0]], 5, axis=0)
    embeddings = (groups + random.normal(size=groups.shape)).astype(np.float32)
    config = SoftClusteringConfig(n_clusters=3, n_features=3, n_iterations=10, learnable_temperature=True)
    operator = SoftKMeansClustering(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(embeddings), key=jax.random.key(0))
    start = np.asarray(operator.centroids[...])

    def sharpen(clusterer: SoftKMeansClustering) -> SoftKMeansClustering:
        clusterer.softness.set(1e-4)
        return clusterer

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        from sklearn.cluster import KMeans

        lloyd = KMeans(3, init=start, n_init=1, tol=0)  # pyright: ignore[reportArgumentType]
        lloyd.fit(np.asarray(data["embeddings"]))
        return {"cluster_assignments": np.eye(3)[lloyd.labels_], "cluster_centroids": lloyd.cluster_centers_}

    return Example(
        operator, {"embeddings": embeddings}, limit=Limit(sharpen, reference, atol=1e-4), symmetric=("cells",)
    )
