"""Soft running maximum and minimum: at each place the soft extremum of the entries up to there."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.chunks import map_places
from diffbio.core.soft_ops.modes import Mode, checked_mode
from diffbio.core.soft_ops.rows import Rows, Scale, rows_of
from diffbio.core.soft_ops.scaling import difference, in_softness, keep, negative
from diffbio.core.soft_ops.simplex import simplex_max


def cumulative_max(
    x: ArrayLike,
    axis: int = -1,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    reverse: bool = False,
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
) -> Float[Array, "..."]:
    """Return at each place `max` of the entries up to and including it, with the same softness.

    Args:
        x: Any shape with at least one axis.
        axis: The axis along which the maximum runs.
        softness: In the units of `x`, above 0; a scalar or one per row.
        mode: The distribution behind the maximum, as in `argmax`; `smooth` is the running log-sum-exp, O(n), modes
            `c0` to `c2` take O(n^2) time and O(n) memory; `hard` is jax.lax.cummax.
        reverse: Run from the last entry to the first.
        where: Mask that broadcasts with `x`; a masked entry counts for nothing, its place shows the maximum so far,
            -inf before the first that counts.
        scale: The unit of `softness`: `absolute`, or `robust` for the robust spread of each row.

    Returns:
        The shape of `x`; -> jax.lax.cummax.

    Raises:
        ValueError: The softness is not above 0; an unknown mode or scale.

    Example:
        >>> cumulative_max(jnp.array([1.0, 3.0, 2.0]), softness=0.01).tolist()
        [1.0, 3.0, 3.0]
    """
    rows = rows_of(x, axis, softness, where, scale)
    return rows.restored(_running_max(rows, checked_mode(mode), reverse=reverse))


def cumulative_min(
    x: ArrayLike,
    axis: int = -1,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    reverse: bool = False,
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
) -> Float[Array, "..."]:
    """Return at each place `min` of the entries up to and including it: -cumulative_max(-x), same arguments.

    Example:
        >>> cumulative_min(jnp.array([2.0, 3.0, 1.0]), softness=0.01).tolist()
        [2.0, 2.0, 1.0]
    """
    options = {"softness": softness, "mode": mode, "reverse": reverse, "where": where, "scale": scale}
    return -cumulative_max(negative(x), axis, **options)


@functools.partial(jax.jit, static_argnames=("mode", "reverse"))
def _running_max(rows: Rows, mode: Mode, *, reverse: bool) -> Float[Array, "... n"]:
    entries = keep(rows.entries, rows.mask, -jnp.inf)
    # the largest entry so far carries no gradient of its own: its share comes through the distances to it
    top = jax.lax.cummax(jax.lax.stop_gradient(entries), axis=entries.ndim - 1, reverse=reverse)
    if mode == "hard":
        return jax.lax.cummax(entries, axis=entries.ndim - 1, reverse=reverse)
    places = jnp.broadcast_to(jnp.arange(rows.n, dtype=entries.dtype), entries.shape)

    def above_top(entries: Array, place: Array, top: Array) -> Array:
        up_to = places >= place if reverse else places <= place
        above: Any = simplex_max(_below(entries, top, rows), up_to & jnp.isfinite(entries), mode)
        return above[..., 0]

    if mode == "smooth":
        above = _running_log_sum(entries, top, rows, reverse=reverse)
    else:
        above = map_places(above_top, entries, places, top)
    return jnp.where(jnp.isfinite(top), top + rows.softness * above, top)


def _below(entries: Array, top: Array, rows: Rows) -> Array:
    return in_softness(difference(entries, top), rows.softness)


def _running_log_sum(entries: Array, top: Array, rows: Rows, *, reverse: bool) -> Array:
    """Return log(sum(exp((x - top) / softness))) of the entries up to each place."""

    def combined(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        (left_top, left_sum), (right_top, right_sum) = left, right
        both = jnp.maximum(left_top, right_top)
        fall = jnp.exp(_below(left_top, both, rows)), jnp.exp(_below(right_top, both, rows))
        return both, left_sum * fall[0] + right_sum * fall[1]

    start = jnp.exp(_below(entries, jax.lax.stop_gradient(entries), rows))
    constant = jax.lax.stop_gradient(entries)
    _, total = jax.lax.associative_scan(combined, (constant, start), axis=entries.ndim - 1, reverse=reverse)
    return jnp.log(total)
