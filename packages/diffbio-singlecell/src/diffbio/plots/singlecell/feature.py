"""Cells as points in two dimensions, coloured by a value: the expression of a gene, a pseudotime."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffbio.core.errors import ContractError
from diffbio.plots.singlecell.style import MISSING, color_bar, crop, figure_of, frame, point_size, square

_PANEL = 3.3  # inches


def feature_plot(
    coordinates: Float[np.ndarray, "cells 2"],
    values: Float[np.ndarray, " cells"],
    *,
    label: str = "",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw cells as points coloured by a value, high values on top.

    Args:
        coordinates: Positions (cells, 2), such as a UMAP.
        values: One number per cell (cells,); cells of NaN are drawn grey, below the others.
        label: What the numbers are, with their unit, for the colour bar.
        title: Text above.
        ax: Draw into these axes instead of those of a new figure.

    Returns:
        The axes; `ax.figure.savefig(...)` saves them. Points are rasterized in a PDF or SVG.

    Raises:
        ContractError: Arrays of another shape, coordinates or values that are infinite, or no value at all.

    Example:
        >>> feature_plot(np.eye(3, 2), np.array([0.0, 2.0, 1.0]), title="CD3E").get_title()
        'CD3E'
    """
    coordinates, values = np.asarray(coordinates, dtype=float), np.asarray(values, dtype=float)
    if values.ndim != 1 or coordinates.shape != (len(values), 2):
        raise ContractError(
            f"coordinates have the shape {coordinates.shape} and values {values.shape}; "
            "(cells, 2) and (cells,) are needed"
        )
    if not np.isfinite(coordinates).all() or np.isinf(values).any() or np.isnan(values).all():
        raise ContractError("coordinates must be finite, and values finite or NaN, but not all NaN")
    is_new = ax is None
    if ax is None:
        ax = Figure(figsize=(_PANEL, _PANEL), dpi=150).add_axes((0, 0, 1, 1))
    style = {"s": point_size(len(values)), "linewidths": 0, "rasterized": True}
    missing = np.isnan(values)
    ax.scatter(*coordinates[missing].T, color=MISSING, **style)
    order = np.flatnonzero(~missing)[np.argsort(values[~missing], kind="stable")]
    drawn = ax.scatter(*coordinates[order].T, c=values[order], cmap="viridis", **style)
    square(ax, coordinates)
    frame(ax, title)
    color_bar(ax, drawn, label, gap=0.1, bottom=0.2, height=0.6)
    if is_new:
        crop(figure_of(ax))
    return ax
