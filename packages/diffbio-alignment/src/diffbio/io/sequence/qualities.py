"""Qualities of bases as probabilities, and bases as distributions that know their quality.

References:
    Ewing and Green, Base-calling of automated sequencer traces using phred II: error probabilities, Genome Research
    1998.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def error_probability(qualities: Float[Array, "*positions"]) -> Float[Array, "*positions"]:
    """Return the probability that a letter is wrong, 10^(-quality / 10).

    Args:
        qualities: Phred qualities, at least 0.

    Example:
        >>> [round(p, 4) for p in error_probability(jnp.array([0.0, 10.0, 30.0])).tolist()]
        [1.0, 0.1, 0.001]
    """
    return jnp.exp(qualities * (-jnp.log(10.0) / 10))


def with_quality(
    letters: Float[Array, "*sequences positions letters"], qualities: Float[Array, "*sequences positions"]
) -> Float[Array, "*sequences positions letters"]:
    """Return distributions over the true letters: 1 - p on the called one, p / (n - 1) on each other one.

    Args:
        letters: Distributions over n letters, as `encode` makes them; zeros beyond the end.
        qualities: Phred qualities, p = 10^(-quality / 10).

    Returns:
        Distributions; zeros beyond the end, and N as it was. A quality of 0 says that the call is surely wrong, and
        1.25 that it says nothing (for n = 4): where a sequencer uses low qualities as marks, raise them first.

    References:
        Ewing and Green, Base-calling of automated sequencer traces using phred II, Genome Research 1998.

    Example:
        >>> [round(p, 3) for p in with_quality(jnp.array([1.0, 0.0, 0.0, 0.0]), jnp.array(10.0)).tolist()]
        [0.9, 0.033, 0.033, 0.033]
    """
    wrong = error_probability(qualities)[..., None]
    others = (letters.sum(-1, keepdims=True) - letters) / (letters.shape[-1] - 1)
    return letters + wrong * (others - letters)
