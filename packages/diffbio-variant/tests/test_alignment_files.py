"""Reads of alignment files as arrays: the counts of htslib's pileup, an account of every read, clear errors."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import alignments
import numpy as np
import pysam
import pytest

from diffbio.core.errors import ConfigError, DataError
from diffbio.io.reads.alignment_files import AlignedReads, AlignmentFile
from diffbio.io.reads.filters import Account, Flags, ReadFilters
from diffbio.io.reads.references import Reference


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reference and reads; what is written there is read by many tests."""
    path, rng = tmp_path_factory.mktemp("reads"), np.random.default_rng(0)
    alignments.write_reference(path / "genome.fa", rng)
    alignments.write_alignments(path / "reads.bam", rng)
    return path


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_htslib(seed: int, tmp_path: Path) -> None:
    path = alignments.write_alignments(tmp_path / "reads.bam", np.random.default_rng(seed))
    file = AlignmentFile(path)
    for number, (contig, size) in enumerate(alignments.CONTIGS.items()):
        theirs = alignments.pileup(path, contig, size)
        np.testing.assert_array_equal(alignments.counted(file.reads(), number, size), theirs)
        np.testing.assert_array_equal(alignments.counted(file.reads(contig, batch_size=7), number, size), theirs)
        assert (theirs.sum(0) > 0).all()


def walked(cigar: list[tuple[int, int]], begin: int, n_positions: int) -> np.ndarray:
    """Return positions, insertions and deletions of a read, base by base."""
    rows = np.zeros((3, n_positions), int)
    rows[0] = -1
    query, anchor = 0, None
    for kind, length in cigar:
        for _ in range(length):
            if kind in (0, 7, 8):
                rows[0, query], anchor = begin, query
            elif anchor is not None and kind in (1, 2):
                rows[kind, anchor] += 1
            query += kind in (0, 1, 4, 7, 8)
            begin += kind in (0, 2, 3, 7, 8)
    return rows


def test_placements_are_those_of_a_walk_along_each_cigar(tmp_path: Path) -> None:
    path = alignments.write_alignments(tmp_path / "reads.bam", np.random.default_rng(5), most=3)
    with pysam.AlignmentFile(str(path)) as file:
        segments = {segment.query_name: segment for segment in file}
    for reads in AlignmentFile(path).reads(filters=ReadFilters(skipped_flags=0, keep_orphans=True), batch_size=64):
        for row, name in enumerate(reads.names):
            segment = segments[name]
            cigar = [(int(kind), length) for kind, length in segment.cigartuples]
            ours = np.stack([reads.base_positions[row], reads.insertions[row], reads.deletions[row]])
            np.testing.assert_array_equal(ours, walked(cigar, segment.reference_start, ours.shape[1]), err_msg=name)
            n_bases = reads.read_lengths[row]
            letters = "".join("ACGTN"[code] for code in reads.codes[row, :n_bases])
            assert letters == segment.query_sequence
            assert (reads.codes[row, n_bases:] == -1).all()
            assert reads.qualities[row, :n_bases].tolist() == list(segment.query_qualities)
            assert reads.read_offsets[row] == (cigar[0][1] if cigar[0][0] == 5 else 0)
            assert reads.full_lengths[row] == segment.infer_read_length()
            assert (reads.begins[row], reads.ends[row]) == (segment.reference_start, segment.reference_end)
            assert (reads.flags[row], reads.mapping_qualities[row]) == (segment.flag, segment.mapping_quality)


def test_read_groups_and_samples_are_those_of_the_header(folder: Path) -> None:
    file = AlignmentFile(folder / "reads.bam")
    assert (file.read_groups, file.samples, dict(file.contigs)) == (("a", "b"), ("s",), alignments.CONTIGS)
    for reads in file.reads():
        for name, group in zip(reads.names, reads.read_groups, strict=True):
            number = int(name[1:])
            assert group == (number % 2 if number % 3 else -1)


