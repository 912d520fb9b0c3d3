"""The conformance example of stochastic gates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.normalization.examples.cells import COUNTS
from diffbio.operators.normalization.stochastic_gates import StochasticGateSelection, StochasticGateSelectionConfig
from diffbio.testing import Example, Limit


def stochastic_gate_selection() -> Example:
    """Return six genes with gates from closed to open; without noise, each is its clipped mean."""
    config = StochasticGateSelectionConfig(n_genes=6, temperature=0.3)
    operator = StochasticGateSelection(config, rngs=nnx.Rngs(0))
    mean = np.array([0.3, 1.2, -0.4, 0.7, 0.1, -0.2], np.float32)
    operator.mean[...] = mean

    def sharpen(operator: StochasticGateSelection) -> StochasticGateSelection:
        operator.softness.set(1e-6)
        return operator

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        gate = np.clip(mean, 0, 1)
        return {"gene_gate": gate, "gate_probability": mean > 0, "gated": np.asarray(data["scaled"]) * gate}

    scaled = np.log1p(COUNTS) - np.log1p(COUNTS).mean(0)
    return Example(operator, {"scaled": scaled}, limit=Limit(sharpen, reference, atol=1e-4), symmetric=("cells",))
