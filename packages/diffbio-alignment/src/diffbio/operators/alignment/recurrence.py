"""The recurrence of pairwise alignment with affine gaps, forwards in any semiring and backwards for expectations.

With scores s of pairs of positions, a cost o of the first and e of each further position of a gap, and the states match
(M), gap in y (X, which consumes x) and gap in x (Y), a cell follows from three neighbours:

    M[i,j] = s[i,j] x (begin + M + X + Y)[i-1,j-1]
    X[i,j] = o x M[i-1,j] + e x X[i-1,j]
    Y[i,j] = o x (M + X)[i,j-1] + e x Y[i,j-1]

where + and x are those of a semiring. Y may follow X, but not X follow Y: else two adjacent gaps would be two
alignments. The derivative of the log of the sum over all alignments by a score is the probability that this pair is
aligned; one pass over the diagonals in reverse finds it from the stored M, X and Y alone.

References:
    Gotoh, An improved algorithm for matching biological sequences, Journal of Molecular Biology 1982.
    Durbin, Eddy, Krogh and Mitchison, Biological sequence analysis, 1998, chapters 2 to 4.
    Petti et al., End-to-end learning of multiple sequence alignments with differentiable Smith-Waterman, Bioinformatics
    2023: anti-diagonals in JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.alignment.diagonals import Diagonals
from diffbio.operators.alignment.semirings import Semiring


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


class Expectations(NamedTuple):
    """What an alignment has on average, where each has the weight exp(score).

    Attributes:
        matches: Probability that two positions are aligned (x, y).
        opens: Number of gaps.
        extends: Number of further positions in gaps.
    """

    matches: Float[Array, "x y"]
    opens: Float[Scalar, ""]
    extends: Float[Scalar, ""]


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

    def segment(carry: tuple[Front, Array], diagonals: Array) -> tuple[tuple[Front, Array], tuple]:
        following, last = lax.scan(step, carry, diagonals)
        return following, (carry[0], last)

    start = (Front(States(blank, blank, blank), blank), blank)
    (_, total), (fronts, last) = lax.scan(segment, start, layout.segments())
    if last is None:  # the empty alignment is a local one, too
        return ring.plus(ring.total(total), jnp.asarray(ring.one, total.dtype)), fronts
    last = last.reshape(-1, *last.shape[2:])
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
        opened = times(pair.gap_open, neighbor(before.match, 1, 1)), times(
            pair.gap_open, neighbor(match_or_gap_in_y, 1, 0)
        )
        states = States(
            times(_scores(pair.scores, *cells[:2]), entered),
            plus(opened[0], times(pair.gap_extend, neighbor(before.gap_in_y, 1, 1))),
            plus(opened[1], times(pair.gap_extend, neighbor(before.gap_in_x, 1, 0))),
        )
        begun, may_be = allowed(pair.lengths, ends, *cells)
        states = States(*(jnp.where(may, value, zero) for may, value in zip(may_be, states, strict=True)))
        states = states._replace(match=jnp.where(begun, ring.one, states.match))
        return Front(states, plus(match_or_gap_in_y, before.gap_in_x))

    return advance


def backward(pair: Pair, layout: Diagonals, ends: Ends, ring: Semiring, fronts: Front, log_sum: Array) -> Expectations:
    """Return the expectations; the states of each segment are computed again from its front.

    Args:
        pair: Scores and costs.
        layout: Of the matrix.
        ends: Which ends are free.
        ring: That of logarithms.
        fronts: At which segments begin, by `forward`.
        log_sum: The log of the sum over all alignments.
    """
    nothing = jnp.zeros(layout.lanes, pair.scores.dtype)
    advance = advancing(pair._replace(gap_open=-pair.gap_open, gap_extend=-pair.gap_extend), layout, ends, ring)
    retreat = _retreating(pair, layout, ends, log_sum)

    def again(front: Front, diagonal: Array) -> tuple[Front, States]:
        front = advance(front, diagonal)
        return front, front.states

    def segment(carry: Wake, begun: tuple[Array, Front]) -> tuple[Wake, Array]:
        diagonals, front = begun
        _, planes = lax.scan(again, front, diagonals)
        return lax.scan(retreat, carry, (diagonals, planes), reverse=True)

    start = Wake(*[States(nothing, nothing, nothing)] * 2, *[nothing] * 4)
    wake, matches = lax.scan(segment, start, (layout.segments(), fronts), reverse=True)
    return Expectations(layout.matrix(matches.reshape(-1, layout.lanes)), wake.opens.sum(), wake.extends.sum())


class Wake(NamedTuple):
    """All that the diagonal before needs, on the way back.

    Attributes:
        states: Of the diagonal after it, logarithms of sums.
        flows: The probability that an alignment is in each of these states.
        match: The states `match` of the diagonal after the next.
        match_flow: Their probabilities.
        opens: Expected number of gaps so far, by lane.
        extends: Expected number of further positions in gaps so far, by lane.
    """

    states: States
    flows: States
    match: Array
    match_flow: Array
    opens: Array
    extends: Array


def _retreating(
    pair: Pair, layout: Diagonals, ends: Ends, log_sum: Array
) -> Callable[[Wake, tuple[Array, States]], tuple[Wake, Array]]:
    """Return the step from one diagonal to the one before."""

    def share(flow: Array, source: Array, cost: Array, target: Array) -> Array:
        return flow * jnp.exp(jnp.minimum(source - cost - target, 1.0))  # only beside masked cells is it above 0

    def retreat(wake: Wake, at: tuple[Array, States]) -> tuple[Wake, Array]:
        diagonal, here = at
        rows, columns, inside = layout.cells(diagonal)

        def neighbor(values: Array, after: int, down: int) -> Array:
            return layout.seen(diagonal, values, back=-after, up=-down, fill=0.0)

        cost = -_scores(pair.scores, rows + 1, columns + 1)
        flow, target = neighbor(wake.match_flow, 2, 1), neighbor(wake.match, 2, 1)
        to_match = [share(flow, source, cost, target) for source in here]
        flow, target = neighbor(wake.flows.gap_in_y, 1, 1), neighbor(wake.states.gap_in_y, 1, 1)
        opened_in_y = share(flow, here.match, pair.gap_open, target)
        extended_in_y = share(flow, here.gap_in_y, pair.gap_extend, target)
        flow, target = neighbor(wake.flows.gap_in_x, 1, 0), neighbor(wake.states.gap_in_x, 1, 0)
        opened_in_x = [share(flow, source, pair.gap_open, target) for source in here[:2]]
        extended_in_x = share(flow, here.gap_in_x, pair.gap_extend, target)
        final = [
            jnp.where(may, jnp.exp(jnp.minimum(value - log_sum, 1.0)), 0.0)
            for may, value in zip(ended(pair.lengths, ends, rows, columns, inside), here, strict=True)
        ]
        flows = States(
            final[0] + to_match[0] + opened_in_y + opened_in_x[0],
            final[1] + to_match[1] + extended_in_y + opened_in_x[1],
            final[2] + to_match[2] + extended_in_x,
        )
        opens = wake.opens + opened_in_y + opened_in_x[0] + opened_in_x[1]
        extends = wake.extends + extended_in_y + extended_in_x
        return Wake(here, flows, wake.states.match, wake.flows.match, opens, extends), flows.match

    return retreat


def _scores(scores: Array, rows: Array, columns: Array) -> Array:
    """Return the scores of cells; any finite number for those outside of the matrix."""
    x_size, y_size = scores.shape
    place = (rows - 1) * y_size + columns - 1
    return scores.ravel()[jnp.clip(place, 0, x_size * y_size - 1)]


def allowed(
    lengths: Array, ends: Ends, rows: Array, columns: Array, inside: Array
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


def ended(lengths: Array, ends: Ends, rows: Array, columns: Array, inside: Array) -> tuple[Array, Array, Array]:
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
