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
from jaxtyping import Array, Float

from diffbio.operators.alignment.diagonals import Diagonals
from diffbio.operators.alignment.ends import Ends, ended
from diffbio.operators.alignment.recurrence import Front, Pair, States, advancing, lengths_in_lanes, scores_of
from diffbio.operators.alignment.segments import scan_back
from diffbio.operators.alignment.semirings import LOG


class Expectations(NamedTuple):
    """What an alignment has on average, where each has the weight exp(score).

    Attributes:
        matches: Probability that two positions are aligned.
        opens: Number of gaps.
        extends: Number of further positions in gaps.
    """

    matches: Float[Array, "*pairs x y"]
    opens: Float[Array, "*pairs"]
    extends: Float[Array, "*pairs"]


def backward(
    pairs: Pair, layout: Diagonals, ends: Ends, *, fronts: Front, log_sums: Float[Array, " pairs"]
) -> Expectations:
    """Return the expectations of each pair; the states of each segment are computed again from its front.

    Args:
        pairs: Scores and costs, in nats.
        layout: Of the chain of matrices.
        ends: Which ends are free.
        fronts: At which segments begin, by `forward`.
        log_sums: The log of the sum over all alignments.
    """
    nothing = jnp.zeros(layout.lanes, pairs.scores.dtype)
    advance = advancing(pairs._replace(gap_open=-pairs.gap_open, gap_extend=-pairs.gap_extend), layout, ends, LOG)
    retreat = _retreating(pairs, layout, ends, log_sums)

    def again(front: Front, diagonal: Array) -> tuple[Front, States]:
        front = advance(front, diagonal)
        return front, front.states

    def step(state: tuple[Wake, Array], at: tuple[Array, States]) -> tuple[tuple[Wake, Array], list[Array]]:
        wake = retreat(state[0], at)
        sheet = layout.put(state[1], at[0], wake.flows.match)
        return (wake, sheet), [] if layout.pairs == 1 else [layout.in_column(0, at[0], gaps) for gaps in wake[-2:]]

    no_states = States(nothing, nothing, nothing)
    start = Wake(no_states, no_states, nothing, nothing, nothing, nothing)
    sheet = layout.sheet(pairs.scores.dtype)
    (wake, sheet), given = scan_back(again, step, (start, sheet), layout.segments(), fronts)
    gaps = [layout.down_column(0, each) for each in given] or [each[None] for each in wake[-2:]]
    return Expectations(layout.matrices(sheet), *(each.sum(1) for each in gaps))


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
    pairs: Pair, layout: Diagonals, ends: Ends, log_sums: Array
) -> Callable[[Wake, tuple[Array, States]], Wake]:
    """Return the step from one diagonal to the one before."""

    def share(flow: Array, source: Array, cost: Array, target: Array) -> Array:
        return flow * jnp.exp(jnp.minimum(source - cost - target, 1.0))  # only beside masked cells is it above 0

    def retreat(wake: Wake, at: tuple[Array, States]) -> Wake:
        diagonal, here = at
        cells = layout.cells(diagonal)
        gap_open, gap_extend, log_sum = (
            layout.in_lanes(values, diagonal) for values in (pairs.gap_open, pairs.gap_extend, log_sums)
        )
        lengths = lengths_in_lanes(pairs.lengths, layout, diagonal)

        def neighbor(values: Array, after: int, down: int) -> Array:
            return layout.seen(diagonal, values, back=-after, up=-down, fill=0.0)

        cost = -scores_of(pairs.scores, cells, further=1)
        flow, target = neighbor(wake.match_flow, 2, 1), neighbor(wake.match, 2, 1)
        to_match = [share(flow, source, cost, target) for source in here]
        flow, target = neighbor(wake.flows.gap_in_y, 1, 1), neighbor(wake.states.gap_in_y, 1, 1)
        opened_in_y = share(flow, here.match, gap_open, target)
        extended_in_y = share(flow, here.gap_in_y, gap_extend, target)
        flow, target = neighbor(wake.flows.gap_in_x, 1, 0), neighbor(wake.states.gap_in_x, 1, 0)
        opened_in_x = [share(flow, source, gap_open, target) for source in here[:2]]
        extended_in_x = share(flow, here.gap_in_x, gap_extend, target)
        final = [
            jnp.where(may, jnp.exp(jnp.minimum(value - log_sum, 1.0)), 0.0)
            for may, value in zip(ended(lengths, ends, *cells[1:]), here, strict=True)
        ]
        flows = States(
            final[0] + to_match[0] + opened_in_y + opened_in_x[0],
            final[1] + to_match[1] + extended_in_y + opened_in_x[1],
            final[2] + to_match[2] + extended_in_x,
        )
        opens = opened_in_y + opened_in_x[0] + opened_in_x[1]
        extends = extended_in_y + extended_in_x
        opens, extends = (
            now + (so_far if layout.pairs == 1 else jnp.where(cells.inside, so_far, 0.0))
            for now, so_far in ((opens, wake.opens), (extends, wake.extends))
        )
        return Wake(here, flows, wake.states.match, wake.flows.match, opens, extends)

    return retreat
