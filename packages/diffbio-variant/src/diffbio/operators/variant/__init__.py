"""Operators of variant calling and copy number: what reads say of a reference, and what follows from it."""

from diffbio.operators.variant.__about__ import __version__
from diffbio.operators.variant.allele_fraction import AlleleFraction, AlleleFractionConfig
from diffbio.operators.variant.base_weights import above_thresholds, counting_bases
from diffbio.operators.variant.change_points import SegmentationConfig, SoftSegmentation, soft_segmentation
from diffbio.operators.variant.circular_segmentation import most_different_arc
from diffbio.operators.variant.classified_genotypes import ClassifiedGenotypes, corrected_genotypes
from diffbio.operators.variant.copy_number_hmm import CopyNumberHMM, CopyNumberHMMConfig, copy_number_means
from diffbio.operators.variant.depth_correction import DepthCorrection, DepthCorrectionConfig, correct_depth
from diffbio.operators.variant.genotypes import (
    GenotypeLikelihood,
    GenotypeLikelihoodConfig,
    Genotypes,
    genotype_alleles,
    genotype_log_likelihoods,
    genotype_prior,
)
from diffbio.operators.variant.haplotype_genotypes import (
    CalledGenotypes,
    HaplotypeGenotyping,
    HaplotypeGenotypingConfig,
    haplotype_log_likelihoods,
)
from diffbio.operators.variant.haplotype_pairs import HaplotypePairs, ReadHaplotypePairing, believed_letters
from diffbio.operators.variant.hidden_chain import best_path, path_sums
from diffbio.operators.variant.image_classifier import ImageClassifier, ImageClassifierConfig
from diffbio.operators.variant.pileup import Pileup, PileupConfig, PileupCounts, pileup_counts
from diffbio.operators.variant.pileup_classifier import PileupClassifier, PileupClassifierConfig
from diffbio.operators.variant.pileup_image import CHANNELS, DrawnSites, PileupImage, PileupImageConfig
from diffbio.operators.variant.read_pooling import ReadPoolingClassifier, ReadPoolingClassifierConfig
from diffbio.operators.variant.read_support import read_support
from diffbio.operators.variant.recalibration import (
    BaseQualityRecalibration,
    BaseQualityRecalibrationConfig,
    batch_counts,
)
from diffbio.operators.variant.recalibration_counts import RecalibrationCounts, total_counts
from diffbio.operators.variant.recalibration_fit import fit_tables
from diffbio.operators.variant.recalibration_table import read_recalibration_table, write_recalibration_table
from diffbio.operators.variant.variant_filter import SoftVariantFilter, SoftVariantFilterConfig

__all__ = [
    "CHANNELS",
    "AlleleFraction",
    "AlleleFractionConfig",
    "BaseQualityRecalibration",
    "BaseQualityRecalibrationConfig",
    "CalledGenotypes",
    "ClassifiedGenotypes",
    "CopyNumberHMM",
    "CopyNumberHMMConfig",
    "DepthCorrection",
    "DepthCorrectionConfig",
    "DrawnSites",
    "GenotypeLikelihood",
    "GenotypeLikelihoodConfig",
    "Genotypes",
    "HaplotypeGenotyping",
    "HaplotypeGenotypingConfig",
    "HaplotypePairs",
    "ImageClassifier",
    "ImageClassifierConfig",
    "Pileup",
    "PileupClassifier",
    "PileupClassifierConfig",
    "PileupConfig",
    "PileupCounts",
    "PileupImage",
    "PileupImageConfig",
    "ReadHaplotypePairing",
    "ReadPoolingClassifier",
    "ReadPoolingClassifierConfig",
    "RecalibrationCounts",
    "SegmentationConfig",
    "SoftSegmentation",
    "SoftVariantFilter",
    "SoftVariantFilterConfig",
    "__version__",
    "above_thresholds",
    "batch_counts",
    "believed_letters",
    "best_path",
    "copy_number_means",
    "correct_depth",
    "corrected_genotypes",
    "counting_bases",
    "fit_tables",
    "genotype_alleles",
    "genotype_log_likelihoods",
    "genotype_prior",
    "haplotype_log_likelihoods",
    "most_different_arc",
    "path_sums",
    "pileup_counts",
    "read_recalibration_table",
    "read_support",
    "soft_segmentation",
    "total_counts",
    "write_recalibration_table",
]
