"""The progress bar of a fit."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from diffbio.training.history import Record


class ProgressBar:
    """One line with epochs done, losses and remaining time; silent where there is no terminal.

    Args:
        epochs: The number of epochs of the whole fit.
        done: The epochs that an earlier run did.
        shown: Whether to show anything.
    """

    def __init__(self, epochs: int, *, done: int, shown: bool) -> None:
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
        self._bar = progress.Progress(
            progress.TextColumn("epoch"),
            progress.MofNCompleteColumn(),
            progress.BarColumn(),
            progress.TextColumn("{task.description}"),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task("", total=epochs, completed=done)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def show(self, record: Record) -> None:
        """Move on by one epoch and show its losses."""
        names = ("train_loss", "validation_loss", "validation_metric")
        figures = [f"{name.replace('_', ' ')} {record[name]:.4g}" for name in names if name in record]
        self._bar.update(self._task, advance=1, description=", ".join(figures))
