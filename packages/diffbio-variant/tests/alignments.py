"""Alignment files for tests of reading, and the pileups by which they are judged."""

import gzip
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pysam
import pytest

CONTIGS = {"chr1": 3000, "chr2": 1200}
KINDS = ["A", "C", "G", "T", "N", "inserted", "deleted"]
_LETTERS = np.array(list("ACGTN"))


def write_reference(path: Path, rng: np.random.Generator) -> Path:
    """Write a random genome with a few codes of IUPAC and letters in lower case."""
    with path.open("w") as file:
        for name, size in CONTIGS.items():
            letters = rng.choice(list("ACGTacgtNR"), size, p=[0.2] * 4 + [0.04] * 4 + [0.03, 0.01])
            lines = "\n".join("".join(letters[begin : begin + 70]) for begin in range(0, size, 70))
            file.write(f">{name} made up\n{lines}\n")
    return path


def random_cigar(rng: np.random.Generator, most: int, between: tuple[int, ...] = (1, 2, 3, 6)) -> list[tuple[int, int]]:
    """Return a CIGAR: clips outside, blocks of every kind with up to `most` operations between."""
    inner: list[tuple[int, int]] = []
    for _ in range(int(rng.integers(1, 6))):
        inner.append((int(rng.choice([0, 7, 8])), int(rng.integers(1, 40))))
        for kind in rng.permutation(between)[: rng.integers(0, most + 1)]:
            inner.append((int(kind), int(rng.integers(1, 9)) * (10 if kind == 3 else 1)))
    while inner[-1][0] in (2, 3, 6):
        inner.pop()
    ends = [[(kind, int(rng.integers(1, 20))) for kind in kinds] for kinds in ([], [], [4], [5], [5, 4])]
    return ends[rng.integers(5)] + inner + ends[rng.integers(5)][::-1]


def write_alignments(path: Path, rng: np.random.Generator, n_reads: int = 300, most: int = 1, **header) -> Path:
    """Write random reads with random CIGARs and flags, sorted and with an index where the suffix allows one."""
    lines = {"HD": {"VN": "1.6", "SO": "coordinate"}, "RG": [{"ID": "a", "SM": "s"}, {"ID": "b", "SM": "s"}]}
    lines |= {"SQ": [{"SN": name, "LN": size} for name, size in CONTIGS.items()]} | header
    rows = []
    for number in range(n_reads):
        cigar = random_cigar(rng, most)
        span = sum(length for kind, length in cigar if kind in (0, 2, 3, 7, 8))
        contig = int(rng.integers(2))
        size = list(CONTIGS.values())[contig]
        if span <= size:
            rows.append((contig, int(rng.integers(size - span + 1)), number, cigar))
    with pysam.AlignmentFile(str(path), "wb", header=lines) as file:
        for contig, begin, number, cigar in sorted(rows, key=lambda row: row[:3]):
            read = pysam.AlignedSegment(file.header)
            n_bases = sum(length for kind, length in cigar if kind in (0, 1, 4, 7, 8))
            read.query_name = f"r{number}"
            read.query_sequence = "".join(rng.choice(_LETTERS, n_bases))
            read.query_qualities = pysam.qualitystring_to_array(
                "".join(chr(33 + q) for q in rng.integers(2, 42, n_bases))
            )
            read.reference_id, read.reference_start, read.cigartuples = contig, begin, cigar
            read.mapping_quality = int(rng.integers(0, 61))
            read.flag = int(rng.choice([0, 16, 67, 147, 65, 4, 256, 512, 1024, 2048], p=[0.3, 0.3] + [0.05] * 8))
            if number % 3:
                read.set_tag("RG", "ab"[number % 2])
            file.write(read)
    pysam.index(str(path))
    return path


