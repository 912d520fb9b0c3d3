"""Time over the number of entries, one panel per function: the figure of the benchmark `soft_ops`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

_OURS, _THEIRS = "#1f77b4", "#777777"
_METHODS = {
    "softsort": "#2ca02c",
    "neuralsort": "#9467bd",
    "fast_soft_sort": "#d62728",
    "fast_soft_sort, c0": "#e8959a",
    "sorting_network": "#d9a300",
}


def draw_growth(rows: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw the CPU milliseconds of `soft_ops` and of SoftJAX over n, both axes logarithmic.

    Args:
        rows: For each function, for each size: `n`, and seconds by variant under `soft_ops` and `softjax`.
        path: Where the picture goes.
    """
    shown = [name for name, found in rows.items() if len(found) > 2]
    figure, panels = plt.subplots(2, len(shown) // 2, figsize=(2.9 * len(shown) / 2, 6.0), layout="constrained")
    for ax, name in zip(panels.flat, shown, strict=True):
        _draw_function(ax, rows[name])
        ax.set_title(name, fontsize=10)
        ax.tick_params(labelsize=8)
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    for ax in panels[-1]:
        ax.set_xlabel("entries n", fontsize=9)
    for ax in panels[:, 0]:
        ax.set_ylabel("CPU milliseconds, one core", fontsize=9)
    entries = {label: line for ax in panels.flat for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    order = ["soft_ops", "SoftJAX, its best method", "n log n", *_METHODS]
    handles = [entries[label] for label in order]
    labels = [f"SoftJAX {label}" if label in _METHODS else label for label in order]
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle("value and gradient, float32 standard normals, softness 0.1", fontsize=10)
    figure.savefig(path, dpi=130)


def _draw_function(ax: Axes, found: list[dict[str, Any]]) -> None:
    for method, color in _METHODS.items():
        line = [(row["n"], 1e3 * row["softjax"][method]) for row in found if method in row["softjax"]]
        if line:
            ax.loglog(*zip(*line, strict=True), "-", color=color, linewidth=0.8, marker=".", markersize=4, label=method)
    best = [(row["n"], 1e3 * min(row["softjax"].values())) for row in found if row["softjax"]]
    if best:
        label = "SoftJAX, its best method"
        ax.loglog(*zip(*best, strict=True), "s--", color=_THEIRS, markersize=4, label=label)
    sizes = np.array([row["n"] for row in found], float)
    times = np.array([1e3 * row["soft_ops"]["smooth"] for row in found])
    ax.loglog(sizes, times, "o-", color=_OURS, markersize=4, label="soft_ops")
    guide = sizes * np.log(sizes)
    ax.loglog(sizes, times[-1] * guide / guide[-1] / 4, ":", color="#999999", linewidth=1, label="n log n")
    ax.set_ylim(bottom=times.min() / 4)
