"""Neighbour search and sparse products, against scikit-learn and dense arithmetic."""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from diffbio.core.errors import ContractError, MissingExtraError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.singlecell import neighbor_search
from diffbio.operators.singlecell import neighbors as search
from diffbio.operators.singlecell.approximate_neighbors import approximate_neighbors
from diffbio.operators.singlecell.neighbor_graph import (
    is_neighbor,
    kth_distance,
    mutual_weights,
    neighbor_matmul,
    neighbor_matmul_transposed,
    reachable_cells,
    symmetric_matmul,
    symmetric_shares,
    symmetric_sums,
)
from diffbio.operators.singlecell.neighbors import nearest_neighbors, nearest_neighbors_of, neighbor_distances


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def pbmc():
    return PCA(50, svd_solver="full").fit_transform(pbmc68k_reduced().X.toarray()).astype(np.float32)


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


def test_operator_lists_the_neighbors_of_scikit_learn_on_pbmc(pbmc, certificate):
    distances, indices = NearestNeighbors(n_neighbors=15, algorithm="brute").fit(pbmc.astype(np.float64)).kneighbors()
    operator = search.NearestNeighbors(search.NearestNeighborsConfig(n_neighbors=15))
    found = operator.apply({"embeddings": pbmc}, {}, None)[0]
    same = np.mean(np.sort(found["neighbor_indices"]) == np.sort(indices))
    error = np.max(np.abs(found["neighbor_distances"] - distances) / distances)
    row = {"operator": "NearestNeighbors", "reference": "scikit-learn", "data": "PBMC 68k, 50 components"}
    certificate(**row, quantity="share of the same neighbours", value=same, bar=">= 0.9999")
    certificate(**row, quantity="relative error of distances", value=error, bar="<= 1e-5")
    assert same >= 0.9999
    assert error <= 1e-5


def test_chunks_of_points_change_nothing(random, monkeypatch):
    cells = random.normal(size=(333, 6)).astype(np.float32)
    whole = nearest_neighbors(cells, 7)
    monkeypatch.setattr(neighbor_search, "_POINTS", 50)
    jax.clear_caches()
    in_chunks = nearest_neighbors(cells, 7)
    jax.clear_caches()
    np.testing.assert_array_equal(in_chunks.indices, whole.indices)


def test_new_cells_find_reference_cells(random):
    query, reference = (random.normal(size=(n, 5)).astype(np.float32) + 50 for n in (40, 300))
    fitted = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(reference.astype(np.float64))
    distances, indices = fitted.kneighbors(query.astype(np.float64))
    found = nearest_neighbors_of(query, reference, 6)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)
    check_grads(
        lambda x, y: nearest_neighbors_of(x, y, 3).distances,
        (jnp.asarray(query[:4] - 50), jnp.asarray(reference[:12] - 50)),
        order=1,
        modes=("rev",),
        rtol=1e-2,
    )


def test_new_cells_need_references_of_their_kind():
    with pytest.raises(ContractError, match="5 neighbours were asked for among 3 reference cells"):
        nearest_neighbors_of(jnp.zeros((2, 2)), jnp.zeros((3, 2)), 5)
    with pytest.raises(ContractError, match="query cells have 4 features and reference cells 2"):
        nearest_neighbors_of(jnp.zeros((2, 4)), jnp.zeros((3, 2)), 1)


def test_hidden_cells_are_nobodys_neighbors(random):
    cells = random.normal(size=(30, 4)).astype(np.float32)
    mask = np.arange(30) < 12
    cells[12:] = np.nan
    found = nearest_neighbors(cells, 5, cell_mask=mask)
    alone = nearest_neighbors(cells[:12], 5)
    np.testing.assert_array_equal(found.indices[:12], alone.indices)
    np.testing.assert_array_equal(found.distances[:12], alone.distances)
    assert not is_neighbor(found.indices)[12:].any()
    few = nearest_neighbors(cells, 5, cell_mask=np.arange(30) < 3)
    assert np.asarray(is_neighbor(few.indices)).sum(1).tolist() == [2] * 3 + [0] * 27
    assert np.isfinite(jax.grad(lambda x: nearest_neighbors(x, 5, cell_mask=mask).distances.sum())(cells)).all()


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


def test_soft_kth_distance_is_the_kth_in_the_limit_and_depends_on_k(pbmc):
    distances = nearest_neighbors(pbmc, 30).distances
    shuffled = distances[:, ::-1]
    errors = []
    for softness in (1.0, 0.1, 0.01, 1e-4):
        soft = jnp.stack([kth_distance(shuffled, k, softness=softness) for k in (3, 5, 15)], axis=1)
        errors.append(float(jnp.max(jnp.abs(soft - distances[:, [2, 4, 14]]))))
    print("largest difference from the exact k-th distance as softness falls:", " ".join(f"{e:.1e}" for e in errors))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3
    means = [float(kth_distance(distances, k, softness=0.1).mean()) for k in (1, 3, 5, 15, 30)]
    print("mean bandwidth for k = 1, 3, 5, 15, 30:", " ".join(f"{m:.2f}" for m in means))
    assert (np.diff(means) > 0.1).all()


