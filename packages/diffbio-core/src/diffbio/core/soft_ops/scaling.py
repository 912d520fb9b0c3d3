"""Floating point and softness: what every relaxation does to its arguments first.

Computation is in float32 at least (float64 where x64 is on), whatever comes in; results have the floating dtype of
the input, and integers and booleans give the default float.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

SoftBool = Float[Array, "..."]
"""A truth value in [0, 1] for each entry: 0 is false, 1 is true."""

SoftIndex = Float[Array, "... n"]
"""A distribution over the n candidates of an index, on the last axis; the hard index is one-hot."""

Mask = Bool[Array, "... n"] | None
"""Which entries of each row count; `None` for all."""

_LEAST = 1e-30  # of a softness: 1 / softness and bounded distances over it are finite
_FAR = 1e4  # in units of the softness: beyond it every mode has reached its limit to the last bit


def as_float(x: ArrayLike) -> Float[Array, "..."]:
    """Return `x` as an array of a floating dtype: its own, or the default one for integers and booleans."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def in_compute_dtype(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return `x` in float32, or wider if it is: half precision can neither sum nor square what comes up here."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def known(value: ArrayLike) -> bool:
    """Return whether a value can be looked at now; inside a transformation it may be traced."""
    return not isinstance(value, Tracer)


@jax.custom_jvp
def quotient(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x / y, with derivative 0 where `y` is 0 and, in `y`, where the quotient is infinite.

    The usual rule divides by the square of `y`, which underflows already at 1e-20.
    """
    return x / y


@quotient.defjvp
def _quotient_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, y), (dx, dy) = primals, tangents
    ratio: Any = quotient(x, y)
    edge = jnp.isinf(1 / y)
    moved = dx - jnp.where(jnp.isfinite(ratio), ratio, 0) * dy
    return ratio, jnp.where(edge, 0, moved / jnp.where(edge, 1, y))


def checked_softness(softness: ArrayLike, dtype: Any) -> Float[Array, "..."]:
    """Return the softness as a positive array of `dtype`.

    Args:
        softness: In the units of what it softens, above 0.
        dtype: The dtype to compute in.

    Returns:
        The softness, at least 1e-30. Inside a transformation its value can't be checked; there, a value that is not
        above 0 counts as that, so that the answer is the hard one and nothing becomes NaN.

    Raises:
        ValueError: It is known not to be above 0.
    """
    if known(softness) and not np.all(np.asarray(softness) > 0):
        raise ValueError(f"softness is {softness}; it must be above 0 (mode='hard' gives the hard answer)")
    return jnp.maximum(jnp.asarray(softness, dtype), _LEAST)


def in_softness(x: Float[Array, "..."], softness: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x / softness for a distance `x`, held at a bound beyond which no mode changes any more.

    The bound, with gradient 0 beyond it, keeps infinite and huge distances from becoming inf * 0 = NaN in a gradient.
    """
    bound = jax.lax.stop_gradient(_FAR * softness)
    held = jnp.where(jnp.abs(x) < bound, x, jnp.sign(jax.lax.stop_gradient(x)) * bound)
    ratio: Any = quotient(held, softness)
    return ratio


def difference(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x - y, and 0 where both are the same infinity."""
    same = (x == y) & jnp.isinf(x)
    return jnp.where(same, 0, x) - jnp.where(same, 0, y)


def keep(values: Array, where: ArrayLike | None, other: ArrayLike = 0) -> Array:
    """Return `values` with `other`, and no gradient, where the mask `where` is false; `None` masks nothing."""
    return values if where is None else jnp.where(where, values, jnp.asarray(other, values.dtype))


def negative(x: ArrayLike) -> Float[Array, "..."]:
    """Return -x as a float: unsigned integers and booleans have no negative of their own."""
    return -as_float(x)
