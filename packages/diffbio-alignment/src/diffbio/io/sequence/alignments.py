"""Alignments of many sequences as files: Stockholm, FASTA, Clustal, by Biopython.

References:
    Cock et al., Biopython, Bioinformatics 2009: `Bio.AlignIO`.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from Bio import AlignIO
from Bio.Align import MultipleSeqAlignment
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from jaxtyping import Int

from diffbio.core.errors import DataError, listed

FORMATS = {
    ".sto": "stockholm", ".stk": "stockholm", ".stockholm": "stockholm",
    ".fa": "fasta", ".fasta": "fasta", ".afa": "fasta", ".aln": "clustal",
}  # fmt: skip
"""Formats by the suffix of a file, before a further `.gz`."""


class Alignment(NamedTuple):
    """Sequences, one below the other.

    Attributes:
        names: Of the sequences.
        rows: Letters, and `-` in gaps, all of one length.
    """

    names: list[str]
    rows: list[str]

    @property
    def sequences(self) -> list[str]:
        """The sequences without gaps."""
        return [row.replace("-", "") for row in self.rows]

    def columns(self, size: int) -> Int[np.ndarray, "sequences positions"]:
        """Return the column of each residue, and -1 beyond the end of its sequence.

        Args:
            size: Positions of the array.

        Example:
            >>> Alignment(["a", "b"], ["AC-", "A-G"]).columns(3).tolist()
            [[0, 1, -1], [0, 2, -1]]
        """
        columns = np.full((len(self.rows), size), -1, np.int32)
        for number, row in enumerate(self.rows):
            (places,) = np.nonzero(np.array(list(row)) != "-")
            columns[number, : len(places)] = places
        return columns


def read_alignment(path: str | Path) -> Alignment:
    """Return the first alignment of a file.

    Args:
        path: Stockholm (.sto, .stk), aligned FASTA (.fa, .fasta, .afa) or Clustal (.aln), also with .gz behind.

    Returns:
        Names and rows, letters in upper case; `.` and `~` become `-`.

    Raises:
        DataError: There is no such file, its suffix says no format, or what it holds is no alignment.

    Example:
        >>> read_alignment("family.sto").names  # doctest: +SKIP
        ['HBA_HUMAN', 'HBB_HUMAN']
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt") as file:
            found = next(AlignIO.parse(file, _format(path)), None)
    except (ValueError, EOFError, OSError, AssertionError) as error:
        raise DataError(f"{path} can't be read as an alignment: {error}") from None
    if found is None or not len(found):
        raise DataError(f"{path} holds no alignment")
    rows = [str(record.seq).upper().replace(".", "-").replace("~", "-") for record in found]
    return Alignment([str(record.id) for record in found], rows)


def write_alignment(path: str | Path, alignment: Alignment) -> None:
    """Write an alignment in the format that the suffix says.

    Args:
        path: See `read_alignment`; not .gz.
        alignment: Names without spaces, and rows.

    Raises:
        DataError: The suffix says no format, or rows differ in length.
    """
    lengths = {len(row) for row in alignment.rows}
    if len(lengths) != 1:
        raise DataError(f"rows of an alignment have one length, and these have {listed(sorted(map(str, lengths)))}")
    records = [
        SeqRecord(Seq(row), id=name, description="") for name, row in zip(alignment.names, alignment.rows, strict=True)
    ]
    with Path(path).open("w") as file:
        AlignIO.write(MultipleSeqAlignment(records), file, _format(Path(path)))


def aligned_rows(sequences: Sequence[str], columns: Int[np.ndarray, "sequences positions"]) -> list[str]:
    """Return sequences spread over the columns of an alignment.

    Args:
        sequences: Letters.
        columns: The column of each residue, rising; what stands beyond the sequences' ends is not read.

    Example:
        >>> aligned_rows(["AC", "AG"], np.array([[0, 1], [0, 2]]))
        ['AC-', 'A-G']
    """
    places = [np.asarray(row)[: len(sequence)] for sequence, row in zip(sequences, columns, strict=True)]
    width = max((int(place.max(initial=-1)) for place in places), default=-1) + 1
    rows = np.full((len(sequences), width), "-")
    for row, sequence, place in zip(rows, sequences, places, strict=True):
        row[place] = list(sequence)
    return ["".join(row) for row in rows]


def _format(path: Path) -> str:
    """Return Biopython's name of the format that a suffix says."""
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in FORMATS:
        raise DataError(f"{path} has the suffix {suffix!r}, which says no format of alignments; use {listed(FORMATS)}")
    return FORMATS[suffix]
