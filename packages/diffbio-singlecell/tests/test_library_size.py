"""LibrarySizeNormalization against scanpy's normalize_total and log1p, and at its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from diffbio.core.errors import ConfigError, ContractError
from diffbio.operators.normalization import (
    LibrarySizeNormalization,
    LibrarySizeNormalizationConfig,
    normalize_library_size,
)


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Negative binomial counts of 300 cells of unlike depth, 400 genes, with an empty cell."""
    random = np.random.default_rng(0)
    means = np.exp(random.normal(-1, 2, 400)) * random.lognormal(0, 1, (300, 1))
    counts = random.poisson(random.gamma(2.0, means / 2)).astype(np.float32)
    counts[7] = 0
    return counts


def test_defaults_equal_scanpy(counts: np.ndarray, certificate) -> None:
    sc = pytest.importorskip("scanpy")
    expected = sc.AnnData(counts.copy())
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    data = LibrarySizeNormalization(LibrarySizeNormalizationConfig()).apply({"counts": counts}, {}, None)[0]
    error = np.abs(np.asarray(data["normalized"]) - expected.X).max()
    certificate(
        operator="LibrarySizeNormalization",
        reference="scanpy normalize_total, log1p",
        data="simulated counts, 300 x 400",
        quantity="largest difference",
        value=error,
        bar="<= 1e-5",
    )
    assert error <= 1e-5
    filled = counts.sum(1) > 0
    np.testing.assert_allclose(data["size_factors"][filled], counts.sum(1)[filled] / 1e4, rtol=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("pseudocount", [0.1, 1.0, 4.0])
def test_formula_with_other_exponents_and_pseudocounts(counts: np.ndarray, exponent: float, pseudocount: float) -> None:
    result = normalize_library_size(
        jnp.asarray(counts), target_sum=100.0, depth_exponent=exponent, pseudocount=pseudocount
    )
    exact = counts.astype(np.float64)
    library = exact.sum(1, keepdims=True)
    factors = np.where(library > 0, library / 100, 1) ** exponent
    np.testing.assert_allclose(result.normalized, np.log1p(exact / factors / pseudocount), atol=1e-5)
    assert (np.asarray(result.normalized)[counts == 0] == 0).all()


def test_an_empty_cell_stays_zero_with_size_factor_one_and_finite_gradients() -> None:
    counts = jnp.array([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])
    result = normalize_library_size(counts)
    assert result.normalized[0].tolist() == [0, 0, 0]
    assert float(result.size_factors[0]) == 1

    def total(counts: jax.Array, exponent: jax.Array, pseudocount: jax.Array) -> jax.Array:
        result = normalize_library_size(counts, depth_exponent=exponent, pseudocount=pseudocount)
        return result.normalized.sum() + result.size_factors.sum()

    gradients = jax.grad(total, argnums=(0, 1, 2))(counts, jnp.float32(0.8), jnp.float32(0.5))
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_counts_of_any_scale_give_the_same_and_finite_gradients(scale: float) -> None:
    counts = jnp.array([[1.0, 0.0, 3.0, 6.0]])
    value = normalize_library_size(scale * counts).normalized
    np.testing.assert_allclose(value, normalize_library_size(counts).normalized, rtol=1e-5)
    gradient = jax.grad(lambda x: normalize_library_size(x).normalized[0, 2])(scale * counts)
    expected = jax.grad(lambda x: normalize_library_size(x).normalized[0, 2])(counts)
    np.testing.assert_allclose(gradient * scale, expected, rtol=1e-4)


def test_gradients_match_finite_differences() -> None:
    counts = np.random.default_rng(1).gamma(1.0, 3.0, (4, 5)).astype(np.float32)
    weights = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)

    @jax.jit
    def total(counts: jax.Array, exponent: jax.Array, log_pseudocount: jax.Array) -> jax.Array:
        result = normalize_library_size(
            counts, target_sum=20.0, depth_exponent=exponent, pseudocount=jnp.exp(log_pseudocount)
        )
        return (weights * result.normalized).sum() + result.size_factors.sum()

    arguments = (jnp.asarray(counts), jnp.float32(0.8), jnp.float32(-0.5))
    check_grads(total, arguments, order=1, modes=["rev", "fwd"], eps=1e-2, rtol=2e-2)


def test_learnable_holds_parameters_and_fixed_holds_none() -> None:
    fixed = LibrarySizeNormalization(LibrarySizeNormalizationConfig(pseudocount=0.5))
    assert not jax.tree.leaves(nnx.state(fixed, nnx.Param))
    learnable = LibrarySizeNormalization(LibrarySizeNormalizationConfig(pseudocount=0.5, learnable=True))
    assert len(jax.tree.leaves(nnx.state(learnable, nnx.Param))) == 2
    learnable.log_pseudocount[...] = jnp.float32(-40.0)  # as far as training may go, it stays above 0
    assert np.isfinite(learnable.apply({"counts": np.ones((2, 3), np.float32)}, {}, None)[0]["normalized"]).all()


def test_training_the_exponent_finds_how_much_depth_to_remove() -> None:
    """Where counts grow with the root of the depth, the exponent 0.5 makes cells alike."""
    random = np.random.default_rng(3)
    depth = random.lognormal(0, 1, (50, 1)).astype(np.float32)
    profile = random.gamma(2.0, 1.0, 20).astype(np.float32)
    counts = jnp.asarray(depth * profile / profile.sum())

    def unevenness(exponent: jax.Array) -> jax.Array:
        normalized = normalize_library_size(counts, target_sum=1.0, depth_exponent=exponent).normalized
        target = jnp.log1p(jnp.sqrt(counts.sum(-1, keepdims=True)) * profile / profile.sum())
        return jnp.square(normalized - target).mean()

    exponent = jnp.float32(1.0)
    step = jax.jit(lambda e: e - 30.0 * jax.grad(unevenness)(e))
    for _ in range(200):
        exponent = step(exponent)
    assert abs(float(exponent) - 0.5) < 1e-3


def test_one_cell_alone_is_normalized_as_among_others(counts: np.ndarray) -> None:
    operator = LibrarySizeNormalization(LibrarySizeNormalizationConfig())
    together = operator.apply({"counts": counts}, {}, None)[0]["normalized"]
    alone = operator.apply({"counts": counts[3]}, {}, None)[0]
    assert alone["normalized"].shape == (400,)
    assert alone["size_factors"].shape == ()
    np.testing.assert_allclose(alone["normalized"], together[3], rtol=1e-6)


def test_errors_say_what_is_wanted() -> None:
    with pytest.raises(ConfigError, match=r"pseudocount is 0.* > 0"):
        LibrarySizeNormalizationConfig(pseudocount=0.0)
    operator = LibrarySizeNormalization(LibrarySizeNormalizationConfig())
    with pytest.raises(ContractError, match="counts"):
        operator.apply({"counts": np.ones((2, 3), np.int32)}, {}, None)
