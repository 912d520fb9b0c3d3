"""Where the arrays of an operator stand in an AnnData, by the conventions of scanpy.

| array | read from | written to |
|---|---|---|
| `counts` (cells, genes) | `layer=`, else `layers["counts"]` if there, else `X` | - |
| other (cells, genes) | `layer=`, else the layer of that name if there, else `X` | `layers[key]` |
| `embeddings` (cells, features) | `use_rep=`, else `obsm["X_pca"]` | `obsm["X_<name>"]` |
| coordinates of cells, an operator's first (cells, n) | `obsm[key]` | `obsm["X_<name>"]` |
| distributions (cells, clusters), (cells, classes) | `obsm[key]` | `obsm[key]`, and the likeliest in `obs[<name>]` |
| other (cells, n, ...) | `obsm[key]` | `obsm[key]` |
| `labels`, `batch_labels` (cells,) | `labels_key=`, `batch_key=`: columns of `obs` | - |
| (cells,) | `obs[key]` | `obs[key]` |
| (genes,) | `var[key]` | `var[key]` |
| `marker_genes` (classes, genes) | `uns[key]`: the names of the markers of each class, as a dict of lists | - |
| all else | `uns[key]` | `uns[<name>][key]` |

`<name>` is the name of the function, or `key_added`. The parameters of a call are in `uns[<name>]["params"]`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from diffbio.core.contract import Port
from diffbio.core.errors import DataError, MissingKeyError, listed, nearest
from diffbio.io.singlecell.matrix import find_matrix, in_memory, require_values, take_rows

KEYWORDS = {"embeddings": "use_rep", "labels": "labels_key", "batch_labels": "batch_key"}
"""Arguments that name a place, by data key; the only matrix of an operator has `layer`, others their own name."""

_DISTRIBUTIONS = ("clusters", "classes")


class Cells:
    """The arrays that an operator reads, as rows of an AnnData; a matrix stays sparse until rows are taken.

    Args:
        adata: The cells.
        ports: What the operator reads.
        given: By data key, the name of its place in the AnnData; None for the place by default, or, of an optional
            array, for none.

    Raises:
        MissingKeyError: A place that is named, or that a required array is read from by default, is not there.
        DataError: A matrix with NaN or infinite values, or counts below 0.
    """

    def __init__(self, adata: AnnData, ports: tuple[Port, ...], given: Mapping[str, str | None]) -> None:
        self._length = adata.n_obs
        places = places_of(ports)
        self._arrays: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {"genes": list(adata.var_names)}
        for port in ports:
            if port.optional and given[port.key] is None:
                continue
            self._arrays[port.key] = self._array(adata, port, given[port.key], places[port.key])

    def __len__(self) -> int:
        """Return the number of cells."""
        return self._length

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return dense arrays for these cells; what has no axis of cells is returned whole."""
        taken = {}
        for key, (array, per_cell, is_matrix) in self._arrays.items():
            taken[key] = take_rows(array, indices) if is_matrix else array[indices] if per_cell else array
        return taken

    def all(self) -> dict[str, np.ndarray]:
        """Return all cells."""
        return self.take(np.arange(len(self)))

    def _array(self, adata: AnnData, port: Port, named: str | None, argument: str) -> tuple[Any, bool, bool]:
        dims = _dims(port)
        if dims == ("cells", "genes"):
            layer = named if named is not None else port.key if port.key in adata.layers else None
            matrix, _ = find_matrix(adata, layer, use_raw=False)
            if in_memory(matrix):
                require_values(matrix.data if sparse.issparse(matrix) else matrix, port.key, "in the matrix")
            return matrix, True, True
        if port.key in ("labels", "batch_labels"):
            column = found_in(adata.obs, named or port.key.removesuffix("_labels"), "obs", argument)
            codes, names = pd.factorize(column, sort=True)
            self.metadata["classes" if port.key == "labels" else "batches"] = [str(name) for name in names]
            return codes.astype(np.int32), True, False
        if dims in (("cells",), ("genes",)):
            per_cell = dims == ("cells",)
            slot, of = (adata.obs, "obs") if per_cell else (adata.var, "var")
            return as_array(found_in(slot, named or port.key, of, argument), port), per_cell, False
        if dims == ("classes", "genes"):
            markers = found_in(adata.uns, named or port.key, "uns", argument)
            self.metadata["classes"] = [str(name) for name in markers]
            return marker_matrix(markers, adata.var_names), False, False
        if dims[:1] == ("cells",):
            name = named or ("X_pca" if port.key == "embeddings" else port.key)
            return as_array(found_in(adata.obsm, name, "obsm", argument), port), True, False
        return as_array(found_in(adata.uns, named or port.key, "uns", argument), port), False, False


