"""Regions of a reference: written as samtools writes them, from BED files, merged, and cut into windows.

Everywhere in Python positions count from 0 and the end is not included; text such as `chr1:1,001-2,000` counts from 1
and includes it, as samtools and browsers show it.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from diffbio.core.errors import ConfigError, DataError, listed, nearest

_INTERVAL = re.compile(r"([\d,]+)(-([\d,]*))?")
_NOT_REGIONS = ("#", "track", "browser")


class Region(NamedTuple):
    """A stretch of a contig.

    Attributes:
        contig: Name of the sequence.
        begin: First position, from 0.
        end: The position after the last one.

    Example:
        >>> print(Region("chr1", 1000, 2000))
        chr1:1001-2000
    """

    contig: str
    begin: int
    end: int

    def __str__(self) -> str:
        """Return the region as samtools writes it, from 1, the end included."""
        return f"{self.contig}:{self.begin + 1}-{self.end}"


class Window(NamedTuple):
    """A stretch of a contig with a margin on both sides.

    Attributes:
        contig: Name of the sequence.
        begin: Position of the first column, from 0; negative where the margin lies before the contig.
        end: The position after the last column; it may lie beyond the contig.
        own_begin: First position that is this window's and no other's.
        own_end: The position after its last own one.
    """

    contig: str
    begin: int
    end: int
    own_begin: int
    own_end: int


def parse_region(text: str, contigs: Mapping[str, int]) -> Region:
    """Read a region as samtools takes it: `chr1`, `chr1:1,001-2,000`, `chr1:1001-` or `chr1:1001` (to the end).

    Args:
        text: The region. A contig whose name has a colon may stand in braces: `{HLA:1}:10-20`.
        contigs: Names and lengths, as of a `Reference` or an `AlignmentFile`.

    Raises:
        DataError: The contig is not there, the interval is none or not within the contig, or the text can be read in
            two ways.

    Example:
        >>> parse_region("chr1:1,001-2,000", {"chr1": 5000})
        Region(contig='chr1', begin=1000, end=2000)
        >>> parse_region("chr1", {"chr1": 5000})
        Region(contig='chr1', begin=0, end=5000)
    """
    braces = re.fullmatch(r"\{(.+)\}(?::(.*))?", text)
    name, _, interval = text.rpartition(":")
    if braces:
        name, interval = braces[1], braces[2] or ""
    elif text in contigs:
        if name in contigs and _INTERVAL.fullmatch(interval):
            raise DataError(f"{text!r} is a contig, and a part of {name!r}; write {{{text}}} or {{{name}}}:{interval}")
        name, interval = text, ""
    elif not name:
        name, interval = text, ""
    check_contig(name, contigs, f"region {text!r}")
    size = contigs[name]
    if not interval:
        return Region(name, 0, size)
    found = _INTERVAL.fullmatch(interval)
    if not found:
        raise DataError(f"region {text!r} has the interval {interval!r}; write it as {name}:1,001-2,000")
    begin = int(found[1].replace(",", "") or 0) - 1
    end = int(found[3].replace(",", "")) if found[3] else size
    return check_region(Region(name, begin, end), contigs)


def check_region(region: Region, contigs: Mapping[str, int]) -> Region:
    """Return a region if it lies within its contig.

    Args:
        region: The region.
        contigs: Names and lengths.

    Raises:
        DataError: It does not, or holds no position.
    """
    check_contig(region.contig, contigs, f"region {region}")
    size = contigs[region.contig]
    if not 0 <= region.begin < region.end <= size:
        raise DataError(
            f"region {region} is not within {region.contig!r}, which has positions 1 to {size}; give one that ends "
            "there and holds at least one position"
        )
    return region


def check_contig(name: str, contigs: Mapping[str, int], where: str) -> None:
    """Refuse a contig that is not there, and say which are.

    Args:
        name: Of the contig.
        contigs: Those that are there.
        where: What asks for it, for the message.

    Raises:
        DataError: It is not there.
    """
    if name not in contigs:
        other = name.removeprefix("chr") if name.startswith("chr") else f"chr{name}"
        hint = f" (did you mean {other!r}?)" if other in contigs else nearest(name, contigs)
        known = list(contigs)
        there = listed(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
        raise DataError(f"{where}: there is no contig {name!r}{hint}; there are {there}")


def read_bed(path: str | PathLike[str], contigs: Mapping[str, int] | None = None) -> list[Region]:
    """Read the regions of a BED file, plain or compressed by gzip or bgzip.

    Args:
        path: The file. Columns after the third are not used, nor are lines of comments, `track` and `browser`.
        contigs: Names and lengths, against which regions are checked if they are given.

    Returns:
        Regions in the order of the file.

    Raises:
        DataError: The file is missing or damaged, has no region, or a line is none or lies outside of its contig; the
            message says which line.

    Example:
        >>> read_bed("targets.bed", reference.contigs)  # doctest: +SKIP
        [Region(contig='chr1', begin=1000, end=2000)]
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode("utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give a BED file") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as BED: {error}; copy or write it again") from error
    regions = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(_NOT_REGIONS):
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) < 3 or not (fields[1].isdecimal() and fields[2].isdecimal()):
            raise DataError(f"{path}, line {number}: {line!r} is no region; BED has name, begin and end as columns")
        region = Region(fields[0], int(fields[1]), int(fields[2]))
        if region.begin >= region.end:
            raise DataError(f"{path}, line {number}: {line!r} holds no position; its end must be above its begin")
        if contigs is not None:
            try:
                check_region(region, contigs)
            except DataError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
        regions.append(region)
    if not regions:
        raise DataError(f"{path} holds no region; check the step that wrote it")
    return regions


