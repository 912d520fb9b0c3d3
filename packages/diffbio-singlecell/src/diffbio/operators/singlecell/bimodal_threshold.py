"""The valley of a histogram with two hills, by which scores are cut in two."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

_BINS = 256
_MOST_SMOOTHINGS = 10_000


@jax.jit
def bimodal_threshold(scores: Float[Array, " n"], otherwise: Float[Array, ""] | float) -> Float[Array, ""]:
    """Return the minimum between the two maxima of the smoothed histogram of `scores`.

    The histogram (256 bins) is smoothed by means of three bins, again and again, until no more than two maxima are
    left. A choice of one bin: no gradient.

    Args:
        scores: Real numbers (n,), in any unit.
        otherwise: What is returned where the histogram never has just two maxima.

    Returns:
        The middle of the lowest bin between the maxima.

    References:
        Prewitt and Mendelsohn, The analysis of cell images, 1966; scikit-image `threshold_minimum`, which Scrublet
        calls.

    Example:
        >>> hill = 0.05 * jax.scipy.special.ndtri(jnp.linspace(0.01, 0.99, 500))
        >>> scores = jnp.concatenate([0.2 + hill, 0.8 + hill])
        >>> 0.3 < float(bimodal_threshold(scores, 0.5)) < 0.7
        True
    """
    scores = lax.stop_gradient(scores)
    lowest, width = scores.min(), (scores.max() - scores.min()) / _BINS
    places = jnp.floor((scores - lowest) / jnp.where(width > 0, width, 1.0)).astype(jnp.int32)
    histogram = jnp.zeros(_BINS, scores.dtype).at[jnp.clip(places, 0, _BINS - 1)].add(1.0)

    def crowded(state: tuple[Array, Array]) -> Array:
        times, smoothed = state
        return (times < _MOST_SMOOTHINGS) & ((_maxima(smoothed).sum() > 2) | (times == 0))

    def smooth(state: tuple[Array, Array]) -> tuple[Array, Array]:
        times, current = state
        padded = jnp.pad(current, 1, mode="edge")
        return times + 1, (padded[:-2] + padded[1:-1] + padded[2:]) / 3

    _, smoothed = lax.while_loop(crowded, smooth, (jnp.int32(0), histogram))
    tops = _maxima(smoothed)
    bins = jnp.arange(_BINS)
    first, last = jnp.argmax(tops), _BINS - 1 - jnp.argmax(tops[::-1])
    valley = jnp.argmin(jnp.where((bins >= first) & (bins <= last), smoothed, jnp.inf))
    return jnp.where(tops.sum() == 2, lowest + (valley + 0.5) * width, otherwise)


def _maxima(histogram: Float[Array, " bins"]) -> Bool[Array, " bins"]:
    """Return where the histogram, having risen before, falls; of a plateau that is the last bin."""
    steps = jnp.sign(jnp.diff(histogram))
    latest = lax.cummax(jnp.where(steps != 0, jnp.arange(steps.size), -1))
    before = jnp.concatenate([jnp.array([-1]), latest[:-1]])
    rising = jnp.where(before >= 0, steps[before] > 0, True)
    return jnp.append(rising & (steps < 0), False)
