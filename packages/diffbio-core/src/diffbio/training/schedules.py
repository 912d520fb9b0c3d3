"""Schedules of the temperature: from warm (smooth, informative gradients) to cool (the hard answer)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffbio.core.errors import ConfigError


def temperature_schedule(
    step: int | Int[Array, ""],
    initial: float = 10.0,
    final: float = 0.1,
    decay_steps: int = 10_000,
) -> Float[Array, ""]:
    """Anneal exponentially from `initial` to `final`, then stay there.

    `initial * (final / initial) ** (step / decay_steps)`: equal numbers of steps are spent on each
    factor of the temperature. It is an optax schedule (a function of the step), so any other optax
    schedule may stand in its place; set other limits with `functools.partial`.

    Args:
        step: The step, from 0; a Python integer or a traced scalar.
        initial: The temperature at step 0, above zero.
        final: The temperature from `decay_steps` on, above zero.
        decay_steps: The number of steps from `initial` to `final`, at least 1.

    Returns:
        The temperature at `step`, a scalar.

    Raises:
        ConfigError: A temperature is not above zero, or `decay_steps` is below 1.

    Example:
        >>> [round(float(temperature_schedule(step)), 3) for step in (0, 5_000, 10_000, 20_000)]
        [10.0, 1.0, 0.1, 0.1]
    """
    if initial <= 0 or final <= 0:
        raise ConfigError(f"temperatures must be above 0, got initial={initial!r} and final={final!r}")
    if decay_steps < 1:
        raise ConfigError(f"decay_steps is {decay_steps!r}; annealing takes at least 1 step")
    progress = jnp.clip(jax.lax.convert_element_type(step, jnp.float32) / decay_steps, 0.0, 1.0)
    return initial * (final / initial) ** progress
