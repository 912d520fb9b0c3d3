"""The profile HMM, as the registry lists it: a declaration only, so that listing it imports no JAX."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="ProfileHMM",
        target="diffbio.operators.alignment.profile_hmm:ProfileHMM",
        summary="HMMER's profile HMM: score of sequences in bits, and the probability of each residue at each node.",
        reads=("sequences", "sequence_length"),
        writes=("profile_score", "match_posterior", "insert_posterior", "expected_domains"),
        example="diffbio.operators.alignment.examples.profile_hmm:profile_hmm",
    ),
)
