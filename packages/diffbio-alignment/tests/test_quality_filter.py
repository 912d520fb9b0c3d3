"""Filters by quality, unknown bases and length, against fastp and cutadapt."""

from pathlib import Path

import numpy as np
import pytest
from real_reads import ERR127302, Record, arrays, cutadapt, fastp, load, save, some_reads

from diffbio.core.errors import ConfigError
from diffbio.operators.preprocessing.quality_filter import QualityFilter, QualityFilterConfig

pytest.importorskip("cutadapt")
OFF = {"max_unqualified": None, "max_unknown": None, "min_length": None}


def passing(records: list[Record], limits: dict) -> set[str]:
    """Return the names of the reads that pass in the limit."""
    operator = QualityFilter(QualityFilterConfig(**limits, temperature=1e-4))
    weights = operator.apply(arrays(records), {}, None)[0]["read_weights"]
    return {r.name for r, weight in zip(records, np.asarray(weights), strict=True) if weight > 0.5}


@pytest.mark.parametrize(
    ("limits", "options"),
    [
        ({**OFF, "max_expected_errors": 1.0}, ["--max-ee", "1"]),
        ({**OFF, "max_expected_errors": 0.3, "max_unknown": 0.0}, ["--max-ee", "0.3", "--max-n", "0"]),
        ({**OFF, "min_length": 72.0}, ["-m", "72"]),
        ({**OFF, "min_length": 73.0}, ["-m", "73"]),
        ({**OFF, "max_length": 71.0}, ["-M", "71"]),
    ],
)
def test_reads_pass_as_with_cutadapt(limits: dict, options: list[str], tmp_path: Path) -> None:
    assert passing(some_reads(), limits) == set(cutadapt(save(tmp_path / "reads.fastq", some_reads()), *options))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "options"),
    [
        ({}, []),
        ({**OFF, "max_unknown": 0.0}, ["-L", "-n", "0", "-q", "0", "-u", "100"]),
        ({**OFF, "max_unqualified": 30.0, "qualified": 20.0}, ["-L", "-n", "50", "-q", "20", "-u", "30"]),
        ({**OFF, "min_mean_quality": 28.0}, ["-L", "-n", "50", "-q", "0", "-u", "100", "-e", "28"]),
    ],
)
def test_all_real_reads_pass_as_with_fastp(limits: dict, options: list[str], tmp_path: Path, certificate) -> None:
    records = load(ERR127302 / "ERR127302_1_subset.fastq.gz")
    (expected,) = fastp(save(tmp_path / "reads.fastq", records), "-A", *options)
    share = len(passing(records, limits) ^ set(expected)) / len(records)
    certificate(
        operator="QualityFilter",
        reference="fastp 0.23.2",
        data=f"ERR127302_1, {len(records)} reads, {' '.join(options) or 'defaults'}",
        quantity="share of reads judged otherwise",
        value=share,
        bar="0",
    )
    assert share == 0


@pytest.mark.slow
def test_all_real_reads_pass_as_with_cutadapt(tmp_path: Path, certificate) -> None:
    records = load(ERR127302 / "ERR127302_1_subset.fastq.gz")
    expected = cutadapt(save(tmp_path / "reads.fastq", records), "--max-ee", "1", "--max-n", "0")
    found = passing(records, {**OFF, "max_expected_errors": 1.0, "max_unknown": 0.0})
    share = len(found ^ set(expected)) / len(records)
    certificate(
        operator="QualityFilter",
        reference="cutadapt 5.2",
        data=f"ERR127302_1, {len(records)} reads, --max-ee 1 --max-n 0",
        quantity="share of reads judged otherwise",
        value=share,
        bar="0",
    )
    assert share == 0


def test_only_kept_bases_count_and_reasons_stay_visible() -> None:
    filter_ = QualityFilter(QualityFilterConfig(min_mean_quality=25.0, min_length=3.0, temperature=1e-3))
    data = {
        "qualities": np.array([[30, 30, 30, 2], [30, 30, 2, 2], [30, 30, 30, 30]], np.float32),
        "base_weights": np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], np.float32),
    }
    found = filter_.apply(data, {}, None)[0]
    assert np.asarray(found["mean_quality_pass"]).round(3).tolist() == [1, 1, 0]
    assert np.asarray(found["length_pass"]).round(3).tolist() == [1, 0, 0]
    assert np.asarray(found["read_weights"]).round(3).tolist() == [1, 0, 0]
    again = filter_.apply({**data, "read_weights": np.array([0.5, 1, 1], np.float32)}, {}, None)[0]
    assert float(again["read_weights"][0]) == pytest.approx(0.5, abs=1e-3)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="no read passes"):
        QualityFilterConfig(min_length=50.0, max_length=40.0)
