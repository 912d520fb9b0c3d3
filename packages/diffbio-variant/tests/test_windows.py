"""Reads over windows: each position counted once as htslib counts it, few shapes, nothing lost at the borders."""

from pathlib import Path

import alignments
import numpy as np
import pysam
import pytest

from diffbio.core.errors import ConfigError, DataError
from diffbio.io.reads.alignment_files import AlignmentFile
from diffbio.io.reads.filters import Flags, ReadFilters
from diffbio.io.reads.references import Reference
from diffbio.io.reads.regions import Region
from diffbio.io.reads.windows import read_windows


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(
        alignments.write_reference(tmp_path_factory.mktemp("genome") / "genome.fa", np.random.default_rng(0))
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alignments.write_alignments(tmp_path_factory.mktemp("reads") / "reads.bam", np.random.default_rng(0))


@pytest.mark.parametrize(
    "options",
    [
        {"window": 100},
        {"window": 90, "margin": 20, "batch_size": 3},
        {"window": 64, "margin": 10, "longest_whole": 0},
        {"window": 5000, "margin": 100, "longest_whole": 50, "batch_size": 2},
        {"window": 1, "longest_whole": 0, "batch_size": 100},
    ],
    ids=str,
)
def test_own_columns_have_the_counts_of_htslib(options: dict, path: Path, reference: Reference) -> None:
    file = AlignmentFile(path, reference=reference)
    batches = list(read_windows(file, reference, **options))
    for contig, size in alignments.CONTIGS.items():
        ours = alignments.counted_in_windows(iter(batches), contig, size)
        np.testing.assert_array_equal(ours, alignments.pileup(path, contig, size))
    with pysam.AlignmentFile(str(path)) as segments:
        assert file.account.seen == sum(1 for _ in segments)  # each once, whatever windows it reaches


def test_regions_are_read_once_and_counted_once(path: Path, reference: Reference) -> None:
    regions = ["chr2:101-300", Region("chr1", 500, 700), "chr1:601-900", Region("chr1", 901, 1000)]
    file = AlignmentFile(path)
    batches = list(read_windows(file, reference, regions, window=50))
    theirs = alignments.pileup(path, "chr1", 3000)
    theirs[:500] = theirs[900] = theirs[1000:] = 0
    np.testing.assert_array_equal(alignments.counted_in_windows(iter(batches), "chr1", 3000), theirs)
    with pysam.AlignmentFile(str(path)) as segments:
        names = {name for region in ("chr2:101-300", "chr1:501-1001") for name in _names(segments, region)}
    assert file.account.seen == len(names)
    assert [batch.windows[0].contig for batch in batches][:5] == ["chr2"] * 4 + ["chr1"]


def _names(segments: pysam.AlignmentFile, region: str) -> list[str]:
    return [str(segment.query_name) for segment in segments.fetch(region=region)]


def test_arrays_of_whole_reads_are_those_of_the_file(path: Path, reference: Reference) -> None:
    file = AlignmentFile(path)
    (reads,) = file.reads()
    row_of = {name: row for row, name in enumerate(reads.names)}
    for batch in read_windows(file, reference, window=128, longest_whole=10_000):
        (tile,), (names,) = batch.windows, batch.names
        data = {key: array[0] for key, array in batch.data.items()}
        assert data["read_mask"].tolist() == [row < len(names) for row in range(len(data["read_mask"]))]
        for row, name in enumerate(names):
            other = row_of[name]
            size = reads.read_lengths[other]
            assert data["read_lengths"][row] == size
            np.testing.assert_array_equal(data["reads"][row, :size].sum(-1), reads.codes[other, :size] >= 0)
            np.testing.assert_array_equal(
                data["reads"][row, :size].argmax(-1), np.maximum(reads.codes[other, :size], 0)
            )
            np.testing.assert_array_equal(data["qualities"][row, :size], reads.qualities[other, :size])
            columns = reads.base_positions[other, :size] - tile.begin
            inside = (reads.base_positions[other, :size] >= 0) & (columns >= 0) & (columns < 128)
            assert inside.any()
            np.testing.assert_array_equal(data["base_positions"][row, :size], np.where(inside, columns, -1))
            np.testing.assert_array_equal(data["insertions"][row, :size], reads.insertions[other, :size] * inside)
            np.testing.assert_array_equal(data["deletions"][row, :size], reads.deletions[other, :size] * inside)
            assert data["mapping_qualities"][row] == reads.mapping_qualities[other]
            assert data["reverse_strand"][row] == (reads.flags[other] & Flags.REVERSE > 0)
            assert data["second_in_pair"][row] == (reads.flags[other] & Flags.SECOND_IN_PAIR > 0)
            assert data["read_groups"][row] == reads.read_groups[other]
            assert (data["read_offsets"][row], data["full_lengths"][row]) == (
                reads.read_offsets[other],
                reads.full_lengths[other],
            )


def test_parts_of_long_reads_hold_what_whole_ones_hold_over_the_window(path: Path, reference: Reference) -> None:
    file = AlignmentFile(path)
    whole = list(read_windows(file, reference, window=32, longest_whole=10_000))
    parts = list(read_windows(file, reference, window=32, longest_whole=0, least_positions=1))
    n_trailing = 0
    for one, other in zip(whole, parts, strict=True):
        assert one.names == other.names
        for row in range(len(one.names[0])):
            kept = one.data["base_positions"][0, row] >= 0
            first, last = int(kept.argmax()), int(len(kept) - kept[::-1].argmax() - 1)
            n_after = int(one.data["insertions"][0, row, last])
            n_trailing += n_after > 0
            span = slice(first, last + 1 + n_after)
            size = int(other.data["read_lengths"][0, row])
            assert size == last + 1 + n_after - first
            for key in ("reads", "qualities", "base_positions", "insertions", "deletions"):
                np.testing.assert_array_equal(other.data[key][0, row, :size], one.data[key][0, row, span])
                assert (other.data[key][0, row, size:] == (-1 if key == "base_positions" else 0)).all()
            assert other.data["read_offsets"][0, row] == one.data["read_offsets"][0, row] + first
            assert other.data["full_lengths"][0, row] == one.data["full_lengths"][0, row]
    assert n_trailing > 0  # else the border was not tested


def test_the_reference_lies_beside_the_reads(path: Path, reference: Reference) -> None:
    for batch in read_windows(AlignmentFile(path), reference, window=700, margin=100, batch_size=2):
        for number, tile in enumerate(batch.windows):
            size = alignments.CONTIGS[tile.contig]
            first, last = max(tile.begin, 0), min(tile.end, size)
            letters = batch.data["reference"][number]
            inside = slice(first - tile.begin, last - tile.begin)
            np.testing.assert_array_equal(letters[inside], reference.one_hot(Region(tile.contig, first, last)))
            assert letters.sum() == letters[inside].sum()
            own = np.flatnonzero(batch.data["own_columns"][number]) + tile.begin
            assert own.tolist() == list(range(tile.own_begin, tile.own_end))


def test_shapes_are_few_and_a_last_batch_has_empty_windows(path: Path, reference: Reference) -> None:
    batches = list(read_windows(AlignmentFile(path), reference, window=100, batch_size=4, least_reads=32))
    assert {batch.data["reads"].shape[:2] for batch in batches} <= {(4, rows) for rows in (32, 48, 64)}
    last = batches[-1]
    assert len(last.windows) == len(last.names) == 42 - 40
    assert not last.data["read_mask"][2:].any()
    assert not last.data["own_columns"][2:].any()
    assert {key: array.dtype for key, array in last.data.items()} == {
        **dict.fromkeys(["reads", "qualities", "base_weights", "mapping_qualities", "reference"], np.float32),
        **dict.fromkeys(["read_lengths", "read_offsets", "full_lengths", "read_groups"], np.int32),
        **dict.fromkeys(["base_positions", "insertions", "deletions"], np.int32),
        **dict.fromkeys(["read_mask", "reverse_strand", "second_in_pair", "own_columns"], np.bool_),
    }


@pytest.mark.parametrize("seed", range(3))
def test_overlapping_mates_count_once_as_for_htslib(seed: int, tmp_path: Path) -> None:
    path = alignments.write_pairs(tmp_path / "pairs.bam", np.random.default_rng(seed))
    (tmp_path / "genome.fa").write_text(f">chr1\n{'A' * 3000}\n")
    file, reference = AlignmentFile(path), Reference(tmp_path / "genome.fa")
    both = alignments.pileup(path, "chr1", 3000)
    once = alignments.pileup(path, "chr1", 3000, ignore_overlaps=True, min_base_quality=1)
    for options in ({"window": 3000}, {"window": 100, "margin": 7, "longest_whole": 0, "batch_size": 4}):
        batches = list(read_windows(file, reference, **options))
        np.testing.assert_array_equal(alignments.counted_in_windows(iter(batches), "chr1", 3000), both)
        ours = alignments.counted_in_windows(iter(batches), "chr1", 3000, once=True)
        np.testing.assert_array_equal(ours[:, :5], once[:, :5])
    assert once[:, :5].sum() < 0.9 * both[:, :5].sum()
    for batch in read_windows(file, reference, window=100, overlaps_once=False):
        kept = np.arange(batch.data["reads"].shape[2]) < batch.data["read_lengths"][..., None]
        np.testing.assert_array_equal(batch.data["base_weights"], kept)


def test_windows_without_reads_come_too(tmp_path: Path, reference: Reference) -> None:
    path = alignments.write_alignments(tmp_path / "reads.bam", np.random.default_rng(0), n_reads=0)
    (batch,) = read_windows(AlignmentFile(path), reference, ["chr2:1-100"], window=100)
    assert batch.data["reads"].shape == (1, 16, 64, 4)
    assert not batch.data["read_mask"].any()
    assert batch.data["reference"].any()
    assert batch.names == [[]]


def test_depth_above_the_cap_is_in_the_account(path: Path, reference: Reference) -> None:
    file = AlignmentFile(path)
    for _ in read_windows(file, reference, window=100, filters=ReadFilters(max_depth=2)):
        pass
    assert file.account.dropped["above max_depth"] > 0
    assert file.account.seen == file.account.used + sum(file.account.dropped.values())


def test_two_streams_of_a_file_do_not_disturb_each_other(path: Path, reference: Reference) -> None:
    file = AlignmentFile(path)
    pairs = zip(read_windows(file, reference, window=100), read_windows(file, reference, window=100), strict=True)
    assert all(one.names == other.names for one, other in pairs)


def test_bad_input_is_refused_by_name(path: Path, reference: Reference, tmp_path: Path) -> None:
    def read(regions: list | None = None, genome: Reference = reference, **options) -> None:
        next(iter(read_windows(AlignmentFile(path), genome, regions, **{"window": 100} | options)))

    with pytest.raises(DataError, match="there is no contig 'chr3'"):
        read(["chr3"])
    with pytest.raises(DataError, match="chr2:1001-2000 is not within 'chr2'"):
        read([Region("chr2", 1000, 2000)])
    with pytest.raises(ConfigError, match="window is 100 and margin 50; a window must be larger"):
        read(margin=50)
    with pytest.raises(ConfigError, match="least_reads is 0"):
        read(least_reads=0)
    (tmp_path / "part.fa").write_text(">chr1\n" + reference.letters("chr1") + "\n")
    with pytest.raises(DataError, match=r"part\.fa, for reads of .*: there is no contig 'chr2'"):
        read(["chr2"], Reference(tmp_path / "part.fa"))
    (tmp_path / "other.fa").write_text(">chr1\nACGT\n")
    with pytest.raises(DataError, match="was aligned to another reference"):
        read(["chr1"], Reference(tmp_path / "other.fa"))


@pytest.mark.slow
@pytest.mark.parametrize("data", ["ex1", "dwgsim and bwa on lambda", "PacBio HG004"])
def test_windows_of_real_files_have_the_counts_of_samtools(data: str, tmp_path: Path, certificate) -> None:
    path, genome = alignments.real_file(data, tmp_path)
    file, reference = AlignmentFile(path, missing_quality=10), Reference(genome)
    different = 0
    batches = list(read_windows(file, reference, window=256, margin=32, batch_size=4, longest_whole=200))
    for contig, size in file.contigs.items():
        theirs = alignments.mpileup(path, contig, size, ["-B", "-Q", "0", "-d", "0", "-x"])
        different += int((alignments.counted_in_windows(iter(batches), contig, size) != theirs).any(1).sum())
    certificate(
        operator="read_windows",
        reference="samtools mpileup -B -Q 0 -d 0 -x",
        data=data,
        quantity="positions whose counts differ",
        value=different,
        bar="= 0",
    )
    assert different == 0
    if data.startswith("dwgsim"):
        n_different = n_bases = 0
        for contig, size in file.contigs.items():
            theirs = alignments.mpileup(path, contig, size, ["-B", "-Q", "1", "-d", "0"])[:, :5].sum(1)
            ours = alignments.counted_in_windows(iter(batches), contig, size, once=True)[:, :5].sum(1)
            n_different, n_bases = n_different + int(np.abs(ours - theirs).sum()), n_bases + int(theirs.sum())
        certificate(
            operator="read_windows",
            reference="samtools mpileup -B -Q 1 -d 0: overlapping mates once",
            data=data,
            quantity="part of the bases that differ",
            value=n_different / n_bases,
            bar="<= 0.0001: a base against a deletion of its mate",
        )
        assert n_different <= 1e-4 * n_bases
    if data.startswith("PacBio"):
        n_positions = max(batch.data["reads"].shape[2] for batch in batches)
        certificate(
            operator="read_windows",
            reference="length of the longest read",
            data=f"{data}, {max(int(batch.data['full_lengths'].max()) for batch in batches)} bases",
            quantity="positions of the widest array, windows of 256",
            value=n_positions,
            bar="<= 512",
        )
        assert n_positions <= 512
