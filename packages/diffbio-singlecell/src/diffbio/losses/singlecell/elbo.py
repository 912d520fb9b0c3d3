"""The objective of variational autoencoders: the evidence lower bound (ELBO)."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from diffbio.losses.singlecell.reading import read


def negative_elbo(data: Mapping[str, Array], *, kl_weight: ScalarLike | None = None) -> Float[Array, ""]:
    """Return the mean over the cells of kl_weight * KL - log-likelihood: what a variational autoencoder minimizes.

    Args:
        data: Holds `reconstruction_log_likelihood` and `kl_divergence` (cells,), in nats, and `kl_weight`, a scalar.
        kl_weight: Replaces that of the data. Give 1 where epochs are compared while a schedule warms the weight up.

    Returns:
        A scalar, in nats per cell. With weight 1 it bounds the mean of -log p(counts) from above.

    Raises:
        MissingKeyError: A key is missing.

    References:
        Kingma and Welling, Auto-encoding variational Bayes, ICLR 2014.

    Example:
        >>> data = {
        ...     "reconstruction_log_likelihood": jnp.array([-9.0, -7.0]),
        ...     "kl_divergence": jnp.array([2.0, 4.0]),
        ...     "kl_weight": jnp.array(0.5),
        ... }
        >>> float(negative_elbo(data)), float(negative_elbo(data, kl_weight=1.0))
        (9.5, 11.0)
    """
    likelihood, divergence = read("negative_elbo", data, "reconstruction_log_likelihood", "kl_divergence")
    weight = read("negative_elbo", data, "kl_weight")[0] if kl_weight is None else jnp.asarray(kl_weight)
    return (weight * divergence - likelihood).mean()
