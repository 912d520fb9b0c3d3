"""Relaxations of functions with a step or a kink, entry by entry.

All are made of one step function F of a mode (see `modes`) and of its integral, the ramp R, at z = x / softness:

    sigmoidal, heaviside   F(z)            sign   2 F(z) - 1
    softrelu, relu         softness R(z)   abs    relu(x) + relu(-x)
    clip                   a + softness (R((x - a) / softness) - R((x - b) / softness))
    round                  the sum over all integers k of F((x - k - 1/2) / softness)

Each derivative is the relaxation of the hard one: that of relu is sigmoidal, that of abs is sign. For softness -> 0
each becomes its namesake in jnp, which mode `hard` is to the bit. NaN gives NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core.soft_ops.modes import Mode, checked_mode, ramp_excess, step
from diffbio.core.soft_ops.scaling import (
    SoftBool,
    checked_softness,
    difference,
    in_compute_dtype,
    in_softness,
    keep,
    known,
)


def sigmoidal(
    x: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> SoftBool:
    """Return how true `x > 0` is: the step function F(x / softness).

    Args:
        x: Any shape that broadcasts with `softness`.
        softness: In the units of `x`, above 0; the slope at 0 is 1 / (4 softness).
        mode: The step function, one of the table in `modes`.
        where: Mask that broadcasts with `x`; a masked entry gives 0 and has no gradient.

    Returns:
        Values in [0, 1], 1/2 at 0 at every softness; -> jnp.heaviside(x, 0.5).

    Raises:
        ValueError: The softness is known not to be above 0, or the mode is unknown.

    Example:
        >>> sigmoidal(jnp.array([-2.0, 0.0, 1.0]), softness=1.0, mode="c0").tolist()
        [0.0, 0.5, 0.75]
    """
    return _relaxed(
        _step, lambda x: jnp.heaviside(x, jnp.asarray(0.5, x.dtype)), x, softness=softness, mode=mode, where=where
    )


def heaviside(
    x: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> SoftBool:
    """Return the step at 0: `sigmoidal` under the name that it has in jnp.

    Arguments, values in [0, 1], limit jnp.heaviside(x, 0.5) and errors are those of `sigmoidal`.

    Example:
        >>> heaviside(jnp.array([-2.0, 0.0, 3.0]), mode="hard").tolist()
        [0.0, 0.5, 1.0]
    """
    return sigmoidal(x, softness=softness, mode=mode, where=where)


def softrelu(
    x: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> Float[Array, "..."]:
    """Return the ramp max(x, 0) with its kink rounded: the integral of `sigmoidal`.

    Args:
        x: Any shape that broadcasts with `softness`.
        softness: In the units of `x`, above 0.
        mode: The step function, as in `sigmoidal`; the ramp is one class smoother.
        where: Mask that broadcasts with `x`; a masked entry gives 0 and has no gradient.

    Returns:
        Values above max(x, 0), in its units, furthest at 0 (mode `smooth`, softplus: softness log 2); -> max(x, 0).

    Raises:
        ValueError: As in `sigmoidal`.

    Example:
        >>> softrelu(jnp.array([-2.0, 0.0, jnp.inf]), softness=1.0, mode="c0").tolist()
        [0.0, 0.5, inf]
    """
    return _relaxed(_ramp, jax.nn.relu, x, softness=softness, mode=mode, where=where)


def relu(
    x: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> Float[Array, "..."]:
    """Return max(x, 0) with its kink rounded: `softrelu` under the name that it has in jax.nn.

    Args:
        x: Any shape that broadcasts with `softness`.
        softness: In the units of `x`, above 0.
        mode: The step function, as in `sigmoidal`.
        where: Mask that broadcasts with `x`; a masked entry gives 0 and has no gradient.

    Returns:
        Values from max(x, 0) up, in the units of `x`; -> jax.nn.relu(x).

    Raises:
        ValueError: As in `sigmoidal`.

    Example:
        >>> float(jax.grad(relu)(0.0))
        0.5
    """
    return softrelu(x, softness=softness, mode=mode, where=where)


def sign(
    x: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> Float[Array, "..."]:
    """Return 2 F(x / softness) - 1, which rises from -1 through 0 at 0 to 1.

    Args:
        x: Any shape that broadcasts with `softness`.
        softness: In the units of `x`, above 0.
        mode: The step function, as in `sigmoidal`.
        where: Mask that broadcasts with `x`; a masked entry gives 0 and has no gradient.

    Returns:
        Values in [-1, 1]; -> jnp.sign(x).

    Raises:
        ValueError: As in `sigmoidal`.

    Example:
        >>> sign(jnp.array([-2.0, 0.0, 1.0]), softness=1.0, mode="c0").tolist()
        [-1.0, 0.0, 0.5]
    """
    return _relaxed(
        lambda x, s, mode: 2 * _step(x, s, mode) - 1, jnp.sign, x, softness=softness, mode=mode, where=where
    )


def abs(  # noqa: A001 - the name of jnp
    x: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> Float[Array, "..."]:
    """Return relu(x) + relu(-x): the magnitude with its kink rounded, whose derivative is exactly `sign`.

    Args:
        x: Any shape that broadcasts with `softness`.
        softness: In the units of `x`, above 0.
        mode: The step function, as in `sigmoidal`.
        where: Mask that broadcasts with `x`; a masked entry gives 0 and has no gradient.

    Returns:
        Values above |x|, in its units, by at most what they are at 0: softness times 2 log 2 (mode `smooth`), 1
        (`c0`), 9/8 (`c1`) or 75/64 (`c2`); -> jnp.abs(x).

    Raises:
        ValueError: As in `sigmoidal`.

    Example:
        >>> abs(jnp.array([-2.0, 0.0, 1.0]), softness=1.0, mode="c0").tolist()
        [2.0, 1.0, 1.25]
    """
    return _relaxed(_magnitude, jnp.abs, x, softness=softness, mode=mode, where=where)


def clip(
    x: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    softness: ArrayLike = 0.1,
    mode: Mode = "smooth",
    where: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """Return `x` held between `a` and `b`, with both kinks rounded.

    Args:
        x: Any shape that broadcasts with the bounds and `softness`.
        a: The lower bound, in the units of `x`; -inf for none.
        b: The upper bound, not below `a`; inf for none.
        softness: In the units of `x`, above 0.
        mode: The step function, as in `sigmoidal`.
        where: Mask that broadcasts with `x`; a masked entry gives 0 and has no gradient.

    Returns:
        Values in [a, b], in the units of `x`, with derivative F((x - a) / softness) - F((x - b) / softness);
        -> jnp.clip(x, a, b).

    Raises:
        ValueError: `a` is known to be above `b`; otherwise as in `sigmoidal`.

    Example:
        >>> clip(jnp.array([-jnp.inf, 0.0, 0.5, 9.0]), 0.0, 1.0, softness=0.25, mode="c0").tolist()
        [0.0, 0.125, 0.5, 1.0]
    """
    if known(a) and known(b) and np.any(np.asarray(a) > np.asarray(b)):
        raise ValueError(f"a is {a} and b is {b}; the lower bound a must not be above the upper bound b")
    return _relaxed(_held, jnp.clip, x, a, b, softness=softness, mode=mode, where=where)


def round(  # noqa: A001 - the name of jnp
    x: ArrayLike, *, softness: ArrayLike = 0.1, mode: Mode = "smooth", where: ArrayLike | None = None
) -> Float[Array, "..."]:
    """Return the nearest integer, with each stair rounded.

    Args:
        x: Any shape that broadcasts with `softness`.
        softness: In the units of `x`, above 0. From 0.5 (mode `smooth`) or 2 (the others) on it changes nothing: the
            stairs are then a straight line to 1e-3.
        mode: The step function, as in `sigmoidal`.
        where: Mask that broadcasts with `x`; a masked entry gives 0 and has no gradient.

    Returns:
        Rising values, at every softness k at an integer k and k + 1/2 halfway to the next; -> jnp.round(x), which
        differs halfway: it goes to the even neighbour.

    Raises:
        ValueError: As in `sigmoidal`.

    Example:
        >>> round(jnp.array([1.5, 2.0, 2.3, jnp.inf]), softness=1e-3).tolist()
        [1.5, 2.0, 2.0, inf]
    """
    return _relaxed(_stairs, jnp.round, x, softness=softness, mode=mode, where=where)


def _relaxed(
    soft: Callable[..., Array],
    hard: Callable[..., Array],
    *arrays: ArrayLike,
    softness: ArrayLike,
    mode: Mode,
    where: ArrayLike | None,
) -> Float[Array, "..."]:
    """Return hard(*arrays), or soft(*arrays, softness, mode) computed in at least float32, in the floating dtype."""
    dtype = jnp.result_type(*map(jnp.asarray, arrays), 0.0)
    floats = [keep(jnp.asarray(array, dtype), where) for array in arrays]
    scale = checked_softness(softness, jnp.promote_types(dtype, jnp.float32))
    if checked_mode(mode) == "hard":
        result = hard(*floats)
    else:
        result = soft(*map(in_compute_dtype, floats), scale, mode).astype(dtype)
    return keep(jnp.broadcast_to(result, jnp.broadcast_shapes(result.shape, scale.shape)), where)


def _step(x: Array, softness: Array, mode: Mode) -> Any:
    return step(in_softness(x, softness), mode)


def _excess(x: Array, softness: Array, mode: Mode) -> Array:
    """Return how far the ramp of `x` lies above max(x, 0)."""
    excess: Any = ramp_excess(in_softness(x, softness), mode)
    return softness * excess


def _ramp(x: Array, softness: Array, mode: Mode) -> Array:
    return jnp.maximum(x, 0) + _excess(x, softness, mode)


def _magnitude(x: Array, softness: Array, mode: Mode) -> Array:
    return jnp.maximum(x, -x) + 2 * _excess(x, softness, mode)  # unlike jnp.abs with derivative 0 at 0


def _held(x: Array, a: Array, b: Array, softness: Array, mode: Mode) -> Array:
    return _hard_clip(x, a, b) + _excess(difference(x, a), softness, mode) - _excess(difference(x, b), softness, mode)


@jax.custom_jvp
def _hard_clip(x: Array, a: Array, b: Array) -> Array:
    return jnp.clip(x, a, b)


@_hard_clip.defjvp
def _hard_clip_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Differentiate as the difference of two ramps, also where a = x = b; jnp.clip has 1/4 there instead of 0."""
    (x, a, b), (dx, da, db) = primals, tangents
    above_a, above_b = step(difference(x, a), "hard"), step(difference(x, b), "hard")
    return _hard_clip(x, a, b), da + above_a * (dx - da) - above_b * (dx - db)


def _stairs(x: Array, softness: Array, mode: Mode) -> Array:
    capped = jnp.minimum(softness, 0.5 if mode == "smooth" else 2.0)
    nearest = jax.lax.stop_gradient(jnp.round(x))
    stairs = jnp.arange(-8, 8, dtype=x.dtype)  # around the nearest integer; those further away add less than 1e-6
    climbed = _step(difference(x, nearest)[..., None] - (stairs + 0.5), capped[..., None], mode)
    return nearest + jnp.sum(climbed - (stairs < 0), axis=-1)