def merged(regions: Iterable[Region], *, gap: int = 0) -> list[Region]:
    """Return sorted regions of which none overlap or touch.

    Args:
        regions: In any order.
        gap: Positions that may lie between two regions that become one.

    Returns:
        Regions by begin; contigs come in the order in which they first appear.

    Example:
        >>> merged([Region("b", 5, 9), Region("a", 0, 3), Region("b", 0, 5)])
        [Region(contig='b', begin=0, end=9), Region(contig='a', begin=0, end=3)]
    """
    regions = list(regions)
    order = {contig: place for place, contig in enumerate(dict.fromkeys(region.contig for region in regions))}
    joined: list[Region] = []
    for region in sorted(regions, key=lambda region: (order[region.contig], region.begin)):
        if joined and joined[-1].contig == region.contig and region.begin <= joined[-1].end + gap:
            joined[-1] = joined[-1]._replace(end=max(joined[-1].end, region.end))
        else:
            joined.append(region)
    return joined


def tiled(regions: Iterable[Region], *, window: int, margin: int = 0) -> Iterator[Window]:
    """Cut regions into windows of one size, of which each position is exactly one's own.

    Args:
        regions: In any order; those that overlap are merged.
        window: Columns of each window.
        margin: Columns on each side that belong to the neighbours, so that what lies at the border is seen whole.

    Yields:
        Windows, sorted within their contig.

    Raises:
        ConfigError: No column is left between the margins.

    Example:
        >>> for tile in tiled([Region("chr1", 0, 250)], window=120, margin=10):
        ...     print(tile.begin, tile.end, tile.own_begin, tile.own_end)
        -10 110 0 100
        90 210 100 200
        190 310 200 250
    """
    own = window - 2 * margin
    if margin < 0 or own < 1:
        raise ConfigError(f"window is {window} and margin {margin}; a window must be larger than both of its margins")
    for contig, begin, end in merged(regions):
        for own_begin in range(begin, end, own):
            first = own_begin - margin
            yield Window(contig, first, first + window, own_begin, min(own_begin + own, end))
