"""Reads laid against windows of the reference, as the arrays that operators of variant calling read.

The file is read once: reads are kept until the last window that they reach. Of a long read only the part over the
window goes into the arrays, so that these stay small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from diffbio.core.errors import ConfigError
from diffbio.io.reads.alignment_files import AlignmentFile, check_same_contigs
from diffbio.io.reads.cigars import Blocks, blocks_within, parts_of_reads, place_bases, ranges
from diffbio.io.reads.columns import Columns, bucket, one_hot
from diffbio.io.reads.filters import MPILEUP, Flags, ReadFilters
from diffbio.io.reads.mate_overlaps import mate_rows, overlap_weights
from diffbio.io.reads.references import Reference
from diffbio.io.reads.regions import Region, Window, check_contig, check_region, merged, parse_region, tiled

_READS_PER_CHUNK = 1024
_OF_READS = {
    "read_mask": np.bool_,
    "reverse_strand": np.bool_,
    "second_in_pair": np.bool_,
    "read_lengths": np.int32,
    "read_offsets": np.int32,
    "full_lengths": np.int32,
    "read_groups": np.int32,
    "mapping_qualities": np.float32,
}
_OF_BASES = {
    "qualities": np.float32,
    "base_weights": np.float32,
    "base_positions": np.int32,
    "insertions": np.int32,
    "deletions": np.int32,
}
_OF_PAIRS = Flags.PROPER_PAIR | Flags.SECONDARY | Flags.SUPPLEMENTARY


class WindowBatch(NamedTuple):
    """Windows with their reads.

    Attributes:
        data: Arrays whose first axis is that of the windows: `reads` (windows, reads, positions, 4), `qualities`,
            `base_weights`, `base_positions`, `insertions`, `deletions` (windows, reads, positions); `read_lengths`,
            `read_offsets`, `full_lengths`, `read_mask`, `mapping_qualities`, `read_groups`, `reverse_strand`,
            `second_in_pair` (windows, reads); `reference` (windows, window, 4) and `own_columns` (windows, window).
        windows: Where they lie; fewer than the first axis has in a last batch, whose other windows are empty.
        names: Of the reads of each window, in the order of the rows.
    """

    data: dict[str, np.ndarray]
    windows: list[Window]
    names: list[list[str]]


class _Part(NamedTuple):
    """What some reads of one batch of the file have over a window."""

    columns: Columns
    rows: Int[np.ndarray, " rows"]
    blocks: Blocks
    firsts: Int[np.ndarray, " rows"]
    lengths: Int[np.ndarray, " rows"]


def read_windows(
    file: AlignmentFile,
    reference: Reference,
    regions: Iterable[Region | str] | None = None,
    *,
    window: int,
    margin: int = 0,
    batch_size: int = 1,
    filters: ReadFilters = MPILEUP,
    longest_whole: int = 512,
    overlaps_once: bool = True,
    least_reads: int = 16,
    least_positions: int = 64,
) -> Iterator[WindowBatch]:
    """Read the reads over windows of the reference.

    Args:
        file: The reads, sorted and with an index.
        reference: What they were aligned to.
        regions: Regions, or their texts as `parse_region` reads them; `None` for all contigs of the file.
        window: Columns of each window.
        margin: Columns on each side that belong to the neighbours; `own_columns` is false there.
        batch_size: Windows of a batch.
        filters: Which reads are used; those that are not are counted in `file.account`, each read once.
        longest_whole: Reads of up to so many bases are kept whole, with `base_positions` -1 outside of the window; of
            longer ones only the bases from the first to the last that are aligned to the window, and what is inserted
            after them.
        overlaps_once: Where both mates of a pair are aligned to a column, give `base_weights` 0 to the base of lower
            quality, of equals to that of the later mate; otherwise both count, as for `samtools mpileup -x`.
        least_reads: The smallest number of rows. Rows and positions are powers of two or halfway between two, so that
            few shapes arise.
        least_positions: The smallest number of positions.

    Yields:
        Batches in the order of the regions, windows without reads included. Rows are sorted by the begin of the reads.

    Raises:
        DataError: File and reference don't fit, a region is not there, or the file can't be read; see `AlignmentFile`.
        ConfigError: A number is out of range.

    Example:
        >>> for batch in read_windows(file, reference, ["chr1"], window=256, margin=32):  # doctest: +SKIP
        ...     print(batch.windows[0].own_begin, batch.data["reads"].shape)
        0 (1, 48, 192, 4)
    """
    for name, value in (("batch_size", batch_size), ("least_reads", least_reads), ("least_positions", least_positions)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    check_same_contigs(file, reference)
    contigs = file.contigs
    given = contigs if regions is None else regions
    chosen = [
        parse_region(region, contigs) if isinstance(region, str) else check_region(region, contigs) for region in given
    ]
    for region in chosen:
        check_contig(region.contig, reference.contigs, f"{reference.path}, for reads of {file.path}")
    make = partial(
        _batch,
        reference=reference,
        n_windows=batch_size,
        window=window,
        least=(least_reads, least_positions),
        overlaps_once=overlaps_once,
    )
    pending: list[tuple[Window, list[_Part]]] = []
    stretches = _stretches(chosen, contigs, window, margin)
    streams = file.columns((stretch for stretch, _ in stretches), filters=filters, batch_size=_READS_PER_CHUNK)
    for (_, parts), (_, chunks) in zip(stretches, streams, strict=True):
        for laid in _with_reads(chunks, tiled(parts, window=window, margin=margin), longest_whole):
            pending.append(laid)
            if len(pending) == batch_size:
                yield make(pending)
                pending = []
    if pending:
        yield make(pending)


def _stretches(
    regions: list[Region], contigs: Mapping[str, int], window: int, margin: int
) -> list[tuple[Region, list[Region]]]:
    """Return regions in groups whose windows touch, each with the stretch that these windows cover."""
    own = max(window - 2 * margin, 1)
    stretches: list[tuple[Region, list[Region]]] = []
    for region in merged(regions):
        begin = region.begin - margin
        end = begin + (region.end - region.begin - 1) // own * own + window
        stretch, group = stretches.pop() if stretches else (Region("", 0, 0), [])
        if region.contig == stretch.contig and begin <= stretch.end:
            group.append(region)
        else:
            stretches += [(stretch, group)] if group else []
            stretch, group = Region(region.contig, max(begin, 0), 0), [region]
        stretches.append((stretch._replace(end=min(end, contigs[region.contig])), group))
    return stretches


def _with_reads(
    chunks: Iterator[Columns], windows: Iterator[Window], longest_whole: int
) -> Iterator[tuple[Window, list[_Part]]]:
    """Return windows with what the reads have over them; reads are held until the last window that they reach."""
    held: list[tuple[int, Columns]] = []  # with the end of what the reads cover
    newest: Columns | None = None
    exhausted = False
    for tile in windows:
        while not exhausted and (newest is None or newest.begins[-1] < tile.end):
            newest = next(chunks, None)
            exhausted = newest is None
            if newest is not None:
                held.append((int(newest.cigars.ends.max()), newest))
        held = [(end, chunk) for end, chunk in held if end > tile.begin]
        parts = [_part(chunk, tile, longest_whole) for _, chunk in held]
        yield tile, [part for part in parts if len(part.rows)]


def _part(columns: Columns, tile: Window, longest_whole: int) -> _Part:
    """Return the reads of one batch of the file that have a base over a window."""
    cigars = columns.cigars
    rows = np.flatnonzero((columns.begins < tile.end) & (cigars.ends > tile.begin))
    blocks = blocks_within(cigars, rows, tile.begin, tile.end)
    firsts, lengths = parts_of_reads(blocks, len(rows))
    kept = lengths > 0  # some reach over the window by a deletion or an intron alone
    blocks = blocks._replace(reads=(np.cumsum(kept) - 1)[blocks.reads])
    rows, firsts, lengths = rows[kept], firsts[kept], lengths[kept]
    whole = cigars.lengths[rows] <= longest_whole
    return _Part(columns, rows, blocks, np.where(whole, 0, firsts), np.where(whole, cigars.lengths[rows], lengths))


def _batch(
    laid: list[tuple[Window, list[_Part]]],
    *,
    reference: Reference,
    n_windows: int,
    window: int,
    least: tuple[int, int],
    overlaps_once: bool,
) -> WindowBatch:
    """Return the arrays of some windows."""
    n_reads = bucket(max(sum(len(part.rows) for part in parts) for _, parts in laid), least[0])
    n_positions = bucket(max((int(part.lengths.max()) for _, parts in laid for part in parts), default=0), least[1])
    rows_shape = n_windows, n_reads
    shape = *rows_shape, n_positions
    codes, reference_codes = np.full(shape, -1, np.int8), np.full((n_windows, window), -1, np.int8)
    data = {key: np.zeros(rows_shape, dtype) for key, dtype in _OF_READS.items()}
    data |= {key: np.zeros(shape, dtype) for key, dtype in _OF_BASES.items()}
    data["own_columns"] = np.zeros((n_windows, window), bool)
    data["base_positions"] -= 1
    data["read_groups"] -= 1
    for number, (tile, parts) in enumerate(laid):
        reference_codes[number] = reference.window(tile.contig, tile.begin, tile.end)
        data["own_columns"][number, tile.own_begin - tile.begin : tile.own_end - tile.begin] = True
        begin = 0
        for part in parts:
            place = number, slice(begin, begin := begin + len(part.rows))
            _fill({key: array[place] for key, array in data.items() if key != "own_columns"}, codes[place], part, tile)
    data |= {"reads": one_hot(codes), "reference": one_hot(reference_codes)}
    names = [[part.columns.names[row] for part in parts for row in part.rows] for _, parts in laid]
    if overlaps_once:
        for number, (_, parts) in enumerate(laid):
            flags = np.concatenate([part.columns.flags[part.rows] for part in parts] or [np.zeros(0, np.int32)])
            pairs = mate_rows(names[number], flags & _OF_PAIRS == Flags.PROPER_PAIR)
            overlapping = overlap_weights(pairs, data["base_positions"][number], data["qualities"][number], window)
            data["base_weights"][number] *= overlapping
    return WindowBatch(data, [tile for tile, _ in laid], names)


def _fill(data: dict[str, np.ndarray], codes: np.ndarray, part: _Part, tile: Window) -> None:
    """Write some reads into their rows."""
    columns, rows, blocks, firsts, lengths = part
    n_positions = codes.shape[1]
    present = np.arange(n_positions) < lengths[:, None]
    bases = ranges(columns.offsets[rows] + firsts, lengths)
    codes[present] = columns.bases[bases]
    data["qualities"][present] = columns.qualities[bases]
    placement = place_bases(blocks, firsts, n_positions)
    positions = placement.base_positions
    data["base_positions"][:] = np.where(positions < 0, -1, positions - tile.begin)
    data["insertions"][:], data["deletions"][:] = placement.insertions, placement.deletions
    data["base_weights"][:] = present
    data["read_mask"][:] = True
    data["read_lengths"][:] = lengths
    data["read_offsets"][:] = columns.cigars.offsets[rows] + firsts
    data["full_lengths"][:] = columns.cigars.full_lengths[rows]
    data["mapping_qualities"][:] = columns.mapping_qualities[rows]
    data["read_groups"][:] = columns.read_groups[rows]
    data["reverse_strand"][:] = (columns.flags[rows] & Flags.REVERSE) > 0
    data["second_in_pair"][:] = (columns.flags[rows] & Flags.SECOND_IN_PAIR) > 0
