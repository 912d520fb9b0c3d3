"""The recurrence of pairwise alignment with affine gaps, in any semiring.

With scores s of pairs of positions, a cost o of the first and e of each further position of a gap, and the states match
(M), gap in y (X, which consumes x) and gap in x (Y), a cell follows from three neighbours:

    M[i,j] = s[i,j] x (begin + M + X + Y)[i-1,j-1]
    X[i,j] = o x M[i-1,j] + e x X[i-1,j]
    Y[i,j] = o x (M + X)[i,j-1] + e x Y[i,j-1]

where + and x are those of a semiring. Y may follow X, but not X follow Y: else two adjacent gaps would be two
alignments.

References:
    Gotoh, An improved algorithm for matching biological sequences, Journal of Molecular Biology 1982.
    Durbin, Eddy, Krogh and Mitchison, Biological sequence analysis, 1998, chapters 2 to 4.
    Petti et al., End-to-end learning of multiple sequence alignments with differentiable Smith-Waterman, Bioinformatics
    2023: anti-diagonals in JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.alignment.diagonals import Diagonals
from diffbio.operators.alignment.ends import Ends, allowed, ended
from diffbio.operators.alignment.segments import scan_there
from diffbio.operators.alignment.semirings import Semiring


class Pair(NamedTuple):
    """What is aligned: two sequences, by the scores of their positions.

    Attributes:
        scores: Of aligning position i of x with j of y.
        gap_open: Cost of the first position of a gap, in the unit of the scores.
        gap_extend: Cost of each further one.
        lengths: How many positions of x and y count: the first ones.
    """

    scores: Float[Array, "x y"]
    gap_open: Float[Scalar, ""]
    gap_extend: Float[Scalar, ""]
    lengths: Int[Array, "2"]


class States(NamedTuple):
    """A value for each state: of one diagonal (lanes,), or of all (diagonals, lanes)."""

    match: Array
    gap_in_y: Array
    gap_in_x: Array


class Front(NamedTuple):
    """All that the next diagonal needs.

    Attributes:
        states: Of the last diagonal.
        entered: The sum of all states of the one before it.
    """

    states: States
    entered: Array


def forward(pair: Pair, layout: Diagonals, ends: Ends, ring: Semiring) -> tuple[Array, Front]:
    """Return the sum over all alignments, and the fronts at which segments of the diagonals begin.

    Args:
        pair: Scores, and gaps, as weights of the semiring: `times` takes them as they are.
        layout: Of the matrix.
        ends: Which ends are free.
        ring: The semiring.
    """
    blank = jnp.full(layout.lanes, ring.zero, pair.scores.dtype)
    advance = advancing(pair, layout, ends, ring)

    def step(carry: tuple[Front, Array], diagonal: Array) -> tuple[tuple[Front, Array], Array | None]:
        front = advance(carry[0], diagonal)
        if ends.local:
            return (front, ring.plus(carry[1], front.states.match)), None
        return (front, carry[1]), _at_the_edges(pair.lengths, layout, diagonal, front.states)

    start = (Front(States(blank, blank, blank), blank), blank)
    (_, total), (fronts, _), last = scan_there(step, start, layout.segments())
    if last is None:  # the empty alignment is a local one, too
        return ring.plus(ring.total(total), jnp.asarray(ring.one, total.dtype)), fronts
    return ring.total(jnp.where(_ended_at_the_edges(pair.lengths, layout, ends, len(last)), last, ring.zero)), fronts


def advancing(pair: Pair, layout: Diagonals, ends: Ends, ring: Semiring) -> Callable[[Front, Array], Front]:
    """Return the step from one diagonal to the next."""
    plus, times, zero = ring.plus, ring.times, ring.zero

    def advance(front: Front, diagonal: Array) -> Front:
        before = front.states
        cells = layout.cells(diagonal)
        match_or_gap_in_y = plus(before.match, before.gap_in_y)

        def neighbor(values: Array, back: int, up: int) -> Array:
            return layout.seen(diagonal, values, back=back, up=up, fill=zero)

        entered = neighbor(front.entered, 2, 1)
        if ends.local:
            entered = plus(entered, jnp.full_like(entered, ring.one))
        opened = (
            times(pair.gap_open, neighbor(before.match, 1, 1)),
            times(pair.gap_open, neighbor(match_or_gap_in_y, 1, 0)),
        )
        states = States(
            times(scores_of(pair.scores, *cells[:2]), entered),
            plus(opened[0], times(pair.gap_extend, neighbor(before.gap_in_y, 1, 1))),
            plus(opened[1], times(pair.gap_extend, neighbor(before.gap_in_x, 1, 0))),
        )
        begun, may_be = allowed(pair.lengths, ends, *cells)
        states = States(*(jnp.where(may, value, zero) for may, value in zip(may_be, states, strict=True)))
        states = states._replace(match=jnp.where(begun, ring.one, states.match))
        return Front(states, plus(match_or_gap_in_y, before.gap_in_x))

    return advance


def scores_of(scores: Array, rows: Array, columns: Array) -> Array:
    """Return the scores of cells; any finite number for those outside of the matrix."""
    x_size, y_size = scores.shape
    place = (rows - 1) * y_size + columns - 1
    return scores.ravel()[jnp.clip(place, 0, x_size * y_size - 1)]


def _at_the_edges(lengths: Array, layout: Diagonals, diagonal: Array, states: States) -> Float[Array, "2 3"]:
    """Return the states of a diagonal in the last row and in the last column."""
    lanes = jnp.stack([lengths[0], diagonal - lengths[1]]) - layout.first_row(diagonal)
    return jnp.stack(states, axis=-1)[jnp.clip(lanes, 0, layout.lanes - 1)]


def _ended_at_the_edges(lengths: Array, layout: Diagonals, ends: Ends, count: int) -> Array:
    """Return which of the states of `_at_the_edges` may be the last (diagonals, 2, 3)."""
    diagonals = jnp.arange(count)
    rows = jnp.stack([jnp.full_like(diagonals, lengths[0]), diagonals - lengths[1]], axis=1)
    columns = diagonals[:, None] - rows
    inside = layout.holds(rows, columns)
    inside = inside & jnp.stack([jnp.ones_like(diagonals, bool), rows[:, 1] != lengths[0]], axis=1)  # the corner once
    return jnp.stack(ended(lengths, ends, rows, columns, inside), axis=-1)
