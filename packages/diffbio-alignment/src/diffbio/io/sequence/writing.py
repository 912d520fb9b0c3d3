"""Writing FASTA and FASTQ files, and arrays back to records; dnaio writes them, compressed if the suffix says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike

import numpy as np
from jax.typing import ArrayLike

from diffbio.core.errors import DataError
from diffbio.io.sequence.alphabets import DNA, decode
from diffbio.io.sequence.files import Record

_LARGEST = 93  # the quality of the last printable character


def write_fasta(path: str | PathLike[str], records: Iterable[Record], *, line_length: int | None = None) -> int:
    """Write records to a FASTA file.

    Args:
        path: The file; it is replaced. A suffix .gz, .bz2 or .xz compresses it.
        records: The records; qualities are left out.
        line_length: Letters of a line; `None` for all of a record in one.

    Returns:
        How many records were written.

    Example:
        >>> write_fasta("proteins.fasta.gz", records, line_length=60)  # doctest: +SKIP
        2100
    """
    import dnaio

    n_written = 0
    with dnaio.FastaWriter(path, line_length=line_length) as file:
        for record in records:
            file.write(dnaio.SequenceRecord(_header(record), record.sequence, None))
            n_written += 1
    return n_written


def write_fastq(path: str | PathLike[str], records: Iterable[Record], *, phred_offset: int = 33) -> int:
    """Write records to a FASTQ file.

    Args:
        path: The file; it is replaced. A suffix .gz, .bz2 or .xz compresses it.
        records: The records.
        phred_offset: What is added to a quality to give the number of its character.

    Returns:
        How many records were written.

    Raises:
        DataError: A record has not one quality for each letter, or one that no character stands for.

    Example:
        >>> write_fastq("trimmed.fastq.gz", records)  # doctest: +SKIP
        20000
    """
    import dnaio

    highest, n_written = _LARGEST + 33 - phred_offset, 0
    with dnaio.FastqWriter(path) as file:
        for record in records:
            qualities = record.qualities
            if qualities is None or len(qualities) != len(record.sequence):
                n_known = 0 if qualities is None else len(qualities)
                raise DataError(
                    f"{record.place} has {n_known} qualities and {len(record.sequence)} letters; FASTQ needs one for "
                    "each: write records without qualities by write_fasta"
                )
            if len(qualities) and int(qualities.max()) > highest:
                raise DataError(f"{record.place} has a quality of {qualities.max()}; no character is above {highest}")
            characters = (qualities + np.uint8(phred_offset)).tobytes().decode("ascii")
            file.write(dnaio.SequenceRecord(_header(record), record.sequence, characters))
            n_written += 1
    return n_written


def kept_records(
    data: Mapping[str, ArrayLike],
    names: Sequence[str],
    descriptions: Sequence[str] | None = None,
    *,
    alphabet: str = DNA,
) -> Iterator[Record]:
    """Return the reads of a batch as records again: what its weights keep.

    Args:
        data: `reads` (reads, positions, letters), optionally `qualities` (reads, positions), `read_lengths` (reads,)
            and `read_mask` (reads,), as `bucketed` makes them; and, as trimming operators and filters write them,
            `base_weights` (reads, positions) and `read_weights` (reads,).
        names: Of the rows that `read_mask` keeps, in their order.
        descriptions: Likewise.
        alphabet: The letters, in the order of the last axis.

    Yields:
        A record for each read whose weight is above 1/2, from the first to the last base whose weight is above 1/2;
        none for a read without such a base. Qualities are rounded. Letters are upper case.

    Raises:
        DataError: There is not one name for each read.

    Example:
        >>> data = {"reads": np.eye(4, dtype=np.float32)[None], "base_weights": np.array([[0.1, 0.9, 1.0, 0.2]])}
        >>> [(record.name, record.sequence) for record in kept_records(data, ["a"])]
        [('a', 'CG')]
    """
    yield from (record for record in _records(data, "", names, descriptions, alphabet) if record is not None)


def kept_pairs(
    data: Mapping[str, ArrayLike],
    names: Sequence[str],
    descriptions: Sequence[str] | None = None,
    *,
    alphabet: str = DNA,
) -> Iterator[tuple[Record, Record]]:
    """Return the pairs of a batch as records again, so that files of first and second reads stay in step.

    Args:
        data: As for `kept_records`, and for the second reads `mate_reads`, `mate_qualities`, `mate_lengths` and
            `mate_base_weights`.
        names: Of the rows that `read_mask` keeps, in their order; mates get the same.
        descriptions: Likewise.
        alphabet: The letters, in the order of the last axis.

    Yields:
        Both records of each pair whose weight is above 1/2 and of which both reads keep a base; see `kept_records`.

    Raises:
        DataError: There is not one name for each pair.

    Example:
        >>> reads = np.eye(4, dtype=np.float32)[None]
        >>> [(one.sequence, two.sequence) for one, two in kept_pairs({"reads": reads, "mate_reads": reads}, ["a"])]
        [('ACGT', 'ACGT')]
    """
    ones, twos = (_records(data, mate, names, descriptions, alphabet) for mate in ("", "mate_"))
    yield from ((one, two) for one, two in zip(ones, twos, strict=True) if one is not None and two is not None)


def _records(
    data: Mapping[str, ArrayLike],
    mate: str,
    names: Sequence[str],
    descriptions: Sequence[str] | None,
    alphabet: str,
) -> Iterator[Record | None]:
    """Return a record for each named row, `None` where nothing is kept."""
    reads = np.asarray(data[f"{mate}reads"])
    n_rows, n_positions = reads.shape[:2]
    rows = np.flatnonzero(np.asarray(data.get("read_mask", np.ones(n_rows, bool))))
    if len(names) != len(rows) or (descriptions is not None and len(descriptions) != len(rows)):
        raise DataError(f"{len(names)} names were given for {len(rows)} reads; give those of the same batch")
    lengths = np.asarray(data.get(f"{mate}lengths" if mate else "read_lengths", np.full(n_rows, n_positions)))
    kept = np.arange(n_positions) < lengths[:, None]
    if f"{mate}base_weights" in data:
        kept &= np.asarray(data[f"{mate}base_weights"]) > 0.5
    kept &= (np.asarray(data.get("read_weights", np.ones(n_rows))) > 0.5)[:, None]
    begins, ends = kept.argmax(1), n_positions - kept[:, ::-1].argmax(1)
    sequences = decode(reads, None, alphabet)
    qualities = data.get(f"{mate}qualities")
    if qualities is not None:
        qualities = np.clip(np.rint(np.asarray(qualities)), 0, _LARGEST).astype(np.uint8)
    for place, row in enumerate(rows):
        if not kept[row].any():
            yield None
            continue
        span = slice(begins[row], ends[row])
        description = "" if descriptions is None else descriptions[place]
        quality = None if qualities is None else qualities[row, span]
        yield Record(names[place], description, sequences[row][span], quality)


def _header(record: Record) -> str:
    return f"{record.name} {record.description}" if record.description else record.name
