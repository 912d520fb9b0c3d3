"""Terminal states: where a walk along pseudotime gathers.

A choice of cells, and their number, is a hard decision: it is taken once, on the host, and given to `Palantir` in its
configuration. Waypoints where the walk stays much longer than at others are grouped by the walk's edges; of each group
the latest cell is taken, and then the extreme cell of the diffusion components that is nearest to it.

References:
    Setty et al., Nature Biotechnology 2019; the rule is that of palantir (`identify_terminal_states`).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffbio.core.errors import DataError
from diffbio.operators.singlecell.palantir import palantir_space
from diffbio.operators.singlecell.waypoints import (
    WaypointWalk,
    boundary_cells,
    max_min_waypoints,
    start_cell,
    walk_of_waypoints,
)

_RESTART = 1e-6  # chance per step to begin anew at any waypoint: makes the long run unique
_CONFIDENCE = 0.9999  # quantile of a normal distribution beyond which a waypoint stands out


def find_terminal_cells(
    embeddings: Float[Array, "cells features"],
    early_cell: int,
    *,
    n_neighbors: int = 30,
    n_waypoints: int = 1200,
    n_components: int = 10,
    temperature: float = 1e-3,
) -> tuple[int, ...]:
    """Return the rows of cells in which the process seems to end, for `PalantirConfig(terminal_cells=...)`.

    Where palantir takes one left eigenvector of the walk, which is not unique if the walk has several ends, this takes
    the distribution that walks from all waypoints approach. It solves a dense system among the waypoints.

    Args:
        embeddings: Coordinates, such as principal components (cells, features).
        early_cell: Row of a cell at the beginning.
        n_neighbors: Size of a neighbourhood, the cell itself counted.
        n_waypoints: Number of waypoints, at most the number of cells.
        n_components: Diffusion components to find, the constant one counted.
        temperature: The softness, in the unit of the scaled components.

    Returns:
        Rows in rising order: a proposal, to be looked at. Extreme cells at the beginning can be among them.

    Raises:
        DataError: No waypoint stands out.

    References:
        `palantir.core.identify_terminal_states`.

    Example:
        >>> line = jnp.arange(80.0)[:, None]
        >>> [cell > 75 for cell in find_terminal_cells(line, 0, n_neighbors=9, n_components=4)]
        [True]
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    embeddings = jnp.asarray(embeddings)
    space = palantir_space(embeddings, n_components=n_components, n_neighbors=n_neighbors)
    start = start_cell(space, early_cell)
    waypoints = max_min_waypoints(space, start, start[None], n_waypoints=min(n_waypoints, embeddings.shape[0]))
    walk = walk_of_waypoints(space, waypoints, n_neighbors=n_neighbors, softness=temperature)
    moves = _dense(walk)
    gathered = np.flatnonzero(_stand_out(_long_run(moves)))
    if not gathered.size:
        raise DataError(
            f"no waypoint stands out among {len(moves)} as an end of the walk; name terminal cells yourself, or change "
            "n_neighbors or n_components"
        )
    among = moves[np.ix_(gathered, gathered)]
    # an edge that the soft cut has all but removed joins no groups
    _, groups = connected_components(csr_array(among > _RESTART), directed=False)
    rows, times = np.asarray(waypoints)[gathered], np.asarray(walk.pseudotime)
    latest = [rows[groups == group][times[rows[groups == group]].argmax()] for group in range(groups.max() + 1)]
    extremes, points = np.asarray(boundary_cells(space)), np.asarray(space)
    apart = np.linalg.norm(points[extremes] - points[latest][:, None], axis=-1)
    return tuple(sorted({int(cell) for cell in extremes[apart.argmin(axis=1)]}))


def _dense(walk: WaypointWalk) -> np.ndarray:
    moves = np.zeros((walk.moves.shape[0],) * 2)
    rows = np.arange(len(moves))[:, None]
    moves[rows, np.asarray(walk.indices)] = np.asarray(walk.moves, np.float64)
    return moves / moves.sum(axis=1, keepdims=True)


def _long_run(moves: np.ndarray) -> np.ndarray:
    """Return the share of time that a walk from any waypoint spends at each, in the long run."""
    size = len(moves)
    return np.linalg.solve(np.eye(size) - (1 - _RESTART) * moves.T, np.full(size, _RESTART / size))


def _stand_out(shares: np.ndarray) -> np.ndarray:
    """Return which shares lie beyond the quantile of a normal distribution with their median and deviation."""
    from scipy.stats import norm

    deviation = np.median(np.abs(shares - np.median(shares)))
    return shares > np.median(shares) + norm.ppf(_CONFIDENCE) * deviation
