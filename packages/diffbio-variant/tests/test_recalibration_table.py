"""The table of GATK: what is written comes back, in the form that GATK cuts into columns."""

from pathlib import Path

import numpy as np
import pytest
from sequenced import laid_with_everything

from diffbio.core.errors import DataError
from diffbio.operators.variant.recalibration import BaseQualityRecalibration, BaseQualityRecalibrationConfig
from diffbio.operators.variant.recalibration_counts import RecalibrationCounts, total_counts
from diffbio.operators.variant.recalibration_fit import fit_tables
from diffbio.operators.variant.recalibration_table import read_recalibration_table, write_recalibration_table

BY_GATK = """#:GATKReport.v1.1:5
#:GATKTable:2:3:%s:%s:;
#:GATKTable:Arguments:Recalibration argument collection values used in this run
Argument             Value
covariate            ReadGroupCovariate,QualityScoreCovariate,ContextCovariate,CycleCovariate
maximum_cycle_value  200
quantizing_levels    16

#:GATKTable:3:1:%d:%d:%d:;
#:GATKTable:Quantized:Quality quantization map
QualityScore  Count   QuantizedScore
           7  200000               7

#:GATKTable:6:1:%s:%s:%.4f:%.4f:%d:%.2f:;
#:GATKTable:RecalTable0:
ReadGroup  EventType  EmpiricalQuality  EstimatedQReported  Observations  Errors
lane1      M                   23.0000             30.0000        200000  1000.00

#:GATKTable:6:2:%s:%d:%s:%.4f:%d:%.2f:;
#:GATKTable:RecalTable1:
ReadGroup  QualityScore  EventType  EmpiricalQuality  Observations  Errors
lane1                30  M                   23.0000        200000  1000.00
lane1                45  D                   45.0000        200000     1.00

#:GATKTable:8:3:%s:%d:%s:%s:%s:%.4f:%d:%.2f:;
#:GATKTable:RecalTable2:
ReadGroup  QualityScore  CovariateValue  CovariateName  EventType  EmpiricalQuality  Observations  Errors
lane1                30  -7              Cycle          M                   23.0000          2000    20.00
lane1                30  AC              Context        M                   23.0000         12000    30.00
lane1                45  ACG             Context        D                   45.0000         12000     3.00

"""


@pytest.fixture
def counts() -> RecalibrationCounts:
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(n_groups=2, max_cycle=30))
    return operator.counts(laid_with_everything(n_reads=2000))


def test_counts_come_back_as_they_were(tmp_path: Path, counts: RecalibrationCounts, certificate) -> None:
    path = tmp_path / "recal.table"
    write_recalibration_table(path, counts, ["lane1", "lane2"])
    report = read_recalibration_table(path)
    assert report.read_groups == ("lane1", "lane2")
    differing = sum(int((np.asarray(a) != b).sum()) for a, b in zip(counts, report.counts, strict=True))
    certificate(
        operator="read_recalibration_table",
        reference="what write_recalibration_table was given",
        data="2000 random reads of two read groups",
        quantity="counts that differ",
        value=differing,
        bar="= 0",
    )
    assert differing == 0
    for one, other in zip(fit_tables(counts), fit_tables(report.counts), strict=True):
        np.testing.assert_array_equal(one, other)
    again = tmp_path / "again.table"
    write_recalibration_table(again, report.counts, report.read_groups)
    assert again.read_bytes() == path.read_bytes()


def test_a_file_of_gatk_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gatk.table"
    path.write_text(BY_GATK)
    counts, read_groups = read_recalibration_table(path)
    assert read_groups == ("lane1",)
    assert counts.cycle_errors.shape == (1, 94, 401)
    assert (counts.observations[0, 30], counts.errors[0, 30], counts.errors.sum()) == (200000, 1000, 1000)
    assert (counts.cycle_observations[0, 30, 193], counts.cycle_errors.sum()) == (2000, 20)
    assert (counts.context_observations[0, 30, 0, 1], counts.context_errors.sum()) == (12000, 30)


def test_columns_can_be_cut_where_their_names_begin(tmp_path: Path, counts: RecalibrationCounts) -> None:
    """GATK cuts lines at fixed places, and counts the rows that the line before the title tells."""
    path = tmp_path / "recal.table"
    write_recalibration_table(path, counts, ["a_read_group_of_a_long_name", "b"])
    header, *blocks = path.read_text().split("#:GATKTable:")
    assert header == "#:GATKReport.v1.1:5\n"
    assert len(blocks) == 10
    for sizes, block in zip(blocks[::2], blocks[1::2], strict=True):
        n_columns, n_rows, *formats = sizes.strip().rstrip(";").strip(":").split(":")
        title, names, *rows, blank, end = block.split("\n")
        assert (len(formats), len(rows), blank, end) == (int(n_columns), int(n_rows), "", "")
        begins = [at for at, letter in enumerate(names) if letter != " " and (at == 0 or names[at - 1] == " ")]
        for row in rows:
            cut = [row[at:to].strip() for at, to in zip(begins, [*begins[1:], None], strict=True)]
            assert cut == row.split(), title


def test_weighted_counts_are_rounded_to_whole_observations(tmp_path: Path, counts: RecalibrationCounts) -> None:
    path = tmp_path / "recal.table"
    parts = [RecalibrationCounts(*(0.26 * np.asarray(array) for array in counts))]
    write_recalibration_table(path, total_counts(parts), ["a", "b"])
    found = read_recalibration_table(path).counts
    np.testing.assert_array_equal(found.observations, np.round(0.26 * np.asarray(counts.observations)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("#:GATKReport.v1.1:5", "##fileformat=VCFv4.2", "BaseRecalibrator"),
        ("RecalTable1:", "AnotherTable:", "no table RecalTable1"),
        ("-7 ", "-999 ", "beyond"),
        ("AC  ", "ACG ", "can't be used"),
        ("  30.00\n", "\n", "7 fields"),
        ("  20.00\n", "  many\n", "can't be used"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "wrong.table"
    assert old in BY_GATK
    path.write_text(BY_GATK.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_recalibration_table(path)


def test_each_read_group_needs_a_name(tmp_path: Path, counts: RecalibrationCounts) -> None:
    for names in (["a"], ["a", "a"]):
        with pytest.raises(DataError, match="2 read groups"):
            write_recalibration_table(tmp_path / "recal.table", counts, names)
