"""Diffusion maps against scanpy, and eigenvectors of graphs against dense ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.decomposition import PCA

from diffbio.core.errors import ContractError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.diffusion_map import (
    DiffusionMap,
    DiffusionMapConfig,
    diffusion_map,
    random_walk,
)
from diffbio.operators.normalization.fuzzy_graph import fuzzy_graph
from diffbio.operators.singlecell.graph_spectrum import leading_eigenpairs


@pytest.fixture(scope="module")
def pbmc():
    return PCA(50, svd_solver="full").fit_transform(pbmc68k_reduced().X.toarray()).astype(np.float32)


def dense(shares, indices):
    matrix = np.zeros((len(shares),) * 2)
    np.add.at(matrix, (np.arange(len(shares))[:, None], np.asarray(indices)), np.asarray(shares))
    return matrix + matrix.T


def arc(n_cells=40, seed=0):
    angle = np.sort(np.random.default_rng(seed).uniform(0, 4, n_cells))
    noise = np.random.default_rng(seed + 1).normal(scale=0.03, size=(n_cells, 3))
    return (np.stack([np.cos(angle), np.sin(angle), 0.2 * angle], axis=1) + noise).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["umap", "gauss"])
def test_components_are_those_of_scanpy_on_pbmc(pbmc, kernel, certificate):
    scanpy = pytest.importorskip("scanpy")
    cells = pbmc68k_reduced()
    cells.obsm["X_pca"] = pbmc
    scanpy.pp.neighbors(cells, n_neighbors=15, use_rep="X_pca", method=kernel, transformer="sklearn")
    scanpy.tl.diffmap(cells, n_comps=10)
    found = DiffusionMap(DiffusionMapConfig(n_components=10, kernel=kernel)).apply({"embeddings": pbmc}, {}, None)[0]
    vectors, expected = np.asarray(found["diffusion_map"]), cells.obsm["X_diffmap"]
    signs = np.sign(np.sum(vectors * expected, axis=0))
    row = {"operator": "DiffusionMap", "reference": "scanpy tl.diffmap", "data": f"PBMC 68k, kernel {kernel}"}
    for quantity, error, bar in (
        (
            "largest difference of eigenvalues",
            np.abs(found["diffusion_eigenvalues"] - cells.uns["diffmap_evals"]),
            1e-4,
        ),
        ("largest difference of components", np.abs(vectors - signs * expected), 1e-3),
    ):
        certificate(**row, quantity=quantity, value=error.max(), bar=f"<= {bar:g}")
        assert error.max() <= bar


@pytest.mark.parametrize("n_pairs", [1, 5, 15])
def test_eigenpairs_are_those_of_a_dense_matrix(pbmc, n_pairs):
    indices, shares = fuzzy_graph(pbmc, 15)
    walk = random_walk(shares, indices)
    values, vectors = np.linalg.eigh(dense(walk, indices))
    found = leading_eigenpairs(walk, indices, n_pairs)
    expected = vectors[:, : -n_pairs - 1 : -1]
    overlap = np.abs(np.sum(expected * np.asarray(found.vectors), axis=0))
    print(f"{n_pairs} pairs: overlap at least 1 - {1 - overlap.min():.1e}")
    np.testing.assert_allclose(found.values, values[: -n_pairs - 1 : -1], atol=2e-6)
    assert overlap.min() > 1 - 1e-5


def test_no_array_is_cells_by_cells():
    lowered = diffusion_map.lower(jax.ShapeDtypeStruct((8000, 10), jnp.float32), 5)
    scratch = lowered.compile().memory_analysis().temp_size_in_bytes
    print(f"scratch for 8000 cells: {scratch / 1e6:.0f} MB; a matrix of all pairs has 256 MB")
    assert scratch < 64e6


@pytest.mark.slow
def test_gradients_are_right_where_eigenvalues_are_apart():
    def components(x):
        found = diffusion_map(x, 4, n_neighbors=8, kernel="gauss")
        return found.diffusion_map[:, 1:], found.diffusion_eigenvalues[1:]

    with jax.enable_x64(True):
        cells = jnp.asarray(arc(), jnp.float64)
        check_grads(components, (cells,), order=1, modes=("fwd", "rev"), rtol=1e-3, eps=1e-6)


@pytest.mark.parametrize("kernel", ["umap", "gauss"])
@pytest.mark.parametrize("case", ["zeros", "constant", "duplicates", "tiny", "huge", "two pieces"])
def test_hard_cases_give_finite_values_and_gradients(case, kernel):
    cells = arc()
    cells[: {"duplicates": 20}.get(case, 0)] = cells[0]
    cells = cells * np.float32({"zeros": 0.0, "tiny": 1e-18, "huge": 1e15}.get(case, 1.0))
    cells = np.ones_like(cells) if case == "constant" else cells
    if case == "two pieces":
        cells[::2] += 100

    def components(x):
        return diffusion_map(x, 3, n_neighbors=6, kernel=kernel)[:2]

    found, pullback = jax.vjp(components, jnp.asarray(cells))
    gradient = pullback(jax.tree.map(jnp.ones_like, found))[0]
    assert np.isfinite(found[0]).all()
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(found[0].T @ found[0], np.eye(3), atol=1e-4)
    assert abs(float(found[1][0]) - 1) < 1e-4
    assert case != "two pieces" or abs(float(found[1][1]) - 1) < 1e-4


def test_second_component_orders_an_arc():
    order = np.asarray(diffusion_map(arc(), 2, n_neighbors=8).diffusion_map[:, 1])
    correlation = abs(np.corrcoef(order.argsort().argsort(), np.arange(40))[0, 1])
    print(f"rank correlation with the arc: {correlation:.4f}")
    assert correlation > 0.99


def test_density_exponent_and_neighbors_matter():
    cells = arc()
    default = diffusion_map(cells, 3, n_neighbors=8).diffusion_map
    for other in ({"n_neighbors": 12}, {"n_neighbors": 8, "density_exponent": 0.0}):
        assert float(jnp.abs(diffusion_map(cells, 3, **other).diffusion_map - default).max()) > 1e-2


def test_too_few_cells_are_refused():
    with pytest.raises(ContractError, match="15 diffusion components were asked for of 10 cells"):
        diffusion_map(jnp.zeros((10, 2)), 15, n_neighbors=4)
    with pytest.raises(ContractError, match="14 neighbours were asked for among 10 cells"):
        diffusion_map(jnp.zeros((10, 2)), 3)
    with pytest.raises(ContractError, match="9 eigenvectors were asked for of a graph of 2 cells"):
        leading_eigenpairs(jnp.ones((2, 1)), jnp.array([[1], [0]]), 9)
