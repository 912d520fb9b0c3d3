"""How communities of large modularity are found: annealed mean-field steps, merging, and moves of single cells.

Leiden and Louvain visit one cell after the other. Here all cells, or a random part of them, move at once, so that a
sweep is a few sparse products: edges x groups operations, whatever the number of cells.

References:
    Reichardt and Bornholdt, Statistical mechanics of community detection, Physical Review E 2006 (annealing).
    Blondel, Guillaume, Lambiotte and Lefebvre, Fast unfolding of communities in large networks, 2008 (merging).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.operators.singlecell.neighbor_graph import symmetric_matmul, symmetric_sums

_WARM, _COLD, _SWEEPS = 0.05, 0.01, 60  # of the annealing; softness as a share of a cell's edges
_ROUNDS = 3  # of moves and merging
_MOVES = 30  # sweeps of a round in which single cells move
_MOVING = 0.3  # part of the cells that move in a sweep: neighbours that moved all at once would swap for ever


@partial(jax.jit, static_argnames="n_clusters")
def communities(
    start: Float[Array, "cells groups"],
    shares: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    n_clusters: int,
    *,
    resolution: ArrayLike = 1.0,
    key: Array,
) -> Int[Array, " cells"]:
    """Return communities of large modularity, found from one start.

    Args:
        start: A distribution over groups for each cell (cells, groups); more groups than communities help.
        shares: Edge weights C of the graph A = C + C^T, at least 0 (cells, neighbors).
        indices: The cell at the other end of each edge (cells, neighbors).
        n_clusters: Communities at most.
        resolution: gamma, above 0.
        key: Random key: which cells move in which sweep.

    Returns:
        Labels from 0 (the largest community at the last merging) to n_clusters - 1 (cells,). A local optimum.

    Example:
        >>> pairs = jnp.array([[1], [0], [3], [2]])
        >>> labels = communities(jnp.eye(4), jnp.full((4, 1), 0.5), pairs, 3, key=jax.random.key(0))
        >>> bool(labels[0] == labels[1]), bool(labels[2] == labels[3]), bool(labels[0] == labels[2])
        (True, True, False)
    """

    def cool(current: Array, softness: Array) -> tuple[Array, None]:
        gains = move_gains(current, shares, indices, resolution=resolution)
        return (current + jax.nn.softmax(gains / softness)) / 2, None

    def refine(current: Array, key: Array) -> tuple[Array, None]:
        moved = _moved(current, shares, indices, resolution, key)
        return _merged(moved, shares, indices, resolution, n_clusters), None

    temperatures = jnp.geomspace(_WARM, _COLD, _SWEEPS, dtype=start.dtype)
    groups, _ = lax.scan(cool, start, temperatures)
    groups = _hardened(groups, groups.shape[1])
    groups = _merged(groups, shares, indices, resolution, n_clusters)
    groups, _ = lax.scan(refine, groups, jax.random.split(key, _ROUNDS))
    return jnp.argmax(groups, axis=1)


@jax.jit
def move_gains(
    assignments: Float[Array, "cells clusters"],
    shares: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    *,
    resolution: ArrayLike = 1.0,
) -> Float[Array, "cells clusters"]:
    """Return how much of its edges a cell has in each community, less what is expected by chance.

    Args:
        assignments: A distribution over communities for each cell (cells, clusters).
        shares: Edge weights C of the graph A = C + C^T (cells, neighbors).
        indices: The cell at the other end of each edge (cells, neighbors).
        resolution: gamma, above 0.

    Returns:
        m / d_i times the change of modularity when the cell joins the community from being alone, at most 1
        (cells, clusters); 0 for a cell without edges.

    Example:
        >>> pairs = jnp.array([[1], [0], [3], [2]])
        >>> move_gains(jnp.repeat(jnp.eye(2), 2, axis=0), jnp.full((4, 1), 0.5), pairs)[0].tolist()
        [0.75, -0.5]
    """
    degrees = symmetric_sums(shares, indices)
    total = degrees.sum()
    relative = degrees / jnp.where(total > 0, total, 1.0)
    connected = (degrees > 0)[:, None]
    edges = symmetric_matmul(shares, indices, assignments) / jnp.where(connected, degrees[:, None], 1.0)
    sizes = jnp.matmul(relative, assignments, precision=lax.Precision.HIGHEST)
    by_chance = sizes - relative[:, None] * assignments  # the cell itself does not count
    return jnp.where(connected, edges - resolution * by_chance, 0.0)


def _hardened(assignments: Array, n_clusters: int) -> Float[Array, "cells clusters"]:
    return jax.nn.one_hot(jnp.argmax(assignments, axis=1), n_clusters, dtype=assignments.dtype)


def _moved(groups: Array, shares: Array, indices: Array, resolution: ArrayLike, key: Array) -> Array:
    """Return one-hot communities after sweeps in which random cells go where their gain is largest."""

    def sweep(current: Array, key: Array) -> tuple[Array, None]:
        best = _hardened(move_gains(current, shares, indices, resolution=resolution), current.shape[1])
        moving = jax.random.bernoulli(key, _MOVING, (len(current), 1))
        return jnp.where(moving, best, current), None

    return lax.scan(sweep, groups, jax.random.split(key, _MOVES))[0]


def _merged(groups: Array, shares: Array, indices: Array, resolution: ArrayLike, n_clusters: int) -> Array:
    """Return at most `n_clusters` one-hot communities, the best pair merged as long as that pays or must be."""
    degrees = symmetric_sums(shares, indices)
    total = jnp.where(degrees.sum() > 0, degrees.sum(), 1.0)
    between = jnp.matmul(groups.T, symmetric_matmul(shares, indices, groups), precision=lax.Precision.HIGHEST) / total
    sizes = jnp.matmul(degrees / total, groups, precision=lax.Precision.HIGHEST)
    n_groups = groups.shape[1]
    apart = ~jnp.eye(n_groups, dtype=bool)

    def merge(state: tuple[Array, Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array, Array], None]:
        between, sizes, alive, joined = state
        gains = between - resolution * jnp.outer(sizes, sizes)
        gains = jnp.where(apart & alive[:, None] & alive, gains, -jnp.inf)
        kept, lost = jnp.unravel_index(jnp.argmax(gains), gains.shape)
        possible = alive.sum() > 1
        pays = possible & ((gains[kept, lost] > 0) | (alive.sum() > n_clusters))
        moved = jnp.eye(n_groups, dtype=between.dtype).at[lost, lost].set(0.0).at[lost, kept].set(1.0)
        after = (moved.T @ between @ moved, sizes @ moved, alive.at[lost].set(False), joined @ moved)
        return jax.tree.map(partial(jnp.where, pays), after, state), None

    start = (between, sizes, groups.sum(0) > 0, jnp.eye(n_groups, dtype=groups.dtype))
    (_, sizes, alive, joined), _ = lax.scan(merge, start, length=n_groups - 1)
    largest = jnp.argsort(jnp.where(alive, sizes, -1.0), descending=True)[:n_clusters]
    merged = jnp.matmul(groups, joined, precision=lax.Precision.HIGHEST)[:, largest]
    return jnp.pad(merged, ((0, 0), (0, n_clusters - merged.shape[1])))