@pytest.mark.parametrize(
    ("filters", "theirs"),
    [
        (ReadFilters(keep_orphans=True), {"ignore_orphans": False}),
        (ReadFilters(minimal_mapping_quality=30), {"min_mapping_quality": 30}),
        (ReadFilters(skipped_flags=Flags.REVERSE), {"flag_filter": Flags.REVERSE | Flags.UNMAPPED}),
        (ReadFilters(required_flags=Flags.PAIRED), {"flag_require": Flags.PAIRED}),
    ],
)
def test_filters_are_those_of_htslib(filters: ReadFilters, theirs: dict, folder: Path) -> None:
    file = AlignmentFile(folder / "reads.bam")
    ours = alignments.counted(file.reads("chr1", filters=filters), 0, 3000)
    if "flag_require" in theirs:  # pysam's pileup requires all bits, samtools one of them: they agree on one
        theirs = {"flag_require": int(theirs["flag_require"])}
    np.testing.assert_array_equal(ours, alignments.pileup(folder / "reads.bam", "chr1", 3000, **theirs))
    assert file.account.used < file.account.seen


def test_every_read_is_in_the_account(folder: Path) -> None:
    file = AlignmentFile(folder / "reads.bam")
    n_used = sum(len(reads.names) for reads in file.reads(filters=ReadFilters(minimal_mapping_quality=5)))
    with pysam.AlignmentFile(str(folder / "reads.bam")) as segments:
        flags = np.array([segment.flag for segment in segments])
    assert file.account.seen == len(flags)
    assert file.account.used == n_used
    assert file.account.seen == n_used + sum(file.account.dropped.values())
    for reason, flag in (("unmapped", 4), ("secondary", 256), ("failed quality check", 512), ("duplicate", 1024)):
        assert file.account.dropped[reason] == (flags & flag > 0).sum()
    assert file.account.dropped["not properly paired"] <= (flags == 65).sum()
    assert "dropped as low mapping quality" in str(file.account)


def test_reads_above_the_largest_depth_are_counted(folder: Path) -> None:
    file = AlignmentFile(folder / "reads.bam")
    (every,) = file.reads("chr1", filters=ReadFilters(max_depth=None))
    file.account = Account()
    (some,) = file.reads("chr1", filters=ReadFilters(max_depth=5))
    covering = [int(((some.begins <= begin) & (some.ends > begin)).sum()) for begin in some.begins]
    assert max(covering) == 5
    assert file.account.dropped["above max_depth"] == len(every.names) - len(some.names) > 0


def together(batches: list[AlignedReads]) -> list[tuple]:
    """Return reads as tuples, whatever the batches."""
    rows = []
    for batch in batches:
        for row, name in enumerate(batch.names):
            size = batch.read_lengths[row]
            arrays = [getattr(batch, field)[row] for field in batch._fields if field != "names"]
            rows.append((name, *(array[:size].tolist() if array.ndim else int(array) for array in arrays)))
    return rows


def test_formats_and_batch_sizes_give_the_same_reads(folder: Path, tmp_path: Path) -> None:
    path, reference = folder / "reads.bam", Reference(folder / "genome.fa")
    pysam.samtools.view("-h", "-o", str(tmp_path / "reads.sam"), str(path), catch_stdout=False)
    cram = tmp_path / "reads.cram"
    pysam.samtools.view("-C", "-T", str(reference.path), "-o", str(cram), str(path), catch_stdout=False)
    pysam.index(str(cram))
    expected = together(list(AlignmentFile(path).reads()))
    assert together(list(AlignmentFile(path, threads=2).reads(batch_size=10))) == expected
    assert together(list(AlignmentFile(tmp_path / "reads.sam").reads())) == expected
    assert together(list(AlignmentFile(cram, reference=reference).reads())) == expected
    of_region = list(AlignmentFile(path).reads("chr2:100-300"))
    assert together(list(AlignmentFile(cram, reference=reference).reads("chr2:100-300"))) == together(of_region)


