"""Results back into AnnData: each array where scanpy and its friends look for one of its shape.

| result | place |
|---|---|
| `embeddings` (cells, d) | `obsm["X_diffbio"]` |
| other arrays (cells, d, ...) | `obsm["X_diffbio_<key>"]` |
| (cells,) | `obs["diffbio_<key>"]` |
| (cells, genes), the genes of the AnnData | `layers["diffbio_<key>"]` |
| (cells, genes), other genes | `obsm["X_diffbio_<key>"]`, gene names in `uns["diffbio"]["genes"]` |
| (genes,) | `var["diffbio_<key>"]`, NaN for genes that the pipeline did not see |
| `cell_type_probabilities` (cells, classes) | as above, and `obs["diffbio_cell_type"]`, `obs["diffbio_confidence"]` |
| all else (scalars, centroids, loadings) | `uns["diffbio"]["results"]["<key>"]` |
| provenance | `uns["diffbio"]`: `versions`, `keys` (names written, by slot), `recipe` (JSON), `classes` |

"Genes" are those of `metadata["genes"]`, or else those of the AnnData. `diffbio_cell_type` is the class of
the highest probability, which `diffbio_confidence` gives. Where a shape fits two rows, cells come first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Shaped

from diffbio.core.errors import ClobberedKeyError, ContractError, DataError
from diffbio.io.singlecell.dataset import AnnDataDataset

_ALIGNED = ("obsm", "varm", "layers", "obsp", "varp")
_DISTRIBUTIONS = ("diffbio-core", "diffbio-singlecell", "jax", "anndata")


class _Entry(NamedTuple):
    slot: str
    name: str
    value: Any


def add_results(
    adata: AnnData,
    results: Mapping[str, Shaped[np.ndarray, "..."]],
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write results and their provenance into an AnnData, under names that begin with `diffbio`.

    Nothing is written unless all can be. Results of an earlier call are replaced if they are written
    again and stay otherwise; anything else of that name is left alone and is an error.

    Args:
        adata: The cells that the results are of; changed in place.
        results: Data key to array, as a pipeline gives them; the table above says where each goes.
        metadata: What the dataset and the pipeline say: `classes` (names of the classes), `genes` (names
            of the genes that the pipeline saw; by default those of `adata`) and `recipe` (JSON-able).

    Raises:
        ClobberedKeyError: A name is in use for something that did not come from here.
        ContractError: Probabilities whose classes are not as many as `metadata["classes"]`, or whose
            cells are not those of `adata`.
        DataError: A key with `/`, a value that is not numbers, or a recipe that is not JSON-able.

    >>> from diffbio.io.singlecell import pbmc68k_reduced
    >>> cells = pbmc68k_reduced()
    >>> add_results(cells, {"embeddings": np.zeros((700, 2)), "pseudotime": np.linspace(0, 1, 700)})
    >>> "X_diffbio" in cells.obsm, "diffbio_pseudotime" in cells.obs
    (True, True)
    """
    metadata = metadata or {}
    genes = pd.Index(list(metadata.get("genes") or adata.var_names))
    classes = [str(name) for name in metadata.get("classes") or ()]
    entries = [
        entry for key, values in results.items() for entry in _place(key, _array(key, values), adata, genes, classes)
    ]
    provenance = _provenance(adata, entries, metadata, genes, classes)
    for slot, name, value in entries:
        if slot != "uns":
            getattr(adata, slot)[name] = value
    adata.uns["diffbio"] = provenance


