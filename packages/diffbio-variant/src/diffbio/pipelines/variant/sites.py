"""Sites: candidates with the reads around them and both haplotypes, as arrays to train on and to call from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffbio.core.errors import ConfigError, DataError
from diffbio.io.reads.alignment_files import AlignmentFile
from diffbio.io.reads.columns import codes_of, one_hot
from diffbio.io.reads.filters import MPILEUP, ReadFilters
from diffbio.io.reads.references import Reference
from diffbio.io.reads.regions import Region
from diffbio.io.reads.variant_files import VariantFile
from diffbio.io.reads.variants import Variant
from diffbio.io.reads.windows import WindowBatch, read_windows
from diffbio.pipelines.variant.candidates import find_candidates

KINDS = ("SNV", "insertion", "deletion")
_OF_BASES = ("qualities", "base_weights", "base_positions", "insertions", "deletions")
_OF_READS = (
    "read_mask", "reverse_strand", "second_in_pair", "read_lengths", "read_offsets", "full_lengths",
    "mapping_qualities", "read_groups",
)  # fmt: skip
_ROWS_AT_ONCE = 64
_ROWS_OF_READS = 8  # their number is a multiple, so that few shapes arise
_COMPACT = {  # weights are 0 for one of two mates that overlap, else 1
    "qualities": np.uint8, "base_weights": np.uint8, "base_positions": np.int16, "insertions": np.int16,
    "deletions": np.int16,
}  # fmt: skip


class SiteDataset:
    """Sites as rows, each with the reads over a window around it.

    Letters are kept as codes, and become distributions when rows are taken.

    Attributes:
        variants: The candidates, in the order of the rows.
        contigs: Names and lengths of the contigs of the reads.
        sample: Name of the sample.
        metadata: What a run keeps of the data.
        rows_at_once: How many sites are a batch where they are only applied.
        too_long: Candidates that were left out because their gap is longer than `longest_gap`.
        crowded: Sites of which reads were left out because they have more than `max_reads`.

    Args:
        arrays: By data key; `codes`, `reference_codes` and `haplotype_codes` in place of letters.
        variants: The candidates.
        contigs: See above.
        sample: See above.
        metadata: See above.
        too_long: See above.
        crowded: See above.
    """

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        variants: Sequence[Variant],
        *,
        contigs: Mapping[str, int],
        sample: str,
        metadata: dict[str, Any],
        too_long: Sequence[Variant] = (),
        crowded: int = 0,
    ) -> None:
        self._arrays, self.variants, self.metadata = arrays, list(variants), metadata
        self.contigs, self.sample, self.rows_at_once = dict(contigs), sample, _ROWS_AT_ONCE
        self.too_long, self.crowded = list(too_long), crowded

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.variants)

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of some sites.

        Args:
            indices: Rows.
        """
        rows = {key: array[indices] for key, array in self._arrays.items()}
        rows["reads"] = one_hot(rows.pop("codes"))
        rows["reference"] = one_hot(rows.pop("reference_codes"))
        rows["haplotypes"] = one_hot(rows.pop("haplotype_codes"))
        wider = {np.dtype(np.uint8): np.float32, np.dtype(np.int16): np.int32}
        return {key: array.astype(wider.get(array.dtype, array.dtype)) for key, array in rows.items()}

    @property
    def depths(self) -> np.ndarray:
        """How many reads each site has."""
        return self._arrays["read_mask"].sum(-1)


