"""Reading files: the same records as Biopython and pysam read, and every kind of bad file refused by name."""

import gzip
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffbio.core.errors import ConfigError, DataError
from diffbio.io.sequence import DNA, PROTEIN, Record, bucketed, read_pairs, read_sequences, write_fastq

SeqIO = pytest.importorskip("Bio.SeqIO")
dnaio = pytest.importorskip("dnaio")
pyhmmer = pytest.importorskip("pyhmmer")
pysam = pytest.importorskip("pysam")

SEQUENCES = Path(pyhmmer.__file__).parent / "tests" / "data" / "seqs"
FASTQ = Path("/usr/lib/R/site-library/ShortRead/extdata/E-MTAB-1147/ERR127302_1_subset.fastq.gz")

READ = b"@r%d x\nACGT\n+\nIIII\n"
TWO_READS = READ % 1 + READ % 2


@pytest.mark.parametrize(
    ("file", "alphabet"),
    [("938293.PRJEB85.HG003687.faa", PROTEIN + "*"), ("LuxC.faa", PROTEIN), ("CP040672.1.genes_100.fna", DNA)],
)
def test_the_records_of_real_files_are_those_of_biopython_and_pysam(file: str, alphabet: str, certificate) -> None:
    if not (SEQUENCES / file).is_file():
        pytest.skip("this pyhmmer comes without its test data")
    ours = list(read_sequences(SEQUENCES / file, alphabet=None if "*" in alphabet else alphabet))
    theirs = list(SeqIO.parse(SEQUENCES / file, "fasta"))
    with pysam.FastxFile(str(SEQUENCES / file)) as lines:
        also = [(line.name, line.sequence) for line in lines]
    different = sum(
        (one.name, one.sequence) != (other.id, str(other.seq)) or (one.name, one.sequence) != third
        for one, other, third in zip(ours, theirs, also, strict=True)
    )
    certificate(
        operator="read_sequences",
        reference="Biopython, pysam",
        data=f"{file}, {len(ours)} records",
        quantity="records that differ",
        value=different,
        bar="= 0",
    )
    assert different == 0
    assert [record.number for record in ours] == list(range(1, len(ours) + 1))


def test_qualities_are_phred_whatever_their_offset(tmp_path: Path) -> None:
    qualities = np.array([0, 2, 41, 30], np.uint8)
    for offset, path in ((33, tmp_path / "new.fastq"), (64, tmp_path / "old.fastq.gz")):
        write_fastq(path, [Record("r", "x y", "ACGT", qualities)], phred_offset=offset)
        (record,) = read_sequences(path, phred_offset=offset)
        np.testing.assert_array_equal(record.qualities, qualities)
        assert (record.name, record.description, record.number) == ("r", "x y", 1)
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as lines:
            read = next(SeqIO.parse(lines, "fastq" if offset == 33 else "fastq-illumina"))
        assert read.letter_annotations["phred_quality"] == qualities.tolist()


def test_format_and_compression_are_told_by_content(tmp_path: Path) -> None:
    for name, content in {
        "a.txt": b">r\nAC\nGT\r\n",
        "b.fastq": b">r\nACGT\n",
        "c.fasta": gzip.compress(b">r\nAC") + gzip.compress(b"GT\n"),  # members, as bgzip writes them
        "d.gz": READ % 1,
    }.items():
        (tmp_path / name).write_bytes(content)
        assert [record.sequence for record in read_sequences(tmp_path / name, alphabet=DNA)] == ["ACGT"]


def test_pairs_come_from_two_files_or_from_one(tmp_path: Path) -> None:
    mates = [b"@a/%d\nAC\n+\nII\n", b"@b/%d\nG\n+\nI\n"]
    (tmp_path / "1.fq").write_bytes(mates[0] % 1 + mates[1] % 1)
    (tmp_path / "2.fq").write_bytes(mates[0] % 2 + mates[1] % 2)
    (tmp_path / "both.fq").write_bytes(b"".join(mate % number for mate in mates for number in (1, 2)))
    apart = list(read_pairs(tmp_path / "1.fq", tmp_path / "2.fq"))
    together = list(read_pairs(tmp_path / "both.fq"))
    for pairs in (apart, together):
        assert [(one.name, two.name) for one, two in pairs] == [("a/1", "a/2"), ("b/1", "b/2")]


def all_of(path: Path, **options) -> list:
    return list(read_sequences(path, **options))


def in_batches(path: Path, **options) -> list:
    return list(bucketed(read_sequences(path), batch_size=2, **options))


