"""Distributions of counts: Poisson, negative binomial (NB) and zero-inflated negative binomial (ZINB).

With the mean m and the inverse dispersion t (variance m + m^2 / t), the textbook formula of the NB,

    log p(x) = log G(x + t) - log G(t) - log G(x + 1) + t log(t / (t + m)) + x log(m / (t + m)),

loses all digits in float32 for a large x or t, because large terms cancel. Here the saddle point is taken out first.
With n = x + t, T(z) = log G(z + 1) - z log z + z, and the deviance d(x, M) = x log(x / M) + M - x, the same is

    log p(x) = log(t / n) + T(n) - T(t) - T(x) - d(t, n t / (t + m)) - d(x, n m / (t + m)),

where no term is much larger than the result; the deviances are summed as series near 0. As t -> inf it goes over into
the Poisson, log p(x) = -T(x) - d(x, m). Gradients are closed forms, evaluated with the same care.

The ZINB is zero with probability sigmoid(l), and an NB count otherwise; a count is zero when it is exactly 0.

References:
    Loader, Fast and accurate computation of binomial probabilities, 2000 (the saddle point).
    Risso et al., A general and flexible method for signal extraction from single-cell RNA-seq data (ZINB-WaVE),
    Nature Communications 2018; Lopez et al., Deep generative modeling for single-cell transcriptomics (scVI),
    Nature Methods 2018.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array, Float

_LEAST_MEAN = 1e-20  # what is smaller counts as this: log p of a positive count stays finite
_LEAST_INVERSE_DISPERSION = 1e-10
_LARGEST = 1e15  # of both: there a NB is a Poisson, and products of two stay within float32
_ASYMPTOTIC = 8.0  # from here on four terms of Stirling's series are exact to 1e-11
_NEAR = 0.25  # the contrast below which differences of logarithms are summed as a series


def poisson_log_pmf(counts: ArrayLike, mean: ArrayLike) -> Float[Array, "..."]:
    """Return log p(counts) of a Poisson, in nats.

    Args:
        counts: At least 0, any shape; need not be integers.
        mean: At least 0, of a shape that broadcasts with `counts`. Below 1e-20 it counts as 1e-20.

    Returns:
        Log-probabilities of the common shape.

    Example:
        >>> [round(float(x), 4) for x in jnp.exp(poisson_log_pmf(jnp.arange(3), 1.0))]
        [0.3679, 0.3679, 0.1839]
    """
    return _poisson(*_as_floats(counts, mean))


def negative_binomial_log_pmf(counts: ArrayLike, mean: ArrayLike, inverse_dispersion: ArrayLike) -> Float[Array, "..."]:
    """Return log p(counts) of a negative binomial of variance mean + mean^2 / inverse_dispersion, in nats.

    Args:
        counts: At least 0, any shape; need not be integers.
        mean: At least 0, of a shape that broadcasts with `counts`. Below 1e-20 it counts as 1e-20.
        inverse_dispersion: Above 0, of a shape that broadcasts; taken to lie between 1e-10 and 1e15, where it is a
            Poisson.

    Returns:
        Log-probabilities of the common shape. For an array of integers that is given for `counts`, nothing is spent
        on the derivative by it.

    References:
        scipy `stats.nbinom(inverse_dispersion, inverse_dispersion / (inverse_dispersion + mean)).logpmf`.

    Example:
        >>> [round(float(x), 4) for x in negative_binomial_log_pmf(jnp.array([0, 1]), 1.0, 1.0)]
        [-0.6931, -1.3863]
    """
    return _negative_binomial(*_as_floats(counts, mean, inverse_dispersion))


def zero_inflated_log_pmf(
    counts: ArrayLike, mean: ArrayLike, inverse_dispersion: ArrayLike, dropout_logits: ArrayLike
) -> Float[Array, "..."]:
    """Return log p(counts) of a negative binomial that drops out to 0 with probability sigmoid(dropout_logits).

    Args:
        counts: At least 0, any shape.
        mean: Mean of the NB, at least 0.
        inverse_dispersion: Above 0.
        dropout_logits: Any real numbers; -inf is the NB without inflation.

    Returns:
        Log-probabilities of the common shape, in nats.

    Example:
        >>> round(float(zero_inflated_log_pmf(0, 5.0, 2.0, 0.0)), 3)
        -0.615
    """
    counts, mean, inverse_dispersion, logits = _as_floats(counts, mean, inverse_dispersion, dropout_logits)
    log_pmf = _negative_binomial(counts, mean, inverse_dispersion)
    logits = jnp.maximum(logits, -100.0)  # exp(-100) is 0 beside any probability; -inf has no gradient
    return jnp.where(counts == 0, jnp.logaddexp(log_pmf, logits), log_pmf) - jax.nn.softplus(logits)


def draw_poisson(mean: Float[Array, "*shape"], *, key: Array) -> Float[Array, "*shape"]:
    """Return Poisson counts of the given means.

    Args:
        mean: Between 0 and 2e9, any shape.
        key: Random key.

    Returns:
        Counts as floats; they have no gradient.

    Example:
        >>> draw_poisson(jnp.zeros(2), key=jax.random.key(0)).tolist()
        [0.0, 0.0]
    """
    return jax.random.poisson(key, mean).astype(mean.dtype)


def draw_negative_binomial(
    mean: Float[Array, "*shape"], inverse_dispersion: ArrayLike, *, key: Array
) -> Float[Array, "*shape"]:
    """Return negative binomial counts: Poisson counts whose means are drawn from a gamma distribution.

    Args:
        mean: Between 0 and 2e9, any shape.
        inverse_dispersion: Above 0, of a shape that broadcasts to that of `mean`.
        key: Random key.

    Returns:
        Counts as floats; they have no gradient.

    Example:
        >>> counts = draw_negative_binomial(jnp.full(20_000, 4.0), 2.0, key=jax.random.key(0))
        >>> bool(abs(counts.mean() - 4) < 0.1), bool(abs(counts.var() - 12) < 1)
        (True, True)
    """
    rate_key, key = jax.random.split(key)
    shape = jnp.broadcast_to(jnp.asarray(inverse_dispersion, mean.dtype), mean.shape)
    shape = jnp.clip(shape, _LEAST_INVERSE_DISPERSION, _LARGEST)
    relative = jnp.exp(jax.random.loggamma(rate_key, shape) - jnp.log(shape))
    return draw_poisson(mean * relative, key=key)


def draw_zero_inflated(
    mean: Float[Array, "*shape"], inverse_dispersion: ArrayLike, dropout_logits: ArrayLike, *, key: Array
) -> Float[Array, "*shape"]:
    """Return negative binomial counts, each replaced by 0 with probability sigmoid(dropout_logits).

    Args:
        mean: Mean of the NB, between 0 and 2e9, any shape.
        inverse_dispersion: Above 0, of a shape that broadcasts to that of `mean`.
        dropout_logits: Any real numbers, of a shape that broadcasts to that of `mean`.
        key: Random key.

    Returns:
        Counts as floats; they have no gradient.

    Example:
        >>> draw_zero_inflated(jnp.full(3, 9.0), 2.0, 100.0, key=jax.random.key(0)).tolist()
        [0.0, 0.0, 0.0]
    """
    dropout_key, key = jax.random.split(key)
    dropped = jax.random.bernoulli(dropout_key, jax.nn.sigmoid(jnp.asarray(dropout_logits)), mean.shape)
    return jnp.where(dropped, 0.0, draw_negative_binomial(mean, inverse_dispersion, key=key))


def gaussian_kl(
    mean: Float[Array, "*cells latent"],
    logvar: Float[Array, "*cells latent"],
    prior_mean: ArrayLike = 0.0,
    prior_logvar: ArrayLike = 0.0,
) -> Float[Array, "*cells"]:
    """Return KL(N(mean, exp(logvar)) || N(prior_mean, exp(prior_logvar))), summed over the last axis, in nats.

    Args:
        mean: Means of independent normals (*cells, latent).
        logvar: Logarithms of their variances (*cells, latent).
        prior_mean: Means of the prior; broadcasts.
        prior_logvar: Logarithms of the prior's variances; broadcasts.

    Returns:
        At least 0, one per cell.

    Example:
        >>> gaussian_kl(jnp.array([[1.0, 0.0]]), jnp.zeros((1, 2))).tolist()
        [0.5]
    """
    ratio = logvar - jnp.asarray(prior_logvar)
    distance = jnp.square(mean - jnp.asarray(prior_mean)) * jnp.exp(-jnp.asarray(prior_logvar))
    return 0.5 * (jnp.expm1(ratio) - ratio + distance).sum(-1)


@jax.custom_jvp
def _poisson(counts: Array, mean: Array) -> Array:
    mean = jnp.clip(mean, _LEAST_MEAN, _LARGEST)
    difference = counts - mean
    return -_log_factorial_excess(counts) - _deviance(counts, mean, difference, difference / (counts + mean))


def _poisson_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    counts, mean = primals[0], jnp.clip(primals[1], _LEAST_MEAN, _LARGEST)
    slopes = (lambda: jnp.log(mean) - jax.lax.digamma(counts + 1), lambda: (counts - mean) / mean)
    value = _poisson(*primals)
    return value, _along(tangents, slopes, value)


@jax.custom_jvp
def _negative_binomial(counts: Array, mean: Array, inverse_dispersion: Array) -> Array:
    mean, t = jnp.clip(mean, _LEAST_MEAN, _LARGEST), jnp.clip(inverse_dispersion, _LEAST_INVERSE_DISPERSION, _LARGEST)
    factorials = _log_factorial_excess(counts + t) - _log_factorial_excess(t) - _log_factorial_excess(counts)
    # Both deviances stand on x - m, formed before anything large can hide it.
    surplus, ratio = (counts - mean) / (t + mean), (counts + t) / (t + mean)
    contrast = t * (counts - mean) / (counts * (t + 2 * mean) + mean * t)
    of_counts = _deviance(counts, mean * ratio, t * surplus, contrast)
    return factorials - jnp.log1p(counts / t) - of_counts + t * _log_minus_linear(surplus, ratio)


def _negative_binomial_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    counts, mean = primals[0], jnp.clip(primals[1], _LEAST_MEAN, _LARGEST)
    t = jnp.clip(primals[2], _LEAST_INVERSE_DISPERSION, _LARGEST)
    surplus, ratio = (counts - mean) / (t + mean), (counts + t) / (t + mean)
    slopes = (
        lambda: jax.lax.digamma(counts + t) - jax.lax.digamma(counts + 1) - jnp.log1p(t / mean),
        lambda: t * surplus / mean,
        lambda: _digamma_excess(counts + t) - _digamma_excess(t) + _log_minus_linear(surplus, ratio),
    )
    value = _negative_binomial(*primals)
    return value, _along(tangents, slopes, value)


_poisson.defjvp(_poisson_jvp, symbolic_zeros=True)
_negative_binomial.defjvp(_negative_binomial_jvp, symbolic_zeros=True)


def _along(tangents: tuple, slopes: tuple[Callable[[], Array], ...], value: Array) -> Array:
    """Return the derivative along the tangents; a slope along none is not computed."""
    moving = [(slope, dx) for slope, dx in zip(slopes, tangents, strict=True) if not isinstance(dx, SymbolicZero)]
    return sum((slope() * dx for slope, dx in moving), jnp.zeros_like(value))


def _as_floats(*arrays: ArrayLike) -> tuple[Array, ...]:
    dtype = jnp.result_type(*arrays, jnp.float32)
    return tuple(jnp.asarray(array, dtype) for array in arrays)


def _log_factorial_excess(z: Array) -> Array:
    """Return T(z) = log G(z + 1) - z log z + z, which is 0 at 0 and log(2 pi z) / 2 + 1 / (12 z) for large z."""
    small, large = jnp.minimum(z, _ASYMPTOTIC), jnp.maximum(z, _ASYMPTOTIC)
    exact = jax.lax.lgamma(small + 1) - small * jnp.log(jnp.where(small > 0, small, 1.0)) + small
    w = 1 / jnp.square(large)
    series = (1 / 12 + w * (-1 / 360 + w * (1 / 1260 - w / 1680))) / large
    return jnp.where(z < _ASYMPTOTIC, exact, 0.5 * jnp.log(2 * math.pi * large) + series)


def _digamma_excess(z: Array) -> Array:
    """Return digamma(z) - log z, which is -1 / (2 z) for large z."""
    small, large = jnp.minimum(z, _ASYMPTOTIC), jnp.maximum(z, _ASYMPTOTIC)
    w = 1 / jnp.square(large)
    series = -0.5 / large - w * (1 / 12 - w * (1 / 120 - w / 252))
    return jnp.where(z < _ASYMPTOTIC, jax.lax.digamma(small) - jnp.log(small), series)


def _deviance(x: Array, mean: Array, difference: Array, contrast: Array) -> Array:
    """Return x log(x / mean) - difference, for difference = x - mean and contrast = (x - mean) / (x + mean)."""
    near = jnp.clip(contrast, -_NEAR, _NEAR)
    ratio = jnp.where(x > 0, x / mean, 1.0)
    far = x * jnp.log(ratio) - difference
    return jnp.where(jnp.abs(contrast) < _NEAR, near * difference + 2 * x * _cubic_and_higher(near), far)


def _log_minus_linear(r: Array, ratio: Array) -> Array:
    """Return log(1 + r) - r, for r > -1 and ratio = 1 + r, which does not round to 0 where r is near -1."""
    contrast = r / (2 + r)
    near = jnp.clip(contrast, -_NEAR, _NEAR)
    far = jnp.log(ratio) - r
    return jnp.where(jnp.abs(contrast) < _NEAR, 2 * _cubic_and_higher(near) - r * near, far)


def _cubic_and_higher(s: Array) -> Array:
    """Return atanh(s) - s = s^3 / 3 + s^5 / 5 + ..., for |s| up to 1 / 4."""
    w = jnp.square(s)
    return s * w * functools.reduce(lambda tail, k: 1 / k + w * tail, range(17, 1, -2), jnp.zeros_like(s))
