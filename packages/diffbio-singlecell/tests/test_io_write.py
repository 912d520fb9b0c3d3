"""Results go where the table says, nothing of the file is lost, and nothing of others is overwritten."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from diffbio.core.errors import ClobberedKeyError, ContractError, DataError
from diffbio.io.singlecell import AnnDataDataset, add_results, pbmc68k_reduced, read, write

CELLS, GENES = 30, 12
SLOTS = ("obs", "var", "obsm", "varm", "layers", "obsp", "varp", "uns")


def full(kind: str = "csr") -> anndata.AnnData:
    """An AnnData that has something in each slot."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (CELLS, GENES)).astype(np.float32)
    wrap = sparse.csr_matrix if kind == "csr" else np.asarray
    adata = anndata.AnnData(
        wrap(counts),
        obs=pd.DataFrame(
            {
                "type": pd.Categorical(["B", None, "T"] * 10, categories=["T", "B"], ordered=True),
                "note": [f"cell number {i % 7}" for i in range(CELLS)],
                "depth": counts.sum(1),
                "passed": rng.random(CELLS) > 0.5,
                "maybe": pd.array([1, None, 3] * 10, dtype="Int64"),
            },
            index=pd.Index([f"AAAC-{i}" for i in range(CELLS)], name="barcode"),
        ),
        var=pd.DataFrame(
            {"mean": counts.mean(0), "chromosome": ["1", "X", "MT"] * 4},
            index=pd.Index([f"gene{i}" for i in range(GENES)], name="symbol"),
        ),
        obsm={
            "X_pca": rng.random((CELLS, 3)),
            "protein": pd.DataFrame({"CD3": np.arange(CELLS)}, index=[f"AAAC-{i}" for i in range(CELLS)]),
        },
        varm={"PCs": rng.random((GENES, 3))},
        layers={"dense": counts + 1, "by_gene": sparse.csc_matrix(counts)},
        obsp={"distances": sparse.csr_matrix(np.eye(CELLS))},
        varp={"links": np.eye(GENES)},
        uns={"colors": np.array(["#000000", "#ffffff"]), "neighbors": {"params": {"k": 5}}, "title": "x"},
    )
    wide = anndata.AnnData(sparse.hstack([sparse.csr_matrix(counts)] * 2, format="csr"), obs=adata.obs[[]])
    wide.var["id"] = np.arange(2 * GENES)
    wide.varm["loadings"] = rng.random((2 * GENES, 2))
    adata.raw = wide
    return adata


