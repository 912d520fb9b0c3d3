"""Softness: the temperature of a relaxation, held by an operator; fixed, learnable or annealed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffbio.core.errors import ConfigError


class FixedSoftness(nnx.Variable):
    """A softness that training does not learn, but that a schedule may set between steps."""


class Softness(nnx.Module):
    """A positive scalar, stored as its logarithm so that no gradient step can make it zero or negative.

    Its value is an array in the module's state, not a constant of the compiled program: setting it
    between steps (annealing) compiles nothing again.

    Args:
        value: The starting softness, above zero, in the unit of what it softens.
        learnable: Whether gradient descent changes it (it is then an `nnx.Param`).

    Raises:
        ConfigError: `value` is not above zero.

    Example:
        >>> softness = Softness(0.5)
        >>> float(softness())
        0.5
        >>> softness.set(0.1)
        >>> round(float(softness()), 6)
        0.1
    """

    def __init__(self, value: float, *, learnable: bool = False) -> None:
        if not value > 0:
            raise ConfigError(f"a softness must be above 0, got {value!r}")
        kind = nnx.Param if learnable else FixedSoftness
        self.log_value = kind(jnp.log(jnp.float32(value)))

    @property
    def learnable(self) -> bool:
        """Whether gradient descent changes this softness."""
        return isinstance(self.log_value, nnx.Param)

    def __call__(self) -> Float[Array, ""]:
        """Return the softness as a positive scalar."""
        return jnp.exp(self.log_value[...])

    def set(self, value: float | jax.Array) -> None:
        """Set the softness to `value` (above zero; may be traced), as annealing does between steps."""
        self.log_value[...] = jnp.log(jnp.asarray(value, jnp.float32))
