"""PCAProjection against scikit-learn's full SVD, and its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from diffbio.core.errors import ConfigError, ContractError, MissingRandomnessError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization import PCAProjection, PCAProjectionConfig, principal_components, project


@pytest.fixture(scope="module")
def scaled() -> np.ndarray:
    """Scaled PBMC 68k, 700 cells x 765 genes."""
    x = pbmc68k_reduced().X.toarray()
    return np.clip((x - x.mean(0)) / x.std(0, ddof=1), -10, 10).astype(np.float32)


@pytest.mark.parametrize("orientation", ["wide", "tall"])
def test_fifty_components_equal_scikit_learn(scaled: np.ndarray, orientation: str, certificate) -> None:
    x = scaled if orientation == "wide" else scaled[:, :300]
    found = principal_components(jnp.asarray(x), 50)
    reference = PCA(50, svd_solver="full").fit(x.astype(np.float64))
    angle = subspace_angles(np.asarray(found.components, np.float64), reference.components_.T).max()
    gram = np.asarray(found.components.T @ found.components)
    signs = (np.asarray(found.components) * reference.components_.T).sum(0)
    certificate(
        operator="PCAProjection",
        reference="scikit-learn PCA",
        data=f"PBMC 68k, {len(x)} x {x.shape[1]}",
        quantity="largest angle to the subspace of 50 components, radians",
        value=angle,
        bar="< 1e-3",
    )
    assert angle < 1e-3
    assert (signs > 0.999).all()
    np.testing.assert_allclose(gram, np.eye(50), atol=1e-5)
    np.testing.assert_allclose(found.explained_variance, reference.explained_variance_, rtol=1e-4)
    embeddings = project(jnp.asarray(x), found.mean, found.components)
    np.testing.assert_allclose(embeddings[:, :10], reference.transform(x)[:, :10], atol=2e-3)


@pytest.mark.parametrize("learnable", [True, False])
def test_the_operator_projects_onto_its_principal_components(scaled: np.ndarray, learnable: bool) -> None:
    config = PCAProjectionConfig(n_genes=765, n_components=5, learnable=learnable)
    operator = PCAProjection(config, rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(scaled))
    embeddings = np.asarray(operator.apply({"scaled": scaled}, {}, None)[0]["embeddings"])
    np.testing.assert_allclose(embeddings.var(0, ddof=1), operator.explained_variance[...], rtol=1e-3)
    covariance = np.cov(embeddings.T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3 * covariance.max()
    assert len(jax.tree.leaves(nnx.state(operator, nnx.Param))) == int(learnable)
    alone = operator.compute(jnp.asarray(scaled[0]))
    np.testing.assert_allclose(alone.embeddings, embeddings[0], atol=1e-3)


def test_before_initialize_it_is_a_random_orthonormal_projection() -> None:
    config = PCAProjectionConfig(n_genes=30, n_components=4)
    one, other = (PCAProjection(config, rngs=nnx.Rngs(seed)).components[...] for seed in (0, 1))
    np.testing.assert_allclose(one.T @ one, np.eye(4), atol=1e-5)
    assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((6, 4)),
        np.full((6, 4), 3.7),
        np.outer(np.arange(6.0), [1.0, 2.0, 3.0, 4.0]),
        np.repeat([[1.0, 0.0, 2.0, 5.0]], 6, axis=0),
        1e-20 * np.arange(24.0).reshape(6, 4),
        1e15 * np.arange(24.0).reshape(6, 4) ** 2,
    ],
    ids=["zero", "constant", "rank one", "equal rows", "tiny", "huge"],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_degenerate_input_gives_finite_orthonormal_components(x: np.ndarray, transposed: bool) -> None:
    x = jnp.asarray(x.T if transposed else x, jnp.float32)
    found = principal_components(x, 4)
    assert all(np.isfinite(array).all() for array in found)
    np.testing.assert_allclose(found.components.T @ found.components, np.eye(4), atol=1e-5)
    gradient = jax.grad(lambda x: project(x, *principal_components(x, 4)[:2]).sum())(x)
    assert np.isfinite(gradient).all()


def test_learnable_components_and_inputs_have_gradients(scaled: np.ndarray) -> None:
    operator = PCAProjection(PCAProjectionConfig(n_genes=765, n_components=3, learnable=True), rngs=nnx.Rngs(0))
    operator.initialize(jnp.asarray(scaled))

    def energy(operator: PCAProjection, x: jax.Array) -> jax.Array:
        return jnp.tanh(operator.compute(x).embeddings).sum()

    by_components, by_input = nnx.grad(energy, argnums=(0, 1))(operator, jnp.asarray(scaled))
    assert float(jnp.abs(by_components.components[...]).sum()) > 0
    assert float(jnp.abs(by_input).sum()) > 0


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="choose n_components <= 3"):
        PCAProjectionConfig(n_genes=3, n_components=4)
    with pytest.raises(MissingRandomnessError):
        PCAProjection(PCAProjectionConfig(n_genes=3, n_components=2))
    operator = PCAProjection(PCAProjectionConfig(n_genes=9, n_components=5), rngs=nnx.Rngs(0))
    with pytest.raises(ContractError, match="4 cells of 9 genes have between 1 and 4 principal components"):
        operator.initialize(jnp.ones((4, 9)))
