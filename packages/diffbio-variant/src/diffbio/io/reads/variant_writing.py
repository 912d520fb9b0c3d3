"""Writing VCF and BCF files: sorted, compressed and with an index as the suffix says; pysam writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import pysam
from pysam import bcftools

from diffbio.core.errors import ConfigError, DataError, listed
from diffbio.io.reads.regions import check_contig
from diffbio.io.reads.variants import Genotype, Variant, genotype_order

_MODES = {".vcf": "w", ".vcf.gz": "wz", ".bcf": "wb"}
_ALLELE = re.compile(r"[ACGTN]+|\*")
_LARGEST_OF_TABIX = 1 << 29  # a contig beyond needs an index of the other kind


class InfoField(NamedTuple):
    """What a field of INFO holds, for the header.

    Attributes:
        number: How many values: a number, `A` one for each alternative, `R` for each allele, `G` for each genotype, `.`
            for any number; 0 for a flag.
        kind: Of the values.
        description: What they are, in a sentence.
    """

    number: int | Literal["A", "R", "G", "."]
    kind: Literal["Integer", "Float", "Flag", "String"]
    description: str


_FORMAT = {
    "GT": (1, "String", "Genotype"),
    "GQ": (1, "Integer", "Phred quality of the genotype"),
    "DP": (1, "Integer", "Reads"),
    "AD": ("R", "Integer", "Reads of each allele"),
    "PL": ("G", "Integer", "Phred likelihood of each genotype, the best 0"),
}


def write_variants(
    path: str | PathLike[str],
    variants: Iterable[Variant],
    *,
    contigs: Mapping[str, int],
    samples: Sequence[str] = (),
    info: Mapping[str, InfoField] = MappingProxyType({}),
    filters: Mapping[str, str] = MappingProxyType({}),
    source: str = "diffbio",
    parameters: Mapping[str, object] = MappingProxyType({}),
) -> int:
    """Write variants to a VCF or BCF file.

    Args:
        path: The file; it is replaced once all is written. Its suffix is `.vcf`, `.vcf.gz` (bgzip, with a tabix index
            .tbi, or .csi where a contig is longer than 2^29) or `.bcf` (with an index .csi).
        variants: In any order; all are held to be sorted.
        contigs: Names and lengths, in the order of the file, as of `Reference`.
        samples: Names, in the order of the genotypes of each variant.
        info: What each field of `Variant.info` holds.
        filters: What failing each filter means; `PASS` is known.
        source: The program that made the calls and its version, for the line `##source`.
        parameters: What it was run with; each becomes a line `##diffbio_NAME=VALUE`.

    Returns:
        How many variants were written.

    Raises:
        ConfigError: The suffix is another one, or a line of the header has a line break.
        DataError: A variant has a contig, allele, filter, field or genotype that the header or the alleles don't allow.
            The message says which; nothing is written.

    Example:
        >>> variant = Variant("chr1", 99, "A", ("G",), 50.0, ("PASS",), (Genotype((0, 1), quality=40),))
        >>> write_variants("calls.vcf.gz", [variant], contigs=reference.contigs, samples=["s1"])  # doctest: +SKIP
        1
    """
    path = Path(path)
    suffix = next((suffix for suffix in _MODES if path.name.endswith(suffix)), None)
    if suffix is None:
        raise ConfigError(f"{path} ends with none of {listed(_MODES)}; the suffix tells the format")
    header = _header(contigs=contigs, samples=samples, info=info, filters=filters, source=source, parameters=parameters)
    places = {contig: place for place, contig in enumerate(contigs)}
    ordered = list(variants)
    for variant in ordered:
        _check(variant, contigs, samples, info, filters)
    ordered.sort(key=lambda variant: (places[variant.contig], *variant[1:4]))
    partial = path.with_name(f".{path.name.removesuffix(suffix)}.partial{suffix}")
    try:
        with pysam.VariantFile(str(partial), _MODES[suffix], header=header) as file:
            for variant in ordered:
                file.write(_record(file, variant))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if suffix != ".vcf":
        for index in (".tbi", ".csi"):  # one of an earlier file would be taken for its own
            path.with_name(path.name + index).unlink(missing_ok=True)
        _write_index(path, csi=suffix == ".bcf" or max(contigs.values()) > _LARGEST_OF_TABIX)
    return len(ordered)


def _write_index(path: Path, *, csi: bool) -> None:
    bcftools.index("--force", "--csi" if csi else "--tbi", str(path), catch_stdout=False)


def _header(
    *,
    contigs: Mapping[str, int],
    samples: Sequence[str],
    info: Mapping[str, InfoField],
    filters: Mapping[str, str],
    source: str,
    parameters: Mapping[str, object],
) -> pysam.VariantHeader:
    """Return the header."""
    lines = {"source": source} | {f"diffbio_{name}": str(value) for name, value in parameters.items()}
    descriptions = [*(field.description for field in info.values()), *filters.values()]
    for text in (*lines, *lines.values(), *samples, *descriptions):
        if "\n" in text or "\r" in text or '"' in text:
            raise ConfigError(f"{text!r} can't stand in a header; leave out line breaks and quotation marks")
    header = pysam.VariantHeader()
    for name, value in lines.items():
        header.add_meta(name, value)
    for name, size in contigs.items():
        header.contigs.add(name, length=size)
    for name, description in filters.items():
        if name != "PASS":
            header.filters.add(name, None, None, description)
    for name, field in info.items():
        header.info.add(name, field.number, field.kind, field.description)
    if samples:
        for name, (number, kind, description) in _FORMAT.items():
            header.formats.add(name, number, kind, description)
    for sample in samples:
        header.add_sample(sample)
    return header


def _record(file: pysam.VariantFile, variant: Variant) -> pysam.VariantRecord:
    """Return a variant as pysam writes it."""
    record = file.new_record(
        contig=variant.contig,
        start=variant.position,
        stop=variant.end,
        alleles=(variant.reference, *variant.alternatives),
        id=variant.identifier or None,
        qual=variant.quality,
        filter=list(variant.filters) or None,
        info=dict(variant.info),
    )
    for sample, genotype in zip(record.samples.values(), variant.genotypes, strict=True):
        sample["GT"] = genotype.alleles
        sample.phased = genotype.phased
        fields = {
            "GQ": None if genotype.quality is None else round(genotype.quality),
            "DP": genotype.depth,
            "AD": genotype.allele_depths,
            "PL": genotype.likelihoods,
        }
        for name, value in fields.items():
            if value is not None:
                sample[name] = value
    return record


def _check(
    variant: Variant,
    contigs: Mapping[str, int],
    samples: Sequence[str],
    info: Mapping[str, InfoField],
    filters: Mapping[str, str],
) -> None:
    """Refuse a variant that the header or its own alleles don't allow."""
    check_contig(variant.contig, contigs, str(variant))
    size = contigs[variant.contig]
    if not 0 <= variant.position < variant.end <= size:
        raise DataError(f"{variant} is not within {variant.contig!r}, which has positions 1 to {size}")
    alleles = (variant.reference, *variant.alternatives)
    if not all(_ALLELE.fullmatch(allele) for allele in alleles) or len(set(alleles)) < len(alleles):
        raise DataError(f"{variant} has an allele twice, or one that is not of A, C, G, T, N; write each out once")
    if unknown := [name for name in variant.filters if name not in filters and name != "PASS"]:
        raise DataError(f"{variant} failed {listed(unknown)}, which filters does not describe; add it there")
    if unknown := [name for name in variant.info if name not in info]:
        raise DataError(f"{variant} has the field {listed(unknown)}, which info does not describe; add it there")
    if len(variant.genotypes) != len(samples):
        raise DataError(
            f"{variant} has {len(variant.genotypes)} genotypes for {len(samples)} samples; give one for each"
        )
    for genotype in variant.genotypes:
        _check_genotype(genotype, variant, len(alleles))


def _check_genotype(genotype: Genotype, variant: Variant, n_alleles: int) -> None:
    """Refuse a genotype that does not fit the alleles."""
    if not genotype.alleles or any(number is not None and not 0 <= number < n_alleles for number in genotype.alleles):
        raise DataError(f"{variant} has the genotype {genotype.alleles}, and alleles 0 to {n_alleles - 1}")
    wanted = {"allele_depths": n_alleles, "likelihoods": len(genotype_order(n_alleles, len(genotype.alleles)))}
    for name, number in wanted.items():
        given = getattr(genotype, name)
        if given is not None and len(given) != number:
            raise DataError(f"{variant} has {len(given)} {name} of a sample; its alleles and ploidy make {number}")
