"""What training learned, written for GATK and bcftools: read back it is the same, and does the same."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pysam
import pytest
from sequenced import laid_with_everything

from diffbio.core import Pipeline
from diffbio.core.exports import export
from diffbio.io.reads import AlignmentFile
from diffbio.operators.variant.recalibration import BaseQualityRecalibration, BaseQualityRecalibrationConfig
from diffbio.operators.variant.recalibration_counts import N_QUALITIES, RecalibrationCounts
from diffbio.operators.variant.recalibration_fit import RecalibrationTables, fit_tables
from diffbio.operators.variant.recalibration_table import read_recalibration_table
from diffbio.operators.variant.variant_filter import SoftVariantFilter, SoftVariantFilterConfig
from diffbio.pipelines.variant.exports import equivalent_counts

LANES = {"read_groups": ["lane1", "lane2"]}


def exported(operator, folder: Path, metadata=None) -> Path:
    (path,) = export(Pipeline(operator, names=["learned"]), folder / "exports", metadata=metadata)
    return path


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    return laid_with_everything(n_reads=2000)


@pytest.fixture(scope="module")
def trained(data) -> BaseQualityRecalibration:
    """Tables of counts that went on by 1 Phred where there are any, as a gradient moves them."""
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(n_groups=2, max_cycle=30))
    operator.initialize_from(data)
    random = np.random.default_rng(0)
    for name, table in operator.tables()._asdict().items():
        moved = jnp.asarray(random.normal(size=table.shape), jnp.float32)
        getattr(operator, name)[...] = jnp.where(table == 0, 0.0, table + moved)
    return operator


@pytest.mark.parametrize("prior_std", [0.5, 2.0])
def test_tables_come_back(trained, prior_std: float, tmp_path: Path, certificate) -> None:
    path = exported(trained, tmp_path, LANES)
    report = read_recalibration_table(path)
    assert (path.name, report.read_groups) == ("learned.table", ("lane1", "lane2"))
    found = [np.asarray(table) for table in fit_tables(report.counts, prior_std=prior_std)]
    expected = [np.array(table) for table in trained.tables()]
    of_low = slice(0, trained.config.min_quality)  # GATK leaves such qualities as they are, too
    for ours in expected[1:]:
        ours[:, of_low] = 0
    worst = max(float(np.abs(read - ours).max()) for read, ours in zip(found, expected, strict=True))
    for read, ours in zip(found[2:], expected[2:], strict=True):
        assert (read[ours == 0] == 0).all()
        assert (ours != 0).sum() > 50
    certificate(
        operator="BaseQualityRecalibration",
        reference="its own tables, read back from GATK's report",
        data="two read groups of 2000 random reads, tables moved by 1 Phred",
        quantity=f"correction with a prior of {prior_std} Phred, largest difference, Phred",
        value=worst,
        bar="<= 0.01",
    )
    assert worst <= 0.01


def test_empirical_qualities_in_the_file_are_those_that_were_trained(trained, tmp_path: Path) -> None:
    path = exported(trained, tmp_path, LANES)
    tables = [np.asarray(table) for table in trained.tables()]
    expected = np.clip(np.arange(N_QUALITIES) + tables[0][:, None] + tables[1], 0.01, 93)
    rows = [line.split() for line in path.read_text().split("RecalTable1:")[1].split("RecalTable2:")[0].splitlines()]
    rows = [row for row in rows if row and row[0].startswith("lane")]
    assert len(rows) == 2 * (N_QUALITIES - 6)
    for name, quality, _, empirical, *_ in rows:
        assert float(empirical) == pytest.approx(expected[LANES["read_groups"].index(name), int(quality)], abs=0.01)


def test_of_corrections_of_one_sign_the_sum_comes_back(data, tmp_path: Path) -> None:
    """No counts give a group more errors than all of its qualities have; what its shift lacks is in theirs."""
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(n_groups=2, max_cycle=30))
    operator.initialize_from(data)
    operator.quality_delta[...] = jnp.abs(operator.quality_delta[...]) + 1
    again = BaseQualityRecalibration(operator.config)
    again.initialize_from_counts(read_recalibration_table(exported(operator, tmp_path, LANES)).counts)
    assert float(jnp.abs(again.group_shift[...] - operator.group_shift[...]).max()) > 0.5
    qualities = (one.apply(data, {}, None)[0]["recalibrated_qualities"] for one in (operator, again))
    np.testing.assert_allclose(*qualities, atol=0.01)


def qualities_of_gatk(counts: RecalibrationCounts) -> Callable[[int, int, int, int, int], float]:
    """Return GATK's ApplyBQSR, written out: whole qualities up to 60, each level around the one above."""
    bins = np.arange(61.0)

    def empirical(seen: float, wrong: float, prior: float) -> float:
        seen, wrong = seen + 2, np.floor(wrong + 0.5) + 1
        most = 2.0**31 - 2
        seen, wrong = (most, np.round(wrong * most / seen)) if seen > most else (seen, wrong)
        with np.errstate(divide="ignore", invalid="ignore"):
            right = np.where(seen == wrong, 0.0, (seen - wrong) * np.log1p(-(10.0 ** (-bins / 10))))
        likelihood = right - wrong * np.log(10) / 10 * bins
        return float((likelihood - np.minimum(np.abs(bins - np.round(prior)), 40) ** 2 / (2 * 0.5**2)).argmax())

    seen, wrong, of_cycle, wrong_of_cycle, of_pair, wrong_of_pair = (np.asarray(array) for array in counts)
    whole = np.arange(N_QUALITIES)

    def quality(group: int, reported: int, cycle: int, before: int, own: int) -> float:
        mean = -10 * np.log10((seen[group] * 10 ** (-whole / 10)).sum() / seen[group].sum())
        of_group = empirical(seen[group].sum(), wrong[group].sum(), mean)
        of_quality = empirical(seen[group, reported], wrong[group, reported], of_group)
        found = of_quality
        for n, e in (
            (of_cycle[group, reported, cycle], wrong_of_cycle[group, reported, cycle]),
            (of_pair[group, reported, before, own], wrong_of_pair[group, reported, before, own]),
        ):
            found += empirical(n, e, of_quality) - of_quality if n else 0.0
        return float(np.clip(np.floor(found + 0.5), 1, 93))

    return quality


