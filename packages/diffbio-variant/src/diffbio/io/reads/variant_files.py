"""Variants of VCF and BCF files, in and out; pysam reads and writes them.

References:
    Danecek et al., The variant call format and VCFtools, Bioinformatics 2011.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import pysam
from jaxtyping import Bool, Float, Int8, Int32

from diffbio.core.errors import ConfigError, DataError
from diffbio.io.reads.filters import Account
from diffbio.io.reads.references import Reference
from diffbio.io.reads.regions import Region, check_region, parse_region
from diffbio.io.reads.variants import Genotype, Variant, is_symbolic, normalized, split_alleles


class VariantTable(NamedTuple):
    """Variants as columns, sorted by contig, position and alleles.

    Attributes:
        contigs: Name of the contig of each variant.
        positions: Of the first base of the reference, from 0.
        references: Bases of the reference.
        alternatives: What stands in their place.
        qualities: Phred; NaN where it is not known.
        passed: No filter failed; true where none was applied.
        alleles: Number of each allele of each sample, 0 for the reference; -1 if not known, or beyond its ploidy.
        phased: The order of the alleles is that of haplotypes.
    """

    contigs: list[str]
    positions: Int32[np.ndarray, " variants"]
    references: list[str]
    alternatives: list[tuple[str, ...]]
    qualities: Float[np.ndarray, " variants"]
    passed: Bool[np.ndarray, " variants"]
    alleles: Int8[np.ndarray, "variants samples ploidy"]
    phased: Bool[np.ndarray, "variants samples"]


class VariantFile:
    """A VCF or BCF file, plain or compressed, read from its beginning or, with an index, by region.

    Attributes:
        path: The file.
        contigs: Names and lengths of the contigs of its header, in order; lengths of 0 where the header has none.
        samples: Names of its samples, in order.
        account: How many variants were seen, used and dropped since it was opened.

    Args:
        path: The file.
        reference: The FASTA file that variants were called with; where it is given, they are brought to their normal
            form, see `normalized`.
        symbolic: What happens to variants with an allele that is not written out in bases (`<DEL>`, `*`, breakends):
            `error`, `skip` (the account counts them) or, without a reference, `keep`.
        split: Give each alternative a variant of its own.

    Raises:
        DataError: The file is missing, empty, damaged, or neither VCF nor BCF.
        ConfigError: Variants can't be brought to a normal form and kept symbolic.

    Example:
        >>> truth = VariantFile("truth.vcf.gz", reference=reference, symbolic="skip")  # doctest: +SKIP
        >>> table = truth.table("chr20:1-1,000,000")  # doctest: +SKIP
        >>> print(truth.account)  # doctest: +SKIP
        1391 variants: 1388 used, 3 dropped as symbolic
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        reference: Reference | None = None,
        symbolic: Literal["error", "skip", "keep"] = "error",
        split: bool = False,
    ) -> None:
        if symbolic not in ("error", "skip", "keep"):
            raise ConfigError(f"symbolic is {symbolic!r}; give 'error', 'skip' or 'keep'")
        if symbolic == "keep" and reference is not None:
            raise ConfigError(
                "symbolic is 'keep', and such alleles have no normal form; leave out reference, or skip them"
            )
        self.path = Path(path)
        self.account = Account(what="variants")
        self._reference, self._symbolic, self._split = reference, symbolic, split
        with self._opened() as file:
            header = file.header
            self.contigs = MappingProxyType({str(name): each.length or 0 for name, each in header.contigs.items()})
            self.samples = tuple(header.samples)
            self._numbers = {name: str(field.number) for name, field in header.info.items()}

    def variants(self, region: Region | str | None = None) -> Iterator[Variant]:
        """Read the variants that overlap a region, or all.

        Args:
            region: A region, or its text as `parse_region` reads it; `None` for the whole file, which needs no index.

        Yields:
            Variants in the order of the file; the normal form may begin before that of the one before.

        Raises:
            DataError: The region is not there, there is no index, the file is damaged, a variant is of another
                reference, or has an allele that is not written out and `symbolic` is `error`.

        Example:
            >>> for variant in VariantFile("calls.vcf.gz").variants():  # doctest: +SKIP
            ...     print(variant, variant.genotypes[0].alleles)
            chr1:1042 A>G (0, 1)
        """
        with self._opened() as file:
            for record in self._records(file, region):
                variant = _variant(record)
                if is_symbolic(variant) and self._symbolic != "keep":
                    if self._symbolic == "error":
                        raise DataError(
                            f"{self.path}: {variant} has an allele that is not written out in bases; give "
                            "symbolic='skip' to count and skip such variants"
                        )
                    self.account.drop("symbolic")
                    continue
                if not variant.alternatives:
                    self.account.drop("without alternative")
                    continue
                self.account.use()
                for one in split_alleles(variant, self._numbers) if self._split else (variant,):
                    yield one if self._reference is None else self._normalized(one, self._reference)

    def table(self, region: Region | str | None = None) -> VariantTable:
        """Read the variants that overlap a region, or all, as columns.

        Args:
            region: As of `variants`.

        Returns:
            Sorted columns.

        Raises:
            DataError: As of `variants`.
        """
        places = {contig: place for place, contig in enumerate(self.contigs)}
        variants = sorted(self.variants(region), key=lambda variant: (places[variant.contig], *variant[1:4]))
        ploidy = max((len(each.alleles) for variant in variants for each in variant.genotypes), default=0)
        shape = len(variants), len(self.samples)
        alleles = np.full((*shape, ploidy), -1, np.int8)
        phased = np.zeros(shape, bool)
        for row, variant in enumerate(variants):
            for column, genotype in enumerate(variant.genotypes):
                known = [-1 if allele is None else allele for allele in genotype.alleles]
                alleles[row, column, : len(known)] = known
                phased[row, column] = genotype.phased
        return VariantTable(
            [variant.contig for variant in variants],
            np.array([variant.position for variant in variants], np.int32),
            [variant.reference for variant in variants],
            [variant.alternatives for variant in variants],
            np.array([np.nan if variant.quality is None else variant.quality for variant in variants], np.float32),
            np.array([variant.filters in ((), ("PASS",)) for variant in variants], bool),
            alleles,
            phased,
        )

    def _records(self, file: pysam.VariantFile, region: Region | str | None) -> Iterator[pysam.VariantRecord]:
        """Read records, with errors that say what to do."""
        last = "the header"
        try:
            if region is None:
                records = file.fetch()
            else:
                region = parse_region(region, self.contigs) if isinstance(region, str) else region
                check_region(region, {name: size or region.end for name, size in self.contigs.items()})
                if file.index is None:
                    raise DataError(
                        f"{self.path} has no index, which regions need; run `bcftools index {self.path}`, after "
                        "`bcftools sort -O z` if it is not sorted or not compressed by bgzip"
                    )
                records = file.fetch(*region)
            for record in records:
                last = f"{record.chrom}:{record.pos}"
                yield record
        except DataError:
            raise
        except (OSError, ValueError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.path} is malformed or cut short after {last} ({error}); check it by `bcftools view "
                f"{self.path}`, and write or copy it again"
            ) from error

    def _normalized(self, variant: Variant, reference: Reference) -> Variant:
        try:
            return normalized(variant, reference)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error

    @contextmanager
    def _opened(self) -> Iterator[pysam.VariantFile]:
        """Give a handle of its own to each stream."""
        if not self.path.is_file():
            raise DataError(f"{self.path} does not exist; give a VCF or BCF file")
        try:
            file = pysam.VariantFile(str(self.path))
        except RuntimeError as error:  # pysam looks for the end first, and gzip can't be entered there
            raise DataError(
                f"{self.path} is compressed by gzip and not by bgzip; run `gunzip {self.path}` and then `bgzip`"
            ) from error
        except (OSError, ValueError) as error:
            if "EOF marker" in str(error):
                raise DataError(f"{self.path} is cut short ({error}); write or copy it again") from error
            raise DataError(
                f"{self.path} can't be read as VCF or BCF ({error}); it is of another kind, empty or damaged: check it "
                f"by `bcftools view -h {self.path}`"
            ) from error
        try:
            yield file
        finally:
            with suppress(OSError):  # closing a damaged file fails too, and would hide the first error
                file.close()