def places_of(ports: tuple[Port, ...]) -> dict[str, str]:
    """Return by data key the name of the argument that says where it is read from."""
    matrices = [port.key for port in ports if _dims(port) == ("cells", "genes")]
    named = {port.key: KEYWORDS.get(port.key, port.key) for port in ports}
    return named | ({matrices[0]: "layer"} if len(matrices) == 1 else {})


def _dims(port: Port) -> tuple[str, ...]:
    return tuple(dim.lstrip("*") for dim in port.dims or ())


def found_in(slot: Any, name: str, of: str, argument: str) -> Any:
    """Return an entry of a slot of an AnnData.

    Raises:
        MissingKeyError: It is not there.
    """
    if name not in slot:
        there = [str(key) for key in slot]
        raise MissingKeyError(
            f"no {name!r} in {of}; there is: {listed(there)}{nearest(name, there)}. Name another with {argument}="
        )
    return slot[name]


def marker_matrix(markers: Mapping[str, Sequence[str]], genes: pd.Index) -> np.ndarray:
    """Return 1 where a class has a gene among its markers, else 0 (classes, genes).

    Args:
        markers: By class, the names of its markers; none for a class of all other cells.
        genes: Names of the genes of the data. Markers that are not among them are left out, with a warning.

    Raises:
        DataError: None of the markers of a class is among the genes.
    """
    absent = {name: [gene for gene in its_genes if gene not in genes] for name, its_genes in markers.items()}
    for name, unknown in absent.items():
        if unknown and len(unknown) == len(markers[name]):
            raise DataError(f"no marker of {name!r} is among the genes of the data: {listed(unknown)}; give others")
    if left_out := [gene for unknown in absent.values() for gene in unknown]:
        warnings.warn(f"markers that the data do not have are left out: {listed(left_out)}", stacklevel=2)
    return np.array([genes.isin(list(its_genes)) for its_genes in markers.values()], np.float32)


def as_array(values: Any, port: Port) -> np.ndarray:
    """Return the values in the dtype that the operator reads."""
    return np.asarray(values, np.int32 if port.kind() == "int" else np.float32)


def put(
    adata: AnnData, ports: tuple[Port, ...], results: Mapping[str, np.ndarray], name: str, classes: list[str]
) -> dict:
    """Write results to their places; see the table of this module.

    Args:
        adata: Changed in place.
        ports: What the operator writes.
        results: Its arrays, by data key.
        name: The name of the function, or `key_added`.
        classes: Names of the classes, where the operator was given labels.

    Returns:
        What has no place beside cells and genes, for `uns[name]`.
    """
    rest, has_coordinates = {}, False
    for port in ports:
        values = np.asarray(results[port.key])
        dims = _dims(port)
        if dims == ("cells", "genes") and values.shape == adata.shape:
            adata.layers[port.key] = values
        elif dims == ("cells",):
            adata.obs[port.key] = values
        elif dims == ("genes",):
            adata.var[port.key] = values
        elif dims[:1] == ("cells",):
            distribution = dims[1:] in {(dim,) for dim in _DISTRIBUTIONS}
            coordinates = not distribution and len(dims) == 2 and not has_coordinates
            has_coordinates |= coordinates
            adata.obsm[f"X_{name}" if coordinates else port.key] = values
            if distribution and np.all(values >= 0):
                adata.obs[name] = likeliest(values, classes if dims[1] == "classes" else [])
        else:
            rest[port.key] = values
    return rest


def likeliest(distributions: np.ndarray, names: list[str]) -> pd.Categorical:
    """Return the likeliest class of each row, by name."""
    names = names or [str(number) for number in range(distributions.shape[1])]
    return pd.Categorical.from_codes(distributions.argmax(axis=1), names)
