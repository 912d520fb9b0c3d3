"""Plots: the figures of `diffbio.plots.singlecell`, drawn from the places of an AnnData.

Each function draws into `ax`, or into the axes of a new figure, and returns the axes; `ax.figure.savefig(...)` saves
them. Expression is read from `layer=`, else from `raw` if there, else from `X`, as in scanpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from matplotlib.axes import Axes

from diffbio.core.errors import ContractError, MissingKeyError, listed, nearest
from diffbio.io.singlecell.matrix import dense, find_matrix, in_memory, take_rows
from diffbio.plots.singlecell import confusion_plot, embedding_plot, feature_plot
from diffbio.plots.singlecell import dot_plot as _dot_plot
from diffbio.singlecell.places import found_in

__all__ = ["confusion_matrix", "dot_plot", "embedding"]


def embedding(
    adata: AnnData,
    basis: str,
    *,
    color: str,
    layer: str | None = None,
    use_raw: bool | None = None,
    on_data: bool = False,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw cells as points, coloured by a column of `obs` or by the expression of a gene.

    Args:
        adata: The cells.
        basis: The entry of `obsm` whose first two columns are drawn, such as `X_umap`; `umap` will do.
        color: A column of `obs`: categories, text and truth values in colours by name, numbers on a scale. Or a gene.
        layer: Where expression is read from.
        use_raw: Whether it is read from `raw`; by default if there is a `raw` and no `layer` is named.
        on_data: Write the names of categories beside their cells instead of in a legend.
        title: Text above; by default `color`.
        ax: Draw into these axes instead of those of a new figure.

    Raises:
        MissingKeyError: No such entry of `obsm`, or `color` is neither a column of `obs` nor a gene.
        ContractError: The embedding has one dimension, or there are more than 20 categories.

    Example:
        >>> from diffbio.io.singlecell import pbmc68k_reduced
        >>> embedding(pbmc68k_reduced(), "umap", color="bulk_labels").get_title()
        'bulk_labels'
    """
    name = f"X_{basis}" if basis not in adata.obsm and f"X_{basis}" in adata.obsm else basis
    coordinates = np.asarray(found_in(adata.obsm, name, "obsm", "basis"))
    if coordinates.ndim != 2 or coordinates.shape[1] < 2:
        raise ContractError(f"obsm[{name!r}] has the shape {coordinates.shape}; two dimensions are needed to draw it")
    coordinates, title = coordinates[:, :2], color if title is None else title
    if color not in adata.obs:
        values = _expression(adata, [color], layer, use_raw, "color")[:, 0]
        return feature_plot(coordinates, values, label="expression", title=title, ax=ax)
    column: Any = adata.obs[color]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return feature_plot(coordinates, column.to_numpy(float), label=color, title=title, ax=ax)
    codes, names = _codes(column)
    return embedding_plot(coordinates, codes, names=names, title=title, on_data=on_data, ax=ax)


def dot_plot(
    adata: AnnData,
    genes: str | Sequence[str],
    groupby: str,
    *,
    layer: str | None = None,
    use_raw: bool | None = None,
    scale_genes: bool = False,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw genes by groups of cells: colour is the mean expression, area the share of cells that express the gene.

    Args:
        adata: The cells.
        genes: Names of genes, from left to right.
        groupby: A column of `obs` with categories, or an entry of `obsm` with soft memberships, such as
            `cluster_assignments`, by which cells then weigh.
        layer: Where expression is read from; 0 is not expressed.
        use_raw: Whether it is read from `raw`; by default if there is a `raw` and no `layer` is named.
        scale_genes: Scale each gene's means to [0, 1] over the groups.
        title: Text above.
        ax: Draw into these axes instead of those of a new figure.

    Raises:
        MissingKeyError: No such gene, or `groupby` is in neither `obs` nor `obsm`.

    Example:
        >>> from diffbio.io.singlecell import pbmc68k_reduced
        >>> ax = dot_plot(pbmc68k_reduced(), ["CST3", "NKG7"], "bulk_labels")
        >>> [text.get_text() for text in ax.get_xticklabels()]
        ['CST3', 'NKG7']
    """
    genes = [genes] if isinstance(genes, str) else list(genes)
    if groupby in adata.obsm and groupby not in adata.obs:
        memberships: Any = adata.obsm[groupby]
        names = [str(name) for name in getattr(memberships, "columns", range(memberships.shape[1]))]
        groups = np.asarray(memberships)
    else:
        groups, names = _codes(found_in(adata.obs, groupby, "obs", "groupby"))
    expression = _expression(adata, genes, layer, use_raw, "genes")
    return _dot_plot(expression, groups, genes=genes, names=names, scale_genes=scale_genes, title=title, ax=ax)


def confusion_matrix(
    adata: AnnData, truth: str, predicted: str, *, title: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw which known types are taken for which: numbers are cells, colour is the share of the row.

    Args:
        adata: The cells.
        truth: Column of `obs` with known types; cells without one are left out.
        predicted: Column of `obs` with predicted types; cells without one are left out.
        title: Text above.
        ax: Draw into these axes instead of those of a new figure.

    Raises:
        MissingKeyError: No such column.
        ContractError: No cell has both, or the columns have no name in common.

    Example:
        >>> from diffbio.io.singlecell import pbmc68k_reduced
        >>> adata = pbmc68k_reduced()
        >>> confusion_matrix(adata, "bulk_labels", "bulk_labels").get_xlabel()
        'bulk_labels'
    """
    true_codes, names = _codes(found_in(adata.obs, truth, "obs", "truth"))
    other_codes, other_names = _codes(found_in(adata.obs, predicted, "obs", "predicted"))
    if not set(names) & set(other_names):
        raise ContractError(
            f"obs[{truth!r}] and obs[{predicted!r}] have no name in common ({listed(names[:3])}, ... and "
            f"{listed(other_names[:3])}, ...); name clusters by cell type first: adata.obs[{predicted!r}].map(...)"
        )
    names += [name for name in other_names if name not in names]
    place = np.array([names.index(name) for name in other_names], int)
    both = (true_codes >= 0) & (other_codes >= 0)
    return confusion_plot(
        true_codes[both],
        place[other_codes[both]],
        names,
        title=title,
        true_label=truth,
        predicted_label=predicted,
        ax=ax,
    )


def _codes(column: pd.Series) -> tuple[Int[np.ndarray, " cells"], list[str]]:
    """Return codes of categories, -1 for none, and the names of those that any cell has."""
    values = column.astype("category").cat.remove_unused_categories()
    return values.cat.codes.to_numpy(np.int32), [str(name) for name in values.cat.categories]


def _expression(
    adata: AnnData, genes: list[str], layer: str | None, use_raw: bool | None, argument: str
) -> Float[np.ndarray, "cells genes"]:
    if use_raw is None:
        use_raw = adata.raw is not None and layer is None
    matrix, names = find_matrix(adata, layer, use_raw)
    columns = names.get_indexer(genes)
    if (columns < 0).any():
        gene = genes[int(np.argmin(columns))]
        elsewhere = f"; columns of obs: {listed([str(name) for name in adata.obs])}" if argument == "color" else ""
        raise MissingKeyError(f"no gene {gene!r} among {len(names)}{nearest(gene, names)}{elsewhere}")
    if in_memory(matrix):
        return dense(matrix[:, columns])
    return take_rows(matrix, np.arange(adata.n_obs))[:, columns]
