"""The conformance example of the classifier of sets of reads; the limit is the genotype of the largest logit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.variant.examples.pileup import laid_reads
from diffbio.operators.variant.read_pooling import ReadPoolingClassifier, ReadPoolingClassifierConfig
from diffbio.testing import Example, Limit


def read_pooling_classifier() -> Example:
    """Return three sites of five reads in windows of 12 columns."""
    random = np.random.default_rng(1)
    data = laid_reads()
    data |= {
        "alignment_score": np.asarray(random.normal(size=(3, 5, 2)), np.float32),
        "read_mask": np.ones((3, 5), bool),
        "base_weights": np.asarray(random.uniform(0.2, 0.9, size=(3, 5, 8)), np.float32),
        "read_weights": np.asarray(random.uniform(0.2, 0.9, size=(3, 5)), np.float32),
        "call_posteriors": np.asarray(random.dirichlet(np.full(3, 0.5), size=3), np.float32),
        "variant_kind": np.eye(3, dtype=np.float32)[random.integers(3, size=3)],
    }

    def sharpen(operator: ReadPoolingClassifier) -> ReadPoolingClassifier:
        operator.softness.set(1e-3)
        return operator

    def reference_genotypes(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        believed = np.asarray(data["call_posteriors"])
        return {"classifier_posteriors": np.eye(3)[believed.argmax(-1)]}

    config = ReadPoolingClassifierConfig(columns=5, read_sizes=(6, 4), hidden_sizes=(5,))
    return Example(
        ReadPoolingClassifier(config, rngs=nnx.Rngs(0)),
        data,
        limit=Limit(sharpen, reference_genotypes, atol=1e-3),
        symmetric=("reads",),
        masks={"read_mask": "reads"},
    )
