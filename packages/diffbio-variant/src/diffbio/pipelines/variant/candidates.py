"""Candidates: the differences from the reference that enough reads show to be looked at closely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float

from diffbio.core.errors import ConfigError
from diffbio.io.reads.alignment_files import AlignmentFile
from diffbio.io.reads.filters import MPILEUP, ReadFilters
from diffbio.io.reads.references import Reference
from diffbio.io.reads.regions import Region, Window
from diffbio.io.reads.variants import Variant, normalized
from diffbio.io.reads.windows import read_windows
from diffbio.operators.variant.pileup import pileup_counts

_LETTERS = "ACGT"
_WINDOW, _MARGIN = 1024, 128  # columns that are counted at a time; a gap at their border is seen whole


def find_candidates(
    file: AlignmentFile,
    reference: Reference,
    regions: Iterable[Region | str] | None = None,
    *,
    min_reads: int = 2,
    min_share: float = 0.12,
    min_base_quality: float = 10.0,
    filters: ReadFilters = MPILEUP,
) -> list[Variant]:
    """Return what at least so many reads, and such a share of the reads of a position, show.

    Args:
        file: Aligned reads with an index.
        reference: What they were aligned to.
        regions: Where to look; everywhere by default.
        min_reads: Reads that show it, at least 1.
        min_share: Of all reads there, above 0, up to 1.
        min_base_quality: Phred, of the letter, or of the one before a gap.
        filters: Which reads are used.

    Returns:
        Variants with one alternative, in their normal form, each once, by contig and position. Memory: a window at a
        time.

    Raises:
        ConfigError: A number is out of range.
        DataError: A file can't be read, or the two don't fit.
    """
    if min_reads < 1 or not 0 < min_share <= 1:
        raise ConfigError(
            f"min_reads is {min_reads} and min_share {min_share}; give at least 1, and a share above 0 and up to 1"
        )
    found: set[tuple[str, int, str, str]] = set()
    options = {"window": _WINDOW, "margin": _MARGIN, "filters": filters}
    for batch in read_windows(file, reference, regions, **options):
        arrays = {key: array[0] for key, array in batch.data.items()}
        counts = (arrays["qualities"] >= min_base_quality) & (arrays["base_weights"] > 0) & arrays["read_mask"][:, None]
        counts &= np.arange(counts.shape[1]) < arrays["read_lengths"][:, None]
        depth, letters = _counted(arrays, counts)
        enough = np.maximum(min_reads, np.ceil(min_share * depth - 1e-6)).astype(int)
        enough = np.where(arrays["own_columns"], enough, np.iinfo(np.int32).max)
        window = batch.windows[0]
        shown = [*_letters(window, arrays["reference"], letters, enough), *_gaps(window, arrays, counts, enough)]
        found |= {(*one[:3], one.alternatives[0]) for one in (normalized(variant, reference) for variant in shown)}
    order = {contig: place for place, contig in enumerate(file.contigs)}
    ordered = sorted(found, key=lambda one: (order[one[0]], *one[1:]))
    return [Variant(*one[:3], (one[3],)) for one in ordered]


def _counted(
    arrays: dict[str, np.ndarray], counts: np.ndarray
) -> tuple[Float[np.ndarray, " window"], Float[np.ndarray, "window letters"]]:
    """Return how many reads a position has, and how many show each letter."""
    counted = pileup_counts(
        arrays["reads"], counts.astype(np.float32), arrays["base_positions"], arrays["insertions"],
        arrays["deletions"], window=_WINDOW,
    )  # fmt: skip
    return np.asarray(counted.read_depth), np.asarray(counted.base_counts.sum(1))


def _letters(window: Window, reference: np.ndarray, letters: np.ndarray, enough: np.ndarray) -> Iterator[Variant]:
    """Yield the letters that are not the reference's; none where that is unknown."""
    known = reference.any(-1, keepdims=True)
    for column, letter in np.argwhere((letters >= enough[:, None]) & (reference == 0) & known):
        ref = _LETTERS[reference[column].argmax()]
        yield Variant(window.contig, window.begin + int(column), ref, (_LETTERS[letter],))


def _gaps(window: Window, arrays: dict[str, np.ndarray], counts: np.ndarray, enough: np.ndarray) -> Iterator[Variant]:
    """Yield the insertions and deletions; those with unknown letters, and beyond the window, are none."""
    reads, reference = arrays["reads"], arrays["reference"]
    shown: Counter[tuple[int, str, int]] = Counter()
    longer = (arrays["insertions"] > 0) | (arrays["deletions"] > 0)
    for row, place in np.argwhere(longer & counts & (arrays["base_positions"] >= 0)):
        inserted = reads[row, place + 1 : place + 1 + arrays["insertions"][row, place]]
        text = "".join(_LETTERS[letter.argmax()] if letter.any() else "N" for letter in inserted)
        shown[int(arrays["base_positions"][row, place]), text, int(arrays["deletions"][row, place])] += 1
    for (column, text, deleted), count in shown.items():
        replaced = reference[column : column + 1 + deleted]
        if count < enough[column] or "N" in text or len(replaced) <= deleted or not replaced.any(-1).all():
            continue
        ref = "".join(_LETTERS[letter.argmax()] for letter in replaced)
        yield Variant(window.contig, window.begin + column, ref, (ref[0] + text,))
