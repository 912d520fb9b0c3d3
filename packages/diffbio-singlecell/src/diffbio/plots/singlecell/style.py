"""What the figures have in common: ink, frame, colour bars, and a page cropped to what is drawn."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from diffbio.core.errors import ContractError

INK = "#222222"
FRAME = "#BBBBBB"
MISSING = "#D0D0D0"
"""The colour of cells without a label or a value."""

_MARGIN = 0.06  # inches


def frame(ax: Axes, title: str | None) -> None:
    """Give axes the thin frame and the title of all figures."""
    ax.spines[:].set(color=FRAME, linewidth=0.6)
    if title:
        ax.set_title(title, fontsize=10, color=INK)


def figure_of(ax: Axes) -> Figure:
    """Return the figure of axes, which may lie in a subfigure.

    Raises:
        ContractError: They are in none.
    """
    figure = ax.get_figure(root=True)
    if not isinstance(figure, Figure):
        raise ContractError("the axes given belong to no figure; make them with Figure().add_subplot()")
    return figure


def inches(ax: Axes) -> tuple[float, float]:
    """Return width and height of axes."""
    box = ax.get_window_extent(FigureCanvasAgg(figure_of(ax)).get_renderer())
    dpi = figure_of(ax).dpi
    return box.width / dpi, box.height / dpi


def square(ax: Axes, coordinates: Float[np.ndarray, "cells 2"]) -> None:
    """Set limits to a square of equal units, without ticks: a distance means the same along both axes."""
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    half = 0.53 * (float((high - low).max()) or 1.0 + float(np.abs(high).max()))
    ax.set_xlim((low[0] + high[0]) / 2 - half, (low[0] + high[0]) / 2 + half)
    ax.set_ylim((low[1] + high[1]) / 2 - half, (low[1] + high[1]) / 2 + half)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])


def point_size(cells: int) -> float:
    """Return the area of a point, in square points, at which so many cells fill a panel but do not hide each other."""
    return float(np.clip(40_000 / cells, 0.6, 16))


def color_bar(
    ax: Axes,
    drawn: ScalarMappable,
    label: str,
    *,
    gap: float,
    bottom: float = 0.0,
    height: float = 1.0,
    ticks: list[float] | None = None,
) -> Axes:
    """Draw a thin colour bar right of axes, as a part of them.

    Args:
        ax: The axes.
        drawn: What has the colours.
        label: Text beside the bar.
        gap: Inches between the axes and the bar.
        bottom: Where the bar starts, as a share of the height of the axes.
        height: Its length, likewise.
        ticks: Where to write numbers; by default matplotlib's choice.

    Returns:
        The axes of the bar.
    """
    width, _ = inches(ax)
    beside = ax.inset_axes((1 + gap / width, bottom, 0.12 / width, height))
    bar = figure_of(ax).colorbar(drawn, cax=beside, ticks=ticks)
    bar.set_label(label, fontsize=8, color=INK)
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=INK)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return beside


def crop(figure: Figure) -> None:
    """Resize the page to what is drawn on it; axes and text keep their size in inches."""
    drawn = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    width, height = figure.get_size_inches()
    new_width, new_height = drawn.width + 2 * _MARGIN, drawn.height + 2 * _MARGIN
    places = [ax.get_position(original=True) for ax in figure.axes]
    figure.set_size_inches(new_width, new_height)
    for ax, place in zip(figure.axes, places, strict=True):
        ax.set_position(
            (
                (place.x0 * width - drawn.x0 + _MARGIN) / new_width,
                (place.y0 * height - drawn.y0 + _MARGIN) / new_height,
                place.width * width / new_width,
                place.height * height / new_height,
            )
        )
