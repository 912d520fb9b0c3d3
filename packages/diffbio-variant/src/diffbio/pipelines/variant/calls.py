"""Calls: the sites of which a pipeline believes that they have their variant, as a VCF file."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffbio.core.errors import MissingKeyError, listed
from diffbio.io.reads.variant_writing import InfoField, write_variants
from diffbio.io.reads.variants import Genotype, called_genotype, genotype_order
from diffbio.pipelines.variant.sites import SiteDataset

_HIGHEST_QUALITY = 99
_LEAST = 1e-30
_INFO = {"VP": InfoField(1, "Float", "Probability that there is a variant")}


def write_calls(
    path: str | Path, dataset: SiteDataset, results: Mapping[str, np.ndarray], *, metadata: Mapping[str, Any]
) -> None:
    """Write the called sites as VCF or BCF, sorted, compressed and with an index as the suffix says.

    Args:
        path: Ends with `.vcf`, `.vcf.gz` or `.bcf`.
        dataset: The sites.
        results: `classifier_posteriors` (sites, genotypes) and `classifier_qualities` (sites,), or, if there are none,
            `call_posteriors` and `call_qualities`; optionally `call_log_likelihoods` (sites, genotypes) and
            `allele_depths` (sites, 2).
        metadata: What the run keeps; its recipe and the trained `parameters` that are numbers go into the header.

    Raises:
        MissingKeyError: No step gives posteriors.
        DataError: A site can't be written.
    """
    source = next((name for name in ("classifier", "call") if f"{name}_posteriors" in results), None)
    if source is None:
        raise MissingKeyError(
            f"the pipeline gives {listed(results)}, and calls are made of classifier_posteriors or call_posteriors; "
            "end it with HaplotypeGenotyping or PileupClassifier"
        )
    posteriors, qualities = results[f"{source}_posteriors"], results[f"{source}_qualities"]
    copies = posteriors.argmax(-1)
    depths = dataset.depths
    order = genotype_order(2, ploidy=posteriors.shape[-1] - 1)  # by copies of the variant
    called = []
    for row in np.flatnonzero(copies).tolist():
        genotype = Genotype(
            order[copies[row]],
            quality=min(round(float(qualities[row])), _HIGHEST_QUALITY),
            depth=int(depths[row]),
            allele_depths=_rounded(results.get("allele_depths"), row),
            likelihoods=_phred(results.get("call_log_likelihoods"), row),
        )
        absent = max(float(posteriors[row, 0]), _LEAST)
        called.append(
            dataset.variants[row]._replace(
                quality=-10 * np.log10(absent),
                filters=("PASS",),
                genotypes=(genotype,),
                info={"VP": 1 - float(posteriors[row, 0])},
            )
        )
    write_variants(
        path,
        called,
        contigs=dataset.contigs,
        samples=[dataset.sample],
        info=_INFO,
        source=f"diffbio-variant {importlib.metadata.version('diffbio-variant')}",
        parameters={
            "recipe": json.dumps(metadata.get("recipe", {})).replace('"', "'"),
            **{name.replace(".", "_"): f"{value:.6g}" for name, value in metadata.get("parameters", {}).items()},
        },
    )


def _rounded(values: np.ndarray | None, row: int) -> tuple[int, ...] | None:
    return None if values is None else tuple(int(count) for count in np.rint(values[row]))


def _phred(log_likelihoods: np.ndarray | None, row: int) -> tuple[int, ...] | None:
    """Return natural logarithms as VCF writes likelihoods, the best 0."""
    if log_likelihoods is None:
        return None
    of_row = log_likelihoods[row] / np.log(10)
    return called_genotype(of_row, n_alleles=2, ploidy=len(of_row) - 1).likelihoods
