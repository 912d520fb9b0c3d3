"""Declarations: losses."""

from diffbio.core.hookspecs import Declaration

_SUMMARIES = {
    "alignment_cross_entropy": "Cross-entropy of the posterior and a reference alignment of pairs.",
    "alignment_dissimilarity": "Less the mean alignment score.",
    "column_score": "Expected share of a reference's columns that are not whole in one column.",
    "edit_distance": "Mean edit distance of queries and targets, softened by a tenth of an edit.",
    "profile_surprise": "Less the mean log odds of sequences under a profile (maximum likelihood).",
    "sum_of_pairs": "Expected share of a reference's pairs of residues that are not in one column.",
    "true_base_cross_entropy": "Cross-entropy of corrected bases with the true ones, where these are known.",
}

LOSSES = tuple(
    Declaration(name=name, target=f"diffbio.losses.alignment:{name}", summary=summary)
    for name, summary in _SUMMARIES.items()
)
