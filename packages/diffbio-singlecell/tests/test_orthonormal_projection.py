"""The projection that stays orthonormal: its polar factor, its training to principal components, its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from flax import nnx
from jax.test_util import check_grads
from sklearn.decomposition import PCA

from diffbio.core.errors import ConfigError, ContractError, MissingRandomnessError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.orthonormal_projection import (
    OrthonormalProjection,
    OrthonormalProjectionConfig,
    orthonormalized,
)


def projection(n_genes: int, n_components: int, seed: int = 0) -> OrthonormalProjection:
    config = OrthonormalProjectionConfig(n_genes=n_genes, n_components=n_components)
    return OrthonormalProjection(config, rngs=nnx.Rngs(seed))


def test_the_nearest_orthonormal_matrix_is_that_of_scipy(certificate) -> None:
    weights = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    error = np.abs(orthonormalized(weights) - scipy.linalg.polar(weights.astype(np.float64))[0]).max()
    certificate(
        operator="OrthonormalProjection",
        reference="scipy.linalg.polar",
        data="normal draws, 50 x 7",
        quantity="largest difference",
        value=error,
        bar="< 1e-5",
    )
    assert error < 1e-5


def test_training_finds_the_principal_components_and_stays_orthonormal(certificate) -> None:
    """The orthonormal directions that lose least in a reconstruction are the principal ones."""
    x = jnp.asarray(pbmc68k_reduced().X.toarray()[:, :100])
    x = x - x.mean(0)
    operator, optimizer = projection(100, 3), optax.adam(0.02)
    graphdef, params, rest = nnx.split(operator, nnx.Param, ...)

    def loss(params: nnx.State) -> jax.Array:
        trained = nnx.merge(graphdef, params, rest)
        return jnp.square(x - trained.compute(x).embeddings @ trained.components.T).sum(1).mean()

    @jax.jit
    def step(params: nnx.State, state: optax.OptState) -> tuple:
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(300):
        params, state = step(params, state)
    components = nnx.merge(graphdef, params, rest).components
    drift = np.abs(components.T @ components - np.eye(3)).max()
    angle = scipy.linalg.subspace_angles(np.asarray(components, float), PCA(3).fit(x).components_.T).max()
    names = {"operator": "OrthonormalProjection", "reference": "scikit-learn PCA", "data": "PBMC 68k, 700 x 100"}
    certificate(**names, quantity="largest angle after training from random", value=angle, bar="< 0.02")
    certificate(**names, quantity="distance from orthonormal after training", value=drift, bar="< 1e-5")
    assert angle < 0.02
    assert drift < 1e-5


def test_initialized_it_is_principal_component_analysis() -> None:
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32) * np.arange(1, 7, dtype=np.float32)
    operator = projection(6, 2)
    operator.initialize(jnp.asarray(x))
    embeddings = operator.apply({"scaled": x}, {}, None)[0]["embeddings"]
    np.testing.assert_allclose(embeddings, PCA(2).fit_transform(x), atol=1e-3)


def test_gradients_match_finite_differences() -> None:
    weights = np.random.default_rng(1).normal(size=(2, 6, 3))
    with jax.enable_x64(True):
        check_grads(
            lambda w: (weights[1] * orthonormalized(w)).sum(), (weights[0],), order=1, modes=["rev", "fwd"], rtol=1e-5
        )


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_the_scale_of_the_weights_does_not_matter(scale: float) -> None:
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), jnp.float32)
    np.testing.assert_allclose(orthonormalized(scale * weights), orthonormalized(weights), atol=1e-5)
    gradient = jax.grad(lambda w: orthonormalized(w)[0, 0])(scale * weights)
    expected = jax.grad(lambda w: orthonormalized(w)[0, 0])(weights)
    np.testing.assert_allclose(gradient * scale, expected, atol=1e-5)


@pytest.mark.parametrize(
    "weights",
    [np.zeros((5, 3)), np.ones((5, 3)), np.eye(5, 3) * [1, 1, 0], np.eye(3), np.ones((4, 1))],
    ids=["zero", "equal columns", "a zero column", "square", "one column"],
)
def test_at_rank_loss_directions_are_orthonormal_and_gradients_finite(weights: np.ndarray) -> None:
    weights = jnp.asarray(weights, jnp.float32)
    found = orthonormalized(weights)
    np.testing.assert_allclose(found.T @ found, np.eye(weights.shape[1]), atol=1e-5)
    mixed = jnp.asarray(np.random.default_rng(0).normal(size=weights.shape), jnp.float32)
    assert np.isfinite(jax.grad(lambda w: (mixed * orthonormalized(w)).sum())(weights)).all()


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="choose n_components <= 3"):
        OrthonormalProjectionConfig(n_genes=3, n_components=4)
    with pytest.raises(MissingRandomnessError):
        OrthonormalProjection(OrthonormalProjectionConfig(n_genes=3, n_components=2))
    with pytest.raises(ContractError, match="weights have 3 columns of 2 entries"):
        orthonormalized(jnp.ones((2, 3)))
