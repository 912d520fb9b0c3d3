"""Figures of cells: embeddings coloured by type, and confusion between types."""

from diffbio.plots.singlecell.annotation import annotation_figures, planar
from diffbio.plots.singlecell.confusion import confusion_plot
from diffbio.plots.singlecell.embedding import embedding_panels, embedding_plot

__all__ = ["annotation_figures", "confusion_plot", "embedding_panels", "embedding_plot", "planar"]
