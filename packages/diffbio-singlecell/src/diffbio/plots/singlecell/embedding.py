"""Cells as points in two dimensions, coloured by type, in colours that colour-blind readers tell apart.

The first six colours are those of Okabe and Ito (2008); the other fourteen were chosen to be far
from all before them, in OKLab, for normal, deuteranopic and protanopic vision (the simulation of
Machado et al. 2009). Twenty colours are still many: `on_data=True` writes the names beside the cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from diffbio.core.errors import ContractError
from diffbio.plots.singlecell.style import INK, MISSING, crop, figure_of, frame, point_size, square

# fmt: off
_PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5D061F", "#37137F", "#ECB6B9", "#763676",
    "#B5DA6A", "#226B4C", "#00364A", "#6E83F3", "#4841AF", "#38E1FA", "#AC3A09", "#74BF7A", "#A14F83", "#8D0805",
)
# fmt: on
_PANEL, _GAP = 3.3, 0.15  # inches: the side of a panel, and between two
_RASTER = 120  # steps per side of a panel when looking for room for a name


def embedding_plot(
    coordinates: Float[np.ndarray, "cells 2"],
    labels: Int[np.ndarray, " cells"],
    *,
    names: Sequence[str],
    title: str | None = None,
    on_data: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw cells as points coloured by label, rare types on top.

    Args:
        coordinates: Positions (cells, 2), such as a UMAP or the first two principal components.
        labels: Code of each cell (cells,), from 0 to `len(names) - 1`; -1 is drawn grey, below the others.
        names: Names of the codes, at most 20.
        title: Text above.
        on_data: Write each name near the median of its cells, with a line to it; by default the names
            and the numbers of cells are in a legend at the right.
        ax: Draw into these axes, with no legend unless on the data, instead of a new figure. They should have their
            final size, by which names are placed.

    Returns:
        The axes; `ax.figure.savefig(...)` saves them. Points are rasterized in a PDF or SVG.

    Raises:
        ContractError: Arrays of another shape, coordinates that are not finite, a label without a name,
            or more than 20 names.

    Example:
        >>> ax = embedding_plot(np.eye(3, 2), np.array([0, 1, 1]), names=["B", "T"], title="Blood")
        >>> ax.get_title()
        'Blood'
    """
    coordinates, labels = _checked(coordinates, labels, names, title or "the plot")
    if ax is None:
        return _draw({title: coordinates}, labels, names, on_data).axes[0]
    _scatter(ax, coordinates, labels, names, title)
    if on_data:
        _name_clusters(ax, coordinates, labels, names)
    return ax


def embedding_panels(
    coordinates: Mapping[str, Float[np.ndarray, "cells 2"]],
    labels: Int[np.ndarray, " cells"],
    names: Sequence[str],
    *,
    on_data: bool = False,
) -> Figure:
    """Draw several embeddings of the same cells side by side, with one legend.

    Args:
        coordinates: Title to positions (cells, 2), such as `{"frozen": ..., "joint": ...}`.
        labels: Code of each cell (cells,), from 0 to `len(names) - 1`, or -1.
        names: Names of the codes, at most 20.
        on_data: Write the names near the medians instead of in a legend.

    Returns:
        The figure, for the caller to save.

    Raises:
        ContractError: As `embedding_plot` does, or no panel at all.

    Example:
        >>> cells = np.eye(3, 2)
        >>> figure = embedding_panels({"frozen": cells, "joint": 2 * cells}, np.array([0, 1, 1]), ["B", "T"])
        >>> [ax.get_title() for ax in figure.axes]
        ['frozen', 'joint']
    """
    if not coordinates:
        raise ContractError("no coordinates were given; give one array (cells, 2) per panel, by title")
    checked = {title: _checked(each, labels, names, title)[0] for title, each in coordinates.items()}
    return _draw(checked, np.asarray(labels), names, on_data)


def _draw(coordinates: Mapping[Any, np.ndarray], labels: np.ndarray, names: Sequence[str], on_data: bool) -> Figure:
    """A new figure with one panel per title."""
    figure, axes = _panels(len(coordinates))
    for ax, (title, each) in zip(axes, coordinates.items(), strict=True):
        _scatter(ax, each, labels, names, title)
    if not on_data:
        _legend(axes[-1], labels, names)
    crop(figure)
    if on_data:
        for ax, each in zip(axes, coordinates.values(), strict=True):
            _name_clusters(ax, each, labels, names)
    return figure


