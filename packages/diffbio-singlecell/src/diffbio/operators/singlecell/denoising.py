"""Denoising of counts by a network that trains itself: part of the molecules predicts the part it has not seen.

The molecules of a cell were caught independently, so what predicts those that are hidden is the cell's expression and
not its noise. Two ways to hide (x the counts, l the sum of what is seen, rho the rates of the decoder, whose softmax
makes them sum to 1):

    thinning   seen ~ Binomial(x, p), hidden = x - seen       predicted mean l (1 - p) / p * rho_g
    masking    each count is hidden whole with chance 1 - p   predicted mean l * rho_g / sum of rho over seen genes

Trained on how likely the hidden counts are (`diffbio.losses.singlecell.masked_values`). To impute, the network sees all
counts, and its prediction m = library * rho is weighed against the count itself: with the inverse dispersion t of the
gene, the rate behind the count has the gamma prior of mean m and shape t, and the imputed count is its posterior mean

    imputed = m (t + x) / (t + m)

for every entry. A high count stays close to itself, a low one goes to what the network predicts. Nothing is relaxed.

References:
    Batson and Royer, Noise2Self: blind denoising by self-supervision, ICML 2019 (masking).
    Batson, Royer and Webber, Molecular cross-validation for single-cell RNA-seq, bioRxiv 2019 (thinning).
    Huang et al., SAVER: gene expression recovery for single-cell RNA sequencing, Nature Methods 2018 (the posterior).
    Eraslan et al., Single-cell RNA-seq denoising using a deep count autoencoder (DCA), Nature Communications 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Lt
from flax import nnx
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from diffbio.core import Operator, OperatorConfig, require_rngs
from diffbio.operators.normalization.library_size import normalize_library_size
from diffbio.operators.normalization.variational import ConditionalLayers, CountDecoder

_EXPRESSION_SUM = 1e4  # the depth to which the encoder sees every cell scaled


@dataclass(frozen=True, kw_only=True)
class MaskedDenoiserConfig(OperatorConfig):
    """Sizes of the network, and what it is trained to predict.

    Args:
        n_genes: Number of genes.
        n_latent: Width of the bottleneck: what the network can say of a cell.
        hidden_sizes: Width of each hidden layer before the bottleneck; in reverse order after it.
        scheme: How counts are hidden in training: molecules one by one (thinning), or whole counts (masking).
        seen_fraction: Chance that a molecule, or a count, is seen in training, between 0 and 1.
    """

    n_genes: Annotated[int, Ge(1)]
    n_latent: Annotated[int, Ge(1)] = 16
    hidden_sizes: tuple[Annotated[int, Ge(1)], ...] = (128,)
    scheme: Literal["thinning", "masking"] = "thinning"
    seen_fraction: Annotated[float, Gt(0), Lt(1)] = 0.8


class DenoisedCounts(NamedTuple):
    """Imputed counts, and what training compares.

    Attributes:
        imputed_counts: Posterior mean of the rate behind each count, at least 0; no key matters to it.
        hidden_counts: Counts that the network did not see in training, by the key.
        hidden_mean: What it expects them to be.
        hidden_mask: Which of them count: all by thinning, those that are masked by masking.
        inverse_dispersion: Inverse dispersion of the negative binomial of each gene, above 0.
    """

    imputed_counts: Float[Array, "*cells genes"]
    hidden_counts: Float[Array, "*cells genes"]
    hidden_mean: Float[Array, "*cells genes"]
    hidden_mask: Bool[Array, "*cells genes"]
    inverse_dispersion: Float[Array, " genes"]


class SplitCounts(NamedTuple):
    """Counts in two parts.

    Attributes:
        seen: What the network sees.
        hidden: What it is to predict.
        mask: Where `hidden` is to be predicted.
    """

    seen: Float[Array, "*cells genes"]
    hidden: Float[Array, "*cells genes"]
    mask: Bool[Array, "*cells genes"]


def thin(counts: Float[Array, "*cells genes"], fraction: ArrayLike, *, key: Array) -> SplitCounts:
    """Return the counts dealt out molecule by molecule; Poisson counts give two independent parts.

    Args:
        counts: Counts (*cells, genes), at least 0; rounded to integers first.
        fraction: Chance that a molecule is seen, in [0, 1].
        key: Random key.

    Returns:
        Two parts that sum to the rounded counts, without gradient, and a mask that is true everywhere.

    Example:
        >>> parts = thin(jnp.array([[8.0, 0.0]]), 0.5, key=jax.random.key(0))
        >>> (parts.seen + parts.hidden).tolist()
        [[8.0, 0.0]]
    """
    molecules = lax.stop_gradient(jnp.round(counts))
    seen = jax.random.binomial(key, molecules, jnp.asarray(fraction, counts.dtype), dtype=counts.dtype)
    return SplitCounts(seen, molecules - seen, jnp.ones(counts.shape, bool))


def mask(counts: Float[Array, "*cells genes"], fraction: ArrayLike, *, key: Array) -> SplitCounts:
    """Return the counts with some of them hidden whole.

    Args:
        counts: Counts (*cells, genes), at least 0.
        fraction: Chance that a count is seen, in [0, 1].
        key: Random key.

    Returns:
        The counts, 0 where hidden; the counts, 0 where seen; and which are hidden.

    Example:
        >>> parts = mask(jnp.ones((1, 4)), 0.5, key=jax.random.key(0))
        >>> bool((parts.mask == (parts.seen == 0)).all())
        True
    """
    hidden = jax.random.bernoulli(key, 1 - jnp.asarray(fraction, counts.dtype), counts.shape)
    return SplitCounts(jnp.where(hidden, 0.0, counts), jnp.where(hidden, counts, 0.0), hidden)


def posterior_mean(
    counts: Float[Array, "*cells genes"], mean: Float[Array, "*cells genes"], inverse_dispersion: ArrayLike
) -> Float[Array, "*cells genes"]:
    """Return the expected rate behind each Poisson count, where rates vary around `mean` by a gamma distribution.

    Args:
        counts: What was counted (*cells, genes), at least 0.
        mean: Mean of the rates before they were counted, at least 0.
        inverse_dispersion: Shape of the gamma distribution, above 0; broadcasts.

    Returns:
        mean * (inverse_dispersion + counts) / (inverse_dispersion + mean), which lies between count and mean.

    References:
        Huang et al., SAVER: gene expression recovery for single-cell RNA sequencing, Nature Methods 2018.

    Example:
        >>> posterior_mean(jnp.array([0.0, 6.0]), jnp.array([2.0, 2.0]), 2.0).tolist()
        [1.0, 4.0]
    """
    # the weight of the mean, which keeps its digits for a huge dispersion and for a huge mean
    weight = 1 / (1 + mean / inverse_dispersion)
    return weight * mean + (1 - weight) * counts


class MaskedDenoiser(Operator[MaskedDenoiserConfig]):
    """Denoises counts by a network that is trained to predict counts which it has not seen.

    Reads `counts` (*cells, genes); writes `imputed_counts` (*cells, genes), which no key changes, and for training
    `hidden_counts`, `hidden_mean`, `hidden_mask` (*cells, genes) and `inverse_dispersion` (genes,). What is not used
    of these costs nothing under `jit`. Acts on each cell alone. The order of the genes means nothing to it.

    Args:
        config: Sizes, and how counts are hidden.
        rngs: Source of the starting weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> denoiser = MaskedDenoiser(MaskedDenoiserConfig(n_genes=3), rngs=nnx.Rngs(0))
        >>> counts = jnp.array([[3.0, 0.0, 1.0], [9.0, 0.0, 2.0]])
        >>> data, _, _ = denoiser.apply({"counts": counts}, {}, None, key=jax.random.key(0))
        >>> data["imputed_counts"].shape
        (2, 3)
    """

    def __init__(self, config: MaskedDenoiserConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        self.encoder = ConditionalLayers((config.n_genes, *config.hidden_sizes), rngs=rngs)
        self.bottleneck = nnx.Linear((config.n_genes, *config.hidden_sizes)[-1], config.n_latent, rngs=rngs)
        self.decoder = CountDecoder(config.n_latent, config.hidden_sizes[::-1], config.n_genes, rngs=rngs)

    def initialize(self, counts: Float[Array, "cells genes"]) -> None:
        """Start at the mean rates and the dispersions of the genes.

        Args:
            counts: Counts of some cells (cells, genes).
        """
        self.decoder.initialize(counts)

    def compute(self, counts: Float[Array, "*cells genes"], *, key: Array) -> DenoisedCounts:
        """Return the imputed counts, and hidden counts with what the rest of the cell predicts for them."""
        p = self.config.seen_fraction
        split = thin if self.config.scheme == "thinning" else mask
        parts = split(counts, p, key=key)
        rates = self.rates(parts.seen)
        depth = parts.seen.sum(-1, keepdims=True)
        if self.config.scheme == "thinning":
            depth = depth * (1 - p) / p
        else:
            depth = depth / jnp.maximum(jnp.where(parts.mask, 0.0, rates).sum(-1, keepdims=True), 1e-6)
        expected = counts.sum(-1, keepdims=True) * self.rates(counts)
        inverse_dispersion = self.decoder.inverse_dispersion()
        return DenoisedCounts(
            imputed_counts=posterior_mean(counts, expected, inverse_dispersion),
            hidden_counts=parts.hidden,
            hidden_mean=depth * rates,
            hidden_mask=parts.mask,
            inverse_dispersion=inverse_dispersion,
        )

    def rates(self, counts: Float[Array, "*cells genes"]) -> Float[Array, "*cells genes"]:
        """Return the share of each gene in the molecules of a cell, given its counts; the shares sum to 1."""
        expression = normalize_library_size(counts, target_sum=_EXPRESSION_SUM).normalized
        return self.decoder.rates(self.bottleneck(self.encoder(expression)))
