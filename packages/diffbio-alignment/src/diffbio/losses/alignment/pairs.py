"""Losses of pairwise alignments."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffbio.core.reading import read

LEAST_POSTERIOR = 1e-3
"""What is added to each probability: a pair that the model can't align costs 7 nats, and no more."""


def alignment_cross_entropy(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the cross-entropy of the posterior and a reference alignment, per aligned pair of positions.

    Args:
        data: Holds `alignment_posterior` (*pairs, query, target) and `reference_alignment` of the same shape, 1 where
            the reference aligns two positions, else 0; each pair of sequences counts the same, and those without
            aligned positions not at all.

    Returns:
        A scalar in nats, from 0 to about 7.

    Raises:
        MissingKeyError: One of the two keys is missing.

    Example:
        >>> posterior = jnp.array([[[1.0, 0.0], [0.0, 0.5]]])
        >>> loss = alignment_cross_entropy({"alignment_posterior": posterior, "reference_alignment": jnp.eye(2)[None]})
        >>> round(float(loss), 2)  # half of ln 2, about
        0.35
    """
    posterior, reference = read("alignment_cross_entropy", data, "alignment_posterior", "reference_alignment")
    surprise = -jnp.log((posterior + LEAST_POSTERIOR) / (1 + LEAST_POSTERIOR))
    aligned = reference.sum((-2, -1))
    of_pairs = (reference * surprise).sum((-2, -1)) / jnp.maximum(aligned, 1)
    return of_pairs.sum() / jnp.maximum((aligned > 0).sum(), 1)


def alignment_dissimilarity(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return less the mean alignment score: what makes sequences alike lowers it.

    Args:
        data: Holds `alignment_score` (*pairs,), in the unit of the substitution scores.

    Returns:
        A scalar, in that unit.

    Raises:
        MissingKeyError: There is no `alignment_score`.

    Example:
        >>> float(alignment_dissimilarity({"alignment_score": jnp.array([3.0, 5.0])}))
        -4.0
    """
    (score,) = read("alignment_dissimilarity", data, "alignment_score")
    return -score.mean()
