r"""The step function that every threshold is made of, in five modes of smoothness.

A hard decision at a threshold is the Heaviside step. Its relaxation is a cumulative distribution F(z) of the
distance to the threshold in units of the softness, z = x / softness. All modes have the same slope at the
threshold, F'(0) = 1/4, so that a softness means the same in each of them; they differ in how smoothly F
leaves 0 and reaches 1:

| mode   | F                                     | class | leaves 0 and 1 within                |
|--------|---------------------------------------|-------|--------------------------------------|
| hard   | Heaviside, 1/2 at 0                   | none  | 0                                    |
| smooth | logistic, 1 / (1 + exp(-z))           | C^inf | everywhere, exponentially            |
| c0     | integral of 1/4                       | C^0   | [-2, 2] softness                     |
| c1     | integral of (1 - (z/3)^2) / 4         | C^1   | [-3, 3] softness                     |
| c2     | integral of (1 - (z/3.75)^2)^2 / 4    | C^2   | [-3.75, 3.75] softness               |

Functions made by integrating F (relu, abs, clip) are one class smoother.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, cast, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Mode = Literal["hard", "smooth", "c0", "c1", "c2"]
"""How smooth a relaxation is; `hard` is the classical function itself."""

SUPPORT = {"c0": 2.0, "c1": 3.0, "c2": 3.75}
"""Half the width of the interval on which a mode is neither 0 nor 1, in units of the softness."""


def checked_mode(mode: str, allowed: tuple[str, ...] = get_args(Mode), reason: str = "") -> Mode:
    """Return `mode` if it is one of `allowed`.

    Args:
        mode: What the caller gave.
        allowed: The modes that the function, or its method, has.
        reason: Why there are not all five, as the end of the message.

    Raises:
        ValueError: It is not among them.
    """
    if mode not in allowed:
        raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(map(repr, allowed))}{reason}")
    return cast("Mode", mode)


def checked_method(method: str, methods: tuple[str, ...]) -> str:
    """Return `method`, or the first of `methods` for "auto".

    Raises:
        ValueError: It is not among them.
    """
    if method not in ("auto", *methods):
        others = ", ".join(map(repr, ("auto", *methods[:-1])))
        raise ValueError(f"method is {method!r}; it must be {others} or {methods[-1]!r}")
    return methods[0] if method == "auto" else method


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def step(z: Float[Array, "..."], mode: Mode) -> Float[Array, "..."]:
    """Return F(z), the soft truth of z > 0.

    Args:
        z: Distance to the threshold, in units of the softness.
        mode: As in the table of the module; in mode `hard` the derivative is 0.

    Returns:
        Values in [0, 1], rising, with F(-z) = 1 - F(z).
    """
    if mode == "hard":
        return jnp.heaviside(z, jnp.asarray(0.5, z.dtype))
    if mode == "smooth":
        return jax.nn.sigmoid(z)
    t = jnp.clip(z / SUPPORT[mode], -1.0, 1.0)
    if mode == "c0":
        return 0.5 + t / 2
    if mode == "c1":
        return 0.5 + t * (3 - t**2) / 4
    return 0.5 + t * (15 - t**2 * (10 - 3 * t**2)) / 16


@step.defjvp
def _step_jvp(mode: Mode, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return step(z, mode), slope(z, mode) * dz


def slope(z: Float[Array, "..."], mode: Mode) -> Float[Array, "..."]:
    """Return F'(z): 1/4 at 0, falling to both sides; 0 in mode `hard`."""
    if mode == "hard":
        return jnp.zeros_like(z)
    if mode == "smooth":
        return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)
    t = z / SUPPORT[mode]
    inside = jnp.abs(t) < 1
    if mode == "c0":
        return jnp.where(inside, 0.25, 0.0).astype(z.dtype)
    power = 1 if mode == "c1" else 2
    return jnp.where(inside, (1 - jnp.where(inside, t, 0.0) ** 2) ** power / 4, 0.0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def ramp_excess(z: Float[Array, "..."], mode: Mode) -> Float[Array, "..."]:
    """Return how far the integral of F lies above max(z, 0): an even function that falls to 0.

    Apart from max(z, 0) itself, so that a difference of two ramps is exact far from both, also at infinity.
    """
    u = jnp.abs(z)
    if mode == "hard":
        return jnp.zeros_like(z)
    if mode == "smooth":
        return jnp.log1p(jnp.exp(-u))
    width = SUPPORT[mode]
    t = jnp.minimum(u / width, 1.0)
    if mode == "c0":
        return width * (1 - t) ** 2 / 4
    if mode == "c1":
        return width * (1 - t) ** 3 * (3 + t) / 16
    return width * (1 - t) ** 4 * (5 + t * (4 + t)) / 32


@ramp_excess.defjvp
def _ramp_excess_jvp(mode: Mode, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    passed: Any = step(z, mode)
    return ramp_excess(z, mode), (passed - jnp.heaviside(z, jnp.asarray(0.5, z.dtype))) * dz
