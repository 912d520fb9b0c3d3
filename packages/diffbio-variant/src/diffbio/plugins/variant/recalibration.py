"""Operators of base qualities, as the registry lists them: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="BaseQualityRecalibration",
        target="diffbio.operators.variant.recalibration:BaseQualityRecalibration",
        summary="Corrects base qualities by read group, reported quality, machine cycle and dinucleotide (BQSR).",
        reads=(
            "reads",
            "qualities",
            "reverse_strand",
            "second_in_pair",
            "read_groups",
            "read_lengths",
            "read_offsets",
            "full_lengths",
            "read_mask",
        ),
        writes=("recalibrated_qualities",),
        example="diffbio.operators.variant.examples.recalibration:base_quality_recalibration",
        objective="mismatch_cross_entropy",
    ),
)
