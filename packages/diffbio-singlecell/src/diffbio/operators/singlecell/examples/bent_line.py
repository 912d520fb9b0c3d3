"""What the conformance examples of diffusion share: a bent line of cells, and the walk on them, dense in NumPy."""

from __future__ import annotations

import numpy as np
from jax.typing import ArrayLike


def bent_line() -> np.ndarray:
    """Return twenty cells along a noisy arc in space (cells, 3)."""
    random = np.random.default_rng(0)
    angle = np.linspace(0.0, 4.0, 20)
    embeddings = np.stack([np.cos(angle), np.sin(angle), 0.2 * angle], axis=1)
    return (embeddings + random.normal(scale=0.03, size=embeddings.shape)).astype(np.float32)


def gaussian_walk(embeddings: ArrayLike, *, n_neighbors: int) -> np.ndarray:
    """Return the symmetric matrix of the random walk with Gaussian affinities, density divided out (cells, cells).

    Args:
        embeddings: Coordinates (cells, features).
        n_neighbors: Size of a neighbourhood, the cell itself counted.
    """
    points = np.asarray(embeddings, np.float64)
    squared = np.sum((points[:, None] - points) ** 2, axis=-1)
    rank = squared.argsort(axis=1).argsort(axis=1)
    variances = np.median(np.sort(squared, axis=1)[:, 1:n_neighbors], axis=1)
    total = variances[:, None] + variances
    affinities = np.sqrt(2 * np.sqrt(np.outer(variances, variances)) / total) * np.exp(-squared / total)
    affinities *= ((rank < n_neighbors) | (n_neighbors > rank.T)) & (rank > 0)
    density = affinities.sum(axis=0)
    affinities /= np.outer(density, density)
    degrees = affinities.sum(axis=0)
    return affinities / np.sqrt(np.outer(degrees, degrees))
