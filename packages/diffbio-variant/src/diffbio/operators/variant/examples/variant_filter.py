"""The conformance example of the filter of variants; the limit compares with thresholds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.variant.variant_filter import SoftVariantFilter, SoftVariantFilterConfig
from diffbio.testing import Example, Limit


def soft_variant_filter() -> Example:
    """Return eight variants of both kinds with three features, by two of which they are filtered from above."""
    random = np.random.default_rng(0)
    data = {
        "variant_features": random.normal([40.0, 20.0, 0.3], [15.0, 6.0, 0.2], size=(8, 3)).astype(np.float32),
        "kind": np.array([0, 1, 0, 0, 1, 1, 0, 0], np.int32),
        "variant_mask": np.ones(8, bool),
    }
    config = SoftVariantFilterConfig(
        features=("QUAL", "INFO/DP", "INFO/VDB"), upper=(None, 24.0, 0.6), n_mads=1.0, temperature=0.7
    )
    operator = SoftVariantFilter(config)
    operator.initialize_from(data)

    def sharpen(operator: SoftVariantFilter) -> SoftVariantFilter:
        operator.softness.set(1e-7)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        features = np.asarray(data["variant_features"])
        lower, upper = (np.asarray(limits)[np.asarray(data["kind"])] for limits in operator.thresholds())
        passes = (features >= lower) & (features <= upper)
        return {"pass_probability": passes.all(1).astype(float), "filter_reasons": (~passes).astype(float)}

    return Example(
        operator,
        data,
        limit=Limit(sharpen, reference, atol=1e-5),
        symmetric=("variants",),
        masks={"variant_mask": "variants"},
    )
