"""The figures of an annotated dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from diffbio.plots.singlecell.confusion import confusion_plot
from diffbio.plots.singlecell.embedding import embedding_plot
from diffbio.plots.singlecell.style import figure_of

_PERPLEXITY = 30.0  # scikit-learn's default


def planar(embeddings: Float[np.ndarray, "cells features"]) -> Float[np.ndarray, "cells 2"]:
    """Return a map of cells in the plane: the embedding itself if it has two dimensions, else its t-SNE.

    Started at the first principal components, so that it is the same on each call.

    Args:
        embeddings: At least 5 cells; the more features, the more the map leaves out.

    Example:
        >>> planar(np.eye(4, 2)).shape
        (4, 2)
    """
    if embeddings.shape[1] == 2:
        return embeddings
    perplexity = min(_PERPLEXITY, (len(embeddings) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(embeddings)


def annotation_figures(
    dataset: Any, results: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> dict[str, Figure]:
    """Return the figures that results of annotation allow; none where there are no cell types.

    Args:
        dataset: The dataset that the results are of.
        results: Holds `cell_type_probabilities` (cells, classes) and, for the map, `embeddings` (cells, features).
        metadata: Holds `classes`, the names of the cell types.

    Returns:
        `embedding`: cells coloured by predicted type. `confusion`: where the dataset has labels.
    """
    probabilities, names = results.get("cell_type_probabilities"), metadata.get("classes")
    if probabilities is None or not names:
        return {}
    predicted = probabilities.argmax(axis=1)
    figures = {}
    if "embeddings" in results:
        coordinates = planar(results["embeddings"])
        ax = embedding_plot(coordinates, predicted, names=names, title="predicted cell types")
        figures["embedding"] = figure_of(ax)
    labels = dataset.take(np.arange(len(dataset))).get("labels")
    if labels is not None and (labels >= 0).any():
        known = labels >= 0
        ax = confusion_plot(labels[known], predicted[known], names, title="all labelled cells")
        figures["confusion"] = figure_of(ax)
    return figures
