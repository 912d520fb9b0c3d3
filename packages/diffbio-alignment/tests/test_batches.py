"""Batches and files written from them: every read comes back, once, under its name, byte for byte."""

from pathlib import Path

import numpy as np
import pytest

from diffbio.core.errors import DataError
from diffbio.io.sequence import (
    DNA,
    Record,
    bucketed,
    kept_pairs,
    kept_records,
    read_pairs,
    read_sequences,
    write_fasta,
    write_fastq,
)

hypothesis = pytest.importorskip("hypothesis")
pytest.importorskip("dnaio")
strategies = hypothesis.strategies


@strategies.composite
def reads(draw) -> Record:
    sequence = draw(strategies.text("ACGTN", min_size=1, max_size=20))
    size = len(sequence)
    qualities = draw(strategies.lists(strategies.integers(0, 93), min_size=size, max_size=size))
    return Record("", draw(strategies.sampled_from(["", "1:N:0", "x  y"])), sequence, np.array(qualities, np.uint8))


@pytest.mark.parametrize("suffix", [".fastq", ".fastq.gz"])
def test_file_to_arrays_to_file_is_the_identity(tmp_path: Path, suffix: str) -> None:
    @hypothesis.settings(max_examples=40, deadline=None)
    @hypothesis.given(strategies.lists(reads(), min_size=1, max_size=9), strategies.integers(1, 4))
    def round_trip(records: list[Record], batch_size: int) -> None:
        source, copy = tmp_path / f"source{suffix}", tmp_path / f"copy{suffix}"
        write_fastq(source, [record._replace(name=f"r{number}") for number, record in enumerate(records)])
        batches = list(bucketed(read_sequences(source, alphabet=DNA), batch_size=batch_size, buckets=(5, 20)))
        for batch in batches:
            assert {array.shape[0] for array in batch.data.values()} == {batch_size}
            assert batch.data["read_mask"].sum() == len(batch.names) == len(batch.order)
            beyond = np.arange(batch.data["qualities"].shape[1]) >= batch.data["read_lengths"][:, None]
            assert not batch.data["qualities"][beyond].any()
            assert not batch.data["reads"][beyond].any()
        decoded = [record for batch in batches for record in kept_records(*batch[:3])]
        order = np.argsort(np.concatenate([batch.order for batch in batches]))
        assert write_fastq(copy, [decoded[place] for place in order]) == len(records)
        assert copy.read_bytes() == source.read_bytes()

    round_trip()


def test_pairs_stay_in_one_row(tmp_path: Path) -> None:
    ones = [Record(f"r{n}", "", "ACGT"[: n + 1], np.full(n + 1, n, np.uint8)) for n in range(3)]
    twos = [Record(f"r{n}", "", "T" * (7 - n), np.full(7 - n, 40, np.uint8)) for n in range(3)]
    write_fastq(tmp_path / "1.fastq", ones)
    write_fastq(tmp_path / "2.fastq", twos)
    pairs = read_pairs(tmp_path / "1.fastq", tmp_path / "2.fastq")
    (batch,) = bucketed(pairs, batch_size=4, buckets=(4, 8))  # by the longer of both
    assert batch.data["reads"].shape == batch.data["mate_reads"].shape == (4, 8, 4)
    assert batch.data["read_lengths"].tolist() == [1, 2, 3, 0]
    assert batch.data["mate_lengths"].tolist() == [7, 6, 5, 0]
    assert batch.data["qualities"][2].max() == 2
    assert batch.data["mate_qualities"][2].max() == 40
    weights = np.ones((4, 8), np.float32)
    weights[1] = 0
    kept = list(kept_pairs(batch.data | {"mate_base_weights": weights}, batch.names))
    assert [(one.name, one.sequence, two.sequence) for one, two in kept] == [
        ("r0", "A", "T" * 7),
        ("r2", "ACG", "T" * 5),
    ]


def test_what_weights_keep_is_written(tmp_path: Path) -> None:
    quality = np.arange(8, dtype=np.uint8)
    (batch,) = bucketed([Record(name, "", "ACGTACGT", quality) for name in "abc"], batch_size=4, buckets=(10,))
    data = batch.data | {"base_weights": np.ones((4, 10), np.float32), "read_weights": np.array([1, 0.2, 1, 0])}
    data["base_weights"][0, 5:] = 0.1
    data["base_weights"][0, 2] = 0.4  # between kept ones, so kept
    data["base_weights"][2] = 0
    (record,) = kept_records(data, batch.names)
    assert (record.name, record.sequence, record.qualities.tolist()) == ("a", "ACGTA", [0, 1, 2, 3, 4])
    with pytest.raises(DataError, match="2 names were given for 3 reads"):
        next(kept_records(data, ["a", "b"]))


def test_fasta_lines_have_the_asked_length(tmp_path: Path) -> None:
    records = [Record("r", "of x", "ACGTACGTA"), Record("s", "", "AC")]
    assert write_fasta(tmp_path / "r.fasta", records, line_length=4) == 2
    assert (tmp_path / "r.fasta").read_text() == ">r of x\nACGT\nACGT\nA\n>s\nAC\n"
    (batch,) = bucketed(read_sequences(tmp_path / "r.fasta"), batch_size=2, buckets=(9,))
    assert "qualities" not in batch.data
    assert [record.sequence for record in kept_records(*batch[:3])] == ["ACGTACGTA", "AC"]


def test_records_that_fastq_cant_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'r' has 0 qualities and 4 letters; FASTQ needs one for each"):
        write_fastq(tmp_path / "r.fastq", [Record("r", "", "ACGT")])
    with pytest.raises(DataError, match=r"'r' has a quality of 94; no character is above 93"):
        write_fastq(tmp_path / "r.fastq", [Record("r", "", "A", np.array([94], np.uint8))])
    mixed = [Record("r", "", "A", np.array([9], np.uint8)), Record("s", "", "A")]
    with pytest.raises(DataError, match=r"record 's' has 0 qualities and 1 letters, among records that have one"):
        list(bucketed(mixed, batch_size=2, buckets=(1,)))
