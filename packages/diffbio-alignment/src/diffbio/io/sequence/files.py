"""Reading FASTA and FASTQ files, record by record; dnaio parses them.

Whether a file is FASTA or FASTQ, and whether it is compressed (gzip and so bgzip, bzip2, xz), is told by its first
bytes, not by its name. No more than one record is held, so that files may be larger than the memory.

References:
    Cock et al., The Sanger FASTQ file format for sequences with quality scores, and the Solexa/Illumina FASTQ variants,
    Nucleic Acids Research 2010.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8

from diffbio.core.errors import DataError
from diffbio.io.sequence.alphabets import meanings

_COMPRESSED = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ": "xz"}
_HIGHEST = 126  # the last printable character of ASCII


class Record(NamedTuple):
    """A sequence of a file.

    Attributes:
        name: The first word of its header.
        description: The rest of its header.
        sequence: Letters, as they stand in the file.
        qualities: Phred quality of each letter, -10 log10 of the probability that it is wrong; `None` in FASTA.
        path: The file it comes from; empty if it comes from none.
        number: Its number in that file, from 1.
    """

    name: str
    description: str
    sequence: str
    qualities: UInt8[np.ndarray, " positions"] | None = None
    path: str = ""
    number: int = 0

    @property
    def place(self) -> str:
        """Where the record stands, for messages."""
        return f"{self.path}: record {self.number} ({self.name!r})" if self.path else f"record {self.name!r}"


def read_sequences(
    path: str | PathLike[str], *, alphabet: str | None = None, phred_offset: int = 33
) -> Iterator[Record]:
    """Read the records of a FASTA or FASTQ file, one after the other.

    Args:
        path: The file, compressed or not.
        alphabet: Letters that sequences may have, beside the codes of `AMBIGUOUS` and in either case; `None` for any.
        phred_offset: What is added to a quality to give the number of its character: 33, or 64 in files of Illumina
            pipelines before 1.8 (2011).

    Yields:
        Records, in the order of the file.

    Raises:
        DataError: The file is missing, empty, cut short, neither FASTA nor FASTQ, or a record has no letters, a letter
            outside the alphabet, or not one quality for each letter. Raised when that record is asked for.

    Example:
        >>> for record in read_sequences("reads.fastq.gz"):  # doctest: +SKIP
        ...     print(record.name, len(record.sequence))
    """
    import dnaio

    path = Path(path)
    allowed = None if alphabet is None else _either_case(alphabet)
    number, name = 0, ""
    try:
        with (
            path.open("rb") as raw,
            _uncompressed(raw) as file,
            dnaio.open(file, fileformat=_format(path, file)) as reader,
        ):
            for parsed in reader:
                number += 1
                name = parsed.id
                description = parsed.name[len(name) + 1 :]
                record = Record(name, description, parsed.sequence, None, str(path), number)
                _check(record, alphabet, allowed)
                if parsed.qualities is not None:
                    record = record._replace(qualities=_phred(parsed.qualities, phred_offset, record))
                yield record
    except (dnaio.FileFormatError, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise DataError(_explained(error, path, number, name)) from error
    if number == 0:
        raise DataError(f"{path} holds no record; check the step that wrote it")


def read_pairs(
    first: str | PathLike[str],
    second: str | PathLike[str] | None = None,
    *,
    alphabet: str | None = None,
    phred_offset: int = 33,
) -> Iterator[tuple[Record, Record]]:
    """Read paired reads from two files, or from one in which the mates take turns.

    Args:
        first: The first reads, or all.
        second: The second reads, in the same order; `None` if they stand in `first`.
        alphabet: As in `read_sequences`.
        phred_offset: As in `read_sequences`.

    Yields:
        Both reads of each pair, in the order of the files.

    Raises:
        DataError: The names of two mates disagree (beyond a last /1 and /2), one file ends before the other, or
            whatever `read_sequences` refuses.

    Example:
        >>> for one, two in read_pairs("reads_1.fastq.gz", "reads_2.fastq.gz"):  # doctest: +SKIP
        ...     print(one.name, len(one.sequence), len(two.sequence))
    """
    ones = read_sequences(first, alphabet=alphabet, phred_offset=phred_offset)
    in_turns = second is None
    twos = ones if in_turns else read_sequences(second, alphabet=alphabet, phred_offset=phred_offset)
    for one in ones:
        two = next(twos, None)
        if two is None:
            raise DataError(_without_mate(one, first if in_turns else second))
        if not _are_mates(one.name, two.name):
            raise DataError(
                f"{one.place} and {two.place} are no mates: their names differ; sort both files alike, or repair them "
                "where reads of one were dropped"
            )
        yield one, two
    if (alone := next(twos, None)) is not None:
        raise DataError(_without_mate(alone, first))


def _without_mate(alone: Record, ended: str | PathLike[str] | None) -> str:
    return f"{alone.place} has no mate: {ended} ends before it; a file is cut short, or they are not of one run"


def _are_mates(one: str, two: str) -> bool:
    """Return whether two names are equal, beyond a last 1 and 2 after a slash, dot or underscore."""
    ends = one[-1:] + two[-1:]
    return one == two or (ends == "12" and one[:-1] == two[:-1] and one[-2:-1] in ("/", ".", "_"))


def check_record(record: Record, alphabet: str) -> None:
    """Refuse a record without letters, or with one that is not of the alphabet.

    Args:
        record: The record.
        alphabet: The letters; codes of `AMBIGUOUS` are allowed too.

    Raises:
        DataError: It can't be used; the message says which record, and where the letter stands.
    """
    _check(record, alphabet, _either_case(alphabet))


def _check(record: Record, alphabet: str | None, allowed: frozenset[str] | None) -> None:
    if not record.sequence:
        raise DataError(f"{record.place} has no letters; leave it out (cutadapt: --minimum-length 1)")
    if allowed is not None and not allowed.issuperset(record.sequence):
        position = next(place for place, letter in enumerate(record.sequence) if letter not in allowed)
        raise DataError(
            f"{record.place} has {record.sequence[position]!r} at position {position + 1}, which is none of "
            f"{alphabet!r} nor a code for some of them; name the file's alphabet, or mend the record"
        )


def _either_case(alphabet: str) -> frozenset[str]:
    upper = "".join(meanings(alphabet))
    return frozenset(upper + upper.lower())


def _phred(characters: str, offset: int, record: Record) -> UInt8[np.ndarray, " positions"]:
    """Return the qualities that characters stand for."""
    codes = np.frombuffer(characters.encode("latin-1"), np.uint8)
    if codes.min() < offset or codes.max() > _HIGHEST:
        position = int(((codes < offset) | (codes > _HIGHEST)).argmax())
        remedy = "give phred_offset=33" if offset > 33 else "mend the file"
        raise DataError(
            f"{record.place} has the quality {characters[position]!r} at position {position + 1}, which is not between "
            f"{chr(offset)!r} and {chr(_HIGHEST)!r} (phred_offset={offset}); {remedy}"
        )
    return codes - np.uint8(offset)


def _uncompressed(raw: BinaryIO) -> BinaryIO:
    """Return what a file holds, whatever its suffix says."""
    from xopen import xopen

    start = raw.read(6)
    raw.seek(0)
    kind = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), None)
    return raw if kind is None else xopen(raw, "rb", threads=0, format=kind)  # type: ignore[return-value]


def _format(path: Path, file: BinaryIO) -> str:
    """Return the format that the first letter of a file tells."""
    first = file.read(1)
    file.seek(0)
    if not first:
        raise DataError(f"{path} is empty; check the step that wrote it")
    formats = {b">": "fasta", b"@": "fastq"}
    if first not in formats:
        raise DataError(
            f"{path} is neither FASTA nor FASTQ: it begins with {first!r}, and not with '>' or '@'; alignments (BAM, "
            "CRAM) and other formats must be converted first"
        )
    return formats[first]


def _explained(error: Exception, path: Path, number: int, name: str) -> str:
    """Return what went wrong while reading, where, and what to do."""
    if isinstance(error, FileNotFoundError):
        return (
            f"{path} does not exist; the folder {path.parent} {'does' if path.parent.is_dir() else 'does not either'}"
        )
    if isinstance(error, IsADirectoryError | PermissionError):
        return f"{path} can't be opened: {error.strerror}; give a file that can be read"
    where = f"record {number + 1}" + (f", after {name!r}" if name else "")
    if isinstance(error, EOFError):
        return f"{path} is cut short: its compressed data end within {where}; copy or download it again"
    if isinstance(error, OSError | zlib.error):
        return f"{path} is damaged: {error}, at {where}; copy or download it again"
    return f"{path} is malformed at {where}: {error}; mend the record, or write the file again"
