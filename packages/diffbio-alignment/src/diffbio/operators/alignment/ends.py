"""Ends of alignments: where one may begin and end, by the positions that may stay outside of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Int

from diffbio.core.errors import ConfigError

FreeEnd = Literal["query_begin", "query_end", "target_begin", "target_end"]
"""An end of which positions may stay outside; the query is x, the target y."""


@dataclass(frozen=True)
class Ends:
    """Which positions may stay outside of the alignment at no cost.

    Attributes:
        local: Any, at both ends of both; and no gap is at an end (Smith-Waterman).
        x_begin: The first ones of x.
        x_end: The last ones of x.
        y_begin: The first ones of y.
        y_end: The last ones of y.
    """

    local: bool = False
    x_begin: bool = False
    x_end: bool = False
    y_begin: bool = False
    y_end: bool = False


LOCAL = Ends(local=True)
GLOBAL = Ends()
SEMI_GLOBAL = Ends(x_begin=True, x_end=True, y_begin=True, y_end=True)


def ends_of(free: Collection[FreeEnd]) -> Ends:
    """Return the ends of which positions may stay outside.

    Args:
        free: Their names.

    Example:
        >>> ends_of(["target_begin", "target_end"])
        Ends(local=False, x_begin=False, x_end=False, y_begin=True, y_end=True)
    """
    return Ends(
        x_begin="query_begin" in free,
        x_end="query_end" in free,
        y_begin="target_begin" in free,
        y_end="target_end" in free,
    )


def require_each_end_once(config: str, free: Collection[FreeEnd]) -> None:
    """Check the names of free ends.

    Raises:
        ConfigError: One is named twice.
    """
    if len(set(free)) < len(free):
        raise ConfigError(f"{config}.free_ends is {free!r}; name each end once")


type Lengths = Int[Array, "2"] | tuple[Array, Array]
"""How many positions of x and of y count; by lane, if the lanes differ."""


def allowed(
    lengths: Lengths, ends: Ends, rows: Array, columns: Array, inside: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Return where an alignment may begin before its first pair, and which state a cell may have."""
    inside = inside & (rows <= lengths[0]) & (columns <= lengths[1])
    first_row, first_column = rows == 0, columns == 0
    within = inside & ~first_row & ~first_column
    if ends.local:
        return jnp.zeros_like(inside), (within, within, within)
    # a position that is free to stay outside is never in a gap before the alignment
    begun = first_row & first_column
    begun = begun | (first_column if ends.x_begin else False) | (first_row if ends.y_begin else False)
    gap_in_y = inside & ~first_row & ~(first_column if ends.x_begin else jnp.zeros_like(inside))
    gap_in_x = inside & ~first_column & ~(first_row if ends.y_begin else jnp.zeros_like(inside))
    return begun & inside, (within, gap_in_y, gap_in_x)


def ended(lengths: Lengths, ends: Ends, rows: Array, columns: Array, inside: Array) -> tuple[Array, Array, Array]:
    """Return from which state of which cells an alignment may end."""
    inside = inside & (rows <= lengths[0]) & (columns <= lengths[1])
    if ends.local:
        return inside, jnp.zeros_like(inside), jnp.zeros_like(inside)
    last_row, last_column = rows == lengths[0], columns == lengths[1]
    corner = inside & last_row & last_column
    # a position that is free to stay outside is never in a gap after the alignment, which is not empty
    within = inside & (rows > 0) & (columns > 0)
    x_free = within & last_column if ends.x_end else jnp.zeros_like(inside)
    y_free = within & last_row if ends.y_end else jnp.zeros_like(inside)
    return corner | x_free | y_free, (corner | y_free) & ~x_free, (corner | x_free) & ~y_free
