"""The account of a preprocessing adds up."""

import numpy as np
import pytest
from real_reads import arrays, some_reads, with_adapters

from diffbio.core.errors import DataError
from diffbio.operators.preprocessing.adapters import AdapterTrimming, AdapterTrimmingConfig
from diffbio.operators.preprocessing.quality_filter import QualityFilter, QualityFilterConfig
from diffbio.operators.preprocessing.quality_trimming import QualityTrimming, QualityTrimmingConfig
from diffbio.operators.preprocessing.report import preprocessing_report

ADAPTER = "AGATCGGAAGAGCACACGTCTGAACTCCAGTCA"


@pytest.mark.parametrize("softness", [None, 1e-4])
def test_every_read_and_base_is_accounted_for(softness: float | None) -> None:
    """With soft weights, too; and with hard ones all numbers are whole."""
    before = arrays(with_adapters(some_reads() * 3, ADAPTER))
    steps = (
        QualityTrimming(QualityTrimmingConfig()),
        AdapterTrimming(AdapterTrimmingConfig(adapters=(ADAPTER,))),
        QualityFilter(QualityFilterConfig(max_unknown=0.0, min_length=40.0)),
    )
    data, after = before, {}
    for step in steps:
        if softness is not None:
            step.softness.set(softness)
        data = step.apply(data, {}, None)[0]
        after[type(step).__name__] = data
    report = preprocessing_report(before, after)
    print(report)
    taken = sum(step.bases_trimmed + step.bases_dropped for step in report.steps)
    dropped = sum(step.reads_dropped for step in report.steps)
    assert report.bases_in == before["read_lengths"].sum()
    assert report.bases_in == pytest.approx(taken + report.bases_out, rel=1e-6)
    assert report.reads_in == pytest.approx(dropped + report.reads_out, rel=1e-6)
    assert report.reads_out == pytest.approx(float(np.sum(data["read_weights"])), rel=1e-6)
    reasons = report.steps[-1].reasons
    assert sum(reasons.values()) == pytest.approx(report.steps[-1].reads_dropped, rel=1e-5)
    assert {reason for reason, reads in reasons.items() if reads > 1} == {"unknown_pass", "length_pass"}
    if softness is not None:
        numbers = [report.bases_out, report.reads_out, *(step.bases_trimmed for step in report.steps)]
        np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-2)


def test_a_report_without_steps_and_without_reads() -> None:
    report = preprocessing_report({"qualities": np.ones((2, 3)), "read_mask": np.array([1.0, 0.0])}, {})
    assert (report.reads_in, report.bases_in, report.reads_out, report.bases_out) == (1, 3, 1, 3)
    with pytest.raises(DataError, match="the data have 'counts'"):
        preprocessing_report({"counts": np.ones(3)}, {})
