"""The conformance example of genotype likelihoods; the limit is the genotype of the largest posterior."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffbio.operators.variant.examples.pileup import laid_reads
from diffbio.operators.variant.genotypes import (
    GenotypeLikelihood,
    GenotypeLikelihoodConfig,
    genotype_prior,
)
from diffbio.testing import Example, Limit


def genotype_likelihood() -> Example:
    """Return three windows of few reads."""

    def sharpen(operator: GenotypeLikelihood) -> GenotypeLikelihood:
        operator.softness.set(1e-3)
        return operator

    def reference_genotypes(data: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        arrays = {name: np.asarray(values, np.float64) for name, values in data.items()}
        quality = np.minimum(arrays["qualities"], arrays["mapping_qualities"][..., None])
        error = 10 ** (-quality / 10)
        log_posteriors = np.log(np.asarray(genotype_prior(jnp.asarray(arrays["reference"]), 1e-3, 1), np.float64))
        ends = arrays["read_lengths"]
        for window, read, place in np.argwhere(arrays["base_positions"] >= 0):
            if place < ends[window, read]:
                letter, wrong = arrays["reads"][window, read, place].argmax(), error[window, read, place]
                chances = np.where(np.arange(4) == letter, 1 - wrong, wrong / 3)
                column = int(arrays["base_positions"][window, read, place])
                log_posteriors[window, column] += np.log(chances)
        best = log_posteriors > log_posteriors.max(-1, keepdims=True) - 1e-6  # equally probable ones share
        return {"genotype_posteriors": best / best.sum(-1, keepdims=True)}

    config = GenotypeLikelihoodConfig(ploidy=1, dependence=1.0)
    return Example(GenotypeLikelihood(config), laid_reads(), limit=Limit(sharpen, reference_genotypes, atol=1e-2))
