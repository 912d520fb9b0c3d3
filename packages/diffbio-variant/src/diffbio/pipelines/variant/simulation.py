"""Simulated reads of a sample with known variants: files to try a pipeline on, and to test it.

Reads are laid against the reference as they were drawn, so that no mapper is needed. Base qualities are drawn around a
mean, and each base is wrong with the probability that its quality says, unless a bias is planted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pysam
from jaxtyping import Bool, Int

from diffbio.core.errors import ConfigError
from diffbio.io.reads.references import Reference
from diffbio.io.reads.variant_writing import write_variants
from diffbio.io.reads.variants import Genotype, Variant, normalized

_LETTERS = "ACGT"
_CONTIG = "simulated"
_LEAST_DISTANCE = 8  # between variants, so that each is one
_SHARE_OF_GAPS, _LONGEST_GAP = 0.15, 6
_LEAST_QUALITY, _LARGEST_QUALITY = 2, 41


class SimulatedFiles(NamedTuple):
    """Files of a simulated sample.

    Attributes:
        reads: BAM with an index.
        reference: FASTA.
        truth: VCF, bgzipped, with an index and the genotypes of all variants.
    """

    reads: Path
    reference: Path
    truth: Path


class _Haplotype(NamedTuple):
    """A sequence, and the position of the reference of each of its letters; -1 for inserted ones."""

    codes: Int[np.ndarray, " letters"]
    columns: Int[np.ndarray, " letters"]


def simulate_reads(
    folder: str | Path,
    *,
    seed: int,
    size: int = 5000,
    sequence: str | None = None,
    variant_rate: float = 2e-3,
    depth: float = 20.0,
    mean_quality: float = 25.0,
    quality_bias: float = 0.0,
    biased_after: str = "",
    ploidy: int = 2,
    read_length: int = 100,
) -> SimulatedFiles:
    """Draw variants and reads, and write them.

    Args:
        folder: Where `reads.bam`, `reference.fa` and `truth.vcf.gz` are written; made if it is not there.
        seed: Of all that is drawn.
        size: Letters of a reference that is drawn, too.
        sequence: A reference to take instead; letters other than A, C, G, T are drawn.
        variant_rate: Variants per letter; 15 % of them are gaps of up to 6 letters. Of a diploid sample each is in one
            of the haplotypes or in both with the probability 1/3.
        depth: Mean number of reads of a position.
        mean_quality: Phred; qualities are drawn around it with a standard deviation of 6.
        quality_bias: By how much the true error rate, as Phred, is below the stated quality.
        biased_after: Letters, such as `GG`: then only bases that the sequencer read right after these have the bias,
            so that most of them are of one strand. By default all have it.
        ploidy: 1 or 2.
        read_length: Letters.

    Returns:
        The paths.

    Raises:
        ConfigError: The reference is shorter than two reads, a number is out of range, or `biased_after` has other
            letters than A, C, G, T.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = simulate_reads(folder, seed=0, size=500, depth=4.0)
        ...     print(files.reads.name, files.reads.exists())
        reads.bam True
    """
    random = np.random.default_rng(seed)
    reference = random.integers(4, size=size) if sequence is None else _codes(sequence, random)
    if len(reference) < 2 * read_length or depth <= 0 or ploidy not in (1, 2):
        raise ConfigError(
            f"the reference has {len(reference)} letters, depth is {depth} and ploidy {ploidy}; give at least "
            f"{2 * read_length} letters, a depth above 0, and ploidy 1 or 2"
        )
    if not set(biased_after) <= set(_LETTERS) or len(biased_after) >= read_length:
        raise ConfigError(f"biased_after is {biased_after!r}; give letters of A, C, G, T, fewer than a read has")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = SimulatedFiles(folder / "reads.bam", folder / "reference.fa", folder / "truth.vcf.gz")
    files.reference.write_text(f">{_CONTIG}\n{_text(reference)}\n")
    pysam.faidx(str(files.reference))
    drawn = _variants(reference, variant_rate, ploidy, random)
    with Reference(files.reference) as fasta:  # reads have their gaps where mappers place them: to the left
        normal = sorted((normalized(variant, fasta) for variant in drawn), key=lambda variant: variant.position)
    variants = [one for number, one in enumerate(normal) if not number or one.position > normal[number - 1].end]
    write_variants(files.truth, variants, contigs={_CONTIG: len(reference)}, samples=["simulated"])
    haplotypes = [
        _haplotype(reference, [variant for variant in variants if variant.genotypes[0].alleles[number]])
        for number in range(ploidy)
    ]
    _write_reads(
        files.reads, len(reference), haplotypes, random, depth=depth, length=read_length,
        qualities=(mean_quality, quality_bias), biased_after=biased_after,
    )  # fmt: skip
    return files


def _codes(sequence: str, random: np.random.Generator) -> Int[np.ndarray, " letters"]:
    """Return letters as numbers; unknown ones are drawn."""
    codes = np.array([_LETTERS.find(letter) for letter in sequence.upper()])
    return np.where(codes < 0, random.integers(4, size=len(codes)), codes)


def _text(codes: np.ndarray) -> str:
    return "".join(_LETTERS[code] for code in codes)


def _variants(reference: np.ndarray, rate: float, ploidy: int, random: np.random.Generator) -> list[Variant]:
    """Return variants that are apart from each other."""
    places = np.flatnonzero(random.random(len(reference)) < rate)
    places = places[(places > _LONGEST_GAP) & (places < len(reference) - 2 * _LONGEST_GAP)]
    apart = [place for number, place in enumerate(places) if not number or place - places[number - 1] > _LEAST_DISTANCE]
    variants = []
    for place in apart:
        here = reference[place]
        old, new = np.array([here]), np.array([(here + random.integers(1, 4)) % 4])
        if random.random() < _SHARE_OF_GAPS:
            length = int(random.integers(1, _LONGEST_GAP + 1))
            if random.random() < 0.5:
                new = np.concatenate([old, random.integers(4, size=length)])
            else:
                old, new = reference[place : place + 1 + length], old
        kind = random.integers(3) if ploidy == 2 else 2
        alleles = ((0, 1), (1, 0), (1, 1))[kind] if ploidy == 2 else (1,)
        genotypes = (Genotype(alleles, phased=ploidy == 2),)
        variants.append(Variant(_CONTIG, int(place), _text(old), (_text(new),), genotypes=genotypes))
    return variants


def _haplotype(reference: np.ndarray, variants: Sequence[Variant]) -> _Haplotype:
    """Return the reference with some variants."""
    codes, columns, place = [], [], 0
    for variant in variants:
        new = np.array([_LETTERS.index(letter) for letter in variant.alternatives[0]])
        codes += [reference[place : variant.position], new]
        columns += [
            np.arange(place, variant.position + 1),
            np.full(len(new) - 1, -1),
        ]
        place = variant.position + len(variant.reference)
    return _Haplotype(
        np.concatenate([*codes, reference[place:]]), np.concatenate([*columns, np.arange(place, len(reference))])
    )


def _write_reads(
    path: Path,
    size: int,
    haplotypes: Sequence[_Haplotype],
    random: np.random.Generator,
    *,
    depth: float,
    length: int,
    qualities: tuple[float, float],
    biased_after: str,
) -> None:
    """Write reads of all haplotypes, sorted and with an index."""
    header = pysam.AlignmentHeader.from_dict(
        {
            "HD": {"VN": "1.6", "SO": "coordinate"},
            "SQ": [{"SN": _CONTIG, "LN": size}],
            "RG": [{"ID": "simulated", "SM": "simulated"}],
        }
    )
    records = []
    for number in range(round(depth * size / length)):
        haplotype = haplotypes[int(random.integers(len(haplotypes)))]
        begin = int(random.integers(len(haplotype.codes) - length))
        codes, columns = (values[begin : begin + length] for values in haplotype)
        stated = np.clip(random.normal(qualities[0], 6.0, length).round(), _LEAST_QUALITY, _LARGEST_QUALITY)
        chance, others, reverse = random.random(length), random.integers(1, 4, size=length), int(random.integers(2))
        bias = np.where(_read_after(codes, biased_after, reverse=bool(reverse)), qualities[1], 0.0)
        wrong = chance < 10 ** (-np.maximum(stated - bias, 1.0) / 10)
        codes = np.where(wrong, (codes + others) % 4, codes)
        aligned = np.flatnonzero(columns >= 0)
        record = pysam.AlignedSegment(header)
        record.query_name, record.reference_id, record.mapping_quality = f"read{number}", 0, 60
        record.flag = 16 * reverse
        record.reference_start = int(columns[aligned[0]])
        record.query_sequence = _text(codes)
        record.query_qualities = stated.astype(int).tolist()
        record.cigartuples = _cigar(columns)
        record.set_tag("RG", "simulated")
        records.append(record)
    with pysam.AlignmentFile(path, "wb", header=header) as file:
        for record in sorted(records, key=lambda record: record.reference_start):
            file.write(record)
    pysam.index(str(path))


def _read_after(codes: np.ndarray, letters: str, *, reverse: bool) -> Bool[np.ndarray, " letters"]:
    """Return which bases a sequencer reads right after some letters; reversed reads from their end, complemented."""
    read, after = 3 - codes[::-1] if reverse else codes, np.ones(len(codes), bool)
    for distance, letter in enumerate(reversed(letters), 1):
        after[:distance] = False
        after[distance:] &= read[:-distance] == _LETTERS.index(letter)
    return after[::-1] if reverse else after


def _cigar(columns: Int[np.ndarray, " letters"]) -> list[tuple[int, int]]:
    """Return the CIGAR of a read by the position of each of its letters; inserted ones at its ends are clipped."""
    aligned = np.flatnonzero(columns >= 0).tolist()
    first, last = aligned[0], aligned[-1]
    operations: list[tuple[int, int]] = []

    def add(operation: int, length: int) -> None:
        if length and operations and operations[-1][0] == operation:
            operations[-1] = operation, operations[-1][1] + length
        elif length:
            operations.append((operation, length))

    add(pysam.CSOFT_CLIP, first)
    before = int(columns[first]) - 1
    for column in columns[first : last + 1].tolist():
        if column < 0:
            add(pysam.CINS, 1)
            continue
        add(pysam.CDEL, column - before - 1)
        add(pysam.CMATCH, 1)
        before = column
    add(pysam.CSOFT_CLIP, len(columns) - last - 1)
    return operations
