"""Distributions over entries: the argmax of scores, regularized by an entropy.

The hard argmax is the distribution p with the largest <p, scores>. Adding an entropy H(p) makes it unique and
smooth, and the value of that maximum, <p, scores> + H(p), a soft maximum whose gradient is p (Danskin). The mode
chooses H among the Tsallis entropies, in each of which p rises with the excess of a score over one threshold t:

| mode   | p                         | class | name                                          |
|--------|---------------------------|-------|-----------------------------------------------|
| smooth | exp(score - t)            | C^inf | softmax; H is Shannon's entropy               |
| c0     | max(score - t, 0)         | C^0   | sparsemax (Martins and Astudillo 2016)        |
| c1     | max((score - t) / 2, 0)^2 | C^1   | 1.5-entmax (Peters, Niculae and Martins 2019) |
| c2     | max((score - t) / 3, 0)^3 | C^2   | 4/3-entmax                                    |

with t such that sum(p) = 1. Modes c0 to c2 give exact zeros to scores more than 1, 2, 3 below the largest. All
derivatives are closed: with w = dp/dscore at fixed t, dp = w (dscore - <w, dscore> / sum(w)).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffbio.core.soft_ops.modes import Mode
from diffbio.core.soft_ops.scaling import Mask, keep

_POWER = {"c0": 1, "c1": 2, "c2": 3}
_MOST_STEPS = 60  # a step leaves at most 2/3 of the distance to t: enough for 1e9 equal entries


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def simplex_weights(scores: Float[Array, "... n"], mask: Mask, mode: Mode) -> Float[Array, "... n"]:
    """Return the distribution over the last axis that the mode gives to the scores.

    Args:
        scores: In units of the softness; finite, or -inf for no mass.
        mask: Which entries count; the others get 0.
        mode: As in the table of the module, without `hard`.

    Returns:
        Shares that sum to 1 in each row; all 0 in a row that is fully masked.
    """
    shares = _shares(scores, mask, mode)
    return shares / jnp.maximum(shares.sum(-1, keepdims=True), jnp.finfo(shares.dtype).tiny)


@simplex_weights.defjvp
def _simplex_weights_jvp(mode: Mode, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (scores, mask), (dscores, _) = primals, tangents
    weights: Any = simplex_weights(scores, mask, mode)
    rates = _rates(weights, mode)
    total = jnp.maximum(rates.sum(-1, keepdims=True), jnp.finfo(rates.dtype).tiny)
    return weights, rates * (dscores - (rates * dscores).sum(-1, keepdims=True) / total)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def simplex_max(scores: Float[Array, "... n"], mask: Mask, mode: Mode) -> Float[Array, "... 1"]:
    """Return <p, scores> + H(p) for p = `simplex_weights`, which is its gradient; 0 where all is masked.

    It lies above the largest score by at most log(n) in mode `smooth`, and by at most m^2/(m+1) (1 - n^(-1/m)) for
    c0 (m = 1), c1 (m = 2), c2 (m = 3).
    """
    if mode == "smooth":
        top = largest(scores, mask)
        total = keep(jnp.exp(scores - top), mask).sum(-1, keepdims=True)
        return jnp.where(total > 0, top + jnp.log(jnp.where(total > 0, total, 1)), 0)
    power = _POWER[mode]
    weights: Any = simplex_weights(scores, mask, mode)
    gained = jnp.where(weights > 0, weights * scores, 0).sum(-1, keepdims=True)
    entropy = (weights - weights ** (1 + 1 / power)).sum(-1, keepdims=True) * power**2 / (power + 1)
    return gained + entropy


@simplex_max.defjvp
def _simplex_max_jvp(mode: Mode, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (scores, mask), (dscores, _) = primals, tangents
    weights: Any = simplex_weights(scores, mask, mode)
    return simplex_max(scores, mask, mode), (weights * dscores).sum(-1, keepdims=True)


def log_simplex_weights(scores: Float[Array, "... n"], mask: Mask, mode: Mode) -> Float[Array, "... n"]:
    """Return the logarithm of `simplex_weights`, in mode `smooth` without underflow; -inf where a share is 0."""
    if mode == "smooth":
        scores = scores - largest(scores, mask)  # first, so that a small logarithm is no difference of large ones
        log_total: Any = simplex_max(scores, mask, mode)
        logs = scores - log_total
        return keep(logs, mask, -jnp.inf)
    weights: Any = simplex_weights(scores, mask, mode)
    return jnp.where(weights > 0, jnp.log(jnp.where(weights > 0, weights, 1)), -jnp.inf)


@functools.partial(jax.jit, static_argnums=2)  # called eagerly, the loop below would compile at each call
def _shares(scores: Array, mask: Array | None, mode: Mode) -> Array:
    """Return the weights before they are normalized to the last bit."""
    scores = scores - largest(scores, mask)
    if mode == "smooth":
        return keep(jnp.exp(scores), mask)
    power = _POWER[mode]

    def excess(threshold: Array) -> Array:
        return keep(jnp.maximum(scores - threshold, 0) / power, mask)

    def unfinished(state: tuple) -> Array:
        step, _, moved = state
        return (step < _MOST_STEPS) & jnp.any(moved)

    def newton(state: tuple) -> tuple:
        step, threshold, _ = state
        above = excess(threshold)
        rates = above ** (power - 1) if power > 1 else (above > 0).astype(above.dtype)
        missing = (above**power).sum(-1, keepdims=True) - 1
        new = threshold + jnp.maximum(missing, 0) / jnp.maximum(rates.sum(-1, keepdims=True), 1e-30)
        return step + 1, new, new > threshold

    # the sum of p falls with t and is convex: Newton's method from below, where the largest score alone gives 1,
    # only rises, until rounding stops it
    start = jnp.full((*scores.shape[:-1], 1), -float(power), scores.dtype)
    _, threshold, _ = jax.lax.while_loop(unfinished, newton, (0, start, jnp.ones_like(start, bool)))
    return excess(threshold) ** power


def _rates(weights: Array, mode: Mode) -> Array:
    """Return dp/dscore at fixed threshold, which is a power of p itself."""
    if mode == "smooth":
        return weights
    if mode == "c0":
        return (weights > 0).astype(weights.dtype)
    positive = weights > 0
    return jnp.where(positive, jnp.where(positive, weights, 1) ** (1 - 1 / _POWER[mode]), 0)


def largest(scores: Float[Array, "... n"], mask: Mask) -> Float[Array, "... 1"]:
    """Return the largest score that counts, as a constant; 0 where none is finite."""
    top = keep(jax.lax.stop_gradient(scores), mask, -jnp.inf).max(-1, keepdims=True, initial=-jnp.inf)
    return jnp.where(jnp.isneginf(top), 0, top)
