"""The loss of a profile: how little it expects its family."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffbio.core.reading import read


def profile_surprise(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return less the mean log odds of sequences under a profile: maximum likelihood, since the null model is fixed.

    Args:
        data: Holds `profile_score` (*sequences,), log odds in bits.

    Returns:
        A scalar, in nats per sequence.

    Raises:
        MissingKeyError: There is no `profile_score`.

    References:
        Eddy, Hidden Markov models, Current Opinion in Structural Biology 1996.

    Example:
        >>> round(float(profile_surprise({"profile_score": jnp.array([1.0, 3.0])})), 3)  # 2 bits
        -1.386
    """
    (score,) = read("profile_surprise", data, "profile_score")
    return -score.mean() * jnp.log(2.0)
