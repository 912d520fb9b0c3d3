"""How the losses of a fit fell: one curve for training, one for validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from diffbio.core.errors import ContractError
from diffbio.plots.singlecell.style import FRAME, INK, crop, figure_of

if TYPE_CHECKING:
    from diffbio.training import History

_TRAINING, _VALIDATION = "#0072B2", "#D55E00"


def training_curve(history: History, *, title: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the training loss by epoch, and where recorded the validation loss and the epoch that was kept.

    Args:
        history: What `fit` returns as `result.history`. `history.plot()` draws gradients and temperatures too.
        title: Text above.
        ax: Draw into these axes instead of those of a new figure.

    Returns:
        The axes; `ax.figure.savefig(...)` saves them.

    Raises:
        ContractError: The history has no epoch.

    Example:
        >>> from diffbio.training import History
        >>> ax = training_curve(History([{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0}]))
        >>> ax.get_xlabel(), ax.lines[0].get_ydata().tolist()
        ('epoch', [2.0, 1.0])
    """
    columns = history.columns()
    if not columns:
        raise ContractError("this history has no epoch to draw; fit first")
    is_new = ax is None
    if ax is None:
        ax = Figure(figsize=(3.6, 2.4), dpi=150).add_axes((0, 0, 1, 1))
    marker = "o" if len(history) == 1 else ""
    for name, label, color in (
        ("train_loss", "training", _TRAINING),
        ("validation_loss", "validation", _VALIDATION),
    ):
        if name in columns:
            ax.plot(columns["epoch"], columns[name], color=color, label=label, linewidth=1.4, marker=marker)
    if "validation_loss" in columns:
        ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    _mark_best(ax, history)
    ax.set_xlabel("epoch", fontsize=9, color=INK)
    ax.set_ylabel("loss", fontsize=9, color=INK)
    ax.locator_params(axis="x", integer=True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(color=FRAME, linewidth=0.6)
    ax.tick_params(color=FRAME, labelsize=8, labelcolor=INK)
    if title:
        ax.set_title(title, fontsize=10, color=INK)
    if is_new:
        crop(figure_of(ax))
    return ax


def _mark_best(ax: Axes, history: History) -> None:
    """Mark the epoch whose weights were kept, where a validation loss chose it."""
    found = [record for record in history if record["epoch"] == history.best_epoch and "validation_loss" in record]
    if found:
        at = (found[0]["epoch"], found[0]["validation_loss"])
        ax.plot(*at, marker="o", ms=5, mfc="white", mec=_VALIDATION, mew=1.4, ls="")
        text = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "color": _VALIDATION}
        ax.annotate(
            f"best: epoch {at[0]}", at, (0, 7), path_effects=[withStroke(linewidth=2, foreground="white")], **text
        )
