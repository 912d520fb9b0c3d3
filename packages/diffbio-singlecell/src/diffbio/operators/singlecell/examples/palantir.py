"""The conformance example of Palantir, and the hard algorithm in NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.stats import entropy

from diffbio.operators.singlecell.palantir import Palantir, PalantirConfig
from diffbio.testing import Example, Limit


def palantir() -> Example:
    """Return a fork of cells with two fates; the reference is the hard algorithm, independently written.

    Cells are named by their rows in the configuration, so they can't be permuted without it.
    """
    config = PalantirConfig(
        early_cell=0, terminal_cells=(23, 35), n_neighbors=9, n_waypoints=24, n_components=4, temperature=0.02
    )

    def sharpen(operator: Palantir) -> Palantir:
        operator.softness.set(1e-5)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
        return hard_palantir(np.asarray(data["embeddings"], np.float64), config)

    return Example(Palantir(config), {"embeddings": forked_cells()}, limit=Limit(sharpen, reference, atol=2e-4))


def forked_cells(n_cells: int = 36, noise: float = 0.05) -> np.ndarray:
    """Return cells along a stem, and along two branches in which it ends."""
    random = np.random.default_rng(0)
    third = n_cells // 3
    time = np.linspace(0, 1, third)
    stem = np.stack([time, 0 * time, 0 * time], axis=1)
    left = np.stack([1.1 + time, time, 0.3 * time], axis=1)
    right = np.stack([1.1 + time, -1.2 * time, 0.5 * time**2], axis=1)
    cells = np.concatenate([stem, left, right])
    return (cells + noise * random.normal(size=cells.shape)).astype(np.float32)


def hard_palantir(cells: np.ndarray, config: PalantirConfig) -> dict[str, np.ndarray]:
    """Return what Palantir is without any softness, for a connected graph without duplicates."""
    k = config.n_neighbors
    space = _space(cells, k, config.n_components)
    boundary = np.concatenate([space.argmin(0), space.argmax(0)])
    start = int(boundary[np.linalg.norm(space[boundary] - space[config.early_cell], axis=1).argmin()])
    terminal = np.array(config.terminal_cells)
    waypoints = _waypoints(space, start, [*terminal, *boundary], config.n_waypoints)

    rows, columns, lengths = _edges(space, k)
    graph = coo_matrix((lengths, (rows, columns)), shape=(len(cells),) * 2).tocsr()
    distances = dijkstra(graph, directed=False, indices=waypoints).T
    width = distances.std() * 1.06 * distances.size**-0.2
    weights = np.exp(-0.5 * (distances / width) ** 2)
    weights /= weights.sum(1, keepdims=True)
    times = distances[:, 0]
    for _ in range(24):
        before = times
        views = before[waypoints] + np.where(before[:, None] < before[waypoints], -1, 1) * distances
        views[:, 0] = distances[:, 0]
        times = (weights * views).sum(1)
        if np.corrcoef(before, times)[0, 1] > 0.9999:
            break
    times = (times - times.min()) / np.ptp(times)

    rows, columns, lengths = _edges(space[waypoints], k)
    widths = lengths.reshape(len(waypoints), -1)[:, k // 3 - 2]
    kept = times[waypoints][columns] >= times[waypoints][rows] - widths[rows]
    affinities = np.exp(-(lengths**2) / 2 * (widths[rows] ** -2.0 + widths[columns] ** -2.0)) * kept
    walk = coo_matrix((affinities, (rows, columns)), shape=(len(waypoints),) * 2).toarray()
    walk /= walk.sum(1, keepdims=True)
    ends = np.flatnonzero(np.isin(waypoints, terminal))
    others = np.setdiff1d(np.arange(len(waypoints)), ends)
    fates = (waypoints[:, None] == terminal).astype(float)
    within, leaving = walk[np.ix_(others, others)], walk[np.ix_(others, ends)]
    fates[others] = np.linalg.solve(np.eye(len(others)) - within, leaving @ fates[ends])
    probabilities = weights @ fates
    return {
        "pseudotime": times,
        "fate_probabilities": probabilities,
        "fate_entropy": np.asarray(entropy(probabilities, axis=1)),
    }


def _space(cells: np.ndarray, k: int, n_components: int) -> np.ndarray:
    """Return the diffusion components before the gap, each scaled to [0, 1]."""
    rows, columns, lengths = _edges(cells, k)
    affinities = np.exp(-lengths / lengths.reshape(len(cells), -1)[:, k // 3 - 1][rows])
    kernel = coo_matrix((affinities, (rows, columns)), shape=(len(cells),) * 2).toarray()
    kernel += kernel.T
    roots = np.sqrt(kernel.sum(1))
    values, vectors = np.linalg.eigh(kernel / np.outer(roots, roots))
    values, vectors = values[::-1][:n_components], vectors[:, ::-1] / roots[:, None]
    falling = np.argsort(values[1:] - values[:-1])
    n_kept = max(falling[0] if falling[0] >= 2 else falling[1], 2)
    space = vectors[:, 1 : n_kept + 1]
    return (space - space.min(0)) / np.ptp(space, axis=0)


def _waypoints(space: np.ndarray, start: int, wanted: list[int], n_waypoints: int) -> np.ndarray:
    """Return the start, the wanted cells and then, by turns along each component, the farthest cell."""
    queues = []
    for component in space.T:
        taken = [start]
        for _ in range(n_waypoints - 1):
            nearest = np.abs(component[:, None] - component[taken]).min(1)
            nearest[taken] = -1
            taken.append(int(nearest.argmax()))
        queues.append(taken[1:])
    queue = [start, *wanted, *(cell for turn in zip(*queues, strict=True) for cell in turn)]
    return np.array(list(dict.fromkeys(queue))[:n_waypoints])


def _edges(points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and lengths of the edges to the k - 1 nearest others, in rising order for each row."""
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    columns = distances.argsort(1)[:, 1:k]
    return np.repeat(np.arange(len(points)), k - 1), columns.ravel(), np.take_along_axis(distances, columns, 1).ravel()
