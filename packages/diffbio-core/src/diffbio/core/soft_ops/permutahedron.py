"""Projections on the permutahedron: ranks and sorted values that are exact where entries are well apart.

The permutahedron of w is the convex hull of all orders of w. The hard ranks of x are the point of the permutahedron of
(1, ..., n) that is furthest in the direction x, the sorted values that of the permutahedron of x in the direction
(1, ..., n). Adding a quadratic term makes this a projection (mode c0, L2), adding an entropy one in the geometry of
Kullback and Leibler (mode smooth, KL), and both are an isotonic regression on the sorted axis (Blondel et al., Fast
differentiable sorting and ranking, ICML 2020): with z the direction in ascending order and w ascending, the result is
z - v, where v is the nondecreasing fit of z - w. The fit is constant on blocks, in which the result is z shifted so
that it has the sum of w (L2) or the sum of exp(w) (KL) over the block; outside of larger blocks it is w itself.

The blocks are found by merging: neighbouring fits are joined by the one value at which what lies above it on the left
balances what lies below it on the right. Segments of length 1 are joined in groups of 32, the groups again, and so
on: O(n log n) work in steps of whole arrays, on any device and under vmap, where pooling adjacent violators one by
one would be n steps.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffbio.core.soft_ops.modes import Mode, checked_mode
from diffbio.core.soft_ops.scaling import difference, quotient
from diffbio.core.soft_ops.sorted_axis import mean_of_equal, run_starts

_MOST_STEPS = 60
_SEGMENTS = 32  # joined in one loop: with fewer there are more loops to compile
_REASON = " with method='permutahedron': 'smooth' projects by Kullback-Leibler, 'c0' by L2"


def permutahedron_rank(
    entries: Float[Array, "... n"], counts: Bool[Array, "... n"], softness: Float[Array, "... 1"], mode: Mode
) -> Float[Array, "... n"]:
    """Return the projection of entries / softness on the permutahedron of (1, ..., n).

    Args:
        entries: In ascending order, those that do not count last.
        counts: Which count; the others get no rank.
        softness: In the units of the entries: those closer than this are drawn together.
        mode: `c0` for L2, `smooth` for KL.
    """
    checked_mode(mode, ("smooth", "c0"), _REASON)
    places = jnp.broadcast_to(jnp.arange(1, entries.shape[-1] + 1, dtype=entries.dtype), entries.shape)
    if mode == "c0":
        blocks = _isotonic_blocks(entries / softness, places, counts, mode)
        return _level(places, blocks) + quotient(_within(entries, blocks), softness)
    logs = jnp.log(places)
    blocks = _isotonic_blocks(entries / softness, logs, counts, mode)
    return jnp.exp(_log_level(logs, blocks) + _log_within(quotient(_from_start(entries, blocks), softness), blocks))


def permutahedron_sort(
    entries: Float[Array, "... n"], counts: Bool[Array, "... n"], softness: Float[Array, "... 1"], mode: Mode
) -> Float[Array, "... n"]:
    """Return the projection of (1, ..., n) / softness on the permutahedron of the entries.

    The result is exact where neighbours are at most 1 / softness apart, and draws them to that distance otherwise:
    this softness is in inverse units of the entries.

    Args:
        entries: In ascending order, those that do not count last.
        counts: Which count.
        softness: The inverse of the largest distance between neighbours that is left as it is.
        mode: `c0` for L2, `smooth` for KL, which keeps the sum of exp(entries) instead of that of the entries.
    """
    checked_mode(mode, ("smooth", "c0"), _REASON)
    places = jnp.broadcast_to(jnp.arange(entries.shape[-1], dtype=entries.dtype), entries.shape)
    blocks = _isotonic_blocks(places / softness, entries, counts, mode)
    if mode == "c0":
        return _level(entries, blocks) + quotient(_within(places, blocks), softness)
    return _log_level(entries, blocks) + _log_within(quotient(_from_start(places, blocks), softness), blocks)


def _level(w: Array, blocks: Array) -> Array:
    """Return the mean of w over each block."""
    start = _from_start(w, blocks)
    return w - start + mean_of_equal(blocks, start)


def _within(z: Array, blocks: Array) -> Array:
    """Return z minus its mean over each block, exactly 0 in blocks of one."""
    start = _from_start(z, blocks)
    return start - mean_of_equal(blocks, start)


def _log_level(w: Array, blocks: Array) -> Array:
    """Return log(mean(exp(w))) over each block."""
    start = _from_start(w, blocks)
    top = _largest_of_block(start, blocks)
    return w - start + top + jnp.log(mean_of_equal(blocks, jnp.exp(start - top)))


def _log_within(start: Array, blocks: Array) -> Array:
    """Return z minus log(mean(exp(z))) over each block, for z measured from the start of its block."""
    top = _largest_of_block(start, blocks)
    return start - top - jnp.log(mean_of_equal(blocks, jnp.exp(start - top)))


def _first_of_block(blocks: Array) -> Array:
    places = jnp.arange(blocks.shape[-1])
    return jax.lax.cummax(jnp.where(run_starts(blocks), places, 0), axis=blocks.ndim - 1)


def _from_start(values: Array, blocks: Array) -> Array:
    """Return values minus the first of their block: small differences stay small numbers."""
    return difference(values, jnp.take_along_axis(values, _first_of_block(blocks), axis=-1))


def _largest_of_block(ascending: Array, blocks: Array) -> Array:
    """Return the last value of each block, as a constant."""
    mirrored = jnp.flip(jax.lax.stop_gradient(ascending), -1)
    return jnp.flip(jnp.take_along_axis(mirrored, _first_of_block(jnp.flip(blocks, -1)), axis=-1), -1)


@functools.partial(jax.jit, static_argnums=3)  # called eagerly, the loops below would compile at each call
def _isotonic_blocks(z: Array, w: Array, counts: Array, mode: Mode) -> Array:
    """Return the nondecreasing fit of z - w, which is constant on blocks; it carries no gradient."""
    z, w = jax.lax.stop_gradient((z, w))
    n, length, n_padded = z.shape[-1], 1, 1
    while n_padded < n:
        n_padded *= _SEGMENTS
    padding = [(0, 0)] * (z.ndim - 1) + [(0, n_padded - n)]
    # what does not count is NaN: it neither is above or below anything, nor equal to a neighbour
    fit = jnp.pad(jnp.where(counts, difference(z, w), jnp.nan), padding, constant_values=jnp.nan)
    z, w = jnp.pad(z, padding), jnp.pad(w, padding)
    while length < n_padded:
        segmented = (*z.shape[:-1], -1, _SEGMENTS, length)
        fit = _joined(fit.reshape(segmented), z.reshape(segmented), w.reshape(segmented), mode).reshape(z.shape)
        length *= _SEGMENTS
    return fit[..., :n]


def _joined(fit: Array, z: Array, w: Array, mode: Mode) -> Array:
    """Return the fit of each group of segments (..., segments, length), given the fits of its segments."""
    segment = jnp.arange(_SEGMENTS)[:, None]
    rounding = 8 * jnp.finfo(fit.dtype).eps

    def join_next(right: Array, fit: Array) -> Array:
        highest, lowest = fit[..., right - 1, -1], fit[..., right, 0]
        violated = highest > lowest

        def pool(value: Array) -> Array:
            value = value[..., None, None]
            return ((segment < right) & (fit > value)) | ((segment == right) & (fit < value))

        def balance(value: Array) -> Array:
            members = pool(value)
            if mode == "smooth":
                return _log_sum(z, members) - _log_sum(w, members)
            # measured from the value itself, so that no large numbers are summed
            off = jnp.where(members, fit - value[..., None, None], 0).sum((-2, -1))
            return value + off / jnp.maximum(members.sum((-2, -1)), 1)

        def unfinished(state: tuple) -> Array:
            step, *_, moving = state
            return (step < _MOST_STEPS) & jnp.any(moving)

        def narrow(state: tuple) -> tuple:
            step, value, low, high, moving = state
            new = balance(value)
            low, high = jnp.where(new > value, value, low), jnp.where(new < value, value, high)
            new = jnp.where((new >= low) & (new <= high), new, low + (high - low) / 2)
            new = jnp.where(moving, new, value)
            return step + 1, new, low, high, jnp.abs(new - value) > rounding * jnp.maximum(jnp.abs(value), 1)

        low, high = jnp.where(violated, lowest, 0), jnp.where(violated, highest, 0)
        value = jax.lax.while_loop(unfinished, narrow, (0, low + (high - low) / 2, low, high, violated))[1]
        return jnp.where(violated[..., None, None] & pool(value), value[..., None, None], fit)

    return jax.lax.fori_loop(1, _SEGMENTS, join_next, fit)


def _log_sum(values: Array, members: Array) -> Array:
    return jax.nn.logsumexp(values, axis=(-2, -1), where=members)
