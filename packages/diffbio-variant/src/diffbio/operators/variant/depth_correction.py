"""Correction of read depth for GC content and mappability.

Hard: bins of no reads or low mappability are left out; of the log2 of the depth of the others, its smooth curve over GC
content is subtracted, then that over mappability, then the median. Relaxed: a bin counts with the weight

    sigmoid((mappability - min_mappability) / tau)

As tau -> 0 it counts or not. The curves are local linear regressions with a normal kernel, whose bandwidths are
learned; they are found again with less weight for outliers, as LOWESS does, so that changes of copy number bend them
little.

References:
    Cleveland, Robust locally weighted regression and smoothing scatterplots, JASA 1979.
    Ha et al., Integrative analysis of genome-wide loss of heterozygosity and monoallelic expression at nucleotide
    resolution reveals disrupted pathways in triple-negative breast cancer, Genome Research 2012: HMMcopy.
    Talevich et al., CNVkit: genome-wide copy number detection and visualization from targeted DNA sequencing, PLoS
    Computational Biology 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Le
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Scalar

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops

_GRID = 128
"""Places from 0 to 1 at which a curve is found; between them it is straight."""
_PRIOR = 1e-4
"""Bins' worth of the mean of all, so that a curve is known where there are no bins."""
_LEAST = 2.0**-6
"""Share of the median depth below which no depth is told from none."""


@dataclass(frozen=True, kw_only=True)
class DepthCorrectionConfig(OperatorConfig):
    """How depth is corrected.

    Args:
        gc_bandwidth: Standard deviation of the kernel over GC content, a fraction.
        mappability_bandwidth: That over mappability, a fraction.
        min_mappability: Mappability at which a bin counts half.
        n_robust: How often curves are found again with less weight for outliers.
        temperature: The softness tau of that threshold, in the unit of mappability.
    """

    gc_bandwidth: Annotated[float, Gt(0)] = 0.02
    mappability_bandwidth: Annotated[float, Gt(0)] = 0.05
    min_mappability: Annotated[float, Ge(0), Le(1)] = 0.8
    n_robust: Annotated[int, Ge(0)] = 3
    temperature: Annotated[float, Gt(0)] = 0.01


class CorrectedDepth(NamedTuple):
    """Depth without its biases.

    Attributes:
        log2_ratio: Log2 of corrected depth to the median (bins,); 0 where masked.
        bin_weight: How much a bin counts, in [0, 1] (bins,).
        bin_mask: Which bins have reads and count by at least half (bins,); no gradient.
    """

    log2_ratio: Float[Array, " bins"]
    bin_weight: Float[Array, " bins"]
    bin_mask: Bool[Array, " bins"]


@partial(jax.jit, static_argnames="n_robust")
def smooth_curve(
    values: Float[Array, " bins"],
    places: Float[Array, " bins"],
    weights: Float[Array, " bins"],
    *,
    bandwidth: ArrayLike,
    n_robust: int = 0,
) -> Float[Array, " bins"]:
    """Return the local linear regression of values on places, at the places.

    Args:
        values: Of the bins.
        places: In [0, 1], such as GC content.
        weights: How much bins count, at least 0.
        bandwidth: Standard deviation of the normal kernel, above 0, in the unit of the places.
        n_robust: How often it is found again with Tukey's biweights of the residuals, in units of 6 median absolute
            residuals.

    Returns:
        The curve (bins,), found at 128 places from 0 to 1, and straight between them; towards the mean of all values
        where there are few bins. Time grows as 128 x bins, memory as bins.

    References:
        Cleveland, JASA 1979.

    Example:
        >>> places = jnp.linspace(0.2, 0.8, 61)
        >>> curve = smooth_curve(1 + places, places, jnp.ones(61), bandwidth=0.05)
        >>> bool(jnp.allclose(curve, 1 + places, atol=1e-3))
        True
    """
    grid = jnp.linspace(0, 1, _GRID, dtype=values.dtype)
    places = jnp.clip(places, 0.0, 1.0)

    def fitted(weights: Array) -> Array:
        mean = _ratio(jnp.sum(weights * values), jnp.sum(weights))

        @jax.checkpoint
        def at(place: Array) -> Array:
            away = (places - place) / bandwidth
            near = weights * jnp.exp(-0.5 * away**2)
            count = near.sum() + _PRIOR
            middle = jnp.sum(near * away) / count
            away = away - middle
            level = (jnp.sum(near * values) + _PRIOR * mean) / count
            slope = jnp.sum(near * away * (values - level)) / (jnp.sum(near * away**2) + _PRIOR)
            return level - slope * middle

        return jnp.interp(places, grid, lax.map(at, grid))

    curve = fitted(weights)
    for _ in range(n_robust):  # a few
        residual = values - curve
        far = _ratio(residual, 6 * weighted_median(jnp.abs(residual), weights))
        curve = fitted(weights * jnp.maximum(1 - far**2, 0.0) ** 2)
    return curve


def weighted_median(values: Float[Array, " bins"], weights: Float[Array, " bins"]) -> Float[Scalar, ""]:
    """Return the value that half of the weight is below; between two such values their mean. 0 without weight.

    Args:
        values: Of the bins.
        weights: At least 0.

    Example:
        >>> float(weighted_median(jnp.array([3.0, 1.0, 9.0]), jnp.array([1.0, 1.0, 0.0])))
        2.0
    """
    order = jnp.argsort(jnp.where(weights > 0, values, jnp.inf))
    below = jnp.cumsum(weights[order])
    half = below[-1] / 2
    middle = values[order[jnp.argmax(below >= half)]] + values[order[jnp.argmax(below > half)]]
    return jnp.where(half > 0, middle / 2, 0.0)


