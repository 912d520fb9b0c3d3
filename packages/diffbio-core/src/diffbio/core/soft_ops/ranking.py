"""Soft ranks.

The hard rank of an entry is 1 + the number of smaller ones (+ half the number of others equal to it). Counting is a
sum of steps, and so its relaxation:

    rank(x)_i = 1/2 + sum over j of F((x_i - x_j) / softness)

with F the step function of the mode. Ranks always sum to n (n + 1) / 2, equal entries have equal ranks, and the
gradient is at most n / (4 softness) (n / softness for `permutahedron`). As softness -> 0 the rank is that of
scipy.stats.rankdata(method="average").

Three methods:

- `prefix` sums over the sorted axis in O(n log n). Its F has the kernel (1 + |z|) exp(-|z|) / 4, whose sums obey a
  recurrence; it has three continuous derivatives and differs from the logistic function by less than 0.017.
- `pairwise` computes the sum as it stands, for any mode, in O(n^2) time and O(n) memory.
- `permutahedron` projects x / softness on the permutahedron (see `permutahedron`), O(n log n): the ranks of entries
  closer than the softness are drawn together, others are exact.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.chunks import map_places
from diffbio.core.soft_ops.kernel_sums import Sides, gaps, kernel_sums
from diffbio.core.soft_ops.modes import Mode, checked_method, checked_mode, step
from diffbio.core.soft_ops.permutahedron import permutahedron_rank
from diffbio.core.soft_ops.rows import Rows, Scale, rows_of
from diffbio.core.soft_ops.scaling import difference, in_softness, keep, negative
from diffbio.core.soft_ops.sorted_axis import ascending_order, inverse_order, mean_of_equal

RankMethod = Literal["auto", "prefix", "pairwise", "permutahedron"]


def rank(
    x: ArrayLike,
    axis: int | None = -1,
    *,
    descending: bool = False,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    method: RankMethod = "auto",
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
) -> Float[Array, "..."]:
    """Return the rank of each entry, from 1 for the smallest to n for the largest.

    Args:
        x: Any shape.
        axis: The axis along which entries are ranked; `None` for all of `x` as one row, which flattens it.
        descending: Give rank 1 to the largest.
        softness: In the units of `x`, above 0; a scalar or one per row. Entries closer than about this share ranks.
        mode: The step function that counts, as in `greater`; `hard` is scipy.stats.rankdata.
        method: `prefix`, O(n log n), mode smooth; `pairwise`, O(n^2) time and O(n) memory, all modes;
            `permutahedron`, O(n log n), modes smooth (KL) and c0 (L2). `auto` is `prefix` in mode smooth and
            `pairwise` in the others.
        where: Mask that broadcasts with `x`; a masked entry gets rank 0 and is not counted.
        scale: The unit of `softness`: `absolute`, or `robust` for the robust spread of each row.

    Returns:
        The shape of `x`; -> ranks with the mean rank for ties. Except for `permutahedron` in mode smooth, they sum to
        n (n + 1) / 2 at every softness. A row with NaN has ranks NaN.

    Raises:
        ValueError: The softness is not above 0; an unknown mode, method or scale, or a method without this mode.

    References:
        Blondel, Teboul, Berthet and Djolonga, Fast differentiable sorting and ranking, ICML 2020.

    Example:
        >>> rank(jnp.array([30.0, 10.0, 20.0]), softness=0.1).tolist()
        [3.0, 1.0, 2.0]
    """
    rows = rows_of(negative(x) if descending else x, axis, softness, where, scale)
    chosen = _chosen(method, checked_mode(mode))
    if rows.entries.size == 0:
        return rows.restored(rows.entries)
    return rows.restored(_ranks(rows, mode, chosen))


@functools.partial(jax.jit, static_argnames=("mode", "method"))
def _ranks(rows: Rows, mode: Mode, method: str) -> Float[Array, "... n"]:
    if method == "pairwise" and mode != "hard":
        ranks = map_places(lambda entries, own: _count_below(entries, own, rows, mode), rows.entries, rows.entries)
    else:
        order = ascending_order(rows.entries, rows.mask)
        counts = _taken(rows.counts, order)
        # an entry that does not count is infinitely far from all others
        ascending = jnp.where(counts, _taken(rows.entries, order), jnp.inf)
        if mode == "hard":
            places = jnp.arange(1, rows.n + 1, dtype=ascending.dtype)
            apart = jnp.where(counts, ascending, jnp.nan)
            in_place = mean_of_equal(apart, jnp.broadcast_to(places, ascending.shape))
        elif method == "prefix":
            in_place = prefix_rank(ascending, counts, rows.softness)
        else:
            in_place = permutahedron_rank(ascending, counts, rows.softness, mode)
        ranks = _taken(in_place, inverse_order(order))
    return keep(rows.nan_shown(ranks), rows.mask)


@jax.custom_jvp
def prefix_rank(
    ascending: Float[Array, "... n"], counts: Float[Array, "... n"], softness: Float[Array, "... 1"]
) -> Float[Array, "... n"]:
    """Return the soft ranks of entries in ascending order, those that do not count last, by prefix sums.

    Below an entry, each entry at distance d counts 1 - (2 + d) exp(-d) / 4, above it (2 + d) exp(-d) / 4.
    """
    return _counted(kernel_sums(gaps(ascending, softness), counts.astype(ascending.dtype), 2))


def _counted(own: Sides) -> Array:
    shared = (2 * (own.above[0] - own.below[0]) + own.above[1] - own.below[1]) / 4
    return jnp.arange(1, shared.shape[-1] + 1, dtype=shared.dtype) + shared


@prefix_rank.defjvp
def _prefix_rank_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (ascending, counts, softness), (moved, _, dsoftness) = primals, tangents
    gap, weights = gaps(ascending, softness), counts.astype(ascending.dtype)
    own = kernel_sums(gap, weights, 3)
    others = kernel_sums(gap, weights * moved, 2)
    kernel = own.below[0] + own.above[0] + own.below[1] + own.above[1]
    pulled = others.below[0] + others.above[0] + others.below[1] + others.above[1]
    stretched = own.below[1] + own.below[2] - own.above[1] - own.above[2]
    tangent = (kernel * moved - pulled - stretched * dsoftness) / (4 * softness)
    return _counted(own), tangent


def _count_below(entries: Array, own: Array, rows: Rows, mode: Mode) -> Array:
    """Return 1/2 + the soft number of entries below one per row, itself counted half."""
    passed: Any = step(in_softness(difference(own, entries), rows.softness), mode)
    return 0.5 + keep(passed, rows.mask).sum(-1)


def _chosen(method: str, mode: Mode) -> str:
    chosen = checked_method(method, ("prefix", "pairwise", "permutahedron"))
    if method == "auto" and mode != "smooth":
        return "pairwise"
    if chosen == "prefix":
        checked_mode(mode, ("hard", "smooth"), " with method='prefix'; method='pairwise' has all")
    return chosen


def _taken(values: Array, places: Array) -> Array:
    return jnp.take_along_axis(values, places, axis=-1)
