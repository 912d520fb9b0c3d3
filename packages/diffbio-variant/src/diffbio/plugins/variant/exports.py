"""What operators of variants learned, as files of the field: declarations only, so that listing imports no JAX."""

from diffbio.core.hookspecs import ExporterDeclaration

EXPORTERS = (
    ExporterDeclaration(
        name="table_of_BaseQualityRecalibration",
        target="diffbio.pipelines.variant.exports:export_recalibration",
        summary="Report of recalibration, as GATK's ApplyBQSR reads it.",
        operator="BaseQualityRecalibration",
        suffix=".table",
    ),
    ExporterDeclaration(
        name="expression_of_SoftVariantFilter",
        target="diffbio.pipelines.variant.exports:export_filter",
        summary="Thresholds as an expression that bcftools excludes by.",
        operator="SoftVariantFilter",
        suffix=".exclude.txt",
    ),
)
