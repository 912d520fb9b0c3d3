"""The objectives of variational autoencoders: the evidence lower bound (ELBO), and with it a classifier."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from diffbio.core.reading import read
from diffbio.losses.singlecell.annotation import cell_type_cross_entropy


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


def semi_supervised_elbo(
    data: Mapping[str, Array],
    *,
    classification_weight: ScalarLike = 50.0,
    balanced: bool = False,
    kl_weight: ScalarLike | None = None,
) -> Float[Array, ""]:
    """Return the negative ELBO plus a weighted cross-entropy of the labelled cells.

    The ELBO of unlabelled cells alone does not train the classifier to agree with the labels, and in nats the counts
    of a thousand genes weigh far more than one label: hence the weight.

    Args:
        data: Holds what `negative_elbo` and `cell_type_cross_entropy` read.
        classification_weight: Weight of the cross-entropy, at least 0.
        balanced: Whether each cell type among the labels counts the same, instead of each cell.
        kl_weight: Replaces that of the data, as in `negative_elbo`.

    Returns:
        A scalar, in nats per cell.

    Raises:
        MissingKeyError: A key is missing.

    References:
        Kingma et al., Semi-supervised learning with deep generative models, NeurIPS 2014 (equation 9).

    Example:
        >>> data = {
        ...     "reconstruction_log_likelihood": jnp.array([-9.0]),
        ...     "kl_divergence": jnp.array([2.0]),
        ...     "kl_weight": jnp.array(0.5),
        ...     "cell_type_logits": jnp.zeros((1, 4)),
        ...     "labels": jnp.array([-1]),
        ... }
        >>> float(semi_supervised_elbo(data))
        10.0
    """
    cross_entropy = cell_type_cross_entropy(data, balanced=balanced)
    return negative_elbo(data, kl_weight=kl_weight) + jnp.asarray(classification_weight) * cross_entropy
