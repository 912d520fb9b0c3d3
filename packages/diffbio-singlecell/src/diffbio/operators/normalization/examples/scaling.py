"""The conformance example of scaling."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from diffbio.operators.normalization.examples.cells import COUNTS, RELAXES_NOTHING
from diffbio.operators.normalization.scaling import Scaling, ScalingConfig
from diffbio.testing import Example


def scaling() -> Example:
    """Return seven cells, scaled by their own means and standard deviations."""
    normalized = np.log1p(COUNTS)
    operator = Scaling(ScalingConfig(n_genes=6))
    operator.initialize(jnp.asarray(normalized))
    return Example(operator, {"normalized": normalized}, symmetric=("cells",), exempt=RELAXES_NOTHING)
