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

_BISECTIONS = 40  # each halves the bracket; 24 reach the spacing of float32 around any entry, the rest those near 0


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
    check_k(k, entries.shape[-1])
    if k == entries.shape[-1]:
        return jnp.ones_like(x)
    mask: Any = jax.nn.sigmoid(_excess(entries, jnp.asarray(softness, entries.dtype), k))
    return jnp.moveaxis(mask, -1, axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
@functools.partial(jax.jit, static_argnums=2)  # called eagerly, the loop below would compile at each call
def _excess(x: Array, softness: Array, k: int) -> Array:
    """Return (x - b) / softness for the b at which the mask sums to k, found by bisection.

    What the k largest lack to 1 must equal what the others have; the two are compared as logarithms, so that b
    is found to full precision even where both are far below the spacing of floats around k. Everything is
    measured from the k-th largest entry, so that a softness below the spacing of floats around x is resolved too.
    """
    descending = -jnp.sort(-x, axis=-1)
    pivot = descending[..., k - 1 : k]
    members, others = descending[..., :k] - pivot, descending[..., k:] - pivot
    reach = softness * (jnp.log(jnp.float32(x.shape[-1])) + 1.0)
    low = others[..., :1] - reach
    high = reach + jnp.zeros_like(low)

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = low + (high - low) / 2
        lacking = jax.nn.logsumexp(jax.nn.log_sigmoid((middle - members) / softness), axis=-1, keepdims=True)
        surplus = jax.nn.logsumexp(jax.nn.log_sigmoid((others - middle) / softness), axis=-1, keepdims=True)
        too_low = surplus > lacking
        return jnp.where(too_low, middle, low), jnp.where(too_low, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    return (x - pivot - (low + (high - low) / 2)) / softness


@_excess.defjvp
def _excess_jvp(k: int, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, softness), (dx, dsoftness) = primals, tangents
    z: Any = _excess(x, softness, k)
    slope = jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)
    # where every mask is saturated to the last bit, b has no derivative: 0, not 0 / 0
    share = slope / jnp.maximum(slope.sum(-1, keepdims=True), jnp.finfo(x.dtype).tiny)
    dz = (dx - z * dsoftness) / softness
    return z, dz - (share * dz).sum(-1, keepdims=True)
