"""Single-cell files into datasets: AnnData (`.h5ad`, `.zarr`) and 10x Genomics (`.h5`, `.mtx` folders).

AnnData files are read by anndata; those of 10x by scanpy, which is an extra. Opened with `backed=True`,
the matrices of an AnnData file stay on disk and only the cells that are taken come into memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata
import h5py
import zarr
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset

from diffbio.core.errors import DataError, MissingExtraError
from diffbio.io.singlecell.dataset import AnnDataDataset

_KINDS = ".h5ad or .zarr (AnnData), .h5 (10x), or a folder with matrix.mtx or matrix.mtx.gz (10x)"


def read(
    path: str | PathLike[str],
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
    backed: bool = False,
) -> AnnDataDataset:
    """Read a single-cell file as a dataset of cells.

    Args:
        path: A `.h5ad` or `.zarr` of AnnData, a 10x `.h5`, a folder of 10x (`matrix.mtx.gz`,
            `features.tsv.gz`, `barcodes.tsv.gz`; Cell Ranger 2 and STARsolo, not compressed, too), or the
            `matrix.mtx` itself, whose name may have a prefix as those in GEO have.
        key: The data key of the matrix: `counts`, or for instance `normalized`.
        layer: The layer to read; None reads `X`.
        use_raw: Read `.raw.X`.
        labels: Column of `obs` with cell types, given as `labels`.
        batch: Column of `obs` with batches, given as `batch_labels`.
        obsm: Data key to `obsm` key, such as `{"embeddings": "X_pca"}`.
        genes: Give exactly these genes in this order; missing ones are zeros.
        classes: Fixed names of the label codes.
        batches: Fixed names of the batch codes.
        backed: Leave the matrices on disk (`.h5ad` and `.zarr`): memory then grows with the cells taken,
            not with the file. Values are checked as they are taken.

    Returns:
        The dataset; `AnnDataDataset` says what its arrays are. Repeated gene symbols in files of 10x are
        made unique by `-1`, `-2`, ...

    Raises:
        DataError: No such file, an unknown kind of file, one that can't be read, or values that can't
            be used (see `AnnDataDataset`).
        MissingKeyError: A layer, column or `obsm` key that is not there.
        MissingExtraError: A file of 10x without scanpy installed.

    To apply a trained pipeline to a new file, pass the `genes`, `classes` and `batches` of the metadata
    that it was trained with.

    >>> from importlib.resources import files
    >>> path = files("diffbio.io.singlecell") / "data" / "pbmc68k_reduced.h5ad"
    >>> cells = read(path, key="normalized", labels="bulk_labels", backed=True)
    >>> len(cells), len(cells.metadata["genes"]), len(cells.metadata["classes"])
    (700, 765, 10)
    """
    return AnnDataDataset(
        _open(Path(path), backed),
        key=key,
        layer=layer,
        use_raw=use_raw,
        labels=labels,
        batch=batch,
        obsm=obsm,
        genes=genes,
        classes=classes,
        batches=batches,
    )


def _open(path: Path, backed: bool) -> AnnData:
    """The AnnData in a file of any kind that we know."""
    if not path.exists():
        raise DataError(f"no file {str(path)!r}; is the path right?")
    is_anndata = path.suffix in (".h5ad", ".zarr")
    if backed and not is_anndata:
        raise DataError(
            f"backed=True needs a .h5ad or .zarr, {path.name!r} is neither; "
            "read it once into memory and write it with dataset.adata.write_h5ad(...)"
        )
    try:
        if is_anndata:
            return _lazy(path) if backed else _eager(path)
        if path.suffix == ".h5":
            return _tenx_h5(path)
        if path.is_dir() or path.name.endswith(("matrix.mtx", "matrix.mtx.gz")):
            return _tenx_mtx(path)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path.name!r} can't be read, is it damaged or of another kind? {error}") from error
    raise DataError(f"{path.name!r} is of an unknown kind; known are {_KINDS}")


def _eager(path: Path) -> AnnData:
    return anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)


def _lazy(path: Path) -> AnnData:
    """An AnnData whose matrices (X, layers, raw, obsp, varp) are on disk.

    `anndata.read_h5ad(backed="r")` leaves only X on disk and reads every layer.
    """
    store: Any = zarr.open_group(path, mode="r") if path.suffix == ".zarr" else h5py.File(path, "r")
    if not {"obs", "var"} <= set(store) or "encoding-type" not in store["obs"].attrs:
        raise DataError(
            f"{path.name!r} is not an AnnData file of version 0.7 or later; "
            "read it with backed=False, or write it again with a current anndata"
        )

    def on_disk(slot: str) -> dict[str, Any]:
        return {name: _on_disk(store[slot][name]) for name in store.get(slot, ())}

    def in_memory(slot: str) -> Any:
        return read_elem(store[slot]) if slot in store else None

    raw = None
    if "raw" in store:
        raw = {"X": _on_disk(store["raw/X"]), "var": in_memory("raw/var"), "varm": in_memory("raw/varm")}
    return AnnData(
        X=_on_disk(store["X"]) if "X" in store else None,
        obs=in_memory("obs"),
        var=in_memory("var"),
        uns=in_memory("uns"),
        obsm=in_memory("obsm"),
        varm=in_memory("varm"),
        layers=on_disk("layers"),
        obsp=on_disk("obsp"),
        varp=on_disk("varp"),
        raw=raw,
    )


def _on_disk(element: Any) -> Any:
    if element.attrs.get("encoding-type") in ("csr_matrix", "csc_matrix"):
        return sparse_dataset(element)
    return element if isinstance(element, h5py.Dataset | zarr.Array) else read_elem(element)


def _tenx_h5(path: Path) -> AnnData:
    with h5py.File(path, "r") as store:
        groups = [group for group in store.values() if isinstance(group, h5py.Group)]
        if not any("barcodes" in group for group in groups):
            raise DataError(
                f"{path.name!r} is not a 10x file: no group in it has 'barcodes'; "
                "if it is an AnnData, rename it to .h5ad"
            )
    with warnings.catch_warnings():
        # 10x names genes by symbol, and a few symbols stand for two genes; both are kept below.
        warnings.filterwarnings("ignore", message=".*names are not unique")
        adata = _scanpy(path).read_10x_h5(path)
    adata.var_names_make_unique()
    return adata


def _tenx_mtx(path: Path) -> AnnData:
    folder, prefix = (path, "") if path.is_dir() else (path.parent, path.name.partition("matrix.mtx")[0])
    if not any((folder / f"{prefix}matrix.mtx{end}").exists() for end in ("", ".gz")):
        raise DataError(f"no matrix.mtx or matrix.mtx.gz in the folder {path.name!r}; known are {_KINDS}")
    plain = {} if (folder / f"{prefix}matrix.mtx.gz").exists() else {"compressed": False}
    return _scanpy(path).read_10x_mtx(folder, prefix=prefix, **plain)


def _scanpy(path: Path) -> ModuleType:
    try:
        import scanpy
    except ImportError as error:
        raise MissingExtraError(
            f"scanpy reads files of 10x such as {path.name!r} and is not installed: "
            'pip install "diffbio-singlecell[scanpy]"'
        ) from error
    return scanpy
