"""Gaussian mixtures: the same steps as scikit-learn's on real cells, and the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture as ScikitMixture

from diffbio.core.errors import ContractError, DataError, MissingRandomnessError
from diffbio.operators.singlecell.gaussian_components import fit_gaussian_mixture, gaussian_mixture
from diffbio.operators.singlecell.gaussian_mixture import GaussianMixture, GaussianMixtureConfig

SCIKIT = {"full": "full", "diagonal": "diag", "spherical": "spherical"}


class StartedAt(ScikitMixture):
    """scikit-learn's mixture, started at given responsibilities."""

    def __init__(self, start=None, **options):
        super().__init__(**options)
        self.start = start

    def _initialize_parameters(self, X, random_state, xp=None):
        self._initialize(X, self.start)


def pbmc():
    scanpy = pytest.importorskip("scanpy")
    adata = scanpy.datasets.pbmc68k_reduced()
    return adata.obsm["X_pca"][:, :20].astype(np.float32), adata.obs["bulk_labels"]


def ellipses(n_cells=90, seed=0):
    random = np.random.default_rng(seed)
    types = np.arange(n_cells) % 3
    stretch = np.array([[[3.0, 1.0], [0.0, 0.3]], [[0.4, 0.0], [0.2, 2.0]], [[1.0, -0.8], [0.0, 0.5]]])
    centres = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    points = centres[types] + np.einsum("nij,ni->nj", stretch[types], random.normal(size=(n_cells, 2)))
    return points.astype(np.float32), types


@pytest.mark.parametrize("covariance", SCIKIT)
def test_same_start_gives_what_scikit_learn_finds_on_pbmc(covariance, certificate):
    cells, _ = pbmc()
    random = np.random.default_rng(0)
    centres = cells[random.choice(len(cells), 8, replace=False)]
    start = np.eye(8)[((cells[:, None] - centres) ** 2).sum(-1).argmin(1)]
    regularization, steps = 1e-3, 200
    theirs = StartedAt(
        start,
        n_components=8,
        covariance_type=SCIKIT[covariance],
        reg_covar=regularization * cells.astype(np.float64).var(0).mean(),
        max_iter=steps,
        tol=1e-9,
    ).fit(cells.astype(np.float64))
    components = fit_gaussian_mixture(
        cells,
        jnp.asarray(start, jnp.float32),
        covariance=covariance,
        regularization=regularization,
        max_iterations=steps,
    )
    ours = gaussian_mixture(cells, components)
    likelihood = np.abs(ours.cluster_log_likelihood - theirs.score_samples(cells.astype(np.float64))).max()
    shares = np.abs(ours.cluster_assignments - theirs.predict_proba(cells.astype(np.float64))).max()
    for quantity, value in (
        (f"largest difference of a cell's log-likelihood, {covariance}, nats", likelihood),
        (f"largest difference of a responsibility, {covariance}", shares),
    ):
        certificate(
            operator="GaussianMixture",
            reference="scikit-learn GaussianMixture",
            data="PBMC 68k reduced, 20 components",
            quantity=quantity,
            value=value,
            bar="<= 1e-3",
        )
    assert likelihood <= 1e-3
    assert shares <= 1e-3


def test_initialized_mixture_is_as_likely_as_scikit_learns_on_pbmc(certificate):
    cells, truth = pbmc()
    config = GaussianMixtureConfig(n_clusters=8, n_features=20, regularization=1e-3, n_starts=3)
    ours, theirs, ari = [], [], []
    for seed in range(3):
        mixture = GaussianMixture(config, rngs=nnx.Rngs(seed))
        mixture.initialize(jnp.asarray(cells), key=jax.random.key(seed))
        result = mixture.apply({"embeddings": cells}, {}, None)[0]
        ours.append(float(result["cluster_log_likelihood"].mean()))
        ari.append(adjusted_rand_score(truth, np.asarray(result["cluster_assignments"]).argmax(1)))
        reference = ScikitMixture(8, reg_covar=1e-3 * cells.var(0).mean(), n_init=3, random_state=seed, max_iter=300)
        theirs.append(reference.fit(cells.astype(np.float64)).score(cells.astype(np.float64)))
    print(f"log-likelihood per cell: ours {ours}, scikit-learn {theirs}; ARI with bulk labels {ari}")
    certificate(
        operator="GaussianMixture",
        reference="scikit-learn GaussianMixture",
        data="PBMC 68k reduced, 20 components, best of 3 starts, mean of 3 seeds",
        quantity="log-likelihood per cell less scikit-learn's, nats",
        value=np.mean(ours) - np.mean(theirs),
        bar=">= -0.2",
    )
    assert np.mean(ours) - np.mean(theirs) >= -0.2


def test_shapes_are_found_that_spheres_do_not_have():
    cells, types = ellipses()
    mixture = GaussianMixture(GaussianMixtureConfig(n_clusters=3, n_features=2), rngs=nnx.Rngs(0))
    mixture.initialize(jnp.asarray(cells), key=jax.random.key(0))
    result = mixture.apply({"embeddings": cells}, {}, None)[0]
    assert adjusted_rand_score(types, np.asarray(result["cluster_assignments"]).argmax(1)) > 0.95


