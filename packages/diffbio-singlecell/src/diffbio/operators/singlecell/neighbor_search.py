"""Exhaustive search of nearest points, exact up to the rounding of matrix products, in memory linear in the points.

A block of queries meets all points in one matrix product, since |x - y|^2 - |x|^2 = [x, 1] . [-2 y, |y|^2]. Of these
scores only the least of each group of some twenty points is ranked at first: the m best points lie in the m groups
with the best minima, so that the costly partial sort sees a tenth of the scores and still misses nothing.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

_QUERIES = 128  # in a block: their scores against one chunk of points fit in a few MB
_POINTS = 1 << 15  # in a chunk


def candidates(
    query: Float[Array, "queries features"],
    points: Float[Array, "points features"],
    n_candidates: int,
    *,
    present: Bool[Array, " points"] | None = None,
    block_size: int = _QUERIES,
) -> tuple[Int[Array, "queries candidates"], Bool[Array, "queries candidates"]]:
    """Return for each query the rows of the points nearest to it, up to the rounding of matrix products.

    Args:
        query: Coordinates (queries, features).
        points: Coordinates among which is sought (points, features).
        n_candidates: Between 1 and the number of points.
        present: Which points may be found (points,); `None` for all.
        block_size: Queries per block; it changes time and memory, not the result.

    Returns:
        Rows in `points`, in no order, and whether each was found: not where fewer points are present than asked for.
        No gradient goes through.

    Example:
        >>> rows, found = candidates(jnp.array([[0.9]]), jnp.array([[0.0], [1.0], [3.0]]), 2)
        >>> sorted(rows[0].tolist()), found.tolist()
        ([0, 1], [[True, True]])
    """
    query, points = lax.stop_gradient(query), lax.stop_gradient(points)
    if present is not None:
        points = jnp.where(present[:, None], points, 0.0)
    n_queries, n_points = len(query), len(points)
    origin = points.mean(axis=0)  # a common shift keeps the products small, hence exact
    query, points = query - origin, points - origin
    unit = jnp.maximum(power_of_two(query), power_of_two(points))
    query, points = query / unit, points / unit

    chunk = min(n_points, _POINTS)
    group = max(1, math.isqrt(chunk // n_candidates))  # makes groups as many as candidates in the best groups
    chunk = -(-chunk // group) * group
    n_chunks, n_blocks = -(-n_points // chunk), -(-n_queries // min(block_size, n_queries))
    block = -(-n_queries // n_blocks)

    norms = jnp.sum(points**2, axis=-1)
    if present is not None:
        points, norms = jnp.where(present[:, None], points, 0.0), jnp.where(present, norms, jnp.inf)
    missing = n_chunks * chunk - n_points
    right = jnp.concatenate([-2 * points, norms[:, None]], axis=1)
    right = jnp.pad(right, ((0, missing), (0, 0)))
    right = right.at[n_points:, -1].set(jnp.inf).reshape(n_chunks, chunk, -1)
    left = jnp.concatenate([query, jnp.ones_like(query[:, :1])], axis=1)
    left = jnp.pad(left, ((0, n_blocks * block - n_queries), (0, 0))).reshape(n_blocks, block, -1)
    starts = jnp.arange(n_chunks, dtype=jnp.int32) * chunk

    def of_block(rows: Array) -> tuple[Array, Array]:
        def visit(best: tuple[Array, Array], part: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            columns, start = part
            scores = jnp.matmul(rows, columns.T, precision=lax.Precision.HIGHEST)
            scores, where = _of_best_groups(scores, group, n_candidates)
            scores = jnp.concatenate([best[0], scores], axis=1)
            where = jnp.concatenate([best[1], where + start], axis=1)
            negative, order = lax.top_k(-scores, n_candidates)
            return (-negative, jnp.take_along_axis(where, order, axis=1)), None

        none_yet = jnp.full((block, n_candidates), jnp.inf, rows.dtype)
        scores, where = lax.scan(visit, (none_yet, jnp.zeros((block, n_candidates), jnp.int32)), (right, starts))[0]
        return where, scores < jnp.inf

    rows, found = lax.map(of_block, left)
    return rows.reshape(-1, n_candidates)[:n_queries], found.reshape(-1, n_candidates)[:n_queries]


def power_of_two(values: Array) -> Float[Array, ""]:
    """Return a power of two near the largest magnitude: dividing by it rounds nothing and squares fit in float32.

    Args:
        values: Any shape, finite.

    Example:
        >>> float(power_of_two(jnp.array([3.0, -5.0])))
        8.0
    """
    exponent = jnp.frexp(jnp.max(jnp.abs(lax.stop_gradient(values))))[1]
    return jnp.ldexp(jnp.ones((), values.dtype), jnp.clip(exponent, -125, 126))


def _of_best_groups(
    scores: Float[Array, "block chunk"], group: int, n_candidates: int
) -> tuple[Float[Array, "block few"], Int[Array, "block few"]]:
    """Return the scores of those groups that hold the best ones, and their columns."""
    block, chunk = scores.shape
    n_groups = chunk // group
    columns = jnp.arange(chunk, dtype=jnp.int32).reshape(group, n_groups)
    if group == 1 or n_groups <= n_candidates:
        return scores, jnp.broadcast_to(columns.ravel(), scores.shape)
    grouped = scores.reshape(block, group, n_groups)  # a group is spread over the chunk, for vectorized minima
    best = lax.top_k(-grouped.min(axis=1), n_candidates)[1]
    few = jnp.take_along_axis(grouped, best[:, None, :], axis=2)
    where = jnp.broadcast_to(best[:, None, :], few.shape) + columns[:, :1]
    return few.reshape(block, -1), where.reshape(block, -1).astype(jnp.int32)
