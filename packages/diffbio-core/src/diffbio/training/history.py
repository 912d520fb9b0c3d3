"""The history of a fit: one record per epoch, as columns, a table, a CSV file or a figure."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffbio.core.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

Record = Mapping[str, float | int]

_NORM = "grad_norm/"
_INK, _TRAIN, _VALIDATION, _QUIET = "#222222", "#4477aa", "#cc6677", "#999999"
_STAGES = ("#4477aa", "#ee8866", "#228833", "#aa3377", "#66ccee", "#bbaa33", "#777777")


class History:
    """What each epoch of a fit measured.

    A record has `epoch` (from 1), `step`, `train_loss` (mean over the epoch's batches) and `seconds`;
    where they apply `validation_loss`, `validation_metric`, `anchor` (the penalty),
    `temperature/<stage>` and `grad_norm/<stage>` (mean norm of the stage's gradient, before clipping).

    Args:
        records: One mapping from name to figure per epoch.
        best_epoch: The epoch whose weights were kept, once it is known.

    Example:
        >>> history = History([{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0}])
        >>> history.columns()["train_loss"]
        [2.0, 1.0]
    """

    def __init__(self, records: Sequence[Record] = (), best_epoch: int | None = None) -> None:
        self.records: list[Record] = list(records)
        self.best_epoch = best_epoch

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.records)

    def __getitem__(self, position: int) -> Record:
        """Return the record at a position, from 0."""
        return self.records[position]

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records."""
        return iter(self.records)

    def columns(self) -> dict[str, list[float | int]]:
        """Return the figures by name, one list entry per epoch."""
        names = self.records[0] if self.records else ()
        return {name: [record[name] for record in self.records] for name in names}

    def gradient_norms(self) -> dict[str, float]:
        """Return the mean norm of each stage's gradient in the last epoch, for `Pipeline.describe`."""
        last = self.records[-1] if self.records else {}
        return {name.removeprefix(_NORM): value for name, value in last.items() if name.startswith(_NORM)}

    def table(self, rows: int = 20) -> Table:
        """Return a rich table of at most about `rows` evenly spaced epochs, the best and the last among them.

        Args:
            rows: How many epochs to show, at least 1.

        Returns:
            A table; the best epoch is in bold.
        """
        from rich.table import Table

        table = Table()
        for name in self.columns():
            table.add_column(name.replace("/", "\n"), justify="right")
        stride = max(1, -(-len(self) // rows))
        for record in self.records:
            epoch, best = record["epoch"], record["epoch"] == self.best_epoch
            if epoch % stride == 0 or epoch == len(self) or best:
                table.add_row(*map(_figure, record.values()), style="bold" if best else None)
        return table

    def to_csv(self, path: str | pathlib.Path) -> None:
        """Write one row per epoch to a CSV file with a header."""
        with pathlib.Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns())
            writer.writerows(record.values() for record in self.records)

    def plot(self, path: str | pathlib.Path | None = None) -> Figure:
        """Draw the losses, and where recorded the metric, the gradient norms and the temperatures.

        Args:
            path: Where to write the figure (PNG, PDF or SVG by its suffix); `None` to only return it.

        Returns:
            The matplotlib figure.

        Raises:
            ConfigError: There is no epoch to draw.
            MissingExtraError: matplotlib is not installed.
        """
        if not self.records:
            raise ConfigError("this history has no epoch to plot")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError('figures need matplotlib: pip install "diffbio-core[plots]"') from error

        columns = self.columns()
        panels = [panel for panel, drawn in _PANELS if any(map(drawn, columns))]
        rows, width = (2, 2) if len(panels) == 4 else (1, len(panels))
        figure = Figure(figsize=(4.4 * width, 3.0 * rows), layout="constrained")
        for axis, panel in zip(figure.subplots(rows, width, squeeze=False).flat, panels, strict=True):
            panel(axis, columns)
            _finish(axis, self.best_epoch if "validation_loss" in columns else None)
        if path is not None:
            figure.savefig(path, dpi=160)
        return figure


def _losses(axis: Axes, columns: dict[str, list[Any]]) -> None:
    axis.plot(columns["epoch"], columns["train_loss"], color=_TRAIN, label="training")
    if "validation_loss" in columns:
        axis.plot(columns["epoch"], columns["validation_loss"], color=_VALIDATION, label="validation")
    axis.legend(frameon=False, fontsize=8)
    axis.set_title("loss")


def _metric(axis: Axes, columns: dict[str, list[Any]]) -> None:
    axis.plot(columns["epoch"], columns["validation_metric"], color=_VALIDATION)
    axis.set_title("validation metric")


def _gradient_norms(axis: Axes, columns: dict[str, list[Any]]) -> None:
    _per_stage(axis, columns, _NORM, "gradient norm per stage")


def _temperatures(axis: Axes, columns: dict[str, list[Any]]) -> None:
    _per_stage(axis, columns, "temperature/", "temperature")


def _per_stage(axis: Axes, columns: dict[str, list[Any]], prefix: str, title: str) -> None:
    """Draw one line per stage on a logarithmic axis; zeros (frozen stages) are left out."""
    from matplotlib.ticker import LogLocator, NullLocator

    stages = list(dict.fromkeys(name.partition("/")[2] for name in columns if "/" in name))
    for position, stage in enumerate(stages):
        values = columns.get(prefix + stage, [])
        if any(values):
            axis.plot(columns["epoch"], values, color=_STAGES[position % len(_STAGES)], label=stage)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False, fontsize=8)
    axis.set_title(title)


_PANELS = (
    (_losses, lambda name: name == "train_loss"),
    (_metric, lambda name: name == "validation_metric"),
    (_gradient_norms, lambda name: name.startswith(_NORM)),
    (_temperatures, lambda name: name.startswith("temperature/")),
)


def _finish(axis: Axes, best_epoch: int | None) -> None:
    """Mark the best epoch and take the ink off that carries nothing."""
    if best_epoch is not None:
        axis.axvline(best_epoch, color=_QUIET, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        where = {"xycoords": ("data", "axes fraction"), "va": "top", "color": _QUIET, "fontsize": 8}
        axis.annotate(f" best epoch {best_epoch}", (best_epoch, 1), **where)
    axis.set_xlabel("epoch", color=_INK)
    axis.locator_params(axis="x", integer=True)
    axis.title.set(fontsize=10, color=_INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.02)


def _figure(value: float | int) -> str:
    """Return a number for the table: counts as they are, the rest to four digits."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"
