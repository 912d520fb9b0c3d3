"""Soft sort and argsort.

The hard order puts the k-th smallest entry in place k. Its relaxation fills each place with a mean of the entries
(see `permutation` for the distributions), `sort` returns these means, `argsort` the distributions:

- `softsort`: means of the entries near in value, within about a softness. Smooth mode in O(n log n) by prefix sums
  (see `softsort`), other modes in O(n^2) time and O(n) memory.
- `neuralsort`: O(n^2) time and O(n) memory for values.
- `sinkhorn`: doubly stochastic, O(n^2) memory, 200 times that in time; mode smooth.
- `permutahedron`: values only, O(n log n), exact where neighbours are at most 1 / softness apart (see
  `permutahedron`); modes smooth (KL) and c0 (L2).

All of them order the entries first, so that they are continuous everywhere but differentiable only where no two
entries are equal; there, equal entries get the mean of their gradients. As softness -> 0 values are jnp.sort's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.chunks import map_places
from diffbio.core.soft_ops.modes import Mode, checked_method, checked_mode
from diffbio.core.soft_ops.permutahedron import permutahedron_sort
from diffbio.core.soft_ops.permutation import (
    neuralsort_weights,
    places_that_count,
    sinkhorn_weights,
    softsort_weights,
    sum_of_distances,
)
from diffbio.core.soft_ops.rows import Rows, Scale, rows_of
from diffbio.core.soft_ops.scaling import SoftIndex, keep, negative
from diffbio.core.soft_ops.selection import expectation
from diffbio.core.soft_ops.softsort import softsort_values
from diffbio.core.soft_ops.sorted_axis import ascending_order, in_order

SortMethod = Literal["auto", "softsort", "neuralsort", "sinkhorn", "permutahedron"]
ArgsortMethod = Literal["auto", "softsort", "neuralsort", "sinkhorn"]


def sort(
    x: ArrayLike,
    axis: int | None = -1,
    *,
    descending: bool = False,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    method: SortMethod = "auto",
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
) -> Float[Array, "..."]:
    """Return the entries in order, each place a mean of the entries that could be there.

    Args:
        x: Any shape.
        axis: The axis to sort; `None` for all of `x` as one row, which flattens it.
        descending: Put the largest first.
        softness: In the units of `x`, above 0; a scalar or one per row: entries further apart than this hardly mix.
            For `permutahedron` in inverse units.
        mode: How the weights fall (see `argmax`); `hard` is jnp.sort.
        method: As in the module's table; `auto` is `softsort`, on every device and at every size.
        where: Mask that broadcasts with `x`; a masked entry is in no place. The last places, as many as entries are
            masked, are 0.
        scale: The unit of `softness`: `absolute`, or `robust` for the robust spread of each row.

    Returns:
        The shape of `x`; -> jnp.sort. Equal entries stay equal.

    Raises:
        ValueError: The softness is not above 0; an unknown mode, method or scale, or a method without this mode.

    References:
        Prillo and Eisenschlos, SoftSort, ICML 2020. Grover et al., NeuralSort, ICLR 2019. Blondel et al., Fast
        differentiable sorting and ranking, ICML 2020.

    Example:
        >>> sort(jnp.array([3.0, 1.0, 2.0]), softness=1e-3).tolist()
        [1.0, 2.0, 3.0]
    """
    rows = rows_of(negative(x) if descending else x, axis, softness, where, scale)
    mode = checked_mode(mode)
    chosen = checked_method(method, ("softsort", "neuralsort", "sinkhorn", "permutahedron"))
    if rows.entries.size == 0:
        return rows.restored(rows.entries)
    values = _values(rows, mode, chosen)
    return rows.restored(-values if descending else values)


@functools.partial(jax.jit, static_argnames=("mode", "method"))
def _values(rows: Rows, mode: Mode, method: str) -> Float[Array, "... n"]:
    ascending, counts = in_ascending_order(rows)
    if mode == "hard":
        values = ascending
    elif method == "softsort" and mode == "smooth":
        values = softsort_values(ascending, counts, rows.softness)
    else:
        # numbers come first, then NaN, then what is masked
        unknown = jnp.isnan(ascending)
        known = counts & ~unknown
        means = _means_of_numbers(rows.numbers(), jnp.where(known, ascending, 0), known, mode, method)
        values = jnp.where(unknown, jnp.nan, means)
    return values if rows.mask is None else jnp.where(counts, values, 0)


def _means_of_numbers(
    rows: Rows, ascending: Float[Array, "... n"], counts: Array, mode: Mode, method: str
) -> Float[Array, "... n"]:
    if method == "permutahedron":
        return permutahedron_sort(ascending, counts, rows.softness, mode)
    if method == "sinkhorn":
        return expectation(sinkhorn_weights(rows.entries, ascending, rows, mode), rows.entries[..., None, :])
    return _mean_at_places(rows, ascending, mode, method)


def argsort(
    x: ArrayLike,
    axis: int | None = -1,
    *,
    descending: bool = False,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    method: ArgsortMethod = "auto",
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
    log: bool = False,
) -> SoftIndex:
    """Return for each place of the order the distribution over the entries: a soft permutation matrix.

    Args:
        x: Any shape.
        axis: The axis to sort, of length n; `None` for all of `x` as one row.
        descending: Put the largest first.
        softness: In the units of `x`, above 0; a scalar or one per row.
        mode: How the weights fall (see `argmax`); `hard` is one-hot of jnp.argsort.
        method: `softsort` (what `auto` is), `neuralsort`, or `sinkhorn` for a doubly stochastic matrix, mode smooth.
        where: Mask that broadcasts with `x`; a masked entry gets no mass. The last places, as many as entries are
            masked, are all 0.
        scale: The unit of `softness`: `absolute`, or `robust` for the robust spread of each row.
        log: Return the logarithm of the distributions, which does not underflow.

    Returns:
        The shape of `x`, where `axis` runs over places, then the n entries; rows sum to 1. O(n^2) memory. Places of
        equal entries share them alike, where jnp.argsort takes them in turn.

    Raises:
        ValueError: The softness is not above 0; an unknown mode, method or scale, or a method without this mode.

    References:
        As for `sort`; Sinkhorn and Knopp, Pacific J. Math. 1967.

    Example:
        >>> argsort(jnp.array([30.0, 10.0]), softness=0.1).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    rows = rows_of(negative(x) if descending else x, axis, softness, where, scale)
    mode = checked_mode(mode)
    chosen = checked_method(method, ("softsort", "neuralsort", "sinkhorn"))
    if rows.entries.size == 0:
        return rows.restored_indices(jnp.zeros((*rows.entries.shape, rows.n), rows.entries.dtype))
    return rows.restored_indices(_weights(rows, mode, chosen, log=log))


