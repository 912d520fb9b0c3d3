"""Segments of equal copy number along a genome, by sums over all segmentations.

Hard: the segmentation of least cost (optimal partitioning, PELT), which is the sum over bins of the squared difference
of the log2 ratio from the mean of its segment, and a penalty for each breakpoint. Relaxed: all segmentations, each with
the weight

    exp(-cost / tau)        cost = sum over bins of (x - mean of the segment)^2 + penalty x breakpoints

of which each bin gets the probability that a segment begins there, and the mean of its segment. For bins with noise of
standard deviation s, tau = 2 s^2 makes the weight a likelihood, with exp(-penalty / tau) for the prior odds of a
breakpoint. As tau -> 0 only the segmentation of least cost remains.

References:
    Jackson et al., An algorithm for optimal partitioning of data on an interval, IEEE Signal Processing Letters 2005.
    Killick, Fearnhead and Eckley, Optimal detection of changepoints with a linear computational cost, JASA 2012.
    Rigaill, Lebarbier and Robin, Exact posterior distributions and model selection criteria for multiple change-point
    detection problems, Statistics and Computing 2012.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.variant.noise import neighbour_noise
from diffbio.operators.variant.segment_sums import Cuts, SegmentSums, segment_sums

_LONGEST = 256
"""Bins of a segment that are looked at to find candidates: enough to tell changes of the size of the noise."""
_NATS = 16.0
"""A usual penalty in nats, by which a softness of one nat is found."""


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(OperatorConfig):
    """How bins are cut into segments.

    Args:
        penalty: Of a breakpoint, in nats: how much more likely the bins must become by it; of about 2 log(bins).
        noise_std: Standard deviation of the log2 ratio of a bin around the mean of its segment; `initialize` finds it.
        temperature: The softness tau, in nats: in units of 2 noise_std^2; with 1 weights are likelihoods.
        max_segment: Most bins of a segment; `None` for any. With candidates, most bins of those segments by which they
            are found; `None` for 256.
        n_candidates: Most breakpoints to choose from, found from segments of few bins; `None` for all bins. Counts the
            beginnings of chromosomes.
    """

    penalty: Annotated[float, Gt(0)] = 15.0
    noise_std: Annotated[float, Gt(0)] = 0.2
    temperature: Annotated[float, Gt(0)] = 1.0
    max_segment: Annotated[int, Ge(1)] | None = None
    n_candidates: Annotated[int, Ge(1)] | None = None


@partial(jax.jit, static_argnames=("max_segment", "n_candidates"))
def soft_segmentation(
    log2_ratio: Float[Array, " bins"],
    *,
    penalty: ArrayLike,
    softness: ArrayLike,
    bin_mask: Bool[Array, " bins"] | None = None,
    segment_start: Bool[Array, " bins"] | None = None,
    max_segment: int | None = None,
    n_candidates: int | None = None,
) -> SegmentSums:
    """Return where segments begin, and their means, over all segmentations.

    Args:
        log2_ratio: Of the bins, in any unit.
        penalty: Of a breakpoint, above 0, in that unit, squared.
        softness: tau > 0, in that unit, squared.
        bin_mask: Which bins count; the others belong to the segment of the bin before.
        segment_start: Which bins are the first of a chromosome; no segment goes over them.
        max_segment: Most bins of a segment, or, with candidates, of those that find them.
        n_candidates: Most breakpoints to choose from. Candidates are those of the largest probability if segments have
            at most `max_segment` bins; as longer ones must then be cut, at the best places, among them are also
            breakpoints that are less clear. Derivatives are for the same candidates.

    Returns:
        `breakpoint_probability` (bins,) that a segment begins at a bin, 0 for the first bin of a chromosome,
        `segment_mean` (bins,) and `segmentation_cost` (), -tau log of the sum of all weights. Time grows as bins x
        max_segment, by default as bins^2, with candidates as bins x max_segment + candidates^2. Memory, also that of
        the gradient, is linear in the bins.

    References:
        Jackson et al. 2005; Rigaill et al. 2012. In the limit, PELT.

    Example:
        >>> found = soft_segmentation(jnp.array([0.1, 0.0, 0.1, 1.0, 0.9]), penalty=0.1, softness=0.01)
        >>> [[round(x, 2) for x in y.tolist()] for y in found[:2]]
        [[0.0, 0.0, 0.0, 1.0, 0.0], [0.07, 0.07, 0.07, 0.95, 0.95]]
    """
    n_bins = len(log2_ratio)
    counted = jnp.ones(n_bins, bool) if bin_mask is None else bin_mask
    values = jnp.where(counted, log2_ratio, 0.0)
    penalty, softness = (jnp.asarray(number, values.dtype) for number in (penalty, softness))
    cuts = Cuts(counted, _first_counted(counted, segment_start), counted)
    longest = n_bins if max_segment is None else min(max_segment, n_bins)
    if n_candidates is None or n_candidates >= n_bins:
        return segment_sums(values, penalty, softness, cuts, n_edges=n_bins, longest=longest)
    longest = min(max_segment or _LONGEST, n_bins)
    # not too sharp: where the best place of a breakpoint is uncertain, the others are candidates as well
    sharp = jnp.maximum(softness, penalty / _NATS)
    short = segment_sums(*lax.stop_gradient((values, penalty, sharp)), cuts, n_edges=n_bins, longest=longest)
    likely = lax.stop_gradient(short.breakpoint_probability)
    best = lax.top_k(jnp.where(cuts.forced, 2.0, likely), n_candidates)[1]
    allowed = jnp.zeros(n_bins, bool).at[best].set(True)
    return segment_sums(
        values, penalty, softness, cuts._replace(allowed=allowed), n_edges=n_candidates, longest=n_candidates
    )


def _first_counted(counted: Bool[Array, " bins"], segment_start: Bool[Array, " bins"] | None) -> Bool[Array, " bins"]:
    """Return which bins are the first of a chromosome that count."""
    if segment_start is None:
        return counted & (jnp.cumsum(counted) == 1)
    index = jnp.arange(len(counted))
    begin = lax.cummax(jnp.where(segment_start, index, 0))
    last = jnp.concatenate([jnp.array([-1]), lax.cummax(jnp.where(counted, index, -1))[:-1]])
    return counted & (last < begin)


class SoftSegmentation(Operator[SegmentationConfig]):
    """Cut a genome into segments of equal copy number, softly.

    Reads `log2_ratio` (bins,), and optionally `bin_mask` (bins,), which bins count, and `segment_start` (bins,), which
    are the first of a chromosome; writes `breakpoint_probability` (bins,), `segment_mean` (bins,) and
    `segmentation_cost` () in nats. Its parameter is `log_penalty` ().

    Args:
        config: Penalty, noise, softness and which segments are considered.
        rngs: Not used: nothing is drawn.

    Example:
        >>> segmentation = SoftSegmentation(SegmentationConfig(penalty=5.0, noise_std=0.08))
        >>> data = {"log2_ratio": jnp.array([0.05, -0.1, 0.0, 0.5, 0.6, 0.5, 0.0, -0.1, 0.05])}
        >>> [abs(round(mean, 1)) for mean in segmentation.apply(data, {}, None)[0]["segment_mean"].tolist()]
        [0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0]
    """

    def __init__(self, config: SegmentationConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.log_penalty = nnx.Param(jnp.float32(math.log(config.penalty)))
        self.noise_std = nnx.Variable(jnp.float32(config.noise_std))
        self.softness = Softness(config.temperature)

    def initialize(self, log2_ratio: Float[Array, " bins"], bin_mask: Bool[Array, " bins"] | None = None) -> None:
        """Set the noise to that of the differences of neighbouring bins; see `neighbour_noise`."""
        self.noise_std[...] = neighbour_noise(log2_ratio, bin_mask)

    def compute(
        self,
        log2_ratio: Float[Array, " bins"],
        bin_mask: Bool[Array, " bins"] | None = None,
        segment_start: Bool[Array, " bins"] | None = None,
    ) -> SegmentSums:
        """Return breakpoints, means and cost."""
        nat = 2 * self.noise_std[...] ** 2
        found = soft_segmentation(
            log2_ratio,
            penalty=nat * jnp.exp(self.log_penalty[...]),
            softness=nat * self.softness(),
            bin_mask=bin_mask,
            segment_start=segment_start,
            max_segment=self.config.max_segment,
            n_candidates=self.config.n_candidates,
        )
        return found._replace(segmentation_cost=found.segmentation_cost / nat)