def read_sites(
    path: str | Path,
    *,
    reference: str | Path,
    truth: str | Path | None = None,
    regions: Sequence[str] | None = None,
    min_reads: int = 2,
    min_share: float = 0.12,
    flank: int = 24,
    max_reads: int = 48,
    longest_gap: int = 16,
    missing_quality: int | None = None,
    filters: ReadFilters = MPILEUP,
) -> SiteDataset:
    """Read the candidates of aligned reads, with the reads around them.

    Args:
        path: A BAM or CRAM file with an index.
        reference: FASTA that the reads were aligned to.
        truth: VCF or BCF with the genotypes of all variants of the regions; gives `genotype`.
        regions: Such as `chr1:1-1000`; all contigs by default.
        min_reads: Reads that show a candidate.
        min_share: Of the reads of its position.
        flank: Columns of the window on each side of the site.
        max_reads: Rows of reads; of a site with more the ones evenly spaced by their begin are taken.
        longest_gap: Letters of the longest insertion or deletion; a candidate with a longer one is left out, and told.
        missing_quality: Phred of the bases of reads without qualities; by default such a read is an error.
        filters: Which reads are used.

    Returns:
        Sites: the keys of reads laid against windows, `haplotypes` (2, haplotype, 4), without and with the variant,
        `haplotype_lengths` (2,), `variant_kind` (3,), 1 at its place in `KINDS`, `known_variant` (window,), the columns
        of candidates, whose mismatches say nothing of qualities, and, with a truth, `genotype` (), copies of the
        variant.

    Raises:
        ConfigError: A size is out of range.
        DataError: A file can't be read, or the files don't fit each other.
    """
    if flank < longest_gap or max_reads < 1 or longest_gap < 1:
        raise ConfigError(
            f"flank is {flank}, longest_gap {longest_gap} and max_reads {max_reads}; the flank must hold the longest "
            "gap, and both others be at least 1"
        )
    fasta = Reference(reference)
    file = AlignmentFile(path, reference=fasta, missing_quality=missing_quality)
    found = find_candidates(file, fasta, regions, min_reads=min_reads, min_share=min_share, filters=filters)
    if not found:
        raise DataError(
            f"no position of {path} shows a difference from {reference} in {min_reads} reads; lower min_reads"
        )
    fit = [variant for variant in found if _gap(variant) <= longest_gap]
    sites = _SiteArrays(len(fit), window=2 * flank + 1, max_reads=max_reads, longest_gap=longest_gap)
    at: dict[tuple[str, int], list[int]] = {}
    for row, variant in enumerate(fit):
        at.setdefault((variant.contig, variant.position), []).append(row)
    columns: dict[str, set[int]] = {}
    for one in found:
        columns.setdefault(one.contig, set()).update(range(one.position, one.end))
    changed = {contig: np.array(sorted(of_contig)) for contig, of_contig in columns.items()}
    places = [Region(contig, position, position + 1) for contig, position in at]
    options = {"window": 2 * flank + 1, "margin": flank, "longest_whole": 0, "batch_size": 64, "filters": filters}
    for batch in read_windows(file, fasta, places, **options):
        for number, window in enumerate(batch.windows):
            for row in at[window.contig, window.own_begin]:
                sites.fill(row, batch, number, fit[row], flank)
                differing = changed[window.contig]
                near = differing[slice(*np.searchsorted(differing, (window.begin, window.end)))]
                sites.arrays["known_variant"][row, near - window.begin] = True
    arrays = sites.without_empty_rows()
    if truth is not None:
        arrays["genotype"] = genotypes_of(fit, VariantFile(truth, reference=fasta, split=True), regions)
    return SiteDataset(
        arrays,
        fit,
        contigs=file.contigs,
        sample=file.samples[0] if file.samples else "sample",
        metadata={"reads": Path(path).name, "read_groups": list(file.platform_units)},
        too_long=[variant for variant in found if _gap(variant) > longest_gap],
        crowded=sites.crowded,
    )


def genotypes_of(variants: Sequence[Variant], truth: VariantFile, regions: Iterable[str] | None = None) -> np.ndarray:
    """Return how many copies of each variant the first sample of a file has; of a file without samples all.

    Args:
        variants: In their normal form, with one alternative.
        truth: Opened with the reference and `split`, so that its variants are like those.
        regions: Where to look.
    """
    copies: dict[tuple[str, int, str, str], int] = {}
    for region in [None] if regions is None else regions:
        for one in truth.variants(region):
            alleles = one.genotypes[0].alleles if one.genotypes else (1, 1)
            copies[*one[:3], one.alternatives[0]] = sum(allele == 1 for allele in alleles)
    return np.array([copies.get((*one[:3], one.alternatives[0]), 0) for one in variants], np.int32)


