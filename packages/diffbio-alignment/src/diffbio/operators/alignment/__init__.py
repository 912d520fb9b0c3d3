"""Alignment of sequences: one recurrence, in any semiring, and the operators made of it."""

from diffbio.operators.alignment.best_path import Path, best_path
from diffbio.operators.alignment.ends import GLOBAL, LOCAL, SEMI_GLOBAL, Ends
from diffbio.operators.alignment.hard_alignment import HardAlignment, written_out
from diffbio.operators.alignment.pairwise import (
    NeedlemanWunschConfig,
    SmithWatermanConfig,
    SmoothNeedlemanWunsch,
    SmoothSmithWaterman,
    SoftAlignment,
    soft_alignment,
)
from diffbio.operators.alignment.partition import expectations, log_partition, total
from diffbio.operators.alignment.posterior import Expectations
from diffbio.operators.alignment.recurrence import Pair
from diffbio.operators.alignment.semirings import COUNT, LOG, MAX, Semiring
from diffbio.operators.alignment.substitution import substitution_matrix, substitution_scores

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
    "Path",
    "Semiring",
    "SmithWatermanConfig",
    "SmoothNeedlemanWunsch",
    "SmoothSmithWaterman",
    "SoftAlignment",
    "best_path",
    "expectations",
    "log_partition",
    "soft_alignment",
    "substitution_matrix",
    "substitution_scores",
    "total",
    "written_out",
]
