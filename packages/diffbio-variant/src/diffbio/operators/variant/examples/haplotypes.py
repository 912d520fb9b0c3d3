"""The conformance examples of reads beside haplotypes; the limit is the best genotype."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.core import OperatorConfig
from diffbio.operators.variant.haplotype_genotypes import HaplotypeGenotyping, HaplotypeGenotypingConfig
from diffbio.operators.variant.haplotype_pairs import ReadHaplotypePairing
from diffbio.testing import Example, Limit


def read_haplotype_pairing() -> Example:
    """Return two sites of three reads and two haplotypes."""
    random = np.random.default_rng(0)
    return Example(
        ReadHaplotypePairing(OperatorConfig()),
        {
            "reads": np.eye(4, dtype=np.float32)[random.integers(4, size=(2, 3, 5))],
            "qualities": np.asarray(random.integers(5, 40, size=(2, 3, 5)), np.float32),
            "haplotypes": np.eye(4, dtype=np.float32)[random.integers(4, size=(2, 2, 7))],
            "haplotype_lengths": np.array([[7, 6], [5, 7]], np.int32),
            "read_lengths": np.array([[5, 4, 5], [3, 5, 0]], np.int32),
            "base_weights": np.asarray(random.random((2, 3, 5)), np.float32),
        },
        exempt={"limit_is_hard_reference": "relaxes no hard algorithm"},
    )


def haplotype_genotyping() -> Example:
    """Return four sites of six reads with their scores."""
    random = np.random.default_rng(0)
    scores = np.asarray(random.normal(scale=3.0, size=(4, 6, 2)), np.float32)
    mapping = np.asarray(random.integers(10, 60, size=(4, 6)), np.float32)

    def sharpen(operator: HaplotypeGenotyping) -> HaplotypeGenotyping:
        operator.softness.set(1e-3)
        return operator

    def reference_genotypes(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        chances = np.exp(np.asarray(data["alignment_score"], np.float64))
        wrong = 10 ** (-np.asarray(data["mapping_qualities"], np.float64) / 10)
        elsewhere = (0.01 + 0.99 * wrong)[..., None]
        genotypes = np.stack([chances[..., 0], chances.mean(-1), chances[..., 1]], axis=-1)
        mixed = (1 - elsewhere) * genotypes + elsewhere * chances.mean(-1, keepdims=True)
        best = (np.log(mixed).sum(-2) + np.log([1 - 1.5e-3, 1e-3, 5e-4])).argmax(-1)
        return {"call_posteriors": np.eye(3)[best]}

    return Example(
        HaplotypeGenotyping(HaplotypeGenotypingConfig()),
        {"alignment_score": scores, "mapping_qualities": mapping},
        limit=Limit(sharpen, reference_genotypes, atol=1e-3),
    )
