"""The conformance example of the classifier of pileups; the limit is the genotype of the largest logit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.variant.pileup_classifier import PileupClassifier, PileupClassifierConfig
from diffbio.testing import Example, Limit


def pileup_classifier() -> Example:
    """Return four sites with windows of five columns."""
    random = np.random.default_rng(0)
    counts = np.asarray(random.poisson(3.0, size=(4, 5, 2, 4)), np.float32)
    gaps = {f"{gap}_counts": np.asarray(random.poisson(0.5, size=(4, 5, 2)), np.float32) for gap in (
        "insertion", "deletion", "deleted"
    )}  # fmt: skip

    def sharpen(operator: PileupClassifier) -> PileupClassifier:
        operator.softness.set(1e-3)
        return operator

    def reference_genotypes(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        believed = np.asarray(data["call_posteriors"])
        return {"classifier_posteriors": np.eye(3)[believed.argmax(-1)]}

    return Example(
        PileupClassifier(PileupClassifierConfig(columns=3, hidden_sizes=(8,)), rngs=nnx.Rngs(0)),
        {
            "base_counts": counts,
            **gaps,
            "reference": np.eye(4, dtype=np.float32)[random.integers(4, size=(4, 5))],
            "call_posteriors": np.asarray(random.dirichlet(np.full(3, 0.5), size=4), np.float32),
            "allele_depths": np.asarray(random.gamma(2.0, 2.0, size=(4, 2)), np.float32),
            "variant_kind": np.eye(3, dtype=np.float32)[random.integers(3, size=4)],
        },
        limit=Limit(sharpen, reference_genotypes, atol=1e-3),
    )
