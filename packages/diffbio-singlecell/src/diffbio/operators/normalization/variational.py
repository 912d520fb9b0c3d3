"""Parts of variational autoencoders of counts: encoder, decoder with its count likelihood, conditions and draws.

A layer is relu(layer_norm(x @ W + c @ C + b)) with the condition c, such as a one-hot batch. Layer norm uses the
statistics of each cell alone, where batch norm would let cells of one minibatch see each other and would need running
averages. Nothing is relaxed.

References:
    Kingma and Welling, Auto-encoding variational Bayes, ICLR 2014.
    Ba, Kiros and Hinton, Layer normalization, 2016.
    Lopez et al., Deep generative modeling for single-cell transcriptomics (scVI), Nature Methods 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from diffbio.core.errors import ContractError
from diffbio.operators.normalization.count_distributions import (
    negative_binomial_log_pmf,
    poisson_log_pmf,
    zero_inflated_log_pmf,
)

Likelihood = Literal["nb", "zinb", "poisson"]


class Posterior(NamedTuple):
    """Independent normals over the latent dimensions.

    Attributes:
        mean: Means.
        logvar: Logarithms of the variances.
    """

    mean: Float[Array, "*cells latent"]
    logvar: Float[Array, "*cells latent"]


class ConditionalLinear(nnx.Module):
    """A linear map of an input and a condition, x @ W + c @ C + b; C starts at zero.

    Args:
        width_in: Width of the input.
        width_out: Width of the output.
        n_conditions: Length of the condition; 0 where there is none.
        rngs: Source of the starting weights.

    Example:
        >>> ConditionalLinear(5, 3, 2, rngs=nnx.Rngs(0))(jnp.ones((4, 5)), jnp.ones((4, 2))).shape
        (4, 3)
    """

    def __init__(self, width_in: int, width_out: int, n_conditions: int = 0, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (width_in, width_out)))
        self.bias = nnx.Param(jnp.zeros(width_out))
        self.of_condition = nnx.Param(jnp.zeros((n_conditions, width_out))) if n_conditions else None

    def __call__(
        self, inputs: Float[Array, "*cells width_in"], condition: Float[Array, "*cells conditions"] | None = None
    ) -> Float[Array, "*cells width_out"]:
        """Return the map of the input, shifted by that of the condition."""
        outputs = inputs @ self.kernel[...] + self.bias[...]
        if self.of_condition is None or condition is None:
            return outputs
        return outputs + condition @ self.of_condition[...]


class ConditionalLayers(nnx.Module):
    """Dense layers, each with layer norm and relu, that see a condition beside their input.

    Args:
        sizes: Width of the input and of each layer.
        n_conditions: Length of the condition; 0 where there is none.
        rngs: Source of the starting weights.

    Example:
        >>> layers = ConditionalLayers((5, 8, 3), rngs=nnx.Rngs(0))
        >>> layers(jnp.ones((4, 5))).shape
        (4, 3)
    """

    def __init__(self, sizes: Sequence[int], n_conditions: int = 0, *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([ConditionalLinear(*size, n_conditions, rngs=rngs) for size in pairwise(sizes)])
        # the fast variance is a difference of squares, which loses the variance of nearly equal units
        self.norms = nnx.List([nnx.LayerNorm(width, use_fast_variance=False, rngs=rngs) for width in sizes[1:]])

    def __call__(
        self, inputs: Float[Array, "*cells width_in"], condition: Float[Array, "*cells conditions"] | None = None
    ) -> Float[Array, "*cells width_out"]:
        """Return the output of the last layer, at least 0."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            inputs = jax.nn.relu(norm(layer(inputs, condition)))
        return inputs


