"""Records as batches of arrays of few fixed shapes, so that a program that takes them is compiled once for each shape.

Each record goes to the smallest bucket that holds it; a batch is full of records of one bucket. The last batch of a
bucket may have empty rows, which `read_mask` tells apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from diffbio.core.errors import ConfigError, DataError
from diffbio.io.sequence.alphabets import DNA, encode
from diffbio.io.sequence.files import Record, check_record

BUCKETS = (128, 256, 512, 1024, 2048, 4096)
"""Default sizes of buckets: padding is at most half of a batch of sequences longer than 64."""


class Batch(NamedTuple):
    """Reads as arrays, with what they are called.

    Attributes:
        data: `reads` (reads, positions, letters), `read_lengths` (reads,), `read_mask` (reads,), where the records have
            them `qualities` (reads, positions), and for pairs `mate_reads`, `mate_lengths`, `mate_qualities` in the
            same rows.
        names: Of the rows that hold a read, in their order.
        descriptions: Likewise.
        order: The number of each such read among all that were given, from 0.
    """

    data: dict[str, np.ndarray]
    names: list[str]
    descriptions: list[str]
    order: Int[np.ndarray, " names"]


class _Padded(NamedTuple):
    """Arrays of some records, with rows of zeros at the end."""

    letters: Float[np.ndarray, "reads positions letters"]
    lengths: Int[np.ndarray, " reads"]
    qualities: Float[np.ndarray, "reads positions"] | None


def bucketed(
    records: Iterable[Record] | Iterable[tuple[Record, Record]],
    *,
    batch_size: int,
    alphabet: str = DNA,
    buckets: Sequence[int] = BUCKETS,
) -> Iterator[Batch]:
    """Make padded batches of records, or of pairs of records.

    Args:
        records: As `read_sequences` or `read_pairs` give them. A pair goes by its longer read.
        batch_size: Rows of each batch.
        alphabet: The letters, in the order of the last axis.
        buckets: Numbers of positions that batches may have, growing.

    Yields:
        Batches, float32 and int32, each as soon as its bucket is full, at the end the partly filled ones. `order` says
        where each read was. At most `batch_size` records for each bucket are held.

    Raises:
        ConfigError: A batch has no rows, or the buckets don't grow.
        DataError: A record is longer than the largest bucket, has no letters or one outside the alphabet; or of some
            records the qualities are known and of others not. Nothing is dropped.

    Example:
        >>> records = [Record("a", "", "ACG"), Record("b", "", "ACGTACGT"), Record("c", "", "T")]
        >>> for batch in bucketed(records, batch_size=4, buckets=(4, 8)):
        ...     print(batch.names, batch.data["reads"].shape, batch.data["read_mask"].tolist())
        ['a', 'c'] (4, 4, 4) [True, True, False, False]
        ['b'] (4, 8, 4) [True, False, False, False]
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    if not buckets or buckets[0] < 1 or any(a >= b for a, b in pairwise(buckets)):
        raise ConfigError(f"buckets is {tuple(buckets)}; give growing numbers of positions, such as {BUCKETS}")
    waiting: list[list[tuple[int, tuple[Record, ...]]]] = [[] for _ in buckets]
    for place, given in enumerate(records):
        reads = (given,) if isinstance(given, Record) else given
        longest = max(reads, key=lambda read: len(read.sequence))
        bucket = bisect_left(buckets, len(longest.sequence))
        if bucket == len(buckets):
            raise DataError(
                f"{longest.place} has {len(longest.sequence)} letters, more than the largest bucket of {buckets[-1]}; "
                f"add one: buckets=(..., {buckets[-1]}, {_next_power_of_two(len(longest.sequence))})"
            )
        for read in reads:
            check_record(read, alphabet)
        waiting[bucket].append((place, reads))
        if len(waiting[bucket]) == batch_size:
            yield _batch(waiting[bucket], batch_size, alphabet, buckets[bucket])
            waiting[bucket] = []
    for size, rest in zip(buckets, waiting, strict=True):
        if rest:
            yield _batch(rest, batch_size, alphabet, size)


def _batch(rows: Sequence[tuple[int, tuple[Record, ...]]], batch_size: int, alphabet: str, size: int) -> Batch:
    """Return one batch."""
    first = [reads[0] for _, reads in rows]
    padded = _padded(first, batch_size, alphabet, size)
    mask: Bool[np.ndarray, " reads"] = np.arange(batch_size) < len(rows)
    data = {"reads": padded.letters, "read_lengths": padded.lengths, "read_mask": mask}
    if padded.qualities is not None:
        data["qualities"] = padded.qualities
    if len(rows[0][1]) > 1:
        mates = _padded([reads[1] for _, reads in rows], batch_size, alphabet, size)
        data |= {"mate_reads": mates.letters, "mate_lengths": mates.lengths}
        if mates.qualities is not None:
            data["mate_qualities"] = mates.qualities
    order = np.array([place for place, _ in rows], np.int64)
    return Batch(data, [read.name for read in first], [read.description for read in first], order)


def _padded(records: Sequence[Record], n_rows: int, alphabet: str, size: int) -> _Padded:
    """Return the arrays of records, with empty rows up to `n_rows`."""
    encoded = encode([record.sequence for record in records], alphabet, size=size)
    letters = np.zeros((n_rows, size, len(alphabet)), np.float32)
    letters[: len(records)] = encoded.letters
    lengths = np.zeros(n_rows, np.int32)
    lengths[: len(records)] = encoded.lengths
    known = [record.qualities for record in records if record.qualities is not None]
    if not known:
        return _Padded(letters, lengths, None)
    for record in records:
        if record.qualities is None or len(record.qualities) != len(record.sequence):
            n_known = 0 if record.qualities is None else len(record.qualities)
            raise DataError(
                f"{record.place} has {n_known} qualities and {len(record.sequence)} letters, among records that have "
                "one for each; give FASTA and FASTQ records separately, and one quality for each letter"
            )
    qualities = np.zeros((n_rows, size), np.float32)
    qualities[np.arange(size) < lengths[:, None]] = np.concatenate(known)
    return _Padded(letters, lengths, qualities)


def _next_power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