def write_pairs(path: Path, rng: np.random.Generator, n_pairs: int = 150) -> Path:
    """Write proper pairs that overlap, with random CIGARs; mates never have the same quality.

    There are no deletions: against a base of the mate, htslib may drop either by the qualities beside.
    """
    rows = []
    for number in range(n_pairs):
        begin = int(rng.integers(0, 2000))
        for mate in range(2):
            cigar = random_cigar(rng, 1, (1, 6))
            rows.append((begin, number, mate, cigar, [0, 1024][rng.random() < 0.05]))
            begin += int(rng.integers(0, 40))
    with pysam.AlignmentFile(str(path), "wb", header={"SQ": [{"SN": "chr1", "LN": 3000}]}) as file:
        begins = {(number, mate): begin for begin, number, mate, *_ in rows}
        for begin, number, mate, cigar, flag in sorted(rows, key=lambda row: row[:3]):
            read = pysam.AlignedSegment(file.header)
            n_bases = sum(length for kind, length in cigar if kind in (0, 1, 4, 7, 8))
            read.query_name, read.query_sequence = f"p{number}", "".join(rng.choice(_LETTERS[:4], n_bases))
            qualities = rng.integers(2, 20, n_bases) * 2 + mate
            read.query_qualities = pysam.qualitystring_to_array("".join(chr(33 + quality) for quality in qualities))
            read.reference_id = read.next_reference_id = 0
            read.reference_start, read.next_reference_start = begin, begins[number, 1 - mate]
            read.template_length = (50, -50)[mate]
            read.cigartuples, read.mapping_quality, read.flag = cigar, 60, (99, 147)[mate] | flag
            file.write(read)
    pysam.index(str(path))
    return path


def pileup(path: Path, contig: str, size: int, **options) -> np.ndarray:
    """Return the counts of a contig by htslib's pileup: bases, and how many insertions and deletions follow each."""
    counts = np.zeros((size, len(KINDS)), int)
    options = {"min_base_quality": 0, "max_depth": 10**6, "ignore_overlaps": False, "stepper": "samtools"} | options
    with pysam.AlignmentFile(str(path)) as file:
        for column in file.pileup(contig, 0, size, truncate=True, **options):
            for base in column.get_query_sequences(add_indels=True):
                if base[:1].upper() in "ACGTN" and base:
                    counts[column.reference_pos, "ACGTN".index(base[0].upper())] += 1
                    if base[1:2] in ("+", "-"):
                        counts[column.reference_pos, 5 if base[1] == "+" else 6] += 1
    return counts


def counted(reads: Iterator, contig_id: int, size: int) -> np.ndarray:
    """Return the same counts from arrays of `AlignmentFile.reads`."""
    counts = np.zeros((size, len(KINDS)), int)
    for batch in reads:
        of_contig = (batch.contig_ids == contig_id)[:, None] & (batch.base_positions >= 0)
        add(counts, batch.base_positions, batch.codes, batch.insertions, batch.deletions, of_contig)
    return counts


def counted_in_windows(batches: Iterator, contig: str, size: int, *, once: bool = False) -> np.ndarray:
    """Return the same counts from the own columns of windows; `once` heeds the weights of overlapping mates."""
    counts = np.zeros((size, len(KINDS)), int)
    for batch in batches:
        for number, tile in enumerate(batch.windows):
            data = {key: array[number] for key, array in batch.data.items()}
            codes = np.where(data["reads"].any(-1), data["reads"].argmax(-1), -1)
            positions = data["base_positions"]
            own = (positions >= 0) & data["own_columns"][positions] & (tile.contig == contig)
            own &= (not once) | (data["base_weights"] > 0)
            add(counts, positions + tile.begin, codes, data["insertions"], data["deletions"], own)
    return counts