def _gap(variant: Variant) -> int:
    """Return how many letters longer or shorter the alternative is."""
    return abs(len(variant.alternatives[0]) - len(variant.reference))


class _SiteArrays:
    """Arrays that are filled site by site."""

    def __init__(self, n_sites: int, *, window: int, max_reads: int, longest_gap: int) -> None:
        self.max_reads, self.n_positions, self.crowded = max_reads, window + longest_gap, 0
        bases = n_sites, max_reads, self.n_positions
        self.arrays: dict[str, np.ndarray] = {
            "codes": np.full(bases, -1, np.int8),
            "reference_codes": np.full((n_sites, window), -1, np.int8),
            "haplotype_codes": np.full((n_sites, 2, window + longest_gap), -1, np.int8),
            "haplotype_lengths": np.zeros((n_sites, 2), np.int32),
            "variant_kind": np.zeros((n_sites, len(KINDS)), np.float32),
            "known_variant": np.zeros((n_sites, window), bool),
        }
        self.arrays |= {key: np.zeros(bases, _COMPACT[key]) for key in _OF_BASES}
        self.arrays["base_positions"] -= 1
        for key in _OF_READS:
            kind = bool if key in ("read_mask", "reverse_strand", "second_in_pair") else np.int32
            self.arrays[key] = np.zeros(bases[:2], np.float32 if key == "mapping_qualities" else kind)

    def without_empty_rows(self) -> dict[str, np.ndarray]:
        """Return the arrays with as many rows of reads as the site that has most, up to a multiple of 8."""
        most = int(self.arrays["read_mask"].sum(-1).max(initial=1))
        rows = min(-(-most // _ROWS_OF_READS) * _ROWS_OF_READS, self.max_reads)
        return {
            key: array[:, :rows] if key in (*_OF_READS, *_OF_BASES, "codes") else array
            for key, array in self.arrays.items()
        }

    def fill(self, row: int, batch: WindowBatch, number: int, variant: Variant, flank: int) -> None:
        """Write one site."""
        given = {key: array[number] for key, array in batch.data.items()}
        n_reads = int(given["read_mask"].sum())
        self.crowded += n_reads > self.max_reads
        chosen = np.arange(n_reads)
        if n_reads > self.max_reads:
            chosen = np.linspace(0, n_reads - 1, self.max_reads).round().astype(int)
        rows, n_positions = slice(len(chosen)), min(self.n_positions, given["reads"].shape[1])
        for key in _OF_READS:
            self.arrays[key][row, rows] = given[key][chosen]
        for key in _OF_BASES:
            self.arrays[key][row, rows, :n_positions] = given[key][chosen, :n_positions]
        self.arrays["read_lengths"][row] = np.minimum(self.arrays["read_lengths"][row], self.n_positions)
        self.arrays["codes"][row, rows, :n_positions] = codes_of(given["reads"][chosen, :n_positions])
        reference = codes_of(given["reference"])
        self.arrays["reference_codes"][row] = reference
        alternative = ["ACGT".find(letter) for letter in variant.alternatives[0]]
        changed = np.concatenate([reference[:flank], alternative, reference[flank + len(variant.reference) :]])
        for haplotype, letters in enumerate((reference, changed)):
            size = min(len(letters), self.arrays["haplotype_codes"].shape[-1])
            self.arrays["haplotype_codes"][row, haplotype, :size] = letters[:size]
            self.arrays["haplotype_lengths"][row, haplotype] = size
        longer = len(variant.alternatives[0]) - len(variant.reference)
        self.arrays["variant_kind"][row, (longer > 0) + 2 * (longer < 0)] = 1