class GaussianEncoder(nnx.Module):
    """The approximate posterior of the latent: its mean by what a cell expresses, its width by the depth too.

    Args:
        n_inputs: Width of the input.
        hidden_sizes: Width of each hidden layer.
        n_latent: Number of latent dimensions.
        rngs: Source of the starting weights.

    Example:
        >>> encoder = GaussianEncoder(5, (8,), 2, rngs=nnx.Rngs(0))
        >>> encoder(jnp.ones((4, 5)), jnp.ones(4)).mean.shape
        (4, 2)
    """

    def __init__(self, n_inputs: int, hidden_sizes: Sequence[int], n_latent: int, *, rngs: nnx.Rngs) -> None:
        self.hidden = ConditionalLayers((n_inputs, *hidden_sizes), rngs=rngs)
        width = (n_inputs, *hidden_sizes)[-1]
        self.mean = nnx.Linear(width, n_latent, rngs=rngs)
        # every cell starts with the prior's variance
        self.logvar = nnx.Linear(width, n_latent, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.of_depth = nnx.Param(jnp.zeros(n_latent))

    def __call__(self, inputs: Float[Array, "*cells genes"], library: Float[Array, "*cells"]) -> Posterior:
        """Return the posterior.

        Args:
            inputs: Expression without depth (*cells, genes).
            library: Total count of each cell (*cells,), at least 0; enters the variance alone.
        """
        hidden = self.hidden(inputs)
        logvar = self.logvar(hidden) + jnp.log1p(library)[..., None] * self.of_depth[...]
        return Posterior(self.mean(hidden), logvar)


class CountDecoder(nnx.Module):
    """From the latent to the rates of the genes, and the distribution of counts around them.

    Args:
        n_latent: Number of latent dimensions.
        hidden_sizes: Width of each hidden layer.
        n_genes: Number of genes.
        likelihood: Distribution of a count around its mean.
        n_conditions: Length of the condition; 0 where there is none.
        n_dispersions: Number of inverse dispersions of each gene: 1, or the number of batches.
        rngs: Source of the starting weights.

    Example:
        >>> decoder = CountDecoder(2, (8,), 5, rngs=nnx.Rngs(0))
        >>> decoder.rates(jnp.ones((4, 2))).sum(-1).round(4).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        n_latent: int,
        hidden_sizes: Sequence[int],
        n_genes: int,
        *,
        likelihood: Likelihood = "nb",
        n_conditions: int = 0,
        n_dispersions: int = 1,
        rngs: nnx.Rngs,
    ) -> None:
        self.hidden = ConditionalLayers((n_latent, *hidden_sizes), n_conditions, rngs=rngs)
        width = (n_latent, *hidden_sizes)[-1]
        self.log_rates = ConditionalLinear(width, n_genes, n_conditions, rngs=rngs)
        self.dropout = ConditionalLinear(width, n_genes, n_conditions, rngs=rngs) if likelihood == "zinb" else None
        dispersions = jnp.zeros((n_dispersions, n_genes))
        self.log_inverse_dispersion = None if likelihood == "poisson" else nnx.Param(dispersions)

    def initialize(self, counts: Float[Array, "cells genes"]) -> None:
        """Let every cell start with the mean rates of the genes, and with their dispersion by moments."""
        library = counts.sum(-1, keepdims=True)
        rates = (counts.sum(0) + 0.5) / (counts + 0.5 / len(counts)).sum()  # half a count: no rate starts at 0
        self.log_rates.bias[...] = jnp.log(rates)
        if self.log_inverse_dispersion is not None:
            expected = library * rates
            scale = jnp.maximum(jnp.square(expected).sum(0), 1e-30)  # 0 where all cells are empty
            excess = (jnp.square(counts - expected) - expected).sum(0) / scale
            start = -jnp.log(jnp.clip(excess, 1e-2, 1e2))
            self.log_inverse_dispersion[...] = jnp.broadcast_to(start, self.log_inverse_dispersion.shape)
        if self.dropout is not None:
            self.dropout.bias[...] = jnp.full_like(rates, -3.0)  # an NB needs little inflation

    def rates(
        self, latent: Float[Array, "*cells latent"], condition: Float[Array, "*cells conditions"] | None = None
    ) -> Float[Array, "*cells genes"]:
        """Return the share of each gene in the counts of a cell; the shares sum to 1."""
        return jax.nn.softmax(self.log_rates(self.hidden(latent, condition), condition))

    def inverse_dispersion(self, batch: Float[Array, "*cells batches"] | None = None) -> Float[Array, "*cells genes"]:
        """Return the inverse dispersions, of the cells' batches where there are several.

        Args:
            batch: One-hot batch.
        """
        if self.log_inverse_dispersion is None:  # a Poisson
            return jnp.full(self.log_rates.bias.shape, jnp.inf)
        logs = self.log_inverse_dispersion[...]
        return jnp.exp(logs[0] if batch is None or len(logs) == 1 else batch @ logs)

    def log_likelihood(
        self,
        counts: Float[Array, "*cells genes"],
        latent: Float[Array, "*cells latent"],
        condition: Float[Array, "*cells conditions"] | None = None,
        batch: Float[Array, "*cells batches"] | None = None,
    ) -> Float[Array, "*cells"]:
        """Return log p(counts | latent) of each cell, given its library size, in nats.

        Args:
            counts: Counts, at least 0.
            latent: Latent coordinates.
            condition: What conditions the decoder.
            batch: One-hot batch, which chooses the inverse dispersion where there are several.
        """
        hidden = self.hidden(latent, condition)
        mean = counts.sum(-1, keepdims=True) * jax.nn.softmax(self.log_rates(hidden, condition))
        if self.log_inverse_dispersion is None:
            return poisson_log_pmf(counts, mean).sum(-1)
        inverse_dispersion = self.inverse_dispersion(batch)
        if self.dropout is None:
            return negative_binomial_log_pmf(counts, mean, inverse_dispersion).sum(-1)
        logits = self.dropout(hidden, condition)
        return zero_inflated_log_pmf(counts, mean, inverse_dispersion, logits).sum(-1)


def one_hot_conditions(
    labels: Int[Array, "*cells covariates"], levels: Sequence[int]
) -> Float[Array, "*cells conditions"]:
    """Return the one-hot codes of several categorical covariates, side by side.

    Args:
        labels: A code for each covariate, from 0 to its number of levels - 1. Any other code, by convention -1, is
            unknown: it counts as an equal share of each level.
        levels: The number of levels of each covariate.

    Returns:
        One row per cell, as wide as there are levels in all.

    Raises:
        ContractError: There is not one code per covariate.

    Example:
        >>> one_hot_conditions(jnp.array([[1, -1]]), (2, 4)).tolist()
        [[0.0, 1.0, 0.25, 0.25, 0.25, 0.25]]
    """
    if labels.shape[-1] != len(levels):
        raise ContractError(
            f"there are codes of {labels.shape[-1]} covariates, but {len(levels)} numbers of levels; "
            "give one code per cell and covariate, (cells, covariates)"
        )
    parts = []
    for position, n_levels in enumerate(levels):
        codes = labels[..., position, None]
        known = (codes >= 0) & (codes < n_levels)
        parts.append(jnp.where(known, jax.nn.one_hot(codes[..., 0], n_levels, dtype=jnp.float32), 1 / n_levels))
    return jnp.concatenate(parts, axis=-1)


def draw_latent(
    mean: Float[Array, "*cells latent"], logvar: Float[Array, "*cells latent"], *, key: Array
) -> Float[Array, "*cells latent"]:
    """Return draws from normals, written so that they are differentiable by mean and variance.

    Args:
        mean: Means (*cells, latent).
        logvar: Logarithms of the variances (*cells, latent).
        key: Random key.

    Returns:
        mean + exp(logvar / 2) * standard normal noise.

    Example:
        >>> draw_latent(jnp.ones((2, 3)), jnp.full((2, 3), -100.0), key=jax.random.key(0)).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    return mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape, mean.dtype)
