"""An AnnData as a source of batches: rows taken when asked for, dense only for the cells taken.

The count matrix of an experiment is sparse and often larger than memory, while a training step wants
a small dense array. `AnnDataDataset` keeps the matrix as it is (CSR in memory, or on disk when the
file was opened backed) and gives dense float32 rows of the cells that `take` names.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int, Shaped
from scipy import sparse

from diffbio.core.errors import (
    ConfigError,
    ContractError,
    DataError,
    MissingKeyError,
    listed,
    nearest,
)
from diffbio.io.singlecell.matrix import dense, find_matrix, in_memory, require_values, take_rows


class AnnDataDataset:
    """Cells of an AnnData as dense float32 rows with integer labels, for training and applying.

    `take` gives a dict with `key` (cells, genes) float32; `labels` (cells,) int32 if `labels` names a
    column; `batch_labels` (cells,) int32 if `batch` names one; and one float32 array per entry of `obsm`.
    A cell with no label, or with one that is not in `classes`, has the code -1. `metadata` holds what a
    later dataset needs to give the same columns and codes: pass its `genes`, `classes` and `batches`.

    Args:
        adata: The annotated matrix, in memory or backed. It is not changed. A CSC matrix in memory is
            converted to CSR once, which needs room for a second copy.
        key: The data key of the matrix: `counts` for raw counts, which must not be negative, or for
            instance `normalized`.
        layer: The layer to read; None reads `X`.
        use_raw: Read `adata.raw.X`, with the genes of `adata.raw`.
        labels: Column of `obs` with cell types (strings, categories, integers or booleans).
        batch: Column of `obs` with the batch of each cell.
        obsm: Data key to `obsm` key, such as `{"embeddings": "X_pca"}`.
        genes: Give exactly these columns in this order, as a trained pipeline needs. Genes that the file
            lacks are zeros, with a warning that counts them.
        classes: Fixed names of the label codes 0, 1, ...; by default those of the column, sorted or in
            the order of its categories.
        batches: Likewise for the batch codes.

    Raises:
        MissingKeyError: A layer, column or `obsm` key that is not there, or no `raw`.
        DataError: An empty matrix, duplicate gene names, a column that can't be used as labels, NaN or
            infinite values, negative counts, or fewer than half of `genes` present.
        ConfigError: Arguments that exclude each other.

    >>> from diffbio.io.singlecell import pbmc68k_reduced
    >>> cells = AnnDataDataset(pbmc68k_reduced(), key="normalized", labels="bulk_labels")
    >>> rows = cells.take(np.array([699, 0, 0]))
    >>> rows["normalized"].shape, rows["normalized"].dtype.name, rows["labels"]
    ((3, 765), 'float32', array([9, 5, 5], dtype=int32))
    >>> cells.metadata["classes"][5]
    'CD14+ Monocyte'
    """

    def __init__(
        self,
        adata: AnnData,
        *,
        key: str = "counts",
        layer: str | None = None,
        use_raw: bool = False,
        labels: str | None = None,
        batch: str | None = None,
        obsm: Mapping[str, str] | None = None,
        genes: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        batches: Sequence[str] | None = None,
    ) -> None:
        _require_distinct_keys(key, obsm or {})
        self._adata = adata
        self._key = key
        self._matrix, names = find_matrix(adata, layer, use_raw)
        self._source_columns, self._columns = _align(names, genes)
        self._genes = list(names) if genes is None else list(genes)

        coded = [("labels", labels, classes), ("batch_labels", batch, batches)]
        self._annotations: dict[str, np.ndarray] = {}
        coding: dict[str, list[str]] = {}
        for data_key, column, fixed in coded:
            if column is not None:
                codes, known = _codes(adata, column, fixed or None)  # [] was saved where none were asked for
                self._annotations[data_key], coding[data_key] = codes, known
            else:
                coding[data_key] = list(fixed or ())
        for data_key, name in (obsm or {}).items():
            self._annotations[data_key] = _obsm(adata, name)

        self._metadata = {
            "genes": self._genes,
            "classes": coding["labels"],
            "batches": coding["batch_labels"],
            "key": key,
            "layer": layer,
            "use_raw": use_raw,
        }
        self._check_values()

    @property
    def adata(self) -> AnnData:
        """The AnnData that the cells come from, as it was given or read."""
        return self._adata

    @property
    def metadata(self) -> dict[str, Any]:
        """JSON-able description: `genes`, `classes`, `batches` (lists of names), `key`, `layer`, `use_raw`."""
        return dict(self._metadata)

    def __len__(self) -> int:
        """Return the number of cells."""
        return self._matrix.shape[0]

    def take(self, indices: Int[np.ndarray, " cells"]) -> dict[str, Shaped[np.ndarray, "cells ..."]]:
        """Return the named arrays of these cells, in this order; an index may come more than once.

        Args:
            indices: Positions of cells (cells,), each from 0 to `len(self) - 1`.

        Returns:
            `key` (cells, genes) float32; `labels` and `batch_labels` (cells,) int32 where asked for;
            each `obsm` key (cells, d) float32. The arrays are the caller's own.

        Raises:
            ContractError: Indices that are not integers in one dimension, or out of range.
            DataError: Values on disk that are NaN, infinite or negative counts.

        >>> import anndata
        >>> cells = AnnDataDataset(anndata.AnnData(np.array([[0.0, 5.0], [2.0, 0.0]])))
        >>> cells.take(np.array([1, 0]))["counts"].tolist()
        [[2.0, 0.0], [0.0, 5.0]]
        """
        indices = _checked_indices(indices, len(self))
        rows = take_rows(self._matrix, indices)
        if not in_memory(self._matrix):
            require_values(rows, self._key, "in the cells taken")
        if self._columns is not None:
            aligned = np.zeros((len(indices), len(self._genes)), np.float32)
            aligned[:, self._columns] = rows[:, self._source_columns]
            rows = aligned
        return {self._key: rows} | {name: each[indices] for name, each in self._annotations.items()}

    def _check_values(self) -> None:
        """Refuse what can't be trained on: all of a matrix in memory, the first cells of one on disk."""
        first = take_rows(self._matrix, np.arange(min(len(self), 64)))
        if in_memory(self._matrix):
            values = self._matrix.data if sparse.issparse(self._matrix) else self._matrix
            require_values(values, self._key, "in the matrix")
        else:
            require_values(first, self._key, "in the first cells")
        if self._key == "counts" and not np.array_equal(first, np.rint(first)):
            warnings.warn(
                "the values read as 'counts' are not whole numbers, as if they were normalized already; "
                "read the raw counts with layer= or use_raw=True, or name them key='normalized'",
                UserWarning,
                stacklevel=3,
            )


