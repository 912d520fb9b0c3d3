"""Reading real files of each kind: the same cells by each road, in the order asked for, in little memory."""

import gzip
import json
import re
import sys
import tracemalloc
import warnings
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from diffbio.core.errors import (
    ConfigError,
    ContractError,
    DataError,
    DiffbioError,
    MissingExtraError,
    MissingKeyError,
)
from diffbio.io.singlecell import AnnDataDataset, read

CELLS, GENES = 60, 25
ORDER = np.array([59, 3, 4, 5, 3, 0, 17, 59])  # out of order, with neighbours and with repeats


def raw_counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.poisson(2.0, (CELLS, GENES)) * rng.integers(0, 2, (CELLS, GENES))).astype(np.float32)


def experiment(kind: str = "csr") -> anndata.AnnData:
    counts = raw_counts()
    wrap = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[kind]
    types = pd.Series(["T", "B", "NK"] * (CELLS // 3), dtype="object")
    types.iloc[4] = None
    adata = anndata.AnnData(
        wrap(counts),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical(types), "donor": np.repeat([7, 11], CELLS // 2)},
            index=[f"cell{i}" for i in range(CELLS)],
        ),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(GENES)]),
        layers={"doubled": wrap(2 * counts)},
        obsm={"X_pca": np.arange(CELLS * 2.0).reshape(CELLS, 2)},
    )
    adata.obs["depth"] = counts.sum(axis=1) + 0.5
    adata.raw = adata.copy()
    return adata[:, :20].copy()


