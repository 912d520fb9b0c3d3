"""Regions: as samtools writes them, BED files, merging, and windows that own each position once."""

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffbio.core.errors import ConfigError, DataError
from diffbio.io.reads.regions import Region, check_region, merged, parse_region, read_bed, tiled

CONTIGS = {"chr1": 5000, "chr2": 70, "HLA:1": 90, "HLA": 40}


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("chr1", Region("chr1", 0, 5000)),
        ("chr1:1,001-2,000", Region("chr1", 1000, 2000)),
        ("chr1:1001-", Region("chr1", 1000, 5000)),
        ("chr1:1001", Region("chr1", 1000, 5000)),
        ("chr2:70-70", Region("chr2", 69, 70)),
        ("{HLA:1}", Region("HLA:1", 0, 90)),
        ("{HLA:1}:2-3", Region("HLA:1", 1, 3)),
        ("HLA:1:2-3", Region("HLA:1", 1, 3)),
        ("{HLA}:1", Region("HLA", 0, 40)),
    ],
)
def test_text_is_read_as_samtools_reads_it(text: str, region: Region) -> None:
    assert parse_region(text, CONTIGS) == region
    assert parse_region("{" + region.contig + "}:" + str(region).rpartition(":")[2], CONTIGS) == region


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr3", r"region 'chr3': there is no contig 'chr3' \(did you mean .*\); there are 'chr1', 'chr2', 'HLA:1'"),
        ("1:5-9", r"there is no contig '1' \(did you mean 'chr1'\?\)"),
        ("chr1:0-9", r"region chr1:0-9 is not within 'chr1', which has positions 1 to 5000"),
        ("chr1:9-5", "is not within"),
        ("chr2:60-71", "region chr2:60-71 is not within 'chr2', which has positions 1 to 70"),
        ("chr1:a-b", r"region 'chr1:a-b' has the interval 'a-b'; write it as chr1:1,001-2,000"),
        ("HLA:1", r"'HLA:1' is a contig, and a part of 'HLA'; write \{HLA:1\} or \{HLA\}:1"),
        ("", "there is no contig ''"),
    ],
)
def test_text_that_is_no_region_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_region(text, CONTIGS)


def test_bed_files_are_read_with_or_without_compression(tmp_path: Path) -> None:
    content = b"# comment\ntrack name=x\nbrowser hide\nchr1\t10\t20\tname\t0\t+\n\nchr2 0 70\nchr1\t5\t6\r\n"
    expected = [Region("chr1", 10, 20), Region("chr2", 0, 70), Region("chr1", 5, 6)]
    for name, written in {"a.bed": content, "a.bed.gz": gzip.compress(content, mtime=0)}.items():
        (tmp_path / name).write_bytes(written)
        assert read_bed(tmp_path / name, CONTIGS) == read_bed(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"bad\.bed does not exist"),
        (b"", r"bad\.bed holds no region"),
        (b"chr1\t10\n", r"bad\.bed, line 1: 'chr1\\t10' is no region; BED has name, begin and end"),
        (b"chr1\t1\t2\nchr1\tx\t20\n", r"bad\.bed, line 2: .* is no region"),
        (b"chr1\t-1\t20\n", r"line 1: .* is no region"),
        (b"chr1\t20\t20\n", r"line 1: .* holds no position; its end must be above its begin"),
        (b"chr2\t0\t71\n", r"line 1: region chr2:1-71 is not within 'chr2'"),
        (b"chrX\t0\t71\n", r"line 1: region chrX:1-71: there is no contig 'chrX'"),
        (gzip.compress(b"chr2\t0\t7\n" * 99, mtime=0)[:-9], r"bad\.bed can't be read as BED"),
        (b"\xff\xfe", r"bad\.bed can't be read as BED"),
    ],
)
def test_bad_bed_files_are_refused_by_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "bad.bed").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_bed(tmp_path / "bad.bed", CONTIGS)


def test_a_region_outside_is_refused() -> None:
    assert check_region(Region("chr2", 0, 70), CONTIGS) == Region("chr2", 0, 70)
    with pytest.raises(DataError, match="is not within"):
        check_region(Region("chr2", 5, 5), CONTIGS)


SOME = st.lists(
    st.builds(
        lambda contig, begin, size: Region(contig, begin, begin + size),
        st.sampled_from("ab"),
        st.integers(0, 60),
        st.integers(1, 30),
    ),
    max_size=8,
)


def covered(regions: list[Region]) -> dict[str, np.ndarray]:
    return {
        contig: np.isin(np.arange(100), [p for r in regions if r.contig == contig for p in range(r.begin, r.end)])
        for contig in "ab"
    }


@given(SOME, st.integers(0, 5))
def test_merged_regions_cover_the_same_and_do_not_touch(regions: list[Region], gap: int) -> None:
    joined = merged(regions)
    for contig in "ab":
        np.testing.assert_array_equal(covered(joined)[contig], covered(regions)[contig])
        of_contig = [region for region in merged(regions, gap=gap) if region.contig == contig]
        assert all(one.end + gap < two.begin for one, two in pairwise(of_contig))


@given(SOME, st.integers(1, 40), st.integers(0, 9))
def test_windows_own_each_position_once(regions: list[Region], own: int, margin: int) -> None:
    window = own + 2 * margin
    counts = {contig: np.zeros(100, int) for contig in "ab"}
    for tile in tiled(regions, window=window, margin=margin):
        assert tile.end - tile.begin == window
        assert tile.begin + margin == tile.own_begin < tile.own_end <= tile.end - margin
        counts[tile.contig][tile.own_begin : tile.own_end] += 1
    for contig in "ab":
        np.testing.assert_array_equal(counts[contig], covered(regions)[contig])


@pytest.mark.parametrize(("window", "margin"), [(0, 0), (20, 10), (10, -1)])
def test_windows_without_own_columns_are_refused(window: int, margin: int) -> None:
    with pytest.raises(ConfigError, match=f"window is {window} and margin {margin}"):
        list(tiled([Region("a", 0, 10)], window=window, margin=margin))
