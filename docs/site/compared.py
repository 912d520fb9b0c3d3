"""The tables of `docs/how-it-compares.md`, from the records of tests and benchmarks.

    hatch run docs:compared        # writes them again

A place `<!-- compared: cheaper -->` is followed by the table that the function of that name makes, up to
`<!-- end -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tables

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "how-it-compares.md"
PLACE = re.compile(r"(<!-- compared: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

TOOLS = (
    "bcftools",
    "celltypist",
    "clustalw",
    "cutadapt",
    "DNAcopy",
    "dnaio",
    "fastp",
    "freebayes",
    "graphtools",
    "harmonypy",
    "hmmalign",
    "HMMER",
    "hmmlearn",
    "kalign",
    "leidenalg",
    "mafft",
    "muon",
    "muscle",
    "OTT-JAX",
    "palantir",
    "parasail",
    "phate",
    "POT",
    "pydeseq2",
    "pyhmmer",
    "pysam",
    "qnorm",
    "ruptures",
    "samtools",
    "scanpy",
    "scib-metrics",
    "scikit-learn",
    "SciPy",
    "scrublet",
    "scvi-tools",
    "SoftJAX",
    "statsmodels",
    "symphonypy",
    "umap-learn",
    "vt",
)
"""Programs and libraries that one would use instead; other references are definitions and models written out."""

_NAMED = {tool: re.compile(rf"(?<![\w-]){re.escape(tool)}(?![\w-])", re.IGNORECASE) for tool in TOOLS}
_QUALITY = re.compile(r"(\bless |\bover )(?!those of)[^,]*?(theirs|'s\b|Scrublet|CellAssign|SCVI|SCANVI)")
_REFERENCE_ENVIRONMENT = ("harmonypy",)  # tools that only the environment `reference` has


class Ratio(NamedTuple):
    """A figure of a benchmark over that of a tool: above 1, diffbio costs more, or misses more."""

    benchmark: str
    what: str
    value: float

    @property
    def command(self) -> str:
        """What measures it again."""
        environment = "reference:" if any(tool in self.what for tool in _REFERENCE_ENVIRONMENT) else ""
        return f"`hatch run {environment}benchmark {self.benchmark}`"


def certificates() -> list[dict[str, Any]]:
    """Return what the comparison tests measured."""
    return json.loads((DOCS / "certificates.json").read_text(encoding="utf-8"))


def ratios() -> list[Ratio]:
    """Return the figures of the benchmarks that are ratios to a tool, the least first."""
    found = []
    for path in sorted(DOCS.parent.glob("benchmarks/results/*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        for figure in results["figures"]:
            over = figure["what"].rpartition("over ")[2] if figure["unit"] == "x" else ""
            if over and tool_of(over) is not None:
                found.append(Ratio(results["benchmark"], figure["what"], figure["value"]))
    return sorted(found, key=lambda ratio: ratio.value)


def tool_of(text: str) -> str | None:
    """Return the tool of the field that a text names first, if it names one."""
    places = {tool: found.start() for tool, pattern in _NAMED.items() if (found := pattern.search(text))}
    return min(places, key=places.__getitem__) if places else None


def agreement() -> str:
    """Return how often each tool was compared, and with what."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in certificates():
        tool = tool_of(row["reference"])
        if tool is not None:
            groups.setdefault(tool, []).append(row)
    rows = [["tool", "compared with it", "figures"]]
    for tool in sorted(groups, key=str.lower):
        names = sorted({name for row in groups[tool] for name in row["operator"].split(", ")})
        rows.append([tool, ", ".join(names), str(len(groups[tool]))])
    return tables.table(rows, numbers=["figures"])


def results() -> str:
    """Return the comparisons of how good a result is, not of how equal."""
    rows = [["", "beside", "data", "quantity", "measured", "test"]]
    for row in certificates():
        if tool_of(row["reference"]) and _QUALITY.search(row["quantity"]):
            file = row["test"].partition("::")[0]
            cells = [row["operator"], row["reference"], row["data"], row["quantity"], f"{row['value']:.3g}"]
            rows.append([*cells, f"`{file}`"])
    return tables.table(rows, numbers=["measured"])


def cheaper() -> str:
    """Return the ratios at which diffbio costs at most as much."""
    return _ratios([ratio for ratio in ratios() if ratio.value <= 1])


def dearer() -> str:
    """Return the ratios at which the tool costs less."""
    return _ratios([ratio for ratio in ratios() if ratio.value > 1])


TABLES: dict[str, Callable[[], str]] = {
    "agreement": agreement,
    "results": results,
    "cheaper": cheaper,
    "dearer": dearer,
}


def filled(page: str) -> str:
    """Return the page with the tables that it asks for."""
    return PLACE.sub(lambda place: f"{place[1]}\n{TABLES[place[2]]()}\n\n{place[3]}", page)


def _ratios(found: list[Ratio]) -> str:
    rows = [[ratio.what, _number(ratio.value), ratio.command] for ratio in found]
    return tables.table([["measured", "ratio", "again by"], *rows], numbers=["ratio"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
