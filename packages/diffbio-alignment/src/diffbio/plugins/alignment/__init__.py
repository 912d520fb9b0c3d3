"""What diffbio-alignment brings to the registry: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import OperatorDeclaration, Plugin, hookimpl

_READS = ("query", "target", "query_length", "target_length")
_WRITES = ("alignment_score", "alignment_posterior", "gap_opens", "gap_extends")


@hookimpl
def diffbio_plugin() -> Plugin:
    """Return the alignment operators."""
    return Plugin(
        api=1,
        operators=(
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
        ),
    )
