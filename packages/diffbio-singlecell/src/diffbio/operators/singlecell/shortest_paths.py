"""Shortest paths on the graph of cells.

The length of the shortest path along edges between a cell and a source, as Dijkstra's algorithm finds it. Nothing is
relaxed: a least sum is continuous in the lengths of the edges, and where one path is the shortest, its derivative by an
edge is 1 if the path uses the edge and else 0 (the envelope theorem). Where several are equally short, it is that of
one of them. Which cells are neighbours, and which bridges are built, are hard decisions.

Cells are visited in the order of their distance from the first source, forwards and backwards, and pass on what they
know along their edges (Gauss and Seidel's order of Bellman and Ford's rounds). A path that follows the order costs one
pass, however many edges it has, so that a few passes suffice where the rounds would be as many as edges of a path. The
gradient walks along the trees of shortest paths by pointer doubling, and keeps nothing of the passes.

References:
    Dijkstra, A note on two problems in connexion with graphs, 1959; Bellman, On a routing problem, 1958.
    Zhao, A fast sweeping method for eikonal equations, Mathematics of Computation 2005 (the alternating passes).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffbio.operators.singlecell.neighbors import Neighbors, neighbor_distances

_BLOCK = 4  # cells that are visited at once: fewer take more steps, more take more passes


@jax.custom_vjp
@jax.jit
def shortest_paths(
    lengths: Float[Array, "cells neighbors"],
    indices: Int[Array, "cells neighbors"],
    sources: Int[Array, " sources"],
) -> Float[Array, "cells sources"]:
    """Return the length of the shortest path between every cell and every source.

    An edge may be walked in either direction. Time grows as cells x neighbors x sources x passes, which are some 6 to
    14, and at most 2 cells; memory as cells x (neighbors + sources), in its gradient too, which is for reverse mode
    only.

    Args:
        lengths: Of the edges to each cell's neighbours, at least 0; infinite for none (cells, neighbors).
        indices: Rows of the neighbours (cells, neighbors).
        sources: Rows of the cells from which distances count, at least one (sources,).

    Returns:
        Distances (cells, sources); infinite, with zero gradient, where no path leads.

    References:
        `scipy.sparse.csgraph.dijkstra(directed=False)`.

    Example:
        >>> lengths, indices = jnp.array([[1.0], [2.0], [2.0]]), jnp.array([[1], [2], [1]])  # a line of three cells
        >>> shortest_paths(lengths, indices, jnp.array([0])).ravel().tolist()
        [0.0, 1.0, 3.0]
        >>> jax.grad(lambda x: shortest_paths(x, indices, jnp.array([0]))[2, 0])(lengths).ravel().tolist()
        [1.0, 1.0, 0.0]
    """
    n_cells, n_sources = lengths.shape[0], sources.shape[0]
    nowhere = jnp.full((n_cells, n_sources), jnp.inf, lengths.dtype)
    start = nowhere.at[sources, jnp.arange(n_sources)].set(0.0)
    order = jnp.argsort(_reach(lengths, indices, start[:, 0])).astype(jnp.int32)
    n_blocks = -(-n_cells // _BLOCK)
    blocks = jnp.resize(order, (n_blocks, _BLOCK))  # the last one begins anew: a further visit does no harm

    def visit(distances: Array, cells: Array) -> tuple[Array, None]:
        length, others = lengths[cells][..., None], indices[cells]
        nearest = jnp.minimum(distances[cells], jnp.min(length + distances[others], axis=1))
        distances = distances.at[cells].min(nearest)
        return distances.at[others].min(length + nearest[:, None]), None

    def go(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        distances, _, rounds = state
        shorter = lax.scan(visit, distances, blocks)[0]
        shorter = lax.scan(visit, shorter, blocks, reverse=True)[0]
        return shorter, jnp.any(shorter < distances), rounds + 1

    def moves(state: tuple[Array, Array, Array]) -> Array:
        return state[1] & (state[2] < n_cells)  # no path has more edges

    return lax.while_loop(moves, go, (start, jnp.ones((), bool), jnp.zeros((), jnp.int32)))[0]


def _forward(lengths: Array, indices: Array, sources: Array) -> tuple[Array, tuple]:
    distances = shortest_paths(lengths, indices, sources)
    return distances, (lengths, indices, sources, distances)


@jax.jit
def _backward(saved: tuple, cotangent: Array) -> tuple[Array, None, None]:
    """Sum cotangents over all cells whose path uses an edge."""
    lengths, _, _, distances = saved
    n_cells, n_sources = distances.shape
    edges, previous = _trees(*saved)
    columns = jnp.arange(n_sources)

    def climbs(state: tuple[Array, Array]) -> Array:
        return jnp.any(state[1] < n_cells)

    def climb(state: tuple[Array, Array]) -> tuple[Array, Array]:
        """Add what each cell has gathered to the cell on its path where it has not yet been; then look twice as far."""
        gathered, ahead = state
        gathered = gathered.at[ahead, columns].add(gathered, mode="drop")
        return gathered, ahead.at[ahead, columns].get(mode="fill", fill_value=n_cells)

    cotangent = jnp.where(jnp.isfinite(distances), cotangent, 0.0)
    gathered, _ = lax.while_loop(climbs, climb, (cotangent, previous))
    pulled = jnp.zeros(lengths.size, lengths.dtype).at[edges].add(gathered, mode="drop")
    return pulled.reshape(lengths.shape), None, None


shortest_paths.defvjp(_forward, _backward)


def _trees(
    lengths: Array, indices: Array, sources: Array, distances: Array
) -> tuple[Int[Array, "cells sources"], Int[Array, "cells sources"]]:
    """Return the last edge of each shortest path, as a place in the flattened lists, and the cell it comes from.

    Where a path has none, both are one more than the last place or cell. Edges of length 0 could lead round in circles:
    a cell comes from an equally far one only if the path of that one is already known.
    """
    n_cells, n_neighbors = indices.shape
    rows = jnp.arange(n_cells, dtype=jnp.int32)
    nothing = jnp.full(distances.shape, lengths.size, jnp.int32)
    places = rows * n_neighbors + jnp.arange(n_neighbors, dtype=jnp.int32)[:, None]

    def extend(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        edges, known, _ = state

        def leads(length: Array, origin: Array, end: Array, sure: Array) -> Array:
            return (length + origin <= end) & ((origin < end) | sure)

        def look(found: Array, column: tuple[Array, Array, Array]) -> tuple[Array, None]:
            length, others, place = column[0][:, None], column[1], column[2][:, None]
            far = distances[others]
            found = jnp.where(leads(length, far, distances, known[others]), place, found)
            returning = jnp.where(leads(length, distances, far, known), place, lengths.size)
            return found.at[others].min(returning), None

        found = lax.scan(look, nothing, (lengths.T, indices.T, places))[0]
        edges = jnp.where(known, edges, found)
        return edges, known | (edges < lengths.size), jnp.any(~known & (edges < lengths.size))

    def grows(state: tuple[Array, Array, Array]) -> Array:
        return state[2] & ~jnp.all(state[1])

    known = ~jnp.isfinite(distances).at[sources, jnp.arange(sources.shape[0])].set(False)
    edges, _, _ = lax.while_loop(grows, extend, (nothing, known, jnp.ones((), bool)))
    listing = edges // n_neighbors
    ends = indices.ravel().at[edges].get(mode="fill", fill_value=n_cells)
    return edges, jnp.where(listing == rows[:, None], ends, listing)


def _reach(lengths: Array, indices: Array, start: Array) -> Float[Array, " cells"]:
    """Return the distances that follow from those known at the start, by rounds over all edges."""

    def go(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        distances, _, rounds = state
        shorter = jnp.minimum(distances, jnp.min(lengths + distances[indices], axis=1))
        shorter = shorter.at[indices].min(lengths + distances[:, None])
        return shorter, jnp.any(shorter < distances), rounds + 1

    def moves(state: tuple[Array, Array, Array]) -> Array:
        return state[1] & (state[2] < start.shape[0])

    return lax.while_loop(moves, go, (start, jnp.ones((), bool), jnp.zeros((), jnp.int32)))[0]


@jax.jit
def connected_neighbors(
    embeddings: Float[Array, "cells features"], neighbors: Neighbors, root: int | Array
) -> Neighbors:
    """Return the neighbour lists with bridges, so that paths from `root` reach every cell.

    As long as there are cells out of reach, the reached cell that is farthest along the graph gets an edge to the cell
    out of reach that is nearest to it. Which bridges are built is a hard decision; their lengths have exact gradients.

    Args:
        embeddings: Coordinates in which the neighbours were sought (cells, features).
        neighbors: Lists of neighbours (cells, neighbors).
        root: The row to start from.

    Returns:
        The lists with one more column: a bridge, or where a cell has none its own row at an infinite distance.

    References:
        The rule is that of palantir.

    Example:
        >>> line = jnp.array([[0.0], [1.0], [5.0], [6.0]])
        >>> lists = Neighbors(jnp.array([[1], [0], [3], [2]]), jnp.ones((4, 1)))
        >>> connected_neighbors(line, lists, 0).distances[:, 1].tolist()
        [inf, 4.0, inf, inf]
    """
    n_cells = embeddings.shape[0]
    cells = jnp.arange(n_cells, dtype=neighbors.indices.dtype)
    coordinates, lengths = lax.stop_gradient((embeddings, neighbors.distances))

    def spans(embeddings: Array, bridges: Array) -> Array:
        lengths = neighbor_distances(embeddings, bridges[:, None])
        return jnp.where(bridges[:, None] == cells[:, None], jnp.inf, lengths)

    def extended(lengths: Array, embeddings: Array, bridges: Array) -> Neighbors:
        indices = jnp.concatenate([neighbors.indices, bridges[:, None]], axis=1)
        return Neighbors(indices, jnp.concatenate([lengths, spans(embeddings, bridges)], axis=1))

    def reach(bridges: Array, known: Array) -> Array:
        lists = extended(lengths, coordinates, bridges)
        return _reach(lists.distances, lists.indices, known)

    def is_broken(state: tuple[Array, Array, Array]) -> Array:
        return jnp.any(jnp.isinf(state[1])) & (state[2] < n_cells)

    def build(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        bridges, reached, n_bridges = state
        # among equally far cells one without a bridge: each reached cell can only build one
        farthest = jnp.lexsort((bridges == cells, jnp.where(jnp.isinf(reached), -1.0, reached)))[-1]
        squared = jnp.sum((coordinates - coordinates[farthest]) ** 2, axis=1)
        nearest = jnp.argmin(jnp.where(jnp.isinf(reached), squared, jnp.inf)).astype(cells.dtype)
        bridges = bridges.at[farthest].set(nearest)
        return bridges, reach(bridges, reached), n_bridges + 1

    first = jnp.full(n_cells, jnp.inf, lengths.dtype).at[root].set(0.0)
    start = (cells, reach(cells, first), jnp.zeros((), jnp.int32))
    bridges, _, _ = lax.while_loop(is_broken, build, start)
    return extended(neighbors.distances, embeddings, bridges)
