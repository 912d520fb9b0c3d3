"""One implicit threshold: soft top-k membership, and the engine of quantiles.

A hard decision of the form "the k largest" is x > b for a threshold b that lets k entries pass. Its relaxation keeps
the count: b is the root of sum(F((x - b) / softness)) = k, with F the step function of a mode (see `modes`). The sum
falls with b, so the root is unique (where the sum is flat, any root gives the same mask); k may be any real number.
Derivatives are closed, with f = F'((x - b) / softness) and share = f / sum(f):

    db = <share, dx> - <share, x - b> dsoftness / softness - softness dk / sum(f)

so that no iteration is differentiated and memory is O(n). The root is bracketed by the k-th largest entry, which
`order_statistic` finds without sorting, and then found by Newton's method.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.modes import SUPPORT, Mode, checked_mode, slope, step
from diffbio.core.soft_ops.order_statistic import how_many, mth_largest
from diffbio.core.soft_ops.rows import Rows, Scale, rows_of
from diffbio.core.soft_ops.scaling import Mask, difference, in_softness, keep, known

_MOST_STEPS = 60
_PRECISION = 1e-6  # of b, in units of the softness


def top_k_mask(
    x: ArrayLike,
    k: ArrayLike,
    axis: int | None = -1,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
) -> Float[Array, "..."]:
    """Return how much each entry belongs to the `k` largest: values in [0, 1] that sum to `k`.

    Args:
        x: Any shape with at least one axis.
        k: Any real number from 0 to the length n of the axis; may be traced, learned, and differ per row (with
            length 1 in `axis`). At 0 the mask is all 0, at n all 1. A traced `k` out of range counts as the nearest
            in range.
        axis: The axis along which entries compete; `None` for all of `x`.
        softness: In the units of `x`, above 0; a scalar or one per row. Equal entries get equal membership at every
            softness.
        mode: The step function, as in `greater`. Mode `c0` is the projection of x / (4 softness) on the capped
            simplex; `hard` is 1 for the first k largest, 0 for others.
        where: Mask that broadcasts with `x`; a masked entry has membership 0. Where fewer than `k` entries are
            left, all of these are members.
        scale: The unit of `softness`: `absolute`, or `robust` for the robust spread of each row.

    Returns:
        The shape of `x`; -> 1 for the k largest and 0 for the rest. Its derivative in `k` sums to 1, and to 0 where a
        gap is so wide that all steps are saturated. NaN where an entry is.

    Raises:
        ValueError: `k` is known not to be between 0 and n; the softness is not above 0; an unknown mode or scale.

    Example:
        >>> top_k_mask(jnp.array([3.0, 1.0, 2.0]), 2, softness=1e-3).tolist()
        [1.0, 0.0, 1.0]
        >>> float(jax.grad(lambda k: top_k_mask(jnp.arange(5.0), k, softness=1.0).sum())(2.5))
        1.0
    """
    rows = rows_of(x, axis, softness, where, scale)
    target = jnp.broadcast_to(checked_count(k, rows), rows.softness.shape)
    if checked_mode(mode) == "hard":
        return rows.restored(_first_k_largest(rows, target))
    return rows.restored(_membership(rows, target, mode))


@functools.partial(jax.jit, static_argnames="mode")
def _membership(rows: Rows, target: Float[Array, "... 1"], mode: Mode) -> Float[Array, "... n"]:
    count = rows.count
    inside = (target > 0) & (target < count)
    excess: Any = excess_over_threshold(rows.entries, rows.softness, jnp.where(inside, target, 0.5), rows.mask, mode)
    mask = jnp.where(inside, step(excess, mode), (target > 0).astype(excess.dtype))
    return keep(rows.nan_shown(mask), rows.mask)


def checked_count(k: ArrayLike, rows: Rows) -> Float[Array, "... 1"]:
    """Return `k`, a number of entries, as a float array that broadcasts with the rows.

    Raises:
        ValueError: It is known not to be between 0 and the length of the axis.
    """
    if known(k) and not np.all((np.asarray(k) >= 0) & (np.asarray(k) <= rows.n)):
        raise ValueError(f"k is {k}; it must be between 0 and {rows.n}, the number of entries of the axis")
    return jnp.asarray(k, rows.entries.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def excess_over_threshold(
    x: Float[Array, "... n"],
    softness: Float[Array, "... 1"],
    target: Float[Array, "... 1"],
    mask: Mask,
    mode: Mode,
) -> Float[Array, "... n"]:
    """Return (x - b) / softness for the b at which the steps of a row sum to `target`.

    Args:
        x: Entries; leading axes broadcast with `target`.
        softness: In the units of `x`.
        target: Above 0 and below the number of entries that count.
        mask: Which entries count.
        mode: The step function, not `hard`.

    Returns:
        The distances to the threshold. They are measured from an entry of the row, so that a softness below the
        spacing of floats around `x` is resolved too.
    """
    pivot, offset = _solve(x, softness, target, mask, mode)
    return in_softness(difference(x, pivot), softness) - offset


@excess_over_threshold.defjvp
def _excess_jvp(mode: Mode, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, softness, target, mask), (dx, dsoftness, dtarget, _) = primals, tangents
    excess: Any = excess_over_threshold(x, softness, target, mask, mode)
    share, total = _shares(excess, mask, mode)
    moved = (dx - excess * dsoftness) / softness
    return excess, moved - (share * moved).sum(-1, keepdims=True) + dtarget / total


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def threshold(
    x: Float[Array, "... n"],
    softness: Float[Array, "... 1"],
    target: Float[Array, "... 1"],
    mask: Mask,
    mode: Mode,
) -> Float[Array, "... 1"]:
    """Return the b at which the steps of a row sum to `target`; arguments as in `excess_over_threshold`."""
    pivot, offset = _solve(x, softness, target, mask, mode)
    return pivot + softness * offset


@threshold.defjvp
def _threshold_jvp(mode: Mode, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, softness, target, mask), (dx, dsoftness, dtarget, _) = primals, tangents
    excess: Any = excess_over_threshold(x, softness, target, mask, mode)
    share, total = _shares(excess, mask, mode)
    moved = (share * (dx - excess * dsoftness)).sum(-1, keepdims=True)
    return threshold(x, softness, target, mask, mode), moved - softness * dtarget / total


def threshold_weights(excess: Float[Array, "... n"], mask: Mask, mode: Mode) -> Array:
    """Return the derivative of the threshold in each entry: a distribution over the entries near it."""
    return _shares(excess, mask, mode)[0]


def _shares(excess: Array, mask: Array | None, mode: Mode) -> tuple[Array, Array]:
    """Return f / sum(f), 0 where all steps are saturated to the last bit and b has no derivative, and sum(f)."""
    rates = keep(slope(excess, mode), mask)
    total = rates.sum(-1, keepdims=True)
    share = rates / jnp.where(total > 0, total, 1)
    return share, jnp.where(total > 0, total, jnp.inf)


@functools.partial(jax.jit, static_argnums=4)  # called eagerly, the loop below would compile at each call
def _solve(
    x: Array, softness: Array, target: Array, mask: Array | None, mode: Mode
) -> tuple[Float[Array, "... 1"], Float[Array, "... 1"]]:
    """Return an entry near the threshold, and how far above it b lies in units of the softness.

    What the entries above the pivot lack to 1 is compared with what the others have, by the logarithm of their
    ratio: each is nearly exponential in b far from the entries, where Newton's method is then exact.
    """
    count = how_many(jnp.ones(x.shape, bool), mask)
    place = jnp.clip(jnp.ceil(target), 1, jnp.maximum(count, 1))
    pivot = jnp.where(count > 0, mth_largest(x, place.astype(jnp.int32), mask), 0)
    beyond = how_many(x > pivot, mask)
    up_to = how_many(x >= pivot, mask)
    closed = up_to <= target  # then the pivot, and what equals it, counts among the entries above
    below = jnp.where(keep(x < pivot, mask), x, -jnp.inf).max(-1, keepdims=True, initial=-jnp.inf)
    low, high = _bracket(target, count, place, mode, x.dtype)
    gap = jnp.where(closed, in_softness(difference(pivot, below), softness), 0)
    low -= gap
    missing = jnp.where(closed, up_to, beyond) - target

    def balance(offset: Array) -> tuple[Array, Array]:
        distance = in_softness(difference(x, pivot), softness)
        above = (distance > 0) | (closed & (x == pivot))
        z = distance - offset
        passed = keep(jnp.where(above, 0, step(z, mode)), mask).sum(-1, keepdims=True) + jnp.maximum(missing, 0)
        lacked = keep(jnp.where(above, step(-z, mode), 0), mask).sum(-1, keepdims=True) + jnp.maximum(-missing, 0)
        rates = keep(slope(z, mode), mask)
        pace = jnp.where(above, 0, rates).sum(-1, keepdims=True) / passed
        pace += jnp.where(above, rates, 0).sum(-1, keepdims=True) / lacked
        return jnp.where(passed == lacked, 0, jnp.log(passed) - jnp.log(lacked)), pace

    def unfinished(state: tuple) -> Array:
        step_number, *_, moving = state
        return (step_number < _MOST_STEPS) & jnp.any(moving)

    def newton(state: tuple) -> tuple:
        step_number, offset, low, high, moving = state
        surplus, pace = balance(offset)
        low, high = jnp.where(surplus > 0, offset, low), jnp.where(surplus < 0, offset, high)
        new = offset + surplus / pace
        new = jnp.where((new > low) & (new < high), new, low + (high - low) / 2)
        new = jnp.where((surplus == 0) | ~moving, offset, new)
        return step_number + 1, new, low, high, jnp.abs(new - offset) > _PRECISION * (1 + jnp.abs(offset))

    start = -gap / 2
    state = (0, start, low, high, jnp.ones_like(start, bool))
    return pivot, jax.lax.while_loop(unfinished, newton, state)[1]


def _bracket(target: Array, count: Array, place: Array, mode: Mode, dtype: Any) -> tuple[Array, Array]:
    """Return bounds of b around the pivot, in units of the softness."""
    if mode != "smooth":
        width = jnp.full(target.shape, SUPPORT[mode], dtype)
        return -width, width
    least = jnp.finfo(dtype).eps
    up = jnp.log(jnp.maximum(count, 1) / jnp.maximum(target - (place - 1), least)) + 1
    next_place = jnp.floor(target) + 1
    down = jnp.log(next_place / jnp.maximum(next_place - target, least)) + 1
    return -down, up


def _first_k_largest(rows: Rows, k: Array) -> Array:
    """Return 1 for the k largest, among equal ones for the first."""
    x, count = rows.entries, rows.count
    whole = jnp.floor(jnp.minimum(k, count))
    pivot = mth_largest(x, jnp.clip(whole, 1, jnp.maximum(count, 1)).astype(jnp.int32), rows.mask)
    ties = keep(x == pivot, rows.mask)
    room = whole - how_many(x > pivot, rows.mask)
    members = keep(x > pivot, rows.mask) | (ties & (jnp.cumsum(ties, axis=-1) <= room))
    return keep(rows.nan_shown((members & (whole > 0)).astype(x.dtype)), rows.mask)
