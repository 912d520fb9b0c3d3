"""The conformance example of principal component analysis."""

from __future__ import annotations

import numpy as np

from diffbio.operators.normalization.examples.cells import COUNTS, RELAXES_NOTHING
from diffbio.operators.normalization.pca import (
    PrincipalComponentAnalysis,
    PrincipalComponentAnalysisConfig,
)
from diffbio.testing import Example


def principal_component_analysis() -> Example:
    """Return seven cells and their first two components."""
    operator = PrincipalComponentAnalysis(PrincipalComponentAnalysisConfig(n_components=2))
    return Example(operator, {"scaled": np.log1p(COUNTS)}, symmetric=("cells", "genes"), exempt=RELAXES_NOTHING)
