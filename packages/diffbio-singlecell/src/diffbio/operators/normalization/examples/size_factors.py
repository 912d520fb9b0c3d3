"""The conformance examples of the median of ratios and of the centered log-ratio."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.normalization.examples.cells import COUNTS, RELAXES_NOTHING
from diffbio.operators.normalization.size_factors import (
    CenteredLogRatio,
    CenteredLogRatioConfig,
    MedianOfRatiosNormalization,
    MedianOfRatiosNormalizationConfig,
)
from diffbio.testing import Example, Limit


def median_of_ratios_normalization() -> Example:
    """Return seven cells compared by all positive counts; the limit is the median of NumPy."""
    config = MedianOfRatiosNormalizationConfig(n_genes=6, reference="poscounts", temperature=0.3)
    operator = MedianOfRatiosNormalization(config)
    operator.initialize(jnp.asarray(COUNTS))

    def sharpen(operator: MedianOfRatiosNormalization) -> MedianOfRatiosNormalization:
        operator.softness.set(1e-5)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        counts = np.asarray(data["counts"], np.float64)
        logs = np.log(counts, where=counts > 0, out=np.zeros_like(counts))
        ratios = np.where(counts > 0, logs - logs.mean(0), np.nan)
        medians = np.nanmedian(ratios, axis=1)
        factors = np.exp(medians - medians.mean())
        return {"size_factors": factors, "normalized": np.log1p(counts / factors[:, None])}

    return Example(operator, {"counts": COUNTS}, limit=Limit(sharpen, reference, atol=1e-4), symmetric=("cells",))


def centered_log_ratio() -> Example:
    """Return seven cells, each gene centered over them."""
    operator = CenteredLogRatio(CenteredLogRatioConfig(n_genes=6))
    operator.initialize(jnp.asarray(COUNTS))
    return Example(operator, {"counts": COUNTS}, symmetric=("cells",), exempt=RELAXES_NOTHING)
