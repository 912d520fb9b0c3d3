"""How sure a choice is."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_PHRED = 10 / math.log(10)


def phred_of_the_best(logits: Float[Array, "*any choices"]) -> Float[Array, "*any"]:
    """Return the Phred-scaled probability that the most probable choice is wrong.

    Args:
        logits: Log-probabilities up to a common number.

    Returns:
        Phred, also where the probability itself would be 0 in float32.

    Example:
        >>> phred_of_the_best(jnp.log(jnp.array([0.9, 0.05, 0.05]))).round(2).tolist()
        10.0
    """
    best = jnp.arange(logits.shape[-1]) == logits.argmax(-1, keepdims=True)
    others = jax.nn.logsumexp(jnp.where(best, -jnp.inf, logits), axis=-1)
    return -_PHRED * (others - jnp.logaddexp(others, logits.max(-1)))
