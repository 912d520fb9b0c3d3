r"""Sums of an exponential kernel over a sorted axis, in O(n log n): the moments that soft ranks and sorts are made of.

With entries in ascending order and d_ij their distance in units of the softness, the sums

    m_p(i) = sum over j < i of c_j d_ij^p exp(-d_ij)

of all entries follow from those of the entry before: moving on by a gap g multiplies them by exp(-g) and shifts the
powers by the binomial theorem. The recurrence is run in sqrt(n) blocks side by side, each sqrt(n) steps long, and
the blocks are then joined: no array of n x n, and few long steps instead of many short ones on any device.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffbio.core.soft_ops.scaling import difference, quotient

_FAR = 800.0  # exp(-800) is 0 in float64 too


class Sides(NamedTuple):
    """Moments of what lies below and above each entry, by their power."""

    below: list[Float[Array, "... n"]]
    above: list[Float[Array, "... n"]]


def gaps(entries: Float[Array, "... n"], softness: Float[Array, "... 1"]) -> Float[Array, "... n"]:
    """Return the distance of each entry of a sorted row to the one before it, in units of the softness.

    That of the first is 0. Distances are held where the kernel is 0 to the last bit, also those to infinity and NaN.
    """
    distance: Any = quotient(difference(entries[..., 1:], entries[..., :-1]), softness)
    distance = jnp.where(distance < _FAR, distance, _FAR)
    return jnp.concatenate([jnp.zeros_like(entries[..., :1]), distance], axis=-1)


def seen_from(moments: list[Array], step: Array) -> list[Array]:
    """Return moments around one point as those around a point that lies `step` further on."""
    decay = jnp.exp(-step)
    return [
        decay * sum(math.comb(power, lower) * step ** (power - lower) * moments[lower] for lower in range(power + 1))
        for power in range(len(moments))
    ]


def kernel_sums(gap: Float[Array, "... n"], c: Float[Array, "... n"], powers: int) -> Sides:
    """Return the moments m_0 to m_(powers - 1) of the weights `c` on both sides of each entry.

    Args:
        gap: As `gaps` returns it.
        c: The weight of each entry; the sums are linear in it.
        powers: How many moments.

    Returns:
        The sums over the entries below and over those above, the entry itself left out.
    """
    mirrored = jnp.concatenate([jnp.zeros_like(gap[..., :1]), jnp.flip(gap[..., 1:], -1)], axis=-1)
    weights = jnp.stack([c, jnp.flip(c, -1)])
    moments = _inclusive_moments(jnp.stack([gap, mirrored]), weights, powers)
    moments[0] = moments[0] - weights
    return Sides([moment[0] for moment in moments], [jnp.flip(moment[1], -1) for moment in moments])


def _inclusive_moments(gap: Array, c: Array, powers: int) -> list[Array]:
    """Return the moments over each entry and all before it."""
    shape, n = c.shape, c.shape[-1]
    length = math.isqrt(n) | 1  # odd: strides of a power of 2 share cache lines
    n_blocks = -(-n // length)
    padding = [(0, 0)] * (c.ndim - 1) + [(0, n_blocks * length - n)]

    def in_blocks(values: Array) -> Array:  # (length, ..., blocks)
        blocks = jnp.pad(values, padding).reshape(*shape[:-1], n_blocks, length)
        return jnp.moveaxis(blocks, -1, 0)

    gap, c = in_blocks(gap), in_blocks(c)

    def along_block(moments: list[Array], entry: tuple[Array, Array]) -> tuple[list[Array], list[Array]]:
        step, weight = entry
        moments = seen_from(moments, step)
        moments[0] = moments[0] + weight
        return moments, moments

    nothing = [jnp.zeros_like(c[0])] * powers
    _, within = jax.lax.scan(along_block, nothing, (gap, c))
    way = jnp.cumsum(gap, axis=0)  # from the last entry of the block before

    def across_blocks(moments: list[Array], block: tuple[Array, list[Array]]) -> tuple[list[Array], list[Array]]:
        step, own = block
        return [far + near for far, near in zip(seen_from(moments, step), own, strict=True)], moments

    ends = jax.tree.map(lambda values: jnp.moveaxis(values[-1], -1, 0), (way, within))
    _, before = jax.lax.scan(across_blocks, [jnp.zeros_like(ends[0][0])] * powers, ends)
    carried = seen_from([jnp.moveaxis(moment, 0, -1) for moment in before], way)
    joined = [jnp.moveaxis(far + near, 0, -1) for far, near in zip(carried, within, strict=True)]
    return [moment.reshape(*shape[:-1], n_blocks * length)[..., :n] for moment in joined]
