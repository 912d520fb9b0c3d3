"""Logic on truth values in [0, 1].

Two norms, both equal to jnp's functions on 0 and 1:

| norm           | x and y    | x or y                   | all of n            |
|----------------|------------|--------------------------|---------------------|
| product        | x y        | 1 - (1 - x) (1 - y)      | prod(x)             |
| geometric_mean | sqrt(x y)  | 1 - sqrt((1-x) (1-y))    | prod(x)^(1/n)       |

The product is the probability that independent events occur together: it falls with their number. The geometric mean
does not: of 1000 truths of 0.99 each, `all` is 4e-5 by the product and 0.99 by the geometric mean. Either way `or` and
`any` are `and` and `all` of the negations, negated.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from diffbio.core.soft_ops.rows import Axis
from diffbio.core.soft_ops.safe_math import log, sqrt
from diffbio.core.soft_ops.scaling import SoftBool, as_float, in_compute_dtype

Norm = Literal["product", "geometric_mean"]
"""How truth values are joined."""


def logical_not(x: ArrayLike) -> SoftBool:
    """Return 1 - x.

    Args:
        x: Truth values in [0, 1], any shape.

    Returns:
        Truth values in [0, 1]; jnp.logical_not(x) on 0 and 1.

    Example:
        >>> logical_not(jnp.array([0.0, 0.25, 1.0])).tolist()
        [1.0, 0.75, 0.0]
    """
    return 1 - as_float(x)


def logical_and(x: ArrayLike, y: ArrayLike, *, norm: Norm = "product") -> SoftBool:
    """Return how true both are: x y, or sqrt(x y).

    Args:
        x: Truth values in [0, 1], any shape that broadcasts with `y`.
        y: Truth values in [0, 1].
        norm: `product` or `geometric_mean`; the derivatives of the latter are 0 where they would be infinite.

    Returns:
        Truth values in [0, 1]; jnp.logical_and(x, y) on 0 and 1.

    Raises:
        ValueError: The norm is unknown.

    Example:
        >>> float(logical_and(1.0, 0.25)), float(logical_and(1.0, 0.25, norm="geometric_mean"))
        (0.25, 0.5)
    """
    x, y, dtype = _truths(x, y)
    return _both(x, y, norm).astype(dtype)


def logical_or(x: ArrayLike, y: ArrayLike, *, norm: Norm = "product") -> SoftBool:
    """Return how true at least one is: 1 - (1 - x) (1 - y), or 1 - sqrt((1 - x) (1 - y)).

    Args:
        x: Truth values in [0, 1], any shape that broadcasts with `y`.
        y: Truth values in [0, 1].
        norm: `product` or `geometric_mean`, as in `logical_and`.

    Returns:
        Truth values in [0, 1]; jnp.logical_or(x, y) on 0 and 1.

    Raises:
        ValueError: The norm is unknown.

    Example:
        >>> float(logical_or(0.0, 0.75)), float(logical_or(0.0, 0.75, norm="geometric_mean"))
        (0.75, 0.5)
    """
    x, y, dtype = _truths(x, y)
    return (1 - _both(1 - x, 1 - y, norm)).astype(dtype)


def logical_xor(x: ArrayLike, y: ArrayLike, *, norm: Norm = "product") -> SoftBool:
    """Return how true exactly one is: the sum of "x and not y" and "y and not x", which exclude each other.

    Args:
        x: Truth values in [0, 1], any shape that broadcasts with `y`.
        y: Truth values in [0, 1].
        norm: `product` (the sum is x + y - 2 x y) or `geometric_mean`, as in `logical_and`.

    Returns:
        Truth values in [0, 1] (with the geometric mean by the inequality of Cauchy and Schwarz);
        jnp.logical_xor(x, y) on 0 and 1.

    Raises:
        ValueError: The norm is unknown.

    Example:
        >>> float(logical_xor(1.0, 0.25)), float(logical_xor(1.0, 0.25, norm="geometric_mean"))
        (0.75, 0.8660253882408142)
    """
    x, y, dtype = _truths(x, y)
    one = _both(x, 1 - y, norm) + _both(1 - x, y, norm)
    rounding = jnp.maximum(jax.lax.stop_gradient(one) - 1, 0)
    return (one - rounding).astype(dtype)


def all(  # noqa: A001 - the name of jnp
    x: ArrayLike, axis: Axis = None, *, norm: Norm = "product", keepdims: bool = False, where: ArrayLike | None = None
) -> SoftBool:
    """Return how true all entries are together: their product, or their geometric mean.

    Args:
        x: Truth values in [0, 1], any shape.
        axis: One axis, several, or `None` for all of `x`.
        norm: `product` or `geometric_mean`, as in `logical_and`.
        keepdims: Whether the reduced axes stay, with length 1.
        where: Mask that broadcasts to `x`; a masked entry does not count and has no gradient.

    Returns:
        Truth values in [0, 1]; 1 where no entry counts; jnp.all(x, axis) on 0 and 1.

    Raises:
        ValueError: The norm is unknown.

    Example:
        >>> truths = jnp.full(1000, 0.99)
        >>> f"{all(truths):.1e}, {all(truths, norm='geometric_mean'):.2f}"
        '4.3e-05, 0.99'
    """
    x = as_float(x)
    return _together(in_compute_dtype(x), axis, norm, keepdims, where).astype(x.dtype)


def any(  # noqa: A001 - the name of jnp
    x: ArrayLike, axis: Axis = None, *, norm: Norm = "product", keepdims: bool = False, where: ArrayLike | None = None
) -> SoftBool:
    """Return how true at least one entry is: 1 - all(1 - x).

    Args:
        x: Truth values in [0, 1], any shape.
        axis: One axis, several, or `None` for all of `x`.
        norm: `product` or `geometric_mean`, as in `logical_and`.
        keepdims: Whether the reduced axes stay, with length 1.
        where: Mask that broadcasts to `x`; a masked entry does not count and has no gradient.

    Returns:
        Truth values in [0, 1]; 0 where no entry counts; jnp.any(x, axis) on 0 and 1.

    Raises:
        ValueError: The norm is unknown.

    Example:
        >>> any(jnp.array([[0.5, 0.5], [0.0, 1.0]]), axis=1).tolist()
        [0.75, 1.0]
    """
    x = as_float(x)
    return (1 - _together(1 - in_compute_dtype(x), axis, norm, keepdims, where)).astype(x.dtype)


def _truths(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array, Any]:
    """Return both in the dtype to compute in, and the dtype of the result."""
    x, y = jnp.asarray(x), jnp.asarray(y)
    dtype = jnp.result_type(x, y, 0.0)
    return in_compute_dtype(x.astype(dtype)), in_compute_dtype(y.astype(dtype)), dtype


def _both(x: Array, y: Array, norm: Norm) -> Array:
    # Two roots instead of one of the product, which of small truths would underflow.
    return x * y if _checked(norm) == "product" else sqrt(_at_least_0(x)) * sqrt(_at_least_0(y))


def _together(x: Array, axis: Axis, norm: Norm, keepdims: bool, where: ArrayLike | None) -> Array:
    mask = jnp.broadcast_to(True if where is None else where, x.shape)
    counted = jnp.where(mask, x, 1)
    if _checked(norm) == "product":
        return jnp.prod(counted, axis, keepdims=keepdims)
    n = jnp.maximum(jnp.sum(mask, axis, keepdims=keepdims), 1)
    return jnp.exp(jnp.sum(log(_at_least_0(counted)), axis, keepdims=keepdims) / n)


def _at_least_0(x: Array) -> Array:
    """Return `x` without what rounding left below 0, as in 1 - x for a sum of weights: a root of it would be NaN."""
    return jnp.maximum(x, 0)


def _checked(norm: str) -> str:
    if norm not in get_args(Norm):
        raise ValueError(f"norm is {norm!r}; it must be one of {', '.join(map(repr, get_args(Norm)))}")
    return norm