def write(
    path: str | PathLike[str],
    dataset: AnnDataDataset,
    results: Mapping[str, Shaped[np.ndarray, "..."]],
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write the dataset's AnnData with results added as an `.h5ad`, all else in it kept.

    The file appears when it is complete, so writing over the file that was read is safe, and a backed
    matrix is copied from disk to disk one array at a time. `dataset.adata` itself is not changed.

    Args:
        path: The `.h5ad` to write; its folder must be there. An existing file is replaced.
        dataset: The cells that the results are of.
        results: Data key to array; see `add_results`.
        metadata: As for `add_results`; added to `dataset.metadata`.

    Raises:
        ClobberedKeyError: As `add_results` does.
        ContractError: As `add_results` does.
        DataError: As `add_results` does; or another suffix than `.h5ad`, or no such folder.

    >>> import tempfile
    >>> from diffbio.io.singlecell import AnnDataDataset, pbmc68k_reduced, read
    >>> cells = AnnDataDataset(pbmc68k_reduced(), key="normalized")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/out.h5ad", cells, {"pseudotime": np.linspace(0, 1, 700)})
    ...     read(f"{folder}/out.h5ad", key="normalized").adata.obs["diffbio_pseudotime"].iloc[-1]
    np.float64(1.0)
    """
    path = Path(path)
    if path.suffix != ".h5ad":
        raise DataError(f"{path.name!r} does not end with .h5ad, the format that results are written in")
    if not path.parent.is_dir():
        raise DataError(f"no folder {str(path.parent)!r} to write {path.name!r} into; create it first")
    adata = _shared_copy(dataset.adata)
    add_results(adata, results, metadata={**dataset.metadata, **(metadata or {})})
    partial = path.with_name(f".{path.name}.partial")
    try:
        adata.write_h5ad(partial, compression="gzip", convert_strings_to_categoricals=False)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _place(key: str, values: np.ndarray, adata: AnnData, genes: pd.Index, classes: list[str]) -> list[_Entry]:
    """Where the array of one key goes; see the table above."""
    cells = adata.n_obs
    same_genes = genes.equals(adata.var_names)
    if key == "cell_type_probabilities":
        return _cell_types(values, cells, classes)
    if values.shape == (cells,):
        return [_Entry("obs", f"diffbio_{key}", values)]
    if values.shape == adata.shape and same_genes and key != "embeddings":
        return [_Entry("layers", f"diffbio_{key}", values)]
    if values.shape[:1] == (cells,):
        return [_Entry("obsm", "X_diffbio" if key == "embeddings" else f"X_diffbio_{key}", values)]
    if values.shape == (len(genes),):
        by_name = values if same_genes else pd.Series(values, genes).reindex(adata.var_names).to_numpy()
        return [_Entry("var", f"diffbio_{key}", by_name)]
    return [_Entry("uns", key, values)]


def _cell_types(probabilities: np.ndarray, cells: int, classes: list[str]) -> list[_Entry]:
    columns = probabilities.shape[1] if probabilities.ndim == 2 else 0
    names = classes or [str(number) for number in range(columns)]
    if probabilities.shape != (cells, len(names)) or not names:
        raise ContractError(
            f"'cell_type_probabilities' has the shape {probabilities.shape}; a row for each of the {cells} "
            f"cells and a column for each class of metadata['classes'] ({len(classes)}) is needed"
        )
    best = probabilities.argmax(axis=1)
    return [
        _Entry("obsm", "X_diffbio_cell_type_probabilities", probabilities),
        _Entry("obs", "diffbio_cell_type", pd.Categorical.from_codes(best, names)),
        _Entry("obs", "diffbio_confidence", probabilities.max(axis=1)),
    ]


def _provenance(
    adata: AnnData,
    entries: list[_Entry],
    metadata: Mapping[str, Any],
    genes: pd.Index,
    classes: list[str],
) -> dict[str, Any]:
    """The content of `uns["diffbio"]`; refuses names that are in use by others."""
    earlier = adata.uns.get("diffbio", {"keys": {}, "results": {}})
    if not isinstance(earlier, Mapping) or "keys" not in earlier:
        raise ClobberedKeyError("uns['diffbio'] is there and not written by diffbio; rename it first")
    keys = {slot: [str(name) for name in names] for slot, names in earlier["keys"].items()}
    written: set[tuple[str, str]] = set()
    for slot, name, _ in entries:
        if slot == "uns":
            continue
        if (slot, name) in written:
            raise ClobberedKeyError(
                f"two results would be written to {slot}[{name!r}]; rebind one of their keys with .writes()"
            )
        if name in getattr(adata, slot) and name not in keys.get(slot, ()):
            raise ClobberedKeyError(
                f"{slot}[{name!r}] is there and was not written by diffbio; rename or remove it first"
            )
        written.add((slot, name))
    for slot, name in sorted(written):
        keys[slot] = sorted({*keys.get(slot, ()), name})
    provenance = {
        "versions": {name: version(name) for name in _DISTRIBUTIONS},
        "keys": {slot: np.array(names, dtype=object) for slot, names in keys.items()},
        "results": dict(earlier.get("results", {})) | {name: value for slot, name, value in entries if slot == "uns"},
    }
    if "recipe" in metadata:
        provenance["recipe"] = _json(metadata["recipe"])
    if classes:
        provenance["classes"] = np.array(classes, dtype=object)
    if not genes.equals(adata.var_names):
        provenance["genes"] = genes.to_numpy(dtype=object)
    return provenance


def _array(key: str, values: Any) -> np.ndarray:
    if "/" in key:
        raise DataError(f"the key {key!r} has a '/', which HDF5 keeps for paths; rename it")
    array = np.asarray(values)
    if array.dtype.kind not in "biufcU":
        raise DataError(f"the result {key!r} is a {type(values).__name__}, not an array of numbers")
    return array


def _json(recipe: Any) -> str:
    if isinstance(recipe, str):
        return recipe
    try:
        return json.dumps(recipe)
    except (TypeError, ValueError) as error:
        raise DataError(f"metadata['recipe'] can't be written as JSON: {error}") from error


def _shared_copy(adata: AnnData) -> AnnData:
    """A new AnnData that shares the arrays, in memory or on disk, but not the tables that hold them."""
    parts: dict[str, Any] = {name: dict(getattr(adata, name)) for name in ("uns", *_ALIGNED)}
    parts["layers"].pop(None, None)  # where anndata 0.13 lists X
    raw: Any = adata.raw
    if raw is not None:
        parts["raw"] = {"X": raw.X, "var": raw.var, "varm": dict(raw.varm)}
    return AnnData(X=adata.X, obs=_storable(adata.obs), var=_storable(adata.var), **parts)


def _storable(table: Any) -> pd.DataFrame:
    """A copy in which strings with gaps that pandas holds as objects, unknown to HDF5, are categories."""
    objects = [name for name in table if table[name].dtype == object and table[name].hasnans]
    return table.astype(dict.fromkeys(objects, "category"))
