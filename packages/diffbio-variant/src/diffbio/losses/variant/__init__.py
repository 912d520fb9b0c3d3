"""Losses of base qualities, genotypes and variant filters: pure functions of the data dict that a pipeline returns."""

from diffbio.losses.variant.filtering import filter_cross_entropy, precision_recall, soft_f_beta_loss
from diffbio.losses.variant.genotypes import genotype_cross_entropy
from diffbio.losses.variant.recalibration import mismatch_cross_entropy

__all__ = [
    "filter_cross_entropy",
    "genotype_cross_entropy",
    "mismatch_cross_entropy",
    "precision_recall",
    "soft_f_beta_loss",
]