BAD: dict[str, tuple[bytes | None, Callable[[Path], object], str]] = {
    "missing": (None, all_of, r"bad\.fq does not exist; the folder .* does"),
    "empty": (b"", all_of, r"bad\.fq is empty; check the step"),
    "empty, compressed": (gzip.compress(b""), all_of, r"bad\.fq is empty; check the step"),
    "not a sequence file": (b"BAM\1 what", all_of, r"bad\.fq is neither FASTA nor FASTQ: it begins with b'B'"),
    "not text": (b">r\n\xff\xfe\n", all_of, r"bad\.fq is malformed at record 1"),
    "truncated gzip": (gzip.compress(READ % 1 * 9000)[:-60], all_of, r"bad\.fq is cut short: .* within record \d+, af"),
    "damaged gzip": (
        gzip.compress(TWO_READS)[:-8] + b"12345678",
        all_of,
        r"bad\.fq is damaged: .*, at record \d.*; copy or download",
    ),
    "truncated record": (TWO_READS[:-8], all_of, r"bad\.fq is malformed at record 2, after 'r1': .*; mend the record"),
    "fewer qualities": (
        READ % 1 + b"@r2\nACGT\n+\nII\n",
        all_of,
        r"bad\.fq is malformed at record 2, after 'r1': .*[Ll]ength.*; mend the record",
    ),
    "no letters": (READ % 1 + b"@r2\n\n+\n\n", all_of, r"bad\.fq: record 2 \('r2'\) has no letters; leave it out"),
    "another letter": (
        b">r1\nACGT\n>r2\nACJT\n",
        lambda path: all_of(path, alphabet=DNA),
        r"bad\.fq: record 2 \('r2'\) has 'J' at position 3, which is none of 'ACGT' .*; name the file's alphabet",
    ),
    "another letter, in batches": (
        b">r1\nACGT\n>r2\nACJT\n",
        in_batches,
        r"bad\.fq: record 2 \('r2'\) has 'J' at position 3",
    ),
    "too long": (
        b">r1\nACGT\n>r2\nACGTACGTA\n",
        lambda path: in_batches(path, buckets=(4, 8)),
        r"bad\.fq: record 2 \('r2'\) has 9 letters, more than the largest bucket of 8; add one: .*8, 16\)",
    ),
    "quality below the offset": (
        b"@r1\nAC\n+\n##\n",
        lambda path: all_of(path, phred_offset=64),
        r"bad\.fq: record 1 \('r1'\) has the quality '#' at position 1, .*phred_offset=64\); give phred_offset=33",
    ),
    "odd number of mates": (READ % 1, lambda path: list(read_pairs(path)), r"record 1 \('r1'\) has no mate: .*bad\.fq"),
    "other names": (
        TWO_READS,
        lambda path: list(read_pairs(path)),
        r"record 1 \('r1'\) and .* record 2 \('r2'\) are no mates",
    ),
    "second file ends early": (
        READ % 1,
        lambda path: list(read_pairs(good_beside(path), path)),
        r"good\.fq: record 2 \('r2'\) has no mate: .*bad\.fq ends before it",
    ),
    "first file ends early": (
        READ % 1,
        lambda path: list(read_pairs(path, good_beside(path))),
        r"good\.fq: record 2 \('r2'\) has no mate: .*bad\.fq ends before it",
    ),
}


def good_beside(path: Path) -> Path:
    good = path.with_name("good.fq")
    good.write_bytes(TWO_READS)
    return good


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_file_record_and_remedy(case: str, tmp_path: Path) -> None:
    content, use, message = BAD[case]
    path = tmp_path / "bad.fq"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        use(path)
    assert ";" in str(caught.value)  # what to do


def test_wrong_arguments_are_named() -> None:
    for options in ({"batch_size": 0}, {"batch_size": 1, "buckets": (8, 4)}, {"batch_size": 1, "buckets": ()}):
        with pytest.raises(ConfigError):
            list(bucketed([], **options))


@pytest.mark.slow
def test_twenty_thousand_reads_are_read_and_batched_in_about_a_second(certificate) -> None:
    if not FASTQ.is_file():
        pytest.skip("needs Debian's r-bioc-shortread")
    start = time.perf_counter()
    with dnaio.open(FASTQ) as file:
        n_reads = sum(1 for _ in file)
    parsed = time.perf_counter() - start
    start = time.perf_counter()
    n_rows = sum(len(batch.names) for batch in bucketed(read_sequences(FASTQ), batch_size=1024))
    ours = time.perf_counter() - start
    assert n_rows == n_reads == 20_000
    certificate(
        operator="bucketed",
        reference="dnaio's iteration",
        data="20,000 reads of ERR127302",
        quantity="seconds to read and batch",
        value=ours,
        bar=f"about 1; dnaio parses alone in {parsed:.3f}",
    )
