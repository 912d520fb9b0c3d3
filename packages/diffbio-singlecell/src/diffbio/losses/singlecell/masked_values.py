"""The objective of self-supervised denoising: how likely the counts are that were hidden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffbio.core.errors import ConfigError
from diffbio.core.reading import read
from diffbio.operators.normalization.count_distributions import negative_binomial_log_pmf, poisson_log_pmf


def masked_values(data: Mapping[str, Array], *, likelihood: Literal["nb", "poisson"] = "nb") -> Float[Array, ""]:
    """Return the mean over the cells of -log p(hidden counts), summed over the genes.

    Args:
        data: Holds `hidden_counts` and `hidden_mean` (cells, genes), `hidden_mask` (cells, genes), which says what
            counts, and, for the negative binomial, `inverse_dispersion` (genes,).
        likelihood: Distribution of a hidden count around its mean: negative binomial or Poisson. The Poisson is right
            for thinned counts if the rates are all that varies; the negative binomial also learns what they miss.

    Returns:
        A scalar, in nats per cell.

    Raises:
        MissingKeyError: A key is missing.
        ConfigError: `likelihood` is neither.

    References:
        Batson, Royer and Webber, Molecular cross-validation for single-cell RNA-seq, bioRxiv 2019.

    Example:
        >>> data = {
        ...     "hidden_counts": jnp.array([[1.0, 7.0]]),
        ...     "hidden_mean": jnp.array([[1.0, 2.0]]),
        ...     "hidden_mask": jnp.array([[True, False]]),
        ... }
        >>> float(masked_values(data, likelihood="poisson"))
        1.0
    """
    counts, mean, hidden = read("masked_values", data, "hidden_counts", "hidden_mean", "hidden_mask")
    if likelihood == "nb":
        (inverse_dispersion,) = read("masked_values", data, "inverse_dispersion")
        log_pmf = negative_binomial_log_pmf(counts, mean, inverse_dispersion)
    elif likelihood == "poisson":
        log_pmf = poisson_log_pmf(counts, mean)
    else:
        raise ConfigError(f"masked_values: likelihood is {likelihood!r}; it must be 'nb' or 'poisson'")
    return -jnp.where(hidden, log_pmf, 0.0).sum(-1).mean()
