"""The conformance example of the projection onto principal components."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffbio.operators.normalization.examples.cells import COUNTS, RELAXES_NOTHING
from diffbio.operators.normalization.projection import PCAProjection, PCAProjectionConfig
from diffbio.testing import Example


def pca_projection() -> Example:
    """Return seven cells on their two principal components, which are trained from there."""
    scaled = np.log1p(COUNTS) - np.log1p(COUNTS).mean(0)
    config = PCAProjectionConfig(n_genes=6, n_components=2, learnable=True)
    operator = PCAProjection(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(scaled))
    return Example(operator, {"scaled": scaled}, symmetric=("cells",), exempt=RELAXES_NOTHING)
