"""The conformance example of allele fractions; the limit calls genotypes and averages, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.variant.allele_fraction import AlleleFraction, AlleleFractionConfig
from diffbio.testing import Example, Limit

ERROR, PRIOR = 0.02, 0.3


def allele_fraction() -> Example:
    """Return eight sites in three bins, of which the second is out of balance and the third has no site."""
    data = {
        "ref_counts": np.array([5, 7, 12, 9, 3, 4, 2, 6], np.float32),
        "alt_counts": np.array([6, 1, 3, 4, 11, 5, 9, 6], np.float32),
        "normal_ref_counts": np.array([6, 9, 5, 6, 4, 5, 1, 6], np.float32),
        "normal_alt_counts": np.array([5, 1, 6, 4, 5, 6, 7, 5], np.float32),
        "site_bin": np.array([0, 0, 1, 1, 1, 0, 1, 3], np.int32),
        "site_mask": np.array([1, 1, 1, 1, 1, 1, 1, 1], bool),
    }
    config = AlleleFractionConfig(n_bins=3, error_rate=ERROR, heterozygous_prior=PRIOR)

    def sharpen(operator: AlleleFraction) -> AlleleFraction:
        operator.softness.set(1e-2)
        return operator

    return Example(
        AlleleFraction(config),
        data,
        limit=Limit(sharpen, _called, atol=1e-4),
        symmetric=("sites",),
        masks={"site_mask": "sites"},
    )


def _called(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
    """Return what most likely genotypes, and means of mirrored fractions of the heterozygous sites, give."""
    ref, alt, normal_ref, normal_alt = (
        np.asarray(data[name], float) for name in ("ref_counts", "alt_counts", "normal_ref_counts", "normal_alt_counts")
    )
    likelihoods = [
        np.log(prior) + normal_alt * np.log(f) + normal_ref * np.log(1 - f)
        for f, prior in ((ERROR, (1 - PRIOR) / 2), (0.5, PRIOR), (1 - ERROR, (1 - PRIOR) / 2))
    ]
    called = np.argmax(likelihoods, axis=0) == 1
    mirrored, bins = np.maximum(ref, alt) / (ref + alt), np.asarray(data["site_bin"])
    chosen = [mirrored[called & (bins == number)] for number in range(3)]
    return {
        "heterozygous_probability": called.astype(np.float32),
        "mirrored_baf": np.array([found.mean() if len(found) else 0.5 for found in chosen]),
        "baf_mask": np.array([len(found) > 0 for found in chosen]),
    }
