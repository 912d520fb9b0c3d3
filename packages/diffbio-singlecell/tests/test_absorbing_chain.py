"""Fate probabilities: known chains, a dense float64 solve, gradients, edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffbio.core.errors import ConfigError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.singlecell.absorbing_chain import (
    FateProbabilities,
    FateProbabilitiesConfig,
    Solver,
    absorption_probabilities,
    entropy_of_fates,
)
from diffbio.operators.singlecell.neighbors import nearest_neighbors


def densely(weights: np.ndarray, indices: np.ndarray, labels: np.ndarray, n_fates: int) -> np.ndarray:
    """Return (I - Q)^-1 R in float64."""
    walk = np.zeros((len(weights),) * 2)
    np.add.at(walk, (np.arange(len(weights))[:, None], indices), weights.astype(np.float64))
    walk /= walk.sum(1, keepdims=True)
    fates = np.eye(n_fates)[labels] * (labels >= 0)[:, None]
    inside = np.flatnonzero(labels < 0)
    within = np.eye(len(inside)) - walk[np.ix_(inside, inside)]
    fates[inside] = np.linalg.solve(within, walk[inside] @ fates)
    return fates


@pytest.fixture(scope="module")
def real_chain() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a walk on the graph of PBMC that drifts along a component, and terminal sets at both its ends."""
    expression = pbmc68k_reduced().X.toarray()
    left, values, _ = np.linalg.svd(expression - expression.mean(0), full_matrices=False)
    cells = (left[:, :5] * values[:5]).astype(np.float32)
    neighbors = nearest_neighbors(jnp.asarray(cells), 20)
    indices, lengths = np.asarray(neighbors.indices), np.asarray(neighbors.distances)
    time = cells[:, 0]
    weights = np.exp(-((lengths / lengths[:, [6]]) ** 2) + np.sign(time[indices] - time[:, None]) / 10)
    labels = np.full(700, -1, np.int32)
    labels[time.argsort()[-20:]], labels[time.argsort()[:20]] = 1, 0
    return weights.astype(np.float32), indices, labels


@pytest.mark.parametrize(("solver", "bar"), [("direct", 1e-4), ("gmres", 5e-3)])
def test_probabilities_are_those_of_a_dense_solve_on_pbmc(real_chain, solver: Solver, bar: float, certificate) -> None:
    weights, indices, labels = real_chain
    operator = FateProbabilities(FateProbabilitiesConfig(n_fates=2, solver=solver))
    data = {"transition_weights": weights, "neighbor_indices": indices, "terminal_labels": labels}
    result = operator.apply(data, {}, None)[0]
    expected = densely(weights, indices, labels, 2)
    error = np.abs(result["fate_probabilities"] - expected).max()
    certificate(
        operator="FateProbabilities",
        reference="numpy.linalg.solve, float64",
        data=f"PBMC 68k, walks of up to 90,000 steps, solver {solver}",
        quantity="largest difference of probabilities",
        value=error,
        bar=f"<= {bar:g}",
    )
    assert error <= bar
    entropy = -np.sum(expected * np.log(np.maximum(expected, 1e-30)), axis=1)
    np.testing.assert_allclose(result["fate_entropy"], entropy, atol=20 * bar)


@pytest.mark.parametrize("n_cells", [3, 40, 300])
def test_gamblers_ruin(n_cells: int) -> None:
    line = np.arange(n_cells)
    indices = np.clip(line[:, None] + [-1, 1, 0], 0, n_cells - 1)  # lazy: it may stay
    labels = np.where(line == 0, 0, np.where(line == n_cells - 1, 1, -1))
    found = absorption_probabilities(jnp.ones((n_cells, 3)), indices, labels, n_fates=2)
    np.testing.assert_allclose(found[:, 1], line / (n_cells - 1), atol=3e-4)


def test_cells_that_reach_nothing_have_no_fate_and_harm_no_other() -> None:
    indices = jnp.array([[1, 1], [0, 2], [2, 2], [4, 4], [3, 3], [5, 5]])
    labels = jnp.array([-1, -1, 0, -1, -1, -1])
    weights = jnp.ones((6, 2)).at[5].set(0.0)
    found, pull = jax.vjp(lambda w: absorption_probabilities(w, indices, labels, n_fates=1), weights)
    np.testing.assert_allclose(found.ravel(), [1, 1, 1, 0, 0, 0], atol=1e-5)
    assert np.isfinite(pull(jnp.ones_like(found))[0]).all()


def test_one_fate_all_terminal_and_one_cell() -> None:
    ones, indices = jnp.ones((2, 1)), jnp.array([[1], [0]])
    both = absorption_probabilities(ones, indices, jnp.array([1, 0]), n_fates=2)
    np.testing.assert_array_equal(both, [[0, 1], [1, 0]])
    none = absorption_probabilities(ones, indices, jnp.array([-1, -1]), n_fates=2)
    np.testing.assert_array_equal(none, np.zeros((2, 2)))
    alone = absorption_probabilities(jnp.ones((1, 1)), jnp.array([[0]]), jnp.array([0]), n_fates=1)
    np.testing.assert_array_equal(alone, [[1]])


@pytest.mark.parametrize("solver", ["direct", "gmres"])
def test_gradients_are_right(solver: Solver) -> None:
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        indices = jnp.asarray(random.integers(0, 20, (20, 4)))
        labels = jnp.full(20, -1).at[jnp.array([3, 4, 11])].set(jnp.array([0, 0, 1]))

        @jax.jit
        def fates(weights):
            found = absorption_probabilities(weights, indices, labels, n_fates=2, solver=solver)
            return found, entropy_of_fates(found)

        tolerance = 1e-4 if solver == "direct" else 1e-3
        point = (jnp.asarray(random.gamma(2.0, size=(20, 4))),)
        check_grads(fates, point, order=1, modes=("rev",), eps=1e-6, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_weights_have_no_unit(real_chain, scale: float) -> None:
    weights, indices, labels = real_chain
    found, pull = jax.vjp(
        lambda w: absorption_probabilities(w, indices, labels, n_fates=2), jnp.asarray(weights * np.float32(scale))
    )
    if scale:
        expected = absorption_probabilities(weights, indices, labels, n_fates=2)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.isfinite(found).all()
    assert np.isfinite(pull(jnp.ones_like(found))[0]).all()


def test_entropy_of_certain_and_open_fates() -> None:
    shares = jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    entropy, pull = jax.vjp(entropy_of_fates, shares)
    np.testing.assert_allclose(entropy, [0, np.log(3), 0], atol=1e-6)
    assert np.isfinite(pull(jnp.ones(3))[0]).all()


def test_solver_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="solver"):
        FateProbabilitiesConfig(n_fates=2, solver="cholesky")  # pyright: ignore[reportArgumentType]
