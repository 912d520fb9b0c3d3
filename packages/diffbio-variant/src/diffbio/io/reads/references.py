"""Reference sequences by an index, from FASTA files that need not fit into memory; pysam reads them."""

from __future__ import annotations

import os
import warnings
from os import PathLike
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
import pysam
from jaxtyping import Float, Int8

from diffbio.core.errors import DataError
from diffbio.io.reads.columns import one_hot
from diffbio.io.reads.regions import Region, check_contig, check_region, parse_region

_IUPAC = b"ACGTUNRYSWKMBDHV"
_CODES = np.full(256, -2, np.int8)  # no letter of a nucleotide
for _letters in (_IUPAC, _IUPAC.lower()):
    _CODES[np.frombuffer(_letters, np.uint8)] = -1
for _letters in (b"ACGT", b"acgt"):
    _CODES[np.frombuffer(_letters, np.uint8)] = np.arange(4)


class Reference:
    """A FASTA file, plain or compressed by bgzip, of which regions are read by an index.

    Its index (.fai, for bgzip .gzi too) is made beside it if it is not there.

    Attributes:
        path: The file.
        contigs: Names and lengths, in the order of the file.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing, empty, no FASTA, compressed otherwise, or has no index where none can be made.

    Example:
        >>> with Reference("genome.fa.gz") as reference:  # doctest: +SKIP
        ...     print(reference.letters("chr2:1,000,001-1,000,010"))
        ACGTTGCAAC
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path} does not exist; give a FASTA file")
        index = self.path.with_name(f"{self.path.name}.fai")
        if not index.exists() and not os.access(self.path.parent, os.W_OK):
            raise DataError(
                f"{self.path} has no index, and none can be written into {self.path.parent}; run `samtools faidx "
                f"{self.path}` with the rights to write there, or copy the file to where you may write"
            )
        if index.exists() and index.stat().st_mtime < self.path.stat().st_mtime:
            warnings.warn(
                f"{index} is older than {self.path}; if that has changed, run `samtools faidx {self.path}`",
                stacklevel=2,
            )
        try:
            self._file = pysam.FastaFile(str(self.path))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path} can't be read by index ({error}); it must be FASTA whose lines are equally long within a "
                "sequence, plain or compressed by bgzip: for a file of gzip run `gunzip` and then `bgzip`"
            ) from error
        self.contigs = MappingProxyType(dict(zip(self._file.references, self._file.lengths, strict=True)))
        if not self.contigs:
            raise DataError(f"{self.path} holds no sequence; check the step that wrote it")

    def letters(self, region: Region | str) -> str:
        """Return the letters of a region, as they stand in the file.

        Args:
            region: A region, or its text as `parse_region` reads it.

        Raises:
            DataError: There is no such contig, or it has no such positions; the message names those that there are.
        """
        region = self._region(region)
        try:
            letters = self._file.fetch(*region)
        except (OSError, ValueError):
            letters = ""
        if len(letters) != region.end - region.begin:
            raise DataError(
                f"{self.path} has {len(letters)} letters in {region}; its index is of another file, or it is cut "
                f"short: run `samtools faidx {self.path}`"
            )
        return letters

    def codes(self, region: Region | str) -> Int8[np.ndarray, " positions"]:
        """Return a region as codes: A, C, G, T are 0 to 3, N and all codes for several bases -1.

        Args:
            region: A region, or its text.

        Raises:
            DataError: It is not there, or has a letter that is none of a nucleotide.
        """
        region = self._region(region)
        letters = self.letters(region)
        codes = _CODES[np.frombuffer(letters.encode("latin-1"), np.uint8)]
        if (codes == -2).any():
            place = int((codes == -2).argmax())
            raise DataError(
                f"{self.path} has {letters[place]!r} in {region}, at letter {place + 1}, which is no code of a "
                "nucleotide; give a genome and not proteins, or an index that is of this file"
            )
        return codes

    def one_hot(self, region: Region | str) -> Float[np.ndarray, "positions 4"]:
        """Return a region as distributions over A, C, G, T; zeros for N and all codes for several bases.

        Args:
            region: A region, or its text.

        Raises:
            DataError: As of `codes`.
        """
        return one_hot(self.codes(region))

    def window(self, contig: str, begin: int, end: int) -> Int8[np.ndarray, " positions"]:
        """Return the codes of a window that may reach beyond the contig; -1 there.

        Args:
            contig: Name of the sequence.
            begin: Position of the first column, from 0.
            end: The position after the last column.

        Raises:
            DataError: There is no such contig, or it has a letter that is none of a nucleotide.
        """
        check_contig(contig, self.contigs, f"{self.path}")
        codes = np.full(end - begin, -1, np.int8)
        first, last = max(begin, 0), min(end, self.contigs[contig])
        if first < last:
            codes[first - begin : last - begin] = self.codes(Region(contig, first, last))
        return codes

    def _region(self, region: Region | str) -> Region:
        return parse_region(region, self.contigs) if isinstance(region, str) else check_region(region, self.contigs)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the reference."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()
