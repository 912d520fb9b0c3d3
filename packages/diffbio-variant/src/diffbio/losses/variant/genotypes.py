"""The objective of callers: the true genotype."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffbio.core.reading import read


def genotype_cross_entropy(
    data: Mapping[str, Array], *, logits: str = "classifier_logits", genotype: str = "genotype"
) -> Float[Array, ""]:
    """Return the mean cross-entropy, in nats, of the true genotypes with those that a caller believes in.

    Args:
        data: Holds logits (*sites, genotypes) and the true number of copies of the variant (*sites,), int; a site of
            which it is not known has -1, and does not count.
        logits: Key of the logits.
        genotype: Key of the true genotypes.

    Returns:
        A scalar, at least 0; 0 where no site counts.

    Raises:
        MissingKeyError: A key is missing.

    Example:
        >>> data = {"classifier_logits": jnp.log(jnp.array([[0.5, 0.25, 0.25]])), "genotype": jnp.array([0])}
        >>> round(float(genotype_cross_entropy(data)), 3)
        0.693
    """
    believed, true = read("genotype_cross_entropy", data, logits, genotype)
    known = true >= 0
    log_probabilities = jax.nn.log_softmax(believed, axis=-1)
    costs = -jnp.take_along_axis(log_probabilities, jnp.maximum(true, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(known, costs, 0.0).sum() / jnp.maximum(known.sum(), 1)
