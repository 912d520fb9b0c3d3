"""Operators of variant calling: what reads say of a reference, and the genotypes that follow."""

from diffbio.operators.variant.__about__ import __version__
from diffbio.operators.variant.base_weights import above_thresholds, counting_bases
from diffbio.operators.variant.genotypes import (
    GenotypeLikelihood,
    GenotypeLikelihoodConfig,
    Genotypes,
    genotype_alleles,
    genotype_log_likelihoods,
    genotype_prior,
)
from diffbio.operators.variant.pileup import Pileup, PileupConfig, PileupCounts, pileup_counts

__all__ = [
    "GenotypeLikelihood",
    "GenotypeLikelihoodConfig",
    "Genotypes",
    "Pileup",
    "PileupConfig",
    "PileupCounts",
    "__version__",
    "above_thresholds",
    "counting_bases",
    "genotype_alleles",
    "genotype_log_likelihoods",
    "genotype_prior",
    "pileup_counts",
]
