"""Soft top-k membership by one implicit threshold.

The hard mask of the k largest entries is x > b for any b between the k-th and the next. Its relaxation keeps
the count: the mask is sigma((x - b) / softness), with b the root of sum(mask) = k. As the sum falls with
b, the root is unique. Its derivative is closed: with w = sigma' / softness, db = (w . dx) / sum(w), so no iteration is
differentiated and memory is O(n).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.ordering import check_k

_BISECTIONS = 60  # each halves the bracket: from any float32 range down to the spacing of floats


def top_k_mask(x: ArrayLike, k: int, axis: int = -1, *, softness: ArrayLike = 0.1) -> Float[Array, "..."]:
    """Return how much each entry belongs to the `k` largest: values in [0, 1] that sum to `k`.

    Args:
        x: Any shape with at least one axis.
        k: Between 1 and the length n of the axis; at k = n the mask is all ones.
        axis: The axis along which entries compete.
        softness: In the units of `x`, above 0. Equal entries get equal membership at every softness.

    Returns:
        The shape of `x`; -> 1 for the k largest and 0 for the rest, as softness -> 0.

    Raises:
        ValueError: `k` is not between 1 and n.

    Example:
        >>> top_k_mask(jnp.array([3.0, 1.0, 2.0]), 2, softness=1e-3).tolist()
        [1.0, 0.0, 1.0]
    """
    entries = jnp.moveaxis(jnp.asarray(x), axis, -1)
    n = entries.shape[-1]
    check_k(k, n)
    mask: Any = jnp.ones_like(entries) if k == n else _mask(entries, jnp.asarray(softness, entries.dtype), k)
    return jnp.moveaxis(mask, -1, axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _mask(x: Array, softness: Array, k: int) -> Array:
    return jax.nn.sigmoid((x - _threshold(x, softness, k)) / softness)


@_mask.defjvp
def _mask_jvp(k: int, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, softness), (dx, dsoftness) = primals, tangents
    z = (x - _threshold(x, softness, k)) / softness
    mask = jax.nn.sigmoid(z)
    slope = mask * jax.nn.sigmoid(-z)
    # where the mask is saturated to the last bit nothing moves: 0, not 0 / 0
    share = slope / jnp.maximum(slope.sum(-1, keepdims=True), jnp.finfo(x.dtype).tiny)
    dz = (dx - z * dsoftness) / softness
    return mask, slope * (dz - (share * dz).sum(-1, keepdims=True))


def _threshold(x: Array, softness: Array, k: int) -> Array:
    """Return the b at which the mask sums to k, by bisection (..., 1)."""
    n = x.shape[-1]
    # at b = max + softness * log(n / k) the sum is at most k; at b = min - softness * log(...) at least k
    reach = softness * (jnp.log(jnp.float32(n)) + 1.0)
    low = x.min(-1, keepdims=True) - reach
    high = x.max(-1, keepdims=True) + reach

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = low + (high - low) / 2
        too_many = jax.nn.sigmoid((x - middle) / softness).sum(-1, keepdims=True) > k
        return jnp.where(too_many, middle, low), jnp.where(too_many, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    return jax.lax.stop_gradient(low + (high - low) / 2).astype(x.dtype)
