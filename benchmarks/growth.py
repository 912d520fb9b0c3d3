"""Time over the number of entries, one panel per function: the figure of the benchmark `soft_ops`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

_OURS, _THEIRS = "#1f77b4", "#777777"


def draw_growth(rows: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw the CPU milliseconds of `soft_ops` and of SoftJAX over n, both axes logarithmic.

    Args:
        rows: For each function, for each size: `n`, and seconds by variant under `soft_ops` and `softjax`.
        path: Where the picture goes.
    """
    shown = [name for name, found in rows.items() if len(found) > 2]
    figure, panels = plt.subplots(2, len(shown) // 2, figsize=(2.9 * len(shown) / 2, 5.6), layout="constrained")
    for ax, name in zip(panels.flat, shown, strict=True):
        found = rows[name]
        methods = {method: None for row in found for method in row["softjax"]}
        for method in methods:
            line = [(row["n"], 1e3 * row["softjax"][method]) for row in found if method in row["softjax"]]
            ax.loglog(*zip(*line, strict=True), "-", color=_THEIRS, linewidth=0.6, marker=".", markersize=3)
            below = -5 if method.endswith("c0") else 0  # beside its namesake
            ax.annotate(method, line[-1], fontsize=6, color=_THEIRS, xytext=(3, below), textcoords="offset points")
        best = [(row["n"], 1e3 * min(row["softjax"].values())) for row in found if row["softjax"]]
        if best:
            ax.loglog(*zip(*best, strict=True), "s--", color=_THEIRS, markersize=4, label="SoftJAX, its best method")
        sizes = np.array([row["n"] for row in found], float)
        times = np.array([1e3 * row["soft_ops"]["smooth"] for row in found])
        ax.loglog(sizes, times, "o-", color=_OURS, markersize=4, label="soft_ops")
        guide = sizes * np.log(sizes)
        ax.loglog(sizes, times[-1] * guide / guide[-1] / 4, ":", color="#bbbbbb", linewidth=1, label="n log n")
        ax.set_ylim(bottom=times.min() / 4)
        ax.set_title(name, fontsize=10)
        ax.set_xlim(right=sizes[-1] * 12)
        ax.tick_params(labelsize=8)
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    for ax in panels[-1]:
        ax.set_xlabel("entries n", fontsize=9)
    for ax in panels[:, 0]:
        ax.set_ylabel("CPU milliseconds, one core", fontsize=9)
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("value and gradient, float32 standard normals", fontsize=10)
    figure.savefig(path, dpi=130)
