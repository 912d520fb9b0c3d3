"""Soft argmax, argmin, max and min.

The hard argmax puts all mass on the largest entry. Its relaxation spreads the mass by an entropy (see `simplex`):
softmax(x / softness) in mode smooth, sparse distributions in modes c0 to c2. The soft maximum is the value of the
same problem, softness * log(sum(exp(x / softness))) in mode smooth: its gradient is the soft argmax, and no entry
pulls it below the largest. As softness -> 0 both are the hard answer; entries that tie share the mass.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.modes import Mode, checked_method, checked_mode
from diffbio.core.soft_ops.rows import Axis, Rows, Scale, rows_of
from diffbio.core.soft_ops.scaling import SoftIndex, difference, in_softness, keep, negative, quotient
from diffbio.core.soft_ops.simplex import log_simplex_weights, simplex_max, simplex_weights

MaxMethod = Literal["auto", "logsumexp", "mean"]


def argmax(
    x: ArrayLike,
    axis: int | None = None,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    keepdims: bool = False,
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
    log: bool = False,
) -> SoftIndex:
    """Return how much of the largest entry each entry is: softmax(x / softness), or its sparse kin.

    Args:
        x: Any shape with at least one entry along `axis`.
        axis: The axis whose largest entry is sought; `None` for all of `x`.
        softness: In the units of `x`, above 0; a scalar or one per row. Equal entries share alike at every softness.
        mode: `smooth` gives mass to all entries, `c0`, `c1`, `c2` none to those more than 1, 2, 3 softness below the
            largest; `hard` is one-hot of the first largest.
        keepdims: Keep `axis` with length 1.
        where: Mask that broadcasts with `x`; a masked entry gets no mass. A fully masked row is all 0.
        scale: The unit of `softness`: `absolute`, or `robust` for the robust spread of each row.
        log: Return the logarithm of the distribution, which does not underflow.

    Returns:
        A distribution over the entries of `axis`, on the last axis; -> one-hot of the largest entry.

    Raises:
        ValueError: The axis is empty; the softness is not above 0; an unknown mode or scale.

    References:
        Blondel, Martins and Niculae, Learning with Fenchel-Young losses, JMLR 2020.

    Example:
        >>> argmax(jnp.array([1.0, 2.0]), softness=1e-3).tolist()
        [0.0, 1.0]
        >>> argmax(jnp.array([1.0, 1.5]), softness=1.0, mode="c0").tolist()
        [0.25, 0.75]
    """
    rows = _filled(rows_of(x, axis, softness, where, scale), "argmax")
    if checked_mode(mode) == "hard":
        weights = _first_largest(rows)
        return rows.indices(jnp.log(weights) if log else weights, keepdims=keepdims)
    weigh = log_simplex_weights if log else simplex_weights
    return rows.indices(weigh(_below_top(rows, bounded=not log), rows.mask, mode), keepdims=keepdims)


def argmin(
    x: ArrayLike,
    axis: int | None = None,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    keepdims: bool = False,
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
    log: bool = False,
) -> SoftIndex:
    """Return how much of the smallest entry each entry is: `argmax` of -x, with the same arguments.

    Example:
        >>> argmin(jnp.array([1.0, 2.0]), softness=1e-3).tolist()
        [1.0, 0.0]
    """
    options = {"softness": softness, "mode": mode, "keepdims": keepdims, "where": where, "scale": scale, "log": log}
    return argmax(negative(x), axis, **options)


def max(  # noqa: A001 - the name of jnp
    x: ArrayLike,
    axis: Axis = None,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    method: MaxMethod = "auto",
    keepdims: bool = False,
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
) -> Float[Array, "..."]:
    """Return the soft maximum: softness * log(sum(exp(x / softness))), or a mean weighted by `argmax`.

    Args:
        x: Any shape with at least one entry along `axis`.
        axis: One axis, several, or `None` for all of `x`.
        softness: In the units of `x`, above 0; a scalar or one per row.
        mode: The distribution behind it, as in `argmax`; `hard` is jnp.max.
        method: `logsumexp` (what `auto` is) lies above the largest entry, by at most softness * log(n) in mode smooth
            and softness * 1/2, 4/3, 9/4 in modes c0, c1, c2; its gradient is `argmax`, so between 0 and 1. `mean` is
            the sum of argmax(x) * x, which lies below the largest entry and above the mean of all.
        keepdims: Keep the reduced axes with length 1.
        where: Mask that broadcasts with `x`; a masked entry counts for nothing. A fully masked row gives -inf.
        scale: The unit of `softness`, as in `argmax`.

    Returns:
        `x` without `axis`; -> jnp.max.

    Raises:
        ValueError: The axis is empty; the softness is not above 0; an unknown mode, method or scale.

    Example:
        >>> round(float(max(jnp.array([1.0, 2.0]), softness=1.0)), 4)
        2.3133
        >>> round(float(max(jnp.array([1.0, 2.0]), softness=1.0, method="mean")), 4)
        1.7311
    """
    chosen = checked_method(method, ("logsumexp", "mean"))
    rows = _filled(rows_of(x, axis, softness, where, scale), "max")
    if checked_mode(mode) == "hard":
        return rows.reduced(keep(rows.entries, rows.mask, -jnp.inf).max(-1), keepdims=keepdims)
    scores = _below_top(rows)
    if chosen == "mean":
        weights: Any = simplex_weights(scores, rows.mask, mode)
        above_top = (weights * scores).sum(-1, keepdims=True)
    else:
        above_top: Any = simplex_max(scores, rows.mask, mode)
    return rows.reduced((_top(rows) + rows.softness * above_top)[..., 0], keepdims=keepdims)


def min(  # noqa: A001 - the name of jnp
    x: ArrayLike,
    axis: Axis = None,
    *,
    softness: ArrayLike = 0.01,
    mode: Mode = "smooth",
    method: MaxMethod = "auto",
    keepdims: bool = False,
    where: ArrayLike | None = None,
    scale: Scale = "absolute",
) -> Float[Array, "..."]:
    """Return the soft minimum: -max(-x), with the same arguments; it lies below the smallest entry.

    Example:
        >>> round(float(min(jnp.array([1.0, 2.0]), softness=1e-3)), 4)
        1.0
    """
    options = {"softness": softness, "mode": mode, "method": method, "keepdims": keepdims, "where": where}
    return -max(negative(x), axis, scale=scale, **options)


def _filled(rows: Rows, name: str) -> Rows:
    if rows.n == 0:
        raise ValueError(f"{name} of an empty axis (x has shape {rows.shape}): there is no entry to choose")
    return rows


def _top(rows: Rows) -> Array:
    """Return the largest entry of each row as a constant: its share of the gradient comes through the scores."""
    return keep(jax.lax.stop_gradient(rows.entries), rows.mask, -jnp.inf).max(-1, keepdims=True)


def _below_top(rows: Rows, *, bounded: bool = True) -> Array:
    """Return (x - largest) / softness."""
    top = _top(rows)
    distance = difference(keep(rows.entries, rows.mask, top), top)
    return in_softness(distance, rows.softness) if bounded else cast("Array", quotient(distance, rows.softness))


def _first_largest(rows: Rows) -> Array:
    entries = rows.entries
    hit = keep((entries == _top(rows)) | jnp.isnan(entries), rows.mask)
    return jax.nn.one_hot(jnp.argmax(hit, axis=-1), rows.n, dtype=entries.dtype) * hit
