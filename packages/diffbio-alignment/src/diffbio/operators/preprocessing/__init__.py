"""Preprocessing of sequencing reads: trimming, filters, merging of pairs, duplicates, correction of errors."""

from diffbio.operators.preprocessing.adapters import AdapterTrimming, AdapterTrimmingConfig, adapters_kept
from diffbio.operators.preprocessing.complexity import (
    ComplexityFilter,
    ComplexityFilterConfig,
    dust_score,
    share_of_changes,
)
from diffbio.operators.preprocessing.duplicates import DuplicateWeighting, DuplicateWeightingConfig, duplicate_shares
from diffbio.operators.preprocessing.error_correction import KmerErrorCorrection, KmerErrorCorrectionConfig, corrected
from diffbio.operators.preprocessing.kept_bases import kept_interval
from diffbio.operators.preprocessing.learned_correction import LearnedErrorCorrection, LearnedErrorCorrectionConfig
from diffbio.operators.preprocessing.merging import ReadMerging, ReadMergingConfig, merged
from diffbio.operators.preprocessing.molecules import same_molecule
from diffbio.operators.preprocessing.pairs import PairedAdapterTrimming, PairedAdapterTrimmingConfig, insert_lengths
from diffbio.operators.preprocessing.poly_x import PolyXTrimming, PolyXTrimmingConfig, tail_of
from diffbio.operators.preprocessing.quality_filter import QualityFilter, QualityFilterConfig
from diffbio.operators.preprocessing.quality_trimming import QualityTrimming, QualityTrimmingConfig, quality_kept
from diffbio.operators.preprocessing.report import PreprocessingReport, preprocessing_report
from diffbio.operators.preprocessing.window_trimming import WindowTrimming, WindowTrimmingConfig, windows_kept

__all__ = [
    "AdapterTrimming",
    "AdapterTrimmingConfig",
    "ComplexityFilter",
    "ComplexityFilterConfig",
    "DuplicateWeighting",
    "DuplicateWeightingConfig",
    "KmerErrorCorrection",
    "KmerErrorCorrectionConfig",
    "LearnedErrorCorrection",
    "LearnedErrorCorrectionConfig",
    "PairedAdapterTrimming",
    "PairedAdapterTrimmingConfig",
    "PolyXTrimming",
    "PolyXTrimmingConfig",
    "PreprocessingReport",
    "QualityFilter",
    "QualityFilterConfig",
    "QualityTrimming",
    "QualityTrimmingConfig",
    "ReadMerging",
    "ReadMergingConfig",
    "WindowTrimming",
    "WindowTrimmingConfig",
    "adapters_kept",
    "corrected",
    "duplicate_shares",
    "dust_score",
    "insert_lengths",
    "kept_interval",
    "merged",
    "preprocessing_report",
    "quality_kept",
    "same_molecule",
    "share_of_changes",
    "tail_of",
    "windows_kept",
]
