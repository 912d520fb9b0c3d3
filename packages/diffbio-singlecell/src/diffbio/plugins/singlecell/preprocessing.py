"""Declarations: from counts to embeddings."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="LibrarySizeNormalization",
        target="diffbio.operators.normalization:LibrarySizeNormalization",
        summary="Counts to log-normalized expression, with a learnable exponent and pseudocount.",
        reads=("counts",),
        writes=("normalized", "size_factors"),
        example="diffbio.operators.normalization.examples.library_size:library_size_normalization",
    ),
    OperatorDeclaration(
        name="Scaling",
        target="diffbio.operators.normalization:Scaling",
        summary="Genes to mean 0 and variance 1 by stored statistics.",
        reads=("normalized",),
        writes=("scaled",),
        example="diffbio.operators.normalization.examples.scaling:scaling",
    ),
    OperatorDeclaration(
        name="GeneSelection",
        target="diffbio.operators.normalization:GeneSelection",
        summary="Soft, learnable selection of highly variable genes (four flavors, batch-aware).",
        reads=("scaled",),
        writes=("gene_gate", "gated"),
        example="diffbio.operators.normalization.examples.gene_selection:gene_selection",
    ),
    OperatorDeclaration(
        name="PCAProjection",
        target="diffbio.operators.normalization:PCAProjection",
        summary="Projection onto principal components, fixed or learnable from there.",
        reads=("scaled",),
        writes=("embeddings",),
        example="diffbio.operators.normalization.examples.projection:pca_projection",
    ),
)
