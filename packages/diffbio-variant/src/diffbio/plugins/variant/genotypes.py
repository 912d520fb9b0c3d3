"""Pileup and genotypes, as the registry lists them: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import OperatorDeclaration

_OF_READS = ("mapping_qualities", "reverse_strand", "read_lengths", "read_mask", "base_weights", "read_weights")

OPERATORS = (
    OperatorDeclaration(
        name="Pileup",
        target="diffbio.operators.variant.pileup:Pileup",
        summary="Counts of letters, insertions and deletions at each position, softly above thresholds of quality.",
        reads=("reads", "qualities", "base_positions", "reference", "insertions", "deletions", *_OF_READS),
        writes=("base_counts", "insertion_counts", "deletion_counts", "deleted_counts", "read_depth"),
        example="diffbio.operators.variant.examples.pileup:pileup",
    ),
    OperatorDeclaration(
        name="GenotypeLikelihood",
        target="diffbio.operators.variant.genotypes:GenotypeLikelihood",
        summary="Genotype likelihoods and posteriors of each position by samtools' model of errors.",
        reads=("reads", "qualities", "base_positions", "reference", "recalibrated_qualities", *_OF_READS),
        writes=(
            "genotype_log_likelihoods",
            "genotype_posteriors",
            "genotype_qualities",
            "variant_probability",
            "allele_dosage",
        ),
        example="diffbio.operators.variant.examples.genotypes:genotype_likelihood",
    ),
)
