"""A variational autoencoder that learns cell types from few labels, in the family of scANVI.

As in scVI, a cell's counts come from a latent z and its library size. Here each cell type y has its own prior,
z ~ N(mu_y, exp(s_y)), and a classifier gives q(y) = softmax(logits / temperature) from the posterior mean of z. With a
uniform prior p(y) over cell types, the divergence that the evidence lower bound subtracts is

    labelled      KL(q(z) || p(z | y)) - log p(y)
    unlabelled    sum_y q(y) KL(q(z) || p(z | y)) + KL(q(y) || p(y))

so that unlabelled cells, too, pull the types' priors to where cells are. Training adds the classifier's cross-entropy
on labelled cells (`diffbio.losses.singlecell.elbo.semi_supervised_elbo`).

Hard: the cell type with the largest logit, which is what q(y) becomes as temperature -> 0. Where scANVI puts a second
latent between z and y, the types' priors stand here: one level less, and the same likelihood of counts.

References:
    Kingma et al., Semi-supervised learning with deep generative models, NeurIPS 2014.
    Xu et al., Probabilistic harmonization and annotation of single-cell transcriptomics data with deep generative
    models (scANVI), Molecular Systems Biology 2021.
    Jiang et al., Variational deep embedding, IJCAI 2017 (one prior per group).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple

import jax
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
    Posterior,
    draw_latent,
    one_hot_conditions,
)
from diffbio.operators.singlecell.annotation import classify, dense_layers


@dataclass(frozen=True, kw_only=True)
class SemiSupervisedVAEConfig(OperatorConfig):
    """Sizes of the autoencoder and the classifier, and the distribution of the counts.

    Args:
        n_genes: Number of genes.
        n_classes: Number of cell types.
        n_latent: Number of latent dimensions.
        hidden_sizes: Width of each hidden layer of the encoder; the decoder has them in reverse order.
        classifier_sizes: Width of each hidden layer of the classifier; empty for a linear one.
        likelihood: Distribution of a count around its mean.
        n_batches: Number of batches that condition the decoder; 1 where there is no batch effect to take out.
        target_sum: Total of `normalized` for each cell, above 0.
        kl_weight: Weight of the divergence, above 0; held as a softness, so that a schedule may warm it up.
        temperature: Softness of the classifier, above 0, in units of its logits.
    """

    n_genes: Annotated[int, Ge(1)]
    n_classes: Annotated[int, Ge(2)]
    n_latent: Annotated[int, Ge(1)] = 10
    hidden_sizes: tuple[Annotated[int, Ge(1)], ...] = (128,)
    classifier_sizes: tuple[Annotated[int, Ge(1)], ...] = ()
    likelihood: Likelihood = "nb"
    n_batches: Annotated[int, Ge(1)] = 1
    target_sum: Annotated[float, Gt(0)] = 1e4
    kl_weight: Annotated[float, Gt(0)] = 1.0
    temperature: Annotated[float, Gt(0)] = 1.0


class AnnotatedCells(NamedTuple):
    """What the model says of each cell.

    Attributes:
        latent: A draw from the posterior; the only output, with the likelihood, that depends on the key.
        latent_mean: Mean of the posterior.
        latent_logvar: Logarithm of its variance.
        normalized: Expected expression at `latent_mean`, in counts of a cell of `target_sum`; sums to that.
        cell_type_logits: Any real number, at `latent_mean`; no label of the cell itself takes part.
        cell_type_probabilities: softmax(logits / temperature); each cell's sum to 1.
        reconstruction_log_likelihood: log p(counts | latent), summed over the genes, in nats.
        kl_divergence: Divergence of latent and cell type from their priors, in nats.
        kl_weight: Weight of that term in the objective.
    """

    latent: Float[Array, "*cells latent"]
    latent_mean: Float[Array, "*cells latent"]
    latent_logvar: Float[Array, "*cells latent"]
    normalized: Float[Array, "*cells genes"]
    cell_type_logits: Float[Array, "*cells classes"]
    cell_type_probabilities: Float[Array, "*cells classes"]
    reconstruction_log_likelihood: Float[Array, "*cells"]
    kl_divergence: Float[Array, "*cells"]
    kl_weight: Float[Array, ""]


def divergence_by_type(
    posterior: Posterior,
    prior: Posterior,
    log_probabilities: Float[Array, "*cells classes"],
    labels: Int[Array, "*cells"],
) -> Float[Array, "*cells"]:
    """Return the divergence of a cell's latent and cell type from their priors, with every type equally likely.

    Args:
        posterior: Mean and logarithmic variance of the latent of each cell (*cells, latent).
        prior: The same of each cell type (classes, latent).
        log_probabilities: Logarithm of the classifier's q(y) (*cells, classes).
        labels: Code of the cell type; any code that is none, by convention -1, is unlabelled.

    Returns:
        In nats, at least 0, one per cell.

    Example:
        >>> zeros = Posterior(jnp.zeros(2), jnp.zeros(2))
        >>> prior = Posterior(jnp.array([[0.0, 0.0], [2.0, 0.0]]), jnp.zeros((2, 2)))
        >>> even = jnp.log(jnp.array([0.5, 0.5]))
        >>> round(float(divergence_by_type(zeros, prior, even, jnp.array(-1))), 4)  # 0.5 * 0 + 0.5 * 2
        1.0
        >>> round(float(divergence_by_type(zeros, prior, even, jnp.array(0))), 4)  # 0 + log 2
        0.6931
    """
    n_classes = log_probabilities.shape[-1]
    of_type = gaussian_kl(posterior.mean[..., None, :], posterior.logvar[..., None, :], prior.mean, prior.logvar)
    labelled = (labels >= 0) & (labels < n_classes)
    # A label is a certain q(y); its entropy is 0, and the branch below has no gradient by the classifier.
    certain = jax.nn.one_hot(labels, n_classes, dtype=of_type.dtype)
    weights = jnp.where(labelled[..., None], certain, jnp.exp(log_probabilities))
    negative_entropy = jnp.where(labelled, 0.0, (jnp.exp(log_probabilities) * log_probabilities).sum(-1))
    return (weights * of_type).sum(-1) + negative_entropy + jnp.log(float(n_classes))


class SemiSupervisedVAE(Operator[SemiSupervisedVAEConfig]):
    """Learns cell types from few labelled cells, by a variational autoencoder of the counts of all cells.

    Reads `counts` (*cells, genes) and optionally `labels` and `batch_labels` (*cells,); writes `latent`, `latent_mean`,
    `latent_logvar` (*cells, latent), `normalized` (*cells, genes), `cell_type_logits`, `cell_type_probabilities`
    (*cells, classes), `reconstruction_log_likelihood` and `kl_divergence` (*cells,), and `kl_weight`. Only the
    divergence sees the labels. Acts on each cell alone.

    Args:
        config: Sizes, and the distribution of the counts.
        rngs: Source of the starting weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> model = SemiSupervisedVAE(SemiSupervisedVAEConfig(n_genes=3, n_classes=2), rngs=nnx.Rngs(0))
        >>> data = {"counts": jnp.array([[3.0, 0.0, 1.0], [0.0, 4.0, 2.0]]), "labels": jnp.array([1, -1])}
        >>> data, _, _ = model.apply(data, {}, None, key=jax.random.key(0))
        >>> data["cell_type_probabilities"].shape
        (2, 2)
    """

    def __init__(self, config: SemiSupervisedVAEConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        self.encoder = GaussianEncoder(config.n_genes, config.hidden_sizes, config.n_latent, rngs=rngs)
        self.decoder = CountDecoder(
            config.n_latent,
            config.hidden_sizes[::-1],
            config.n_genes,
            likelihood=config.likelihood,
            n_conditions=config.n_batches if config.n_batches > 1 else 0,
            rngs=rngs,
        )
        self.prior_mean = nnx.Param(jnp.zeros((config.n_classes, config.n_latent)))
        self.prior_logvar = nnx.Param(jnp.zeros((config.n_classes, config.n_latent)))
        sizes = list(pairwise((config.n_latent, *config.classifier_sizes, config.n_classes)))
        draw = nnx.initializers.lecun_normal()
        self.classifier_kernels = nnx.List([nnx.Param(draw(rngs.params(), size)) for size in sizes])
        self.classifier_biases = nnx.List([nnx.Param(jnp.zeros(width)) for _, width in sizes])
        self.softness = Softness(config.temperature)
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
        labels: Int[Array, "*cells"] | None = None,
        batch_labels: Int[Array, "*cells"] | None = None,
        *,
        key: Array,
    ) -> AnnotatedCells:
        """Return the posteriors of latent and cell type, the normalized expression and the terms of the ELBO."""
        config = self.config
        unknown = jnp.full(counts.shape[:-1], -1)
        batches = unknown if batch_labels is None else batch_labels
        condition = one_hot_conditions(batches[..., None], (config.n_batches,))
        expression = normalize_library_size(counts, target_sum=config.target_sum).normalized
        posterior = self.encoder(expression, counts.sum(-1))
        latent = draw_latent(*posterior, key=key)
        logits = dense_layers(
            posterior.mean,
            [kernel[...] for kernel in self.classifier_kernels],
            [bias[...] for bias in self.classifier_biases],
        )
        prior = Posterior(self.prior_mean[...], self.prior_logvar[...])
        log_probabilities = jax.nn.log_softmax(logits / self.softness())
        return AnnotatedCells(
            latent=latent,
            latent_mean=posterior.mean,
            latent_logvar=posterior.logvar,
            normalized=config.target_sum * self.decoder.rates(posterior.mean, condition),
            cell_type_logits=logits,
            cell_type_probabilities=classify(logits, softness=self.softness()),
            reconstruction_log_likelihood=self.decoder.log_likelihood(counts, latent, condition),
            kl_divergence=divergence_by_type(
                posterior, prior, log_probabilities, unknown if labels is None else labels
            ),
            kl_weight=self.kl_weight(),
        )
