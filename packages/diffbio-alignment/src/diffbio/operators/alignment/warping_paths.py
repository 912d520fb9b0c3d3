"""The recurrence of time warping over all paths, and how often a path passes each pair of positions.

A path goes from the first pair of positions to the last, by steps of one position in x, in y or in both. With weights w
of pairs,

    D[i,j] = w[i,j] x (D[i-1,j-1] + D[i-1,j] + D[i,j-1])

where + and x are those of a semiring. In the semiring of logarithms the derivative of D at the end by w[i,j] is the
probability that a path passes (i, j). On the way back, what flows through a pair is divided among the three before it
in proportion to their parts of the sum. The derivative of these probabilities is symmetric (it is the second derivative
of D), so that its product with a cotangent is a directional derivative: no derivative keeps a tape.

References:
    Sakoe and Chiba, Dynamic programming algorithm optimization for spoken word recognition, IEEE Transactions on
    Acoustics, Speech, and Signal Processing 1978.
    Cuturi and Blondel, Soft-DTW: a differentiable loss function for time-series, ICML 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int, Scalar

from diffbio.operators.alignment.diagonals import Diagonals, layout_of
from diffbio.operators.alignment.recurrence import scores_of
from diffbio.operators.alignment.segments import scan_back, scan_there
from diffbio.operators.alignment.semirings import LOG, NEVER, Semiring


class WarpingPaths(NamedTuple):
    """What all paths come to.

    Attributes:
        log_sum: log of the sum of exp(weight) over all paths; about `NEVER` where there is none.
        passes: Probability that a path passes a pair of positions (x, y).
    """

    log_sum: Float[Scalar, ""]
    passes: Float[Array, "x y"]


def warping_paths(weights: Float[Array, "x y"], lengths: Int[Array, "2"], band: int | None = None) -> WarpingPaths:
    """Return the log of the sum over all paths, and how often they pass each pair.

    Args:
        weights: Log-weights of pairs of positions; a path has the sum of those that it passes.
        lengths: How many positions of x and y count, each at least 1.
        band: Largest |i - j|, or `None`. A path exists if the lengths differ by no more.

    Returns:
        The sum, in nats, and probabilities, 0 beyond the lengths. Time grows as x * y, or as (x + y) * band; memory as
        (x + y)^1.5, beside the weights and probabilities themselves.

    Example:
        >>> paths = warping_paths(jnp.zeros((2, 2)), jnp.array([2, 2]))
        >>> round(float(jnp.exp(paths.log_sum)), 2), (3 * paths.passes).round(1).tolist()  # three paths
        (3.0, [[3.0, 1.0], [1.0, 3.0]])
    """
    return cast("WarpingPaths", _warping_paths(weights, lengths, band))


def warping_total(
    weights: Float[Array, "x y"], lengths: Int[Array, "2"], ring: Semiring, band: int | None = None
) -> Float[Scalar, ""]:
    """Return the sum over all paths in any semiring.

    Args:
        weights: Of pairs of positions, such as `times` takes.
        lengths: How many positions of x and y count, each at least 1.
        ring: The semiring.
        band: Largest |i - j|, or `None`.

    Example:
        >>> from diffbio.operators.alignment.semirings import COUNT
        >>> int(warping_total(jnp.ones((4, 4)), jnp.array([4, 4]), COUNT))  # Delannoy's number of 3 and 3
        63
    """
    return _forward(weights, lengths, layout_of(weights, band), ring)[0]


class _Front(NamedTuple):
    """All that the next diagonal needs: the last one, and the one before it."""

    last: Array
    before: Array


class _Wake(NamedTuple):
    """All that the diagonal before needs, on the way back.

    Attributes:
        passed: What the diagonal after it passes on to the pairs before both positions, before x, before y (3, lanes).
        over: What the diagonal after the next passes on to pairs before both positions.
    """

    passed: Array
    over: Array


def _advancing(
    weights: Array, lengths: Array, layout: Diagonals, ring: Semiring
) -> Callable[[_Front, Array], tuple[_Front, tuple[Array, Array, Array]]]:
    """Return the step from one diagonal to the next, which also gives the three parts of each sum."""

    def advance(front: _Front, diagonal: Array) -> tuple[_Front, tuple[Array, Array, Array]]:
        cells = layout.cells(diagonal)
        _, rows, columns, inside = cells
        parts = (
            layout.seen(diagonal, front.before, back=2, up=1, fill=ring.zero),
            layout.seen(diagonal, front.last, back=1, up=1, fill=ring.zero),
            layout.seen(diagonal, front.last, back=1, up=0, fill=ring.zero),
        )
        reached = ring.times(scores_of(weights, cells), reduce(ring.plus, parts))
        counts = inside & (rows > 0) & (columns > 0) & (rows <= lengths[0]) & (columns <= lengths[1])
        origin = inside & (rows == 0) & (columns == 0)
        reached = jnp.where(origin, ring.one, jnp.where(counts, reached, ring.zero))
        return _Front(reached, front.last), parts

    return advance


def _forward(weights: Array, lengths: Array, layout: Diagonals, ring: Semiring) -> tuple[Array, _Front]:
    """Return the sum over all paths, and the fronts at which segments of the diagonals begin."""
    advance = _advancing(weights, lengths, layout, ring)

    def step(front: _Front, diagonal: Array) -> tuple[_Front, Array]:
        front, _ = advance(front, diagonal)
        lane = lengths[0] - layout.first_row(diagonal)
        return front, front.last[jnp.clip(lane, 0, layout.lanes - 1)]

    blank = jnp.full(layout.lanes, ring.zero, weights.dtype)
    _, fronts, in_last_row = scan_there(step, _Front(blank, blank), layout.segments())
    return jnp.where(layout.holds(*lengths), in_last_row[lengths.sum()], ring.zero), fronts


def _backward(weights: Array, lengths: Array, layout: Diagonals, *, fronts: _Front, log_sum: Array) -> Array:
    """Return the probabilities; the parts of the sums of each segment are computed again from its front."""
    advance = _advancing(weights, lengths, layout, LOG)
    finishes = jnp.where(log_sum > NEVER / 2, jnp.ones_like(log_sum), 0.0)  # where there is no path, nothing flows

    def again(front: _Front, diagonal: Array) -> tuple[_Front, Array]:
        front, parts = advance(front, diagonal)
        return front, jax.nn.softmax(jnp.stack(parts), axis=0)

    def retreat(state: tuple[_Wake, Array], at: tuple[Array, Array]) -> tuple[tuple[_Wake, Array], None]:
        (wake, sheet), (diagonal, shares) = state, at
        _, rows, columns, _ = layout.cells(diagonal)
        flow = (
            jnp.where((rows == lengths[0]) & (columns == lengths[1]), finishes, 0.0)
            + layout.seen(diagonal, wake.over, back=-2, up=-1, fill=0.0)
            + layout.seen(diagonal, wake.passed[1], back=-1, up=-1, fill=0.0)
            + layout.seen(diagonal, wake.passed[2], back=-1, up=0, fill=0.0)
        )
        return (_Wake(flow * shares, wake.passed[0]), layout.put(sheet, diagonal, flow)), None

    nothing = jnp.zeros((3, layout.lanes), weights.dtype)
    start = _Wake(nothing, nothing[0]), layout.sheet(weights.dtype)
    (_, sheet), _ = scan_back(again, retreat, start, layout.segments(), fronts)
    return layout.matrices(sheet)[0]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _warping_paths(weights: Array, lengths: Array, band: int | None) -> WarpingPaths:
    return _paths(weights, lengths, band)


def _paths(weights: Array, lengths: Array, band: int | None) -> WarpingPaths:
    layout = layout_of(weights, band)
    log_sum, fronts = _forward(weights, lengths, layout, LOG)
    return WarpingPaths(log_sum, _backward(weights, lengths, layout, fronts=fronts, log_sum=log_sum))


def _value_and_saved(weights: Array, lengths: Array, band: int | None) -> tuple[WarpingPaths, tuple]:
    weights, lengths = weights.value, lengths.value  # pyright: ignore[reportAttributeAccessIssue]
    found = _paths(weights, lengths, band)
    return found, (weights, lengths, found.passes)


def _cotangents(band: int | None, saved: tuple, cotangent: WarpingPaths) -> tuple[Array, None]:
    weights, lengths, passes = saved
    slopes = jnp.zeros_like(weights)
    if not isinstance(cotangent.log_sum, SymbolicZero):
        slopes = cotangent.log_sum * passes
    if not isinstance(cotangent.passes, SymbolicZero):
        change = jax.jvp(lambda given: _paths(given, lengths, band).passes, (weights,), (cotangent.passes,))[1]
        slopes = slopes + change
    return slopes, None


_warping_paths.defvjp(_value_and_saved, _cotangents, symbolic_zeros=True)