@partial(jax.jit, static_argnames="n_robust")
def correct_depth(
    depth: Float[Array, " bins"],
    gc: Float[Array, " bins"],
    mappability: Float[Array, " bins"],
    bin_mask: Bool[Array, " bins"] | None = None,
    reference_depth: Float[Array, " bins"] | None = None,
    *,
    gc_bandwidth: ArrayLike,
    mappability_bandwidth: ArrayLike,
    min_mappability: float,
    softness: ArrayLike,
    n_robust: int = 3,
) -> CorrectedDepth:
    """Return log2 ratios without the bias by GC content and mappability.

    Args:
        depth: Reads, or their mean depth, in each bin; at least 0.
        gc: GC content, in [0, 1].
        mappability: In [0, 1].
        bin_mask: Which bins count.
        reference_depth: Of the same bins in normal samples; the depth is divided by it, and left out where it is 0.
        gc_bandwidth: See `smooth_curve`.
        mappability_bandwidth: Likewise.
        min_mappability: Mappability at which a bin counts half.
        softness: tau > 0 of that threshold.
        n_robust: See `smooth_curve`.

    References:
        Ha et al., Genome Research 2012.

    Example:
        >>> gc = jnp.linspace(0.3, 0.6, 200)
        >>> options = dict(gc_bandwidth=0.02, mappability_bandwidth=0.05, min_mappability=0.8, softness=0.01)
        >>> found = correct_depth(100 * gc, gc, jnp.ones(200), **options)
        >>> round(float(jnp.abs(found.log2_ratio).max()), 1)
        0.0
    """
    counted = jnp.ones(len(depth), bool) if bin_mask is None else bin_mask
    gc, mappability = (jnp.where(counted, known, 0.5) for known in (gc, mappability))
    seen = counted & (depth > 0) & (True if reference_depth is None else reference_depth > 0)
    weight = jnp.where(seen, soft_ops.greater(mappability, min_mappability, softness=softness), 0.0)
    ratio = jnp.where(seen, depth, 0.0)
    if reference_depth is not None:
        ratio = ratio / jnp.where(seen, reference_depth, 1.0)
    ratio = _ratio(ratio, weighted_median(ratio, weight))
    log2_ratio = jnp.log2(jnp.maximum(ratio, _LEAST))
    for places, bandwidth in ((gc, gc_bandwidth), (mappability, mappability_bandwidth)):
        log2_ratio -= smooth_curve(log2_ratio, places, weight, bandwidth=bandwidth, n_robust=n_robust)
    log2_ratio -= weighted_median(log2_ratio, weight)
    return CorrectedDepth(jnp.where(counted, log2_ratio, 0.0), weight, weight >= 0.5)


def _ratio(values: Array, unit: Array) -> Array:
    """Return values in a unit, or 0 where that is 0."""
    return jnp.where(unit > 0, values / jnp.where(unit > 0, unit, 1.0), 0.0)


class DepthCorrection(Operator[DepthCorrectionConfig]):
    """Turn the depth of bins into log2 ratios, without the bias by GC content and mappability.

    Reads `depth`, `gc` and `mappability` (bins,), and optionally `bin_mask` (bins,), which bins count, and
    `reference_depth` (bins,), that of normal samples; writes `log2_ratio` and `bin_weight` (bins,), and updates
    `bin_mask` (bins,) with bins that have no reads or are hard to map. Parameters: `log_gc_bandwidth` and
    `log_mappability_bandwidth` ().

    Args:
        config: Bandwidths and threshold.
        rngs: Not used: nothing is drawn.

    Example:
        >>> gc = 0.3 + 0.3 * (jnp.arange(300) * 0.618 % 1)  # in no order
        >>> depth = 100 * gc * jnp.where(jnp.arange(300) < 30, 1.5, 1.0)  # a gain of one copy
        >>> data = {"depth": depth, "gc": gc, "mappability": jnp.ones(300)}
        >>> found = DepthCorrection(DepthCorrectionConfig()).apply(data, {}, None)[0]["log2_ratio"]
        >>> round(float(found[:30].mean() - found[30:].mean()), 2)
        0.58
    """

    def __init__(self, config: DepthCorrectionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.log_gc_bandwidth = nnx.Param(jnp.float32(math.log(config.gc_bandwidth)))
        self.log_mappability_bandwidth = nnx.Param(jnp.float32(math.log(config.mappability_bandwidth)))
        self.softness = Softness(config.temperature)

    def compute(
        self,
        depth: Float[Array, " bins"],
        gc: Float[Array, " bins"],
        mappability: Float[Array, " bins"],
        bin_mask: Bool[Array, " bins"] | None = None,
        reference_depth: Float[Array, " bins"] | None = None,
    ) -> CorrectedDepth:
        """Return log2 ratios, weights and mask."""
        return correct_depth(
            depth,
            gc,
            mappability,
            bin_mask,
            reference_depth,
            gc_bandwidth=jnp.exp(self.log_gc_bandwidth[...]),
            mappability_bandwidth=jnp.exp(self.log_mappability_bandwidth[...]),
            min_mappability=self.config.min_mappability,
            softness=self.softness(),
            n_robust=self.config.n_robust,
        )
