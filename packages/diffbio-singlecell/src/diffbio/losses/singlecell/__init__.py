"""Losses of single-cell analysis: pure functions of the data dict that a pipeline returns."""

from diffbio.losses.singlecell.annotation import cell_type_cross_entropy
from diffbio.losses.singlecell.batch import (
    adversarial_batch_correction,
    batch_reconstruction,
    maximum_mean_discrepancy,
    median_squared_distance,
    mmd_batch_correction,
)
from diffbio.losses.singlecell.clustering import cluster_compactness
from diffbio.losses.singlecell.doublets import doublet_cross_entropy
from diffbio.losses.singlecell.elbo import negative_elbo, semi_supervised_elbo
from diffbio.losses.singlecell.kbet import batch_kbet, kbet, kbet_statistics
from diffbio.losses.singlecell.map import tsne_divergence, umap_cross_entropy
from diffbio.losses.singlecell.masked_values import masked_values
from diffbio.losses.singlecell.mixing import batch_lisi, cell_type_lisi, lisi, perplexity_weights
from diffbio.losses.singlecell.modularity import modularity_loss
from diffbio.losses.singlecell.ordering import pseudotime_disorder
from diffbio.losses.singlecell.silhouette import (
    batch_silhouette,
    cell_type_silhouette,
    cluster_silhouette,
    silhouette_batch,
    silhouette_samples,
    silhouette_score,
)

__all__ = [
    "adversarial_batch_correction",
    "batch_kbet",
    "batch_lisi",
    "batch_reconstruction",
    "batch_silhouette",
    "cell_type_cross_entropy",
    "cell_type_lisi",
    "cell_type_silhouette",
    "cluster_compactness",
    "cluster_silhouette",
    "doublet_cross_entropy",
    "kbet",
    "kbet_statistics",
    "lisi",
    "masked_values",
    "maximum_mean_discrepancy",
    "median_squared_distance",
    "mmd_batch_correction",
    "modularity_loss",
    "negative_elbo",
    "perplexity_weights",
    "pseudotime_disorder",
    "semi_supervised_elbo",
    "silhouette_batch",
    "silhouette_samples",
    "silhouette_score",
    "tsne_divergence",
    "umap_cross_entropy",
]
