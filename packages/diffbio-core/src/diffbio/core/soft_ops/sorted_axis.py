"""The sorted axis: entries in order, with a gradient that treats equal entries alike."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffbio.core.soft_ops.scaling import Mask


def ascending_order(x: Float[Array, "... n"], mask: Mask) -> Int[Array, "... n"]:
    """Return the indices that sort each row, stable, with masked entries behind all others."""
    if mask is None:
        return jnp.argsort(x, axis=-1, stable=True)
    return jnp.lexsort((x, ~mask), axis=-1)


@jax.custom_jvp
def in_order(x: Float[Array, "... n"], order: Int[Array, "... k"]) -> Float[Array, "... k"]:
    """Return the first k entries in the order of their indices, those that do not count being infinite.

    Which of two equal entries comes first is arbitrary; so that no gradient depends on it, each of them gets the mean
    of what both are given.
    """
    return jnp.take_along_axis(x, order, axis=-1)


@in_order.defjvp
def _in_order_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, order), (dx, _) = primals, tangents
    entries: Any = in_order(x, order)
    return entries, mean_of_same(x, order, dx)


def mean_of_same(
    x: Float[Array, "... n"], order: Int[Array, "... k"], values: Float[Array, "... n"]
) -> Float[Array, "... k"]:
    """Return for each place the mean of `values` over all entries that equal the one in the place.

    Entries equal to that of the last place may lie behind it.
    """
    entries = jnp.take_along_axis(x, order, axis=-1)
    if entries.size == 0:
        return entries
    at_places = mean_of_equal(entries, jnp.take_along_axis(values, order, axis=-1))
    last = entries[..., -1:]
    same = x == last
    of_last = jnp.where(same, values, 0).sum(-1, keepdims=True) / jnp.maximum(same.sum(-1, keepdims=True), 1)
    return jnp.where(entries == last, of_last, at_places)


def mean_of_equal(entries: Float[Array, "... n"], values: Float[Array, "... n"]) -> Float[Array, "... n"]:
    """Return for each place the mean of `values` over the run of equal `entries` that it is in."""
    run = jnp.cumsum(run_starts(entries).ravel()) - 1

    def total(per_place: Array) -> Array:
        return jax.ops.segment_sum(per_place.ravel(), run, entries.size, indices_are_sorted=True)

    # divided by the length of the run as it is scattered: no run then is of length 0
    length = total(jnp.ones(entries.shape, values.dtype))[run]
    return (total(values)[run] / length).reshape(values.shape)


def run_starts(entries: Float[Array, "... n"]) -> Bool[Array, "... n"]:
    """Return whether a run of equal entries begins at each place."""
    return jnp.concatenate([jnp.ones((*entries.shape[:-1], 1), bool), entries[..., 1:] != entries[..., :-1]], axis=-1)


def inverse_order(order: Int[Array, "... n"]) -> Int[Array, "... n"]:
    """Return the place of each entry in the order."""
    places = jnp.broadcast_to(jnp.arange(order.shape[-1]), order.shape)
    return jnp.put_along_axis(jnp.zeros_like(order), order, places, axis=-1, inplace=False)
