"""The objective of recalibration: base qualities that promise as many errors as there are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffbio.core.reading import read
from diffbio.operators.variant.base_weights import counting_bases
from diffbio.operators.variant.mismatches import base_mismatches

_NATS_PER_PHRED = math.log(10) / 10
_LEAST_QUALITY = 1e-3  # Phred; at 0 a right base would be infinitely surprising


def mismatch_cross_entropy(data: Mapping[str, Array], *, min_quality: float = 6.0) -> Float[Array, ""]:
    """Return the mean cross-entropy, in nats, of mismatches to the reference with the errors that qualities promise.

    A mismatch costs -log e and a match -log(1 - e), with e = 10^(-quality / 10); the mean is least where of all bases
    of one quality the share e is wrong.

    Args:
        data: Holds `recalibrated_qualities` and `qualities` (reads, positions), Phred, `reads` (reads, positions, 4),
            `base_positions` (reads, positions), the column of each base, and `reference` (window, 4); optionally
            `known_variant` and `own_columns` (window,), `read_lengths` and `read_mask` (reads,), and the `base_weights`
            (reads, positions) and `read_weights` (reads,) of trimmers and filters. In all of them axes of windows may
            come first.
        min_quality: Bases that were reported with a lower quality do not count, Phred.

    Returns:
        A scalar, at least 0; 0 where no base counts.

    Raises:
        MissingKeyError: One of the first five keys is missing.

    Example:
        >>> data = {"reads": jnp.eye(4)[jnp.array([[0, 1]])], "qualities": jnp.full((1, 2), 30.0)}
        >>> data |= {"base_positions": jnp.array([[0, 1]]), "reference": jnp.eye(4)[jnp.array([0, 0])]}
        >>> better = [{"recalibrated_qualities": jnp.full((1, 2), quality)} for quality in (3.0, 30.0)]
        >>> [round(float(mismatch_cross_entropy(data | q)), 3) for q in better]  # of two bases one is wrong
        [0.693, 3.454]
    """
    keys = "recalibrated_qualities", "qualities", "reads", "base_positions", "reference"
    better, reported, reads, columns, reference = read("mismatch_cross_entropy", data, *keys)
    found = base_mismatches(reads, columns, reference, data.get("known_variant"), data.get("own_columns"))
    weights = counting_bases(
        reported, *(data.get(key) for key in ("read_lengths", "read_mask", "base_weights", "read_weights"))
    )
    weights = jnp.where(reported >= min_quality, weights, 0.0)
    nats = _NATS_PER_PHRED * jnp.maximum(better, _LEAST_QUALITY)
    costs = found.differing * nats - (found.compared - found.differing) * jnp.log(-jnp.expm1(-nats))
    counted = (weights * found.compared).sum()
    return (weights * costs).sum() / jnp.where(counted > 0, counted, 1.0)
