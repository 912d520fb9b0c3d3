"""Quadratic work in linear memory: the places of a row against all of its entries, some at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_MOST_PAIRS = 2**21  # pairs of a place and an entry that are in memory at a time: 8 MB of float32


def map_places(
    function: Callable[..., Array], entries: Float[Array, "... n"], *places: Float[Array, "... k"]
) -> Float[Array, "... k"]:
    """Return `function(entries, *place)` for each place; its intermediates are recomputed for the gradient.

    Args:
        function: From entries (..., n) and one value per row (..., 1) for each of `places` to one value per row (...).
        entries: Entries of each row.
        *places: What is known of each place.
    """
    n_places = places[0].shape[-1]
    if places[0].size == 0:
        return jnp.zeros(places[0].shape, entries.dtype)
    at_once = max(1, min(n_places, _MOST_PAIRS // max(1, entries.size)))
    in_front = [jnp.moveaxis(place, -1, 0)[..., None] for place in places]

    @jax.checkpoint
    def at(place: Any) -> Array:
        return function(entries, *place)

    return jnp.moveaxis(jax.lax.map(at, in_front, batch_size=at_once), 0, -1)