def test_gatk_corrects_qualities_likewise(trained, tmp_path: Path, certificate) -> None:
    """Three levels in whole Phred are 1.5 Phred from ours at most, and the rounded sum 2."""
    found = qualities_of_gatk(read_recalibration_table(exported(trained, tmp_path, LANES)).counts)
    shift, of_quality, of_cycle, of_pair = (np.asarray(table) for table in trained.tables())
    random, differences = np.random.default_rng(0), []
    for _ in range(2000):
        at = group, reported, cycle, before, own = [
            int(value) for value in random.integers([0, 6, 0, 0, 0], [2, 50, 61, 4, 4])
        ]
        level = reported + shift[group] + of_quality[group, reported]
        of_bins = level + of_cycle[group, reported, cycle], level + of_pair[group, reported, before, own]
        if min(level, *of_bins) >= 1 and max(level, *of_bins) <= 60:
            differences.append(abs(found(*at) - (sum(of_bins) - level)))
    certificate(
        operator="BaseQualityRecalibration",
        reference="GATK's ApplyBQSR written out, from the exported report",
        data=f"{len(differences)} bases with the tables of two read groups of 2000 random reads, moved by 1 Phred",
        quantity="quality, largest difference, Phred; GATK takes three levels and the sum to whole ones",
        value=max(differences),
        bar="<= 2",
    )
    assert len(differences) > 1000
    assert max(differences) <= 2
    assert np.mean(differences) < 0.5


def test_untrained_tables_change_nothing(data, tmp_path: Path) -> None:
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=30))
    counts, names = read_recalibration_table(exported(operator, tmp_path))
    assert names == ("group1",)
    assert counts.cycle_observations.sum() == counts.context_observations.sum() == 0
    again = BaseQualityRecalibration(operator.config)
    again.initialize_from_counts(counts)
    qualities = (one.apply(data, {}, None)[0]["recalibrated_qualities"] for one in (operator, again))
    np.testing.assert_allclose(*qualities, atol=0.001)
    assert max(counts.observations.sum(), counts.errors.sum()) < 2**63


