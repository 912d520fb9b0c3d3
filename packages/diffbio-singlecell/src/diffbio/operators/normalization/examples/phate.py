"""The conformance example of PHATE."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.normalization.phate import PHATE, PHATEConfig
from diffbio.testing import Example, Limit


def phate() -> Example:
    """Return a dozen cells; the limit is the walk on the hard graph of nearest neighbours, laid out by SMACOF."""
    scales = np.array([3.0, 1.5, 0.8])
    embeddings = (scales * np.random.default_rng(0).normal(size=(12, 3))).astype(np.float32)
    operator = PHATE(PHATEConfig(n_neighbors=3, max_neighbors=6, decay=10.0, diffusion_time=2))

    def sharpen(mapper: PHATE) -> PHATE:
        mapper.softness.set(1e-5)
        return mapper

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        points = np.asarray(data["embeddings"], np.float64)
        distances = np.linalg.norm(points[:, None] - points, axis=-1)
        rank = distances.argsort(axis=1).argsort(axis=1)  # 0 is the cell itself
        graph = np.select([rank < 3, rank == 3], [1.0, np.exp(-1.0)], 0.0)
        graph = graph + graph.T
        walk = graph / graph.sum(axis=1, keepdims=True)
        potential = -np.log(walk @ walk + 1e-7)
        wanted = np.linalg.norm(potential[:, None] - potential, axis=-1)
        squared = wanted**2
        centred = squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()
        values, vectors = np.linalg.eigh(-centred / 2)
        layout = vectors[:, :-3:-1] * np.sqrt(values[:-3:-1])
        for _ in range(5000):
            found = np.linalg.norm(layout[:, None] - layout, axis=-1) + np.eye(12)
            ratios = wanted / found
            layout = (ratios.sum(1)[:, None] * layout - ratios @ layout) / 12
        axes = np.linalg.svd(layout - layout.mean(0), full_matrices=False)[2]
        layout = (layout - layout.mean(0)) @ axes.T
        return {"phate": layout * np.sign(layout[np.abs(layout).argmax(0), [0, 1]])}

    return Example(
        operator, {"embeddings": embeddings}, limit=Limit(sharpen, reference, atol=2e-3), symmetric=("cells",)
    )
