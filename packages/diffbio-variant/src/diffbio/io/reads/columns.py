"""Reads side by side: a column for each of their fields, bases and CIGARs one after the other without padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int, Int8, UInt8

from diffbio.core.errors import DataError
from diffbio.io.reads.cigars import Cigars, parse_cigars

if TYPE_CHECKING:
    from pysam import AlignedSegment

_EQUAL_TO_REFERENCE = ord("=")
_CODES = np.full(256, -1, np.int8)
_CODES[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4)
_ONE_HOT = np.concatenate([np.eye(4, dtype=np.float32), np.zeros((1, 4), np.float32)])  # -1 is the last row


class Columns(NamedTuple):
    """Reads side by side.

    Attributes:
        names: Of the reads.
        contig_ids: Number of the contig of each.
        begins: First aligned position, from 0.
        flags: Bits of the FLAG.
        mapping_qualities: Phred.
        read_groups: Number of the read group of each; -1 if it has none.
        cigars: Blocks, lengths and ends.
        bases: Of all reads, one read after the other: A, C, G, T are 0 to 3, any other -1.
        qualities: Likewise, Phred.
        offsets: Where the bases of each read begin; at the end their number.
    """

    names: list[str]
    contig_ids: Int[np.ndarray, " reads"]
    begins: Int[np.ndarray, " reads"]
    flags: Int[np.ndarray, " reads"]
    mapping_qualities: Int[np.ndarray, " reads"]
    read_groups: Int[np.ndarray, " reads"]
    cigars: Cigars
    bases: Int8[np.ndarray, " bases"]
    qualities: UInt8[np.ndarray, " bases"]
    offsets: Int[np.ndarray, " boundaries"]


def columns_of(
    segments: Sequence[AlignedSegment], path: str, *, read_groups: Sequence[str], missing_quality: int | None
) -> Columns:
    """Return reads as columns.

    Args:
        segments: As pysam gives them, each with bases and a CIGAR.
        path: The file they come from, for messages.
        read_groups: Of the file, in order.
        missing_quality: Phred of the bases of reads without qualities; `None` if such a read is an error.

    Raises:
        DataError: Of a read the qualities are not there, or bases are written as `=`.
    """
    sequences = [segment.query_sequence for segment in segments]
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)  # type: ignore[arg-type]
    letters = np.frombuffer("".join(sequences).encode("ascii"), np.uint8)  # type: ignore[arg-type]
    if (letters == _EQUAL_TO_REFERENCE).any():
        raise DataError(f"{path} writes bases that equal the reference as '='; write it again with the bases")
    operations = [segment.cigartuples for segment in segments]
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(operations)), np.int64).reshape(-1, 2)  # type: ignore[arg-type]
    begins = np.array([segment.reference_start for segment in segments], np.int64)
    n_operations = np.array([len(operation) for operation in operations], np.int64)  # type: ignore[arg-type]
    cigars = parse_cigars(flat[:, 0], flat[:, 1], n_operations, begins)
    groups = {group: number for number, group in enumerate(read_groups)}
    return Columns(
        [segment.query_name or "" for segment in segments],
        np.array([segment.reference_id for segment in segments], np.int32),
        begins,
        np.array([segment.flag for segment in segments], np.int32),
        np.array([segment.mapping_quality for segment in segments], np.int32),
        np.array([groups.get(_read_group(segment), -1) if groups else -1 for segment in segments], np.int32),
        cigars,
        _CODES[letters],
        np.frombuffer(b"".join(_qualities(segment, path, missing_quality) for segment in segments), np.uint8),
        np.concatenate([[0], np.cumsum(lengths)]),
    )


def one_hot(codes: Int8[np.ndarray, "*shape"]) -> np.ndarray:
    """Return distributions over A, C, G, T, zeros for a code of -1.

    Args:
        codes: A, C, G, T are 0 to 3.

    Returns:
        Distributions (..., 4), float32.

    Example:
        >>> one_hot(np.array([2, -1], np.int8)).tolist()
        [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    return _ONE_HOT[codes]


def codes_of(letters: np.ndarray) -> Int8[np.ndarray, "*shape"]:
    """Return the codes of letters that `one_hot` made.

    Args:
        letters: Distributions (..., 4), each of one letter or zeros.

    Example:
        >>> codes_of(one_hot(np.array([2, -1], np.int8))).tolist()
        [2, -1]
    """
    return np.where(letters.any(-1), letters.argmax(-1), -1).astype(np.int8)


def bucket(size: int, least: int) -> int:
    """Return the smallest of few sizes that holds `size`: powers of two, and halfway between them.

    Args:
        size: What must fit.
        least: The smallest size.

    Example:
        >>> [bucket(size, 16) for size in (3, 17, 100, 150)]
        [16, 24, 128, 192]
    """
    size = max(size, least, 1)
    power = 1 << (size - 1).bit_length()
    between = max(3 * power // 4, least)
    return between if size <= between else power


def _read_group(segment: AlignedSegment) -> str:
    return str(segment.get_tag("RG")) if segment.has_tag("RG") else ""


def _qualities(segment: AlignedSegment, path: str, missing_quality: int | None) -> bytes:
    """Return the qualities of a read, a byte for each base."""
    qualities = segment.query_qualities
    if qualities is not None:
        return qualities  # type: ignore[return-value]  # an array of bytes, which join takes
    if missing_quality is None:
        raise DataError(
            f"{path}: read {segment.query_name!r} has no base qualities; give missing_quality= a Phred for such reads, "
            "or leave them out"
        )
    return bytes([missing_quality]) * segment.query_length
