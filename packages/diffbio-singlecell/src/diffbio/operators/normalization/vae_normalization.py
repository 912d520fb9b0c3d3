"""Normalization by a variational autoencoder of counts, in the family of scVI.

A cell of library size l has a latent z ~ N(0, 1), and its counts are drawn around l * rho(z, s), where the decoder's
softmax makes the rates rho sum to 1 over the genes, and s is its batch and other covariates:

    x_g ~ NB(mean l rho_g, inverse dispersion theta_g),  or ZINB, or Poisson.

The encoder gives the approximate posterior N(latent_mean, exp(latent_logvar)). It sees log(1 + target_sum * x / l),
so two cells that differ in depth alone have one `latent_mean` and one `normalized`; the depth itself only widens or
narrows the posterior. Trained by the evidence lower bound (`diffbio.losses.singlecell.elbo`):

    ELBO = E_z[log p(x | z)] - kl_weight * KL(posterior || N(0, 1))

No hard algorithm is relaxed. As the posterior narrows, it is an autoencoder.

References:
    Lopez et al., Deep generative modeling for single-cell transcriptomics (scVI), Nature Methods 2018.
    Gayoso et al., A Python library for probabilistic analysis of single-cell omics data (scvi-tools), Nature
    Biotechnology 2022.
    Sonderby et al., Ladder variational autoencoders, NeurIPS 2016 (the warm-up of the KL term).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, require_rngs
from diffbio.operators.normalization.count_distributions import gaussian_kl
from diffbio.operators.normalization.library_size import normalize_library_size
from diffbio.operators.normalization.variational import (
    CountDecoder,
    GaussianEncoder,
    Likelihood,
    draw_latent,
    one_hot_conditions,
)


@dataclass(frozen=True, kw_only=True)
class VAENormalizerConfig(OperatorConfig):
    """Sizes of the autoencoder, and the distribution of the counts.

    Args:
        n_genes: Number of genes.
        n_latent: Number of latent dimensions.
        hidden_sizes: Width of each hidden layer of the encoder; the decoder has them in reverse order.
        likelihood: Distribution of a count around its mean: negative binomial, zero-inflated negative binomial or
            Poisson.
        dispersion: Whether a gene has one inverse dispersion, or one per batch; the Poisson has none.
        n_batches: Number of batches that condition the decoder; 1 where there is no batch effect to take out.
        covariate_levels: Number of levels of each further categorical covariate that conditions the decoder.
        target_sum: Total of `normalized` for each cell, above 0.
        kl_weight: Weight of the KL term, above 0; held as a softness, so that a schedule may warm it up.
    """

    n_genes: Annotated[int, Ge(1)]
    n_latent: Annotated[int, Ge(1)] = 10
    hidden_sizes: tuple[Annotated[int, Ge(1)], ...] = (128,)
    likelihood: Likelihood = "nb"
    dispersion: Literal["gene", "gene-batch"] = "gene"
    n_batches: Annotated[int, Ge(1)] = 1
    covariate_levels: tuple[Annotated[int, Ge(2)], ...] = ()
    target_sum: Annotated[float, Gt(0)] = 1e4
    kl_weight: Annotated[float, Gt(0)] = 1.0


class NormalizedCells(NamedTuple):
    """What the autoencoder says of each cell.

    Attributes:
        latent: A draw from the posterior; the only output, with the likelihood, that depends on the key.
        latent_mean: Mean of the posterior.
        latent_logvar: Logarithm of its variance.
        normalized: Expected expression at `latent_mean`, in counts of a cell of `target_sum`; sums to that.
        reconstruction_log_likelihood: log p(counts | latent), summed over the genes, in nats.
        kl_divergence: KL of the posterior from the prior, in nats, at least 0.
        kl_weight: Weight of that term in the objective.
    """

    latent: Float[Array, "*cells latent"]
    latent_mean: Float[Array, "*cells latent"]
    latent_logvar: Float[Array, "*cells latent"]
    normalized: Float[Array, "*cells genes"]
    reconstruction_log_likelihood: Float[Array, "*cells"]
    kl_divergence: Float[Array, "*cells"]
    kl_weight: Float[Array, ""]


class VAENormalizer(Operator[VAENormalizerConfig]):
    """Normalizes counts by a variational autoencoder that explains them by few latent dimensions.

    Reads `counts` (*cells, genes) and optionally `batch_labels` (*cells,) and `covariate_labels` (*cells, covariates),
    which condition the decoder; writes `latent`, `latent_mean`, `latent_logvar` (*cells, latent), `normalized` (*cells,
    genes), `reconstruction_log_likelihood` and `kl_divergence` (*cells,), and `kl_weight`. Acts on each cell alone. The
    encoder does not see the conditions. A cell without label is decoded as a mean of the levels; give all cells one
    label to see them as if they came from that batch.

    Args:
        config: Sizes, and the distribution of the counts.
        rngs: Source of the starting weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> import jax
        >>> normalizer = VAENormalizer(VAENormalizerConfig(n_genes=3, target_sum=6.0), rngs=nnx.Rngs(0))
        >>> counts = jnp.array([[3.0, 0.0, 1.0], [6.0, 0.0, 2.0]])
        >>> data, _, _ = normalizer.apply({"counts": counts}, {}, None, key=jax.random.key(0))
        >>> [round(float(total), 3) for total in data["normalized"].sum(-1)]
        [6.0, 6.0]
        >>> bool(jnp.allclose(*data["normalized"]))
        True
    """

    def __init__(self, config: VAENormalizerConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        self.encoder = GaussianEncoder(config.n_genes, config.hidden_sizes, config.n_latent, rngs=rngs)
        conditioned = config.n_batches > 1 or config.covariate_levels
        self.decoder = CountDecoder(
            config.n_latent,
            config.hidden_sizes[::-1],
            config.n_genes,
            likelihood=config.likelihood,
            n_conditions=config.n_batches + sum(config.covariate_levels) if conditioned else 0,
            n_dispersions=config.n_batches if config.dispersion == "gene-batch" else 1,
            rngs=rngs,
        )
        self.kl_weight = Softness(config.kl_weight)

    def initialize(self, counts: Float[Array, "cells genes"]) -> None:
        """Start the decoder at the mean rates and dispersions of the genes.

        Args:
            counts: Counts of some cells (cells, genes).
        """
        self.decoder.initialize(counts)

    def compute(
        self,
        counts: Float[Array, "*cells genes"],
        batch_labels: Int[Array, "*cells"] | None = None,
        covariate_labels: Int[Array, "*cells covariates"] | None = None,
        *,
        key: Array,
    ) -> NormalizedCells:
        """Return the posterior, a draw from it, the normalized expression and the two terms of the ELBO."""
        config = self.config
        expression = normalize_library_size(counts, target_sum=config.target_sum).normalized
        posterior = self.encoder(expression, counts.sum(-1))
        latent = draw_latent(*posterior, key=key)
        levels = (config.n_batches, *config.covariate_levels)
        condition = one_hot_conditions(_codes(counts, batch_labels, covariate_labels, len(levels)), levels)
        batch = condition[..., : config.n_batches]
        return NormalizedCells(
            latent=latent,
            latent_mean=posterior.mean,
            latent_logvar=posterior.logvar,
            normalized=config.target_sum * self.decoder.rates(posterior.mean, condition),
            reconstruction_log_likelihood=self.decoder.log_likelihood(counts, latent, condition, batch),
            kl_divergence=gaussian_kl(*posterior),
            kl_weight=self.kl_weight(),
        )


def _codes(counts: Array, batch_labels: Array | None, covariate_labels: Array | None, n_covariates: int) -> Array:
    """Return the codes of batch and covariates side by side, -1 where they are not given."""
    cells = counts.shape[:-1]
    batches = jnp.full(cells, -1) if batch_labels is None else batch_labels
    others = jnp.full((*cells, n_covariates - 1), -1) if covariate_labels is None else covariate_labels
    return jnp.concatenate([batches[..., None], others], axis=-1)