def test_one_table_goes_under_the_name_of_each_read_group(tmp_path: Path) -> None:
    operator = BaseQualityRecalibration(BaseQualityRecalibrationConfig(max_cycle=30))
    operator.group_shift[...] = jnp.array([-3.0])
    counts, names = read_recalibration_table(exported(operator, tmp_path, {"read_groups": ["b", "a", "b"]}))
    assert names == ("b", "a")
    np.testing.assert_array_equal(counts.errors[0], counts.errors[1])
    np.testing.assert_allclose(fit_tables(counts).group_shift, -3, atol=0.01)


def test_extreme_corrections_stay_within_what_a_file_can_hold() -> None:
    tables = RecalibrationTables(*(np.zeros(shape) for shape in ((1,), (1, 94), (1, 94, 5), (1, 94, 4, 4))))
    of_quality = np.where(np.arange(94) == 30, -20.0, 1e-9)[None]
    counts = equivalent_counts(tables._replace(group_shift=np.array([-90.0]), quality_delta=of_quality))
    assert all(np.isfinite(array).all() for array in counts)
    assert (counts.errors <= counts.observations).all()
    assert counts.observations.sum() < 2**63


def test_files_name_read_groups_as_gatk_does(tmp_path: Path) -> None:
    groups = [{"ID": "a", "SM": "s", "PU": "flowcell.1"}, {"ID": "b", "SM": "s"}]
    header = {"SQ": [{"SN": "chr1", "LN": 100}], "RG": groups}
    path = tmp_path / "reads.bam"
    pysam.AlignmentFile(str(path), "wb", header=header).close()
    file = AlignmentFile(path)
    assert (file.read_groups, file.platform_units) == (("a", "b"), ("flowcell.1", "b"))


VCF = """##fileformat=VCFv4.2
##contig=<ID=c,length=1000>
##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""
ROWS = [(30, 20, "C"), (20, 80, "C"), (19.99, 20, "C"), (30, 81, "C"), (None, 5, "C"), (50, None, "C"), (30, 20, "AC"),
        (60, 20, "AC"), (60, 90, "AC"), (None, None, "AC")]  # fmt: skip


@pytest.mark.parametrize("limits", [((20, None), (None, 80)), ((None, None), (None, None))], ids=["some", "none"])
def test_bcftools_excludes_what_the_hard_filter_does(limits, tmp_path: Path, certificate) -> None:
    if shutil.which("bcftools") is None:
        pytest.skip("needs bcftools")
    calls = tmp_path / "calls.vcf"
    lines = [
        f"c\t{number + 1}\t.\tA\t{letters}\t{'.' if quality is None else quality}\tPASS\t"
        f"{'.' if depth is None else f'DP={depth}'}\n"
        for number, (quality, depth, letters) in enumerate(ROWS)
    ]
    calls.write_text(VCF + "".join(lines))
    operator = SoftVariantFilter(SoftVariantFilterConfig(lower=limits[0], upper=limits[1], temperature=1e-7))
    if limits[0][0]:
        operator.lower[...] = operator.lower[...].at[1, 0].set(50.0)  # an indel needs more
    path = exported(operator, tmp_path)
    command = f'bcftools view -H -e "$(cat {path})" {calls}'
    kept = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True).stdout.splitlines()
    kept = {int(line.split("\t")[1]) - 1 for line in kept}
    features = np.array([row[:2] for row in ROWS], np.float32)
    data = {"variant_features": features, "kind": np.array([len(row[2]) > 1 for row in ROWS], np.int32)}
    passing = np.asarray(operator.apply(data, {}, None)[0]["pass_probability"]) > 0.5
    differing = kept ^ set(np.flatnonzero(passing).tolist())
    certificate(
        operator="SoftVariantFilter",
        reference="bcftools view -e with the exported file",
        data=f"{len(ROWS)} variants at, beyond and without thresholds",
        quantity=f"variants judged differently, {'thresholds by kind' if limits[0][0] else 'no thresholds'}",
        value=len(differing),
        bar="= 0",
    )
    assert not differing
    assert path.name == "learned.exclude.txt"
