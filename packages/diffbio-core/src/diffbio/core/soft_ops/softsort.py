"""The values of SoftSort in O(n log n), and of its first k places in O(n), without the matrix.

In mode smooth, place k of the sorted order is a mean of the entries with the weights exp(-|x_(k) - x_i| / softness): an
exponential kernel around the sorted entry x_(k), whose sums over the sorted axis obey a recurrence (`kernel_sums`).
The derivative is again such sums. With signed distances d_ki = (x_i - x_(k)) / softness, weights P_ki, and the mean
o_k = sum of P_ki d_ki, the value is y_k = x_(k) + softness o_k, and

    dy_k = dx_(k) + sum over i of P_ki (1 - |d_ki| + sign(d_ki) o_k) (dx_i - dx_(k))
           + (sum over i of P_ki |d_ki| (d_ki - o_k)) dsoftness
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffbio.core.soft_ops.kernel_sums import Sides, gaps, kernel_sums, seen_from
from diffbio.core.soft_ops.scaling import Mask, difference, in_softness, keep
from diffbio.core.soft_ops.sorted_axis import mean_of_same


@jax.custom_jvp
def softsort_values(
    ascending: Float[Array, "... n"], counts: Bool[Array, "... n"], softness: Float[Array, "... 1"]
) -> Float[Array, "... n"]:
    """Return the values of SoftSort for entries in ascending order, those that do not count infinite and last."""
    return ascending + softness * _offset(kernel_sums(gaps(ascending, softness), counts.astype(ascending.dtype), 2))


@softsort_values.defjvp
def _softsort_values_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (ascending, counts, softness), (moved, _, dsoftness) = primals, tangents
    gap, weights = gaps(ascending, softness), counts.astype(ascending.dtype)
    own = kernel_sums(gap, weights, 3)
    tangent = _tangent(own, kernel_sums(gap, weights * moved, 2), moved, dsoftness)
    return ascending + softness * _offset(own), tangent


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def softsort_first_values(
    x: Float[Array, "... n"], softness: Float[Array, "... 1"], mask: Mask, k: int
) -> Float[Array, "... k"]:
    """Return the values of SoftSort for the first k places in ascending order.

    All entries behind the k-th are seen from there once: from any of the k places their kernel is the same, but for
    one factor.

    Args:
        x: Entries in any order; those that do not count are infinite.
        softness: In the units of the entries.
        mask: Which entries count.
        k: The number of places.
    """
    first = _first(x, softness, mask, k)
    return first.ascending + softness * _offset(first.sums(jnp.ones_like(x), 2))


@softsort_first_values.defjvp
def _softsort_first_values_jvp(k: int, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, softness, mask), (dx, dsoftness, _) = primals, tangents
    first = _first(x, softness, mask, k)
    moved = mean_of_same(x, first.indices, dx)
    own = first.sums(jnp.ones_like(x), 3)
    shared = jnp.where(x == first.ascending[..., -1:], moved[..., -1:], dx)  # a tie may reach behind the last place
    return first.ascending + softness * _offset(own), _tangent(own, first.sums(shared, 2, moved), moved, dsoftness)


class _First(NamedTuple):
    """The first k places of a row, and the entries behind them."""

    ascending: Float[Array, "... k"]
    indices: Array
    behind: Bool[Array, "... n"]
    beyond: Float[Array, "... n"]  # distance behind the last of the places, in units of the softness
    gap: Float[Array, "... k"]
    counts: Float[Array, "... k"]

    def sums(self, weights: Float[Array, "... n"], powers: int, at_places: Array | None = None) -> Sides:
        """Return the kernel sums around each place of one weight per entry."""
        at_places = jnp.take_along_axis(weights, self.indices, axis=-1) if at_places is None else at_places
        sides = kernel_sums(self.gap, self.counts * at_places, powers)
        decayed = jnp.where(self.behind, weights * jnp.exp(-self.beyond), 0)
        rest = [(decayed * self.beyond**power).sum(-1, keepdims=True) for power in range(powers)]
        way = jnp.flip(jnp.cumsum(jnp.flip(self.gap, -1), axis=-1), -1) - self.gap  # from a place to the last
        above = [near + far for near, far in zip(sides.above, seen_from(rest, way), strict=True)]
        return Sides(sides.below, above)


def _first(x: Array, softness: Array, mask: Array | None, k: int) -> _First:
    negated, indices = jax.lax.top_k(-x, k)
    ascending = -negated
    chosen = jnp.put_along_axis(jnp.zeros(x.shape, bool), indices, True, axis=-1, inplace=False)
    behind = keep(~chosen, mask)
    counts = jnp.ones_like(ascending) if mask is None else jnp.take_along_axis(mask, indices, axis=-1).astype(x.dtype)
    beyond = in_softness(difference(x, ascending[..., -1:]), softness)
    # held where the kernel is 0 in float32 and the powers are harmless
    beyond = jnp.clip(beyond, 0, 200)
    return _First(ascending, indices, behind, beyond, gaps(ascending, softness), counts)


def _offset(own: Sides) -> Array:
    """Return the mean signed distance around each place, in units of the softness."""
    return (own.above[1] - own.below[1]) / _total(own)


def _total(own: Sides) -> Array:
    return 1 + own.below[0] + own.above[0]


def _tangent(own: Sides, others: Sides, moved: Array, dsoftness: Array) -> Array:
    """Return the tangent of the values, from the sums of the kernel and those of the kernel times the tangents."""
    offset = _offset(own)
    pulled = _pull(others.below, -offset) + _pull(others.above, offset)
    anchored = _pull(own.below, -offset) + _pull(own.above, offset)
    spread = own.above[2] - own.below[2] - offset * (own.above[1] + own.below[1])
    return moved + (pulled - anchored * moved + spread * dsoftness) / _total(own)


def _pull(moments: list[Array], signed_offset: Array) -> Array:
    """Return the sum of exp(-d) (1 - d + signed_offset) on one side."""
    return (1 + signed_offset) * moments[0] - moments[1]
