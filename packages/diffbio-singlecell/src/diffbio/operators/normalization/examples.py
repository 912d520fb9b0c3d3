"""The tiny example of each operator, on which `diffbio.testing` holds it to the laws."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.normalization.gene_selection import GeneSelection, GeneSelectionConfig
from diffbio.operators.normalization.library_size import (
    LibrarySizeNormalization,
    LibrarySizeNormalizationConfig,
)
from diffbio.operators.normalization.projection import PCAProjection, PCAProjectionConfig
from diffbio.operators.normalization.scaling import Scaling, ScalingConfig
from diffbio.testing import Example, Limit

_RELAXES_NOTHING = {"limit_is_hard_reference": "relaxes no hard algorithm"}
_COUNTS = np.array(
    [
        [3, 0, 1, 7, 2, 12],
        [0, 5, 2, 1, 9, 30],
        [8, 1, 0, 2, 4, 18],
        [1, 2, 6, 11, 0, 9],
        [2, 14, 1, 3, 5, 41],
        [6, 3, 4, 0, 1, 22],
        [0, 1, 9, 5, 3, 7],
    ],
    np.float32,
)  # 7 cells, 6 genes


def library_size_normalization() -> Example:
    """Return seven cells of unlike depth; exponent and pseudocount are trained."""
    config = LibrarySizeNormalizationConfig(target_sum=20.0, depth_exponent=0.9, pseudocount=0.5, learnable=True)
    return Example(
        LibrarySizeNormalization(config),
        {"counts": _COUNTS},
        symmetric=("cells", "genes"),
        exempt=_RELAXES_NOTHING,
    )


def scaling() -> Example:
    """Return seven cells, scaled by their own means and standard deviations."""
    normalized = np.log1p(_COUNTS)
    operator = Scaling(ScalingConfig(n_genes=6))
    operator.initialize(jnp.asarray(normalized))
    return Example(operator, {"normalized": normalized}, symmetric=("cells",), exempt=_RELAXES_NOTHING)


def gene_selection() -> Example:
    """Return six genes of which three are kept; the limit is a sort of their variance ratios."""
    normalized = np.log1p(_COUNTS)
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


def pca_projection() -> Example:
    """Return seven cells on their two principal components, which are trained from there."""
    scaled = np.log1p(_COUNTS) - np.log1p(_COUNTS).mean(0)
    config = PCAProjectionConfig(n_genes=6, n_components=2, learnable=True)
    operator = PCAProjection(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(scaled))
    return Example(operator, {"scaled": scaled}, symmetric=("cells",), exempt=_RELAXES_NOTHING)
