"""What operators of alignment learned, as files of the field: declarations only, so that listing imports no JAX."""

from diffbio.core.hookspecs import ExporterDeclaration

EXPORTERS = (
    *(
        ExporterDeclaration(
            name=f"scores_of_{operator}",
            target="diffbio.pipelines.alignment.exports:export_scores",
            summary="Substitution matrix, with the costs of gaps in its comments, as parasail and EMBOSS read it.",
            operator=operator,
            suffix=".mat",
        )
        for operator in ("SmoothNeedlemanWunsch", "SmoothSmithWaterman")
    ),
    ExporterDeclaration(
        name="scores_of_PairHMM",
        target="diffbio.pipelines.alignment.exports:export_pair_hmm",
        summary="Log-odds as a substitution matrix, with the costs of gaps in its comments.",
        operator="PairHMM",
        suffix=".mat",
    ),
    ExporterDeclaration(
        name="profile_of_ProfileHMM",
        target="diffbio.pipelines.alignment.exports:export_profile",
        summary="Profile in the text format of HMMER.",
        operator="ProfileHMM",
        suffix=".hmm",
    ),
)
