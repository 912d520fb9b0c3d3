"""Soft shortest paths against Dijkstra's algorithm in SciPy, bridges, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.singlecell.neighbors import Neighbors, nearest_neighbors, neighbor_distances
from diffbio.operators.singlecell.shortest_paths import connected_neighbors, shortest_paths, soft_shortest_paths


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    """Real cells: principal components of the PBMC, to a largest magnitude of 1."""
    expression = pbmc68k_reduced().X.toarray()
    left, values, _ = np.linalg.svd(expression - expression.mean(0), full_matrices=False)
    return (left[:, :10] * values[:10] / values[0]).astype(np.float32)


def by_dijkstra(neighbors: Neighbors, sources: np.ndarray) -> np.ndarray:
    n_cells, n_neighbors = neighbors.indices.shape
    lengths = np.asarray(neighbors.distances, np.float64).ravel()
    edge = np.isfinite(lengths)
    rows, columns = np.repeat(np.arange(n_cells), n_neighbors)[edge], np.asarray(neighbors.indices).ravel()[edge]
    graph = coo_matrix((lengths[edge], (rows, columns)), shape=(n_cells, n_cells)).tocsr()
    return dijkstra(graph, directed=False, indices=sources).T


def test_limit_is_dijkstra_on_pbmc(cells: np.ndarray, certificate) -> None:
    neighbors = nearest_neighbors(jnp.asarray(cells), 14)
    sources = np.arange(0, 700, 35)
    expected = by_dijkstra(neighbors, sources)
    hard = shortest_paths(neighbors.distances, neighbors.indices, sources)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(hard), finite)
    assert np.abs(hard - expected)[finite].max() < 1e-6 * expected[finite].max()
    edge = float(np.median(neighbors.distances))
    for share in (1.0, 0.1, 0.01, 1e-4):
        soft = soft_shortest_paths(neighbors.distances, neighbors.indices, sources, softness=share * edge)
        excess = (np.asarray(soft) - expected)[finite]
        print(f"softness {share} edges: mean excess {excess.mean() / expected[finite].mean():.1e} of the mean distance")
        assert excess.min() > -1e-5
    certificate(
        operator="soft_shortest_paths",
        reference="scipy csgraph.dijkstra",
        data="PBMC 68k, 15 neighbours",
        quantity="largest difference at a softness of 1e-4 edges, over the mean distance",
        value=np.abs(excess).max() / expected[finite].mean(),
        bar="<= 0.002",
    )
    assert np.abs(excess).max() <= 0.002 * expected[finite].mean()


def test_is_the_free_energy_of_walks() -> None:
    # from cell 0 of a path 0 - 1 - 2 a walk to 2 returns k times with probability 2^-(k + 1)
    indices, lengths, softness = jnp.array([[1], [2], [1]]), jnp.array([[0.7], [0.5], [0.5]]), 0.4
    found = soft_shortest_paths(lengths, indices, jnp.array([2]), softness=softness)[0, 0]
    moves = np.array([[0, 1, 0], [1, 0, 2], [0, 0, 0]]) / np.array([[1], [3], [1]])  # the edge 1 - 2 is listed twice
    tilted = moves * np.exp(-np.array([[0, 0.7, 0], [0.7, 0, 0.5], [0, 0, 0]]) / softness)
    walks = np.linalg.solve(np.eye(2) - tilted[:2, :2], tilted[:2, 2])
    np.testing.assert_allclose(found, -softness * np.log(walks[0]), rtol=1e-5)


@pytest.mark.parametrize("softness", [0.01, 0.3, 3.0])
def test_gradients_are_right(softness: float) -> None:
    with jax.enable_x64(True):
        cells = jnp.asarray(np.random.default_rng(0).normal(size=(30, 3)))
        neighbors = nearest_neighbors(cells, 5)

        def distances(lengths, softness):
            return soft_shortest_paths(lengths, neighbors.indices, jnp.array([0, 7]), softness=softness)

        point = (neighbors.distances, jnp.asarray(softness))
        check_grads(distances, point, order=1, modes=("rev",), eps=1e-6, rtol=1e-4)


def test_cells_out_of_reach_are_infinite_without_gradient() -> None:
    lengths, indices = jnp.array([[1.0], [1.0], [2.0], [2.0]]), jnp.array([[1], [0], [3], [2]])
    distances, pull = jax.vjp(lambda w: soft_shortest_paths(w, indices, jnp.array([0]), softness=0.1), lengths)
    np.testing.assert_array_equal(np.isinf(distances[:, 0]), [False, False, True, True])
    gradient = pull(jnp.ones_like(distances))[0].ravel()
    assert np.isfinite(gradient).all()
    assert (gradient[2:] == 0).all()


def test_any_scale_and_softness_give_finite_values() -> None:
    cells = jnp.asarray(np.random.default_rng(0).normal(size=(25, 2)), jnp.float32)
    indices = nearest_neighbors(cells, 6).indices

    @jax.jit
    def with_gradient(lengths, softness):
        distances, pull = jax.vjp(lambda w: soft_shortest_paths(w, indices, jnp.array([0]), softness=softness), lengths)
        return distances, pull(jnp.ones_like(distances))[0]

    for scale in (0.0, 1e-20, 1.0, 1e18):
        lengths = neighbor_distances(scale * cells, indices)
        for softness in (1e-30, 1e-3, 1.0, 1e6):
            assert all(np.isfinite(values).all() for values in with_gradient(lengths, softness))


def test_bridges_connect_what_is_apart() -> None:
    random = np.random.default_rng(0)
    cells = jnp.asarray(np.concatenate([random.normal(size=(20, 2)) + 30 * i for i in range(4)]), jnp.float32)
    neighbors = nearest_neighbors(cells, 5)
    assert np.isinf(shortest_paths(neighbors.distances, neighbors.indices, jnp.array([0]))).any()
    bridged = connected_neighbors(cells, neighbors, 0)
    assert int(np.isfinite(bridged.distances[:, -1]).sum()) == 3
    assert np.isfinite(shortest_paths(bridged.distances, bridged.indices, jnp.array([0]))).all()
    gradient = jax.grad(
        lambda x: jnp.where(jnp.isfinite(d := connected_neighbors(x, neighbors, 0).distances), d, 0).sum()
    )
    assert np.isfinite(gradient(cells)).all()


def test_a_connected_graph_gets_no_bridge(cells: np.ndarray) -> None:
    neighbors = nearest_neighbors(jnp.asarray(cells), 30)
    bridged = connected_neighbors(jnp.asarray(cells), neighbors, 3)
    assert np.isinf(bridged.distances[:, -1]).all()
    np.testing.assert_array_equal(bridged.indices[:, :-1], neighbors.indices)
