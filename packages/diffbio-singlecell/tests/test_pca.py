"""Principal component analysis with gradients, against scikit-learn, finite differences and its degenerate cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from diffbio.core.errors import ConfigError, ContractError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.pca import (
    PrincipalComponentAnalysis,
    PrincipalComponentAnalysisConfig,
    principal_components,
)


def analysed(scaled: np.ndarray, n_components: int) -> dict:
    operator = PrincipalComponentAnalysis(PrincipalComponentAnalysisConfig(n_components=n_components))
    return operator.apply({"scaled": jnp.asarray(scaled, jnp.float32)}, {}, None)[0]


def test_embeddings_and_loadings_are_those_of_scikit_learn(certificate) -> None:
    x = pbmc68k_reduced().X.toarray()
    scaled = np.clip((x - x.mean(0)) / x.std(0, ddof=1), -10, 10).astype(np.float32)
    found = analysed(scaled, 50)
    reference = PCA(50, svd_solver="full").fit(scaled.astype(np.float64))
    angle = subspace_angles(np.asarray(found["loadings"], np.float64), reference.components_.T).max()
    expected = reference.transform(scaled)
    error = np.abs(found["embeddings"][:, :20] - expected[:, :20]).max() / expected.std()
    names = {"operator": "PrincipalComponentAnalysis", "reference": "scikit-learn PCA", "data": "PBMC 68k, 700 x 765"}
    certificate(**names, quantity="largest angle of 50 components", value=angle, bar="< 1e-3")
    certificate(**names, quantity="largest error of 20 coordinates / their spread", value=error, bar="< 2e-3")
    assert angle < 1e-3
    assert error < 2e-3
    np.testing.assert_allclose(found["explained_variance"], reference.explained_variance_, rtol=1e-4)


@pytest.mark.parametrize("shape", [(9, 6), (5, 8), (6, 6)])
def test_gradients_match_finite_differences(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=shape) * np.linspace(0.5, 4, shape[1])
    weights = random.normal(size=(3, max(shape), 3))

    def total(x: jax.Array) -> jax.Array:
        mean, components, variance = principal_components(x, 3)
        embeddings = (x - mean) @ components
        terms = (weights[0, : shape[1]] * components, weights[1, : shape[0]] * embeddings, weights[2, 0] * variance)
        return sum(term.sum() for term in terms)

    with jax.enable_x64(True):
        check_grads(jax.jit(total), (jnp.asarray(x),), order=1, modes=["rev", "fwd"], rtol=1e-4)


def test_float32_gradients_are_right_where_the_components_are_many() -> None:
    x = np.random.default_rng(1).normal(size=(80, 40)) * 0.95 ** np.arange(40)
    weights = np.random.default_rng(2).normal(size=(40, 10))

    def slope(x: jax.Array) -> np.ndarray:
        total = jax.jit(lambda x: (weights.astype(x.dtype) * principal_components(x, 10).components).sum())
        return np.asarray(jax.grad(total)(x))

    found = slope(jnp.asarray(x, jnp.float32))
    with jax.enable_x64(True):
        exact = slope(jnp.asarray(x))
    error = np.abs(found - exact).max() / np.abs(exact).max()
    print(f"largest relative error of the float32 gradient: {error:.1e}")
    assert error < 1e-3


DEGENERATE = {
    "zero": np.zeros((6, 4)),
    "constant": np.full((6, 4), 3.7),
    "rank one": np.outer(np.arange(6.0), [1.0, 2.0, 3.0, 4.0]),
    "equal rows": np.repeat([[1.0, 0.0, 2.0, 5.0]], 6, axis=0),
    "equal genes": np.repeat(np.arange(6.0)[:, None], 4, axis=1),
    "tied variances": np.concatenate([np.eye(4), -np.eye(4)]),
    "one cell": np.arange(4.0)[None],
    "one gene": np.arange(6.0)[:, None],
    "tiny": 1e-20 * np.arange(24.0).reshape(6, 4) ** 2,
    "huge": 1e15 * np.arange(24.0).reshape(6, 4) ** 2,
}


@pytest.mark.parametrize("x", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("transposed", [False, True])
def test_degenerate_cells_give_finite_components_and_gradients(x: np.ndarray, transposed: bool) -> None:
    x = jnp.asarray(x.T if transposed else x, jnp.float32)
    n_components = min(x.shape)

    def total(x: jax.Array) -> jax.Array:
        mean, components, variance = principal_components(x, n_components)
        largest = jnp.abs(jax.lax.stop_gradient(x)).max()
        unit = jnp.where(largest > 0, largest, 1.0)
        return (((x - mean) / unit) @ components).sum() + components[0].sum() + (variance / unit**2).sum()

    found = principal_components(x, n_components)
    assert all(np.isfinite(array).all() for array in found)
    np.testing.assert_allclose(found.components.T @ found.components, np.eye(n_components), atol=1e-5)
    assert np.isfinite(jax.grad(total)(x)).all()


def test_a_loss_of_the_space_has_its_own_gradient_at_a_tie() -> None:
    """Where components tie, the reconstruction still has a gradient: it depends on the space alone."""
    x = jnp.asarray(np.concatenate([np.eye(4), -np.eye(4), 0.1 * np.random.default_rng(0).normal(size=(4, 4))]))

    def lost(x: jax.Array) -> jax.Array:
        mean, components, _ = principal_components(x, 4)
        return jnp.square((x - mean) @ components).sum()  # all of the variance, whatever the components are

    np.testing.assert_allclose(jax.grad(lost)(x), 2 * (x - x.mean(0)), atol=1e-4)


def test_one_pipeline_step_backwards_moves_the_data_towards_more_variance_in_one_component() -> None:
    x = jnp.asarray(np.random.default_rng(3).normal(size=(40, 6)), jnp.float32)

    def share(x: jax.Array) -> jax.Array:
        variance = principal_components(x, 6).explained_variance
        return variance[0] / variance.sum()

    step = jax.jit(lambda x: x + 5.0 * jax.grad(share)(x))
    moved = x
    for _ in range(100):
        moved = step(moved)
    print(f"share of the first component: {share(x):.2f} before, {share(moved):.2f} after")
    assert share(moved) > 0.8 > 0.5 > share(x)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="n_components is 0; it must be an integer >= 1"):
        PrincipalComponentAnalysisConfig(n_components=0)
    with pytest.raises(ContractError, match="4 cells of 9 genes have between 1 and 4 principal components"):
        analysed(np.ones((4, 9)), 5)
