"""Waypoints: a few cells that stand for all, the pseudotime on which they agree, and the walk among them.

Max-min sampling takes, along one coordinate, again and again the cell that is farthest from those taken before. It is
started at a given cell, so that nothing is drawn. A choice of cells is a hard decision and has no gradient.

Seen from a waypoint w, a cell at the distance d is at the time t_w + s d, where s is 1 for cells later than w and -1
for earlier ones; relaxed, s = soft_ops.sign((t - t_w) / tau). The walk goes to neighbours that are earlier by at most
the bandwidth; relaxed, their weight is sigmoid((t_j - t_i + sigma_i) / tau). As tau -> 0 both are hard.

References:
    Setty et al., Nature Biotechnology 2019 (Palantir), after de Silva and Tenenbaum, Sparse multidimensional scaling
    using landmark points, 2004.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import soft_ops
from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.neighbors import Neighbors, nearest_neighbors
from diffbio.operators.singlecell.shortest_paths import connected_neighbors, shortest_paths

_ITERATIONS = 24  # of the pseudotime; palantir stops there too
_RESTED = 0.9999  # correlation of two iterations at which the pseudotime counts as settled


class WaypointWalk(NamedTuple):
    """The order of all cells, and the walk among the waypoints that follows it.

    Attributes:
        pseudotime: From 0 to 1 (cells,).
        weights: Of the waypoints for each cell; rows sum to 1 (cells, waypoints).
        moves: Probabilities of the walk from each waypoint; rows sum to 1 (waypoints, neighbors).
        indices: The waypoints to which it moves, as places in the list of waypoints (waypoints, neighbors).
    """

    pseudotime: Float[Array, " cells"]
    weights: Float[Array, "cells waypoints"]
    moves: Float[Array, "waypoints neighbors"]
    indices: Int[Array, "waypoints neighbors"]


def boundary_cells(space: Float[Array, "cells components"]) -> Int[Array, " boundary"]:
    """Return the rows of the lowest and the highest cell of each component.

    Args:
        space: Coordinates (cells, components). A component without width is left out: its two rows are those of the
            first component again.

    Returns:
        Rows (2 components,), some of them equal.

    Example:
        >>> boundary_cells(jnp.array([[0.0, 0.5], [0.3, 0.9], [1.0, 0.1]])).tolist()
        [0, 2, 2, 1]
    """
    rows = jnp.concatenate([space.argmin(axis=0), space.argmax(axis=0)]).astype(jnp.int32)
    wide = jnp.tile(space.max(axis=0) > space.min(axis=0), 2)
    return jnp.where(wide, rows, rows[0])


@partial(jax.jit, static_argnames="n_waypoints")
def max_min_waypoints(
    space: Float[Array, "cells components"],
    start: int | Array,
    terminal_cells: Int[Array, " fates"],
    *,
    n_waypoints: int,
) -> Int[Array, " waypoints"]:
    """Return distinct cells: the start, the terminal and boundary cells, and others spread along each component.

    Args:
        space: Coordinates (cells, components). Components without width are not sampled.
        start: Row of the start, where the sampling begins.
        terminal_cells: Rows that must be among the waypoints (fates,).
        n_waypoints: How many, at most the number of cells.

    Returns:
        Rows (n_waypoints,), the start first and the others in no particular order.

    Raises:
        ContractError: There are fewer cells than waypoints.

    Example:
        >>> line = jnp.arange(9.0)[:, None]
        >>> sorted(max_min_waypoints(line, 0, jnp.array([6]), n_waypoints=4).tolist())
        [0, 4, 6, 8]
    """
    space = lax.stop_gradient(jnp.asarray(space))
    n_cells, n_components = space.shape
    if n_waypoints > n_cells:
        raise ContractError(f"{n_waypoints} waypoints can't be had among {n_cells} cells; ask for at most {n_cells}")

    def sample(component: Array) -> Array:
        """Return the turn at which each cell is taken, `n_waypoints` for those that are not."""

        def take(state: tuple[Array, Array], turn: Array) -> tuple[tuple[Array, Array], None]:
            nearest, turns = state
            cell = jnp.argmax(nearest)
            nearest = jnp.minimum(nearest, jnp.abs(component - component[cell])).at[cell].set(-1.0)
            return (nearest, turns.at[cell].min(turn)), None

        nearest = jnp.abs(component - component[start]).at[start].set(-1.0)
        turns = jnp.full(n_cells, n_waypoints)
        return lax.scan(take, (nearest, turns), jnp.arange(n_waypoints - 1))[0][1]

    wide = space.max(axis=0) > space.min(axis=0)
    turns = jnp.where(wide, lax.map(sample, space.T).T, n_waypoints)
    # cells of the same turn in the order of their components: no two have the same place in the queue
    place = jnp.min(turns * n_components + jnp.arange(n_components), axis=1)
    place = place.at[boundary_cells(space)].set(-1).at[terminal_cells].set(-2).at[start].set(-3)
    return lax.top_k(-place, n_waypoints)[1]


def start_cell(space: Float[Array, "cells components"], early_cell: int | Array) -> Int[Array, ""]:
    """Return the row of the extreme cell of the components that is nearest to the early cell.

    Args:
        space: Scaled components (cells, components).
        early_cell: Row of a cell at the beginning.

    Returns:
        A row, which carries no gradient.

    Example:
        >>> int(start_cell(jnp.array([[0.0], [0.2], [0.7], [1.0]]), 1))
        0
    """
    space = lax.stop_gradient(space)
    boundary = boundary_cells(space)
    return boundary[jnp.argmin(jnp.sum((space[boundary] - space[early_cell]) ** 2, axis=1))]


@partial(jax.jit, static_argnames="n_neighbors")
def walk_of_waypoints(
    space: Float[Array, "cells components"],
    waypoints: Int[Array, " waypoints"],
    *,
    n_neighbors: int,
    softness: ArrayLike,
) -> WaypointWalk:
    """Return the pseudotime of the cells from the first waypoint, and the walk among waypoints that follows it.

    Args:
        space: Coordinates (cells, components).
        waypoints: Distinct rows, of which the first is the start (waypoints,).
        n_neighbors: Size of a neighbourhood, the cell itself counted.
        softness: tau > 0, in the unit of the space.

    Returns:
        Pseudotime, weights of the waypoints, and the walk. Memory grows as cells x waypoints.

    Raises:
        ContractError: There are too few cells or waypoints.

    Example:
        >>> walk = walk_of_waypoints(jnp.linspace(0, 1, 9)[:, None], jnp.arange(9), n_neighbors=6, softness=1e-3)
        >>> bool((jnp.diff(walk.pseudotime) > 0).all())
        True
    """
    neighbors = connected_neighbors(space, nearest_neighbors(space, n_neighbors - 1), waypoints[0])
    distances = shortest_paths(neighbors.distances, neighbors.indices, waypoints)
    pseudotime, weights = waypoint_pseudotime(distances, waypoints, softness=softness)
    among = nearest_neighbors(space[waypoints], n_neighbors - 1)
    return WaypointWalk(
        pseudotime, weights, forward_moves(among, pseudotime[waypoints], softness=softness), among.indices
    )


def waypoint_pseudotime(
    distances: Float[Array, "cells waypoints"], waypoints: Int[Array, " waypoints"], *, softness: ArrayLike
) -> tuple[Float[Array, " cells"], Float[Array, "cells waypoints"]]:
    """Return the pseudotime on which the waypoints' views agree, and the weights of the waypoints for each cell.

    Args:
        distances: Lengths of the shortest paths from each cell to each waypoint (cells, waypoints).
        waypoints: Rows of the waypoints, of which the first is the start (waypoints,).
        softness: tau > 0 in the unit of the distances: how much later a cell must be to count as later.

    Returns:
        Pseudotime in [0, 1] (cells,) and weights whose rows sum to 1 (cells, waypoints).

    Example:
        >>> line = jnp.arange(5.0)
        >>> distances = jnp.abs(line[:, None] - line)
        >>> waypoint_pseudotime(distances, jnp.arange(5), softness=1e-3)[0].round(2).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    variance = jnp.var(distances)
    squared_width = variance * (1.06 * distances.size**-0.2) ** 2  # Silverman's rule
    weights = jax.nn.softmax(-0.5 * distances**2 / jnp.where(squared_width > 0, squared_width, 1.0), axis=1)

    @jax.checkpoint  # else the gradient would keep an array cells x waypoints of each iteration
    def mean_view(times: Array) -> Array:
        of_waypoints = times[waypoints].at[0].set(0.0)
        later = soft_ops.sign(times[:, None] - of_waypoints, softness=softness).at[:, 0].set(1.0)
        return jnp.sum(weights * (of_waypoints + later * distances), axis=1)

    def iterate(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        times, rests = state
        following = jnp.where(rests, times, mean_view(times))
        return (following, rests | (_correlation(times, following) > _RESTED)), None

    times, _ = lax.scan(iterate, (distances[:, 0], jnp.zeros((), bool)), length=_ITERATIONS)[0]
    times = times - times.min()
    latest = times.max()
    return times / jnp.where(latest > 0, latest, 1.0), weights


def forward_moves(
    neighbors: Neighbors, pseudotime: Float[Array, " cells"], *, softness: ArrayLike
) -> Float[Array, "cells neighbors"]:
    """Return the probabilities of a walk to neighbours that does not go back by more than the bandwidth of a cell.

    Args:
        neighbors: Neighbours of each cell, at least 5 (cells, neighbors).
        pseudotime: Of the cells, from 0 to 1 (cells,).
        softness: tau > 0 in the unit of pseudotime: how wide the limit of going back is.

    Returns:
        Probabilities whose rows sum to 1 (cells, neighbors). If all edges of a cell go back too far, as tau -> 0 it
        takes that which goes back least.

    Example:
        >>> line = jnp.arange(8.0)[:, None]
        >>> moves = forward_moves(nearest_neighbors(line, 5), jnp.arange(8.0) * 10, softness=0.1)
        >>> bool(moves[3][nearest_neighbors(line, 5).indices[3] < 3].sum() < 1e-6)
        True
    """
    nearer = max((neighbors.indices.shape[1] + 1) // 3 - 2, 0)
    bandwidths = neighbors.distances[:, min(nearer, 29)][:, None]
    variances = jnp.where(bandwidths > 0, bandwidths, 1.0) ** 2
    squared = neighbors.distances**2
    affinities = -0.5 * squared / variances - 0.5 * squared / variances[:, 0][neighbors.indices]
    gains = pseudotime[neighbors.indices] - pseudotime[:, None]
    kept = jax.nn.log_sigmoid((gains + bandwidths) / softness)
    return jax.nn.softmax(affinities + kept, axis=1)


def _correlation(first: Array, second: Array) -> Float[Array, ""]:
    """Return the Pearson correlation, 1 where nothing varies; it only decides when to stop."""
    first, second = (lax.stop_gradient(x - x.mean()) for x in (first, second))
    scale = jnp.sqrt(jnp.sum(first**2)) * jnp.sqrt(jnp.sum(second**2))
    return jnp.where(scale > 0, jnp.sum(first * second) / jnp.where(scale > 0, scale, 1.0), 1.0)
