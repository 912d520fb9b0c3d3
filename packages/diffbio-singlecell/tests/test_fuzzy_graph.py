"""The fuzzy graph against umap-learn, and its bandwidths against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from diffbio.core.errors import ConfigError, ContractError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.fuzzy_graph import (
    FuzzyGraph,
    FuzzyGraphConfig,
    fuzzy_bandwidths,
    fuzzy_graph,
    fuzzy_memberships,
    join,
)
from diffbio.operators.singlecell.neighbors import Neighbors, nearest_neighbors


@pytest.fixture
def pbmc():
    return PCA(50, svd_solver="full").fit_transform(pbmc68k_reduced().X.toarray()).astype(np.float32)


def dense(graph):
    indices, shares = map(np.asarray, graph)
    matrix = np.zeros((len(shares),) * 2)
    np.add.at(matrix, (np.arange(len(shares))[:, None], indices), shares)
    return matrix + matrix.T


@pytest.mark.slow
@pytest.mark.parametrize("n_neighbors", [5, 15, 50])
def test_edges_are_those_of_umap_learn_on_pbmc(pbmc, n_neighbors, certificate):
    umap_learn = pytest.importorskip("umap.umap_")
    searched = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(pbmc.astype(np.float64))
    distances, indices = searched.kneighbors(pbmc.astype(np.float64))
    distances[:, 0] = 0.0
    expected = umap_learn.fuzzy_simplicial_set(
        pbmc,
        n_neighbors,
        np.random.RandomState(0),
        "euclidean",
        knn_indices=indices,
        knn_dists=distances.astype(np.float32),
    )[0].toarray()
    # the same lists for both: which of two cells at one distance is the last neighbour is rounding
    neighbors = Neighbors(jnp.asarray(indices[:, 1:]), jnp.asarray(distances[:, 1:], jnp.float32))
    error = np.abs(dense(join(neighbors)) - expected).max()
    certificate(
        operator="FuzzyGraph",
        reference="umap-learn fuzzy_simplicial_set",
        data=f"PBMC 68k, 50 components, {n_neighbors} neighbours",
        quantity="largest difference of weights",
        value=error,
        bar="<= 1e-3",
    )
    assert error <= 1e-3


@pytest.mark.parametrize("n_neighbors", [3, 5, 15, 60])
def test_memberships_sum_to_the_logarithm_of_the_neighborhood(pbmc, n_neighbors):
    weights = fuzzy_memberships(nearest_neighbors(pbmc, n_neighbors - 1))
    sums, target = np.asarray(weights.sum(1)), np.log2(n_neighbors)
    assert (sums > target - 1e-4).all()  # more where several neighbours are as near as the nearest
    assert np.mean(sums < target + 1e-4) > 0.98
    np.testing.assert_array_equal(weights[:, 0], 1.0)


def test_least_bandwidth_is_a_thousandth_of_the_mean_distance():
    ties = jnp.array([[2.0, 2.0, 2.0, 2.0]])  # no sigma makes them sum to log2 5
    rho, sigma = fuzzy_bandwidths(ties)
    assert float(rho[0]) == 2.0
    np.testing.assert_allclose(sigma, 1e-3 * 8 / 5, rtol=1e-6)
    _, sigma = fuzzy_bandwidths(jnp.array([[0.0, 0.0], [1.0, 5.0]]))
    np.testing.assert_allclose(sigma[0], 1e-3 * (0 + 2) / 2, rtol=1e-6)
    assert fuzzy_bandwidths(jnp.zeros((3, 2))).sigma.tolist() == [1.0, 1.0, 1.0]


def test_duplicates_count_as_sure_neighbors(pbmc):
    pbmc[1:3] = pbmc[0]
    weights = fuzzy_memberships(nearest_neighbors(pbmc, 14))
    np.testing.assert_array_equal(weights[:3, :3], 1.0)
    np.testing.assert_allclose(weights[:3].sum(1), np.log2(15), rtol=1e-4)


def test_bandwidths_have_the_gradient_of_the_implicit_function():
    with jax.enable_x64(True):
        distances = jnp.asarray(np.sort(np.random.default_rng(0).random((5, 7)) + 0.5))
        check_grads(fuzzy_bandwidths, (distances,), order=1, modes=("fwd", "rev"), rtol=1e-4, eps=1e-5)


@pytest.mark.slow
def test_graph_has_right_gradients_by_the_embeddings():
    with jax.enable_x64(True):
        cells = jnp.asarray(np.random.default_rng(0).normal(size=(14, 3)))
        check_grads(
            lambda x: fuzzy_graph(x, 5).fuzzy_memberships, (cells,), order=1, modes=("fwd", "rev"), rtol=1e-4, eps=1e-6
        )


@pytest.mark.parametrize("case", ["zeros", "constant", "duplicates", "tiny", "huge", "outlier"])
def test_hard_cases_give_finite_values_and_gradients(case):
    cells = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    cells[: {"duplicates": 12}.get(case, 0)] = cells[0]
    cells = cells * np.float32({"zeros": 0.0, "tiny": 1e-20, "huge": 1e15}.get(case, 1.0))
    cells = np.ones_like(cells) if case == "constant" else cells
    if case == "outlier":
        cells[0] = 1e4
    weights, pullback = jax.vjp(lambda x: fuzzy_graph(x, 5).fuzzy_memberships, jnp.asarray(cells))
    assert np.isfinite(weights).all()
    assert ((weights >= 0) & (weights <= 1)).all()
    assert np.isfinite(pullback(jnp.ones_like(weights))[0]).all()


def test_given_neighbors_are_joined_both_ways():
    neighbors = Neighbors(jnp.array([[1, 2], [0, 2], [0, 1], [0, 3]]), jnp.array([[1.0, 2], [1, 2], [2, 2], [3, 0]]))
    graph = dense(join(neighbors))
    np.testing.assert_array_equal(graph, graph.T)
    assert graph[0, 1] == 1
    assert graph[3, 0] == 1
    assert graph[3, 3] == 0  # padding


def test_operator_reads_the_mask_and_refuses_what_can_not_be():
    cells = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    operator = FuzzyGraph(FuzzyGraphConfig(n_neighbors=5))
    data = operator.apply({"embeddings": cells, "cell_mask": np.arange(12) < 8}, {}, None)[0]
    np.testing.assert_array_equal(data["fuzzy_memberships"][8:], 0.0)
    np.testing.assert_array_equal(data["fuzzy_memberships"][:8], fuzzy_graph(cells[:8], 5).fuzzy_memberships)
    with pytest.raises(ConfigError, match="n_neighbors is 2; it must be an integer >= 3"):
        FuzzyGraphConfig(n_neighbors=2)
    with pytest.raises(ContractError, match="14 neighbours were asked for among 12 cells"):
        fuzzy_graph(cells, 15)