def test_columns_have_few_sizes(folder: Path) -> None:
    sizes = {reads.codes.shape[1] for reads in AlignmentFile(folder / "reads.bam").reads(batch_size=5)}
    assert sizes <= {64, 96, 128, 192, 256, 384}
    (reads,) = AlignmentFile(folder / "reads.bam").reads(least_positions=1024)
    assert reads.codes.shape[1] == 1024


def test_reads_without_qualities_or_bases(tmp_path: Path) -> None:
    header = {"SQ": [{"SN": "chr1", "LN": 100}]}
    path = tmp_path / "reads.bam"
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for name, bases, cigar in (("bare", "ACGT", "4M"), ("empty", None, "4M"), ("loose", "ACGT", None)):
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.query_sequence, read.reference_id, read.cigarstring = name, bases, 0, cigar
            file.write(read)
    with pytest.raises(DataError, match="'bare' has no base qualities; give missing_quality="):
        list(AlignmentFile(path).reads())
    file = AlignmentFile(path, missing_quality=20)
    (reads,) = file.reads()
    assert reads.qualities[0, :5].tolist() == [20, 20, 20, 20, 0]
    assert file.account == Account(seen=3, used=1, dropped={"without bases or CIGAR": 2})


def test_a_file_without_reads_gives_none(tmp_path: Path) -> None:
    path = alignments.write_alignments(tmp_path / "reads.bam", np.random.default_rng(0), n_reads=0)
    assert list(AlignmentFile(path).reads()) == list(AlignmentFile(path).reads("chr1")) == []


def written(
    path: Path, cigar: str, bases: str = "ACGT", header: dict | None = None, begins: tuple[int, ...] = (0,)
) -> Path:
    """Write reads that may be faulty."""
    with pysam.AlignmentFile(str(path), "wb", header=header or {"SQ": [{"SN": "chr1", "LN": 100}]}) as file:
        for begin in begins:
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.query_sequence, read.cigarstring = "odd", bases, cigar
            read.query_qualities = pysam.qualitystring_to_array("I" * len(bases))
            read.reference_id, read.reference_start = 0, begin
            file.write(read)
    return path


def all_of(path: Path, region: str | None = None, **options) -> list:
    return list(AlignmentFile(path, **options).reads(region))


def _missing(folder: Path, tmp_path: Path) -> None:
    all_of(tmp_path / "bad.bam")


