"""Whole reads as padded arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, Int32, UInt8

from diffbio.io.reads.cigars import place_bases
from diffbio.io.reads.columns import Columns, bucket


class AlignedReads(NamedTuple):
    """Reads as arrays. Bases are in the direction of the reference, as the file holds them.

    Attributes:
        names: Of the reads.
        contig_ids: Number of the contig of each read, in the order of `AlignmentFile.contigs`; -1 if it has none.
        begins: First position of the reference that is aligned, from 0.
        ends: The position after the last one.
        flags: Bits of the FLAG, see `Flags`.
        mapping_qualities: Phred.
        read_groups: Number of the read group, in the order of `AlignmentFile.read_groups`; -1 if it has none.
        read_lengths: Bases that are present.
        read_offsets: Bases of the original read that are clipped away before the first present one.
        full_lengths: Bases of the original read.
        codes: A, C, G, T are 0 to 3; -1 for N and padding.
        qualities: Phred of each base; 0 for padding.
        base_positions: Position of the contig to which each base is aligned; -1 if to none.
        insertions: Bases inserted after this base, before the next aligned one.
        deletions: Positions of the reference deleted after this base, before the next aligned one.
    """

    names: list[str]
    contig_ids: Int32[np.ndarray, " reads"]
    begins: Int32[np.ndarray, " reads"]
    ends: Int32[np.ndarray, " reads"]
    flags: Int32[np.ndarray, " reads"]
    mapping_qualities: Int32[np.ndarray, " reads"]
    read_groups: Int32[np.ndarray, " reads"]
    read_lengths: Int32[np.ndarray, " reads"]
    read_offsets: Int32[np.ndarray, " reads"]
    full_lengths: Int32[np.ndarray, " reads"]
    codes: Int8[np.ndarray, "reads positions"]
    qualities: UInt8[np.ndarray, "reads positions"]
    base_positions: Int32[np.ndarray, "reads positions"]
    insertions: Int32[np.ndarray, "reads positions"]
    deletions: Int32[np.ndarray, "reads positions"]


def padded(columns: Columns, least_positions: int) -> AlignedReads:
    """Return whole reads as arrays.

    Args:
        columns: The reads, side by side.
        least_positions: The smallest number of columns.

    Returns:
        Arrays whose number of columns is one of few, see `bucket`.
    """
    cigars = columns.cigars
    n_reads, n_positions = len(columns.names), bucket(int(cigars.lengths.max()), least_positions)
    present = np.arange(n_positions) < cigars.lengths[:, None]
    codes = np.full((n_reads, n_positions), -1, np.int8)
    codes[present] = columns.bases
    qualities = np.zeros((n_reads, n_positions), np.uint8)
    qualities[present] = columns.qualities
    placement = place_bases(cigars.blocks, np.zeros(n_reads, np.int64), n_positions)
    numbers = {
        "contig_ids": columns.contig_ids,
        "begins": columns.begins,
        "ends": cigars.ends,
        "flags": columns.flags,
        "mapping_qualities": columns.mapping_qualities,
        "read_groups": columns.read_groups,
        "read_lengths": cigars.lengths,
        "read_offsets": cigars.offsets,
        "full_lengths": cigars.full_lengths,
    }
    return AlignedReads(
        names=columns.names,
        codes=codes,
        qualities=qualities,
        **{name: number.astype(np.int32) for name, number in numbers.items()},
        **placement._asdict(),
    )
