"""The statistic of circular binary segmentation: the arc of bins that differs most from all others.

Hard: the bins are laid in a circle, and of all arcs the one is taken whose mean differs most from that of the rest, by
the t statistic with the variance left within the two; its ends are where circular binary segmentation splits first.
Relaxed: with B the variance between arc and rest, in units of that of all, the greatest B is replaced by
tau log sum exp(B / tau) over all arcs. As tau -> 0 it becomes the greatest.

References:
    Olshen et al., Circular binary segmentation for the analysis of array-based DNA copy number data, Biostatistics
    2004.
    Venkatraman and Olshen, A faster circular binary segmentation algorithm for the analysis of array CGH data,
    Bioinformatics 2007.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Scalar

from diffbio.core import soft_ops


class Arc(NamedTuple):
    """The arc that differs most.

    Attributes:
        statistic: Soft maximum of t^2 / (1 + t^2 / (bins - 2)), over all arcs ().
        t: The t statistic of the arc that differs most, above 0 ().
        begin: Its first bin; 0 is never in the arc, as an arc and the rest are alike ().
        end: The first bin behind it, at most the number of bins ().
    """

    statistic: Float[Scalar, ""]
    t: Float[Scalar, ""]
    begin: Int[Scalar, ""]
    end: Int[Scalar, ""]


@jax.jit
def most_different_arc(log2_ratio: Float[Array, " bins"], *, softness: ArrayLike = 1.0) -> Arc:
    """Return how much the arc that differs most does so, softly, and where it is.

    Args:
        log2_ratio: Of the bins, at least three; only those that count.
        softness: tau > 0, in units of the statistic, whose mean is about 1 for an arc like the others.

    Returns:
        The statistic of all arcs, which is the share of an arc in the variance, times bins - 1; t, begin and end of the
        arc that differs most. Begin and end have no gradient. Time grows as bins^2, memory as bins, that of the
        gradient as bins^2 / 2.

    References:
        Olshen et al., Biostatistics 2004.

    Example:
        >>> arc = most_different_arc(jnp.array([0.0, 0.1, 0.0, 0.9, 1.0, 0.1]))
        >>> int(arc.begin), int(arc.end), round(float(arc.t), 1)
        (3, 5, 17.0)
    """
    n_bins = len(log2_ratio)
    centered = log2_ratio - log2_ratio.mean()
    before = jnp.cumsum(centered) - centered
    squares = jnp.sum(centered**2)
    variance = jnp.where(squares > 0, squares, 1.0) / (n_bins - 1)

    @jax.checkpoint
    def of_length(best: tuple[Array, ...], length: Array) -> tuple[tuple[Array, ...], Array]:
        """Take the arcs of a length, up to half of the circle: the rest of a longer one is as different."""
        difference = jnp.roll(before, -length) - before
        size = length.astype(centered.dtype)
        between = difference**2 * n_bins / (size * (n_bins - size) * variance)
        at = between.argmax()
        greatest = between[at]
        better = greatest > best[0]
        best = tuple(jnp.where(better, new, old) for new, old in zip((greatest, at, length), best, strict=True))
        return best, jax.nn.logsumexp(between / softness)

    none = (jnp.full((), -1, centered.dtype), jnp.zeros((), int), jnp.ones((), int))
    (greatest, at, length), each = lax.scan(of_length, none, jnp.arange(1, n_bins // 2 + 1))
    begin, end = at, at + length
    around = (begin == 0) | (end > n_bins)  # then the rest is the arc
    begin, end = jnp.where(around, end % n_bins, begin), jnp.where(around, jnp.where(begin == 0, n_bins, begin), end)
    left = jnp.maximum(n_bins - 1 - greatest, jnp.finfo(centered.dtype).eps)
    return Arc(
        jnp.asarray(softness, centered.dtype) * jax.nn.logsumexp(each),
        soft_ops.sqrt((n_bins - 2) * greatest / left),
        begin,
        end,
    )
