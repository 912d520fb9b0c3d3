"""Losses of single-cell analysis: pure functions of the data dict that a pipeline returns."""

from diffbio.losses.singlecell.annotation import cell_type_cross_entropy
from diffbio.losses.singlecell.clustering import cluster_compactness

__all__ = ["cell_type_cross_entropy", "cluster_compactness"]