def _variant(record: pysam.VariantRecord) -> Variant:
    """Return a record of pysam as ours."""
    return Variant(
        contig=record.chrom,
        position=record.start,
        reference=record.ref or "N",
        alternatives=tuple(record.alts or ()),
        quality=record.qual,
        filters=tuple(map(str, record.filter.keys())),
        genotypes=tuple(_genotype(sample) for sample in record.samples.values()),
        identifier=record.id or "",
        info=dict(record.info),
    )


def _genotype(sample: Any) -> Genotype:
    """Return a sample of pysam as ours; likelihoods in log10 (GL) become Phred (PL)."""
    likelihoods = _numbers(sample.get("PL"))
    if likelihoods is None and (log10 := _numbers(sample.get("GL"))) is not None:
        likelihoods = tuple(round(-10 * (value - max(log10))) for value in log10)
    alleles = tuple(sample.allele_indices or ())
    return Genotype(
        alleles,
        bool(sample.phased) and len(alleles) > 1,
        sample.get("GQ"),
        sample.get("DP"),
        _numbers(sample.get("AD")),
        likelihoods,
    )


def _numbers(values: Sequence | None) -> tuple | None:
    """Return a field of several numbers; `None` if one is missing."""
    return None if values is None or any(value is None for value in values) else tuple(values)
