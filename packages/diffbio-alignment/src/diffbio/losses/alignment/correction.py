"""The objective of error correction: the true letter of each base, where it is known."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffbio.core.reading import read

_LEAST = 1e-7
"""Probability of a true letter below which the loss does not rise: a letter ruled out costs 16 nats, and not
infinity."""


def true_base_cross_entropy(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the mean cross-entropy, in nats, of corrected bases with the true ones.

    Args:
        data: Holds `corrected_reads` and `true_reads` (*reads, positions, letters), distributions over the letters; a
            base whose true letters are zeros, as beyond the end of a read, does not count.

    Returns:
        A scalar, at least 0.

    Raises:
        MissingKeyError: One of the two keys is missing.

    Example:
        >>> data = {"corrected_reads": jnp.array([[[0.5, 0.5, 0.0, 0.0]]]), "true_reads": jnp.eye(4)[None, :1]}
        >>> round(float(true_base_cross_entropy(data)), 3)
        0.693
    """
    corrected, true = read("true_base_cross_entropy", data, "corrected_reads", "true_reads")
    counted = true.sum()
    # a probability of 0 would have a logarithm without end
    costs = -(true * jnp.log(jnp.maximum(corrected, _LEAST))).sum()
    return costs / jnp.where(counted > 0, counted, 1.0)
