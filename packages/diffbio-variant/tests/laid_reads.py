"""Reads laid against a reference: random ones as a BAM file, and any file's as arrays, base by base, by pysam alone."""

from pathlib import Path

import numpy as np
import pysam

from diffbio.io.reads import columns

LETTERS = "ACGT"
FILTERED = 0x4 | 0x100 | 0x200 | 0x400  # what samtools mpileup leaves out: unmapped, secondary, QC fail, duplicate


def write_random_bam(path: Path, *, n_reads: int, size: int, length: int = 40, seed: int = 0) -> str:
    """Write and index reads of a random reference with errors, unknown letters, gaps and clips; return it."""
    random = np.random.default_rng(seed)
    codes = random.integers(4, size=size)
    header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": "ref", "LN": size}]}
    starts = np.sort(random.integers(0, size - 2 * length, size=n_reads))
    with pysam.AlignmentFile(path, "wb", header=header) as bam:
        for number, start in enumerate(starts):
            record = pysam.AlignedSegment(bam.header)
            cigar, letters, column = [], [], int(start)
            if random.random() < 0.3:
                clip = int(random.integers(1, 5))
                cigar.append((4, clip))
                letters += list(random.integers(4, size=clip))
            for part in range(int(random.integers(1, 4))):
                if part:
                    gap, n = (
                        (1, int(random.integers(1, 4))) if random.random() < 0.5 else (2, int(random.integers(1, 6)))
                    )
                    cigar.append((gap, n))
                    letters += list(random.integers(4, size=n)) if gap == 1 else []
                    column += n if gap == 2 else 0
                n = int(random.integers(3, 1 + length // 3))
                cigar.append((0, n))
                letters += list(codes[column : column + n])
                column += n
            wrong = random.random(len(letters)) < 0.1
            shown = np.where(wrong, random.integers(5, size=len(letters)), letters)
            record.query_name, record.reference_id, record.reference_start = f"r{number}", 0, int(start)
            record.query_sequence = "".join("ACGTN"[code] for code in shown)
            record.query_qualities = random.integers(2, 41, size=len(letters)).tolist()
            record.cigartuples, record.mapping_quality = cigar, int(random.integers(0, 61))
            record.flag = int(random.choice([0, 16, 0, 16, 0, 16, 0x400, 0x100]))
            bam.write(record)
    pysam.index(str(path))
    return "".join(LETTERS[code] for code in codes)


def laid_reads(path: Path, contig: str, begin: int, end: int) -> dict[str, np.ndarray]:
    """Return the reads of a region as arrays, by pysam's pairs of positions."""
    with pysam.AlignmentFile(path) as bam:
        records = [record for record in bam.fetch(contig, begin, end) if not record.flag & FILTERED]
    n_positions = max(record.query_length for record in records)
    shape = len(records), n_positions
    data = {
        "reads": np.zeros((*shape, 4), np.float32),
        "qualities": np.zeros(shape, np.float32),
        "base_positions": np.full(shape, -1, np.int32),
        "insertions": np.zeros(shape, np.int32),
        "deletions": np.zeros(shape, np.int32),
        "read_lengths": np.array([record.query_length for record in records], np.int32),
        "mapping_qualities": np.array([record.mapping_quality for record in records], np.float32),
        "reverse_strand": np.array([record.is_reverse for record in records]),
    }
    for row, record in enumerate(records):
        data["qualities"][row, : record.query_length] = record.query_qualities
        for place, letter in enumerate(record.query_sequence):
            if letter in LETTERS:
                data["reads"][row, place, LETTERS.index(letter)] = 1
        last = None
        for place, column in record.get_aligned_pairs():
            inner = last is not None and record.query_alignment_start <= (place or last) < record.query_alignment_end
            if place is not None and column is not None:
                data["base_positions"][row, place] = column - begin if begin <= column < end else -1
                last = place
            elif inner and place is None:
                data["deletions"][row, last] += 1
            elif inner:
                data["insertions"][row, last] += 1
    return data


def one_hot(sequence: str) -> np.ndarray:
    """Return a sequence as distributions; zeros for other letters."""
    return columns.one_hot(np.array([LETTERS.find(letter) for letter in sequence], np.int8))
