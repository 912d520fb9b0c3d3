"""Losses of alignment and of read correction: pure functions of the data dict that a pipeline returns."""

from diffbio.losses.alignment.columns import column_score, sum_of_pairs
from diffbio.losses.alignment.correction import true_base_cross_entropy
from diffbio.losses.alignment.edit_distance import edit_distance, soft_edit_distance
from diffbio.losses.alignment.pairs import alignment_cross_entropy, alignment_dissimilarity
from diffbio.losses.alignment.profile import profile_surprise

__all__ = [
    "alignment_cross_entropy",
    "alignment_dissimilarity",
    "column_score",
    "edit_distance",
    "profile_surprise",
    "soft_edit_distance",
    "sum_of_pairs",
    "true_base_cross_entropy",
]
