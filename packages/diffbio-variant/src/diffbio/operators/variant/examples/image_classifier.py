"""The conformance example of the classifier of images; the limit is the genotype of the largest logit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from diffbio.operators.variant.image_classifier import ImageClassifier, ImageClassifierConfig
from diffbio.testing import Example, Limit


def image_classifier() -> Example:
    """Return three sites with images of four rows and seven columns."""
    random = np.random.default_rng(0)

    def sharpen(operator: ImageClassifier) -> ImageClassifier:
        operator.softness.set(1e-3)
        return operator

    def reference_genotypes(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        believed = np.asarray(data["call_posteriors"])
        return {"classifier_posteriors": np.eye(3)[believed.argmax(-1)]}

    return Example(
        ImageClassifier(ImageClassifierConfig(n_channels=5, columns=5, width=4, n_layers=1), rngs=nnx.Rngs(0)),
        {
            "pileup_image": np.asarray(random.random((3, 4, 7, 5)), np.float32),
            "image_mask": np.ones((3, 4), bool),
            "call_posteriors": np.asarray(random.dirichlet(np.full(3, 0.5), size=3), np.float32),
            "variant_kind": np.eye(3, dtype=np.float32)[random.integers(3, size=3)],
        },
        limit=Limit(sharpen, reference_genotypes, atol=1e-3),
        masks={"image_mask": "rows"},
    )