@functools.partial(jax.jit, static_argnames=("mode", "method", "log"))
def _weights(rows: Rows, mode: Mode, method: str, *, log: bool) -> Float[Array, "... n n"]:
    if mode == "hard":
        order = ascending_order(rows.entries, rows.mask)
        weights = jax.nn.one_hot(order, rows.n, dtype=rows.entries.dtype)
        weights = jnp.log(weights) if log else weights
    else:
        ascending, _ = in_ascending_order(rows)
        weights = weights_at_places(rows, ascending, all_places(rows), mode, method, log=log)
    if rows.mask is not None:
        weights = jnp.where(places_that_count(rows)[..., None], weights, -jnp.inf if log else 0)
    return weights


def in_ascending_order(rows: Rows) -> tuple[Float[Array, "... n"], Array]:
    """Return the sorted entries and which of them count; those that do not are infinite and last."""
    order = ascending_order(rows.entries, rows.mask)
    entries = in_order(keep(rows.entries, rows.mask, jnp.inf), order)
    return entries, rows.counts if rows.mask is None else jnp.take_along_axis(rows.mask, order, axis=-1)


def all_places(rows: Rows) -> Float[Array, " n"]:
    """Return the places of the order, counted from 0."""
    return jnp.arange(rows.n, dtype=rows.entries.dtype)


def weights_at_places(
    rows: Rows,
    sorted_entries: Float[Array, "... k"],
    places: Float[Array, "... k"],
    mode: Mode,
    method: str,
    *,
    log: bool = False,
) -> Float[Array, "... k n"]:
    """Return the rows of the soft permutation matrix for some places, counted from 0, which hold `sorted_entries`."""
    weigh, known = _weighing(rows, sorted_entries, places, method)
    return weigh(rows.entries, known, rows, mode, log=log)


def _weighing(
    rows: Rows, sorted_entries: Array, places: Array, method: str
) -> tuple[Callable[..., Array], Float[Array, "... k"]]:
    """Return the function of a method that gives weights, and what it must know of each place."""
    if method == "neuralsort":
        weigh = functools.partial(neuralsort_weights, distances=sum_of_distances(rows))
        return weigh, jnp.broadcast_to(places, sorted_entries.shape)
    return (sinkhorn_weights if method == "sinkhorn" else softsort_weights), sorted_entries


def _mean_at_places(rows: Rows, ascending: Array, mode: Mode, method: str) -> Array:
    weigh, known = _weighing(rows, ascending, all_places(rows), method)

    def at(entries: Array, place: Array) -> Array:
        return expectation(weigh(entries, place, rows, mode)[..., 0, :], entries)

    return map_places(at, rows.entries, known)