def _checked(
    coordinates: np.ndarray, labels: np.ndarray, names: Sequence[str], what: str
) -> tuple[np.ndarray, np.ndarray]:
    coordinates, labels = np.asarray(coordinates, dtype=float), np.asarray(labels)
    if coordinates.shape != (len(labels), 2) or not len(labels):
        raise ContractError(
            f"coordinates of {what!r} have the shape {coordinates.shape} for {len(labels)} labels; "
            "(cells, 2) is needed: reduce an embedding to two dimensions first, by UMAP for instance"
        )
    if not np.isfinite(coordinates).all():
        raise ContractError(f"coordinates of {what!r} hold NaN or infinity; drop those cells first")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < -1 or labels.max() >= len(names):
        raise ContractError(
            f"labels are {labels.dtype} from {labels.min()} to {labels.max()} for {len(names)} names; "
            f"integers from 0 to {len(names) - 1}, or -1 for unlabelled, are needed"
        )
    if len(names) > len(_PALETTE):
        raise ContractError(
            f"{len(names)} names were given and readers can tell {len(_PALETTE)} colours apart at most; "
            "group the types, or give the others the label -1"
        )
    return coordinates, labels


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with square panels in a row."""
    figure = Figure(figsize=(count * (_PANEL + _GAP), _PANEL), dpi=150)
    step = 1 / count
    panel = step * _PANEL / (_PANEL + _GAP)
    return figure, [figure.add_axes((column * step, 0, panel, 1)) for column in range(count)]


def _scatter(ax: Axes, coordinates: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str | None) -> None:
    """Points by type: the unlabelled first, then from the largest type to the smallest."""
    size = point_size(len(labels))
    codes = sorted(range(len(names)), key=lambda code: -np.count_nonzero(labels == code))
    for code in [-1, *codes]:
        chosen = coordinates[labels == code]
        ax.scatter(*chosen.T, s=size, color=_color(code), linewidths=0, alpha=0.9, rasterized=True)
    square(ax, coordinates)
    frame(ax, title)


def _color(code: int) -> str:
    return _PALETTE[code] if code >= 0 else MISSING


def _legend(ax: Axes, labels: np.ndarray, names: Sequence[str]) -> None:
    """Names with the number of cells, right of the axes."""
    entries = [(code, f"{name} ({np.count_nonzero(labels == code)})") for code, name in enumerate(names)]
    if (labels < 0).any():
        entries.append((-1, f"unlabelled ({np.count_nonzero(labels < 0)})"))
    ax.legend(
        [Line2D([], [], marker="o", ls="", color=_color(code), ms=6) for code, _ in entries],
        [text for _, text in entries],
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handletextpad=0.1,
        labelspacing=0.45 if len(entries) <= 14 else 0.3,
    )


def _name_clusters(ax: Axes, coordinates: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    """Write each name near the median of its cells, with a line to it, where it hides few cells."""
    renderer = FigureCanvasAgg(figure_of(ax)).get_renderer()
    to_pixels = ax.transData
    area = ax.get_window_extent(renderer)
    free = _FreeSpace(to_pixels.transform(coordinates), np.array(area.min), np.array(area.max))
    for code in sorted(range(len(names)), key=lambda code: -np.count_nonzero(labels == code)):
        if not (labels == code).any():
            continue
        x, y = np.median(coordinates[labels == code], axis=0)
        halo = [withStroke(linewidth=2, foreground="white")]
        style = {"fontsize": 7.5, "color": INK, "path_effects": halo, "zorder": 5}
        text = ax.text(x, y, names[code], ha="center", va="center", **style)
        box = text.get_window_extent(renderer)
        size = np.array([box.width + 6, box.height + 4])
        anchor = to_pixels.transform((x, y))
        place = free.take(anchor, size)
        edge = np.clip(anchor, place - size / 2, place + size / 2)
        (text_x, text_y), (line_x, line_y) = to_pixels.inverted().transform([place, edge])
        text.set_position((text_x, text_y))
        ax.plot([x, line_x], [y, line_y], color=INK, linewidth=0.7, zorder=4, path_effects=halo)


class _FreeSpace:
    """Where names can go: counts of cells in a raster of the panel, and the names that are placed.

    Args:
        cells: Positions of the cells (cells, 2), in pixels.
        low: Lower left corner of the panel (2,), in pixels.
        high: Upper right corner.
    """

    def __init__(self, cells: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        self.low, self.high = low, high
        bounds = [np.linspace(low[axis], high[axis], _RASTER + 1) for axis in (0, 1)]
        counts, _, _ = np.histogram2d(*cells.T, bins=bounds)
        # Summed from the corner, so that any rectangle's count is four look-ups.
        self.summed = np.pad(counts.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        self.share = _RASTER / (high - low)
        self.taken: list[tuple[np.ndarray, np.ndarray]] = []

    def take(self, anchor: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Return the best centre for a box of this size, and keep it free of later boxes.

        Best is near the anchor (in heights of the box) and hides few cells (as a share of all).
        """
        low, high = self.low + size / 2, self.high - size / 2
        x, y = (np.linspace(low[axis], max(low[axis], high[axis]), _RASTER) for axis in (0, 1))
        centres = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        corner = [
            np.clip(((centres + side * size / 2 - self.low) * self.share).round().astype(int), 0, _RASTER)
            for side in (-1, 1)
        ]
        (left, bottom), (right, top) = corner[0].T, corner[1].T
        total = self.summed
        hidden = total[right, top] - total[left, top] - total[right, bottom] + total[left, bottom]
        beyond = np.maximum(np.abs(centres - anchor) - size / 2, 0)
        cost = np.hypot(*beyond.T) / size[1] + 300 * hidden / total[-1, -1]
        for centre, other in self.taken:
            cost[(np.abs(centres - centre) < (size + other) / 2).all(axis=1)] += 1e6
        best = centres[cost.argmin()]
        self.taken.append((best, size))
        return best
