"""The recurrence of a profile HMM over all paths, row by row of residues, in a semiring; and its way back.

A path leaves the flank N by B, enters a node's match state, goes through match M, insert I and delete D states to the
end E, and from there either by the flank J back to B, or by the flank C out. With i counting residues and k nodes,

    M_i,k = match_i,k  x (M_i-1,k-1 x mm + I_i-1,k-1 x im + D_i-1,k-1 x dm + B_i-1 x begin_k)
    I_i,k = insert_i,k x (M_i-1,k x mi + I_i-1,k x ii)
    D_i,k =               M_i,k-1 x md + D_i,k-1 x dd
    E_i   = sum over k of (M_i,k + D_i,k) x exit_k
    J_i   = J_i-1 x loop + E_i x again          C_i = C_i-1 x loop + E_i x stop
    N_i   = N_i-1 x loop                        B_i = (N_i + J_i) x move

where + and x are those of the semiring. A row is computed at once: its chain of delete states is a prefix scan of the
maps D -> D x dd + M x md. On the way back, what flows through a state is divided among those that it came from, in
proportion to their parts of the sum; flows are probabilities, so that nothing can overflow.

References:
    Krogh, Brown, Mian, Sjolander and Haussler, Hidden Markov models in computational biology, Journal of Molecular
    Biology 1994.
    Eddy, Accelerated profile HMM searches, PLoS Computational Biology 2011: the states.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.alignment.semirings import NEVER, Semiring


def _first_of_the_best(x: Array, y: Array) -> Array:
    """Return the larger one; the whole derivative goes to the first where both are equal."""
    return jnp.where(x >= y, x, y)


BEST = Semiring(_first_of_the_best, jnp.add, NEVER, 0.0, lambda values: values[jnp.argmax(values)])
"""The maximum, with ties broken: what flows on the way back is one best path, and not the mean of several."""


class Transitions(NamedTuple):
    """A number for each transition out of the states of a node (nodes,); those of the last node are not used."""

    mm: Float[Array, " nodes"]
    mi: Float[Array, " nodes"]
    md: Float[Array, " nodes"]
    im: Float[Array, " nodes"]
    ii: Float[Array, " nodes"]
    dm: Float[Array, " nodes"]
    dd: Float[Array, " nodes"]


class Moves(NamedTuple):
    """A number for each thing that a path may do without a residue.

    Attributes:
        transitions: Within the profile.
        begin: To enter at a node's match state.
        exit: To leave after a node's match or delete state.
        loop: To emit one more residue in a flank.
        move: To leave a flank.
        again: To go back from the end, for another pass through the profile.
        stop: Not to.
    """

    transitions: Transitions
    begin: Float[Array, " nodes"]
    exit: Float[Array, " nodes"]
    loop: Float[Scalar, ""]
    move: Float[Scalar, ""]
    again: Float[Scalar, ""]
    stop: Float[Scalar, ""]


class Emissions(NamedTuple):
    """A number for each residue and each state that may emit it; the flanks have 0."""

    match: Float[Array, "*positions nodes"]
    insert: Float[Array, "*positions nodes"]


class PathWeights(NamedTuple):
    """Log-weights of what a path may do, or how often it does so."""

    moves: Moves
    emissions: Emissions


class Row(NamedTuple):
    """The states after some residues: three for each node (nodes,), and three without one ()."""

    match: Float[Array, " nodes"]
    insert: Float[Array, " nodes"]
    delete: Float[Array, " nodes"]
    n: Float[Scalar, ""]
    j: Float[Scalar, ""]
    c: Float[Scalar, ""]


def advance(moves: Moves, emitted: Emissions, row: Row, ring: Semiring) -> Row:
    """Return the row after one more residue.

    Args:
        moves: Log-weights.
        emitted: Those of this residue (nodes,).
        row: The states before it.
        ring: The semiring.
    """
    plus, times, within = ring.plus, ring.times, moves.transitions
    inner = reduce(plus, (times(row.match, within.mm), times(row.insert, within.im), times(row.delete, within.dm)))
    begun = times(times(plus(row.n, row.j), moves.move), moves.begin)
    match = times(plus(_shifted(inner, ring), begun), emitted.match)
    insert = times(plus(times(row.match, within.mi), times(row.insert, within.ii)), emitted.insert)
    delete = _chain(_shifted(within.dd, ring), _shifted(times(match, within.md), ring), ring)
    end = ring.total(times(plus(match, delete), moves.exit))
    return Row(
        match,
        insert,
        delete,
        times(row.n, moves.loop),
        plus(times(row.j, moves.loop), times(end, moves.again)),
        plus(times(row.c, moves.loop), times(end, moves.stop)),
    )


def _chained(extended: Array, opened: Array, ring: Semiring) -> Array:
    """Return D_k = D_k-1 x extended_k + opened_k for all nodes k."""

    def compose(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        return ring.times(left[0], right[0]), ring.plus(ring.times(left[1], right[0]), right[1])

    return lax.associative_scan(compose, (extended, opened))[1]


_chain = jax.custom_jvp(_chained, nondiff_argnums=(2,))


@_chain.defjvp
def _chain_derivative(ring: Semiring, inputs: tuple[Array, Array], changes: tuple[Array, Array]) -> tuple[Array, Array]:
    """Give the chain's derivative as a chain of numbers: it compiles in half of the time."""
    extended, opened = inputs
    delete = _chain(extended, opened, ring)
    _, divide = jax.vjp(ring.plus, ring.times(_shifted(delete, ring), extended), opened)
    by_extending, by_opening = divide(jnp.ones_like(delete))

    def compose(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
        return left[0] * right[0], left[1] * right[0] + right[1]

    own = by_extending * changes[0] + by_opening * changes[1]
    return delete, lax.associative_scan(compose, (by_extending, own))[1]


def _shifted(values: Array, ring: Semiring) -> Array:
    """Move what each node has to the next one."""
    return jnp.concatenate([jnp.full_like(values[:1], ring.zero), values[:-1]])


def forward(weights: PathWeights, length: Int[Scalar, ""], ring: Semiring) -> tuple[Float[Scalar, ""], Row]:
    """Return the sum over all paths, and the rows at which segments begin (segments, ...).

    Args:
        weights: Log-weights.
        length: How many residues count, the first ones.
        ring: The semiring.
    """
    moves = weights.moves
    blank = jnp.full_like(moves.begin, ring.zero)
    never, one = blank[0], jnp.full_like(blank[0], ring.one)

    def segment(row: Row, steps: tuple[Array, Emissions]) -> tuple[Row, Row]:
        return _after(moves, length, steps, row, ring), row

    start = Row(blank, blank, blank, one, never, never)
    last, rows = lax.scan(segment, start, _segments(weights.emissions))
    return ring.times(last.c, moves.move), rows


def backward(weights: PathWeights, length: Int[Scalar, ""], ring: Semiring, rows: Row) -> PathWeights:
    """Return how often a path does each thing: on average over all, in the ring of logarithms, or the best one.

    The rows of each segment are computed again from its first one.

    Args:
        weights: Log-weights.
        length: How many residues count; if none do, all counts are 0.
        ring: `LOG` or `BEST`.
        rows: Those at which segments begin, by `forward`.
    """
    moves = weights.moves

    def segment(carry: tuple[Row, Moves], begun: tuple[tuple[Array, Emissions], Row]) -> tuple:
        flows, counts = carry
        (indices, emissions), row = begun

        def last(moves: Moves, emissions: Emissions, row: Row) -> Row:
            return _after(moves, length, (indices, emissions), row, ring)

        done, emitted, flows = jax.vjp(last, moves, emissions, row)[1](flows)
        return (flows, jax.tree.map(jnp.add, counts, done)), emitted

    ended = jnp.where(length > 0, 1.0, jnp.zeros_like(moves.move))
    flows = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), rows)._replace(c=ended)
    counts = jax.tree.map(jnp.zeros_like, moves)._replace(move=ended)
    (_, counts), emissions = lax.scan(segment, (flows, counts), (_segments(weights.emissions), rows), reverse=True)
    n_positions = weights.emissions.match.shape[0]
    return PathWeights(counts, jax.tree.map(lambda flow: flow.reshape(-1, flow.shape[-1])[:n_positions], emissions))


def _after(moves: Moves, length: Array, steps: tuple[Array, Emissions], row: Row, ring: Semiring) -> Row:
    """Return the row after some steps; beyond the length nothing changes."""

    def step(row: Row, at: tuple[Array, Emissions]) -> tuple[Row, None]:
        index, emitted = at
        following = advance(moves, emitted, row, ring)
        return jax.tree.map(lambda new, old: jnp.where(index < length, new, old), following, row), None

    return lax.scan(step, row, steps)[0]


def _segments(emissions: Emissions) -> tuple[Int[Array, "segments rows"], Emissions]:
    """Return the steps in segments of about as many as there are segments: the square root of the positions."""
    n_positions, n_nodes = emissions.match.shape
    size = math.isqrt(max(n_positions - 1, 0)) + 1
    count = -(-n_positions // size)
    padded = jax.tree.map(
        lambda plane: jnp.pad(plane, ((0, count * size - n_positions), (0, 0))).reshape(count, size, n_nodes), emissions
    )
    return jnp.arange(count * size).reshape(count, size), padded
