"""Differentiating muscle cells that come with the package: a real time course, for examples and recipes."""

from __future__ import annotations

from importlib.resources import as_file, files

import anndata
from anndata import AnnData


def hsmm_myoblasts() -> AnnData:
    """Return 271 human skeletal muscle myoblasts x 1,000 genes, on their way to myotubes.

    `X` (271, 1000) is sparse float32: FPKM, abundances and not counts of molecules, above 0 in 87 % of the entries.
    `obs["hours"]` holds the time after the change of medium that starts differentiation (0, 24, 48 or 72),
    `obs["monocle_pseudotime"]` the order that Monocle gave. Genes are Ensembl ids, the most variable ones.

    Source: R package HSMMSingleCell 1.18.0 (Artistic-2.0, the text of which, with what was changed, lies beside the
    file), from Trapnell et al. 2014, "The dynamics and regulators of cell fate decisions are revealed by
    pseudotemporal ordering of single cells", Nature Biotechnology 32:381.

    Returns:
        A new AnnData in memory.

    >>> cells = hsmm_myoblasts()
    >>> cells.shape, cells.obs["hours"].value_counts(sort=False).to_dict()
    ((271, 1000), {'0': 69, '24': 74, '48': 79, '72': 49})
    """
    with as_file(files(__package__) / "data" / "hsmm_myoblasts.h5ad") as path:
        return anndata.read_h5ad(path)
