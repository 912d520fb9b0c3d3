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
    OperatorDeclaration(
        name="ReadHaplotypePairing",
        target="diffbio.operators.variant.haplotype_pairs:ReadHaplotypePairing",
        summary="Sets each read beside each haplotype of its site for an aligner, letters as sure as qualities.",
        reads=(
            "reads",
            "qualities",
            "haplotypes",
            "haplotype_lengths",
            "recalibrated_qualities",
            "read_lengths",
            "base_weights",
        ),
        writes=("query", "target", "query_length", "target_length"),
        example="diffbio.operators.variant.examples.haplotypes:read_haplotype_pairing",
    ),
    OperatorDeclaration(
        name="HaplotypeGenotyping",
        target="diffbio.operators.variant.haplotype_genotypes:HaplotypeGenotyping",
        summary="The genotype of a site by the alignment scores of its reads with both haplotypes.",
        reads=("alignment_score", "read_mask", "read_weights", "mapping_qualities"),
        writes=("call_log_likelihoods", "call_posteriors", "call_qualities", "allele_depths"),
        example="diffbio.operators.variant.examples.haplotypes:haplotype_genotyping",
    ),
    OperatorDeclaration(
        name="PileupClassifier",
        target="diffbio.operators.variant.pileup_classifier:PileupClassifier",
        summary="Corrects the genotype of a site by a trained perceptron that sees the pileup around it.",
        reads=(
            "base_counts",
            "insertion_counts",
            "deletion_counts",
            "deleted_counts",
            "reference",
            "call_posteriors",
            "allele_depths",
            "variant_kind",
        ),
        writes=("classifier_logits", "classifier_posteriors", "classifier_qualities"),
        example="diffbio.operators.variant.examples.pileup_classifier:pileup_classifier",
        objective="genotype_cross_entropy",
    ),
)
