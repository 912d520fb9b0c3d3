"""ArcsinhTransform against NumPy, and its cofactors trained to stabilize the variance."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from diffbio.core.errors import ConfigError, ContractError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.normalization.arcsinh import ArcsinhTransform, ArcsinhTransformConfig, arcsinh_transform


def abundances() -> np.ndarray:
    """PBMC 68k with the logarithm undone, 700 cells x 765 genes."""
    return np.expm1(pbmc68k_reduced().X.toarray())


def transformed(intensities: np.ndarray, cofactor: float) -> np.ndarray:
    operator = ArcsinhTransform(ArcsinhTransformConfig(n_channels=intensities.shape[1], cofactor=cofactor))
    return np.asarray(operator.apply({"intensities": intensities}, {}, None)[0]["transformed"])


@pytest.mark.parametrize("cofactor", [0.5, 5.0, 150.0])
def test_values_are_those_of_numpy(cofactor: float, certificate: Callable[..., None]) -> None:
    intensities = np.concatenate([abundances() - 1, -abundances()])
    expected = np.arcsinh(intensities.astype(np.float64) / cofactor)
    found = transformed(intensities, cofactor)
    certificate(
        operator="ArcsinhTransform",
        reference=f"arcsinh(x / cofactor) by numpy {np.__version__}",
        data="PBMC 68k abundances, of either sign, 1,400 cells x 765 genes",
        quantity=f"cofactor {cofactor:g}: largest difference",
        value=float(np.abs(found - expected).max()),
        bar="<= 1e-5 relative",
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_training_finds_the_cofactor_that_stabilizes_the_variance() -> None:
    """Additive noise s and multiplicative noise v: arcsinh(x v / s) has the same spread at every level."""
    random = np.random.default_rng(0)
    levels = np.array([0.0, 3.0, 10.0, 30.0, 100.0, 300.0])
    noise = np.array([2.0, 20.0])  # of two channels, each with a tenth of multiplicative noise
    cells = levels[:, None, None] * (1 + 0.1 * random.normal(size=(6, 4000, 1))) + noise * random.normal(
        size=(6, 4000, 2)
    )
    cells = jnp.asarray(cells, jnp.float32)
    operator = ArcsinhTransform(ArcsinhTransformConfig(n_channels=2))

    @nnx.jit
    def step(operator: ArcsinhTransform) -> jax.Array:
        def unevenness(operator: ArcsinhTransform) -> jax.Array:
            return jnp.log(operator.compute(cells).transformed.var(1)).var(0).sum()

        value, gradient = nnx.value_and_grad(unevenness)(operator)
        operator.log_cofactor[...] -= 0.3 * gradient.log_cofactor[...]
        return value

    values = [float(step(operator)) for _ in range(200)]
    found = np.exp(operator.log_cofactor[...])
    print(f"cofactors start at 5, are {noise / 0.1}, and are found as {found}")
    assert values[-1] < 0.05 < values[0]
    np.testing.assert_allclose(found, noise / 0.1, rtol=0.1)


def test_gradients_match_finite_differences() -> None:
    intensities = jnp.asarray(np.random.default_rng(1).normal(0, 20, (4, 3)), jnp.float32)
    check_grads(arcsinh_transform, (intensities, jnp.array([1.0, 5.0, 50.0])), order=1, eps=1e-2, rtol=2e-2)


@pytest.mark.parametrize("intensity", [0.0, 1e-30, -1e-30, 1e30, -1e30])
def test_gradients_are_right_at_every_scale(intensity: float) -> None:
    value, (by_intensity, by_cofactor) = jax.value_and_grad(arcsinh_transform, (0, 1))(
        jnp.float32(intensity), jnp.float32(5.0)
    )
    exact = np.float64(intensity) / 5
    np.testing.assert_allclose(value, np.arcsinh(exact), rtol=1e-6)
    np.testing.assert_allclose(by_intensity, 1 / np.hypot(1, exact) / 5, rtol=1e-5)
    np.testing.assert_allclose(by_cofactor, -exact / np.hypot(1, exact) / 5, rtol=1e-5, atol=1e-30)


def test_learnable_holds_one_parameter_per_channel_and_fixed_none() -> None:
    learnable = ArcsinhTransform(ArcsinhTransformConfig(n_channels=3))
    assert learnable.log_cofactor[...].shape == (3,)
    assert len(jax.tree.leaves(nnx.state(learnable, nnx.Param))) == 1
    fixed = ArcsinhTransform(ArcsinhTransformConfig(n_channels=3, learnable=False))
    assert not jax.tree.leaves(nnx.state(fixed, nnx.Param))


def test_one_cell_and_wrong_sizes() -> None:
    operator = ArcsinhTransform(ArcsinhTransformConfig(n_channels=2))
    assert operator.apply({"intensities": np.ones(2, np.float32)}, {}, None)[0]["transformed"].shape == (2,)
    with pytest.raises(ContractError, match="channels=2"):
        operator.apply({"intensities": np.ones((4, 3), np.float32)}, {}, None)
    with pytest.raises(ConfigError, match="cofactor is -1"):
        ArcsinhTransformConfig(n_channels=2, cofactor=-1.0)
