"""Counts of recalibration as the file that GATK's BaseRecalibrator writes and its ApplyBQSR reads.

The file is a GATK report of five tables: arguments, a map of qualities, and the counts by read group, by reported
quality, and by cycle or dinucleotide. Counts are what both read; the qualities beside them are for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffbio.core.errors import DataError
from diffbio.operators.variant.recalibration_counts import N_QUALITIES, RecalibrationCounts
from diffbio.operators.variant.recalibration_fit import empirical_qualities

_LETTERS = "ACGT"
_HEADER = "#:GATKReport.v1.1:5"
_MISMATCH = "M"  # beside insertions and deletions, which newer versions no longer recalibrate
_LARGEST_CYCLE = "maximum_cycle_value"
_ARGUMENTS = {
    "binary_tag_name": "null",
    "covariate": "ReadGroupCovariate,QualityScoreCovariate,ContextCovariate,CycleCovariate",
    "default_platform": "null",
    "deletions_default_quality": "45",
    "force_platform": "null",
    "indels_context_size": "3",
    "insertions_default_quality": "45",
    "low_quality_tail": "2",
    _LARGEST_CYCLE: "500",
    "mismatches_context_size": "2",
    "mismatches_default_quality": "-1",
    "no_standard_covs": "false",
    "quantizing_levels": "16",
    "recalibration_report": "null",
    "run_without_dbsnp": "false",
    "solid_nocall_strategy": "THROW_EXCEPTION",
    "solid_recal_mode": "SET_Q_ZERO",
}


class RecalibrationReport(NamedTuple):
    """What such a file holds.

    Attributes:
        counts: Of all read groups, NumPy arrays in float64.
        read_groups: Their names, in the order of the first axis.
    """

    counts: RecalibrationCounts
    read_groups: tuple[str, ...]


def write_recalibration_table(
    path: str | PathLike[str], counts: RecalibrationCounts, read_groups: Sequence[str], *, prior_std: float = 0.5
) -> None:
    """Write counts as a table of GATK.

    Args:
        path: The file; it is replaced.
        counts: Of any number of batches. GATK holds whole observations: weighted ones are rounded.
        read_groups: Names of the read groups, in the order of the first axis: the PU of a group of the BAM file, or
            its ID where it has none.
        prior_std: With which the empirical qualities in the file are found, as in `fit_tables`; GATK finds its own.

    Raises:
        DataError: There is not one name for each read group.

    Example:
        >>> write_recalibration_table("recal.table", counts, ["lane1"])  # doctest: +SKIP
    """
    seen, wrong, of_cycle, wrong_of_cycle, of_pair, wrong_of_pair = (np.asarray(array, np.float64) for array in counts)
    n_groups, _, n_cycles = of_cycle.shape
    if len(read_groups) != n_groups or len(set(read_groups)) != n_groups:
        raise DataError(f"{len(read_groups)} names {list(read_groups)} were given for {n_groups} read groups")
    found, max_cycle = empirical_qualities(counts, prior_std), n_cycles // 2
    in_groups = [
        [name, _MISMATCH, f"{quality:.4f}", f"{reported:.4f}", str(round(n_bases)), f"{n_wrong:.2f}"]
        for name, quality, reported, n_bases, n_wrong in zip(
            read_groups, found.group, found.reported, seen.sum(1), wrong.sum(1), strict=True
        )
    ]
    in_qualities = _rows(
        lambda group, quality: [read_groups[group], str(quality), _MISMATCH], found.quality, seen, wrong
    )
    in_covariates = _rows(
        lambda group, quality, cycle: [read_groups[group], str(quality), str(cycle - max_cycle), "Cycle", _MISMATCH],
        found.cycle,
        of_cycle,
        wrong_of_cycle,
    ) + _rows(
        lambda group, quality, before, own: (
            [read_groups[group], str(quality), _LETTERS[before] + _LETTERS[own], "Context", _MISMATCH]
        ),
        found.context,
        of_pair,
        wrong_of_pair,
    )
    tables = (
        (
            "Arguments:Recalibration argument collection values used in this run",
            ("%s", "%s"),
            ("Argument", "Value"),
            [[name, value] for name, value in (_ARGUMENTS | {_LARGEST_CYCLE: str(max_cycle)}).items()],
        ),
        (
            "Quantized:Quality quantization map",
            ("%d", "%d", "%d"),
            ("QualityScore", "Count", "QuantizedScore"),
            [[str(q), str(round(n)), str(q)] for q, n in enumerate(_bases_of_each_quality(found.quality, seen))],
        ),
        (
            "RecalTable0:",
            ("%s", "%s", "%.4f", "%.4f", "%d", "%.2f"),
            ("ReadGroup", "EventType", "EmpiricalQuality", "EstimatedQReported", "Observations", "Errors"),
            in_groups,
        ),
        (
            "RecalTable1:",
            ("%s", "%d", "%s", "%.4f", "%d", "%.2f"),
            ("ReadGroup", "QualityScore", "EventType", "EmpiricalQuality", "Observations", "Errors"),
            in_qualities,
        ),
        (
            "RecalTable2:",
            ("%s", "%d", "%s", "%s", "%s", "%.4f", "%d", "%.2f"),
            (
                *("ReadGroup", "QualityScore", "CovariateValue", "CovariateName", "EventType"),
                *("EmpiricalQuality", "Observations", "Errors"),
            ),
            in_covariates,
        ),
    )
    with Path(path).open("w", encoding="ascii", newline="\n") as file:
        file.write(f"{_HEADER}\n")
        for title, formats, names, rows in tables:
            file.write(f"#:GATKTable:{len(names)}:{len(rows)}:{':'.join(formats)}:;\n#:GATKTable:{title}\n")
            file.writelines(f"{line}\n" for line in _aligned(names, formats, rows))
            file.write("\n")


def read_recalibration_table(path: str | PathLike[str]) -> RecalibrationReport:
    """Read a table of GATK.

    Args:
        path: What BaseRecalibrator or `write_recalibration_table` wrote.

    Returns:
        Counts of mismatches, those of insertions and deletions left out, and the names of the read groups.

    Raises:
        DataError: It is no such file, or has other covariates.

    Example:
        >>> report = read_recalibration_table("recal.table")  # doctest: +SKIP
        >>> recalibration.initialize_from_counts(report.counts)  # doctest: +SKIP
    """
    tables = _tables(path)
    missing = [name for name in ("RecalTable0", "RecalTable1", "RecalTable2") if name not in tables]
    if missing:
        raise DataError(f"{path} has no table {', '.join(missing)}; wanted what GATK BaseRecalibrator writes")
    arguments = {row.get("Argument"): row.get("Value") for row in tables.get("Arguments", [])}
    max_cycle = int(arguments.get(_LARGEST_CYCLE) or _ARGUMENTS[_LARGEST_CYCLE])
    groups = {
        name: number for number, name in enumerate(dict.fromkeys(row["ReadGroup"] for row in tables["RecalTable0"]))
    }
    shapes = (), (2 * max_cycle + 1,), (4, 4)
    arrays = [np.zeros((len(groups), N_QUALITIES, *shape)) for shape in shapes for _ in range(2)]
    for table in ("RecalTable1", "RecalTable2"):
        for row in tables[table]:
            if row["EventType"] != _MISMATCH:
                continue
            try:
                at: tuple[int, ...] = groups[row["ReadGroup"]], int(row["QualityScore"])
                seen, wrong = arrays[:2]
                if row.get("CovariateName") == "Cycle":
                    at += (int(row["CovariateValue"]) + max_cycle,)
                    seen, wrong = arrays[2:4]
                elif row.get("CovariateName") == "Context":
                    before, own = row["CovariateValue"]
                    at += _LETTERS.index(before), _LETTERS.index(own)
                    seen, wrong = arrays[4:]
                elif table == "RecalTable2":
                    raise ValueError("it is neither of a cycle nor of a context of two letters")
                if min(at) < 0:
                    raise ValueError("its quality or cycle is beyond the largest one")
                seen[at], wrong[at] = float(row["Observations"]), float(row["Errors"])
            except (KeyError, ValueError, IndexError) as error:
                raise DataError(
                    f"{path}: the row {' '.join(row.values())} of {table} can't be used: {error}"
                ) from error
    return RecalibrationReport(RecalibrationCounts(*arrays), tuple(groups))  # type: ignore[arg-type]  # NumPy's


def _rows(
    labels: Callable[..., Sequence[Any]], quality: np.ndarray, seen: np.ndarray, wrong: np.ndarray
) -> list[list[str]]:
    """Return a row for each place of the tables at which there are observations."""
    places = [tuple(int(place) for place in at) for at in np.argwhere(seen >= 0.5)]
    return [[*labels(*at), f"{quality[at]:.4f}", str(round(seen[at])), f"{wrong[at]:.2f}"] for at in places]


def _bases_of_each_quality(quality: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return how many bases have each empirical quality, rounded."""
    bins = np.clip(np.rint(quality), 0, N_QUALITIES - 1).astype(int)
    return np.bincount(bins.ravel(), weights=seen.ravel(), minlength=N_QUALITIES)


