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

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffbio.operators.alignment.diagonals import Cells, Diagonals
from diffbio.operators.alignment.ends import Ends, allowed, ended
from diffbio.operators.alignment.segments import scan_there
from diffbio.operators.alignment.semirings import Semiring


class Pair(NamedTuple):
    """What is aligned: two sequences, or many two, by the scores of their positions.

    Attributes:
        scores: Of aligning position i of x with j of y.
        gap_open: Cost of the first position of a gap, in the unit of the scores.
        gap_extend: Cost of each further one.
        lengths: How many positions of x and y count: the first ones.
    """

    scores: Float[Array, "*pairs x y"]
    gap_open: Float[Array, "*pairs"]
    gap_extend: Float[Array, "*pairs"]
    lengths: Int[Array, "*pairs 2"]


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


def forward(pairs: Pair, layout: Diagonals, ends: Ends, ring: Semiring) -> tuple[Float[Array, " pairs"], Front]:
    """Return the sum over all alignments of each pair, and the fronts at which segments of the diagonals begin.

    Args:
        pairs: Scores, and gaps, as weights of the semiring: `times` takes them as they are.
        layout: Of the chain of matrices.
        ends: Which ends are free.
        ring: The semiring.
    """
    blank = jnp.full(layout.lanes, ring.zero, pairs.scores.dtype)
    advance = advancing(pairs, layout, ends, ring)

    def step(carry: tuple[Front, Array], diagonal: Array) -> tuple[tuple[Front, Array], Array | None]:
        front, total = advance(carry[0], diagonal), carry[1]
        if not ends.local:
            return (front, total), _at_the_edges(pairs.lengths, layout, diagonal, front.states)
        if layout.pairs == 1:
            return (front, ring.plus(total, front.states.match)), None
        begins = layout.cells(diagonal).column == 0
        total = ring.plus(jnp.where(begins, ring.zero, total), front.states.match)
        return (front, total), layout.in_column(layout.y_size, diagonal, total)

    start = (Front(States(blank, blank, blank), blank), blank)
    (_, total), (fronts, _), given = scan_there(step, start, layout.segments())
    if not ends.local:
        states, may_be_last = _edges_of_pairs(pairs.lengths, layout, ends, given)
        return jax.vmap(ring.total)(jnp.where(may_be_last, states, ring.zero)), fronts
    totals = total[None] if layout.pairs == 1 else layout.down_column(layout.y_size, given)
    # the empty alignment is a local one, too
    return ring.plus(jax.vmap(ring.total)(totals), jnp.asarray(ring.one, totals.dtype)), fronts


def advancing(pairs: Pair, layout: Diagonals, ends: Ends, ring: Semiring) -> Callable[[Front, Array], Front]:
    """Return the step from one diagonal to the next."""
    plus, times, zero = ring.plus, ring.times, ring.zero

    def advance(front: Front, diagonal: Array) -> Front:
        before = front.states
        cells = layout.cells(diagonal)
        gap_open, gap_extend = (layout.in_lanes(gap, diagonal) for gap in (pairs.gap_open, pairs.gap_extend))
        match_or_gap_in_y = plus(before.match, before.gap_in_y)

        def neighbor(values: Array, back: int, up: int) -> Array:
            return layout.seen(diagonal, values, back=back, up=up, fill=zero)

        entered = neighbor(front.entered, 2, 1)
        if ends.local:
            entered = plus(entered, jnp.full_like(entered, ring.one))
        opened = (
            times(gap_open, neighbor(before.match, 1, 1)),
            times(gap_open, neighbor(match_or_gap_in_y, 1, 0)),
        )
        states = States(
            times(scores_of(pairs.scores, cells), entered),
            plus(opened[0], times(gap_extend, neighbor(before.gap_in_y, 1, 1))),
            plus(opened[1], times(gap_extend, neighbor(before.gap_in_x, 1, 0))),
        )
        begun, may_be = allowed(lengths_in_lanes(pairs.lengths, layout, diagonal), ends, *cells[1:])
        states = States(*(jnp.where(may, value, zero) for may, value in zip(may_be, states, strict=True)))
        states = states._replace(match=jnp.where(begun, ring.one, states.match))
        return Front(states, plus(match_or_gap_in_y, before.gap_in_x))

    return advance


def scores_of(scores: Float[Array, "*pairs x y"], cells: Cells, further: int = 0) -> Array:
    """Return the scores of cells, or of those so many rows and columns on; any finite number for those outside."""
    x_size, y_size = scores.shape[-2:]
    place = (cells.pair * x_size + cells.row + further - 1) * y_size + cells.column + further - 1
    return scores.ravel()[jnp.clip(place, 0, scores.size - 1)]


def lengths_in_lanes(lengths: Int[Array, "pairs 2"], layout: Diagonals, diagonal: Array) -> tuple[Array, Array]:
    """Return for each lane how many positions of x and of y count."""
    return layout.in_lanes(lengths[:, 0], diagonal), layout.in_lanes(lengths[:, 1], diagonal)


def _at_the_edges(lengths: Array, layout: Diagonals, diagonal: Array, states: States) -> Float[Array, "held 2 3"]:
    """Return the states of a diagonal in the last row and in the last column, of the latest pair and the one before."""
    held = layout.latest(diagonal) - jnp.arange(min(layout.pairs, 2))
    n_rows, n_columns = lengths[jnp.clip(held, 0, layout.pairs - 1)].T
    lanes = jnp.stack([n_rows, diagonal - layout.pitch * held - n_columns], axis=-1) - layout.first_row(diagonal)
    return jnp.stack(states, axis=-1)[jnp.clip(lanes, 0, layout.lanes - 1)]


def _edges_of_pairs(
    lengths: Array, layout: Diagonals, ends: Ends, given: Float[Array, "diagonals held 2 3"]
) -> tuple[Float[Array, "pairs own 2 3"], Bool[Array, "pairs own 2 3"]]:
    """Return what `_at_the_edges` returned for each pair's own diagonals, and which of these states may be the last."""
    own = jnp.arange(layout.x_size + layout.y_size + 1)
    held = 0 if layout.pairs == 1 else own // layout.pitch
    states = given[layout.pitch * jnp.arange(layout.pairs)[:, None] + own, held]

    def of_pair(length: Array) -> Array:
        rows = jnp.stack([jnp.full_like(own, length[0]), own - length[1]], axis=1)
        columns = own[:, None] - rows
        inside = layout.holds(rows, columns)
        inside = inside & jnp.stack([jnp.ones_like(own, bool), rows[:, 1] != length[0]], axis=1)  # the corner once
        return jnp.stack(ended(length, ends, rows, columns, inside), axis=-1)

    return states, jax.vmap(of_pair)(lengths)
