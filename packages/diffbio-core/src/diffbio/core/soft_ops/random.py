"""Relaxed random draws: samples with a gradient in the parameters of their distribution.

A hard draw is a decision on noise: a categorical draw the argmax of logits plus Gumbel noise, a Bernoulli draw a
threshold on logistic noise, a random permutation the order of uniform noise. Each decision here is the relaxation of
`soft_ops`, so that the draw is a soft index or truth value; as softness -> 0, or in mode hard, it is an exact draw from
the distribution. The `_st` forms return the exact draw with the gradient of the relaxed one. All noise comes from the
key that the caller gives, and the same key gives the same noise in every mode and at every softness.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.elementwise import heaviside
from diffbio.core.soft_ops.extrema import argmax
from diffbio.core.soft_ops.modes import Mode
from diffbio.core.soft_ops.scaling import SoftBool, SoftIndex, as_float, in_compute_dtype, known
from diffbio.core.soft_ops.selection import take
from diffbio.core.soft_ops.sorting import argsort
from diffbio.core.soft_ops.straight_through import st
from diffbio.core.soft_ops.topk import top_k

Key = Any
"""A key of jax.random."""


def categorical(
    key: Key,
    logits: ArrayLike,
    axis: int = -1,
    *,
    shape: tuple[int, ...] | None = None,
    softness: ArrayLike = 1.0,
    mode: Mode = "smooth",
) -> SoftIndex:
    """Return relaxed draws from the categories with the probabilities softmax(logits): Gumbel-softmax.

    Args:
        key: A key of jax.random.
        logits: Unnormalized log probabilities; those of one distribution lie along `axis`. -inf is never drawn.
        axis: The axis of the n categories.
        shape: The shape of the draws, which must broadcast with that of `logits` without `axis`; by default the
            latter.
        softness: Without unit, above 0.
        mode: The relaxation of the argmax; `hard` gives one-hot draws.

    Returns:
        A distribution over the n categories for each draw, on the last axis; -> one-hot of an exact draw.

    Raises:
        ValueError: `shape` does not fit; the softness is not above 0; an unknown mode.

    References:
        Jang, Gu and Poole, and Maddison, Mnih and Teh, both ICLR 2017.

    Example:
        >>> draws = categorical(jax.random.key(1), jnp.log(jnp.array([0.2, 0.8])), shape=(1000,), softness=0.01)
        >>> draws.shape, bool(abs(draws[:, 1].mean() - 0.8) < 0.05)
        ((1000, 2), True)
    """
    logits = jnp.moveaxis(as_float(logits), axis, -1)
    draws = _shape_of_draws(shape, logits.shape[:-1])
    wide = in_compute_dtype(logits)
    noise = jax.random.gumbel(key, (*draws, logits.shape[-1]), wide.dtype)
    return argmax(wide + noise, axis=-1, softness=softness, mode=mode).astype(logits.dtype)


def bernoulli(
    key: Key,
    p: ArrayLike = 0.5,
    *,
    shape: tuple[int, ...] | None = None,
    softness: ArrayLike = 1.0,
    mode: Mode = "smooth",
) -> SoftBool:
    """Return relaxed draws that are true with probability `p`.

    Args:
        key: A key of jax.random.
        p: Probabilities in [0, 1], any shape. A traced `p` out of range counts as the nearest in range.
        shape: The shape of the draws, which `p` must broadcast to; by default that of `p`.
        softness: Without unit, above 0: the width of the threshold on the logit scale.
        mode: The step function; `hard` gives 0 and 1.

    Returns:
        Truth values in [0, 1]; -> exact draws. At p = 0 and 1 they are 0 and 1.

    Raises:
        ValueError: `p` is known to be out of range; `shape` does not fit; the softness is not above 0; an unknown mode.

    References:
        Maddison, Mnih and Teh, ICLR 2017 (the binary Concrete distribution).

    Example:
        >>> round(float(bernoulli(jax.random.key(0), 0.3, shape=(10000,), mode="hard").mean()), 1)
        0.3
    """
    if known(p) and np.any((np.asarray(p) < 0) | (np.asarray(p) > 1)):
        raise ValueError(f"p is {p}; a probability must be between 0 and 1")
    p = as_float(p)
    wide = jnp.clip(in_compute_dtype(p), 0, 1)
    noise = jax.random.logistic(key, _shape_of_draws(shape, p.shape), wide.dtype)
    inside = (wide > 0) & (wide < 1)
    safe = jnp.where(inside, wide, 0.5)
    logit = jnp.log(safe) - jnp.log1p(-safe)
    drawn = heaviside(logit + noise, softness=softness, mode=mode)
    return jnp.where(inside, drawn, wide).astype(p.dtype)


def choice(
    key: Key,
    a: ArrayLike,
    *,
    shape: tuple[int, ...] = (),
    replace: bool = True,
    logits: ArrayLike | None = None,
    axis: int = 0,
    softness: ArrayLike = 1.0,
    mode: Mode = "smooth",
) -> Float[Array, "..."]:
    """Return relaxed draws from the slices of `a`, each a mean of slices weighted by a soft draw.

    Args:
        key: A key of jax.random.
        a: The population, n slices along `axis`.
        shape: The shape of the draws.
        replace: Whether a slice may be drawn again; if not, the draws are the `top_k` of logits plus Gumbel noise.
        logits: Unnormalized log probabilities of the n slices; by default all are alike.
        axis: The axis of the slices.
        softness: Without unit, above 0.
        mode: The relaxation; `hard` gives slices of `a` themselves.

    Returns:
        The shape of `a` with `shape` in place of `axis`.

    Raises:
        ValueError: More than n draws without replacement; `logits` is not of shape (n,); the softness is not above
            0; an unknown mode.

    References:
        Kool, van Hoof and Welling, ICML 2019 (draws without replacement by top-k).

    Example:
        >>> float(choice(jax.random.key(0), jnp.array([7.0, 7.0])))
        7.0
    """
    a = as_float(a)
    n = a.shape[axis]
    logits = jnp.zeros(n, a.dtype) if logits is None else as_float(logits)
    if logits.shape != (n,):
        raise ValueError(f"logits has shape {logits.shape}; it must be ({n},), one per slice of a along axis {axis}")
    if replace:
        return take(a, categorical(key, logits, shape=shape, softness=softness, mode=mode), axis=axis)
    count = math.prod(shape)
    if count > n:
        raise ValueError(f"shape {shape} asks for {count} draws without replacement, but a has {n} slices")
    wide = in_compute_dtype(logits)
    drawn = top_k(wide + jax.random.gumbel(key, (n,), wide.dtype), count, softness=softness, mode=mode).indices
    return take(a, drawn.reshape(*shape, n), axis=axis)


def permutation(
    key: Key,
    x: ArrayLike,
    axis: int = 0,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
) -> Float[Array, "..."]:
    """Return the slices of `x` in a relaxed random order.

    Args:
        key: A key of jax.random.
        x: n slices along `axis`.
        axis: The axis of the slices.
        softness: In units of uniform noise in [0, 1), above 0: slices whose noise is closer than this mix. The mean
            distance is 1 / n.
        mode: The relaxation of the order (see `argsort`); `hard` gives the slices themselves.

    Returns:
        The shape of `x`; -> jnp.take of an exact random permutation.

    Raises:
        ValueError: The softness is not above 0; an unknown mode.

    Example:
        >>> sorted(permutation(jax.random.key(0), jnp.arange(3.0), mode="hard").tolist())
        [0.0, 1.0, 2.0]
    """
    x = as_float(x)
    noise = jax.random.uniform(key, (x.shape[axis],), jnp.promote_types(x.dtype, jnp.float32))
    return take(x, argsort(noise, softness=softness, mode=mode), axis=axis)


def _shape_of_draws(shape: tuple[int, ...] | None, of_parameters: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the draws; that of the parameters must broadcast to it."""
    if shape is None:
        return of_parameters
    ends = shape[len(shape) - len(of_parameters) :] if of_parameters else ()
    fits = len(shape) >= len(of_parameters) and all(
        one in (1, length) for one, length in zip(of_parameters, ends, strict=True)
    )
    if not fits:
        raise ValueError(f"shape is {shape}; it must end like {of_parameters}, the shape of the parameters")
    return shape


categorical_st = st(categorical)
bernoulli_st = st(bernoulli)
choice_st = st(choice)
permutation_st = st(permutation)
