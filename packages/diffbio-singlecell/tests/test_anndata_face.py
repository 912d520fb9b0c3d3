"""Operators as functions of an AnnData: found by name, documented, and writing where they say."""

import inspect

import anndata
import numpy as np
import pytest
from scipy import sparse

import diffbio.singlecell as db
from diffbio.core.errors import ContractError, DataError, MissingKeyError
from diffbio.core.registry import registry
from diffbio.io.singlecell import pbmc68k_reduced


@pytest.fixture
def cells():
    """PBMC 68k: log-normalized expression, principal components and labels."""
    adata = pbmc68k_reduced()
    scaled = adata.X.toarray()
    components = np.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
    adata.obsm["X_pca"] = (components[0] * components[1])[:, :10].astype(np.float32)
    return adata


def own_operators():
    return [name for name, entry in registry().operators.items() if entry.distribution == "diffbio-singlecell"]


def test_each_operator_is_one_function_of_pp_or_tl():
    names = [*dir(db.pp), *dir(db.tl)]
    assert len(names) == len(set(names)) == len(own_operators())
    assert "library_size_normalization" in dir(db.pp)
    assert "soft_k_means_clustering" in dir(db.tl)
    with pytest.raises(AttributeError, match="did you mean 'soft_k_means_clustering'"):
        _ = db.tl.soft_kmeans_clustering
    with pytest.raises(AttributeError, match="it is in pp"):
        _ = db.tl.scaling


@pytest.mark.parametrize("module", [db.pp, db.tl], ids=["pp", "tl"])
def test_signatures_and_docstrings_name_the_same_arguments(module):
    for name in dir(module):
        function = getattr(module, name)
        assert function is getattr(module, name)
        arguments = inspect.signature(function).parameters
        described = [line.strip().partition(":")[0] for line in function.__doc__.splitlines()]
        assert not {"n_genes", "n_features", "n_batches"} & set(arguments)
        missing = [argument for argument in arguments if argument not in described]
        assert not missing, f"{name}: {missing}"


def test_results_are_those_of_the_operator_at_the_places_of_scanpy(cells):
    operator = db.tl.soft_k_means_clustering(cells, n_clusters=5, temperature=10.0, random_state=3)
    wanted = operator.apply({"embeddings": cells.obsm["X_pca"]}, {}, None)[0]
    np.testing.assert_allclose(cells.obsm["cluster_assignments"], wanted["cluster_assignments"], rtol=1e-5, atol=1e-6)
    assert cells.obs["soft_k_means_clustering"].astype(int).tolist() == (
        wanted["cluster_assignments"].argmax(1).tolist()
    )
    stored = cells.uns["soft_k_means_clustering"]
    assert stored["params"]["n_clusters"] == 5
    assert stored["params"]["n_features"] == 10
    assert stored["params"]["random_state"] == 3
    np.testing.assert_allclose(stored["cluster_centroids"], wanted["cluster_centroids"])


def test_pca_is_where_scanpy_looks_and_may_be_elsewhere(cells):
    del cells.obsm["X_pca"]
    db.pp.pca_projection(cells, n_components=4)
    db.pp.pca_projection(cells, n_components=3, key_added="small")
    assert cells.obsm["X_pca"].shape == (700, 4)
    assert cells.obsm["X_small"].shape == (700, 3)
    assert cells.uns["small"]["params"]["n_components"] == 3
    scaled = cells.X.toarray()
    spread = np.linalg.svd(scaled - scaled.mean(0), compute_uv=False)[:4] ** 2 / 699
    np.testing.assert_allclose(cells.obsm["X_pca"].var(0, ddof=1), spread, rtol=1e-3)


def test_counts_come_from_their_layer_and_stay_sparse(tmp_path):
    counts = sparse.random(60, 40, 0.3, format="csr", random_state=0, dtype=np.float32)
    counts.data = np.ceil(10 * counts.data)
    adata = anndata.AnnData(np.zeros((60, 40), np.float32), layers={"counts": counts})
    db.pp.library_size_normalization(adata)
    total = np.expm1(adata.layers["normalized"]).sum(1)
    np.testing.assert_allclose(total[np.asarray(counts.sum(1)).ravel() > 0], 1e4, rtol=1e-4)
    db.pp.diffusion_imputation(adata)
    assert adata.layers["imputed_counts"].shape == (60, 40)
    assert sparse.issparse(adata.layers["counts"])
    adata.write_h5ad(tmp_path / "written.h5ad")
    read = anndata.read_h5ad(tmp_path / "written.h5ad")
    np.testing.assert_array_equal(read.layers["imputed_counts"], adata.layers["imputed_counts"])
    assert read.uns["diffusion_imputation"]["params"]["n_neighbors"] == 5


