"""Reads of SAM, BAM and CRAM files as arrays, a batch at a time; pysam reads the files.

No more than a batch is held, so that files may be larger than the memory. Every read that is not used is counted by
reason in the file's account.

References:
    Li et al., The Sequence Alignment/Map format and SAMtools, Bioinformatics 2009.
"""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from types import MappingProxyType

import pysam

from diffbio.core.errors import ConfigError, DataError, listed, nearest
from diffbio.io.reads.aligned_reads import AlignedReads, padded
from diffbio.io.reads.columns import Columns, columns_of
from diffbio.io.reads.filters import MPILEUP, Account, ReadFilters
from diffbio.io.reads.references import Reference
from diffbio.io.reads.regions import Region, check_region, parse_region

_INDICES = {"bam": (".bai", ".csi"), "cram": (".crai",)}
_BASES_PER_BATCH = 1 << 21  # with padding: what bounds the memory where reads are long


class AlignmentFile:
    """A SAM, BAM or CRAM file, read from its beginning or, with an index, by region.

    Attributes:
        path: The file.
        contigs: Names and lengths of the contigs of its header, in order.
        read_groups: Identifiers of its read groups, in order.
        platform_units: The PU of each of them, as GATK names read groups; its identifier where it has none.
        samples: Names of its samples, each once.
        account: How many reads were seen, used and dropped since it was opened.

    Args:
        path: The file.
        reference: The FASTA file to which its reads were aligned. CRAM needs it; where it is given, the contigs are
            compared.
        missing_quality: Phred of the bases of reads without qualities; by default such a read is an error.
        threads: Threads that decompress.

    Raises:
        DataError: The file is missing, cut short, none of these formats, without contigs, or of another reference.
        ConfigError: A number is out of range.

    Example:
        >>> file = AlignmentFile("reads.bam")  # doctest: +SKIP
        >>> for reads in file.reads("chr1:1,000,001-1,001,000"):  # doctest: +SKIP
        ...     print(reads.codes.shape)
        >>> print(file.account)  # doctest: +SKIP
        412 reads: 398 used, 11 dropped as duplicate, 3 dropped as unmapped
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        reference: Reference | None = None,
        missing_quality: int | None = None,
        threads: int = 1,
    ) -> None:
        if missing_quality is not None and not 0 <= missing_quality <= 93:
            raise ConfigError(f"missing_quality is {missing_quality}; give a Phred from 0 to 93, or None")
        if threads < 1:
            raise ConfigError(f"threads is {threads}; it must be at least 1")
        self.path = Path(path)
        self.account = Account()
        self._reference, self._missing_quality, self._threads = reference, missing_quality, threads
        with self._opened() as file:
            self._format = next((name for name in ("bam", "cram", "sam") if getattr(file, f"is_{name}")), "")
            if not self._format:
                raise DataError(f"{self.path} is none of SAM, BAM and CRAM; align reads of FASTA or FASTQ first")
            if self._format == "cram" and reference is None:
                raise DataError(
                    f"{self.path} is CRAM, which holds differences to a reference; give reference=Reference(FASTA)"
                )
            self.contigs = MappingProxyType(dict(zip(file.references, file.lengths, strict=True)))
            header = file.header.to_dict()
        groups = header.get("RG", [])
        self.read_groups = tuple(str(group["ID"]) for group in groups)
        self.platform_units = tuple(str(group.get("PU", group["ID"])) for group in groups)
        self.samples = tuple(dict.fromkeys(str(group["SM"]) for group in groups if "SM" in group))
        self._order = str(header.get("HD", {}).get("SO", "unknown"))
        if not self.contigs:
            raise DataError(f"{self.path} names no contig in its header: its reads are not aligned; align them first")
        if reference is not None:
            check_same_contigs(self, reference)

    def reads(
        self,
        region: Region | str | None = None,
        *,
        filters: ReadFilters = MPILEUP,
        batch_size: int = 4096,
        least_positions: int = 64,
    ) -> Iterator[AlignedReads]:
        """Read the reads that overlap a region, or all.

        Args:
            region: A region, or its text as `parse_region` reads it; `None` for the whole file, which needs no index.
            filters: Which reads are used. `max_depth` acts in regions only.
            batch_size: Most reads of a batch; fewer where they are long.
            least_positions: The smallest number of columns. Columns are a power of two or halfway between two.

        Yields:
            Batches in the order of the file.

        Raises:
            DataError: The region is not there, there is no index, or the file is damaged or not sorted; each with the
                command that mends it.
            ConfigError: A batch has no reads.

        Example:
            >>> depth = np.zeros(48502, int)  # doctest: +SKIP
            >>> for reads in AlignmentFile("lambda.bam").reads():  # doctest: +SKIP
            ...     np.add.at(depth, reads.base_positions[reads.base_positions >= 0], 1)
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
        if isinstance(region, str):
            region = parse_region(region, self.contigs)
        for _, batches in self.columns([region], filters=filters, batch_size=batch_size):
            yield from (padded(columns, least_positions) for columns in batches)

    def columns(
        self,
        regions: Iterable[Region | None],
        *,
        filters: ReadFilters,
        batch_size: int,
    ) -> Iterator[tuple[Region | None, Iterator[Columns]]]:
        """Read the reads of regions side by side, without padding; what `reads` and `read_windows` are made of.

        Args:
            regions: Sorted within each contig; `None` stands for the whole file. A read that overlaps several is given
                for each, and counted once.
            filters: Which reads are used.
            batch_size: Most reads of a batch.

        Yields:
            Each region, and its batches, to be taken before the next region is asked for.

        Raises:
            DataError: As of `reads`.
        """
        counted = ("", -1)  # reads without a position are at -1
        with self._opened() as file:
            for region in regions:
                if region is not None:
                    check_region(region, self.contigs)
                    self._check_index(file)
                counted_to = counted[1] if region is not None and counted[0] == region.contig else -1
                yield region, self._of_region(file, region, filters, batch_size, counted_to)
                if region is not None:
                    counted = (region.contig, max(region.end, counted_to))

    def _of_region(
        self, file: pysam.AlignmentFile, region: Region | None, filters: ReadFilters, batch_size: int, counted_to: int
    ) -> Iterator[Columns]:
        """Read one region; reads that begin before `counted_to` were counted before."""
        account, uncounted = self.account, Account()
        max_depth = None if region is None else filters.max_depth
        reasons: dict[tuple[int, int], str | None] = {}
        kept: list[pysam.AlignedSegment] = []
        active: list[int] = []  # a heap of the ends of kept reads
        longest = last = 0
        try:
            for segment in file.fetch(until_eof=True) if region is None else file.fetch(*region):
                begin = segment.reference_start
                counter = account if begin >= counted_to else uncounted
                key = segment.flag, segment.mapping_quality
                if key not in reasons:
                    reasons[key] = filters.reason(*key)
                if (reason := reasons[key]) is not None:
                    counter.drop(reason)
                    continue
                end = segment.reference_end
                if end is None or not segment.query_length:
                    counter.drop("without bases or CIGAR")
                    continue
                if region is not None and begin < last:
                    raise DataError(
                        f"{self.path} is not sorted, or its index is of another file; run `samtools sort -o SORTED.bam "
                        f"{self.path}` and `samtools index SORTED.bam`"
                    )
                last = begin
                if max_depth is not None:
                    while active and active[0] <= begin:
                        heapq.heappop(active)
                    if len(active) >= max_depth:
                        counter.drop("above max_depth")
                        continue
                    heapq.heappush(active, end)
                length = segment.query_length
                if kept and (len(kept) == batch_size or max(longest, length) * (len(kept) + 1) > _BASES_PER_BATCH):
                    yield self._columns(kept)
                    kept, longest = [], 0
                counter.use()
                kept.append(segment)
                longest = max(longest, length)
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(self._explained(error)) from error
        if kept:
            yield self._columns(kept)

    def _columns(self, segments: list[pysam.AlignedSegment]) -> Columns:
        return columns_of(segments, str(self.path), read_groups=self.read_groups, missing_quality=self._missing_quality)

    @contextmanager
    def _opened(self) -> Iterator[pysam.AlignmentFile]:
        """Give a handle of its own to each stream, so that several may go on at once."""
        if not self.path.is_file():
            raise DataError(f"{self.path} does not exist; give a SAM, BAM or CRAM file")
        reference = None if self._reference is None else str(self._reference.path)
        try:
            file = pysam.AlignmentFile(
                str(self.path), "r", check_sq=False, reference_filename=reference, threads=self._threads
            )
        except (OSError, ValueError) as error:
            raise DataError(self._explained(error)) from error
        try:
            yield file
        finally:
            with suppress(OSError):  # closing a damaged file fails too, and would hide the first error
                file.close()

    def _check_index(self, file: pysam.AlignmentFile) -> None:
        """Refuse a file without an index; warn of one that is older than the file."""
        if self._format == "sam":
            raise DataError(
                f"{self.path} is SAM, which has no regions; run `samtools sort -o SORTED.bam {self.path}` and "
                "`samtools index SORTED.bam`"
            )
        if not file.has_index():
            sort = "" if self._order == "coordinate" else f"`samtools sort -o SORTED.bam {self.path}` and then "
            name = self.path if not sort else "SORTED.bam"
            raise DataError(f"{self.path} has no index, which regions need; run {sort}`samtools index {name}`")
        for suffix in _INDICES[self._format]:
            for index in (self.path.with_name(self.path.name + suffix), self.path.with_suffix(suffix)):
                if index.exists() and index.stat().st_mtime < self.path.stat().st_mtime:
                    message = (
                        f"{index} is older than {self.path}; if that has changed, run `samtools index {self.path}`"
                    )
                    warnings.warn(message, stacklevel=2)

    def _explained(self, error: Exception) -> str:
        """Return what went wrong while reading, and what to do."""
        text = str(error)
        if isinstance(error, PermissionError):
            return f"{self.path} can't be opened: {error.strerror}; give a file that can be read"
        if "EOF marker" in text or "truncated" in text:
            other = ", or was written against another reference than the one given" if self._reference else ""
            return f"{self.path} is cut short or damaged{other} ({text}); copy it again: `samtools quickcheck -v` tells"
        if any(said in text for said in ("valid header", "file header", "alignment data")):
            return f"{self.path} is none of SAM, BAM and CRAM ({text}); align reads of FASTA or FASTQ first"
        if "while reading" in text:
            return (
                f"{self.path} holds a malformed record ({text}), such as a CIGAR that does not fit the bases; write it "
                "again by the step that made it: picard ValidateSamFile lists such records"
            )
        return f"{self.path} can't be read ({text}); check it by `samtools quickcheck -v {self.path}`"


def check_same_contigs(file: AlignmentFile, reference: Reference) -> None:
    """Refuse a reference to which a file's reads were not aligned.

    Args:
        file: The reads.
        reference: The reference. It may have more contigs, and may lack some that are not asked for.

    Raises:
        DataError: A contig has another length in it, or it has none of the contigs.
    """
    common = [name for name in file.contigs if name in reference.contigs]
    for name in common:
        if file.contigs[name] != reference.contigs[name]:
            raise DataError(
                f"{file.path} was aligned to another reference than {reference.path}: {name!r} has "
                f"{file.contigs[name]} positions there and {reference.contigs[name]} here; give the FASTA file that "
                "was used to align, or align again"
            )
    if not common:
        first = next(iter(file.contigs))
        raise DataError(
            f"{reference.path} has none of the contigs of {file.path}: {listed(list(reference.contigs)[:4])} here, "
            f"{listed(list(file.contigs)[:4])} there{nearest(first, reference.contigs)}; give the FASTA file that was "
            "used to align"
        )
