"""Declarations: linear maps of cells, and their components."""

from diffbio.core.hookspecs import OperatorDeclaration

OPERATORS = (
    OperatorDeclaration(
        name="PrincipalComponentAnalysis",
        target="diffbio.operators.normalization.pca:PrincipalComponentAnalysis",
        summary="Principal components of the cells at hand, with gradients through the decomposition.",
        reads=("scaled",),
        writes=("embeddings", "loadings", "explained_variance"),
        example="diffbio.operators.normalization.examples.pca:principal_component_analysis",
    ),
    OperatorDeclaration(
        name="OrthonormalProjection",
        target="diffbio.operators.normalization.orthonormal_projection:OrthonormalProjection",
        summary="Learnable projection whose directions stay orthonormal.",
        reads=("scaled",),
        writes=("embeddings",),
        example="diffbio.operators.normalization.examples.orthonormal_projection:orthonormal_projection",
    ),
    OperatorDeclaration(
        name="ComponentSelection",
        target="diffbio.operators.normalization.component_selection:ComponentSelection",
        summary="Soft, learnable number of components by explained variance.",
        reads=("embeddings",),
        writes=("component_gate", "selected_embeddings"),
        example="diffbio.operators.normalization.examples.component_selection:component_selection",
    ),
)
