"""The conformance example of TF-IDF and latent semantic indexing."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from diffbio.operators.normalization.examples.cells import COUNTS, RELAXES_NOTHING
from diffbio.operators.normalization.tfidf import TfidfLsi, TfidfLsiConfig
from diffbio.testing import Example


def tfidf_lsi() -> Example:
    """Return seven cells of six peaks on their second and third component, which are trained from there."""
    config = TfidfLsiConfig(n_peaks=6, n_components=2, scale_factor=10.0, drop_first=True, learnable=True)
    operator = TfidfLsi(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(COUNTS))
    return Example(operator, {"counts": COUNTS}, symmetric=("cells",), exempt=RELAXES_NOTHING)
