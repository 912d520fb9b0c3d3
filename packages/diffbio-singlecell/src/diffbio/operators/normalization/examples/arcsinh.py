"""The conformance example of the arcsinh transform."""

from __future__ import annotations

from diffbio.operators.normalization.arcsinh import ArcsinhTransform, ArcsinhTransformConfig
from diffbio.operators.normalization.examples.cells import COUNTS, RELAXES_NOTHING
from diffbio.testing import Example


def arcsinh_transform() -> Example:
    """Return seven cells of six channels, some of them below zero, whose cofactors are trained."""
    operator = ArcsinhTransform(ArcsinhTransformConfig(n_channels=6, cofactor=4.0))
    return Example(operator, {"intensities": COUNTS - 2.5}, symmetric=("cells",), exempt=RELAXES_NOTHING)
