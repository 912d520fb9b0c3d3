"""CIGARs of many reads at once as arrays: to which position of the reference each base is aligned.

A CIGAR is taken apart into *blocks*, stretches in which bases and positions of the reference go side by side
(operations M, = and X). What lies between two blocks, inserted bases (I) and deleted positions (D), belongs to the last
base of the block before. No loop runs over reads or bases.

References:
    The SAM/BAM Format Specification Working Group, Sequence Alignment/Map Format Specification, section 1.4.6.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

#                            M  I  D  N  S  H  P  =  X
_OF_THE_READ = np.array([1, 1, 0, 0, 1, 0, 0, 1, 1, 0], np.int64)
_OF_THE_REFERENCE = np.array([1, 0, 1, 1, 0, 0, 0, 1, 1, 0], np.int64)
_INSERTED, _DELETED, _HARD_CLIPPED = 1, 2, 5
_SHIFT = 32  # a position of a contig is below 2^31


class Blocks(NamedTuple):
    """Stretches of reads that are aligned base by base, in the order of reads and positions.

    Attributes:
        reads: The read of each.
        query_begins: The number of its first base in the read, from 0, clipped bases counted if they are present.
        reference_begins: The position of that base in the contig, from 0.
        lengths: Bases.
        inserted: Bases inserted after its last base, before the next block.
        deleted: Positions of the reference deleted after its last base, before the next block.
    """

    reads: Int[np.ndarray, " blocks"]
    query_begins: Int[np.ndarray, " blocks"]
    reference_begins: Int[np.ndarray, " blocks"]
    lengths: Int[np.ndarray, " blocks"]
    inserted: Int[np.ndarray, " blocks"]
    deleted: Int[np.ndarray, " blocks"]


class Cigars(NamedTuple):
    """What the CIGARs of some reads say.

    Attributes:
        blocks: Where their bases are aligned.
        keys: Read and position of each block in one number. They grow from block to block, so one search finds many.
        lengths: Bases that each read should have.
        ends: The position after the last one of the reference that each covers.
        offsets: Bases that are clipped away before the first present one (hard clips).
        full_lengths: Bases of the original read, with those that are clipped away.
    """

    blocks: Blocks
    keys: Int[np.ndarray, " blocks"]
    lengths: Int[np.ndarray, " reads"]
    ends: Int[np.ndarray, " reads"]
    offsets: Int[np.ndarray, " reads"]
    full_lengths: Int[np.ndarray, " reads"]


class Placement(NamedTuple):
    """Where the bases of reads lie, read by read.

    Attributes:
        base_positions: Position to which each base is aligned; -1 for bases that are aligned to none.
        insertions: Bases inserted after this base, before the next aligned one.
        deletions: Positions deleted after this base, before the next aligned one.
    """

    base_positions: Int32[np.ndarray, "reads positions"]
    insertions: Int32[np.ndarray, "reads positions"]
    deletions: Int32[np.ndarray, "reads positions"]


def parse_cigars(
    kinds: Int[np.ndarray, " operations"],
    lengths: Int[np.ndarray, " operations"],
    n_operations: Int[np.ndarray, " reads"],
    begins: Int[np.ndarray, " reads"],
) -> Cigars:
    """Take CIGARs apart.

    Args:
        kinds: Operations of all reads, one read after the other, as BAM numbers them: MIDNSHP=X are 0 to 8.
        lengths: Of each operation.
        n_operations: How many are of each read.
        begins: The first aligned position of each read, from 0.

    Returns:
        Blocks, lengths and ends. A skipped stretch (N, as an intron) is no deletion.

    Example:
        >>> kinds, lengths = np.array([4, 0, 1, 0, 2, 0]), np.array([2, 5, 1, 3, 4, 1])  # 2S5M1I3M4D1M
        >>> cigars = parse_cigars(kinds, lengths, np.array([6]), np.array([10]))
        >>> cigars.blocks.reference_begins.tolist(), cigars.blocks.query_begins.tolist(), cigars.ends.tolist()
        ([10, 15, 22], [2, 8, 11], [23])
        >>> cigars.blocks.inserted.tolist(), cigars.blocks.deleted.tolist()
        ([1, 0, 0], [0, 4, 0])
    """
    n_reads = len(n_operations)
    reads = np.repeat(np.arange(n_reads), n_operations)
    query_begins, n_bases = _running_sums(lengths * _OF_THE_READ[kinds], reads, n_operations)
    reference_begins, spans = _running_sums(lengths * _OF_THE_REFERENCE[kinds], reads, n_operations)
    aligned = (_OF_THE_READ[kinds] & _OF_THE_REFERENCE[kinds]).astype(bool) & (lengths > 0)
    block = np.cumsum(aligned) - 1  # that an operation is, or the last one before it
    after_one = block >= 0
    after_one[after_one] = reads[aligned][block[after_one]] == reads[after_one]

    def between_blocks(kind: int) -> Int[np.ndarray, " blocks"]:
        chosen = after_one & (kinds == kind)
        return np.bincount(block[chosen], lengths[chosen], int(aligned.sum())).astype(np.int64)

    positions = (reference_begins + begins[reads])[aligned]
    blocks = Blocks(
        reads[aligned],
        query_begins[aligned],
        positions,
        lengths[aligned],
        between_blocks(_INSERTED),
        between_blocks(_DELETED),
    )
    hard_clipped = np.where(kinds == _HARD_CLIPPED, lengths, 0)
    offsets = hard_clipped[np.cumsum(n_operations) - n_operations]  # such clips are outermost
    full_lengths = n_bases + np.bincount(reads, hard_clipped, n_reads).astype(np.int64)
    return Cigars(blocks, _keys(reads[aligned], positions), n_bases, begins + spans, offsets, full_lengths)


def blocks_within(cigars: Cigars, rows: Int[np.ndarray, " rows"], begin: int, end: int) -> Blocks:
    """Return the parts of blocks of some reads that lie over a stretch of the reference.

    Args:
        cigars: Of all reads.
        rows: The reads that are wanted; they are numbered anew, from 0.
        begin: First position of the stretch.
        end: The position after its last one.

    Returns:
        Blocks, cut to the stretch. What is inserted or deleted after the last base of a block stays with it, unless
        that base is cut off.

    Example:
        >>> cigars = parse_cigars(np.array([0, 1, 0]), np.array([4, 2, 4]), np.array([3]), np.array([10]))
        >>> within = blocks_within(cigars, np.array([0]), 12, 15)
        >>> within.query_begins.tolist(), within.lengths.tolist(), within.inserted.tolist()
        ([2, 6], [2, 1], [2, 0])
    """
    blocks, begin, end = cigars.blocks, max(begin, 0), max(end, 0)
    firsts = np.maximum(np.searchsorted(cigars.keys, _keys(rows, begin), side="right") - 1, 0)
    if len(cigars.keys):  # the one that begins before the stretch may not reach it, or be of the read before
        ends = blocks.reference_begins[firsts] + blocks.lengths[firsts]
        firsts += (blocks.reads[firsts] < rows) | ((blocks.reads[firsts] == rows) & (ends <= begin))
    counts = np.maximum(np.searchsorted(cigars.keys, _keys(rows, end), side="left") - firsts, 0)
    chosen = ranges(firsts, counts)
    lengths, begins = blocks.lengths[chosen], blocks.reference_begins[chosen]
    skipped = np.maximum(begin - begins, 0)
    kept = np.minimum(begins + lengths, end) - begins
    whole = kept == lengths
    return Blocks(
        np.repeat(np.arange(len(rows)), counts),
        blocks.query_begins[chosen] + skipped,
        begins + skipped,
        kept - skipped,
        np.where(whole, blocks.inserted[chosen], 0),
        np.where(whole, blocks.deleted[chosen], 0),
    )


def parts_of_reads(blocks: Blocks, n_reads: int) -> tuple[Int[np.ndarray, " reads"], Int[np.ndarray, " reads"]]:
    """Return which part of each read its blocks hold, what is inserted after the last of them included.

    Args:
        blocks: As `blocks_within` gives them.
        n_reads: Reads that they are of.

    Returns:
        Number of the first base of each read, and how many bases; zeros for reads without blocks.

    Example:
        >>> cigars = parse_cigars(np.array([0, 1, 0]), np.array([4, 2, 4]), np.array([3]), np.array([10]))
        >>> parts_of_reads(blocks_within(cigars, np.array([0]), 12, 14), 1)
        (array([2]), array([4]))
    """
    firsts, ends = np.zeros((2, n_reads), np.int64)
    firsts[blocks.reads[::-1]] = blocks.query_begins[::-1]  # the last that is written stays
    ends[blocks.reads] = blocks.query_begins + blocks.lengths + blocks.inserted
    return firsts, ends - firsts


def place_bases(blocks: Blocks, firsts: Int[np.ndarray, " reads"], n_positions: int) -> Placement:
    """Return where each base of some reads lies.

    Args:
        blocks: Where bases are aligned.
        firsts: The number of the base of each read that is in its first column.
        n_positions: Columns.

    Returns:
        Arrays, a row for each read.

    Example:
        >>> cigars = parse_cigars(np.array([4, 0, 1, 0]), np.array([1, 2, 1, 2]), np.array([4]), np.array([7]))
        >>> placement = place_bases(cigars.blocks, np.array([0]), 8)
        >>> placement.base_positions.tolist(), placement.insertions.tolist()
        ([[-1, 7, 8, -1, 9, 10, -1, -1]], [[0, 0, 1, 0, 0, 0, 0, 0]])
    """
    shape = len(firsts), n_positions
    base_positions = np.full(shape, -1, np.int32)
    insertions, deletions = np.zeros((2, *shape), np.int32)
    columns = blocks.query_begins - firsts[blocks.reads]
    at = blocks.reads * n_positions + columns  # in the flattened arrays
    base_positions.ravel()[ranges(at, blocks.lengths)] = ranges(blocks.reference_begins, blocks.lengths)
    insertions.ravel()[at + blocks.lengths - 1] = blocks.inserted
    deletions.ravel()[at + blocks.lengths - 1] = blocks.deleted
    return Placement(base_positions, insertions, deletions)


def ranges(begins: Int[np.ndarray, " ranges"], lengths: Int[np.ndarray, " ranges"]) -> Int[np.ndarray, " numbers"]:
    """Return ranges of whole numbers one after the other.

    Args:
        begins: First number of each.
        lengths: How many numbers each has.

    Example:
        >>> ranges(np.array([3, 10]), np.array([2, 3])).tolist()
        [3, 4, 10, 11, 12]
    """
    before = np.cumsum(lengths) - lengths
    return np.repeat(begins - before, lengths) + np.arange(int(lengths.sum()))


def _keys(reads: Int[np.ndarray, " some"], positions: Int[np.ndarray, " some"] | int) -> Int[np.ndarray, " some"]:
    return (np.asarray(reads, np.int64) << _SHIFT) + positions


def _running_sums(
    values: Int[np.ndarray, " operations"],
    reads: Int[np.ndarray, " operations"],
    n_operations: Int[np.ndarray, " reads"],
) -> tuple[Int[np.ndarray, " operations"], Int[np.ndarray, " reads"]]:
    """Return the sum of the values before each operation in its read, and the sum of each read."""
    sums = np.concatenate([[0], np.cumsum(values)])
    ends = np.cumsum(n_operations)
    begins = sums[ends - n_operations]
    return sums[:-1] - begins[reads], sums[ends] - begins
