"""Which types are taken for which: a confusion matrix, by rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffbio.core.errors import ContractError
from diffbio.plots.singlecell.style import INK, crop, frame


def confusion_plot(
    true: Int[np.ndarray, " cells"],
    predicted: Int[np.ndarray, " cells"],
    names: Sequence[str],
    *,
    title: str | None = None,
) -> Figure:
    """Draw a confusion matrix: numbers are cells, colour is the share of the row, recall at the right.

    Args:
        true: Code of each cell (cells,), from 0 to `len(names) - 1`; cells of -1 (no label) are left out.
        predicted: Predicted code of each cell (cells,), from 0 to `len(names) - 1`.
        names: Names of the codes.
        title: Text above.

    Returns:
        The figure, for the caller to save.

    Raises:
        ContractError: Codes of different length or without a name, or no labelled cell.

    >>> figure = confusion_plot(np.array([0, 0, 1]), np.array([0, 1, 1]), ["B", "T"])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['B (2)', 'T (1)']
    """
    counts = _confusion(np.asarray(true), np.asarray(predicted), len(names))
    sizes = counts.sum(axis=1)
    share = counts / np.maximum(sizes, 1)[:, None]

    side = 0.36 * len(names)  # inches
    figure = Figure(figsize=(2 * side, 2 * side), dpi=150)
    ax = figure.add_axes((0, 0, 0.5, 0.5))
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if share[row, column] > 0.55 else INK
        number = str(counts[row, column])
        ax.text(column, row, number, ha="center", va="center", fontsize=7.5, color=color)

    positions = range(len(names))
    ax.set_xticks(positions, names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(positions, [f"{name} ({size})" for name, size in zip(names, sizes, strict=True)])
    ax.set_xlabel("predicted", fontsize=9, color=INK)
    ax.set_ylabel("true (cells)", fontsize=9, color=INK)
    ax.set_xticks(np.arange(-0.5, len(names)), minor=True)
    ax.set_yticks(np.arange(-0.5, len(names)), minor=True)
    ax.grid(which="minor", color="white", linewidth=1)
    ax.tick_params(which="both", length=0, labelsize=8, labelcolor=INK)
    frame(ax, title)
    _mark_recall(ax, counts)

    bar_axes = figure.add_axes((0.5 + 0.3 / side, 0, 0.06 / side, 0.5))
    bar = figure.colorbar(image, cax=bar_axes, ticks=[0, 0.5, 1])
    bar.set_label("share of the row", fontsize=8, color=INK)
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=INK)
    bar.outline.set_visible(False)
    crop(figure)
    return figure


def _mark_recall(ax: Axes, counts: np.ndarray) -> None:
    """Write the share of each row that is on the diagonal at its right end."""
    right = ax.secondary_yaxis("right")
    rows = [(f"{row[code] / row.sum():.0%}" if row.any() else "-") for code, row in enumerate(counts)]
    right.set_yticks(range(len(rows)), rows)
    right.tick_params(length=0, labelsize=8, labelcolor=INK)
    right.spines[:].set_visible(False)
    ax.annotate("recall", (1, 1), (4, 4), "axes fraction", "offset points", fontsize=8, color=INK)


def _confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> Int[np.ndarray, "classes classes"]:
    """Cells by true (row) and predicted (column) class."""
    if true.ndim != 1 or true.shape != predicted.shape:
        raise ContractError(
            f"true codes have the shape {true.shape}, predicted ones {predicted.shape}; one of each per cell is needed"
        )
    labelled = true != -1
    true, predicted = true[labelled], predicted[labelled]
    if not len(true):
        raise ContractError("no cell has a true label, so there is nothing to compare")
    for what, codes in (("true", true), ("predicted", predicted)):
        if not np.issubdtype(codes.dtype, np.integer) or codes.min() < 0 or codes.max() >= classes:
            raise ContractError(
                f"{what} codes are {codes.dtype} from {codes.min()} to {codes.max()} for {classes} names; "
                f"integers from 0 to {classes - 1} are needed"
            )
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)
