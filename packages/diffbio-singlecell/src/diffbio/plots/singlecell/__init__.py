"""Figures of cells: embeddings by type or value, confusion of types, expression in groups, curves of training."""

from diffbio.plots.singlecell.annotation import annotation_figures, planar
from diffbio.plots.singlecell.confusion import confusion_plot
from diffbio.plots.singlecell.dots import GroupExpression, dot_plot, group_expression
from diffbio.plots.singlecell.embedding import embedding_panels, embedding_plot
from diffbio.plots.singlecell.feature import feature_plot
from diffbio.plots.singlecell.training import training_curve

__all__ = [
    "GroupExpression",
    "annotation_figures",
    "confusion_plot",
    "dot_plot",
    "embedding_panels",
    "embedding_plot",
    "feature_plot",
    "group_expression",
    "planar",
    "training_curve",
]
