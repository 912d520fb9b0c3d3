"""The conformance example of the diffusion map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.normalization.diffusion_map import DiffusionMap, DiffusionMapConfig
from diffbio.testing import Example, Limit


def diffusion_map() -> Example:
    """Return a bent line of cells; the reference is a dense eigendecomposition in NumPy.

    Only the choice of neighbours is hard and nothing is softened, so there is nothing to sharpen.
    """
    random = np.random.default_rng(0)
    angle = np.linspace(0.0, 4.0, 20)
    embeddings = np.stack([np.cos(angle), np.sin(angle), 0.2 * angle], axis=1)
    embeddings = (embeddings + random.normal(scale=0.03, size=embeddings.shape)).astype(np.float32)
    config = DiffusionMapConfig(n_components=3, n_neighbors=6, kernel="gauss")

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
        values, vectors = np.linalg.eigh(affinities / np.sqrt(np.outer(degrees, degrees)))
        vectors = vectors[:, :-4:-1]
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), range(3)])
        return {"diffusion_map": vectors * signs, "diffusion_eigenvalues": values[:-4:-1]}

    return Example(
        DiffusionMap(config),
        {"embeddings": embeddings},
        limit=Limit(lambda same: same, reference, atol=1e-4),
        symmetric=("cells", "features"),
    )