def _empty(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.bam").write_bytes(b"")
    all_of(tmp_path / "bad.bam")


def _fastq(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.bam").write_text("@r1\nACGT\n+\nIIII\n")
    all_of(tmp_path / "bad.bam")


def _cut_short(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.bam").write_bytes((folder / "reads.bam").read_bytes()[:-40])
    all_of(tmp_path / "bad.bam")


def _cut_within(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "reads.bam").read_bytes()
    (tmp_path / "bad.bam").write_bytes(whole[: len(whole) // 2] + whole[-28:])  # with the mark of the end
    all_of(tmp_path / "bad.bam")


def _no_index(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "reads.bam", tmp_path / "bad.bam")
    all_of(tmp_path / "bad.bam", "chr1")


def _unsorted(folder: Path, tmp_path: Path) -> None:
    all_of(written(tmp_path / "bad.bam", "4M", begins=(50, 0)), "chr1")


def _foreign_index(folder: Path, tmp_path: Path) -> None:
    written(tmp_path / "bad.bam", "4M", begins=(0, 50))
    pysam.index(str(tmp_path / "bad.bam"))
    written(tmp_path / "bad.bam", "4M", begins=(50, 0))
    (tmp_path / "bad.bam.bai").touch()
    all_of(tmp_path / "bad.bam", "chr1")


def _sam_region(folder: Path, tmp_path: Path) -> None:
    pysam.samtools.view("-h", "-o", str(tmp_path / "bad.sam"), str(folder / "reads.bam"), catch_stdout=False)
    all_of(tmp_path / "bad.sam", "chr1")


def _contig(folder: Path, tmp_path: Path) -> None:
    all_of(folder / "reads.bam", "1:5-10")


def _beyond(folder: Path, tmp_path: Path) -> None:
    all_of(folder / "reads.bam", "chr2:1000-1300")


def _other_reference(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.fa").write_text(">chr1\nACGT\n")
    all_of(folder / "reads.bam", reference=Reference(tmp_path / "other.fa"))


def _other_names(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.fa").write_text(">1\nACGT\n")
    all_of(folder / "reads.bam", reference=Reference(tmp_path / "other.fa"))


def _cram(folder: Path, tmp_path: Path) -> None:
    view = ("-C", "-T", str(folder / "genome.fa"), "-o", str(tmp_path / "bad.cram"), str(folder / "reads.bam"))
    pysam.samtools.view(*view, catch_stdout=False)
    all_of(tmp_path / "bad.cram")


def _cram_of_another(folder: Path, tmp_path: Path) -> None:
    alignments.write_reference(tmp_path / "other.fa", np.random.default_rng(9))
    view = ("-C", "-T", str(folder / "genome.fa"), "-o", str(tmp_path / "bad.cram"), str(folder / "reads.bam"))
    pysam.samtools.view(*view, catch_stdout=False)
    all_of(tmp_path / "bad.cram", reference=Reference(tmp_path / "other.fa"))


def _not_aligned(folder: Path, tmp_path: Path) -> None:
    with pysam.AlignmentFile(str(tmp_path / "bad.bam"), "wb", header={"HD": {"VN": "1.6"}}):
        pass
    all_of(tmp_path / "bad.bam")


def _wrong_cigar(folder: Path, tmp_path: Path) -> None:
    all_of(written(tmp_path / "bad.bam", "5M"))


def _equal_signs(folder: Path, tmp_path: Path) -> None:
    all_of(written(tmp_path / "bad.bam", "4M", "A=GT"))


BAD: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "missing": (_missing, r"bad\.bam does not exist"),
    "empty": (_empty, r"bad\.bam is none of SAM, BAM and CRAM"),
    "FASTQ": (_fastq, r"bad\.bam is none of SAM, BAM and CRAM; align reads"),
    "cut short": (_cut_short, r"bad\.bam is cut short or damaged .*copy it again"),
    "cut within": (_cut_within, r"bad\.bam is cut short or damaged .*copy it again"),
    "no index": (_no_index, r"bad\.bam has no index, which regions need; run `samtools index \S*bad\.bam`"),
    "not sorted": (_unsorted, r"bad\.bam has no index.*run `samtools sort -o SORTED.bam .*`samtools index SORTED.bam`"),
    "index of another": (
        _foreign_index,
        r"bad\.bam is not sorted, or its index is of another file; run `samtools sort",
    ),
    "region of SAM": (_sam_region, r"bad\.sam is SAM, which has no regions; run `samtools sort"),
    "contig": (_contig, r"region '1:5-10': there is no contig '1' \(did you mean 'chr1'\?\); there are 'chr1', 'chr2'"),
    "beyond": (_beyond, r"region chr2:1000-1300 is not within 'chr2', which has positions 1 to 1200"),
    "reference": (_other_reference, r"aligned to another reference .*: 'chr1' has 3000 positions there and 4 here"),
    "names": (_other_names, r"other\.fa has none of the contigs of .*reads\.bam: '1' here, 'chr1', 'chr2' there"),
    "CRAM": (_cram, r"bad\.cram is CRAM, which holds differences to a reference; give reference="),
    "CRAM of another": (
        _cram_of_another,
        r"bad\.cram is cut short or damaged, or was written against another reference",
    ),
    "not aligned": (_not_aligned, r"bad\.bam names no contig in its header: its reads are not aligned"),
    "CIGAR": (_wrong_cigar, r"bad\.bam holds a malformed record .*a CIGAR that does not fit the bases; write it again"),
    "equal signs": (_equal_signs, r"bad\.bam writes bases that equal the reference as '='"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case: str, folder: Path, tmp_path: Path) -> None:
    act, message = BAD[case]
    with pytest.raises(DataError, match=message):
        act(folder, tmp_path)


def test_an_old_index_is_a_warning(folder: Path, tmp_path: Path) -> None:
    import os

    for name in ("reads.bam", "reads.bam.bai"):
        shutil.copy(folder / name, tmp_path / name)
    os.utime(tmp_path / "reads.bam.bai", (1, 1))
    with pytest.warns(UserWarning, match=r"reads\.bam\.bai is older than .*run `samtools index"):
        all_of(tmp_path / "reads.bam", "chr1")


@pytest.mark.parametrize(
    "options", [{"skipped_flags": -1}, {"minimal_mapping_quality": 300}, {"max_depth": 0}, {"required_flags": 1 << 16}]
)
def test_filters_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ReadFilters(**options)


def test_numbers_out_of_range_are_refused(folder: Path) -> None:
    for options in ({"missing_quality": 94}, {"threads": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            AlignmentFile(folder / "reads.bam", **options)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        list(AlignmentFile(folder / "reads.bam").reads(batch_size=0))


REAL = ["ex1", "dwgsim and bwa on lambda", "PacBio HG004"]


@pytest.mark.slow
@pytest.mark.parametrize("overlaps", [True, False], ids=["", "-x"])
@pytest.mark.parametrize("data", REAL)
def test_counts_of_real_files_are_those_of_samtools(data: str, overlaps: bool, tmp_path: Path, certificate) -> None:
    path, _ = alignments.real_file(data, tmp_path)
    file = AlignmentFile(path, missing_quality=10)  # the PacBio file has no qualities
    options = ["-B", "-Q", "0", "-d", "0", *([] if overlaps else ["-x"])]
    different = n_positions = 0
    for number, (contig, size) in enumerate(file.contigs.items()):
        theirs = alignments.mpileup(path, contig, size, options)
        ours = alignments.counted(file.reads(), number, size)
        different += int((ours != theirs).any(1).sum())
        n_positions += int((theirs.sum(1) > 0).sum())
    certificate(
        operator="AlignmentFile",
        reference=f"samtools mpileup {' '.join(options)}",
        data=data,
        quantity=f"positions of {n_positions} whose counts differ",
        value=different,
        bar="= 0",
    )
    assert n_positions > 1000
    assert different == 0


CHILD = """
import re, sys
from pathlib import Path
from diffbio.io.reads.alignment_files import AlignmentFile
from diffbio.io.reads.references import Reference
from diffbio.io.reads.windows import read_windows
file, n_reads = AlignmentFile(sys.argv[1]), 0
if sys.argv[2] == "reads":
    n_reads = sum(len(reads.names) for reads in file.reads())
else:
    for batch in read_windows(file, Reference(sys.argv[3]), window=512, margin=64, batch_size=8):
        pass
    n_reads = file.account.used
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(n_reads, int(peak) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["reads", "windows"])
def test_memory_does_not_grow_with_the_file(what: str, tmp_path: Path, certificate) -> None:
    alignments.needed(Path("/proc/self/status"))  # getrusage would count what the parent had, too
    peaks = []
    for n_reads in (50_000, 1_000_000):
        path, reference = alignments.write_many(tmp_path / f"{n_reads}.bam", n_reads)
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(path), what, str(reference)], capture_output=True, text=True, check=True
        )
        n_used, peak = child.stdout.split()
        assert int(n_used) == n_reads
        peaks.append(float(peak))
    certificate(
        operator="AlignmentFile" if what == "reads" else "read_windows",
        reference="VmHWM of a child process",
        data="a million reads of 100 bases",
        quantity="peak memory, MB",
        value=peaks[1],
        bar="< 2,000",
    )
    print(f"with 50,000 reads: {peaks[0]:.0f} MB")
    assert peaks[1] < min(2000, 1.1 * peaks[0] + 20)
