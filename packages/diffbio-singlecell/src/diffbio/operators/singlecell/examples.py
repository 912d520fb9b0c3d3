"""The tiny example of each operator, on which `diffbio.testing` holds it to the laws."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.singlecell.clustering import SoftClusteringConfig, SoftKMeansClustering
from diffbio.operators.singlecell.imputation import (
    DiffusionImputation,
    DiffusionImputationConfig,
    square_root_proportions,
)
from diffbio.operators.singlecell.pseudotime import DiffusionPseudotime, DiffusionPseudotimeConfig
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


def diffusion_pseudotime() -> Example:
    """Return a bent line of cells; the reference sums over eigenvectors what the operator solves for.

    Only the choice of neighbours is hard and nothing is softened, so there is nothing to sharpen. The root is a row
    number of the configuration, so cells can't be permuted without it.
    """
    random = np.random.default_rng(0)
    angle = np.linspace(0.0, 4.0, 20)
    embeddings = np.stack([np.cos(angle), np.sin(angle), 0.2 * angle], axis=1)
    embeddings = (embeddings + random.normal(scale=0.03, size=embeddings.shape)).astype(np.float32)
    operator = DiffusionPseudotime(DiffusionPseudotimeConfig(n_neighbors=6, root_cell=2))

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        points = np.asarray(data["embeddings"], np.float64)
        squared = np.sum((points[:, None] - points) ** 2, axis=-1)
        rank = squared.argsort(axis=1).argsort(axis=1)
        variances = np.median(np.sort(squared, axis=1)[:, 1:6], axis=1)
        total = variances[:, None] + variances
        affinities = np.sqrt(2 * np.sqrt(np.outer(variances, variances)) / total) * np.exp(-squared / total)
        affinities *= ((rank < 6) | (rank.T < 6)) & (rank > 0)
        density = affinities.sum(axis=0)
        affinities /= np.outer(density, density)
        degrees = affinities.sum(axis=0)
        eigenvalues, states = np.linalg.eigh(affinities / np.sqrt(np.outer(degrees, degrees)))
        weights = np.append(eigenvalues[:-1] / (1 - eigenvalues[:-1]), 1.0)  # the last state is stationary
        distances = np.linalg.norm((states - states[2]) * weights, axis=1)
        return {"pseudotime": distances / distances.max()}

    return Example(operator, {"embeddings": embeddings}, limit=Limit(lambda same: same, reference, atol=1e-3))
