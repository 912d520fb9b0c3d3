"""The account of a preprocessing: what became of every read and every base.

Each step either trims bases or drops reads. With the weights w of bases and W of reads before and after it,

    bases trimmed = sum_r W_r (sum_i w_ri - sum_i w'_ri)        reads dropped = sum_r (W_r - W'_r)
    bases dropped with them = sum_r (W_r - W'_r) sum_i w'_ri

so that what goes in equals what is trimmed, what is dropped and what comes out, for soft weights as for hard ones.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from diffbio.core.errors import DataError, listed


@dataclass(frozen=True)
class StepAccount:
    """What one step did.

    Attributes:
        step: Its name.
        bases_trimmed: Of reads that went in.
        reads_dropped: By their weights.
        bases_dropped: Those that these reads still had.
        reasons: For each criterion of a filter, the reads that it dropped of those that the ones before it had left.
    """

    step: str
    bases_trimmed: float
    reads_dropped: float
    bases_dropped: float
    reasons: Mapping[str, float]


@dataclass(frozen=True)
class PreprocessingReport:
    """What went in, what each step took, and what came out; prints as a table.

    Attributes:
        reads_in: Reads before the first step.
        bases_in: Their bases.
        steps: One account for each step, in order.
        reads_out: Reads that are left.
        bases_out: Their bases.
    """

    reads_in: float
    bases_in: float
    steps: tuple[StepAccount, ...]
    reads_out: float
    bases_out: float

    def __rich__(self) -> Table:
        """Return the table that rich prints."""
        table = Table(title="Preprocessing of reads", title_justify="left")
        table.add_column("step", no_wrap=True)
        for column in ("reads", "bases"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_row("in", _number(self.reads_in), _number(self.bases_in))
        for step in self.steps:
            taken = -step.bases_trimmed - step.bases_dropped
            table.add_row(step.step.replace("[", r"\["), _number(-step.reads_dropped), _number(taken))
            for reason, reads in step.reasons.items():
                table.add_row(f"  {reason}", _number(-reads), "")
        table.add_row("out", _number(self.reads_out), _number(self.bases_out))
        return table

    def __str__(self) -> str:
        """Return the table as plain text."""
        console = Console(file=io.StringIO(), width=100, no_color=True)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()


def preprocessing_report(before: Mapping[str, Any], after: Mapping[str, Mapping[str, Any]]) -> PreprocessingReport:
    """Return what became of every read and every base.

    Args:
        before: The data before the first step: `reads` or `qualities`, and optionally `read_lengths`, `read_mask`,
            `base_weights` and `read_weights`.
        after: For each step, by its name, in order, the data after it.

    Returns:
        The account. Sums are exact up to the rounding of float64.

    Raises:
        DataError: There are neither reads nor qualities.

    Example:
        >>> before = {"qualities": np.array([[30.0, 30.0, 2.0], [2.0, 2.0, 2.0]])}
        >>> trimmed = {**before, "base_weights": np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])}
        >>> filtered = {**trimmed, "read_weights": np.array([1.0, 0.0]), "length_pass": np.array([1.0, 0.0])}
        >>> report = preprocessing_report(before, {"trimming": trimmed, "filter": filtered})
        >>> report.bases_in, report.steps[0].bases_trimmed, report.steps[1].bases_dropped, report.bases_out
        (6.0, 3.0, 1.0, 2.0)
    """
    bases, weights = _state(before)
    reads_in, bases_in = float(weights.sum()), float(weights @ bases)
    steps, known = [], set(before)
    for name, data in after.items():
        left, kept = _state(data)
        passes = [key for key in data if key.endswith("_pass") and key not in known]
        steps.append(
            StepAccount(
                step=name,
                bases_trimmed=float(weights @ (bases - left)),
                reads_dropped=float((weights - kept).sum()),
                bases_dropped=float((weights - kept) @ left),
                reasons=_reasons(weights, {key: np.asarray(data[key], np.float64) for key in passes}),
            )
        )
        bases, weights = left, kept
        known |= set(data)
    return PreprocessingReport(reads_in, bases_in, tuple(steps), float(weights.sum()), float(weights @ bases))


def _state(data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of bases of each read and its weight."""
    key = next((key for key in ("qualities", "reads") if key in data), None)
    if key is None:
        raise DataError(f"the report counts the bases of 'reads' or 'qualities'; the data have {listed(data)}")
    n_reads, n_positions = np.shape(data[key])[:2]
    bases = np.asarray(data.get("base_weights", np.ones((n_reads, n_positions))), np.float64)
    if "read_lengths" in data:
        bases = np.where(np.arange(n_positions) < np.asarray(data["read_lengths"])[:, None], bases, 0)
    weights = np.asarray(data.get("read_weights", data.get("read_mask", np.ones(n_reads))), np.float64)
    return bases.sum(1), weights


def _reasons(weights: np.ndarray, passes: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return how many reads each criterion drops of those that the ones before it left."""
    reasons = {}
    for key, passed in passes.items():
        reasons[key] = float((weights * (1 - passed)).sum())
        weights = weights * passed
    return reasons


def _number(value: float) -> str:
    """Return a number as it is read: whole ones without decimals."""
    rounded = round(value, 1) + 0.0  # no minus before a zero
    return f"{rounded:,.0f}" if rounded == round(rounded) else f"{rounded:,.1f}"
