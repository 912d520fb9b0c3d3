"""Operators of copy number, as the registry lists them: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="CopyNumberHMM",
        target="diffbio.operators.variant.copy_number_hmm:CopyNumberHMM",
        summary="A hidden Markov model of copy number along a genome: posterior, expected copy number and likelihood.",
        reads=("log2_ratio", "bin_mask", "segment_start", "bin_position", "baf", "baf_mask"),
        writes=("copy_number_posterior", "expected_copy_number", "copy_number_log_likelihood"),
        example="diffbio.operators.variant.examples.copy_number_hmm:copy_number_hmm",
    ),
    OperatorDeclaration(
        name="SoftSegmentation",
        target="diffbio.operators.variant.change_points:SoftSegmentation",
        summary="Soft optimal partitioning: where segments of equal copy number begin, and their means.",
        reads=("log2_ratio", "bin_mask", "segment_start"),
        writes=("breakpoint_probability", "segment_mean", "segmentation_cost"),
        example="diffbio.operators.variant.examples.change_points:soft_segmentation",
    ),
    OperatorDeclaration(
        name="DepthCorrection",
        target="diffbio.operators.variant.depth_correction:DepthCorrection",
        summary="Log2 ratios of bins from read depth, without the bias by GC content and mappability.",
        reads=("depth", "gc", "mappability", "bin_mask", "reference_depth"),
        writes=("log2_ratio", "bin_weight", "bin_mask"),
        example="diffbio.operators.variant.examples.depth_correction:depth_correction",
    ),
    OperatorDeclaration(
        name="AlleleFraction",
        target="diffbio.operators.variant.allele_fraction:AlleleFraction",
        summary="B-allele fractions of heterozygous sites, and the posterior of allelic imbalance of bins.",
        reads=("ref_counts", "alt_counts", "site_bin", "site_mask", "normal_ref_counts", "normal_alt_counts"),
        writes=("heterozygous_probability", "mirrored_baf", "imbalance_probability", "baf", "baf_mask"),
        example="diffbio.operators.variant.examples.allele_fraction:allele_fraction",
    ),
)
