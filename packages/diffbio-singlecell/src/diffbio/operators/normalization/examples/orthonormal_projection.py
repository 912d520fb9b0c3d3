"""The conformance example of the projection that stays orthonormal."""

from __future__ import annotations

import numpy as np
from flax import nnx

from diffbio.operators.normalization.examples.cells import COUNTS, RELAXES_NOTHING
from diffbio.operators.normalization.orthonormal_projection import OrthonormalProjection, OrthonormalProjectionConfig
from diffbio.testing import Example


def orthonormal_projection() -> Example:
    """Return seven cells in two directions, as training might leave them: no longer of unit length."""
    operator = OrthonormalProjection(OrthonormalProjectionConfig(n_genes=6, n_components=2), rngs=nnx.Rngs(0))
    drift = np.random.default_rng(0).normal(scale=0.3, size=(6, 2)).astype(np.float32)
    operator.weights[...] = 1.5 * operator.weights[...] + drift
    return Example(operator, {"scaled": np.log1p(COUNTS)}, symmetric=("cells",), exempt=RELAXES_NOTHING)