def test_soft_kth_distance_has_right_gradients_and_skips_what_is_no_neighbor(random):
    distances = jnp.asarray(np.sort(random.random((4, 6))), jnp.float32)
    check_grads(lambda d: kth_distance(d, 3, softness=0.1), (distances,), order=1, modes=("rev",), rtol=1e-2)
    masked = jnp.concatenate([distances, jnp.zeros((4, 2))], axis=1)
    where = jnp.arange(8) < 6
    np.testing.assert_allclose(
        kth_distance(masked, 3, softness=0.1, where=jnp.broadcast_to(where, (4, 8))),
        kth_distance(distances, 3, softness=0.1),
        rtol=1e-6,
    )
    with pytest.raises(ContractError, match="distance to neighbour 9 was asked for in lists of 6"):
        kth_distance(distances, 9, softness=0.1)


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


def test_more_duplicates_than_candidates_keep_their_distance(random):
    cells = random.normal(size=(200, 4)).astype(np.float32)
    cells[:60] = cells[0]
    found = nearest_neighbors(cells, 3)
    assert (np.asarray(found.distances)[:60] == 0).all()
    assert np.asarray(is_neighbor(found.indices)).all()


def test_shares_make_the_symmetric_matrix(random):
    indices = nearest_neighbors(random.normal(size=(25, 3)).astype(np.float32), 4).indices
    weights = jnp.asarray(random.random((25, 4)), jnp.float32)
    matrix = dense(weights, indices)
    opposite, mutual = mutual_weights(weights, indices)
    rows = np.arange(25)[:, None]
    np.testing.assert_allclose(opposite, matrix.T[rows, indices], rtol=1e-6)
    np.testing.assert_array_equal(mutual, (matrix.T > 0)[rows, indices])
    shares = symmetric_shares(jnp.maximum(weights, opposite), mutual, indices)
    largest = np.maximum(matrix, matrix.T)
    values = jnp.asarray(random.random((25, 2)), jnp.float32)
    np.testing.assert_allclose(symmetric_matmul(shares, indices, values), largest @ np.asarray(values), rtol=1e-5)
    np.testing.assert_allclose(symmetric_sums(shares, indices), largest.sum(1), rtol=1e-5)
    own = indices.at[:, -1].set(jnp.arange(25))  # padding
    assert (symmetric_shares(weights, mutual, own)[:, -1] == 0).all()
    assert not mutual_weights(weights, own)[1][:, -1].any()


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


def test_approximate_neighbors_without_pynndescent_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynndescent", None)
    with pytest.raises(MissingExtraError, match="diffbio-singlecell\\[neighbors\\]"):
        approximate_neighbors(jnp.zeros((9, 2)), 3, key=jax.random.key(0))
    with pytest.raises(ContractError, match="9 neighbours were asked for among 9 cells"):
        approximate_neighbors(jnp.zeros((9, 2)), 9, key=jax.random.key(0))


@pytest.mark.slow
def test_approximate_neighbors_are_nearly_the_exact_ones(pbmc, certificate):
    pytest.importorskip("pynndescent")
    exact = nearest_neighbors(pbmc, 15)
    found = jax.jit(lambda x: approximate_neighbors(x, 15, key=jax.random.key(0)))(pbmc)
    again = approximate_neighbors(pbmc, 15, key=jax.random.key(0))
    np.testing.assert_array_equal(found.indices, again.indices)
    assert np.asarray(is_neighbor(found.indices)).all()
    assert (np.diff(found.distances, axis=1) > -1e-3).all()
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact.indices, np.asarray(found.indices), strict=True)])
    certificate(
        operator="approximate_neighbors",
        reference="exact search",
        data="PBMC 68k, 50 components",
        quantity="recall of 15 neighbours",
        value=recall,
        bar=">= 0.95",
    )
    assert recall >= 0.95
    gradient = jax.grad(lambda x: approximate_neighbors(x, 15, key=jax.random.key(0)).distances.sum())(pbmc)
    np.testing.assert_allclose(
        gradient, jax.grad(lambda x: neighbor_distances(x, found.indices).sum())(pbmc), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_search_takes_no_longer_than_scikit_learn(random, certificate):
    cells = random.normal(size=(20_000, 50)).astype(np.float32)

    def cpu_time(run):
        run()  # compiles
        start = time.process_time()
        run()
        return time.process_time() - start

    ours = cpu_time(lambda: jax.block_until_ready(nearest_neighbors(cells, 15)))
    theirs = cpu_time(lambda: NearestNeighbors(n_neighbors=15, algorithm="brute", n_jobs=1).fit(cells).kneighbors())
    certificate(
        operator="NearestNeighbors",
        reference="scikit-learn, brute force",
        data="20,000 simulated cells, 50 coordinates",
        quantity="ratio of CPU times",
        value=ours / theirs,
        bar="<= 1.5",
    )
    assert ours <= 1.5 * theirs
