"""Draw the figures of docs/reference/soft_ops.md: `hatch run figures`, or `draw(folder)`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffbio.core import soft_ops

IMAGES = Path(__file__).parents[1] / "images"
MODES = get_args(soft_ops.Mode)
COLORS = dict(zip(MODES, ("#333333", "#0072b2", "#d55e00", "#e69f00", "#009e73"), strict=True))
SCALES = np.logspace(-3, 0.5, 36)


def draw(folder: Path) -> list[Path]:
    """Draw all figures into `folder` and return their files."""
    figures = {"soft_ops-modes": modes(), "soft_ops-softness": softness()}
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        figure.savefig(path, dpi=150, metadata={"Software": None})
    return paths


def modes() -> Figure:
    """Eight functions in their five modes, at softness 0.3."""
    soft = 0.3
    x = jnp.linspace(-2.0, 2.0, 801)
    pair = jnp.stack([x, jnp.zeros_like(x)], axis=-1)
    three = jnp.stack([x, jnp.full_like(x, -0.5), jnp.full_like(x, 0.5)], axis=-1)
    panels: dict[str, Callable[[str], jax.Array]] = {
        "heaviside(x)": lambda mode: soft_ops.heaviside(x, softness=soft, mode=mode),
        "relu(x)": lambda mode: soft_ops.relu(x, softness=soft, mode=mode),
        "abs(x)": lambda mode: soft_ops.abs(x, softness=soft, mode=mode),
        "equal(x, 0)": lambda mode: soft_ops.equal(x, 0.0, softness=soft, mode=mode),
        "round(x), softness 0.1": lambda mode: soft_ops.round(x, softness=0.1, mode=mode),
        "argmax([x, 0])[0]": lambda mode: soft_ops.argmax(pair, axis=-1, softness=soft, mode=mode)[:, 0],
        "max([x, 0])": lambda mode: soft_ops.max(pair, axis=-1, softness=soft, mode=mode),
        "rank of x beside -0.5 and 0.5": lambda mode: soft_ops.rank(three, softness=0.1, mode=mode)[:, 0],
    }
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    for axes, (title, function) in zip(figure.subplots(2, 4).flat, panels.items(), strict=True):
        for mode in MODES:
            style = {"linestyle": "--", "linewidth": 1.0} if mode == "hard" else {"linewidth": 1.6}
            axes.plot(x, function(mode), color=COLORS[mode], label=mode, zorder=1 if mode == "hard" else 2, **style)
        _finish(axes, title, "x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(MODES), frameon=False)
    return figure


def softness() -> Figure:
    """What a softness costs in accuracy, and what it buys in gradient, on 1,000 standard normals."""
    x = jax.random.normal(jax.random.key(1), (1000,))  # any sample will do: the figure shows one
    functions: dict[str, tuple[Callable, Callable]] = {
        "median": (soft_ops.median, soft_ops.argmedian),
        "quantile 0.95": (
            lambda x, **o: soft_ops.quantile(x, 0.95, **o),
            lambda x, **o: soft_ops.argquantile(x, 0.95, **o),
        ),
        "max": (soft_ops.max, soft_ops.argmax),
    }
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    error_axes, reach_axes = figure.subplots(1, 2)
    for color, (name, (value, index)) in zip(("#0072b2", "#009e73", "#d55e00"), functions.items(), strict=True):
        hard = value(x, mode="hard")
        error = jax.jit(jax.vmap(lambda s, f=value, hard=hard: jnp.abs(f(x, softness=s) - hard)))(SCALES)
        reach = jax.jit(jax.vmap(lambda s, f=index: 1 / jnp.sum(f(x, softness=s) ** 2)))(SCALES)
        error_axes.loglog(SCALES, error, color=color, label=name)
        reach_axes.loglog(SCALES, reach, color=color, label=name)
    for axes in (error_axes, reach_axes):
        axes.axvline(0.01, color="#999999", linewidth=0.8, linestyle=":")
    error_axes.axhline(0.02, color="#999999", linewidth=0.8)
    error_axes.text(SCALES[0], 0.022, "2 % of the standard deviation", fontsize=8, color="#666666")
    _finish(error_axes, "distance to the hard value", "softness (standard deviations)")
    _finish(reach_axes, "entries that share the gradient, 1 / Σ p²", "softness (standard deviations)")
    reach_axes.legend(frameon=False)
    return figure


def _finish(axes: Axes, title: str, xlabel: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    mpl.use("agg")
    for path in draw(IMAGES):
        print(path.relative_to(Path.cwd()))
