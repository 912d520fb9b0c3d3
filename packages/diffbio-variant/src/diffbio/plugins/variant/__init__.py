"""What diffbio-variant brings to the registry: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import Declaration, Plugin, ReaderDeclaration, WriterDeclaration, hookimpl
from diffbio.plugins.variant import classifiers, copy_number, filters, genotypes, recalibration
from diffbio.plugins.variant.exports import EXPORTERS

_FAMILIES = (genotypes, classifiers, recalibration, filters, copy_number)


@hookimpl
def diffbio_plugin() -> Plugin:
    """Return the operators of variant calling and copy number, their files, losses, the recipe and exporters."""
    return Plugin(
        api=1,
        operators=tuple(operator for family in _FAMILIES for operator in family.OPERATORS),
        readers=(
            ReaderDeclaration(
                name="aligned_reads",
                target="diffbio.pipelines.variant.sites:read_sites",
                summary="Candidate variants with the reads around them, from BAM or CRAM and a reference.",
                suffixes=(".bam", ".cram"),
            ),
        ),
        writers=(
            WriterDeclaration(
                name="calls",
                target="diffbio.pipelines.variant.calls:write_calls",
                summary="Called variants as VCF or BCF, with an index.",
                suffixes=(".vcf", ".vcf.gz", ".bcf"),
                reads=(
                    "classifier_posteriors",
                    "classifier_qualities",
                    "call_posteriors",
                    "call_qualities",
                    "call_log_likelihoods",
                    "allele_depths",
                ),
            ),
        ),
        losses=(
            Declaration(
                name="genotype_cross_entropy",
                target="diffbio.losses.variant.genotypes:genotype_cross_entropy",
                summary="The true genotype of each site, by a caller's logits.",
            ),
            Declaration(
                name="mismatch_cross_entropy",
                target="diffbio.losses.variant.recalibration:mismatch_cross_entropy",
                summary="Mismatches to the reference, by the errors that base qualities promise.",
            ),
            Declaration(
                name="filter_cross_entropy",
                target="diffbio.losses.variant.filtering:filter_cross_entropy",
                summary="Which variants are true, by the probability to pass a filter.",
            ),
            Declaration(
                name="soft_f_beta_loss",
                target="diffbio.losses.variant.filtering:soft_f_beta_loss",
                summary="One less a smooth F score of the variants that pass a filter.",
            ),
        ),
        recipes=(
            Declaration(
                name="reads-to-variants",
                target="diffbio.pipelines.variant.recipes:reads_to_variants",
                summary="Trimming, realignment, genotypes and a classifier, trained as one; needs diffbio-alignment.",
            ),
        ),
        exporters=EXPORTERS,
    )
