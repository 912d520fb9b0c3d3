"""The report of a run: a table on the screen, the same as CSV, and as JSON with what it was run on."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from diffbio.pipelines.singlecell.atlas.families import FAMILIES
from diffbio.pipelines.singlecell.atlas.rows import Comparison, NotRun

type Results = Mapping[str, Sequence[Comparison | NotRun]]
"""The comparisons of each family that was considered."""


def summary(results: Results) -> str:
    """Return how many comparisons are within their bar.

    Args:
        results: By family.
    """
    met = [row.met for rows in results.values() for row in rows if isinstance(row, Comparison)]
    held = [each for each in met if each is not None]
    open_ended = f"; {len(met) - len(held)} without a bar" if len(met) > len(held) else ""
    return f"{sum(held)} of {len(held)} within the bar{open_ended}"


def state(rows: Sequence[Comparison | NotRun]) -> str:
    """Return in a few words how a family fared.

    Args:
        rows: Its comparisons.
    """
    made = [row for row in rows if isinstance(row, Comparison)]
    missed = sum(row.met is False for row in made)
    said = [f"{len(made)} measured"] if made else []
    said += [f"{missed} beyond the bar"] if missed else []
    said += ["failed"] if any(isinstance(row, NotRun) and row.failed for row in rows) else []
    return ", ".join(said) or "not run"


def table(results: Results) -> Table:
    """Return what was measured, family by family.

    Args:
        results: By family.
    """
    title = "diffbio beside the tool of the field, on the same cells"
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=True)
    columns = ("quantity", "diffbio", "tool", "measured", "bar", "met", "CPU s", "tool's")
    for column in columns:
        shown.add_column(column, justify="left" if column in ("quantity", "bar", "met") else "right")
    for name, rows in results.items():
        measured = [row for row in rows if isinstance(row, Comparison)]
        if measured:
            shown.add_row(f"[bold]{name}[/], {FAMILIES[name].tool}")
        for row in measured:
            met = {None: "", True: "yes", False: "[bold red]no[/]"}[row.met]
            seconds = ("", "") if row.timing is None else (f"{row.timing.ours:.2f}", f"{row.timing.theirs:.2f}")
            numbers = (_number(row.ours), _number(row.theirs), _number(row.measured), str(row.bar or ""))
            shown.add_row(f"  {escape(row.quantity)}", *numbers, met, *seconds)
    return shown


def not_run(results: Results) -> list[str]:
    """Return a line for each comparison that was not made.

    Args:
        results: By family.
    """
    return [
        f"{'failed' if row.failed else 'not run'}: {name}{f', {row.quantity}' if row.quantity else ''}: {row.reason}"
        for name, rows in results.items()
        for row in rows
        if isinstance(row, NotRun)
    ]


def write(folder: Path, results: Results, about: Mapping[str, Any]) -> list[str]:
    """Write `report.csv` and `report.json`, and return their names.

    Args:
        folder: Made where it is not there.
        results: By family.
        about: What was run, on what; goes to the head of the JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = [_record(name, row) for name, rows in results.items() for row in rows]
    with (folder / "report.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _record("", NotRun("", "")))
        writer.writeheader()
        writer.writerows(records)
    whole = {**about, "summary": summary(results), "comparisons": [_finite(record) for record in records]}
    (folder / "report.json").write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return ["report.csv", "report.json"]


def _record(name: str, row: Comparison | NotRun) -> dict[str, Any]:
    made = row if isinstance(row, Comparison) else None
    timing = made.timing if made else None
    return {
        "family": name,
        "tool": FAMILIES[name].tool if name else "",
        "quantity": row.quantity,
        "diffbio": made.ours if made else None,
        "reference": made.theirs if made else None,
        "measured": made.measured if made else None,
        "bar": str(made.bar or "") if made else None,
        "met": made.met if made else None,
        "cpu_seconds": timing.ours if timing else None,
        "reference_cpu_seconds": timing.theirs if timing else None,
        "first_call_cpu_seconds": timing.first if timing else None,
        "not_run": row.reason if isinstance(row, NotRun) else None,
        "failed": isinstance(row, NotRun) and row.failed,
    }


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with `null` for what JSON has no number for."""
    return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in record.items()}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"
