"""The conformance example of Pearson residuals."""

from __future__ import annotations

import jax.numpy as jnp

from diffbio.operators.normalization.examples.cells import COUNTS, RELAXES_NOTHING
from diffbio.operators.normalization.pearson_residuals import PearsonResiduals, PearsonResidualsConfig
from diffbio.testing import Example


def pearson_residuals() -> Example:
    """Return seven cells as residuals; theta is trained."""
    operator = PearsonResiduals(PearsonResidualsConfig(n_genes=6, theta=3.0, learnable=True))
    operator.initialize(jnp.asarray(COUNTS))
    return Example(operator, {"counts": COUNTS}, symmetric=("cells",), exempt=RELAXES_NOTHING)
