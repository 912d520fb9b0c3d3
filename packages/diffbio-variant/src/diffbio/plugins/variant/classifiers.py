"""Classifiers of sites, as the registry lists them: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import OperatorDeclaration

_DRAWN = (
    "reads",
    "qualities",
    "base_positions",
    "reference",
    "alignment_score",
    "haplotypes",
    "haplotype_lengths",
    "insertions",
    "deletions",
    "mapping_qualities",
    "reverse_strand",
    "read_lengths",
    "read_mask",
    "base_weights",
    "read_weights",
)
_BELIEVED = ("classifier_logits", "classifier_posteriors", "classifier_qualities")

OPERATORS = (
    OperatorDeclaration(
        name="PileupImage",
        target="diffbio.operators.variant.pileup_image:PileupImage",
        summary="Draws the reads over each site as an image, in the channels of DeepVariant.",
        reads=_DRAWN,
        writes=("pileup_image", "image_mask"),
        example="diffbio.operators.variant.examples.pileup_image:pileup_image",
    ),
    OperatorDeclaration(
        name="ImageClassifier",
        target="diffbio.operators.variant.image_classifier:ImageClassifier",
        summary="Tells the genotype of a site by a convolutional network that sees the image of its reads.",
        reads=("pileup_image", "image_mask", "call_posteriors", "variant_kind"),
        writes=_BELIEVED,
        example="diffbio.operators.variant.examples.image_classifier:image_classifier",
        objective="genotype_cross_entropy",
    ),
    OperatorDeclaration(
        name="ReadPoolingClassifier",
        target="diffbio.operators.variant.read_pooling:ReadPoolingClassifier",
        summary="Tells the genotype of a site by its reads as a set: each is encoded alone, then they are pooled.",
        reads=(*_DRAWN, "call_posteriors", "variant_kind"),
        writes=_BELIEVED,
        example="diffbio.operators.variant.examples.read_pooling:read_pooling_classifier",
        objective="genotype_cross_entropy",
    ),
)