def add(
    counts: np.ndarray,
    positions: np.ndarray,
    codes: np.ndarray,
    insertions: np.ndarray,
    deletions: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """Add bases and what follows them; of both an insertion and a deletion htslib shows one, the insertion if first."""
    np.add.at(counts, (positions[chosen], np.where(codes < 0, 4, codes)[chosen]), 1)
    np.add.at(counts[:, 5], positions[chosen & (insertions > 0)], 1)
    np.add.at(counts[:, 6], positions[chosen & (deletions > 0) & (insertions == 0)], 1)


LAMBDA = Path("/usr/share/doc/bowtie2/examples/reference/lambda_virus.fa.gz")
PYSAM_DATA = Path("/usr/share/doc/python-pysam/tests/pysam_data")
PACBIO = Path(__file__).parent / "data" / "whatshap_pacbio"


def real_file(data: str, folder: Path, n_pairs: int = 6000) -> tuple[Path, Path]:
    """Return reads with an index, and their reference, in a folder; skip where data or tools are absent."""
    if data.startswith("dwgsim"):
        return simulated(folder, n_pairs)
    needed("samtools")
    if data == "ex1":
        return ex1(folder)
    path, reference = folder / "reads.bam", folder / "reference.fa"
    shutil.copy(PACBIO / "pacbio.bam", path)
    shutil.copy(PACBIO / "reference.fasta", reference)
    pysam.index(str(path))
    return path, reference


def ex1(folder: Path) -> tuple[Path, Path]:
    """Return 3,270 real reads of a human region, and their reference; skip where python-pysam-tests is absent."""
    needed(PYSAM_DATA)
    path, reference = folder / "reads.bam", folder / "reference.fa"
    path.write_bytes(gzip.decompress((PYSAM_DATA / "ex1.bam.gz").read_bytes()))
    shutil.copy(PYSAM_DATA / "ex1.fa", reference)
    pysam.index(str(path))
    return path, reference


def needed(*what: Path | str) -> None:
    """Skip a test that needs files or programs that are not there."""
    for each in what:
        there = each.exists() if isinstance(each, Path) else shutil.which(each)
        if not there:
            pytest.skip(f"{each} is not here")


def simulated(folder: Path, n_pairs: int) -> tuple[Path, Path]:
    """Return simulated pairs of a rearranged lambda phage, aligned to one that has a repeat.

    There are indels, soft and hard clips, secondary and supplementary alignments, overlapping mates and random reads.
    """
    needed(LAMBDA, "dwgsim", "bwa", "samtools")
    letters = "".join(gzip.decompress(LAMBDA.read_bytes()).decode().splitlines()[1:])
    turned = letters[20_000:22_000][::-1].translate(str.maketrans("ACGT", "TGCA"))
    donor = (
        letters[:8000]
        + letters[8400:20_000]
        + turned
        + letters[22_000:30_000]
        + letters[12_000:12_300]
        + letters[30_000:]
    )
    reference = folder / "reference.fa"
    reference.write_text(f">lambda\n{letters}\n>repeat\n{turned[:1500]}\n")
    (folder / "donor.fa").write_text(f">donor\n{donor}\n")
    read = f"dwgsim -N {n_pairs} -1 100 -2 100 -d 180 -s 60 -r 0.005 -R 0.3 -X 0.5 -e 0.01 -E 0.01 -H -y 0.02 -z 7"
    align = "bwa mem -a reference.fa out.bwa.read1.fastq.gz out.bwa.read2.fastq.gz | samtools sort -o reads.bam -"
    for command in ("samtools faidx donor.fa", f"{read} donor.fa out", "bwa index reference.fa", align):
        subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=folder, check=True, capture_output=True)
    pysam.index(str(folder / "reads.bam"))
    return folder / "reads.bam", reference


def mpileup(path: Path, contig: str, size: int, options: list[str]) -> np.ndarray:
    """Return the counts of a contig by `samtools mpileup`."""
    command = ["samtools", "mpileup", *options, "-r", contig, str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    counts = np.zeros((size, len(KINDS)), int)
    for line in text.splitlines():
        fields = line.split("\t")
        row, bases = counts[int(fields[1]) - 1], re.sub(r"\^.|\$", "", fields[4])
        at = 0
        while at < len(bases):
            letter = bases[at].upper()
            at += 1
            if letter in "ACGTN":
                row["ACGTN".index(letter)] += 1
            if (indel := re.compile(r"[+-](\d+)").match(bases, at)) is not None:
                row[5 if indel[0][0] == "+" else 6] += letter in "ACGTN"
                at = indel.end() + int(indel[1])
    return counts


def write_many(path: Path, n_reads: int) -> tuple[Path, Path]:
    """Write many reads of 100 bases, evenly spread so that 30 cover each position."""
    size = n_reads * 100 // 30
    genome = "".join(np.random.default_rng(0).choice(list("ACGT"), size + 100))
    reference = path.with_suffix(".fa")
    reference.write_text(f">chr1\n{genome}\n")
    qualities = pysam.qualitystring_to_array("I" * 100)
    with pysam.AlignmentFile(str(path), "wb", header={"SQ": [{"SN": "chr1", "LN": size + 100}]}) as file:
        read = pysam.AlignedSegment(file.header)
        read.reference_id, read.mapping_quality = 0, 60
        for number in range(n_reads):
            begin = number * size // n_reads
            read.query_name, read.reference_start = f"r{number}", begin
            read.query_sequence = genome[begin : begin + 100]
            read.query_qualities, read.cigarstring = qualities, "40M1I59M" if number % 5 == 0 else "100M"
            file.write(read)
    pysam.index(str(path))
    return path, reference
