"""Pairs of one size side by side: whatever maps over them, the engine gets them in chains.

A program of one pair that is mapped by `jax.vmap` would have idle lanes in all of its diagonals. Here the map is seen:
the pairs are laid out as few chains (see `diagonals`), just as many as fill a processor's registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array

from diffbio.operators.alignment.diagonals import layout_of
from diffbio.operators.alignment.recurrence import Pair

LANES_SIDE_BY_SIDE = 512
"""A diagonal of fewer costs more for being started than for its cells; one of many more leaves the nearest cache."""


def in_chains[T](function: Callable[..., T], band: int | None) -> Callable[..., T]:
    """Return a function of one pair, mapped efficiently.

    Args:
        function: Of a chain: the first argument is a `Pair`, and all arrays of all arguments and results have a first
            axis for its pairs.
        band: Within a band each chain is of one pair.

    Returns:
        The function of one pair. It has no derivatives; those of `function` can be mapped likewise.
    """

    @custom_vmap
    def of_all(*given: Any) -> Any:
        pairs: Pair = given[0]
        n_pairs = len(pairs.scores)
        n_chains = min(n_pairs, max(1, LANES_SIDE_BY_SIDE // layout_of(pairs.scores[0], band).lanes))
        length = 1 if band is not None else -(-n_pairs // n_chains)
        n_chains = -(-n_pairs // length)
        if n_chains == 1:
            return function(*given)
        missing = n_chains * length - n_pairs

        def cut(values: Array) -> Array:
            filled = jnp.concatenate([values, jnp.repeat(values[-1:], missing, axis=0)]) if missing else values
            return filled.reshape(n_chains, length, *values.shape[1:])

        found = jax.vmap(function)(*jax.tree.map(cut, given))
        return jax.tree.map(lambda values: values.reshape(-1, *values.shape[2:])[:n_pairs], found)

    @of_all.def_vmap
    def of_more(size: int, is_mapped: Any, *given: Any) -> tuple[Any, Any]:
        """Return what one more map over pairs gives: that of as many more pairs."""

        def join(values: Array, mapped: bool) -> Array:
            every = values if mapped else jnp.broadcast_to(values, (size, *values.shape))
            return every.reshape(-1, *every.shape[2:])

        found = of_all(*jax.tree.map(join, given, tuple(is_mapped)))
        found = jax.tree.map(lambda values: values.reshape(size, -1, *values.shape[1:]), found)
        return found, jax.tree.map(lambda _: True, found)

    def of_one(*given: Any) -> T:
        return jax.tree.map(lambda values: values[0], of_all(*jax.tree.map(lambda values: values[None], given)))

    return of_one
