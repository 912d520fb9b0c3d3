"""Declarations: preprocessing of reads."""

from diffbio.core.hookspecs import OperatorDeclaration

_OPERATORS = "diffbio.operators.preprocessing"
_KEPT = ("read_lengths", "base_weights")
_PAIR = ("reads", "mate_reads", "read_lengths", "mate_lengths", "base_weights", "mate_base_weights")

OPERATORS = (
    OperatorDeclaration(
        name="QualityTrimming",
        target=f"{_OPERATORS}.quality_trimming:QualityTrimming",
        summary="Trims the ends of reads by running sums of quality (BWA, cutadapt -q), with learnable cutoffs.",
        reads=("qualities", *_KEPT),
        writes=("base_weights",),
        example=f"{_OPERATORS}.examples.trimming:quality_trimming",
    ),
    OperatorDeclaration(
        name="WindowTrimming",
        target=f"{_OPERATORS}.window_trimming:WindowTrimming",
        summary="Trims reads by the mean quality of sliding windows (fastp), with learnable thresholds.",
        reads=("qualities", "reads", *_KEPT),
        writes=("base_weights",),
        example=f"{_OPERATORS}.examples.trimming:window_trimming",
    ),
    OperatorDeclaration(
        name="QualityFilter",
        target=f"{_OPERATORS}.quality_filter:QualityFilter",
        summary="Weighs reads by quality, expected errors, unknown bases and length, and says why.",
        reads=("qualities", "reads", *_KEPT, "read_mask", "read_weights"),
        writes=(
            "read_weights",
            "mean_quality_pass",
            "unqualified_pass",
            "unknown_pass",
            "expected_errors_pass",
            "length_pass",
        ),
        example=f"{_OPERATORS}.examples.trimming:quality_filter",
    ),
    OperatorDeclaration(
        name="AdapterTrimming",
        target=f"{_OPERATORS}.adapters:AdapterTrimming",
        summary="Trims 3' or 5' adapters with mismatches and indels (cutadapt), softly.",
        reads=("reads", *_KEPT),
        writes=("base_weights", "adapter_found"),
        example=f"{_OPERATORS}.examples.adapters:adapter_trimming",
    ),
    OperatorDeclaration(
        name="PairedAdapterTrimming",
        target=f"{_OPERATORS}.pairs:PairedAdapterTrimming",
        summary="Trims what both reads of a pair have beyond the insert (fastp), by their overlap.",
        reads=_PAIR,
        writes=("base_weights", "mate_base_weights", "insert_lengths"),
        example=f"{_OPERATORS}.examples.adapters:paired_adapter_trimming",
    ),
    OperatorDeclaration(
        name="ReadMerging",
        target=f"{_OPERATORS}.merging:ReadMerging",
        summary="Merges overlapping pairs into reads of posterior letters and qualities.",
        reads=("qualities", "mate_qualities", *_PAIR),
        writes=("merged_reads", "merged_qualities", "merged_base_weights", "merged_pass"),
        example=f"{_OPERATORS}.examples.adapters:read_merging",
    ),
    OperatorDeclaration(
        name="KmerErrorCorrection",
        target=f"{_OPERATORS}.error_correction:KmerErrorCorrection",
        summary="Corrects substitutions by the k-mer spectrum of the reads (Musket, Lighter).",
        reads=("reads", *_KEPT),
        writes=("corrected_reads", "base_changed"),
        example=f"{_OPERATORS}.examples.correction:kmer_error_correction",
    ),
    OperatorDeclaration(
        name="LearnedErrorCorrection",
        target=f"{_OPERATORS}.learned_correction:LearnedErrorCorrection",
        summary="A small network, to be trained, that corrects substitutions from k-mers and qualities.",
        reads=("reads", "qualities", *_KEPT),
        writes=("corrected_reads", "base_changed"),
        example=f"{_OPERATORS}.examples.correction:learned_error_correction",
        objective="true_base_cross_entropy",
    ),
    OperatorDeclaration(
        name="DuplicateWeighting",
        target=f"{_OPERATORS}.duplicates:DuplicateWeighting",
        summary="Copies of a molecule count together as one read: by letters, mapping positions, and UMIs with errors.",
        reads=("reads", "read_lengths", "read_mask", "read_weights", "umis", "positions", "qualities"),
        writes=("duplicate_weights", "read_weights"),
        example=f"{_OPERATORS}.examples.duplicates:duplicate_weighting",
    ),
    OperatorDeclaration(
        name="ComplexityFilter",
        target=f"{_OPERATORS}.complexity:ComplexityFilter",
        summary="Drops reads of low complexity: few changes from base to base (fastp), or many equal triplets (DUST).",
        reads=("reads", "read_lengths", "base_weights", "read_mask", "read_weights"),
        writes=("complexity_pass", "read_weights"),
        example=f"{_OPERATORS}.examples.complexity:complexity_filter",
    ),
    OperatorDeclaration(
        name="PolyXTrimming",
        target=f"{_OPERATORS}.poly_x:PolyXTrimming",
        summary="Trims tails of one letter, such as the G of two-colour sequencers, by fastp's rule.",
        reads=("reads", "read_lengths", "base_weights"),
        writes=("base_weights",),
        example=f"{_OPERATORS}.examples.complexity:poly_x_trimming",
    ),
)