def assert_same(ours: Any, theirs: Any, name: str) -> None:
    """The same values, type of container and dtype."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), name
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{name}/{key}")
    elif isinstance(theirs, pd.DataFrame):
        pd.testing.assert_frame_equal(ours, theirs)
    elif sparse.issparse(theirs):
        assert ours.format == theirs.format, name
        assert ours.dtype == theirs.dtype, name
        assert abs(ours - theirs).max() == 0, name
    else:
        assert type(ours) is type(theirs), name
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def assert_kept(ours: anndata.AnnData, theirs: anndata.AnnData) -> None:
    """Everything of `theirs` is in `ours`, unchanged."""
    assert_same(ours.X, theirs.X, "X")
    assert_same(ours.raw.X, theirs.raw.X, "raw")
    pd.testing.assert_frame_equal(ours.raw.var, theirs.raw.var)
    assert_same(dict(ours.raw.varm), dict(theirs.raw.varm), "raw.varm")
    for slot in ("obs", "var"):
        columns = list(getattr(theirs, slot))
        pd.testing.assert_frame_equal(getattr(ours, slot)[columns], getattr(theirs, slot))
    for slot in SLOTS[2:]:
        kept = {key: value for key, value in getattr(theirs, slot).items() if key is not None}
        assert_same({key: getattr(ours, slot)[key] for key in kept}, kept, slot)


def results() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "embeddings": rng.random((CELLS, 4), dtype=np.float32),
        "cluster_assignments": rng.random((CELLS, 3), dtype=np.float32),
        "pseudotime": rng.random(CELLS, dtype=np.float32),
        "imputed_counts": rng.random((CELLS, GENES), dtype=np.float32),
        "gate": rng.random(GENES, dtype=np.float32),
        "cell_type_probabilities": rng.dirichlet([1.0, 1.0], CELLS).astype(np.float32),
        "cluster_centroids": rng.random((3, 4), dtype=np.float32),
        "tensor": rng.random((CELLS, 2, 2), dtype=np.float32),
        "loss": np.float32(0.5),
    }


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_round_trip_keeps_all_and_adds_ours(tmp_path: Path, kind: str, backed: bool) -> None:
    source, target = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    full(kind).write_h5ad(source, convert_strings_to_categoricals=False)
    before = anndata.read_h5ad(source)
    found = results()
    write(
        target,
        read(source, labels="type", backed=backed),
        found,
        metadata={"recipe": {"steps": ["PCAProjection"]}},
    )
    after = anndata.read_h5ad(target)
    assert_kept(after, before)
    assert list(after.obs_names) == list(before.obs_names)
    assert after.obs_names.name == "barcode"

    np.testing.assert_array_equal(after.obsm["X_diffbio"], found["embeddings"])
    for key in ("cluster_assignments", "cell_type_probabilities", "tensor"):
        np.testing.assert_array_equal(after.obsm[f"X_diffbio_{key}"], found[key])
    np.testing.assert_array_equal(after.obs["diffbio_pseudotime"], found["pseudotime"])
    np.testing.assert_array_equal(after.layers["diffbio_imputed_counts"], found["imputed_counts"])
    np.testing.assert_array_equal(after.var["diffbio_gate"], found["gate"])
    probabilities = found["cell_type_probabilities"]
    assert list(after.obs["diffbio_cell_type"].cat.categories) == ["T", "B"]
    assert list(after.obs["diffbio_cell_type"]) == [["T", "B"][i] for i in probabilities.argmax(1)]
    np.testing.assert_array_equal(after.obs["diffbio_confidence"], probabilities.max(1))
    ours = after.uns["diffbio"]
    np.testing.assert_array_equal(ours["results"]["cluster_centroids"], found["cluster_centroids"])
    assert ours["results"]["loss"] == 0.5
    assert json.loads(ours["recipe"]) == {"steps": ["PCAProjection"]}
    assert list(ours["classes"]) == ["T", "B"]
    assert ours["versions"]["diffbio-singlecell"] == version("diffbio-singlecell")
    for slot, names in ours["keys"].items():
        assert all(name in getattr(after, slot) for name in names)
    added = {
        slot: sorted(set(getattr(after, slot)) - set(getattr(before, slot)) - {None}) for slot in SLOTS if slot != "uns"
    }
    assert {slot: list(names) for slot, names in ours["keys"].items()} == {
        slot: names for slot, names in added.items() if names
    }


def test_writing_over_the_file_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    full().write_h5ad(path, convert_strings_to_categoricals=False)
    before = anndata.read_h5ad(path)
    write(path, read(path, backed=True), {"pseudotime": np.arange(CELLS)})
    write(path, read(path, backed=True), {"velocity": np.ones(CELLS), "pseudotime": np.ones(CELLS)})
    after = anndata.read_h5ad(path)
    assert_kept(after, before)
    assert list(after.uns["diffbio"]["keys"]["obs"]) == ["diffbio_pseudotime", "diffbio_velocity"]
    assert set(after.obs["diffbio_pseudotime"]) == {1.0}
    assert [file.name for file in tmp_path.iterdir()] == ["cells.h5ad"]


def test_writing_leaves_the_cells_in_memory_alone(tmp_path: Path) -> None:
    adata = full()
    adata.obs["gaps"] = pd.Series(["yes", None, "no"] * 10, dtype=object, index=adata.obs_names)
    dtypes = dict(adata.obs.dtypes)
    write(tmp_path / "out.h5ad", AnnDataDataset(adata), results(), metadata={"classes": ["T", "B"]})
    assert dict(adata.obs.dtypes) == dtypes
    assert "diffbio" not in adata.uns
    assert list(adata.obsm) == ["X_pca", "protein"]
    gaps = anndata.read_h5ad(tmp_path / "out.h5ad").obs["gaps"]
    assert [None if pd.isna(value) else value for value in gaps] == ["yes", None, "no"] * 10


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.h5ad"
    path.write_text("precious")
    adata = full()
    adata.uns["object"] = object()
    with pytest.raises(Exception, match=r"object"):
        write(path, AnnDataDataset(adata), {})
    assert path.read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir()] == ["out.h5ad"]


def test_results_on_other_genes_keep_their_names(tmp_path: Path) -> None:
    genes = ["gene3", "new", "gene0"]
    with pytest.warns(UserWarning, match=r"2 of the 3 genes"):
        cells = AnnDataDataset(full(), genes=genes)
    imputed = np.random.default_rng(0).random((CELLS, 3))
    write(tmp_path / "out.h5ad", cells, {"imputed_counts": imputed, "gate": np.array([0.3, 0.5, 0.1])})
    after = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(after.obsm["X_diffbio_imputed_counts"], imputed)
    assert list(after.uns["diffbio"]["genes"]) == genes
    gate = after.var["diffbio_gate"]
    assert (gate["gene0"], gate["gene3"]) == (0.1, 0.3)
    assert gate.isna().sum() == GENES - 2


def test_embeddings_as_wide_as_the_genes_are_embeddings() -> None:
    adata = full()
    add_results(adata, {"embeddings": np.ones((CELLS, GENES))})
    assert adata.obsm["X_diffbio"].shape == (CELLS, GENES)


def test_nothing_of_others_is_overwritten() -> None:
    adata = full()
    adata.obs["diffbio_pseudotime"] = 7.0
    with pytest.raises(ClobberedKeyError, match=r"obs\['diffbio_pseudotime'\] .* not written by diffbio"):
        add_results(adata, {"embeddings": np.ones((CELLS, 2)), "pseudotime": np.ones(CELLS)})
    assert set(adata.obs["diffbio_pseudotime"]) == {7.0}
    assert "X_diffbio" not in adata.obsm  # all or nothing
    assert "diffbio" not in adata.uns

    adata = full()
    adata.uns["diffbio"] = "a note"
    with pytest.raises(ClobberedKeyError, match=r"uns\['diffbio'\] .* not written by diffbio"):
        add_results(adata, {})


def test_two_results_for_one_place() -> None:
    with pytest.raises(ClobberedKeyError, match=r"two results .* obs\['diffbio_confidence'\]"):
        add_results(full(), {"cell_type_probabilities": np.ones((CELLS, 2)) / 2, "confidence": np.ones(CELLS)})


def test_probabilities_without_names_are_numbered() -> None:
    adata = full()
    add_results(adata, {"cell_type_probabilities": np.eye(3)[np.arange(CELLS) % 3]})
    assert list(adata.obs["diffbio_cell_type"][:4]) == ["0", "1", "2", "0"]


@pytest.mark.parametrize("shape", [(CELLS, 3), (CELLS - 1, 2), (CELLS,)])
def test_probabilities_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match=r"'cell_type_probabilities' has the shape"):
        add_results(full(), {"cell_type_probabilities": np.ones(shape)}, metadata={"classes": ["T", "B"]})


@pytest.mark.parametrize(
    ("found", "metadata", "text"),
    [
        ({"a/b": np.ones(CELLS)}, {}, "the key 'a/b' has a '/'"),
        ({"model": object()}, {}, "'model' is a object, not an array of numbers"),
        ({}, {"recipe": {"step": object()}}, r"metadata\['recipe'\] can't be written as JSON"),
    ],
)
def test_what_can_not_be_stored(found: dict, metadata: dict, text: str) -> None:
    with pytest.raises(DataError, match=text):
        add_results(full(), found, metadata=metadata)


def test_paths_that_can_not_be_written(tmp_path: Path) -> None:
    cells = AnnDataDataset(pbmc68k_reduced(), key="normalized")
    with pytest.raises(DataError, match=r"'out.csv' does not end with .h5ad"):
        write(tmp_path / "out.csv", cells, {})
    with pytest.raises(DataError, match=r"no folder .*create it first"):
        write(tmp_path / "nowhere" / "out.h5ad", cells, {})


def test_jax_arrays_are_written(tmp_path: Path) -> None:
    import jax.numpy as jnp

    cells = AnnDataDataset(pbmc68k_reduced(), key="normalized", labels="bulk_labels")
    write(tmp_path / "out.h5ad", cells, {"embeddings": jnp.ones((700, 3)), "loss": jnp.float32(1)})
    assert anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_diffbio"].dtype == np.float32
