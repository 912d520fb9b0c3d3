"""The results as a table, on the terminal and in README.md."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import BENCHMARKS
from benchmarks.measure import RESULTS

_README = Path(__file__).parent / "README.md"
_BEGIN, _END = "<!-- results -->", "<!-- end of results -->"


def table(names: Iterable[str]) -> tuple[str, bool]:
    """Return the last results of some benchmarks as a Markdown table, and whether all bars are met."""
    rows = ["| benchmark | measured | value | bar | |", "|---|---|--:|--:|---|"]
    all_met = True
    for name in names:
        path = RESULTS / f"{name}.json"
        if path.exists():
            figures = json.loads(path.read_text())["figures"]
            rows += [_row(name, figure) for figure in figures]
            all_met &= all(figure["met"] for figure in figures)
    return "\n".join(rows), all_met


def write_readme() -> None:
    """Replace the table in README.md by the last results of all benchmarks."""
    head, rest = _README.read_text().split(_BEGIN)
    _, tail = rest.split(_END)
    _README.write_text(f"{head}{_BEGIN}\n{_machine()}\n\n{table(BENCHMARKS)[0]}\n{_END}{tail}")


def _row(name: str, figure: dict[str, Any]) -> str:
    unit, limit = figure["unit"], figure["limit"]
    bar = "" if limit is None else f"{_number(limit, unit)}"
    verdict = "" if limit is None else "met" if figure["met"] else "**missed**"
    return f"| {name} | {figure['what']} | {_number(figure['value'], unit)} | {bar} | {verdict} |"


def _number(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{number} {unit}".strip()


def _machine() -> str:
    """Return in words on which machine, when and under what load the results were measured."""
    results = [json.loads(path.read_text()) for name in BENCHMARKS if (path := RESULTS / f"{name}.json").exists()]
    machine, dates = results[-1]["machine"], sorted({result["date"] for result in results})
    load = ", ".join(f"{result['benchmark']} {result['machine']['load_average']:.1f}" for result in results)
    return (
        f"Measured on {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, {machine['cores']} cores "
        f"({machine['architecture']}, {machine['memory_gigabytes']:.0f} GB), Python {machine['python']}, "
        f"jax {machine['versions']['jax']}. Load average of the machine at the end of each: {load}."
    )
