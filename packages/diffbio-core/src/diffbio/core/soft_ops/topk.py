"""The k largest entries: values and soft indices.

The places are those of the soft order (see `sort`), the first k in descending order. For SoftSort in mode smooth the
values take O(n) work: exp(-|x_(j) - x_i| / softness) factors into two steps where x_i lies below x_(k), so that all
entries below the k-th are summed once, as seen from there, and enter the recurrence of the k places as one more entry.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.modes import Mode, checked_method, checked_mode
from diffbio.core.soft_ops.permutation import places_that_count
from diffbio.core.soft_ops.rows import Rows, Scale, rows_of
from diffbio.core.soft_ops.scaling import SoftIndex, keep, known, negative
from diffbio.core.soft_ops.selection import expectation
from diffbio.core.soft_ops.softsort import softsort_first_values
from diffbio.core.soft_ops.sorted_axis import in_order
from diffbio.core.soft_ops.sorting import all_places, weights_at_places

TopKMethod = Literal["auto", "softsort", "neuralsort"]


class TopK(NamedTuple):
    """The k largest entries and where they are.

    Attributes:
        values: The shape of `x` with length k in the axis, in descending order.
        indices: For each of these places a distribution over the n entries of the axis, on the last axis.
    """

    values: Float[Array, "..."]
    indices: SoftIndex


def top_k(
    x: ArrayLike,
    k: int,
    axis: int | None = -1,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    method: TopKMethod = "auto",
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
    log: bool = False,
) -> TopK:
    """Return the `k` largest entries of an axis in descending order, with their soft indices.

    Args:
        x: Any shape with at least one axis.
        k: From 0 to the length n of the axis; a Python integer, as it sets a shape. `top_k_mask` takes a traced one.
        axis: The axis along which entries compete; `None` for all of `x` as one row.
        softness: In the units of `x`, above 0; a scalar or one per row.
        mode: How the weights fall (see `argmax`); `hard` is jax.lax.top_k.
        method: As in `sort`: `softsort` (what `auto` is), values in O(n) in mode smooth, or `neuralsort`.
        where: Mask that broadcasts with `x`; a masked entry is in no place. Places for which no entry is left have
            value 0 and no mass.
        scale: The unit of `softness`: `absolute`, or `robust` for the robust spread of each row.
        log: Return the logarithm of the indices' distributions.

    Returns:
        Values and indices; -> jax.lax.top_k and its one-hot indices. The indices take O(k n) memory, under jit only
        where they are used.

    Raises:
        ValueError: `k` is not between 0 and n; the softness is not above 0; an unknown mode, method or scale.
        TypeError: `k` is traced.

    Example:
        >>> top_k(jnp.array([3.0, 1.0, 2.0]), 2, softness=1e-3).values.tolist()
        [3.0, 2.0]
    """
    mode = checked_mode(mode)
    chosen = checked_method(method, ("softsort", "neuralsort"))
    rows = rows_of(negative(x), axis, softness, where, scale)  # ascending order of -x
    values, indices = _first_places(rows, _checked_k(k, rows.n), mode, chosen, log=log)
    return TopK(rows.restored(-values), rows.restored_indices(indices))


@functools.partial(jax.jit, static_argnames=("k", "mode", "method", "log"))
def _first_places(rows: Rows, k: int, mode: Mode, method: str, *, log: bool) -> tuple[Array, Array]:
    """Return the values and indices of the first k places in ascending order."""
    masked = keep(rows.entries, rows.mask, jnp.inf)
    negated, order = jax.lax.top_k(-masked, k)
    if mode == "hard":
        values = -negated
        weights = jax.nn.one_hot(order, rows.n, dtype=rows.entries.dtype)
        weights = jnp.log(weights) if log else weights
    else:
        ascending, places = in_order(masked, order), all_places(rows)[:k]
        weights = weights_at_places(rows, ascending, places, mode, method, log=log)
        if method != "neuralsort" and mode == "smooth" and k > 0:
            values: Any = softsort_first_values(masked, rows.softness, rows.mask, k)
        else:
            shares = weights_at_places(rows, ascending, places, mode, method) if log else weights
            values = expectation(shares, rows.entries[..., None, :])
    if rows.mask is not None:
        filled = places_that_count(rows)[..., :k]
        values = jnp.where(filled, values, 0)
        weights = jnp.where(filled[..., None], weights, -jnp.inf if log else 0)
    return values, weights


def _checked_k(k: int, n: int) -> int:
    if not known(k):
        raise TypeError("k of top_k is traced, but it sets the shape of the result; top_k_mask takes a traced k")
    k = operator.index(k)
    if not 0 <= k <= n:
        raise ValueError(f"k is {k}; it must be between 0 and {n}, the number of entries of the axis")
    return k
