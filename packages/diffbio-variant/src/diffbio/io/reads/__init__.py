"""Aligned reads, references and variants: files in and out."""

from diffbio.io.reads.aligned_reads import AlignedReads
from diffbio.io.reads.alignment_files import AlignmentFile
from diffbio.io.reads.filters import MPILEUP, Account, Flags, ReadFilters
from diffbio.io.reads.references import Reference
from diffbio.io.reads.regions import Region, Window, merged, parse_region, read_bed, tiled
from diffbio.io.reads.variant_files import VariantFile, VariantTable
from diffbio.io.reads.variant_writing import InfoField, write_variants
from diffbio.io.reads.variants import Genotype, Variant, called_genotype, genotype_order, normalized, split_alleles
from diffbio.io.reads.windows import WindowBatch, read_windows

__all__ = [
    "MPILEUP",
    "Account",
    "AlignedReads",
    "AlignmentFile",
    "Flags",
    "Genotype",
    "InfoField",
    "ReadFilters",
    "Reference",
    "Region",
    "Variant",
    "VariantFile",
    "VariantTable",
    "Window",
    "WindowBatch",
    "called_genotype",
    "genotype_order",
    "merged",
    "normalized",
    "parse_region",
    "read_bed",
    "read_windows",
    "split_alleles",
    "tiled",
    "write_variants",
]
