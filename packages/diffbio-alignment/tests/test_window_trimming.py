"""Trimming by sliding windows, against fastp; and against loops where fastp is not installed."""

from pathlib import Path

import numpy as np
import pytest
from real_reads import ERR127302, Record, arrays, fastp, load, save, some_reads

from diffbio.core.errors import ConfigError, ContractError
from diffbio.operators.preprocessing.examples.trimming import window_trimming_of_the_tail
from diffbio.operators.preprocessing.kept_bases import kept_interval
from diffbio.operators.preprocessing.window_trimming import WindowTrimming, WindowTrimmingConfig
from diffbio.testing import check_operator

MODES = [
    ({"front": 20.0}, ["--cut_front"]),
    ({"tail": 20.0}, ["--cut_tail"]),
    ({"right": 20.0}, ["--cut_right"]),
    ({"front": 28.0, "right": 28.0}, ["--cut_front", "--cut_right", "-M", "28"]),
    ({"front": 28.0, "tail": 30.0}, ["-5", "-3", "--cut_front_mean_quality", "28", "--cut_tail_mean_quality", "30"]),
    ({"right": 25.0, "window_size": 10}, ["--cut_right", "-M", "25", "-W", "10"]),
]


def kept(records: list[Record], thresholds: dict) -> list[str]:
    """Return the reads as they are trimmed in the limit."""
    operator = WindowTrimming(WindowTrimmingConfig(**thresholds, temperature=1e-4))
    begin, end = kept_interval(operator.apply(arrays(records), {}, None)[0]["base_weights"])
    return [r.sequence[b:e] for r, b, e in zip(records, np.asarray(begin), np.asarray(end), strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("thresholds", "options"), MODES)
def test_all_real_reads_are_trimmed_where_fastp_does(
    thresholds: dict, options: list[str], tmp_path: Path, certificate
) -> None:
    for end in (1, 2):
        records = load(ERR127302 / f"ERR127302_{end}_subset.fastq.gz")
        (expected,) = fastp(save(tmp_path / "reads.fastq", records), "-A", "-Q", "-L", *options)
        wanted = [expected[r.name].sequence if r.name in expected else "" for r in records]
        pairs = list(zip(wanted, kept(records, thresholds), strict=True))
        certificate(
            operator="WindowTrimming",
            reference="fastp 0.23.2",
            data=f"ERR127302_{end}, {len(records)} reads, {' '.join(options)}",
            quantity="share of reads trimmed elsewhere",
            value=np.mean([x != y for x, y in pairs]),
            bar="0",
        )
        assert all(x == y for x, y in pairs)


def test_some_reads_as_fastp_trims_them() -> None:
    """What fastp 0.23.2 makes of these reads, by length."""
    lengths = {name: [len(read) for read in kept(some_reads(), dict(thresholds))] for name, thresholds in NAMED.items()}
    assert lengths == EXPECTED


NAMED = {"right": {"right": 20.0}, "front and right": {"front": 28.0, "right": 28.0}}
EXPECTED = {
    "right": [64, 72, 60, 20, 35, 47, 32, 23, 19, 72, 69, 65, 72, 72, 72],
    "front and right": [64, 4, 60, 20, 23, 40, 32, 13, 19, 55, 69, 11, 72, 72, 72],
}


def test_the_tail_keeps_all_laws() -> None:
    report = check_operator(window_trimming_of_the_tail())
    assert report.ok, report.violations


def test_unknown_bases_at_the_cut_end_go_too() -> None:
    record = Record("r", "NNACGTACGT", "I" * 10)
    assert kept([record], {"front": 20.0}) == ["ACGTACGT"]
    assert kept([record], {"right": 20.0}) == [record.sequence]


def test_settings_and_sizes_are_checked() -> None:
    with pytest.raises(ConfigError, match="give front, tail or right"):
        WindowTrimmingConfig()
    with pytest.raises(ConfigError, match="both find the end"):
        WindowTrimmingConfig(tail=20.0, right=20.0)
    with pytest.raises(ContractError, match="reads have 4 positions and a window 4"):
        WindowTrimming(WindowTrimmingConfig(right=20.0)).apply({"qualities": np.ones((2, 4), np.float32)}, {}, None)
