"""What alignments have on average: the recurrence in reverse.

The derivative of the log of the sum over all alignments by a score is the probability that this pair is aligned. One
pass over the diagonals in reverse finds it from the states of the recurrence alone: the share that a state passes on to
a later one is exp(its log-weight + the weight of the step - the later one's log-weight).

References:
    Durbin, Eddy, Krogh and Mitchison, Biological sequence analysis, 1998, chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from diffbio.operators.alignment.diagonals import Diagonals
from diffbio.operators.alignment.ends import Ends, ended
from diffbio.operators.alignment.recurrence import Front, Pair, States, advancing, scores_of
from diffbio.operators.alignment.segments import scan_back
from diffbio.operators.alignment.semirings import Semiring


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


def backward(
    pair: Pair, layout: Diagonals, ends: Ends, ring: Semiring, *, fronts: Front, log_sum: Array
) -> Expectations:
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

    def step(state: tuple[Wake, Array], at: tuple[Array, States]) -> tuple[tuple[Wake, Array], None]:
        wake = retreat(state[0], at)
        return (wake, layout.put(state[1], at[0], wake.flows.match)), None

    no_states = States(nothing, nothing, nothing)
    start = Wake(no_states, no_states, nothing, nothing, nothing, nothing)
    sheet = layout.sheet(pair.scores.dtype)
    (wake, sheet), _ = scan_back(again, step, (start, sheet), layout.segments(), fronts)
    return Expectations(layout.matrix(sheet), wake.opens.sum(), wake.extends.sum())


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
) -> Callable[[Wake, tuple[Array, States]], Wake]:
    """Return the step from one diagonal to the one before."""

    def share(flow: Array, source: Array, cost: Array, target: Array) -> Array:
        return flow * jnp.exp(jnp.minimum(source - cost - target, 1.0))  # only beside masked cells is it above 0

    def retreat(wake: Wake, at: tuple[Array, States]) -> Wake:
        diagonal, here = at
        rows, columns, inside = layout.cells(diagonal)

        def neighbor(values: Array, after: int, down: int) -> Array:
            return layout.seen(diagonal, values, back=-after, up=-down, fill=0.0)

        cost = -scores_of(pair.scores, rows + 1, columns + 1)
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
        return Wake(here, flows, wake.states.match, wake.flows.match, opens, extends)

    return retreat
