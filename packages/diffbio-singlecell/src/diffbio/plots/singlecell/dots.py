"""Expression of genes in groups of cells: a dot's colour is the mean, its area the share of cells that express."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from diffbio.core.errors import ContractError
from diffbio.plots.singlecell.style import FRAME, INK, color_bar, crop, figure_of, frame, inches

_STEP = 0.28  # inches between two genes, or two groups
_LARGEST = 0.85 * 72 * _STEP  # points: the diameter of the dot of a gene that all cells express
_SHARES = (0.25, 0.5, 0.75, 1.0)
_KEY_WIDTH, _BAR, _KEYS = 1.15, 0.95, 2.5  # inches: the width of the key of sizes, the length of the colour bar, both


class GroupExpression(NamedTuple):
    """How groups of cells express genes.

    Attributes:
        mean: Mean over the cells of a group (groups, genes), in the unit of the expression; NaN for an empty group.
        fraction: Share of its cells with expression above 0 (groups, genes); NaN likewise.
        cells: Number of cells, or sum of memberships (groups,).
    """

    mean: Float[np.ndarray, "groups genes"]
    fraction: Float[np.ndarray, "groups genes"]
    cells: Float[np.ndarray, " groups"]


def group_expression(
    expression: Float[np.ndarray, "cells genes"],
    groups: Int[np.ndarray, " cells"] | Float[np.ndarray, "cells groups"],
    n_groups: int,
) -> GroupExpression:
    """Return means and expressing shares of genes in groups, soft or hard.

    Args:
        expression: At least 0 where not expressed is 0 (cells, genes).
        groups: Codes from 0 to `n_groups` - 1, or -1 for cells of no group (cells,); or memberships of at least 0,
            such as soft cluster assignments (cells, groups).
        n_groups: Number of groups.

    Raises:
        ContractError: Not one row of groups per cell, or codes out of range.

    Example:
        >>> group_expression(np.array([[0.0], [4.0], [1.0]]), np.array([0, 0, 1]), 2).mean.ravel().tolist()
        [2.0, 1.0]
    """
    expression, groups = np.asarray(expression, dtype=float), np.asarray(groups)
    soft = groups.ndim == 2
    if expression.ndim != 2 or len(groups) != len(expression) or (soft and groups.shape[1] != n_groups):
        raise ContractError(
            f"expression has the shape {expression.shape} and groups {groups.shape} for {n_groups} groups; "
            "(cells, genes) and (cells,) or (cells, groups) are needed"
        )
    if not soft and (not np.issubdtype(groups.dtype, np.integer) or groups.min() < -1 or groups.max() >= n_groups):
        raise ContractError(
            f"codes of groups are {groups.dtype} from {groups.min()} to {groups.max()}; integers from 0 to "
            f"{n_groups - 1}, or -1, are needed"
        )
    members = groups.astype(float) if soft else (groups[:, None] == np.arange(n_groups)).astype(float)
    cells = members.sum(axis=0)
    share = members / np.where(cells > 0, cells, np.nan)
    return GroupExpression(share.T @ expression, share.T @ (expression > 0), cells)


def dot_plot(
    expression: Float[np.ndarray, "cells genes"],
    groups: Int[np.ndarray, " cells"] | Float[np.ndarray, "cells groups"],
    *,
    genes: Sequence[str],
    names: Sequence[str],
    label: str = "mean expression",
    scale_genes: bool = False,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw genes by groups of cells: colour is the mean expression, area the share of cells that express the gene.

    Args:
        expression: Of the genes to draw (cells, genes), such as log-normalized counts; 0 is not expressed.
        groups: Codes of the cells (cells,), from 0 to `len(names) - 1`, or -1 for cells that are left out; or soft
            memberships (cells, groups), by which cells then weigh.
        genes: Names of the genes, from left to right.
        names: Names of the groups, from top to bottom.
        label: What the colour is, with its unit.
        scale_genes: Scale each gene's means to [0, 1] over the groups, so that weak genes show too.
        title: Text above.
        ax: Draw into these axes instead of those of a new figure, whose size fits the dots. Yours should have their
            final size, by which dots are scaled, and room right of them for the keys.

    Returns:
        The axes; `ax.figure.savefig(...)` saves them.

    Raises:
        ContractError: Shapes, names or codes that do not fit.

    Example:
        >>> ax = dot_plot(np.eye(3, 2), np.array([0, 1, 1]), genes=["CD19", "CD3E"], names=["B", "T"])
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['B (1)', 'T (2)']
    """
    found = group_expression(expression, groups, len(names))
    if found.mean.shape[1] != len(genes):
        raise ContractError(f"expression has {found.mean.shape[1]} columns for {len(genes)} names of genes")
    mean = _scaled(found.mean) if scale_genes else found.mean
    is_new = ax is None
    if ax is None:
        width, height = _STEP * (len(genes) + 0.4), _STEP * (len(names) + 0.4)
        ax = Figure(figsize=(width, height), dpi=150).add_axes((0, 0, 1, 1))
    ax.set_xlim(-0.7, len(genes) - 0.3)
    ax.set_ylim(len(names) - 0.3, -0.7)
    width, height = inches(ax)
    largest = min(_LARGEST, 0.85 * 72 * width / (len(genes) + 0.4), 0.85 * 72 * height / (len(names) + 0.4))
    rows, columns = np.nonzero(np.nan_to_num(found.fraction) > 0)
    drawn = ax.scatter(
        columns,
        rows,
        s=largest**2 * found.fraction[rows, columns],
        c=mean[rows, columns],
        cmap="YlGnBu",
        vmin=0,
        edgecolors=FRAME,
        linewidths=0.4,
    )
    ax.set_xticks(range(len(genes)), genes, rotation=90)
    cells = [f"{count:.0f}" if count == round(count) else f"{count:.1f}" for count in found.cells]
    ax.set_yticks(range(len(names)), [f"{name} ({count})" for name, count in zip(names, cells, strict=True)])
    ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    frame(ax, title)
    _key_of_sizes(ax, largest)
    has_room_below = height > _KEYS
    gap, length = (0.15, _BAR / height) if has_room_below else (_KEY_WIDTH, 1.0)
    color_bar(ax, drawn, "scaled " + label if scale_genes else label, gap=gap, height=length)
    if is_new:
        crop(figure_of(ax))
    return ax


def _scaled(mean: Float[np.ndarray, "groups genes"]) -> Float[np.ndarray, "groups genes"]:
    low, high = np.nanmin(mean, axis=0), np.nanmax(mean, axis=0)
    return (mean - low) / np.where(high > low, high - low, 1)


def _key_of_sizes(ax: Axes, largest: float) -> None:
    """Explain the areas, right of the axes at their top."""
    dots = [
        Line2D([], [], marker="o", ls="", ms=largest * share**0.5, mfc="#999999", mec=FRAME, mew=0.4)
        for share in _SHARES
    ]
    ax.legend(
        dots,
        [f"{share:.0%}" for share in _SHARES],
        title="cells expressing",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=7,
        title_fontsize=8,
        labelspacing=max(0.3, (largest - 7) / 7 * 0.8),  # in heights of the font: dots do not touch
        handletextpad=0.6,
        labelcolor=INK,
        alignment="left",
    )
