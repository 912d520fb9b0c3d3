"""Real cells that come with the package, for examples, tests and a first look."""

from __future__ import annotations

from importlib.resources import as_file, files

import anndata
from anndata import AnnData


def pbmc68k_reduced() -> AnnData:
    """Return 700 peripheral blood cells x 765 genes, log-normalized, with ten cell types.

    `X` (700, 765) is sparse float32: log(1 + counts scaled per cell), not raw counts, so read it as
    `normalized`. `obs["bulk_labels"]` holds the cell type given by correlation with sorted bulk profiles,
    very uneven (240 dendritic cells, 8 naive T cells); `obs["phase"]` the cell-cycle phase;
    `obsm["X_umap"]` (700, 2) a UMAP.

    Source: `scanpy.datasets.pbmc68k_reduced()` of scanpy 1.12.4 (BSD-3-Clause, the text of which lies
    beside the file), a subset of "Fresh 68k PBMCs (Donor A)" of 10x Genomics, from Zheng et al. 2017,
    "Massively parallel digital transcriptional profiling of single cells", Nature Communications 8:14049.
    Changed here: `X` is what scanpy's file has as `raw.X` (its `X` is scaled); `X_umap` is float32; other
    columns, embeddings and graphs are left out.

    Returns:
        A new AnnData in memory.

    >>> cells = pbmc68k_reduced()
    >>> cells.shape, cells.obs["bulk_labels"].nunique()
    ((700, 765), 10)
    """
    with as_file(files(__package__) / "data" / "pbmc68k_reduced.h5ad") as path:
        return anndata.read_h5ad(path)