def _aligned(names: Sequence[str], formats: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Return lines of columns of one width each, numbers to the right, as GATK cuts them."""
    widths = [max(len(name), *(len(row[i]) for row in rows), 0) for i, name in enumerate(names)]
    yield "  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True))
    for row in rows:
        yield "  ".join(
            value.ljust(width) if kind == "%s" else value.rjust(width)
            for value, width, kind in zip(row, widths, formats, strict=True)
        )


def _tables(path: str | PathLike[str]) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each table by the names of its columns."""
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or not lines[0].startswith("#:GATKReport.v1"):
        raise DataError(f"{path} does not begin with {_HEADER}; wanted a table of GATK BaseRecalibrator")
    tables: dict[str, list[dict[str, str]]] = {}
    rows: list[dict[str, str]] = []
    names: list[str] | None = None
    for number, line in enumerate(lines[1:], 2):
        if line.startswith("#:GATKTable:"):
            title = line.split(":")[2]
            if not title.isdigit() and title not in {"true", "false"}:  # the line before says sizes and formats
                rows, names = tables.setdefault(title, []), None
        elif line.strip():
            fields = line.split()
            if names is None:
                names = fields
            elif len(fields) != len(names):
                raise DataError(f"{path}, line {number}: {len(fields)} fields where the table has {len(names)} columns")
            else:
                rows.append(dict(zip(names, fields, strict=True)))
    return tables
