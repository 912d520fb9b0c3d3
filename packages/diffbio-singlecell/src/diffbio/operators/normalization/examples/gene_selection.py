"""The conformance example of gene selection."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.normalization.examples.cells import COUNTS
from diffbio.operators.normalization.gene_selection import GeneSelection, GeneSelectionConfig
from diffbio.testing import Example, Limit


def gene_selection() -> Example:
    """Return six genes of which three are kept; the limit is a sort of their variance ratios."""
    normalized = np.log1p(COUNTS)
    operator = GeneSelection(GeneSelectionConfig(n_genes=6, n_top_genes=3, temperature=0.5))
    operator.logits[...] = np.array([0.3, 1.1, -0.4, 0.9, -1.2, -0.1], np.float32)
    scaled = normalized - normalized.mean(0)

    def sharpen(selection: GeneSelection) -> GeneSelection:
        selection.softness.set(1e-3)
        return selection

    def reference(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        gate = np.zeros(6, np.float32)
        gate[np.argsort(operator.logits[...])[-3:]] = 1
        return {"gene_gate": gate, "gated": np.asarray(data["scaled"]) * gate}

    return Example(
        operator,
        {"scaled": scaled, "normalized": normalized},
        limit=Limit(sharpen, reference, atol=1e-5),
        symmetric=("cells",),
    )
