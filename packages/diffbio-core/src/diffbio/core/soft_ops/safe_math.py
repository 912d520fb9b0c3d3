"""Functions whose derivative is infinite at the edge of their domain, with derivative 0 there instead.

Values are those of jnp everywhere: log(0) is -inf and sqrt(-1) is NaN, so that an argument out of the domain shows.
Only at the edge itself, where the true derivative is infinite or undefined and one such entry would turn the gradient
of a whole sum into NaN, are the derivatives of all orders 0, in forward and in reverse mode.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from diffbio.core.soft_ops.scaling import as_float, in_compute_dtype, quotient


def sqrt(x: ArrayLike) -> Float[Array, "..."]:
    """Return the square root, with derivative 0 at 0.

    Args:
        x: Any shape; from 0 up. Below 0 the result is NaN.

    Returns:
        jnp.sqrt(x).

    Example:
        >>> float(sqrt(0.0)), float(jax.grad(sqrt)(0.0)), float(jax.grad(sqrt)(4.0))
        (0.0, 0.0, 0.25)
    """
    x = as_float(x)
    return _flat_at(x == 0, jnp.sqrt, x, 1.0)


def log(x: ArrayLike) -> Float[Array, "..."]:
    """Return the natural logarithm, with derivative 0 at 0.

    Args:
        x: Any shape; from 0 up. Below 0 the result is NaN.

    Returns:
        jnp.log(x), -inf at 0.

    Example:
        >>> float(log(0.0)), float(jax.grad(log)(0.0)), float(jax.grad(log)(4.0))
        (-inf, 0.0, 0.25)
    """
    x = as_float(x)
    # Where floats below the smallest normal one are not flushed to 0, their reciprocal overflows all the same.
    return _flat_at(jnp.isinf(1 / x), jnp.log, x, 1.0)


def arcsin(x: ArrayLike) -> Float[Array, "..."]:
    """Return the angle in radians whose sine is `x`, with derivative 0 at -1 and 1.

    Args:
        x: Any shape; from -1 to 1. Outside the result is NaN.

    Returns:
        jnp.arcsin(x), in [-pi/2, pi/2].

    Example:
        >>> float(jax.grad(arcsin)(0.0)), float(jax.grad(arcsin)(1.0)), float(arcsin(2.0))
        (1.0, 0.0, nan)
    """
    x = as_float(x)
    return _flat_at(jnp.abs(x) == 1, jnp.arcsin, x, 0.0)


def arccos(x: ArrayLike) -> Float[Array, "..."]:
    """Return the angle in radians whose cosine is `x`, with derivative 0 at -1 and 1.

    Args:
        x: Any shape; from -1 to 1. Outside the result is NaN.

    Returns:
        jnp.arccos(x), in [0, pi].

    Example:
        >>> float(jax.grad(arccos)(0.0)), float(jax.grad(arccos)(1.0)), float(arccos(1.0))
        (-1.0, 0.0, 0.0)
    """
    x = as_float(x)
    return _flat_at(jnp.abs(x) == 1, jnp.arccos, x, 0.0)


def div(x: ArrayLike, y: ArrayLike) -> Float[Array, "..."]:
    """Return x / y, with both derivatives 0 where `y` is 0.

    Args:
        x: Any shape that broadcasts with `y`.
        y: In any unit.

    Returns:
        jnp.divide(x, y), in units of `x` per unit of `y`: infinite where only `y` is 0, NaN where both are. Where the
        quotient is infinite, the derivative in `y` is 0.

    Example:
        >>> div(jnp.array([1.0, 0.0, 3.0]), jnp.array([0.0, 0.0, 2.0])).tolist()
        [inf, nan, 1.5]
        >>> float(jax.grad(div)(1.0, 0.0)), float(jax.grad(div)(1.0, 2.0))
        (0.0, 0.5)
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    dtype = jnp.result_type(x, y, 0.0)
    return quotient(x.astype(dtype), y.astype(dtype))


def norm(
    x: ArrayLike, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False, where: ArrayLike | None = None
) -> Float[Array, "..."]:
    """Return the 2-norm, whatever the magnitude of the entries, with gradient 0 at the zero vector.

    Args:
        x: Any shape.
        axis: One axis, several (the norm of all entries over these axes), or `None` for all of `x`.
        keepdims: Whether the reduced axes stay, with length 1.
        where: Mask that broadcasts with `x`; a masked entry counts as 0 and gets no gradient.

    Returns:
        The norm, in the units of `x`; infinite, with gradient 0, if an entry is. It is computed from the ratios to the
        entry of largest magnitude, so that squares neither overflow nor vanish.

    Example:
        >>> norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]), axis=1).tolist()
        [5.0, 0.0]
        >>> jax.grad(norm)(jnp.array([3e-25, 4e-25])).round(6).tolist()
        [0.6000000238418579, 0.800000011920929]
    """
    x = as_float(x)
    if where is not None:
        x = jnp.where(where, x, 0)
    entries = in_compute_dtype(x)
    smallest = jnp.finfo(entries.dtype).tiny  # keeps the ratios of a zero vector at 0
    # The norm does not depend on the unit that it is computed in: the unit needs no gradient.
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(entries)), axis, keepdims=True, initial=smallest)
    finite = jnp.isfinite(largest)
    unit = jnp.where(finite, largest, 1)
    ratios = jnp.where(finite, entries, 0) / unit
    lengths = jnp.where(finite, unit * sqrt(jnp.sum(ratios**2, axis, keepdims=True)), largest)
    return (lengths if keepdims else jnp.squeeze(lengths, axis)).astype(x.dtype)


def _flat_at(
    edge: Bool[Array, "..."], function: Callable[[Array], Array], x: Float[Array, "..."], inside: float
) -> Float[Array, "..."]:
    """Return function(x), with derivatives 0 where `edge`; there the function is differentiated at `inside`."""
    return jnp.where(edge, function(jax.lax.stop_gradient(x)), function(jnp.where(edge, inside, x)))
