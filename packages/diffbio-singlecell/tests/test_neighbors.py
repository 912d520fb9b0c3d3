"""Neighbour search and sparse products, against scikit-learn and dense arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.neighbors import NearestNeighbors

from diffbio.core.errors import ContractError
from diffbio.operators.singlecell.neighbors import (
    nearest_neighbors,
    neighbor_distances,
    neighbor_matmul,
    neighbor_matmul_transposed,
    reachable_cells,
)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def dense(weights, indices):
    matrix = np.zeros((len(weights),) * 2)
    np.add.at(matrix, (np.arange(len(weights))[:, None], np.asarray(indices)), np.asarray(weights))
    return matrix


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("block_size", [64, 1024])
def test_neighbors_are_those_of_scikit_learn(random, offset, block_size):
    cells = (random.normal(size=(300, 20)) + offset).astype(np.float32)
    distances, indices = NearestNeighbors(n_neighbors=16, algorithm="brute").fit(cells.astype(np.float64)).kneighbors()
    found = nearest_neighbors(cells, 16, block_size=block_size)
    print(f"largest difference of distances: {np.abs(found.distances - distances).max():.1e}")
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)


@pytest.mark.parametrize("n_cells", [1, 5])
def test_more_neighbors_than_other_cells_are_refused(n_cells):
    with pytest.raises(ContractError, match=rf"5 neighbours were asked for among {n_cells} cells"):
        nearest_neighbors(jnp.zeros((n_cells, 2)), 5)


def test_search_holds_no_matrix_of_all_pairs():
    shape = jax.ShapeDtypeStruct((20_000, 10), jnp.float32)
    compiled = jax.jit(lambda x: nearest_neighbors(x, 10)).lower(shape).compile()
    scratch = compiled.memory_analysis().temp_size_in_bytes
    print(f"scratch for 20,000 cells: {scratch / 1e6:.0f} MB; a matrix of all pairs has 1600 MB")
    assert scratch < 50e6


def test_distances_have_exact_gradients(random):
    cells, indices = jnp.asarray(random.normal(size=(8, 3)), jnp.float32), jnp.arange(16).reshape(8, 2) % 7 + 1
    indices = jnp.where(indices == jnp.arange(8)[:, None], 0, indices)
    check_grads(lambda x: neighbor_distances(x, indices), (cells,), order=1, modes=("fwd", "rev"), rtol=1e-2)


@pytest.mark.parametrize("scale", [0.0, 1e-18, 1.0, 1e18])
def test_duplicates_and_any_scale_give_finite_gradients(random, scale):
    cells = random.normal(size=(20, 4)).astype(np.float32) * np.float32(scale)
    cells[5:12] = cells[5]
    distances, pullback = jax.vjp(lambda x: nearest_neighbors(x, 8).distances, jnp.asarray(cells))
    assert np.isfinite(distances).all()
    assert np.isfinite(pullback(jnp.ones_like(distances))[0]).all()
    exact = np.sort(np.linalg.norm(cells[:, None].astype(float) - cells, axis=-1), axis=1)[:, 1:9]
    np.testing.assert_allclose(distances, exact, rtol=1e-5)
    assert (np.asarray(distances)[5:12, :6] == 0).all()


@pytest.mark.parametrize("product", [neighbor_matmul, neighbor_matmul_transposed])
def test_sparse_products_equal_dense_ones(random, product):
    indices = jnp.asarray(random.integers(0, 30, (30, 4)))
    weights, values = (jnp.asarray(random.random(shape), jnp.float32) for shape in ((30, 4), (30, 6)))
    matrix = dense(weights, indices)
    matrix = matrix if product is neighbor_matmul else matrix.T
    np.testing.assert_allclose(product(weights, indices, values), matrix @ np.asarray(values), rtol=1e-5)
    check_grads(lambda w, y: product(w, indices, y), (weights, values), order=1, modes=("fwd", "rev"), rtol=1e-2)


@pytest.mark.parametrize("product", [neighbor_matmul, neighbor_matmul_transposed])
def test_gradients_of_sparse_products_hold_no_cells_by_neighbors_by_genes(product):
    cells, neighbors, genes = 2000, 30, 200
    weights, values = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((cells, neighbors), (cells, genes)))
    indices = jax.ShapeDtypeStruct((cells, neighbors), jnp.int32)
    gradient = jax.grad(lambda w, y, i: (product(w, i, y) ** 2).sum(), argnums=(0, 1))
    scratch = jax.jit(gradient).lower(weights, values, indices).compile().memory_analysis().temp_size_in_bytes
    print(f"scratch: {scratch / (4 * cells * genes):.1f} arrays of cells x genes")
    assert scratch < 6 * 4 * cells * genes


def test_reachable_cells_follow_edges_in_both_directions():
    indices = jnp.array([[1], [2], [1], [2], [5], [4]])
    edges = jnp.array([[True], [True], [True], [True], [True], [True]])
    assert reachable_cells(edges, indices, 0).tolist() == [True, True, True, True, False, False]
    assert reachable_cells(edges.at[3].set(False), indices, 0).tolist() == [True, True, True, False, False, False]
