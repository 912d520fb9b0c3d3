"""Which types are taken for which: a confusion matrix, by rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffbio.core.errors import ContractError
from diffbio.plots.singlecell.style import INK, color_bar, crop, figure_of, frame

_CELL = 0.36  # inches: the side of an entry


def confusion_plot(
    true: Int[np.ndarray, " cells"],
    predicted: Int[np.ndarray, " cells"],
    names: Sequence[str],
    *,
    title: str | None = None,
    true_label: str = "true",
    predicted_label: str = "predicted",
    ax: Axes | None = None,
) -> Axes:
    """Draw a confusion matrix: numbers are cells, colour is the share of the row, recall at the right.

    Args:
        true: Code of each cell (cells,), from 0 to `len(names) - 1`; cells of -1 (no label) are left out.
        predicted: Predicted code of each cell (cells,), from 0 to `len(names) - 1`.
        names: Names of the codes.
        title: Text above.
        true_label: What the rows are.
        predicted_label: What the columns are.
        ax: Draw into these axes instead of those of a new figure.

    Returns:
        The axes; `ax.figure.savefig(...)` saves them.

    Raises:
        ContractError: Codes of different length or without a name, or no labelled cell.

    Example:
        >>> ax = confusion_plot(np.array([0, 0, 1]), np.array([0, 1, 1]), ["B", "T"])
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['B (2)', 'T (1)']
    """
    counts = _confusion(np.asarray(true), np.asarray(predicted), len(names))
    sizes = counts.sum(axis=1)
    share = counts / np.maximum(sizes, 1)[:, None]

    is_new = ax is None
    if ax is None:
        side = _CELL * len(names)
        ax = Figure(figsize=(2 * side, 2 * side), dpi=150).add_axes((0, 0, 0.5, 0.5))
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if share[row, column] > 0.55 else INK
        number = str(counts[row, column])
        ax.text(column, row, number, ha="center", va="center", fontsize=7.5, color=color)

    positions = range(len(names))
    ax.set_xticks(positions, names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(positions, [f"{name} ({size})" for name, size in zip(names, sizes, strict=True)])
    ax.set_xlabel(predicted_label, fontsize=9, color=INK)
    ax.set_ylabel(f"{true_label} (cells)", fontsize=9, color=INK)
    ax.set_xticks(np.arange(-0.5, len(names)), minor=True)
    ax.set_yticks(np.arange(-0.5, len(names)), minor=True)
    ax.grid(which="minor", color="white", linewidth=1)
    ax.tick_params(which="both", length=0, labelsize=8, labelcolor=INK)
    frame(ax, title)
    _mark_recall(ax, counts)

    color_bar(ax, image, "share of the row", gap=0.6, ticks=[0, 0.5, 1])
    if is_new:
        crop(figure_of(ax))
    return ax


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
