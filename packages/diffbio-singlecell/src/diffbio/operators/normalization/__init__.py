"""From counts to embeddings: depth, scale, gene selection and projection, each a differentiable operator."""

from diffbio.operators.normalization.gene_selection import (
    GeneSelection,
    GeneSelectionConfig,
    SelectedGenes,
    seurat_dispersion,
    seurat_v3_trend,
    seurat_v3_variance,
    standardized_scores,
)
from diffbio.operators.normalization.library_size import (
    LibrarySizeNormalization,
    LibrarySizeNormalizationConfig,
    NormalizedCounts,
    normalize_library_size,
)
from diffbio.operators.normalization.projection import (
    PCAProjection,
    PCAProjectionConfig,
    PrincipalComponents,
    Projected,
    principal_components,
    project,
)
from diffbio.operators.normalization.scaling import (
    Moments,
    ScaledExpression,
    Scaling,
    ScalingConfig,
    merge_moments,
    moments,
    standardize,
)

__all__ = [
    "GeneSelection",
    "GeneSelectionConfig",
    "LibrarySizeNormalization",
    "LibrarySizeNormalizationConfig",
    "Moments",
    "NormalizedCounts",
    "PCAProjection",
    "PCAProjectionConfig",
    "PrincipalComponents",
    "Projected",
    "ScaledExpression",
    "Scaling",
    "ScalingConfig",
    "SelectedGenes",
    "merge_moments",
    "moments",
    "normalize_library_size",
    "principal_components",
    "project",
    "seurat_dispersion",
    "seurat_v3_trend",
    "seurat_v3_variance",
    "standardize",
    "standardized_scores",
]
