"""Time warping and the pair HMM, as the registry lists them: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="SoftTimeWarping",
        target="diffbio.operators.alignment.time_warping:SoftTimeWarping",
        summary="Soft-DTW: a smooth distance of series that go at different speeds, and where paths between them pass.",
        reads=("series", "reference_series", "series_length", "reference_length"),
        writes=("warping_distance", "warping_posterior"),
        example="diffbio.operators.alignment.examples.time_warping:soft_time_warping",
    ),
    OperatorDeclaration(
        name="PairHMM",
        target="diffbio.operators.alignment.pair_hmm:PairHMM",
        summary="Pair HMM: the log-odds that two sequences are related, and the posterior of their alignment.",
        reads=("query", "target", "query_length", "target_length"),
        writes=("pair_log_odds", "pair_log_likelihood", "alignment_posterior", "gap_opens", "gap_extends"),
        example="diffbio.operators.alignment.examples.pair_hmm:pair_hmm",
    ),
)
