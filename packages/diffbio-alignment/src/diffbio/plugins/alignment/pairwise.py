"""Declarations: alignment of two sequences, and of many."""

from diffbio.core.hookspecs import OperatorDeclaration

_READS = ("query", "target", "query_length", "target_length")
_WRITES = ("alignment_score", "alignment_posterior", "gap_opens", "gap_extends")

OPERATORS = (
    OperatorDeclaration(
        name="SmoothSmithWaterman",
        target="diffbio.operators.alignment.pairwise:SmoothSmithWaterman",
        summary="Local alignment with affine gaps: smooth score, and the probability of each aligned pair.",
        reads=_READS,
        writes=_WRITES,
        example="diffbio.operators.alignment.examples.pairwise:smooth_smith_waterman",
    ),
    OperatorDeclaration(
        name="SmoothNeedlemanWunsch",
        target="diffbio.operators.alignment.pairwise:SmoothNeedlemanWunsch",
        summary="Alignment from end to end, or with free ends: smooth score, and probability of aligned pairs.",
        reads=_READS,
        writes=_WRITES,
        example="diffbio.operators.alignment.examples.pairwise:smooth_needleman_wunsch",
    ),
    OperatorDeclaration(
        name="SoftProgressiveMSA",
        target="diffbio.operators.alignment.multiple:SoftProgressiveMSA",
        summary="Multiple alignment: posteriors of all pairs, made consistent, and joined along a guide tree.",
        reads=("sequences", "sequence_length"),
        writes=("alignment_columns", "column_weights", "alignment_profile", "pair_accuracy"),
        example="diffbio.operators.alignment.examples.multiple:soft_progressive_msa",
    ),
)