def test_the_same_seed_gives_the_same_and_another_another(cells):
    for seed, name in ((0, "first"), (0, "again"), (1, "other")):
        db.tl.soft_k_means_clustering(cells, n_clusters=8, temperature=10.0, random_state=seed, key_added=name)
    centroids = {name: cells.uns[name]["cluster_centroids"] for name in ("first", "again", "other")}
    np.testing.assert_array_equal(centroids["first"], centroids["again"])
    assert np.abs(centroids["first"] - centroids["other"]).max() > 0.1


def test_wrong_calls_say_what_is_there(cells):
    with pytest.raises(MissingKeyError, match=r"did you mean 'X_pca'.*Name another with use_rep="):
        db.tl.soft_k_means_clustering(cells, n_clusters=2, use_rep="X_pcs")
    with pytest.raises(MissingKeyError, match="no layer 'raw_counts'"):
        db.pp.diffusion_imputation(cells, layer="raw_counts")
    with pytest.raises(TypeError, match="n_cluster"):
        db.tl.soft_k_means_clustering(cells, n_cluster=2)
    with pytest.raises(ContractError, match="clusters"):
        db.tl.soft_k_means_clustering(cells, n_clusters=1000)
    cells.layers["counts"] = -cells.X
    with pytest.raises(DataError, match="negative"):
        db.pp.library_size_normalization(cells)


@pytest.fixture
def three_types():
    """Counts of 150 cells of three types, of which the first 45 are labelled."""
    random = np.random.default_rng(0)
    types = random.integers(0, 3, 150)
    profiles = random.gamma(0.5, size=(3, 40))
    adata = anndata.AnnData(random.poisson(4 * profiles[types]).astype(np.float32))
    adata.var_names = [f"gene {number}" for number in range(40)]
    adata.obs["truth"] = [f"type {number}" for number in types]
    adata.obs["cell_type"] = [name if cell < 45 else None for cell, name in enumerate(adata.obs["truth"])]
    fold = profiles / (np.sort(profiles, axis=0)[-2] + 1e-3)
    markers = {f"type {number}": adata.var_names[(-fold[number]).argsort()[:5]].tolist() for number in range(3)}
    return adata, markers


def test_cells_without_label_learn_from_those_that_have_one(three_types):
    adata, _ = three_types
    db.tl.semi_supervised_vae(adata, labels_key="cell_type", hidden_sizes=(32,), epochs=40, learning_rate=1e-2)
    assert (adata.obs["semi_supervised_vae"] == adata.obs["truth"]).mean() > 0.95
    assert adata.obsm["X_semi_supervised_vae"].shape == (150, 10)
    with pytest.raises(MissingKeyError, match="Name another with labels_key="):
        db.tl.semi_supervised_vae(adata, labels_key="type")


def test_markers_are_lists_of_names(three_types):
    adata, markers = three_types
    adata.uns["marker_genes"] = markers
    db.tl.marker_annotation(adata)
    assert (adata.obs["marker_annotation"] == adata.obs["truth"]).mean() > 0.95
    adata.uns["marker_genes"] = markers | {"type 0": [*markers["type 0"], "CD4"]}
    with pytest.warns(UserWarning, match="left out: 'CD4'"):
        db.tl.marker_annotation(adata)
    adata.uns["marker_genes"] = markers | {"type 0": ["CD4"]}
    with pytest.raises(DataError, match="no marker of 'type 0' is among the genes"):
        db.tl.marker_annotation(adata)


@pytest.mark.slow
def test_an_operator_may_train_on_cells_that_it_makes(three_types):
    adata, _ = three_types
    classifier = db.tl.doublet_classifier(adata, n_components=5, epochs=30, learning_rate=1e-2)
    doublets = adata.X[adata.obs["truth"] == "type 0"][:20] + adata.X[adata.obs["truth"] == "type 1"][:20]
    assert len(adata) == 150
    found = classifier.apply({"counts": doublets}, {}, None)[0]["doublet_probabilities"]
    assert found.mean() > 3 * adata.obs["doublet_probabilities"].mean()
