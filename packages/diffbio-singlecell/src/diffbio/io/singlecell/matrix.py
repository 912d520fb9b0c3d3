"""The matrix of an AnnData, by rows: dense or CSR in memory, or on disk."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from jaxtyping import Float, Int
from scipy import sparse

from diffbio.core.errors import ConfigError, DataError, MissingKeyError, listed, nearest

type Matrix = Any
"""What rows are taken from: `np.ndarray` or scipy CSR in memory; `CSRDataset`, `h5py.Dataset` or
`zarr.Array` on disk. They have `shape` and rows by slice in common, but no type."""


def find_matrix(adata: AnnData, layer: str | None, use_raw: bool) -> tuple[Matrix, pd.Index]:
    """The matrix to read and the names of its columns."""
    if use_raw and layer is not None:
        raise ConfigError(f"layer={layer!r} and use_raw=True name two matrices; give one of them")
    if use_raw and adata.raw is None:
        raise MissingKeyError("use_raw=True, but this AnnData has no .raw; leave use_raw out")
    layers = [name for name in list(adata.layers.keys()) if name is not None]
    matrix: Any
    if use_raw:
        matrix, names = adata.raw.X, adata.raw.var_names
    elif layer is None:
        matrix, names = adata.X, adata.var_names
    elif layer in layers:
        matrix, names = adata.layers[layer], adata.var_names
    else:
        raise MissingKeyError(
            f"no layer {layer!r} in this AnnData; its layers: {listed(layers)}{nearest(layer, layers)}"
        )
    if matrix is None:
        raise DataError(f"this AnnData has no X; name one of its layers: {listed(layers)}")
    if 0 in matrix.shape:
        cells, genes = matrix.shape
        raise DataError(f"the matrix is empty: {cells} cells x {genes} genes; were all filtered out?")
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise DataError(
            f"{len(twice)} gene names are there more than once ({listed(twice[:3])}, ...); "
            "call adata.var_names_make_unique(), or use gene ids as var_names, and write the file again"
        )
    return _by_row(matrix), names


def _by_row(matrix: Any) -> Matrix:
    """The matrix in a form whose rows can be taken."""
    if isinstance(matrix, CSCDataset):
        raise DataError(
            "the matrix on disk is stored by gene (CSC), so cells can't be read without reading all of it; "
            "read it with backed=False, or write it once with adata.X = adata.X.tocsr()"
        )
    if sparse.issparse(matrix):
        return matrix.tocsr()
    if not isinstance(matrix, np.ndarray | CSRDataset | h5py.Dataset | zarr.Array):
        raise DataError(
            f"the matrix is a {type(matrix).__name__}; a numpy array or a scipy sparse matrix is needed: "
            "call adata.to_memory() first"
        )
    return matrix


def take_rows(matrix: Matrix, indices: Int[np.ndarray, " cells"]) -> Float[np.ndarray, "cells genes"]:
    """Dense float32 rows (cells, genes) in the order of `indices`, which may repeat."""
    if in_memory(matrix):
        return dense(matrix[indices])
    # A disk is read forward, each cell once, and neighbouring cells in one go.
    wanted, position = np.unique(indices, return_inverse=True)
    runs = _runs(wanted)
    if isinstance(matrix, CSRDataset) and 2 * len(runs) > len(wanted):
        rows = dense(matrix[wanted])  # scattered cells: anndata collects them faster than slice by slice
    else:
        rows = np.empty((len(wanted), matrix.shape[1]), np.float32)
        for start, stop in runs:
            rows[start:stop] = dense(matrix[int(wanted[start]) : int(wanted[stop - 1]) + 1])
    return rows if np.array_equal(wanted, indices) else rows[position]


def in_memory(matrix: Matrix) -> bool:
    """Whether the matrix is held in memory and not on disk."""
    return isinstance(matrix, np.ndarray) or sparse.issparse(matrix)


def dense(rows: Any) -> Float[np.ndarray, "cells genes"]:
    """Rows of any kind as a dense float32 array."""
    return (rows.toarray() if sparse.issparse(rows) else np.asarray(rows)).astype(np.float32, copy=False)


def _runs(wanted: np.ndarray) -> list[tuple[int, int]]:
    """Bounds of the runs of consecutive numbers in a sorted array."""
    breaks = np.flatnonzero(np.diff(wanted) > 1) + 1
    return list(pairwise([0, *breaks.tolist(), len(wanted)] if len(wanted) else []))


def require_values(values: np.ndarray, key: str, where: str) -> None:
    """Refuse NaN, infinity and, in counts, negative values."""
    if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
        raise DataError(f"the values of {key!r} {where} are {values.dtype}; numbers are needed")
    if not (finite := np.isfinite(values)).all():
        raise DataError(
            f"{finite.size - int(finite.sum())} values of {key!r} {where} are NaN or infinite; "
            "set them to zero or drop their cells or genes before reading"
        )
    if key == "counts" and values.size and values.min() < 0:
        raise DataError(
            f"{int((values < 0).sum())} values of 'counts' {where} are negative, as if they were scaled; "
            "read the raw counts with layer= or use_raw=True, or name them key='scaled'"
        )
