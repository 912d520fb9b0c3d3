"""Filters of variants, as the registry lists them: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="SoftVariantFilter",
        target="diffbio.operators.variant.variant_filter:SoftVariantFilter",
        summary="Filters variants by thresholds of their annotations that can be learned.",
        reads=("variant_features", "kind", "variant_mask"),
        writes=("pass_probability", "filter_reasons"),
        example="diffbio.operators.variant.examples.variant_filter:soft_variant_filter",
        objective="soft_f_beta_loss",
    ),
)
