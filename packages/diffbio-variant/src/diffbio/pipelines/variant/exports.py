"""What training learned of qualities and thresholds, as files that GATK and bcftools read.

GATK's table of recalibration holds counts, from which ApplyBQSR finds qualities: of a read group, of a reported
quality, of a cycle, of a dinucleotide, each around that of the level above. Tables that were trained are written as the
counts that speak for them, with so many errors that what is believed before them has no weight.

References:
    McKenna et al., The Genome Analysis Toolkit, Genome Research 2010: its class RecalDatum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffbio.operators.variant.recalibration import BaseQualityRecalibration
from diffbio.operators.variant.recalibration_counts import LARGEST_QUALITY, N_QUALITIES, RecalibrationCounts
from diffbio.operators.variant.recalibration_fit import RecalibrationTables
from diffbio.operators.variant.recalibration_table import write_recalibration_table
from diffbio.operators.variant.variant_filter import SoftVariantFilter

_ERRORS = 1e6
"""In each bin: at a distance of 20 Phred a prior of 0.5 Phred moves such a bin by 0.002."""

_MOST = 1e18
"""Observations of a read group: GATK counts in whole numbers below 2^63."""

_LEAST_QUALITY = 0.01  # Phred; at 0 all bases are wrong

_NOTHING = "POS<1"
"""What a filter without thresholds fails: an empty expression is none for bcftools."""


def equivalent_counts(tables: RecalibrationTables, *, min_quality: int = 6) -> RecalibrationCounts:
    """Return counts for which `fit_tables` gives these corrections, with GATK's prior and with wider ones.

    The correction of a read group is not written, but follows from the sums over its qualities. It comes out as it was
    where corrections of qualities have both signs; else it takes part of theirs, and their sum is as it was. A quality
    that corrections take beyond 0.01 or 93 is these.

    Args:
        tables: Corrections.
        min_quality: Bases of a lower quality have no counts.

    Returns:
        NumPy arrays in float64: of each quality from `min_quality` on, so that GATK corrects those that were never seen
        by the shift of their group; of cycles and dinucleotides where the correction is not 0.

    Example:
        >>> tables = RecalibrationTables(*(np.zeros(shape) for shape in ((1,), (1, 94), (1, 94, 5), (1, 94, 4, 4))))
        >>> counts = equivalent_counts(tables._replace(group_shift=np.array([-3.0])))
        >>> round(float(counts.errors[0, 30] / counts.observations[0, 30]), 5)  # Q30 that is Q27
        0.002
    """
    shift, of_quality, of_cycle, of_pair = (np.asarray(table, np.float64) for table in tables)
    whole = np.arange(N_QUALITIES)
    quality = np.clip(whole + shift[:, None] + of_quality, _LEAST_QUALITY, LARGEST_QUALITY)
    seen = np.where(whole >= min_quality, _ERRORS / _chance(quality), 0.0)
    # where all qualities had the shift of the group alone, the group would have as many errors
    excess = seen * (_chance(quality) - _chance(whole + shift[:, None]))
    for side, other in ((excess > 0, excess < 0), (excess < 0, excess > 0)):  # one of both grows to weigh as the other
        of_side, of_other = (np.abs(excess * which).sum(1) for which in (side, other))
        most = np.maximum(_MOST / np.maximum((seen * side).sum(1), 1.0), 1.0)
        factor = np.clip(of_other / np.where(of_side > 0, of_side, np.inf), 1.0, most)
        seen = np.where(side, seen * factor[:, None], seen)
    parts = [*_bins(quality, seen)]
    for delta in (of_cycle, of_pair):
        level = quality.reshape(*quality.shape, *[1] * (delta.ndim - 2))
        used = (delta != 0) & (whole >= min_quality).reshape(level.shape[1:])
        of_bin = np.clip(level + delta, _LEAST_QUALITY, LARGEST_QUALITY)
        parts += _bins(of_bin, np.where(used, _ERRORS / _chance(of_bin), 0.0))
    return RecalibrationCounts(*parts)  # type: ignore[arg-type]  # NumPy arrays for JAX ones


def export_recalibration(operator: BaseQualityRecalibration, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write trained corrections as the table that GATK's ApplyBQSR reads.

    The counts are not those of any reads; see `equivalent_counts`. GATK takes each of its levels to a whole Phred, and
    qualities beyond 60 to 60.

    Args:
        operator: Whose corrections.
        path: The file.
        metadata: Of the data; its `read_groups` are the names of the read groups in their order, as `read_sites` has
            them. A group without tables of its own has those of the first one, as in the operator. Without names,
            groups are `group1`, `group2` and so on.
    """
    tables = operator.tables()
    n_groups = len(tables.group_shift)
    names: Sequence[str] = metadata.get("read_groups") or [f"group{number + 1}" for number in range(n_groups)]
    of_names: dict[str, int] = {}
    for number, name in enumerate(names):
        of_names.setdefault(name, number if number < n_groups else 0)
    counts = equivalent_counts(tables, min_quality=operator.config.min_quality)
    of_groups = RecalibrationCounts(*(np.asarray(array)[list(of_names.values())] for array in counts))  # type: ignore[arg-type]
    write_recalibration_table(path, of_groups, list(of_names))


def export_filter(operator: SoftVariantFilter, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write learned thresholds as an expression of what fails, for `bcftools view -e` and `bcftools filter -e`.

    It excludes and does not include, for a missing value passes, and bcftools lets no comparison hold for one.

    Args:
        operator: Whose thresholds.
        path: The file.
        metadata: Of the data that it learned from; not used.
    """
    path.write_text(f"{operator.expression() or _NOTHING}\n", encoding="utf-8")


def _chance(quality: np.ndarray) -> np.ndarray:
    """Return the error probability of a quality in Phred."""
    return 10.0 ** (-quality / 10)


def _bins(quality: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return observations, and the errors among them that make a quality the likeliest one, as `posterior_quality`."""
    seen = np.rint(seen)
    return seen, np.where(seen > 0, (seen + 2) * _chance(quality) - 1, 0.0)
