"""The conformance example of diffusion pseudotime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.singlecell.pseudotime import DiffusionPseudotime, DiffusionPseudotimeConfig
from diffbio.testing import Example, Limit


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
