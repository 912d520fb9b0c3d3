"""Autoencoders that take batches out of cells: what the latent space forgets, the decoder is told.

    latent = encoder(cell)        reconstructed = decoder(latent, batch)        corrected = decoder(latent, no batch)

The decoder is given the batch of each cell, so the latent space need not hold it. Training sees to it that it does
not: by a discrepancy between batches (`mmd_batch_correction`), or by a discriminator that recognizes batches and an
encoder that makes it fail (`adversarial_batch_correction`). "No batch" is the mean of all batches. Nothing is relaxed.

The discriminator sits behind a reversed gradient: in one descent it learns to recognize batches, while the encoder is
moved against it. Two sides that learn against each other would circle; a penalty on the slope of the discriminator at
the cells lets them come to rest.

References:
    Shaham et al., Bioinformatics 2017; Lotfollahi et al., trVAE, Bioinformatics 2020 (discrepancy).
    Ganin et al., Domain-adversarial training of neural networks, JMLR 2016 (reversed gradient).
    Mescheder, Geiger and Nowozin, Which training methods for GANs do actually converge?, ICML 2018 (the R1 penalty).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge
from flax import nnx
from jaxtyping import Array, Float, Int, ScalarLike

from diffbio.core import Operator, OperatorConfig, require_rngs
from diffbio.operators.singlecell.annotation import dense_layers


@dataclass(frozen=True, kw_only=True)
class MMDBatchCorrectionConfig(OperatorConfig):
    """Sizes of the autoencoder.

    Args:
        n_features: Number of coordinates of a cell.
        n_batches: Number of batches.
        n_latents: Number of latent coordinates.
        hidden_sizes: Widths of the hidden layers of the encoder; the decoder has them in reverse.
    """

    n_features: Annotated[int, Ge(1)]
    n_batches: Annotated[int, Ge(2)]
    n_latents: Annotated[int, Ge(1)] = 10
    hidden_sizes: tuple[Annotated[int, Ge(1)], ...] = (64,)


@dataclass(frozen=True, kw_only=True)
class AdversarialBatchCorrectionConfig(MMDBatchCorrectionConfig):
    """Sizes of the autoencoder and of the discriminator.

    Args:
        n_features: Number of coordinates of a cell.
        n_batches: Number of batches.
        n_latents: Number of latent coordinates.
        hidden_sizes: Widths of the hidden layers of the encoder; the decoder has them in reverse.
        discriminator_sizes: Widths of the hidden layers of the discriminator.
        reversal: How strongly the encoder is moved against the discriminator, at least 0.
    """

    discriminator_sizes: tuple[Annotated[int, Ge(1)], ...] = (64,)
    reversal: Annotated[float, Ge(0)] = 1.0


class BatchFreeCells(NamedTuple):
    """Cells and their latent coordinates, with and without their batch.

    Attributes:
        latent: Coordinates that training frees of batches.
        reconstructed_embeddings: The cells as decoded with their batch, in the unit of the input.
        corrected_embeddings: The cells as decoded without, in the unit of the input.
    """

    latent: Float[Array, "*cells latents"]
    reconstructed_embeddings: Float[Array, "*cells features"]
    corrected_embeddings: Float[Array, "*cells features"]


class ContestedCells(NamedTuple):
    """Cells without their batch, and how well it is recognized all the same.

    Attributes:
        latent: Coordinates that training frees of batches.
        reconstructed_embeddings: The cells as decoded with their batch, in the unit of the input.
        corrected_embeddings: The cells as decoded without, in the unit of the input.
        batch_logits: What the discriminator makes of the latent coordinates; their gradient is reversed there.
        batch_slopes: Squared length of the gradient, by the latent coordinates, of the log-probability of the cell's
            batch; 0 for a cell of no batch. Its own gradient reaches the discriminator alone.
    """

    latent: Float[Array, "*cells latents"]
    reconstructed_embeddings: Float[Array, "*cells features"]
    corrected_embeddings: Float[Array, "*cells features"]
    batch_logits: Float[Array, "*cells batches"]
    batch_slopes: Float[Array, "*cells"]


@jax.custom_vjp
def reverse_gradient(x: Float[Array, "..."], strength: ScalarLike) -> Float[Array, "..."]:
    """Return `x`, whose gradient is multiplied by -`strength` on the way back.

    Args:
        x: Any shape.
        strength: At least 0; 0 stops the gradient.

    Returns:
        `x` as it is.

    References:
        Ganin et al. 2016 (section 4.2).

    Example:
        >>> float(jax.grad(lambda x: 3 * reverse_gradient(x, 0.5))(1.0))
        -1.5
    """
    del strength
    return x


def _kept(x: Array, strength: Array) -> tuple[Array, Array]:
    return x, strength


def _reversed(strength: Array, gradient: Array) -> tuple[Array, None]:
    return -strength * gradient, None


reverse_gradient.defvjp(_kept, _reversed)


class BatchAutoencoder(nnx.Module):
    """Encoder of cells, and decoder that is told the batch.

    Args:
        config: Sizes.
        rngs: Source of the starting weights.

    Example:
        >>> autoencoder = BatchAutoencoder(MMDBatchCorrectionConfig(n_features=4, n_batches=2), nnx.Rngs(0))
        >>> autoencoder(jnp.ones((3, 4)), jnp.zeros(3, int)).corrected_embeddings.shape
        (3, 4)
    """

    def __init__(self, config: MMDBatchCorrectionConfig, rngs: nnx.Rngs) -> None:
        self.n_batches = config.n_batches
        inwards = (config.n_features, *config.hidden_sizes, config.n_latents)
        outwards = (config.n_latents + config.n_batches, *config.hidden_sizes[::-1], config.n_features)
        self.encoder = _Layers(inwards, rngs)
        self.decoder = _Layers(outwards, rngs)
        self.mean = nnx.Variable(jnp.zeros(config.n_features))
        self.scale = nnx.Variable(jnp.ones(()))

    def __call__(self, cells: Float[Array, "*cells features"], batch_labels: Int[Array, "*cells"]) -> BatchFreeCells:
        """Return latent, reconstructed and corrected cells; a cell of no batch is decoded without one."""
        latent = self.encoder((cells - self.mean[...]) / self.scale[...])
        mean_batch = jnp.full(self.n_batches, 1 / self.n_batches, latent.dtype)
        own_batch = jax.nn.one_hot(batch_labels, self.n_batches, dtype=latent.dtype)
        own_batch = jnp.where(own_batch.sum(-1, keepdims=True) > 0, own_batch, mean_batch)
        return BatchFreeCells(latent, self._decoded(latent, own_batch), self._decoded(latent, mean_batch))

    def standardize(self, cells: Float[Array, "cells features"]) -> None:
        """Set the origin and the unit of cells, so that layers see values around 1."""
        self.mean[...] = cells.mean(0)
        centered = cells - cells.mean(0)
        largest = jnp.abs(centered).max()
        unit = jnp.where(largest > 0, largest, 1.0)
        spread = unit * jnp.sqrt(jnp.square(centered / unit).mean())
        self.scale[...] = jnp.where(spread > 0, spread, 1.0)

    def _decoded(self, latent: Array, batch: Array) -> Array:
        told = jnp.concatenate([latent, jnp.broadcast_to(batch, (*latent.shape[:-1], self.n_batches))], axis=-1)
        return self.decoder(told) * self.scale[...] + self.mean[...]


class MMDBatchCorrection(Operator[MMDBatchCorrectionConfig]):
    """Autoencoder whose latent space training frees of batches by `mmd_batch_correction`.

    Reads `embeddings` (*cells, features), or what `.reads(embeddings="scaled")` names, and `batch_labels` (*cells,);
    writes `latent` (*cells, latents), `reconstructed_embeddings` and `corrected_embeddings` (*cells, features). Acts on
    each cell alone. A cell whose label is no batch, by convention -1, is decoded without one.

    Args:
        config: Sizes.
        rngs: Source of the starting weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> operator = MMDBatchCorrection(MMDBatchCorrectionConfig(n_features=4, n_batches=2), rngs=nnx.Rngs(0))
        >>> data = {"embeddings": jnp.ones((3, 4)), "batch_labels": jnp.array([0, 1, 1])}
        >>> operator.apply(data, {}, None)[0]["latent"].shape
        (3, 10)
    """

    def __init__(self, config: MMDBatchCorrectionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.autoencoder = BatchAutoencoder(config, require_rngs(self, rngs))

    def compute(
        self, embeddings: Float[Array, "*cells features"], batch_labels: Int[Array, "*cells"]
    ) -> BatchFreeCells:
        """Return latent, reconstructed and corrected cells."""
        return self.autoencoder(embeddings, batch_labels)

    def initialize(self, embeddings: Float[Array, "cells features"]) -> None:
        """Set origin and unit to those of `embeddings`."""
        self.autoencoder.standardize(embeddings)


class AdversarialBatchCorrection(Operator[AdversarialBatchCorrectionConfig]):
    """Autoencoder whose latent space a discriminator frees of batches, by `adversarial_batch_correction`.

    Reads and writes what `MMDBatchCorrection` does, and writes `batch_logits` (*cells, batches) and `batch_slopes`
    (*cells,). Acts on each cell alone. The gradient of `batch_logits` is that of the discriminator, and reversed on its
    way to the encoder.

    Args:
        config: Sizes, strength of the reversal.
        rngs: Source of the starting weights.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> config = AdversarialBatchCorrectionConfig(n_features=4, n_batches=2)
        >>> operator = AdversarialBatchCorrection(config, rngs=nnx.Rngs(0))
        >>> data = {"embeddings": jnp.ones((3, 4)), "batch_labels": jnp.array([0, 1, 1])}
        >>> operator.apply(data, {}, None)[0]["batch_logits"].shape
        (3, 2)
    """

    def __init__(self, config: AdversarialBatchCorrectionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        rngs = require_rngs(self, rngs)
        self.autoencoder = BatchAutoencoder(config, rngs)
        self.discriminator = _Layers((config.n_latents, *config.discriminator_sizes, config.n_batches), rngs)

    def compute(
        self, embeddings: Float[Array, "*cells features"], batch_labels: Int[Array, "*cells"]
    ) -> ContestedCells:
        """Return latent, reconstructed and corrected cells, logits of their batches, and the slopes of these."""
        cells = self.autoencoder(embeddings, batch_labels)
        own_batch = jax.nn.one_hot(batch_labels, self.config.n_batches, dtype=cells.latent.dtype)

        def log_probability(latent: Array) -> Array:
            return jnp.sum(own_batch * jax.nn.log_softmax(self.discriminator(latent)))

        slopes = jax.grad(log_probability)(jax.lax.stop_gradient(cells.latent))
        logits = self.discriminator(reverse_gradient(cells.latent, self.config.reversal))
        return ContestedCells(*cells, logits, jnp.square(slopes).sum(-1))

    def initialize(self, embeddings: Float[Array, "cells features"]) -> None:
        """Set origin and unit to those of `embeddings`."""
        self.autoencoder.standardize(embeddings)


class _Layers(nnx.Module):
    """Affine layers with GELU between them."""

    def __init__(self, widths: tuple[int, ...], rngs: nnx.Rngs) -> None:
        draw = jax.nn.initializers.lecun_normal()
        self.kernels = nnx.List([nnx.Param(draw(rngs.params(), size)) for size in pairwise(widths)])
        self.biases = nnx.List([nnx.Param(jnp.zeros(width)) for width in widths[1:]])

    def __call__(self, inputs: Array) -> Array:
        return dense_layers(inputs, [kernel[...] for kernel in self.kernels], [bias[...] for bias in self.biases])
