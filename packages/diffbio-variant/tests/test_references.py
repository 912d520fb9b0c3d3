"""References: the letters that pysam fetches, distributions of them, and clear errors."""

import gzip
import os
from pathlib import Path

import alignments
import numpy as np
import pysam
import pytest

from diffbio.core.errors import DataError
from diffbio.io.reads.references import Reference
from diffbio.io.reads.regions import Region


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alignments.write_reference(tmp_path_factory.mktemp("genome") / "genome.fa", np.random.default_rng(0))


def test_letters_codes_and_distributions_of_a_region_agree(path: Path) -> None:
    with Reference(path) as reference, pysam.FastaFile(str(path)) as theirs:
        assert dict(reference.contigs) == alignments.CONTIGS
        for region in (Region("chr1", 0, 3000), Region("chr2", 1199, 1200), Region("chr1", 65, 75)):
            letters = reference.letters(region)
            assert letters == theirs.fetch(*region) == reference.letters(str(region))
            expected = np.array([[letter == base for base in "ACGT"] for letter in letters.upper()], np.float32)
            np.testing.assert_array_equal(reference.one_hot(region), expected)
            codes = reference.codes(region)
            np.testing.assert_array_equal(codes, np.where(expected.any(1), expected.argmax(1), -1))
            assert (codes.dtype, reference.one_hot(region).dtype) == (np.int8, np.float32)


def test_a_file_of_bgzip_is_read_alike(path: Path, tmp_path: Path) -> None:
    pysam.tabix_compress(str(path), str(tmp_path / "genome.fa.gz"))
    compressed = Reference(tmp_path / "genome.fa.gz")
    assert compressed.letters("chr1:1-3000") == Reference(path).letters("chr1")
    assert (tmp_path / "genome.fa.gz.gzi").exists()


def test_a_window_may_reach_beyond_the_contig(path: Path) -> None:
    reference = Reference(path)
    codes = reference.window("chr2", -10, 1210)
    np.testing.assert_array_equal(codes[10:1210], reference.codes("chr2"))
    assert (codes[:10] == -1).all()
    assert (codes[1210:] == -1).all()
    assert (reference.window("chr2", 2000, 2010) == -1).all()
    with pytest.raises(DataError, match="there is no contig 'chr9'"):
        reference.window("chr9", 0, 10)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("chr3", r"region 'chr3': there is no contig 'chr3' \(did you mean 'chr[12]'.*\); there are 'chr1', 'chr2'"),
        ("1:1-10", r"there is no contig '1' \(did you mean 'chr1'\?\)"),
        ("chr2:1100-1201", r"region chr2:1100-1201 is not within 'chr2', which has positions 1 to 1200"),
        (Region("chr2", -1, 5), r"region chr2:0-5 is not within 'chr2'"),
        (Region("chrX", 0, 5), r"region chrX:1-5: there is no contig 'chrX'"),
    ],
)
def test_regions_that_are_not_there_are_refused(path: Path, region: Region | str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Reference(path).codes(region)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.fa", None, r"missing\.fa does not exist; give a FASTA file"),
        ("empty.fa", b"", r"empty\.fa (can't be read by index|holds no sequence)"),
        ("uneven.fa", b">a\nACGT\nAC\nACGT\n", r"uneven\.fa can't be read by index .*lines are equally long"),
        ("text.fa", b"hello\nworld\n", r"text\.fa can't be read by index"),
        ("gzip.fa.gz", gzip.compress(b">a\nACGT\n", mtime=0), r"gzip\.fa\.gz can't be read by index .*bgzip"),
    ],
)
def test_bad_files_are_refused_by_name(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Reference(tmp_path / name)


def test_proteins_are_refused_by_letter(tmp_path: Path) -> None:
    (tmp_path / "proteins.fa").write_text(">p\nACDEFG\n")
    with pytest.raises(DataError, match=r"proteins\.fa has 'E' in p:1-6, at letter 4, which is no code"):
        Reference(tmp_path / "proteins.fa").codes("p")


def test_a_folder_that_can_not_hold_an_index_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "genome.fa").write_bytes(path.read_bytes())
    monkeypatch.setattr(os, "access", lambda *_: False)  # the rights of root are never refused
    with pytest.raises(DataError, match=r"genome\.fa has no index, and none can be written into .*`samtools faidx"):
        Reference(tmp_path / "genome.fa")


def test_an_index_of_another_file_is_told(path: Path, tmp_path: Path) -> None:
    genome = tmp_path / "genome.fa"
    genome.write_bytes(path.read_bytes())
    Reference(genome)
    genome.write_bytes(path.read_bytes()[:2000])
    os.utime(genome.with_name("genome.fa.fai"), (1, 1))
    with pytest.warns(UserWarning, match=r"genome\.fa\.fai is older than .*run `samtools faidx"):
        reference = Reference(genome)
    with pytest.raises(DataError, match=r"genome\.fa has \d+ letters in chr2:1-1200; its index is of another file"):
        reference.letters("chr2")
