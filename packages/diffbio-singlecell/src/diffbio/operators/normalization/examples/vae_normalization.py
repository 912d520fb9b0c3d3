"""The conformance example of the variational autoencoder of counts."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.operators.normalization.examples.cells import COUNTS, RELAXES_NOTHING
from diffbio.operators.normalization.vae_normalization import VAENormalizer, VAENormalizerConfig
from diffbio.testing import Example


def vae_normalization() -> Example:
    """Return seven cells of two batches and a further covariate, with zero-inflated counts."""
    config = VAENormalizerConfig(
        n_genes=6,
        n_latent=2,
        hidden_sizes=(5, 4),
        likelihood="zinb",
        dispersion="gene-batch",
        n_batches=2,
        covariate_levels=(2,),
        target_sum=20.0,
    )
    operator = VAENormalizer(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(COUNTS))
    labels = {
        "batch_labels": np.array([0, 1, 1, 0, -1, 0, 1], np.int32),
        "covariate_labels": np.array([[0], [1], [0], [1], [1], [0], [-1]], np.int32),
    }
    return Example(operator, {"counts": COUNTS, **labels}, exempt=RELAXES_NOTHING)
