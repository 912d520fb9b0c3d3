"""Counts of a pileup beside those of pysam and samtools, and their derivatives."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pysam
import pytest
from alignments import ex1
from jax.test_util import check_grads
from laid_reads import LETTERS, laid_reads, one_hot, write_random_bam

from diffbio.operators.variant.pileup import Pileup, PileupConfig, pileup_counts

NAMES = ("base_counts", "insertion_counts", "deletion_counts", "deleted_counts", "read_depth")


def counted(data: dict[str, np.ndarray], reference: str, **thresholds: float) -> dict[str, np.ndarray]:
    """Return the operator's hard counts."""
    operator = Pileup(PileupConfig(temperature=1e-3, **thresholds))
    found = operator.apply({**data, "reference": one_hot(reference)}, {}, None)[0]
    return {name: np.asarray(found[name]) for name in NAMES}


def by_pysam(path: Path, contig: str, begin: int, end: int, *, base: int, mapping: int) -> dict[str, np.ndarray]:
    """Return the counts of pysam's own pileup, which is that of samtools."""
    size = end - begin
    counts = {name: np.zeros((size, 2)) for name in NAMES[1:4]} | {"base_counts": np.zeros((size, 2, 4))}
    depth = np.zeros(size)
    with pysam.AlignmentFile(path) as bam:
        options = {"truncate": True, "min_base_quality": base, "min_mapping_quality": mapping, "max_depth": 10**6}
        columns = bam.pileup(contig, begin, end, **options, ignore_overlaps=False, ignore_orphans=False)
        for column in columns:
            at = column.reference_pos - begin
            for read in column.pileups:
                strand = int(read.alignment.is_reverse)
                qualities = read.alignment.query_qualities
                if read.is_del:
                    place = read.query_position_or_next
                    if place < len(qualities) and qualities[place] >= base:
                        counts["deleted_counts"][at, strand] += 1
                        depth[at] += 1
                    continue
                if qualities[read.query_position] < base:
                    continue
                depth[at] += 1
                counts["insertion_counts"][at, strand] += read.indel > 0
                counts["deletion_counts"][at, strand] += read.indel < 0
                letter = read.alignment.query_sequence[read.query_position]
                if letter in LETTERS:
                    counts["base_counts"][at, strand, LETTERS.index(letter)] += 1
    return counts | {"read_depth": depth}


@pytest.mark.parametrize(("base", "mapping"), [(0, 0), (13, 0), (20, 30)])
def test_counts_are_those_of_pysam(tmp_path: Path, certificate, base: int, mapping: int) -> None:
    path = tmp_path / "random.bam"
    reference = write_random_bam(path, n_reads=400, size=900)
    found = counted(laid_reads(path, "ref", 0, 900), reference, min_base_quality=base, min_mapping_quality=mapping)
    expected = by_pysam(path, "ref", 0, 900, base=base, mapping=mapping)
    differing = sum(int((np.abs(found[name] - expected[name]) > 1e-3).sum()) for name in NAMES)
    assert expected["deleted_counts"].sum() > 20  # there is something to compare
    certificate(
        operator="Pileup",
        reference=f"pysam {pysam.__version__}",
        data="400 random reads with gaps and clips",
        quantity=f"counts that differ, base quality {base}, mapping quality {mapping}",
        value=differing,
        bar="<= 0",
    )
    assert differing == 0


@pytest.mark.slow
def test_counts_are_those_of_samtools_on_real_reads(tmp_path: Path, certificate) -> None:
    if shutil.which("samtools") is None:
        pytest.skip("needs samtools")
    path, _ = ex1(tmp_path)
    with pysam.AlignmentFile(path) as bam:
        contigs = dict(zip(bam.references, bam.lengths, strict=True))
    differing = compared = 0
    for contig, size in contigs.items():
        found = counted(laid_reads(path, contig, 0, size), "A" * size, min_base_quality=13)
        command = ["samtools", "mpileup", "-B", "-A", "-x", "-Q", "13", "-d", "0", "-r", contig, str(path)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        depths = np.zeros(size)
        letters = np.zeros((size, 2, 4))
        for line in printed.splitlines():
            _, column, _, depth, shown, _ = line.split("\t")[:6]
            depths[int(column) - 1] = int(depth)
            for letter, count in Counter(_without_events(shown)).items():
                if letter.upper() in LETTERS:
                    letters[int(column) - 1, int(letter.islower()), LETTERS.index(letter.upper())] = count
        differing += int((np.abs(found["read_depth"] - depths) > 1e-3).sum())
        differing += int((np.abs(found["base_counts"] - letters) > 1e-3).sum())
        compared += size
    certificate(
        operator="Pileup",
        reference="samtools 1.16 mpileup -B -A -x -Q 13",
        data="ex1.bam",
        quantity=f"depths and counts of letters that differ at {compared} positions",
        value=differing,
        bar="<= 0",
    )
    assert differing == 0


def _without_events(shown: str) -> str:
    """Return the letters of a line of mpileup alone, without gaps and the marks of begin and end."""
    letters, place = [], 0
    while place < len(shown):
        if shown[place] == "^":
            place += 2
        elif shown[place] in "+-":
            digits = place + 1
            while shown[digits].isdigit():
                digits += 1
            place = digits + int(shown[place + 1 : digits])
        else:
            letters.append(shown[place])
            place += 1
    return "".join(letters)


def test_bases_outside_count_for_nothing_and_fractions_for_two_columns() -> None:
    reads = jnp.eye(4)[jnp.array([[0, 1, 2, 3]])]
    columns = jnp.array([[-1.0, 0.25, 2.0, 7.0]])
    counts = pileup_counts(reads, jnp.ones((1, 4)), columns, window=3)
    np.testing.assert_allclose(counts.base_counts.sum((1, 2)), [0.75, 0.25, 1.0])
    np.testing.assert_allclose(counts.read_depth, [0.75, 0.25, 1.0])


def test_masked_and_weighted_reads(tmp_path: Path) -> None:
    path = tmp_path / "random.bam"
    reference = write_random_bam(path, n_reads=60, size=300)
    data = laid_reads(path, "ref", 0, 300)
    n_reads = len(data["reads"])
    half = counted({**data, "read_weights": np.full(n_reads, 0.5, np.float32)}, reference, min_base_quality=0)
    none = counted({**data, "read_mask": np.zeros(n_reads, bool)}, reference)
    whole = counted(data, reference, min_base_quality=0)
    for name in NAMES:
        np.testing.assert_allclose(2 * half[name], whole[name], atol=1e-4)
        assert not none[name].any()


def test_derivatives_are_those_of_finite_differences(tmp_path: Path) -> None:
    path = tmp_path / "random.bam"
    reference = write_random_bam(path, n_reads=10, size=120, length=20)
    data = laid_reads(path, "ref", 0, 120) | {"reference": one_hot(reference)}
    weights = np.random.default_rng(0).normal(size=(120, 2, 4)).astype(np.float32)

    def mean(qualities: jax.Array, reads: jax.Array, threshold: jax.Array) -> jax.Array:
        operator = Pileup(PileupConfig(temperature=5.0, learnable=True))
        operator.min_base_quality[...] = threshold
        found = operator.apply({**data, "qualities": qualities, "reads": reads}, {}, None)[0]
        return (weights * found["base_counts"]).sum() / 10 + found["deleted_counts"].sum() / 10

    check_grads(mean, (data["qualities"], data["reads"], jnp.float32(13.0)), 1, modes=["rev"], rtol=2e-2, atol=2e-2)
