"""QuantileNormalization against limma's rule in NumPy and against qnorm, and its edges."""

from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from real_counts import sample_counts
from scipy.stats import rankdata, spearmanr

from diffbio.core.errors import ConfigError, ContractError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.quantile_normalization import (
    QuantileNormalization,
    QuantileNormalizationConfig,
    mean_quantiles,
    quantile_normalize,
)

HARD = 1e-12  # below the distance of any two floats that differ


def pbmc() -> np.ndarray:
    """PBMC 68k, 700 cells x 765 genes, log-normalized: two thirds of each cell are zeros."""
    return pbmc68k_reduced().X.toarray()


def bulk(expression: np.ndarray, n_samples: int) -> np.ndarray:
    """Means over the cells dealt out to samples, of the genes that all of these express, the few ties broken."""
    random = np.random.default_rng(0)
    sample = random.integers(n_samples, size=len(expression))
    means = np.stack([expression[sample == i].mean(0) for i in range(n_samples)])
    means = means[:, (means > 0).all(0)]
    return means * random.uniform(1, 1.001, means.shape).astype(np.float32)


def limma(values: np.ndarray) -> np.ndarray:
    """The quantile normalization of limma: the target is interpolated at the mean rank of equal values."""
    values = values.astype(np.float64)
    places = np.arange(1, values.shape[1] + 1)
    return np.interp(rankdata(values, axis=1), places, np.sort(values, axis=1).mean(0))


def normalized(values: np.ndarray, temperature: float = HARD) -> np.ndarray:
    operator = QuantileNormalization(QuantileNormalizationConfig(n_genes=values.shape[1], temperature=temperature))
    operator.initialize(jnp.asarray(values))
    return np.asarray(operator.apply({"counts": values}, {}, None)[0]["quantile_normalized"])


def test_the_hard_limit_is_the_rule_of_limma(certificate: Callable[..., None]) -> None:
    error = np.abs(normalized(pbmc()) - limma(pbmc())).max()
    certificate(
        operator="QuantileNormalization",
        reference="normalizeQuantiles of limma, in NumPy",
        data="PBMC 68k, 700 cells x 765 genes, most values tied",
        quantity="largest difference, in nats",
        value=float(error),
        bar="<= 1e-4",
    )
    assert error <= 1e-4


@pytest.mark.slow
def test_the_hard_limit_holds_for_a_whole_transcriptome_of_counts(certificate: Callable[..., None]) -> None:
    counts = sample_counts()
    error = np.abs(normalized(counts) - limma(counts)).max()
    certificate(
        operator="QuantileNormalization",
        reference="normalizeQuantiles of limma, in NumPy",
        data="CellTypist sample, 559 cells x 9,810 genes",
        quantity="largest difference, in counts up to 1,448",
        value=float(error),
        bar="<= 1e-4",
    )
    assert error <= 1e-4


@pytest.mark.slow
def test_the_hard_limit_is_qnorm_where_no_values_are_equal(certificate: Callable[..., None]) -> None:
    qnorm = pytest.importorskip("qnorm")
    values = bulk(np.log1p(sample_counts()), 20)
    error = np.abs(normalized(values) - qnorm.quantile_normalize(values.T.astype(np.float64)).T).max()
    certificate(
        operator="QuantileNormalization",
        reference=f"qnorm {version('qnorm')}",
        data=f"20 bulk samples of CellTypist's cells x {values.shape[1]:,} genes",
        quantity="largest difference, in nats",
        value=float(error),
        bar="<= 1e-4",
    )
    assert error <= 1e-4


def test_all_cells_have_the_same_distribution_and_their_own_order() -> None:
    values = bulk(pbmc(), 8)
    result = normalized(values)
    np.testing.assert_allclose(np.sort(result, axis=1), np.sort(result, axis=1)[:1].repeat(8, 0), atol=1e-5)
    for i in range(8):
        assert spearmanr(values[i], result[i])[0] > 1 - 1e-9


def test_a_soft_rank_stays_near_the_hard_one() -> None:
    values = bulk(pbmc(), 8)
    hard = limma(values)
    for temperature in (0.001, 0.01, 0.1):
        error = np.abs(normalized(values, temperature) - hard).mean()
        print(f"temperature {temperature}: values of mean {hard.mean():.2f} differ by {error:.1e} on average")
        assert error < temperature


