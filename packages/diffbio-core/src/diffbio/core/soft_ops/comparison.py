"""Soft comparisons: truth values in [0, 1] instead of booleans.

With z = (x - y) / softness and the step function F of a mode (see `modes`), `greater` is F(z) and `less` F(-z).
`equal` is the bump 4 F(z) F(-z): 1 at equality, falling to 0 on both sides. For softness -> 0 all become their
namesakes in jnp, which mode `hard` is exactly, as 1.0 and 0.0.

At equality all four order comparisons are exactly 1/2 at every softness: the mean of the strict and the non-strict
answer, which a step of any width can't tell apart. Mode `hard` and the straight-through forms do tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from diffbio.core.soft_ops.modes import Mode, checked_mode, step
from diffbio.core.soft_ops.scaling import SoftBool, checked_softness, difference, in_compute_dtype, in_softness, keep


def greater(
    x: ArrayLike, y: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> SoftBool:
    """Return how true `x > y` is: the step function F((x - y) / softness).

    Args:
        x: Any shape that broadcasts with `y` and `softness`.
        y: The threshold, in the units of `x`.
        softness: Width of the transition, in the units of `x`, above 0; the slope at equality is 1 / (4 softness).
        mode: The step function, one of the table in `modes`.
        where: Mask that broadcasts with the result; a masked entry gives 0 and has no gradient.

    Returns:
        Values in [0, 1] of the broadcast shape, 1/2 at equality at every softness; -> jnp.greater(x, y).

    Raises:
        ValueError: The softness is known not to be above 0, or the mode is unknown.

    Example:
        >>> greater(jnp.array([10.0, 20.0, 30.0]), 20.0, softness=0.1).tolist()
        [0.0, 0.5, 1.0]
    """
    return _compared(jnp.greater, step, x, y, softness=softness, mode=mode, where=where)


def greater_equal(
    x: ArrayLike, y: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> SoftBool:
    """Return how true `x >= y` is; it differs from `greater` in mode `hard` only.

    Args:
        x: Any shape that broadcasts with `y` and `softness`.
        y: The threshold, in the units of `x`.
        softness: Width of the transition, in the units of `x`, above 0.
        mode: The step function, as in `greater`.
        where: Mask that broadcasts with the result; a masked entry gives 0 and has no gradient.

    Returns:
        Values in [0, 1], 1/2 at equality at every softness; -> jnp.greater_equal(x, y) elsewhere.

    Raises:
        ValueError: As in `greater`.

    Example:
        >>> float(greater_equal(1.0, 1.0)), float(greater_equal(1.0, 1.0, mode="hard"))
        (0.5, 1.0)
    """
    return _compared(jnp.greater_equal, step, x, y, softness=softness, mode=mode, where=where)


def less(
    x: ArrayLike, y: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> SoftBool:
    """Return how true `x < y` is: the step function F((y - x) / softness).

    Args:
        x: Any shape that broadcasts with `y` and `softness`.
        y: The threshold, in the units of `x`.
        softness: Width of the transition, in the units of `x`, above 0.
        mode: The step function, as in `greater`.
        where: Mask that broadcasts with the result; a masked entry gives 0 and has no gradient.

    Returns:
        Values in [0, 1], 1/2 at equality at every softness; -> jnp.less(x, y).

    Raises:
        ValueError: As in `greater`.

    Example:
        >>> less(jnp.array([10.0, 20.0, 30.0]), 20.0, softness=0.1).tolist()
        [1.0, 0.5, 0.0]
    """
    return _compared(jnp.less, _falling, x, y, softness=softness, mode=mode, where=where)


def less_equal(
    x: ArrayLike, y: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> SoftBool:
    """Return how true `x <= y` is; it differs from `less` in mode `hard` only.

    Args:
        x: Any shape that broadcasts with `y` and `softness`.
        y: The threshold, in the units of `x`.
        softness: Width of the transition, in the units of `x`, above 0.
        mode: The step function, as in `greater`.
        where: Mask that broadcasts with the result; a masked entry gives 0 and has no gradient.

    Returns:
        Values in [0, 1], 1/2 at equality at every softness; -> jnp.less_equal(x, y) elsewhere.

    Raises:
        ValueError: As in `greater`.

    Example:
        >>> float(less_equal(1.0, 1.0)), float(less_equal(1.0, 1.0, mode="hard"))
        (0.5, 1.0)
    """
    return _compared(jnp.less_equal, _falling, x, y, softness=softness, mode=mode, where=where)


def equal(
    x: ArrayLike, y: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> SoftBool:
    """Return how true `x == y` is: the bump 4 F(z) F(-z) at z = (x - y) / softness.

    Args:
        x: Any shape that broadcasts with `y` and `softness`.
        y: In the units of `x`.
        softness: Width of the bump, in the units of `x`, above 0.
        mode: The step function, as in `greater`.
        where: Mask that broadcasts with the result; a masked entry gives 0 and has no gradient.

    Returns:
        Values in [0, 1], 1 at equality (also of two equal infinities), with derivative 0 there; -> jnp.equal(x, y).

    Raises:
        ValueError: As in `greater`.

    Example:
        >>> equal(jnp.array([1.0, 2.0, 3.0]), 1.0, softness=1.0, mode="c0").tolist()
        [1.0, 0.75, 0.0]
    """
    return _compared(jnp.equal, _bump, x, y, softness=softness, mode=mode, where=where)


def not_equal(
    x: ArrayLike, y: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> SoftBool:
    """Return how true `x != y` is: 1 - equal(x, y).

    Args:
        x: Any shape that broadcasts with `y` and `softness`.
        y: In the units of `x`.
        softness: Width of the dip, in the units of `x`, above 0.
        mode: The step function, as in `greater`.
        where: Mask that broadcasts with the result; a masked entry gives 0 and has no gradient.

    Returns:
        Values in [0, 1], 0 at equality; -> jnp.not_equal(x, y).

    Raises:
        ValueError: As in `greater`.

    Example:
        >>> not_equal(jnp.array([1.0, 2.0, 3.0]), 1.0, softness=1.0, mode="c0").tolist()
        [0.0, 0.25, 1.0]
    """
    return _compared(jnp.not_equal, lambda z, mode: 1 - _bump(z, mode), x, y, softness=softness, mode=mode, where=where)


def isclose(
    x: ArrayLike,
    y: ArrayLike,
    *,
    rtol: ArrayLike = 1e-5,
    atol: ArrayLike = 1e-8,
    softness: ArrayLike = 0.1,
    mode: Mode = "smooth",
    where: ArrayLike | None = None,
) -> SoftBool:
    """Return how true |x - y| <= atol + rtol |y| is: the bump of `equal` at what lies beyond the tolerance.

    Args:
        x: Any shape that broadcasts with `y` and `softness`.
        y: The reference, in the units of `x`.
        rtol: Tolerance as a share of |y|, from 0 up.
        atol: Tolerance in the units of `x`, from 0 up.
        softness: Width of the fall beyond the tolerance, in the units of `x`, above 0.
        mode: The step function, as in `greater`.
        where: Mask that broadcasts with the result; a masked entry gives 0 and has no gradient.

    Returns:
        Values in [0, 1], exactly 1 within the tolerance; -> jnp.isclose(x, y).

    Raises:
        ValueError: As in `greater`.

    Example:
        >>> isclose(jnp.array([1.0, 2.0, 3.0]), 1.0, atol=1.0, softness=0.01).tolist()
        [1.0, 1.0, 0.0]
    """

    def beyond(x: Array, y: Array) -> Array:
        # An infinite y is close to its equal only: it must not make the tolerance infinite.
        tolerance = jnp.asarray(atol, y.dtype) + jnp.asarray(rtol, y.dtype) * jnp.abs(jnp.where(jnp.isinf(y), 0, y))
        return jnp.maximum(jnp.abs(difference(x, y)) - tolerance, 0)

    def hard(x: Array, y: Array) -> Array:
        return jnp.isclose(x, y, rtol, atol)

    return _compared(hard, _bump, x, y, softness=softness, mode=mode, where=where, distance=beyond)


def _compared(
    hard: Callable[..., Array],
    truth: Callable[..., Any],
    x: ArrayLike,
    y: ArrayLike,
    *,
    softness: ArrayLike,
    mode: Mode,
    where: ArrayLike | None,
    distance: Callable[..., Array] = difference,
) -> SoftBool:
    """Return truth(distance(x, y) / softness, mode), or hard(x, y) of the arrays as they are, in the floating dtype."""
    x, y = (keep(jnp.asarray(given), where) for given in (x, y))
    dtype = jnp.result_type(x, y, 0.0)
    scale = checked_softness(softness, jnp.promote_types(dtype, jnp.float32))
    if checked_mode(mode) == "hard":
        result = hard(x, y)
    else:
        apart = distance(in_compute_dtype(x.astype(dtype)), in_compute_dtype(y.astype(dtype)))
        result = truth(in_softness(apart, scale), mode)
    return keep(jnp.broadcast_to(result.astype(dtype), jnp.broadcast_shapes(result.shape, scale.shape)), where)


def _falling(z: Array, mode: Mode) -> Any:
    return step(-z, mode)


def _bump(z: Array, mode: Mode) -> Array:
    """Return 4 F(z) F(-z), by the smaller of the two factors: then rounding can't lift it above 1.

    -|z| is written so that its derivative at 0 is 1 and not 0: the second derivative there is right too.
    """
    smaller: Any = step(jnp.where(z > 0, -z, z), mode)
    return 4 * smaller * (1 - smaller)
