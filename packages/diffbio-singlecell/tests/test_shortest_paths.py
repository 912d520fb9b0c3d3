"""Shortest paths against Dijkstra's algorithm in SciPy, gradients along the trees, bridges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.singlecell.neighbors import Neighbors, nearest_neighbors, neighbor_distances
from diffbio.operators.singlecell.shortest_paths import connected_neighbors, shortest_paths


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    """Real cells: principal components of the PBMC, to a largest magnitude of 1."""
    expression = pbmc68k_reduced().X.toarray()
    left, values, _ = np.linalg.svd(expression - expression.mean(0), full_matrices=False)
    return (left[:, :10] * values[:10] / values[0]).astype(np.float32)


def long_line(n_cells: int = 3000) -> np.ndarray:
    """Cells along a line that is some two hundred neighbourhoods long."""
    noise = np.random.default_rng(0).normal(scale=0.05, size=(n_cells, 2))
    return (noise + np.linspace([0, 0], [n_cells / 10, 0], n_cells)).astype(np.float32)


def by_dijkstra(neighbors: Neighbors, sources: np.ndarray) -> np.ndarray:
    n_cells, n_neighbors = neighbors.indices.shape
    lengths = np.asarray(neighbors.distances, np.float64).ravel()
    edge = np.isfinite(lengths)
    rows, columns = np.repeat(np.arange(n_cells), n_neighbors)[edge], np.asarray(neighbors.indices).ravel()[edge]
    graph = coo_matrix((lengths[edge], (rows, columns)), shape=(n_cells, n_cells)).tocsr()
    return dijkstra(graph, directed=False, indices=sources).T


@pytest.mark.parametrize("data", ["PBMC 68k", "line of 3,000 cells"])
def test_lengths_are_those_of_dijkstra(cells: np.ndarray, data: str, certificate) -> None:
    points = jnp.asarray(cells if data == "PBMC 68k" else long_line())
    neighbors = nearest_neighbors(points, 14)
    sources = np.arange(0, len(points), len(points) // 20)
    expected = by_dijkstra(neighbors, sources)
    found = np.asarray(shortest_paths(neighbors.distances, neighbors.indices, sources))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(found), finite)
    error = np.abs(found - expected)[finite].max() / expected[finite].max()
    certificate(
        operator="shortest_paths",
        reference="scipy csgraph.dijkstra, float64",
        data=f"{data}, 15 neighbours",
        quantity="largest difference over the largest length",
        value=error,
        bar="<= 1e-6",
    )
    assert error <= 1e-6


def test_lengths_are_exact_in_float64() -> None:
    points = long_line(600).astype(np.float64)
    with jax.enable_x64(True):
        neighbors = nearest_neighbors(jnp.asarray(points), 8)
        sources = np.array([0, 300, 599])
        found = shortest_paths(neighbors.distances, neighbors.indices, sources)
        np.testing.assert_allclose(found, by_dijkstra(neighbors, sources), rtol=1e-13)


def test_gradients_are_right() -> None:
    with jax.enable_x64(True):
        cells = jnp.asarray(np.random.default_rng(0).normal(size=(30, 3)))
        indices = nearest_neighbors(cells, 5).indices

        @jax.jit
        def distances(cells):  # in the lengths, cells that list each other are a tie
            return shortest_paths(neighbor_distances(cells, indices), indices, jnp.array([0, 7]))

        check_grads(distances, (cells,), order=1, modes=("rev",), eps=1e-7, rtol=1e-6)


def test_gradient_says_how_many_paths_use_an_edge(cells: np.ndarray) -> None:
    neighbors = nearest_neighbors(jnp.asarray(cells), 14)
    sources = jnp.arange(0, 700, 35)
    found, pull = jax.vjp(lambda w: shortest_paths(w, neighbors.indices, sources), neighbors.distances)
    reached = jnp.isfinite(found)
    uses = pull(jnp.ones_like(found))[0]
    np.testing.assert_array_equal(uses, jnp.round(uses))
    # a sum of lengths is what its edges give together
    np.testing.assert_allclose(jnp.sum(uses * neighbors.distances), jnp.sum(jnp.where(reached, found, 0)), rtol=1e-5)


def test_gradient_passes_through_duplicates() -> None:
    lengths = jnp.array([[1.0], [0.0], [0.0], [0.0], [2.0]])  # 0 -1- 1 -0- 2 -0- 3 -2- 4, and 3 is as far as 1
    indices = jnp.array([[1], [2], [3], [2], [3]])
    found, pull = jax.vjp(lambda w: shortest_paths(w, indices, jnp.array([0])), lengths)
    np.testing.assert_array_equal(found.ravel(), [0, 1, 1, 1, 3])
    gradient = pull(jnp.zeros((5, 1)).at[4].set(1.0))[0].ravel()
    np.testing.assert_array_equal(gradient[jnp.array([0, 1, 4])], [1, 1, 1])
    assert gradient[2] + gradient[3] == 1  # two edges of the same length join 2 and 3: either is a shortest path


def test_cells_out_of_reach_are_infinite_without_gradient() -> None:
    lengths, indices = jnp.array([[1.0], [1.0], [2.0], [2.0]]), jnp.array([[1], [0], [3], [2]])
    distances, pull = jax.vjp(lambda w: shortest_paths(w, indices, jnp.array([0])), lengths)
    np.testing.assert_array_equal(np.isinf(distances[:, 0]), [False, False, True, True])
    gradient = pull(jnp.ones_like(distances))[0].ravel()
    assert gradient[:2].sum() == 1
    assert (gradient[2:] == 0).all()


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1.0, 1e18])
def test_any_scale_gives_finite_values(scale: float) -> None:
    cells = jnp.asarray(np.random.default_rng(0).normal(size=(25, 2)), jnp.float32).at[:12].set(0.0)
    indices = connected_neighbors(cells, nearest_neighbors(cells, 6), 0).indices
    lengths = neighbor_distances(scale * cells, indices)
    distances, pull = jax.vjp(lambda w: shortest_paths(w, indices, jnp.array([0, 20])), lengths)
    assert np.isfinite(distances).all()
    assert np.isfinite(pull(jnp.ones_like(distances))[0]).all()


def test_what_is_not_a_number_shows_and_ends() -> None:
    lengths, indices = jnp.ones((4, 1)).at[1].set(jnp.nan), jnp.array([[1], [2], [3], [2]])
    distances, pull = jax.vjp(lambda w: shortest_paths(w, indices, jnp.array([0])), lengths)
    np.testing.assert_array_equal(np.isnan(distances.ravel()), [True, True, True, True])
    assert np.isfinite(pull(jnp.ones_like(distances))[0]).all()
    apart = connected_neighbors(jnp.array([[0.0], [0.0], [jnp.inf], [jnp.inf]]), Neighbors(indices, lengths), 3)
    assert apart.distances.shape == (4, 2)


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
