"""Variants as records: their normal form, splitting of alleles, and genotypes with their likelihoods.

One difference can be written in many ways. The normal form is the leftmost and shortest one: the alleles share no last
base unless one of them would be empty, and no first base beyond the one that VCF needs.

References:
    Tan et al., Unified representation of genetic variants, Bioinformatics 2015.
    The Variant Call Format Specification, version 4.3, section 1.6.2 (order of genotypes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations_with_replacement
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffbio.core.errors import DataError
from diffbio.io.reads.references import Reference
from diffbio.io.reads.regions import Region

_PLAIN = re.compile(r"[ACGTRYSWKMBDHVN]+", re.IGNORECASE)
_UNKNOWN = frozenset("RYSWKMBDHVN")
_BLOCK = 128  # bases that are fetched at once while an allele moves to the left
_HIGHEST_QUALITY = 99


class Genotype(NamedTuple):
    """What is said of one sample.

    Attributes:
        alleles: Number of each allele, 0 for the reference; `None` for one that is not known.
        phased: The order of the alleles is that of haplotypes.
        quality: Phred of the genotype (GQ).
        depth: Reads (DP).
        allele_depths: Reads of each allele, the reference first (AD).
        likelihoods: Phred of each genotype, the best 0, in the order of `genotype_order` (PL).
    """

    alleles: tuple[int | None, ...]
    phased: bool = False
    quality: float | None = None
    depth: int | None = None
    allele_depths: tuple[int, ...] | None = None
    likelihoods: tuple[int, ...] | None = None


class Variant(NamedTuple):
    """A line of VCF.

    Attributes:
        contig: Name of the sequence.
        position: Of the first base of `reference`, from 0.
        reference: Bases of the reference.
        alternatives: What stands in their place.
        quality: Phred of the claim that there is a variant.
        filters: What it failed, `PASS` if nothing; empty if no filter was applied.
        genotypes: Of each sample.
        identifier: Its name in a database.
        info: What else is said of it.
    """

    contig: str
    position: int
    reference: str
    alternatives: tuple[str, ...]
    quality: float | None = None
    filters: tuple[str, ...] = ()
    genotypes: tuple[Genotype, ...] = ()
    identifier: str = ""
    info: Mapping[str, Any] = MappingProxyType({})

    def __str__(self) -> str:
        """Return the variant for messages, its position from 1."""
        return f"{self.contig}:{self.position + 1} {self.reference}>{','.join(self.alternatives) or '.'}"

    @property
    def end(self) -> int:
        """The position after the last base of the reference."""
        return self.position + len(self.reference)


def is_symbolic(variant: Variant) -> bool:
    """Return whether an allele is not written out in bases: `<DEL>`, `*`, a breakend.

    Args:
        variant: The variant.

    Example:
        >>> is_symbolic(Variant("chr1", 0, "A", ("<DEL>",))), is_symbolic(Variant("chr1", 0, "A", ("G",)))
        (True, False)
    """
    return not all(_PLAIN.fullmatch(allele) for allele in (variant.reference, *variant.alternatives))


def normalized(variant: Variant, reference: Reference) -> Variant:
    """Return a variant in its normal form, leftmost and shortest.

    Args:
        variant: The variant. Several alternatives are moved together.
        reference: What it is a variant of.

    Returns:
        The variant, letters in upper case.

    Raises:
        DataError: An allele is not written out in bases or stands twice, or the reference has other bases there.

    Example:
        >>> normalized(Variant("chr1", 4, "CAC", ("C",)), reference)  # doctest: +SKIP
        Variant(contig='chr1', position=1, reference='GCA', alternatives=('G',), ...)
    """
    if is_symbolic(variant):
        raise DataError(f"{variant} has an allele that is not written out in bases, so it has no normal form; skip it")
    alleles = [allele.upper() for allele in (variant.reference, *variant.alternatives)]
    if len(set(alleles)) < len(alleles):
        raise DataError(f"{variant} names an allele twice; mend the record")
    _check_reference(variant, reference)
    position, before = variant.position, ""
    while len(alleles) > 1 and len({allele[-1] for allele in alleles}) == 1:
        if min(map(len, alleles)) == 1:
            if position == 0:
                break  # there is no base on the left to begin with
            if not before:
                before = reference.letters(Region(variant.contig, max(position - _BLOCK, 0), position)).upper()
            alleles = [before[-1] + allele for allele in alleles]
            position, before = position - 1, before[:-1]
        alleles = [allele[:-1] for allele in alleles]
    while len(alleles) > 1 and min(map(len, alleles)) > 1 and len({allele[0] for allele in alleles}) == 1:
        alleles = [allele[1:] for allele in alleles]
        position += 1
    return variant._replace(position=position, reference=alleles[0], alternatives=tuple(alleles[1:]))


def split_alleles(variant: Variant, numbers: Mapping[str, str] = MappingProxyType({})) -> Iterator[Variant]:
    """Give a variant of its own to each alternative.

    Args:
        variant: The variant.
        numbers: By field of `info`, `A` or `R` if it has a value for each alternative or allele.

    Yields:
        Variants with one alternative. In their genotypes the other alternatives count as the reference, as in
        `bcftools norm -m -`; depths and likelihoods are those of the two alleles.

    Example:
        >>> both = Variant("chr1", 9, "A", ("C", "AT"), genotypes=(Genotype((1, 2)),))
        >>> [(str(one), one.genotypes[0].alleles) for one in split_alleles(both)]
        [('chr1:10 A>C', (1, 0)), ('chr1:10 A>AT', (0, 1))]
    """
    n_alleles = len(variant.alternatives) + 1
    if n_alleles <= 2:
        yield variant
        return
    for number in range(1, n_alleles):
        genotypes = tuple(_of_allele(genotype, number, n_alleles) for genotype in variant.genotypes)
        chosen = {"A": (number - 1,), "R": (0, number)}
        info = {
            name: tuple(value[at] for at in chosen[numbers[name]]) if numbers.get(name) in chosen else value
            for name, value in variant.info.items()
        }
        yield variant._replace(alternatives=(variant.alternatives[number - 1],), genotypes=genotypes, info=info)


@cache
def genotype_order(n_alleles: int, ploidy: int = 2) -> tuple[tuple[int, ...], ...]:
    """Return all genotypes in the order in which VCF lists their likelihoods.

    Args:
        n_alleles: Alleles, the reference included.
        ploidy: Alleles of a genotype.

    Example:
        >>> genotype_order(3)
        ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))
        >>> genotype_order(3, ploidy=1)
        ((0,), (1,), (2,))
    """
    return tuple(sorted(combinations_with_replacement(range(n_alleles), ploidy), key=lambda genotype: genotype[::-1]))


def called_genotype(log10_likelihoods: ArrayLike, n_alleles: int, ploidy: int = 2) -> Genotype:
    """Return the best genotype, its quality and all likelihoods as VCF writes them.

    Args:
        log10_likelihoods: Of each genotype (genotypes,), in the order of `genotype_order`.
        n_alleles: Alleles, the reference included.
        ploidy: Alleles of a genotype.

    Returns:
        The genotype; `likelihoods` are -10 log10 of the ratio to the best one, rounded, and `quality` is the second
        smallest of them, at most 99.

    Raises:
        DataError: There is not one likelihood for each genotype, or one is NaN, or all are impossible.

    Example:
        >>> called_genotype([-9.1, -0.1, -4.0], n_alleles=2)
        Genotype(alleles=(0, 1), phased=False, quality=39, depth=None, allele_depths=None, likelihoods=(90, 0, 39))
    """
    genotypes = genotype_order(n_alleles, ploidy)
    values = np.asarray(log10_likelihoods, np.float64)
    if values.shape != (len(genotypes),):
        raise DataError(
            f"likelihoods have shape {values.shape}, and {n_alleles} alleles with ploidy {ploidy} make "
            f"{len(genotypes)} genotypes; give one for each, as genotype_order lists them"
        )
    if np.isnan(values).any() or not np.isfinite(values.max()):
        raise DataError(f"likelihoods are {values.tolist()}; give log10, none NaN and at least one above -infinity")
    phred = np.rint(np.minimum(-10 * (values - values.max()), np.iinfo(np.int32).max)).astype(int)
    quality = min(int(np.sort(phred)[1]), _HIGHEST_QUALITY) if len(phred) > 1 else _HIGHEST_QUALITY
    return Genotype(genotypes[int(values.argmax())], quality=quality, likelihoods=tuple(phred.tolist()))


def _of_allele(genotype: Genotype, number: int, n_alleles: int) -> Genotype:
    """Return a genotype in which only the reference and one alternative are told apart."""
    alleles = tuple(None if allele is None else int(allele == number) for allele in genotype.alleles)
    depths, likelihoods = genotype.allele_depths, genotype.likelihoods
    if depths is not None:
        depths = (depths[0], depths[number])
    if likelihoods is not None:
        order = genotype_order(n_alleles, len(genotype.alleles))
        pairs = zip(order, likelihoods, strict=True)
        likelihoods = tuple(likelihood for each, likelihood in pairs if set(each) <= {0, number})
    return genotype._replace(alleles=alleles, allele_depths=depths, likelihoods=likelihoods)


def _check_reference(variant: Variant, reference: Reference) -> None:
    """Refuse a variant of another reference; a base that either side does not know fits all."""
    try:
        letters = reference.letters(Region(variant.contig, variant.position, variant.end)).upper()
    except DataError as error:
        raise DataError(f"{variant}: {error}") from error
    pairs = zip(variant.reference.upper(), letters, strict=True)
    if any(one != other and not {one, other} & _UNKNOWN for one, other in pairs):
        there = letters if len(letters) <= 40 else f"{letters[:40]}..."
        raise DataError(
            f"{variant} is of another reference than {reference.path}, which has {there} there; give the FASTA file "
            "that it was called with"
        )
