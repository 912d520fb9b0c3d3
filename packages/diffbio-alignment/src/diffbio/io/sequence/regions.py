"""Parts of large FASTA files, by an index; pysam reads them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from diffbio.core.errors import DataError, MissingExtraError, listed, nearest
from diffbio.io.sequence.files import Record


def read_region(path: str | PathLike[str], name: str, begin: int = 0, end: int | None = None) -> Record:
    """Read a part of one sequence of a FASTA file, without reading the rest.

    Args:
        path: The file, plain or compressed by bgzip. Its index (.fai, .gzi) is made beside it if it is not there.
        name: Of the sequence.
        begin: The first position, from 0.
        end: The position after the last one; `None` for the end of the sequence.

    Raises:
        MissingExtraError: pysam is not installed.
        DataError: The file can't be read by index, has no such sequence, or that sequence no such positions.

    Example:
        >>> read_region("genome.fa.gz", "chr2", 1_000_000, 1_000_100).sequence  # doctest: +SKIP
        'ACGT...'
    """
    try:
        import pysam
    except ImportError as error:
        raise MissingExtraError(
            "reading regions of FASTA files needs pysam; install it: pip install 'diffbio-alignment[regions]'"
        ) from error
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a FASTA file")
    try:
        file = pysam.FastaFile(str(path))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} can't be read by index ({error}); it must be FASTA with lines of equal length, plain or "
            "compressed by bgzip (not gzip), in a folder where an index can be written"
        ) from error
    with file:
        if name not in file.references:
            known = listed(file.references[:8]) + (", ..." if len(file.references) > 8 else "")
            raise DataError(f"{path} has no sequence {name!r}{nearest(name, file.references)}; it has {known}")
        size = file.get_reference_length(name)
        end = size if end is None else end
        if not 0 <= begin < end <= size:
            raise DataError(f"{path}: {name!r} has positions 0 to {size}, and {begin} to {end} were asked for")
        return Record(name, f"{begin}-{end}", file.fetch(name, begin, end), path=str(path))