def _align(names: pd.Index, genes: Sequence[str] | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Columns of the source and of the result that hold the same gene; None where nothing moves."""
    if genes is None or list(genes) == list(names):
        return None, None
    wanted = pd.Index(list(genes))
    if not wanted.is_unique:
        twice = wanted[wanted.duplicated()].unique()
        raise DataError(f"genes= names {listed(twice[:3])} more than once; each gene is one column")
    source = names.get_indexer(wanted)
    columns = np.flatnonzero(source >= 0)
    missing = wanted[source < 0]
    found = f"{len(columns)} of the {len(wanted)} genes asked for are in this AnnData"
    if 2 * len(columns) < len(wanted):
        raise DataError(
            f"only {found}; asked for {listed(wanted[:3])}, ..., there are {listed(names[:3])}, ...: "
            "are these the same species and the same kind of gene name (symbol or Ensembl id)?"
        )
    if len(missing):
        warnings.warn(
            f"{found}; the other {len(missing)} ({listed(missing[:3])}, ...) are read as zeros",
            UserWarning,
            stacklevel=4,
        )
    return source[columns], columns


def _codes(adata: AnnData, column: str, fixed: Sequence[str] | None) -> tuple[Int[np.ndarray, " cells"], list[str]]:
    """The code of each cell in a column of obs (-1 for none) and the names that the codes stand for."""
    if column not in adata.obs:
        columns = [str(name) for name in adata.obs]
        raise MissingKeyError(f"no column {column!r} in obs; its columns: {listed(columns)}{nearest(column, columns)}")
    values: Any = adata.obs[column]
    if pd.api.types.is_float_dtype(values):
        present = values.dropna()
        if not np.array_equal(present, present.round()):
            raise DataError(
                f"obs[{column!r}] holds measurements ({values.dtype}), not groups; "
                "name a column of categories, strings or integers"
            )
        values = values.astype("Int64")  # integers that became float because some are missing
    grouped = values.astype("category").cat.remove_unused_categories().cat
    present = [str(name) for name in grouped.categories]
    if not present and fixed is None:
        raise DataError(f"obs[{column!r}] has no value in any cell; name another column")
    names = present if fixed is None else [str(name) for name in fixed]
    code = pd.Index(names).get_indexer(present)
    own = grouped.codes.to_numpy()
    codes = np.full(len(own), -1, np.int32)
    codes[own >= 0] = code[own[own >= 0]]
    unknown = [name for name, known in zip(present, code, strict=True) if known < 0]
    if unknown:
        cells = int(((codes < 0) & (own >= 0)).sum())
        warnings.warn(
            f"{cells} cells have a value in obs[{column!r}] that is not one of the names given "
            f"({listed(unknown[:5])}); their code is -1",
            UserWarning,
            stacklevel=4,
        )
    return codes, names


def _obsm(adata: AnnData, name: str) -> Float[np.ndarray, "cells d"]:
    if name not in adata.obsm:
        there = list(adata.obsm)
        raise MissingKeyError(f"no {name!r} in obsm; there is: {listed(there)}{nearest(name, there)}")
    values = dense(adata.obsm[name])
    require_values(values, name, "in obsm")
    return values


def _require_distinct_keys(key: str, obsm: Mapping[str, str]) -> None:
    names = [key, "labels", "batch_labels", *obsm]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"the data key {listed(twice)} stands for two arrays; choose another name for one")


def _checked_indices(indices: np.ndarray, cells: int) -> np.ndarray:
    indices = np.asarray(indices)
    if indices.size == 0:
        return indices.astype(np.int64).reshape(0)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ContractError(
            f"indices are {indices.dtype} of shape {indices.shape}; integers in one dimension are needed "
            "(for a mask, np.flatnonzero(mask))"
        )
    if indices.min() < 0 or indices.max() >= cells:
        raise ContractError(
            f"indices from {indices.min()} to {indices.max()} were given; the dataset has the cells 0 to {cells - 1}"
        )
    return indices
