"""The best alignment itself: the recurrence with max in place of the sum, and the way back through its states.

References:
    Gotoh, An improved algorithm for matching biological sequences, Journal of Molecular Biology 1982.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.alignment.diagonals import layout_of
from diffbio.operators.alignment.ends import Ends, allowed, ended
from diffbio.operators.alignment.recurrence import Front, Pair, States, advancing
from diffbio.operators.alignment.semirings import MAX, NEVER

NOTHING, PAIR, GAP_IN_Y, GAP_IN_X = range(4)
"""Operations of a path: beyond its ends; two positions; one of x alone; one of y alone."""

_MATCH, _GAP_IN_Y, _GAP_IN_X, _DONE = range(4)  # states, in the order of `States`
_CONSUMED = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])  # positions of x and y, by state


class Path(NamedTuple):
    """The best alignment of two sequences.

    Attributes:
        score: In the unit of the scores.
        operations: What each step joins, from the last to the first, then `NOTHING` (x + y,).
        begin: How many positions of x and y are before the alignment (2,).
        end: How many positions of x and y are before its end (2,).
    """

    score: Float[Scalar, ""]
    operations: Int[Array, " steps"]
    begin: Int[Array, "2"]
    end: Int[Array, "2"]


@partial(jax.jit, static_argnames=("ends", "band"))
def best_path(pair: Pair, ends: Ends, band: int | None = None) -> Path:
    """Return the best alignment; of equally good ones, one that has pairs rather than gaps towards its end.

    Args:
        pair: Scores and costs.
        ends: Which ends are free.
        band: Largest |i - j| of aligned positions, or `None`.

    Returns:
        A path. A local alignment is empty where no score is above 0. Memory: 24 bytes per cell.

    Example:
        >>> pair = Pair(2 * jnp.eye(3)[jnp.array([0, 2])] - 1, jnp.array(2.0), jnp.array(1.0), jnp.array([2, 3]))
        >>> path = best_path(pair, Ends())
        >>> float(path.score), path.operations.tolist()  # from the end: pair, gap in x, pair
        (0.0, [1, 3, 1, 0, 0])
    """
    layout = layout_of(pair.scores, band)
    weights = pair._replace(gap_open=-pair.gap_open, gap_extend=-pair.gap_extend)
    advance = advancing(jax.tree.map(lambda values: values[None], weights), layout, ends, MAX)

    def step(front: Front, diagonal: Array) -> tuple[Front, tuple[States, Array]]:
        front = advance(front, diagonal)
        last = ended(pair.lengths, ends, *layout.cells(diagonal)[1:])
        final = [jnp.where(may, value, NEVER) for may, value in zip(last, front.states, strict=True)]
        return front, (front.states, jnp.stack(final, axis=-1))

    blank = jnp.full(layout.lanes, MAX.zero, pair.scores.dtype)
    start = Front(States(blank, blank, blank), blank)
    diagonals = jnp.arange(layout.n_diagonals)
    _, (planes, final) = lax.scan(step, start, diagonals)

    def value(row: Array, column: Array) -> Float[Array, "3"]:
        """Return the states of a cell."""
        diagonal = row + column
        lane = row - layout.first_row(diagonal)
        inside = layout.holds(row, column)
        at = jnp.clip(diagonal, 0, layout.n_diagonals - 1), jnp.clip(lane, 0, layout.lanes - 1)
        return jnp.where(inside, jnp.stack([plane[at] for plane in planes]), NEVER)

    best = jnp.argmax(final)
    diagonal, lane, state = jnp.unravel_index(best, final.shape)
    row = lane + layout.first_row(diagonal)
    end = jnp.stack([row, diagonal - row])
    score = final.ravel()[best]

    def begun(cell: Array) -> Array:
        row, column = cell
        return allowed(pair.lengths, ends, row, column, layout.holds(row, column))[0]

    def back(at: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        """Take one operation off the end."""
        cell, state = at
        before = cell - jnp.asarray(_CONSUMED)[state]
        gap = jnp.where(jnp.arange(3) == state, weights.gap_extend, weights.gap_open)
        reached = value(*before) + jnp.where(state == _MATCH, 0.0, gap)
        reached = jnp.where((state == _GAP_IN_Y) & (jnp.arange(3) == _GAP_IN_X), 2 * NEVER, reached)
        following = jnp.argmax(reached)
        # a local one begins where nothing before raises the score
        begins = (state == _MATCH) & (reached.max() <= 0) if ends.local else begun(before) & (following == _MATCH)
        return (before, jnp.where((state == _DONE) | begins, _DONE, following)), (state + 1) % 4

    empty = score <= 0 if ends.local else begun(end)
    start = end, jnp.where(empty, _DONE, state)
    (begin, _), operations = lax.scan(back, start, None, length=sum(pair.scores.shape))
    score = jnp.maximum(score, 0.0) if ends.local else score
    return Path(score, operations.astype(jnp.int8), begin, end)
