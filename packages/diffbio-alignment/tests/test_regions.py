"""Parts of files by an index: the letters that reading the whole file gives."""

import sys
from pathlib import Path

import pytest

from diffbio.core.errors import DataError, MissingExtraError
from diffbio.io.sequence import Record, read_region, write_fasta

pysam = pytest.importorskip("pysam")
pytest.importorskip("dnaio")


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    path = tmp_path / "genome.fa"
    write_fasta(path, [Record("chr1", "first", "ACGT" * 20), Record("chr2", "", "TTGCA" * 9)], line_length=7)
    return path


def test_regions_are_slices_plain_and_compressed(genome: Path) -> None:
    compressed = genome.with_suffix(".fa.gz")
    pysam.tabix_compress(str(genome), str(compressed))
    for path in (genome, compressed):
        assert read_region(path, "chr2", 3, 12).sequence == ("TTGCA" * 9)[3:12]
        assert read_region(path, "chr1").sequence == "ACGT" * 20


def test_what_is_not_there_is_named(genome: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no sequence 'chr3' \(did you mean 'chr"):
        read_region(genome, "chr3")
    with pytest.raises(DataError, match="'chr2' has positions 0 to 45, and 40 to 46 were asked for"):
        read_region(genome, "chr2", 40, 46)
    with pytest.raises(DataError, match="does not exist"):
        read_region(genome.with_name("other.fa"), "chr1")
    monkeypatch.setitem(sys.modules, "pysam", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        read_region(genome, "chr1")
