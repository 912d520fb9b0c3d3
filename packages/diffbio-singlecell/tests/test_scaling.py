"""Scaling against scanpy's pp.scale, its merging statistics, and its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.core.errors import ContractError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization import Moments, Scaling, ScalingConfig, merge_moments, moments, standardize


@pytest.fixture(scope="module")
def normalized() -> np.ndarray:
    """Log-normalized PBMC 68k, with one constant and one silent gene."""
    x = np.asarray(pbmc68k_reduced().X.toarray(), np.float32)
    x[:, 3], x[:, 5] = 0.7, 0
    return x


@pytest.mark.parametrize("max_value", [10.0, 2.0, None])
def test_equals_scanpy(normalized: np.ndarray, max_value: float | None, certificate) -> None:
    sc = pytest.importorskip("scanpy")
    genes = normalized.std(0, dtype=np.float64) > 1e-6  # scanpy makes NaN of the constant 0.7
    expected = sc.pp.scale(normalized[:, genes].copy(), max_value=max_value)
    operator = Scaling(ScalingConfig(n_genes=normalized.shape[1], max_value=max_value))
    operator.initialize(jnp.asarray(normalized))
    scaled = np.asarray(operator.apply({"normalized": normalized}, {}, None)[0]["scaled"])
    error = np.abs(scaled[:, genes] - expected).max()
    certificate(
        operator="Scaling",
        reference="scanpy pp.scale",
        data="PBMC 68k, 700 x 765",
        quantity=f"largest difference, max_value={max_value}",
        value=error,
        bar="<= 1e-4",
    )
    assert error <= 1e-4
    assert (scaled[:, ~genes] == 0).all()


def test_before_initialize_it_only_clips() -> None:
    operator = Scaling(ScalingConfig(n_genes=2, max_value=1.0))
    scaled = operator.apply({"normalized": np.array([[0.5, 3.0]], np.float32)}, {}, None)[0]["scaled"]
    assert scaled.tolist() == [[0.5, 1.0]]


def test_new_cells_are_scaled_by_the_stored_statistics(normalized: np.ndarray) -> None:
    operator = Scaling(ScalingConfig(n_genes=normalized.shape[1], max_value=None))
    operator.initialize(jnp.asarray(normalized[:500]))
    scaled = operator.apply({"normalized": normalized[500]}, {}, None)[0]["scaled"]
    mean, std = normalized[:500].mean(0, dtype=np.float64), normalized[:500].std(0, ddof=1, dtype=np.float64)
    varies = std > 1e-6
    expected = (normalized[500] - mean)[varies] / std[varies]
    np.testing.assert_allclose(scaled[varies], expected, atol=1e-4)


def test_batches_of_cells_merge_to_the_statistics_of_all(normalized: np.ndarray) -> None:
    parts = [moments(jnp.asarray(part)) for part in np.array_split(normalized, 7)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merge_moments(merged, part)
    exact = normalized.astype(np.float64)
    assert float(merged.n_cells) == len(normalized)
    np.testing.assert_allclose(merged.mean, exact.mean(0), rtol=1e-5, atol=1e-7)
    variance = exact.var(0, ddof=1)
    np.testing.assert_allclose(merged.variance, np.where(variance > 1e-12, variance, 0), rtol=1e-4, atol=1e-7)

    whole, batched = Scaling(ScalingConfig(n_genes=765)), Scaling(ScalingConfig(n_genes=765))
    whole.initialize(jnp.asarray(normalized))
    batched.initialize_from_moments(merged)
    np.testing.assert_allclose(batched.std[...], whole.std[...], rtol=1e-4)


def test_variance_survives_a_large_mean() -> None:
    x = np.random.default_rng(0).normal(1000.0, 0.1, (5000, 3)).astype(np.float32)
    seen = moments(jnp.asarray(x))
    np.testing.assert_allclose(seen.variance, x.astype(np.float64).var(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, 1e-20])
def test_constant_genes_and_a_single_cell_have_variance_zero(value: float) -> None:
    assert (np.asarray(moments(jnp.full((1001, 2), value)).variance) == 0).all()
    assert (np.asarray(moments(jnp.full((1, 2), value)).variance) == 0).all()


def test_gradient_is_one_over_std_within_the_clip_and_zero_beyond() -> None:
    mean, std = jnp.array([1.0, 1.0]), jnp.array([2.0, 0.5])
    gradient = jax.grad(lambda x: standardize(x, mean, std, max_value=3.0).sum())(jnp.array([2.0, 50.0]))
    assert gradient.tolist() == [0.5, 0.0]


def test_gradient_of_the_moments_is_finite_for_constant_genes() -> None:
    def total(x: jax.Array) -> jax.Array:
        seen: Moments = moments(x)
        return seen.mean.sum() + seen.variance.sum()

    assert np.isfinite(jax.grad(total)(jnp.ones((4, 3)))).all()


def test_another_number_of_genes_is_an_error() -> None:
    with pytest.raises(ContractError, match="genes=3"):
        Scaling(ScalingConfig(n_genes=3)).apply({"normalized": np.ones((2, 4), np.float32)}, {}, None)
