"""The objective of a classifier of doublets: cross-entropy of simulated doublets against observed cells."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffbio.core.reading import read


def doublet_cross_entropy(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the mean negative log-probability of each cell's own label, in nats.

    Args:
        data: Holds `doublet_logits` (cells,), real numbers, and `doublet_labels` (cells,), 1 for a simulated doublet
            and 0 for an observed cell.

    Returns:
        A scalar, at least 0.

    Raises:
        MissingKeyError: A key is missing.

    References:
        scikit-learn `metrics.log_loss` of sigmoid(logits), which it equals.

    Example:
        >>> data = {"doublet_logits": jnp.zeros(3), "doublet_labels": jnp.array([0, 1, 1])}
        >>> bool(jnp.allclose(doublet_cross_entropy(data), jnp.log(2)))
        True
    """
    logits, labels = read("doublet_cross_entropy", data, "doublet_logits", "doublet_labels")
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype)))
