"""Alignment of sequences: one recurrence, in any semiring, and the operators made of it."""

from diffbio.operators.alignment.best_path import Path, best_path
from diffbio.operators.alignment.consistency import consistent, pairwise_posteriors
from diffbio.operators.alignment.ends import GLOBAL, LOCAL, SEMI_GLOBAL, Ends
from diffbio.operators.alignment.guide_tree import average_linkage
from diffbio.operators.alignment.hard_alignment import HardAlignment, written_out
from diffbio.operators.alignment.multiple import ProgressiveMSAConfig, SoftMSA, SoftProgressiveMSA, multiple_alignment
from diffbio.operators.alignment.pair_hmm import PairAlignment, PairHMM, PairHMMConfig, pair_alignment
from diffbio.operators.alignment.pair_model import PairModel, pair_weights
from diffbio.operators.alignment.pairwise import (
    NeedlemanWunschConfig,
    SmithWatermanConfig,
    SmoothNeedlemanWunsch,
    SmoothSmithWaterman,
)
from diffbio.operators.alignment.partition import expectations, log_partition, total
from diffbio.operators.alignment.plan7 import Plan7, background, null_length, path_weights, plan7_with_gaps
from diffbio.operators.alignment.posterior import Expectations
from diffbio.operators.alignment.profile_hmm import ProfileAlignment, ProfileHMM, ProfileHMMConfig, profile_alignment
from diffbio.operators.alignment.profile_partition import best_profile_path, path_sum
from diffbio.operators.alignment.progressive import progressive_alignment
from diffbio.operators.alignment.recurrence import Pair
from diffbio.operators.alignment.semirings import COUNT, LOG, MAX, Semiring
from diffbio.operators.alignment.soft_alignment import SoftAlignment, soft_alignment, soft_score
from diffbio.operators.alignment.sparse_posteriors import Posteriors, dense_posteriors, sparse_posteriors
from diffbio.operators.alignment.substitution import substitution_matrix, substitution_scores, write_substitution_matrix
from diffbio.operators.alignment.target_frequencies import TargetFrequencies, target_frequencies
from diffbio.operators.alignment.time_warping import (
    SoftTimeWarping,
    TimeWarping,
    TimeWarpingConfig,
    soft_dtw,
    soft_dtw_divergence,
    squared_distances,
)
from diffbio.operators.alignment.warping_paths import warping_paths, warping_total

__all__ = [
    "COUNT",
    "GLOBAL",
    "LOCAL",
    "LOG",
    "MAX",
    "SEMI_GLOBAL",
    "Ends",
    "Expectations",
    "HardAlignment",
    "NeedlemanWunschConfig",
    "Pair",
    "PairAlignment",
    "PairHMM",
    "PairHMMConfig",
    "PairModel",
    "Path",
    "Plan7",
    "Posteriors",
    "ProfileAlignment",
    "ProfileHMM",
    "ProfileHMMConfig",
    "ProgressiveMSAConfig",
    "Semiring",
    "SmithWatermanConfig",
    "SmoothNeedlemanWunsch",
    "SmoothSmithWaterman",
    "SoftAlignment",
    "SoftMSA",
    "SoftProgressiveMSA",
    "SoftTimeWarping",
    "TargetFrequencies",
    "TimeWarping",
    "TimeWarpingConfig",
    "average_linkage",
    "background",
    "best_path",
    "best_profile_path",
    "consistent",
    "dense_posteriors",
    "expectations",
    "log_partition",
    "multiple_alignment",
    "null_length",
    "pair_alignment",
    "pair_weights",
    "pairwise_posteriors",
    "path_sum",
    "path_weights",
    "plan7_with_gaps",
    "profile_alignment",
    "progressive_alignment",
    "soft_alignment",
    "soft_dtw",
    "soft_dtw_divergence",
    "soft_score",
    "sparse_posteriors",
    "squared_distances",
    "substitution_matrix",
    "substitution_scores",
    "target_frequencies",
    "total",
    "warping_paths",
    "warping_total",
    "write_substitution_matrix",
    "written_out",
]