@pytest.fixture(params=["dense", "csr"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def saved(folder: Path, adata: anndata.AnnData, suffix: str = ".h5ad") -> Path:
    path = folder / f"cells{suffix}"
    if suffix == ".zarr":
        adata.write_zarr(path)
    else:
        adata.write_h5ad(path)
    return path


# Same cells by each road


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("where", [{}, {"layer": "doubled"}, {"use_raw": True}], ids=["X", "layer", "raw"])
def test_rows_come_as_asked_for(tmp_path: Path, kind: str, suffix: str, backed: bool, where: dict) -> None:
    path = saved(tmp_path, experiment(kind), suffix)
    cells = read(path, labels="cell_type", batch="donor", obsm={"embeddings": "X_pca"}, backed=backed, **where)
    truth = raw_counts() if "use_raw" in where else raw_counts()[:, :20] * (2 if where else 1)
    rows = cells.take(ORDER)
    assert {key: (value.dtype.name, value.shape) for key, value in rows.items()} == {
        "counts": ("float32", (8, truth.shape[1])),
        "labels": ("int32", (8,)),
        "batch_labels": ("int32", (8,)),
        "embeddings": ("float32", (8, 2)),
    }
    np.testing.assert_array_equal(rows["counts"], truth[ORDER])
    span = np.arange(40, 5, -1)  # neighbours, which are read in one go
    np.testing.assert_array_equal(cells.take(span)["counts"], truth[span])
    classes = ["B", "NK", "T"]
    names = ["T", "B", "NK"] * 20
    names[4] = None
    wanted = [classes.index(names[i]) if names[i] else -1 for i in ORDER]
    np.testing.assert_array_equal(rows["labels"], wanted)
    np.testing.assert_array_equal(rows["batch_labels"], (ORDER >= 30).astype(int))
    np.testing.assert_array_equal(rows["embeddings"], np.stack([2.0 * ORDER, 2.0 * ORDER + 1], axis=1))
    assert len(cells) == CELLS
    assert cells.metadata["classes"] == classes
    assert cells.metadata["batches"] == ["7", "11"]
    assert cells.metadata["genes"] == [f"gene{i}" for i in range(truth.shape[1])]
    assert json.loads(json.dumps(cells.metadata)) == cells.metadata


def test_csc_in_memory_is_read_by_row_and_left_as_it_is() -> None:
    adata = experiment("csc")
    cells = AnnDataDataset(adata)
    np.testing.assert_array_equal(cells.take(ORDER)["counts"], raw_counts()[ORDER, :20])
    assert cells.adata is adata
    assert adata.X.format == "csc"


def test_anndata_opened_backed_by_anndata_itself_works(tmp_path: Path, kind: str) -> None:
    cells = AnnDataDataset(anndata.read_h5ad(saved(tmp_path, experiment(kind)), backed="r"))
    np.testing.assert_array_equal(cells.take(ORDER)["counts"], raw_counts()[ORDER, :20])


def test_a_view_of_an_anndata_works(kind: str) -> None:
    cells = AnnDataDataset(experiment(kind)[10:20])
    np.testing.assert_array_equal(cells.take(np.array([9, 0]))["counts"], raw_counts()[[19, 10], :20])


@pytest.mark.parametrize("backed", [False, True])
def test_no_cells_give_no_rows(tmp_path: Path, kind: str, backed: bool) -> None:
    cells = read(saved(tmp_path, experiment(kind)), labels="cell_type", backed=backed)
    rows = cells.take(np.array([], dtype=int))
    assert rows["counts"].shape == (0, 20)
    assert rows["labels"].shape == (0,)


def test_rows_taken_belong_to_the_caller(kind: str) -> None:
    cells = AnnDataDataset(experiment(kind), labels="cell_type")
    taken = cells.take(np.arange(CELLS))
    for array in taken.values():
        array[:] = 99
    np.testing.assert_array_equal(cells.take(np.arange(CELLS))["counts"], raw_counts()[:, :20])
    assert cells.take(np.arange(CELLS))["labels"].max() == 2


@pytest.mark.parametrize("dtype", ["int32", "uint16", "float64"])
def test_any_number_type_comes_as_float32(dtype: str) -> None:
    rows = AnnDataDataset(anndata.AnnData(raw_counts().astype(dtype))).take(ORDER)["counts"]
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, raw_counts()[ORDER])


@pytest.mark.parametrize("where", [{}, {"layer": "counts"}], ids=["X", "layer"])
def test_memory_of_a_backed_file_grows_with_the_cells_taken(tmp_path: Path, where: dict) -> None:
    cells, genes = 20_000, 1_000
    matrix = sparse.random(cells, genes, 0.1, format="csr", dtype=np.float32, random_state=0)
    matrix.data[:] = np.ceil(8 * matrix.data)
    adata = anndata.AnnData(matrix, layers={"counts": matrix})
    path = saved(tmp_path, adata)
    whole = matrix.data.nbytes + matrix.indices.nbytes
    batch = 256 * genes * 4
    chosen = np.random.default_rng(0).integers(0, cells, (4, 256))
    tracemalloc.start()
    dataset = read(path, backed=True, **where)
    opened = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    for indices in chosen:
        taken = dataset.take(indices)["counts"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(taken, matrix[chosen[-1]].toarray())
    print(
        f"file {whole / 1e6:.1f} MB, open {opened / 1e6:.1f} MB, peak {peak / 1e6:.1f} MB, batch {batch / 1e6:.1f} MB"
    )
    assert peak < 4 * batch + cells * 200  # a few copies of the batch and the cell names


# 10x Genomics, in the layout of Cell Ranger 3


def tenx_genes() -> tuple[list[str], list[str]]:
    symbols = [f"GENE{i}" for i in range(GENES)]
    symbols[7] = symbols[3]  # as TBCE and others in GRCh38
    return [f"ENSG{i:011d}" for i in range(GENES)], symbols


def barcodes() -> list[str]:
    letters = np.array(list("ACGT"))
    return ["".join(letters[np.random.default_rng(i).integers(0, 4, 16)]) + "-1" for i in range(CELLS)]


def write_tenx_h5(path: Path) -> None:
    ids, symbols = tenx_genes()
    matrix = sparse.csc_matrix(raw_counts().T.astype(np.int32))  # genes x cells
    with h5py.File(path, "w") as store:
        group = store.create_group("matrix")
        group["barcodes"] = np.array(barcodes(), dtype="S")
        group["data"], group["indices"] = matrix.data, matrix.indices.astype(np.int64)
        group["indptr"] = matrix.indptr.astype(np.int64)
        group["shape"] = np.array(matrix.shape, dtype=np.int32)
        features = group.create_group("features")
        features["id"], features["name"] = np.array(ids, dtype="S"), np.array(symbols, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * GENES, dtype="S")
        features["genome"] = np.array(["GRCh38"] * GENES, dtype="S")
        features["_all_tag_keys"] = np.array(["genome"], dtype="S")


def write_tenx_folder(folder: Path, *, packed: bool = True, legacy: bool = False, prefix: str = "") -> None:
    folder.mkdir()
    ids, symbols = tenx_genes()
    rows = zip(ids, symbols, strict=True)
    kind = "" if legacy else "\tGene Expression"
    texts = {
        "genes.tsv" if legacy else "features.tsv": "".join(f"{i}\t{s}{kind}\n" for i, s in rows),
        "barcodes.tsv": "".join(f"{name}\n" for name in barcodes()),
    }
    io.mmwrite(folder / "m.mtx", sparse.coo_matrix(raw_counts().T.astype(int)), field="integer")
    texts["matrix.mtx"] = (folder / "m.mtx").read_text()
    (folder / "m.mtx").unlink()
    for name, text in texts.items():
        if packed:
            (folder / f"{prefix}{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / f"{prefix}{name}").write_text(text)


def check_tenx(cells: AnnDataDataset) -> None:
    np.testing.assert_array_equal(cells.take(ORDER)["counts"], raw_counts()[ORDER])
    assert list(cells.adata.obs_names) == barcodes()
    ids, symbols = tenx_genes()
    symbols[7] += "-1"
    assert cells.metadata["genes"] == symbols
    assert list(cells.adata.var["gene_ids"]) == ids


def test_tenx_h5(tmp_path: Path) -> None:
    pytest.importorskip("scanpy")
    write_tenx_h5(tmp_path / "filtered_feature_bc_matrix.h5")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not unique")
        check_tenx(read(tmp_path / "filtered_feature_bc_matrix.h5"))


@pytest.mark.parametrize(
    "layout",
    [{}, {"packed": False}, {"packed": False, "legacy": True}],
    ids=["v3", "starsolo", "v2"],
)
def test_tenx_folder(tmp_path: Path, layout: dict) -> None:
    pytest.importorskip("scanpy")
    write_tenx_folder(tmp_path / "matrix", **layout)
    check_tenx(read(tmp_path / "matrix"))


def test_tenx_matrix_with_the_prefix_of_geo(tmp_path: Path) -> None:
    pytest.importorskip("scanpy")
    write_tenx_folder(tmp_path / "geo", prefix="GSM42_")
    check_tenx(read(tmp_path / "geo" / "GSM42_matrix.mtx.gz"))


@pytest.mark.parametrize("name", ["cells.h5", "folder"])
def test_tenx_without_scanpy_names_the_extra(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scanpy", None)
    if name == "folder":
        write_tenx_folder(tmp_path / name)
    else:
        write_tenx_h5(tmp_path / name)
    with pytest.raises(MissingExtraError, match=re.escape('pip install "diffbio-singlecell[scanpy]"')):
        read(tmp_path / name)


# A trained pipeline meets a new file


@pytest.mark.parametrize("backed", [False, True])
def test_columns_follow_a_saved_gene_list(tmp_path: Path, kind: str, backed: bool) -> None:
    path = saved(tmp_path, experiment(kind))
    genes = ["gene9", "new1", "gene2", "gene5", "new2"]
    with pytest.warns(UserWarning, match=r"3 of the 5 genes .* the other 2 \('new1', 'new2', ...\) are read"):
        cells = read(path, genes=genes, backed=backed)
    truth = np.zeros((8, 5))
    truth[:, [0, 2, 3]] = raw_counts()[ORDER][:, [9, 2, 5]]
    np.testing.assert_array_equal(cells.take(ORDER)["counts"], truth)
    assert cells.metadata["genes"] == genes


def test_a_gene_list_that_is_all_there_warns_of_nothing() -> None:
    genes = [f"gene{i}" for i in reversed(range(20))]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        cells = AnnDataDataset(experiment(), genes=genes)
    np.testing.assert_array_equal(cells.take(ORDER)["counts"], raw_counts()[ORDER, :20][:, ::-1])


def test_other_genes_are_refused() -> None:
    with pytest.raises(DataError, match=r"only 1 of the 3 genes asked for .*'ENSG1'.* the same species"):
        AnnDataDataset(experiment(), genes=["gene0", "ENSG1", "ENSG2"])
    with pytest.raises(DataError, match=r"genes= names 'gene0' more than once"):
        AnnDataDataset(experiment(), genes=["gene0", "gene1", "gene0"])


def test_codes_follow_saved_classes() -> None:
    with pytest.warns(UserWarning, match=r"20 cells have a value in obs\['cell_type'\].*\('NK'\).*-1"):
        cells = AnnDataDataset(experiment(), labels="cell_type", classes=["T", "B", "Mono"])
    labels = cells.take(np.arange(6))["labels"]
    np.testing.assert_array_equal(labels, [0, 1, -1, 0, -1, -1])
    assert cells.metadata["classes"] == ["T", "B", "Mono"]
    assert AnnDataDataset(experiment(), classes=["T", "B"]).metadata["classes"] == ["T", "B"]


def test_saved_metadata_opens_the_next_file_alike() -> None:
    options = {"layer": "doubled"}
    saved_metadata = json.loads(json.dumps(AnnDataDataset(experiment(), **options).metadata))
    again = AnnDataDataset(experiment(), labels="cell_type", **saved_metadata)
    assert again.metadata == saved_metadata | {"classes": ["B", "NK", "T"]}
    np.testing.assert_array_equal(again.take(ORDER)["counts"], 2 * raw_counts()[ORDER, :20])


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (np.array([True, False] * 30), ["False", "True"]),
        (np.array([2, 10] * 30), ["2", "10"]),
        (pd.array([2, None] * 30, dtype="Int64"), ["2"]),
        (np.array([2.0, np.nan] * 30), ["2"]),
        (["b", "a"] * 30, ["a", "b"]),
        (pd.Categorical(["b", "a"] * 30, categories=["b", "unused", "a"]), ["b", "a"]),
    ],
    ids=["bool", "int", "Int64", "float", "str", "category"],
)
def test_labels_of_any_discrete_type(values: np.ndarray, classes: list[str]) -> None:
    adata = experiment()
    adata.obs["group"] = values
    cells = AnnDataDataset(adata, labels="group")
    assert cells.metadata["classes"] == classes
    codes = cells.take(np.array([0, 1]))["labels"]
    names = [classes[code] if code >= 0 else None for code in codes]
    assert names == [None if pd.isna(value) else str(value).removesuffix(".0") for value in values[:2]]


# Errors say what was given, what is there and what to do


@pytest.mark.parametrize(
    ("error", "arguments", "text"),
    [
        (MissingKeyError, {"layer": "doubeld"}, "no layer 'doubeld'.*its layers: 'doubled'.*mean 'doubled'"),
        (MissingKeyError, {"labels": "celltype"}, "no column 'celltype' in obs.*'donor'.*mean 'cell_type'"),
        (MissingKeyError, {"obsm": {"embeddings": "X_pcb"}}, "no 'X_pcb' in obsm.*mean 'X_pca'"),
        (DataError, {"labels": "depth"}, "'depth'.*holds measurements .*not groups"),
        (ConfigError, {"layer": "doubled", "use_raw": True}, "layer='doubled' and use_raw=True"),
        (ConfigError, {"key": "labels"}, "data key 'labels' stands for two arrays"),
        (ConfigError, {"obsm": {"counts": "X_pca"}}, "data key 'counts' stands for two arrays"),
    ],
)
def test_wrong_names(error: type[DiffbioError], arguments: dict, text: str) -> None:
    with pytest.raises(error, match=f"(?s){text}"):
        AnnDataDataset(experiment(), **arguments)


def test_no_raw() -> None:
    adata = experiment()
    del adata.raw
    with pytest.raises(MissingKeyError, match=r"use_raw=True, but this AnnData has no .raw"):
        AnnDataDataset(adata, use_raw=True)


def test_no_matrix() -> None:
    adata = experiment()
    adata.X = None
    with pytest.raises(DataError, match=r"has no X; name one of its layers: 'doubled'"):
        AnnDataDataset(adata)


def test_an_empty_matrix() -> None:
    with pytest.raises(DataError, match=r"empty: 0 cells x 20 genes"):
        AnnDataDataset(experiment()[:0])


def test_a_column_without_values() -> None:
    adata = experiment()
    adata.obs["nothing"] = pd.Categorical([None] * CELLS)
    with pytest.raises(DataError, match=r"obs\['nothing'\] has no value in any cell"):
        AnnDataDataset(adata, labels="nothing")


def test_repeated_gene_names() -> None:
    adata = experiment()
    adata.var_names = ["gene0", "gene0", *adata.var_names[2:]]
    with pytest.raises(DataError, match=r"1 gene names .*'gene0'.*var_names_make_unique\(\)"):
        AnnDataDataset(adata)


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize(
    ("value", "text"),
    [(np.nan, "1 values of 'counts' .* are NaN"), (np.inf, "infinite"), (-1, "1 values .* negative")],
)
def test_values_that_are_no_counts(tmp_path: Path, kind: str, backed: bool, value: float, text: str) -> None:
    adata = experiment(kind)
    adata.X[2, int(np.flatnonzero(raw_counts()[2, :20])[0])] = value
    path = saved(tmp_path, adata)
    with pytest.raises(DataError, match=text):
        read(path, backed=backed)
    if value == -1:
        assert read(path, key="scaled", backed=backed).take(np.array([2]))["scaled"].min() == -1


def test_values_on_disk_are_checked_when_they_are_taken(tmp_path: Path) -> None:
    matrix = np.ones((100, 3), np.float32)
    matrix[90, 1] = np.nan
    cells = read(saved(tmp_path, anndata.AnnData(matrix)), backed=True)
    cells.take(np.arange(90))
    with pytest.raises(DataError, match=r"1 values of 'counts' in the cells taken are NaN"):
        cells.take(np.arange(80, 100))


def test_normalized_values_named_counts_are_pointed_out() -> None:
    adata = experiment()
    adata.X = np.log1p(adata.X.toarray())
    with pytest.warns(UserWarning, match=r"not whole numbers.*key='normalized'"):
        AnnDataDataset(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        AnnDataDataset(adata, key="normalized")


@pytest.mark.parametrize("indices", [[-1], [0, CELLS], [0.5], [[0, 1]], [True, False]])
def test_indices_that_are_no_cells(indices: list) -> None:
    with pytest.raises(ContractError, match=r"indices"):
        AnnDataDataset(experiment()).take(np.array(indices))


def test_csc_on_disk_names_the_way_out(tmp_path: Path) -> None:
    path = saved(tmp_path, experiment("csc"))
    with pytest.raises(DataError, match=r"stored by gene \(CSC\).*backed=False.*tocsr\(\)"):
        read(path, backed=True)
    assert len(read(path)) == CELLS


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*nowhere.h5ad"):
        read(tmp_path / "nowhere.h5ad")
    (tmp_path / "table.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"'table.csv' is of an unknown kind; known are .h5ad or .zarr"):
        read(tmp_path / "table.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"no matrix.mtx or matrix.mtx.gz in the folder 'folder'"):
        read(tmp_path / "folder")
    (tmp_path / "broken.h5ad").write_text("not HDF5")
    for backed in (False, True):
        with pytest.raises(DataError, match=r"'broken.h5ad' can't be read, is it damaged"):
            read(tmp_path / "broken.h5ad", backed=backed)
    with h5py.File(tmp_path / "other.h5", "w") as store:
        store["X"] = np.ones(3)
    with pytest.raises(DataError, match=r"'other.h5' is not a 10x file.*rename it to .h5ad"):
        read(tmp_path / "other.h5")
    with pytest.raises(DataError, match=r"backed=True needs a .h5ad or .zarr, 'other.h5' is neither"):
        read(tmp_path / "other.h5", backed=True)
    (tmp_path / "other.h5").rename(tmp_path / "other.h5ad")
    with pytest.raises(DataError, match=r"'other.h5ad' is not an AnnData file"):
        read(tmp_path / "other.h5ad", backed=True)


def test_the_dataset_is_what_training_asks_for() -> None:
    from diffbio.training.data import Dataset

    assert isinstance(AnnDataDataset(experiment()), Dataset)
