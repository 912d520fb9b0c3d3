"""The conformance example of quantile normalization."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.stats import rankdata

from diffbio.operators.normalization.examples.cells import COUNTS
from diffbio.operators.normalization.quantile_normalization import QuantileNormalization, QuantileNormalizationConfig
from diffbio.testing import Example, Limit


def quantile_normalization() -> Example:
    """Return seven cells with the mean distribution of them; the limit is an interpolation at the mean ranks."""
    operator = QuantileNormalization(QuantileNormalizationConfig(n_genes=6, temperature=1.0))
    operator.initialize(jnp.asarray(COUNTS))

    def sharpen(operator: QuantileNormalization) -> QuantileNormalization:
        operator.softness.set(1e-3)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        counts = np.asarray(data["counts"], np.float64)
        target = np.sort(counts, axis=1).mean(0)
        return {"quantile_normalized": np.interp(rankdata(counts, axis=1), np.arange(1, 7), target)}

    return Example(operator, {"counts": COUNTS}, limit=Limit(sharpen, reference, atol=1e-4), symmetric=("cells",))
