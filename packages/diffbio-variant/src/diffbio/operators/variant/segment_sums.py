"""Sums over all segmentations of a row of bins.

A segmentation cuts the row at some of its edges into segments. Its weight is exp(-cost / tau), where each segment costs
the squared differences from its mean, and each cut a penalty. With L[t] = log of the sum over all segmentations of what
is before the edge t,

    L[t] = log sum over s < t of exp(L[s] - (cost(s, t) + penalty) / tau)

and, behind, the probability P[s] of a cut at s is the sum over t of P[t] times the share of s in L[t]. Costs are found
from sums of all bins before an edge. As the sum of squares of all bins is common to all segmentations, it is left out
of the recurrence, and so are all digits that it would cost.

An output has a derivative by a weight that is a covariance of two sums over segments. It is found as the directional
derivative of the probabilities along one of them, so that no tape is kept: memory is linear in the bins.

References:
    Jackson et al., An algorithm for optimal partitioning of data on an interval, IEEE Signal Processing Letters 2005.
    Mensch and Blondel, Differentiable dynamic programming for structured prediction and attention, ICML 2018.
    Knuth, The art of computer programming 2, 4.2.2: sums with the error of their rounding.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Scalar

from diffbio.operators.variant.hidden_chain import NEVER


class Cuts(NamedTuple):
    """Where a row may be cut.

    Attributes:
        counted: Bins that count.
        forced: Bins before which there is a cut, such as the first of a chromosome; the first that counts always is.
        allowed: Bins before which there may be a cut; only those that count are.
    """

    counted: Bool[Array, " bins"]
    forced: Bool[Array, " bins"]
    allowed: Bool[Array, " bins"]


class SegmentSums(NamedTuple):
    """What all segmentations give.

    Attributes:
        breakpoint_probability: Share of the segmentations with a cut before a bin (bins,), without the forced ones.
        segment_mean: Mean of a bin's segment, over all segmentations (bins,).
        segmentation_cost: -tau log of the sum of all weights ().
    """

    breakpoint_probability: Float[Array, " bins"]
    segment_mean: Float[Array, " bins"]
    segmentation_cost: Float[Scalar, ""]


def segment_sums(
    values: Float[Array, " bins"],
    penalty: Float[Scalar, ""],
    softness: Float[Scalar, ""],
    cuts: Cuts,
    *,
    n_edges: int,
    longest: int,
) -> SegmentSums:
    """Return sums over all segmentations.

    Args:
        values: Of the bins.
        penalty: Of a cut that is not forced, in the unit of the values, squared.
        softness: tau > 0, in the same unit.
        cuts: Where cuts may be and must be.
        n_edges: At least as many as there are allowed and forced cuts.
        longest: Most edges that a segment may go over. With `n_edges` any segment is considered.

    Returns:
        Sums over segmentations. Time grows as n_edges x longest, memory as bins.

    Example:
        >>> every = jnp.ones(4, bool)
        >>> cuts = Cuts(every, jnp.arange(4) == 0, every)
        >>> values, penalty, softness = jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array(0.2), jnp.array(0.01)
        >>> found = segment_sums(values, penalty, softness, cuts, n_edges=4, longest=4)
        >>> found.breakpoint_probability.round(2).tolist(), round(float(found.segmentation_cost), 2)
        ([0.0, 0.0, 1.0, 0.0], 0.2)
    """
    return cast("SegmentSums", _differentiable(values, penalty, softness, cuts, n_edges, longest))


class _Row(NamedTuple):
    """What is known of each edge; the last are repeated where there are fewer than `n_edges`.

    `total` and `error` sum up to that of all values before the edge, `number` is how many they are, `slope` the same
    sum of the cotangents of the means, `gain` the cotangent of the cut, and `free` 0 where the cut is forced, else 1.
    Segments that end at the edge begin at `least`, an edge, or later.
    """

    total: Float[Array, " edges"]
    error: Float[Array, " edges"]
    number: Float[Array, " edges"]
    slope: Float[Array, " edges"]
    gain: Float[Array, " edges"]
    free: Float[Array, " edges"]
    least: Int[Array, " edges"]


class _Spread(NamedTuple):
    """What segments are expected to give.

    `cut` is the probability of each edge; `mean` and `slope` are differences, from edge to edge, of the mean of the
    values and of the cotangents in the segment; the others are the number of free cuts and the cost, without that
    sum of squares that all segmentations share, and the log of the sum of all weights.
    """

    cut: Float[Array, " edges"]
    mean: Float[Array, " edges"]
    slope: Float[Array, " edges"]
    n_cuts: Float[Scalar, ""]
    cost: Float[Scalar, ""]
    log_sum: Float[Scalar, ""]


def _segment_sums(  # noqa: PLR0917 - as `_differentiable`
    values: Array, penalty: Array, softness: Array, cuts: Cuts, n_edges: int, longest: int
) -> tuple[SegmentSums, Array]:
    """Return the sums, and minus the derivative of the cost by the softness."""
    nothing = jnp.zeros_like(values)
    row, position, last, middle = _row(values, nothing, nothing, cuts, n_edges)
    spread = _spread(row, last, (penalty, softness), jnp.zeros_like(softness), longest)
    centered = jnp.where(cuts.counted, values - middle, 0.0)
    n_bins = len(values)
    cut = nothing.at[position].add(spread.cut * row.free, mode="drop")
    mean = jnp.where(cuts.counted.any(), middle + _between(spread.mean, position, n_bins), 0.0)
    cost = jnp.sum(centered**2) - softness * spread.log_sum
    return SegmentSums(cut, mean, cost), spread.log_sum + spread.cost / softness


def _row(
    values: Array, slopes: Array, gains: Array, cuts: Cuts, n_edges: int
) -> tuple[_Row, Int[Array, " edges"], Int[Scalar, ""], Float[Scalar, ""]]:
    """Return the edges, their positions, the number of the last, and what was subtracted from the values."""
    n_bins = len(values)
    may = (cuts.allowed | cuts.forced) & cuts.counted
    position = jnp.nonzero(may, size=n_edges + 1, fill_value=n_bins)[0]
    position = position.at[-1].set(n_bins)
    last = jnp.minimum(may.sum(), n_edges)
    middle = jnp.sum(jnp.where(cuts.counted, values, 0.0)) / jnp.maximum(cuts.counted.sum(), 1)
    total, error = _sums_before(jnp.where(cuts.counted, values - middle, 0.0))
    slope, _ = _sums_before(slopes)  # bins that don't count have a mean, too
    count, _ = _sums_before(cuts.counted.astype(values.dtype))
    inside = jnp.minimum(position, n_bins - 1)
    forced = cuts.forced[inside] | (position == n_bins)
    edges = jnp.arange(n_edges + 1)
    # a segment may begin at a forced cut, but not before it
    reached = lax.cummax(jnp.where(forced, edges, 0))
    least = jnp.concatenate([jnp.zeros(1, int), reached[:-1]])
    gain = jnp.where(forced, 0.0, gains[inside])
    free = jnp.where(forced, 0.0, jnp.ones((), values.dtype))
    position = position.at[0].set(jnp.where(last > 0, 0, n_bins))  # what is before the first that counts belongs to it
    row = _Row(total[position], error[position], count[position], slope[position], gain, free, least)
    return row, position, last, middle


def _spread(row: _Row, last: Array, weighing: tuple[Array, Array], tilt: Array, longest: int) -> _Spread:
    """Return what segments give if their log-weights have `tilt` times their gain and slope besides."""
    penalty, softness = weighing
    n_edges = len(row.total)
    dtype = row.total.dtype
    padded = jax.tree.map(lambda known: jnp.pad(known, (longest, 0)), row)
    back = jnp.arange(longest) - longest

    def segments(at: Array, log_sums: tuple[Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
        """Return log-weights, means, costs, slopes and cuts of what ends at an edge, from `longest` before on."""
        begin: _Row = jax.tree.map(lambda known: lax.dynamic_slice_in_dim(known, at, longest), padded)
        end: _Row = jax.tree.map(lambda known: known[at], row)
        total = (end.total - begin.total) + (end.error - begin.error)
        size = jnp.maximum(end.number - begin.number, 1.0)
        mean, slope = total / size, end.slope - begin.slope
        cost = penalty * begin.free - total * mean
        high, low = (lax.dynamic_slice_in_dim(known, at, longest) for known in log_sums)
        until = (high - log_sums[0][at + longest - 1]) + (low - log_sums[1][at + longest - 1])
        weight = until - cost / softness + tilt * (begin.gain + mean * slope)
        possible = (at + back >= end.least) & (at <= last)
        return jnp.where(possible, weight, NEVER), mean, cost, slope / size, begin.free

    def forth(log_sums: tuple[Array, Array], at: Array) -> tuple[tuple[Array, Array], None]:
        more = jax.nn.logsumexp(segments(at, log_sums)[0])
        before = tuple(known[at + longest - 1] for known in log_sums)
        high = before[0] + more
        low = before[1] + _rounded_off(before[0], more, high)
        return tuple(known.at[at + longest].set(new) for known, new in zip(log_sums, (high, low), strict=True)), None  # pyright: ignore

    nothing = jnp.zeros(n_edges + longest, dtype)
    log_sums = lax.scan(forth, (nothing, nothing), jnp.arange(1, n_edges))[0]

    def spread(found: tuple[Array, ...], at: Array) -> tuple[tuple[Array, ...], None]:
        cut, means, slopes, n_cuts, costs = found
        weight, mean, cost, slope, free = segments(at, log_sums)
        share = cut[at + longest] * jax.nn.softmax(weight)

        def add(known: Array, new: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(known, lax.dynamic_slice_in_dim(known, at, longest) + new, at, 0)

        def add_difference(known: Array, new: Array) -> Array:
            return add(known, new).at[at + longest].add(-new.sum())

        found = (
            add(cut, share),
            add_difference(means, share * mean),
            add_difference(slopes, share * slope),
            n_cuts + jnp.sum(share * free),
            costs + jnp.sum(share * cost),
        )
        return found, None

    none = jnp.zeros((), dtype)
    start = (nothing.at[last + longest].set(1.0), nothing, nothing, none, none)
    found = lax.scan(spread, start, jnp.arange(1, n_edges), reverse=True)[0]
    log_sum = log_sums[0][last + longest] + log_sums[1][last + longest]
    cut, means, slopes, n_cuts, costs = found
    return _Spread(cut[longest:], means[longest:], slopes[longest:], n_cuts, costs, log_sum)


def _between(differences: Array, position: Array, n_bins: int) -> Float[Array, " bins"]:
    """Return what is between edges, from differences at the edges."""
    return jnp.cumsum(jnp.zeros(n_bins + 1, differences.dtype).at[position].add(differences))[:n_bins]


def _sums_before(values: Array) -> tuple[Array, Array]:
    """Return the sum of all values before each edge, and its rounding error."""

    def join(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        total = first[0] + second[0]
        return total, first[1] + second[1] + _rounded_off(first[0], second[0], total)

    sums = lax.associative_scan(join, (values, jnp.zeros_like(values)))
    return tuple(jnp.pad(known, (1, 0)) for known in sums)  # pyright: ignore[reportReturnType]


def _rounded_off(x: Array, y: Array, total: Array) -> Array:
    """Return x + y - total, of which the total is the rounded sum."""
    added = total - x
    return (x - (total - added)) + (y - added)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _differentiable(  # noqa: PLR0917 - a function of custom derivative has no keywords
    values: Array, penalty: Array, softness: Array, cuts: Cuts, n_edges: int, longest: int
) -> SegmentSums:
    return _segment_sums(values, penalty, softness, cuts, n_edges, longest)[0]


def _forward(  # noqa: PLR0917 - as `_differentiable`
    values: Array, penalty: Array, softness: Array, cuts: Cuts, n_edges: int, longest: int
) -> tuple[SegmentSums, tuple]:
    found, entropy = _segment_sums(values, penalty, softness, cuts, n_edges, longest)
    return found, (values, penalty, softness, cuts, found, entropy)


def _backward(n_edges: int, longest: int, saved: tuple, cotangent: SegmentSums) -> tuple:
    values, penalty, softness, cuts, found, entropy = saved
    row, position, last, _ = _row(values, cotangent.segment_mean, cotangent.breakpoint_probability, cuts, n_edges)

    def tilted(tilt: Array) -> _Spread:
        return _spread(row, last, (penalty, softness), tilt, longest)

    spread, change = jax.jvp(tilted, (jnp.zeros_like(softness),), (jnp.ones_like(softness),))
    of_mean = _between(2 * change.mean / softness + spread.slope, position, len(values))
    of_cost = cotangent.segmentation_cost
    of_values = jnp.where(cuts.counted, of_mean + of_cost * 2 * (values - found.segment_mean), 0.0)
    of_penalty = of_cost * spread.n_cuts - change.n_cuts / softness
    of_softness = change.cost / softness**2 - of_cost * entropy
    return of_values, of_penalty, of_softness, None


_differentiable.defvjp(_forward, _backward)
