"""The conformance example of the denoiser."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.operators.singlecell.denoising import MaskedDenoiser, MaskedDenoiserConfig
from diffbio.testing import Example


def masked_denoiser() -> Example:
    """Return seven cells of which counts are hidden whole: a drawn number of molecules has no derivative."""
    counts = np.random.default_rng(0).poisson(4.0, size=(7, 6)).astype(np.float32)
    config = MaskedDenoiserConfig(n_genes=6, n_latent=2, hidden_sizes=(5,), scheme="masking", seen_fraction=0.6)
    operator = MaskedDenoiser(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(counts))
    return Example(operator, {"counts": counts}, exempt={"limit_is_hard_reference": "relaxes no hard algorithm"})
