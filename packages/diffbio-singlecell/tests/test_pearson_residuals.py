"""PearsonResiduals against scanpy, and at its edges."""

from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from real_counts import pbmc_counts, sample_counts

from diffbio.core.errors import ConfigError, DataError
from diffbio.operators.normalization.pearson_residuals import (
    PearsonResiduals,
    PearsonResidualsConfig,
    gene_shares,
    pearson_residuals,
)


def residuals_of(counts: np.ndarray, **config: float) -> np.ndarray:
    operator = PearsonResiduals(PearsonResidualsConfig(n_genes=counts.shape[1], **config))
    operator.initialize(jnp.asarray(counts))
    return np.asarray(operator.apply({"counts": counts}, {}, None)[0]["pearson_residuals"])


def compare_with_scanpy(counts: np.ndarray, data: str, certificate: Callable[..., None]) -> None:
    sc = pytest.importorskip("scanpy")
    for theta, clip in ((100.0, None), (5.0, 3.0)):
        cells = sc.AnnData(counts.astype(np.float64))
        theirs = sc.experimental.pp.normalize_pearson_residuals(cells, theta=theta, clip=clip, inplace=False)
        error = np.abs(residuals_of(counts, theta=theta, max_residual=clip) - theirs["X"]).max()
        certificate(
            operator="PearsonResiduals",
            reference=f"scanpy {version('scanpy')}",
            data=data,
            quantity=f"residuals (theta {theta:g}, clip {clip or 'sqrt(cells)'}), largest difference",
            value=float(error),
            bar="<= 1e-4",
        )
        assert error <= 1e-4


def test_residuals_are_those_of_scanpy(certificate: Callable[..., None]) -> None:
    compare_with_scanpy(pbmc_counts(), "PBMC 68k counts, 700 cells x 765 genes", certificate)


@pytest.mark.slow
def test_residuals_of_a_whole_transcriptome_are_those_of_scanpy(certificate: Callable[..., None]) -> None:
    compare_with_scanpy(sample_counts(), "CellTypist sample, 559 cells x 9,810 genes", certificate)


def test_new_cells_are_compared_with_the_old() -> None:
    counts = pbmc_counts()
    operator = PearsonResiduals(PearsonResidualsConfig(n_genes=counts.shape[1]))
    operator.initialize(jnp.asarray(counts[:600]))
    together = operator.apply({"counts": counts[600:]}, {}, None)[0]["pearson_residuals"]
    alone = operator.apply({"counts": counts[650]}, {}, None)[0]["pearson_residuals"]
    np.testing.assert_allclose(alone, together[50], rtol=1e-5, atol=1e-6)
    shares = counts[:600].astype(np.float64).sum(0) / counts[:600].astype(np.float64).sum()
    mean = counts[600:].sum(1, keepdims=True) * shares
    expected = np.clip((counts[600:] - mean) / np.sqrt(mean + mean**2 / 100), -np.sqrt(600), np.sqrt(600))
    np.testing.assert_allclose(together, expected, atol=1e-4)


def test_depth_alone_leaves_unit_variance() -> None:
    """Poisson counts of one profile at unlike depths, the case without biology."""
    random = np.random.default_rng(0)
    rates = random.gamma(1.0, 1.0, 300) * random.lognormal(0, 0.7, (2000, 1)) * 5
    residuals = residuals_of(random.poisson(rates).astype(np.float32), theta=1e6)
    print(f"mean square of residuals without biology: {np.mean(residuals**2):.3f}")
    assert abs(np.mean(residuals**2) - 1) < 0.02


def test_training_theta_finds_the_overdispersion() -> None:
    """At the true theta the mean square of the residuals is 1."""
    random = np.random.default_rng(1)
    rates = random.gamma(2.0, 1.0, 200) * random.lognormal(0, 0.5, (1000, 1)) * 5
    counts = jnp.asarray(random.poisson(rates * random.gamma(4.0, 1 / 4.0, rates.shape)), jnp.float32)
    operator = PearsonResiduals(PearsonResidualsConfig(n_genes=200, max_residual=1e3, learnable=True))
    operator.initialize(counts)

    @nnx.jit
    def step(operator: PearsonResiduals) -> None:
        def excess(operator: PearsonResiduals) -> jax.Array:
            return jnp.square(jnp.square(operator.compute(counts).pearson_residuals).mean() - 1)

        gradient = nnx.grad(excess)(operator)
        operator.log_theta[...] -= 0.3 * gradient.log_theta[...]

    for _ in range(100):
        step(operator)
    theta = float(jnp.exp(operator.log_theta[...]))
    print(f"theta starts at 100, is 4, and is found as {theta:.2f}")
    assert abs(theta - 4) < 0.2


def test_gradients_match_finite_differences() -> None:
    random = np.random.default_rng(2)
    counts = jnp.asarray(random.gamma(1.0, 3.0, (4, 5)), jnp.float32)
    shares = gene_shares(counts)

    def residuals(counts: jax.Array, shares: jax.Array, theta: jax.Array) -> jax.Array:
        return pearson_residuals(counts, shares, theta=theta, max_residual=50.0)

    check_grads(residuals, (counts, shares, jnp.float32(7.0)), order=1, modes=["rev"], eps=1e-2, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_empty_cells_and_absent_genes_are_zero_and_finite(scale: float) -> None:
    counts = pbmc_counts()[:30, :40]
    counts[3], counts[:, 7], counts[5] = 0, 0, counts[6]
    shares = gene_shares(jnp.asarray(counts))
    counts[8, 7] = 4  # expressed by none of the cells that the shares come from

    def total(counts: jax.Array, shares: jax.Array, theta: jax.Array) -> jax.Array:
        return pearson_residuals(counts, shares, theta=theta, max_residual=5.0).sum()

    residuals = pearson_residuals(jnp.asarray(scale * counts), shares, max_residual=5.0)
    assert np.isfinite(residuals).all()
    assert (np.asarray(residuals)[3] == 0).all()
    assert (np.asarray(residuals)[:, 7] == 0).all()
    gradients = jax.grad(total, (0, 1, 2))(jnp.asarray(scale * counts), shares, jnp.float32(100.0))
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_clipped_residual_has_no_gradient() -> None:
    counts = jnp.array([[100.0, 1.0], [1.0, 100.0]])
    gradient = jax.grad(lambda x: pearson_residuals(x, jnp.array([0.01, 0.99]), max_residual=2.0)[0, 0])(counts)
    assert (np.asarray(gradient) == 0).all()


def test_before_initialize_all_genes_have_the_same_share() -> None:
    operator = PearsonResiduals(PearsonResidualsConfig(n_genes=2))
    residuals = operator.compute(jnp.array([[5.0, 5.0]])).pearson_residuals
    np.testing.assert_allclose(residuals, 0, atol=1e-6)
    assert not jax.tree.leaves(nnx.state(operator, nnx.Param))


def test_errors_say_what_is_wanted() -> None:
    with pytest.raises(ConfigError, match="theta is 0"):
        PearsonResidualsConfig(n_genes=2, theta=0.0)
    with pytest.raises(DataError, match="3 cells without any count"):
        PearsonResiduals(PearsonResidualsConfig(n_genes=2)).initialize(jnp.zeros((3, 2)))
