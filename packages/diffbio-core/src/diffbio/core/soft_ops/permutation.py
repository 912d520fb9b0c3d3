"""Soft permutation matrices: for each place of an order, a distribution over the entries.

The hard matrix has a one where the entry belongs to the place. Three relaxations of it:

- SoftSort (Prillo and Eisenschlos 2020): the entries near in value to the sorted entry s of the place,
  weights(-|s - x| / softness). Local: an entry far away changes nothing.
- NeuralSort (Grover et al. 2019): weights(((2 j + 1 - n) x - sum of |x - x_i|) / softness) for place j = 0, ..., n - 1
  in ascending order. Unimodal in each row, but the pairwise sums see every entry, near or far.
- Sinkhorn: the weights of SoftSort, scaled until columns sum to 1 like rows (Sinkhorn and Knopp 1967), so that each
  entry is given away once: a doubly stochastic matrix.

The weights are those of `simplex` for the mode. As softness -> 0 each row is one-hot; equal entries share it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffbio.core.soft_ops.modes import Mode, checked_mode
from diffbio.core.soft_ops.rows import Rows
from diffbio.core.soft_ops.scaling import difference, in_softness, quotient
from diffbio.core.soft_ops.simplex import largest, log_simplex_weights, simplex_weights
from diffbio.core.soft_ops.sorted_axis import ascending_order, in_order, inverse_order

_SINKHORN_STEPS = 200
_NOTHING = -1e9  # the logarithm of no mass, finite so that it can be added to and subtracted from


def softsort_weights(
    entries: Float[Array, "... n"], anchors: Float[Array, "... k"], rows: Rows, mode: Mode, *, log: bool = False
) -> Float[Array, "... k n"]:
    """Return for each anchor, a sorted entry, the distribution over the entries near it."""
    scores = in_softness(-jnp.abs(difference(anchors[..., :, None], entries[..., None, :])), rows.softness[..., None])
    return _weights(scores, rows, mode, log=log)


def neuralsort_weights(
    entries: Float[Array, "... n"],
    places: Float[Array, "... k"],
    rows: Rows,
    mode: Mode,
    *,
    distances: Float[Array, "... n"],
    log: bool = False,
) -> Float[Array, "... k n"]:
    """Return the distribution over the entries for each place, 0 being that of the smallest.

    `distances` are those of `sum_of_distances`; the entries must be finite.
    """
    slopes = (2 * places + 1 - rows.count)[..., :, None]
    # computed once, and not again by each program that uses them: a rounding away from their maximum, in units of a
    # small softness, would be far below it
    sums = jax.lax.optimization_barrier(slopes * entries[..., None, :] - distances[..., None, :])
    top = largest(sums, None if rows.mask is None else rows.mask[..., None, :])
    scores: Any = quotient(sums - top, rows.softness[..., None])
    return _weights(scores, rows, mode, log=log)


def sinkhorn_weights(
    entries: Float[Array, "... n"], anchors: Float[Array, "... n"], rows: Rows, mode: Mode, *, log: bool = False
) -> Float[Array, "... n n"]:
    """Return the weights of SoftSort for all places, scaled to sum to 1 over the places too.

    Rows sum to 1 exactly, columns to about 1e-3, where 200 alternations get.
    """
    checked_mode(mode, ("smooth",), " with method='sinkhorn'")
    logs = softsort_weights(entries, anchors, rows, mode, log=True)
    places = places_that_count(rows)
    logs = jnp.where(places[..., :, None] & rows.counts[..., None, :], logs, _NOTHING)

    @jax.checkpoint  # only the scales are kept for the gradient, not a matrix per step
    def alternate(scales: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        by_place, by_entry = scales
        by_entry = -jax.nn.logsumexp(logs + by_place, axis=-2, keepdims=True)
        by_entry = jnp.where(rows.counts[..., None, :], by_entry, 0)
        by_place = -jax.nn.logsumexp(logs + by_entry, axis=-1, keepdims=True)
        return (jnp.where(places[..., :, None], by_place, 0), by_entry), None

    start = (jnp.zeros_like(logs[..., :, :1]), jnp.zeros_like(logs[..., :1, :]))
    (by_place, by_entry), _ = jax.lax.scan(alternate, start, None, length=_SINKHORN_STEPS)
    logs = logs + by_place + by_entry
    return jnp.where(logs > _NOTHING / 2, logs, -jnp.inf) if log else jnp.exp(logs)


def places_that_count(rows: Rows) -> Bool[Array, "... n"]:
    """Return which places of the order have an entry: as many as are not masked, from the first."""
    return jnp.arange(rows.n) < rows.count


def _weights(scores: Array, rows: Rows, mode: Mode, *, log: bool) -> Array:
    mask = None if rows.mask is None else jnp.broadcast_to(rows.mask[..., None, :], scores.shape)
    return (log_simplex_weights if log else simplex_weights)(scores, mask, mode)


def sum_of_distances(rows: Rows) -> Array:
    """Return the sum of |x - x_i| over the entries that count, for each entry, in O(n log n).

    From one sorted entry to the next, the distances to all before it grow by the gap, those to all others shrink.
    """
    order = ascending_order(rows.entries, rows.mask)
    counts = jnp.take_along_axis(rows.counts, order, axis=-1)
    ascending = in_order(rows.entries, order)
    gap = jnp.diff(ascending, prepend=ascending[..., :1])
    change = jnp.cumsum((2 * jnp.arange(rows.n) - rows.count) * jnp.where(counts, gap, 0), axis=-1)
    first = jnp.where(counts, ascending - ascending[..., :1], 0).sum(-1, keepdims=True)
    return jnp.take_along_axis(first + change, inverse_order(order), axis=-1)
