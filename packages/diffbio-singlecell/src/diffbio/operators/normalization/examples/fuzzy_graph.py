"""The conformance example of the fuzzy graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.normalization.fuzzy_graph import FuzzyGraph, FuzzyGraphConfig
from diffbio.testing import Example, Limit


def fuzzy_graph() -> Example:
    """Return a dozen cells, the last two hidden; the reference is the definition, solved by bisection in NumPy.

    Only the choice of neighbours is hard, and the bandwidths follow from the cells, so there is nothing to sharpen.
    """
    embeddings = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        points = np.asarray(data["embeddings"], np.float64)[np.asarray(data["cell_mask"])]
        distances = np.linalg.norm(points[:, None] - points, axis=-1)
        order = distances.argsort(axis=1)[:, 1:5]
        graph = np.zeros_like(distances)
        for cell, others in enumerate(order):
            beyond = distances[cell, others] - distances[cell, others].min()
            low, high = 0.0, 100.0
            for _ in range(100):
                middle = (low + high) / 2
                low, high = (middle, high) if np.exp(-beyond / middle).sum() < np.log2(5) else (low, middle)
            graph[cell, others] = np.exp(-beyond / high)
        union = graph + graph.T - graph * graph.T
        mutual = (graph > 0) & (graph.T > 0)
        shares = np.zeros((12, 4))
        shares[:10] = np.take_along_axis(np.where(mutual, union / 2, union), order, axis=1)
        return {"fuzzy_memberships": shares}

    return Example(
        FuzzyGraph(FuzzyGraphConfig(n_neighbors=5)),
        {"embeddings": embeddings, "cell_mask": np.arange(12) < 10},
        limit=Limit(lambda same: same, reference, atol=1e-4),
        symmetric=("features",),
        masks={"cell_mask": "cells"},
    )