@pytest.mark.parametrize("covariance", SCIKIT)
def test_embeddings_of_any_scale_give_the_same_clusters(covariance):
    cells, _ = ellipses()
    mixture = GaussianMixture(
        GaussianMixtureConfig(n_clusters=3, n_features=2, covariance=covariance), rngs=nnx.Rngs(0)
    )

    def assignments(cells):
        mixture.initialize(cells, key=jax.random.key(1))
        found = np.asarray(mixture.compute(cells).cluster_assignments)
        return found[:, np.argsort(found.T @ np.arange(len(found)))]  # numbers of clusters mean nothing

    expected = assignments(jnp.asarray(cells))
    for scale in (1e-12, 1e12):
        np.testing.assert_allclose(assignments(jnp.asarray(cells * np.float32(scale))), expected, atol=1e-3)


def test_fewer_cells_than_features_duplicates_and_constants_stay_finite():
    random = np.random.default_rng(0)
    config = GaussianMixtureConfig(n_clusters=3, n_features=20)
    mixture = GaussianMixture(config, rngs=nnx.Rngs(0))

    @jax.jit
    def gradients(components, points):
        def total(components, points):
            found = gaussian_mixture(points, components)
            return found.cluster_log_likelihood.sum() + found.cluster_assignments[:, 0].sum()

        return jax.grad(total, argnums=(0, 1))(components, points)

    for cells in (
        random.normal(size=(12, 20)),
        np.repeat(random.normal(size=(2, 20)), 6, axis=0),
        np.full((12, 20), 7.0),
        np.zeros((12, 20)),
    ):
        points = jnp.asarray(cells, jnp.float32)
        mixture.initialize(points, key=jax.random.key(0))
        assert np.isfinite(mixture.compute(points).cluster_log_likelihood).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients(mixture.components, points)))


def test_one_component_is_the_normal_distribution_of_the_cells():
    from scipy.stats import multivariate_normal

    cells, _ = ellipses()
    components = fit_gaussian_mixture(cells, jnp.ones((90, 1)), regularization=1e-6)
    covariance = np.cov(cells.T, bias=True) + 1e-6 * cells.var(0).mean() * np.eye(2)
    found = gaussian_mixture(cells, components).cluster_log_likelihood
    np.testing.assert_allclose(found, multivariate_normal(cells.mean(0), covariance).logpdf(cells), atol=1e-4)


def test_component_without_cells_stays():
    cells, _ = ellipses()
    start = jnp.zeros((90, 2)).at[:, 0].set(1.0)
    found = gaussian_mixture(cells, fit_gaussian_mixture(cells, start))
    assert np.isfinite(found.cluster_log_likelihood).all()
    assert (found.cluster_assignments[:, 0] > 0.99).all()


def test_gradients_are_right_by_cells_and_parameters():
    cells, _ = ellipses(12)
    components = fit_gaussian_mixture(cells, jnp.eye(3)[np.arange(12) % 3], max_iterations=2, regularization=0.05)

    def outputs(cells, components, softness):
        return gaussian_mixture(cells, components, softness=softness)

    point = (jnp.asarray(cells), components, jnp.float32(2.0))
    check_grads(outputs, point, order=1, modes=("rev",), rtol=3e-2, atol=3e-2)


def test_training_by_likelihood_reaches_what_expectation_maximization_finds():
    cells, types = ellipses()
    mixture = GaussianMixture(GaussianMixtureConfig(n_clusters=3, n_features=2), rngs=nnx.Rngs(1))
    optimizer = nnx.Optimizer(mixture, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(mixture, optimizer):
        def loss(mixture):
            return -mixture.compute(jnp.asarray(cells)).cluster_log_likelihood.mean()

        value, gradients = nnx.value_and_grad(loss)(mixture)
        optimizer.update(mixture, gradients)
        return value

    values = [float(step(mixture, optimizer)) for _ in range(400)]
    best = fit_gaussian_mixture(cells, jax.nn.one_hot(types, 3))
    reached = -float(gaussian_mixture(cells, best).cluster_log_likelihood.mean())
    print(f"loss {values[0]:.2f} -> {values[-1]:.3f}; by expectation-maximization from the true types {reached:.3f}")
    assert values[-1] < reached + 0.05


def test_errors_say_what_is_wanted():
    config = GaussianMixtureConfig(n_clusters=3, n_features=2)
    with pytest.raises(MissingRandomnessError):
        GaussianMixture(config)
    mixture = GaussianMixture(config, rngs=nnx.Rngs(0))
    with pytest.raises(ContractError, match="3 clusters were asked for among 2 cells"):
        mixture.initialize(jnp.zeros((2, 2)), key=jax.random.key(0))
    with pytest.raises(DataError, match="raise regularization"):
        mixture.initialize(jnp.full((4, 2), jnp.nan), key=jax.random.key(0))
