"""Operators on cells: clustering, imputation, pseudotime, annotation, and the neighbour graphs that they stand on."""

from diffbio.operators.singlecell.annotation import CellTypeClassifier, CellTypeClassifierConfig
from diffbio.operators.singlecell.clustering import (
    Clusters,
    SoftClusteringConfig,
    SoftKMeansClustering,
    kmeans_plus_plus,
    soft_kmeans,
)
from diffbio.operators.singlecell.imputation import (
    DiffusionImputation,
    DiffusionImputationConfig,
    ImputedCounts,
    diffusion_imputation,
)
from diffbio.operators.singlecell.neighbors import Neighbors, nearest_neighbors
from diffbio.operators.singlecell.pseudotime import (
    DiffusionPseudotime,
    DiffusionPseudotimeConfig,
    Pseudotime,
    diffusion_pseudotime,
)

__all__ = [
    "CellTypeClassifier",
    "CellTypeClassifierConfig",
    "Clusters",
    "DiffusionImputation",
    "DiffusionImputationConfig",
    "DiffusionPseudotime",
    "DiffusionPseudotimeConfig",
    "ImputedCounts",
    "Neighbors",
    "Pseudotime",
    "SoftClusteringConfig",
    "SoftKMeansClustering",
    "diffusion_imputation",
    "diffusion_pseudotime",
    "kmeans_plus_plus",
    "nearest_neighbors",
    "soft_kmeans",
]