def test_new_cells_get_the_distribution_of_the_old() -> None:
    values = bulk(pbmc(), 8)
    operator = QuantileNormalization(QuantileNormalizationConfig(n_genes=values.shape[1], temperature=HARD))
    operator.initialize(jnp.asarray(values))
    together = operator.apply({"counts": values}, {}, None)[0]["quantile_normalized"]
    alone = operator.apply({"counts": 3 * values[2] + 1}, {}, None)[0]["quantile_normalized"]
    np.testing.assert_allclose(alone, together[2], atol=1e-5)


def test_a_given_distribution_is_the_target() -> None:
    values = bulk(pbmc(), 8)
    sample = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    operator = QuantileNormalization(QuantileNormalizationConfig(n_genes=values.shape[1], temperature=HARD))
    operator.initialize_from_distribution(jnp.asarray(sample))
    result = np.asarray(operator.compute(jnp.asarray(values)).quantile_normalized)
    expected = np.quantile(sample, np.linspace(0, 1, values.shape[1]))
    np.testing.assert_allclose(np.sort(result, axis=1), expected[None].repeat(8, 0), atol=1e-4)
    with pytest.raises(ContractError, match=r"shape \(2, 3\)"):
        operator.initialize_from_distribution(jnp.ones((2, 3)))


def test_gradients_match_finite_differences() -> None:
    random = np.random.default_rng(1)
    values = jnp.asarray(random.normal(size=(2, 7)), jnp.float32)
    target = jnp.asarray(np.sort(random.gamma(2.0, size=7)), jnp.float32)

    @jax.jit
    def normalized(values: jax.Array, target: jax.Array, softness: jax.Array) -> jax.Array:
        return quantile_normalize(values, target + mean_quantiles(values, softness=softness), softness=softness)

    check_grads(normalized, (values, target, jnp.float32(0.5)), order=1, modes=["rev"], eps=1e-3, rtol=3e-2, atol=1e-2)


@pytest.mark.parametrize("values", [np.zeros((3, 5)), np.ones((3, 5)), np.full((3, 5), 1e30), np.eye(3, 5) * 1e-30])
def test_tied_cells_stay_tied_and_finite(values: np.ndarray) -> None:
    values = jnp.asarray(values, jnp.float32)
    target = mean_quantiles(values, mode="hard")

    def total(values: jax.Array, target: jax.Array) -> jax.Array:
        return quantile_normalize(values, target).sum()

    result = quantile_normalize(values, target)
    assert np.isfinite(result).all()
    assert all(np.isfinite(gradient).all() for gradient in jax.grad(total, (0, 1))(values, target))
    np.testing.assert_allclose(result[0][values[0] == 0], result[0][-1], rtol=1e-6)


def test_one_gene_one_cell_and_targets_of_other_lengths() -> None:
    one = quantile_normalize(jnp.array([[5.0], [7.0]]), jnp.array([0.0, 1.0, 10.0]))
    np.testing.assert_allclose(one, 1.0)
    np.testing.assert_allclose(quantile_normalize(jnp.array([3.0, 1.0]), jnp.array([4.0]), softness=HARD), 4.0)
    spread = quantile_normalize(jnp.array([3.0, 1.0, 2.0]), jnp.array([0.0, 10.0]), softness=HARD)
    np.testing.assert_allclose(spread, [10.0, 0.0, 5.0], atol=1e-4)


def test_memory_grows_with_cells_times_genes() -> None:
    target = jnp.zeros(4000)
    gradient = jax.grad(lambda x: jnp.square(quantile_normalize(x, target)).sum())
    shape = jax.ShapeDtypeStruct((20, 4000), jnp.float32)
    scratch = jax.jit(gradient).lower(shape).compile().memory_analysis().temp_size_in_bytes / (4 * 20 * 4000)
    print(f"scratch of the gradient for 20 cells x 4000 genes: {scratch:.0f} arrays of that size")
    assert scratch < 100


def test_errors_say_what_is_wanted() -> None:
    with pytest.raises(ConfigError, match="temperature is 0"):
        QuantileNormalizationConfig(n_genes=2, temperature=0.0)
    with pytest.raises(ContractError, match="genes=2"):
        QuantileNormalization(QuantileNormalizationConfig(n_genes=2)).apply(
            {"counts": np.ones((2, 3), np.float32)}, {}, None
        )
